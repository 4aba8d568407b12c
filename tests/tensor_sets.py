"""Data sets for what the two of `datasets.write_tensors` do not have, and for the golden answers of deepmd-kit to them.

For models of the types O, H and Cu. Needs NumPy alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import BOX, scattered, write_arrays, write_words

#: in the order that the golden answers have
MORE_TENSORS = ("hydrogen", "metal")
NAMES = ("H", "Cu", "O")
WIDTHS = {"dipole": 3, "polarizability": 9, "dos": 7, "gap": 2}


def labels(rng: np.random.Generator, nframes: int, natoms: int) -> dict[str, np.ndarray]:
    """Every label, of the frames and of all atoms, and the parameters that models of dos take."""
    return {
        "fparam": rng.normal(size=(nframes, 1)),
        **{name: rng.normal(size=(nframes, width)) for name, width in WIDTHS.items()},
        **{f"atom_{name}": rng.normal(size=(nframes, natoms * width)) for name, width in WIDTHS.items()},
    }


def write_hydrogen(folder: Path) -> None:
    """Hydrogen alone, in a set of one frame without an axis of frames: a model may have it excluded."""
    rng = np.random.default_rng(41)
    write_words(folder / "type.raw", [0, 0, 0])
    write_words(folder / "type_map.raw", NAMES)
    arrays = {"coord": scattered(rng, 1, 3).reshape(1, 9), "box": BOX.reshape(1, 9), **labels(rng, 1, 3)}
    write_arrays(folder / "set.000", {key: array[0] for key, array in arrays.items()})


def write_metal(folder: Path) -> None:
    """Two sets; dipoles of copper and oxygen atoms alone, under their other name."""
    rng = np.random.default_rng(42)
    types = [2, 0, 1, 0, 1]
    write_words(folder / "type.raw", types)
    write_words(folder / "type_map.raw", NAMES)
    for k, nframes in enumerate((2, 1)):
        arrays = {
            "coord": scattered(rng, nframes, 5).reshape(nframes, 15),
            "box": np.tile(BOX.ravel(), (nframes, 1)),
            **labels(rng, nframes, 5),
        }
        del arrays["atom_dipole"]
        arrays["atomic_dipole"] = rng.normal(size=(nframes, 3 * 3))
        write_arrays(folder / f"set.{k:03d}", arrays)


def mixed_arrays() -> dict[str, np.ndarray]:
    """Frames of different compositions, shorter ones filled up with virtual atoms, whose labels are zero."""
    rng = np.random.default_rng(43)
    nframes, natoms = 4, 5
    types = rng.integers(0, 3, size=(nframes, natoms))
    types[1, 4:] = -1
    types[3, 2:] = -1
    arrays = {"coord": scattered(rng, nframes, natoms).reshape(nframes, -1), **labels(rng, nframes, natoms)}
    for name, width in {"coord": 3, **{f"atom_{name}": width for name, width in WIDTHS.items()}}.items():
        arrays[name] = (arrays[name].reshape(nframes, natoms, width) * (types >= 0)[:, :, None]).reshape(nframes, -1)
    return {**arrays, "box": np.tile(BOX.ravel(), (nframes, 1)), "real_atom_types": types}


def write_mixed_tensors(folder: Path) -> None:
    """A system of mixed type."""
    arrays = mixed_arrays()
    write_words(folder / "type.raw", [0] * arrays["real_atom_types"].shape[1])
    write_words(folder / "type_map.raw", NAMES)
    write_arrays(folder / "set.000", arrays)


def write_split_tensors(folder: Path) -> list[str]:
    """The frames of that system as systems of their own, without virtual atoms; their names."""
    arrays = mixed_arrays()
    types = arrays.pop("real_atom_types")
    names = [f"frame_{f}" for f in range(len(types))]
    for f, name in enumerate(names):
        real = types[f] >= 0
        write_words(folder / name / "type.raw", types[f][real])
        write_words(folder / name / "type_map.raw", NAMES)
        rows = {
            key: array[f].reshape(len(real), -1)[real] if key == "coord" or key.startswith("atom_") else array[f]
            for key, array in arrays.items()
        }
        write_arrays(folder / name / "set.000", {key: row.reshape(1, -1) for key, row in rows.items()})
    return names


def write_more_tensors(folder: Path) -> None:
    """All of them, below ``folder``."""
    write_hydrogen(folder / "hydrogen")
    write_metal(folder / "metal")
    write_mixed_tensors(folder / "mixed")
