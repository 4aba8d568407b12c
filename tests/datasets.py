"""Small data sets with labels, for the tests and for the golden answers of deepmd-kit to them.

Needs NumPy and h5py alone, so that the generator can import it in an environment without dpa2. All numbers come from
a generator with a fixed seed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

#: the systems in alphabetical order, which is the one that the golden answers have
SYSTEMS = ("mixed", "open", "standard")
#: data sets for models of other kinds than energies
TENSOR_SYSTEMS = ("tensors_open", "tensors_periodic")
#: where one of them lies again in the HDF5 file
HDF5_GROUP = "/water/standard"
BOX = np.array([[5.0, 0.2, 0.0], [0.0, 5.5, 0.3], [-0.2, 0.0, 6.0]])


def scattered(rng: np.random.Generator, nframes: int, natoms: int) -> np.ndarray:
    """(nframes, natoms, 3) angstrom: points of a grid in the box, shaken; neighbours are about 1.3 apart or more."""
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = np.stack([rng.permutation(len(grid))[:natoms] for _ in range(nframes)])
    return (grid[chosen] / 3.0 + 0.03 * rng.normal(size=(nframes, natoms, 3))) @ BOX


def labels(rng: np.random.Generator, nframes: int, natoms: int) -> dict[str, np.ndarray]:
    """Energies, forces and virials of no model."""
    return {
        "energy": rng.normal(size=nframes) - 3.0 * natoms,
        "force": rng.normal(size=(nframes, 3 * natoms)),
        "virial": rng.normal(size=(nframes, 9)),
    }


def write_arrays(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """A set."""
    folder.mkdir(parents=True)
    for key, array in arrays.items():
        np.save(folder / f"{key}.npy", array)


def write_words(path: Path, words: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")


def write_standard(folder: Path) -> None:
    """Two sets, names in another order than the model's, every label, weights of forces."""
    rng = np.random.default_rng(11)
    types = [0, 0, 1, 0, 0, 1]
    write_words(folder / "type.raw", types)
    write_words(folder / "type_map.raw", ["H", "O"])
    for k, nframes in enumerate((3, 2)):
        arrays = {
            "coord": scattered(rng, nframes, 6).reshape(nframes, 18),
            "box": np.tile(BOX.ravel(), (nframes, 1)),
            "atom_ener": rng.normal(size=(nframes, 6)),
            "atom_pref": rng.integers(0, 4, size=(nframes, 6)).astype(float),
            **labels(rng, nframes, 6),
        }
        write_arrays(folder / f"set.{k:03d}", arrays)


def write_open(folder: Path) -> None:
    """Open boundaries, single precision, no virial, one set of a single frame without an axis of frames."""
    rng = np.random.default_rng(12)
    write_words(folder / "type.raw", [1, 0, 1])
    write_words(folder / "type_map.raw", ["O", "H"])
    (folder / "nopbc").touch()
    for k, nframes in enumerate((2, 1)):
        arrays = {"coord": scattered(rng, nframes, 3).reshape(nframes, 9), **labels(rng, nframes, 3)}
        del arrays["virial"]
        arrays = {key: array.astype(np.float32) for key, array in arrays.items()}
        if nframes == 1:
            arrays = {key: array[0] if key != "energy" else array for key, array in arrays.items()}
        write_arrays(folder / f"set.{k:03d}", arrays)


def write_mixed(folder: Path) -> None:
    """Mixed type: frames of different compositions, shorter ones filled up with virtual atoms."""
    rng = np.random.default_rng(13)
    nframes, natoms = 4, 7
    write_words(folder / "type.raw", [0] * natoms)
    write_words(folder / "type_map.raw", ["H", "O"])
    types = rng.integers(0, 2, size=(nframes, natoms))
    types[1, 5:] = -1
    types[3, 2:] = -1
    arrays = {
        "coord": scattered(rng, nframes, natoms),
        "box": np.tile(BOX.ravel(), (nframes, 1)),
        "real_atom_types": types,
        **labels(rng, nframes, natoms),
    }
    arrays["force"] = (arrays["force"].reshape(nframes, natoms, 3) * (types >= 0)[:, :, None]).reshape(nframes, -1)
    arrays["coord"] = (arrays["coord"] * (types >= 0)[:, :, None]).reshape(nframes, -1)
    write_arrays(folder / "set.000", arrays)


def write_tensors(folder: Path) -> None:
    """Two data sets with labels for all kinds, below ``folder``; for models of the types O, H and Cu.

    In the periodic one the types stand in another order, and atomic tensors are there for all atoms. The open one has
    them for oxygen alone, under their other names.
    """
    rng = np.random.default_rng(14)
    for system, types, names in (
        ("tensors_periodic", [0, 1, 1, 0, 2, 1], ["H", "O", "Cu"]),
        ("tensors_open", [0, 1, 0, 1], ["O", "H"]),
    ):
        periodic, nframes, natoms = system == "tensors_periodic", 2, len(types)
        write_words(folder / system / "type.raw", types)
        write_words(folder / system / "type_map.raw", names)
        arrays = {
            "coord": scattered(rng, nframes, natoms).reshape(nframes, -1),
            "fparam": rng.normal(size=(nframes, 1)),
            "dipole": rng.normal(size=(nframes, 3)),
            "polarizability": rng.normal(size=(nframes, 9)),
            "dos": rng.normal(size=(nframes, 7)),
            "gap": rng.normal(size=(nframes, 2)),
            "atom_dos": rng.normal(size=(nframes, natoms * 7)),
            "atom_gap": rng.normal(size=(nframes, natoms * 2)),
        }
        if periodic:
            arrays["box"] = np.tile(BOX.ravel(), (nframes, 1))
        else:
            (folder / system / "nopbc").touch()
        for name, width in (("dipole", 3), ("polarizability", 9)):
            arrays[f"atom_{name}" if periodic else f"atomic_{name}"] = rng.normal(size=(nframes, natoms * width))
        write_arrays(folder / system / "set.000", arrays)


def write_hdf5(path: Path, group: str, system: Path) -> None:
    """The system of a folder as a group of an HDF5 file."""
    import h5py

    with h5py.File(path, "a") as file:
        top = file.require_group(group)
        top["type.raw"] = np.loadtxt(system / "type.raw", dtype=np.int64, ndmin=1)
        names = (system / "type_map.raw").read_text().split()
        top.create_dataset("type_map.raw", data=np.array(names, dtype=object), dtype=h5py.string_dtype())
        for array in system.glob("set.*/*.npy"):
            top[f"{array.parent.name}/{array.name}"] = np.load(array)


def write_raw(folder: Path, system: Path) -> None:
    """The sets of a system as text files of one line per frame."""
    folder.mkdir(parents=True)
    for name in ("type.raw", "type_map.raw"):
        (folder / name).write_text((system / name).read_text())
    sets = sorted(system.glob("set.*"))
    for array in sets[0].glob("*.npy"):
        rows = np.concatenate([np.load(folder / array.name).reshape(-1, _width(array)) for folder in sets])
        np.savetxt(folder / f"{array.stem}.raw", rows, fmt="%.17g")


def stored_as(store: str, npy: Path, arrays: dict[str, np.ndarray]) -> tuple[Path, dict[str, np.ndarray]]:
    """A system of two sets as "npy", "raw" (two frames of it) or "hdf5": its path, and the arrays that are there."""
    if store == "raw":
        shutil.rmtree(npy / "set.001")
        write_raw(npy.parent / store, npy)
        return npy.parent / store, {key: array[:2] for key, array in arrays.items()}
    if store == "hdf5":
        write_hdf5(npy.parent / "some.hdf5", "/some", npy)
        return npy.parent / "some.hdf5", arrays
    return npy, arrays


def _width(array: Path) -> int:
    return int(np.prod(np.load(array).shape[1:], dtype=int))


def write_all(folder: Path) -> None:
    """All of them, below ``folder``."""
    write_mixed(folder / "mixed")
    write_open(folder / "open")
    write_standard(folder / "standard")
    write_hdf5(folder / "standard.hdf5", HDF5_GROUP, folder / "standard")
