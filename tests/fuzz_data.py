"""Mutated structure files of every format: `python tests/fuzz_data.py 10000 --keep FOLDER`, see `fuzzing`.

Each file is read with `--types` and without, and refused if it is both times; what comes out must be of the right
shapes, and such that it can be written again.
"""

from __future__ import annotations

import functools
import io
import itertools
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from datasets import TENSOR_SYSTEMS, write_all, write_raw, write_tensors
from fuzzing import main, mutate

if TYPE_CHECKING:
    from dpa2.data import Frame

WATER = "O 0 0 0\nH 0.9 0 0.1\nH 0 0.9 0.2\n"
LATTICE = 'Lattice="8 0 0 0 8 0.5 0 0 8" pbc="T T F"'
TEXTS = {
    "plain.xyz": f"3\nwater\n{WATER}" * 2,
    "extended.xyz": (
        f'3\n{LATTICE} Properties=species:S:1:Z:I:1:pos:R:3:forces:R:3:aparam:R:1 energy=-1.5 stress="1 2 3 4 5 6"'
        " virial=[[1,2,3],[2,4,5],[3,5,6]] fparam='0.5 1' note=\"a b\" config={x y}\n"
        "O 8 0 0 0 .1 .2 .3 1\nH 1 1 0 0 .1 .2 .3 2\nH 1 0 1 0 .1 .2 .3 3\n"
    ),
    "tensors.xyz": (
        f'3\n{LATTICE} Properties=species:S:1:pos:R:3:atomic_dipole:R:3 dipole="1 2 3" dos=[1,2,3] gap=0.5\n'
        "O 0 0 0 .1 .2 .3\nH 1 0 0 .1 .2 .3\nH 0 1 0 .1 .2 .3\n"
    ),
    "ipi.xyz": (
        "3\n# CELL(abcABC): 15.0 15.5 16.0 90.0 85.0 90.0 Step: 0 Bead: 0 positions{angstrom} cell{atomic_unit}\n"
        + WATER
    ),
    "ipi_h.xyz": f"3\n# CELL(GENH): 9 1 0 0 9 0 0 2 9 Step: 3\n{WATER}",
    "dump.lammpstrj": (
        "ITEM: UNITS\nmetal\nITEM: TIMESTEP\n10\nITEM: NUMBER OF ATOMS\n3\nITEM: BOX BOUNDS xy xz yz pp pp fs\n"
        "-1 9.5 0.5\n0 8 0\n0 8 0.25\nITEM: ATOMS id type element mass xs ys zs fx\n"
        "2 1 O 15.999 0.1 0.2 0.3 0\n1 2 H 1.008 0.2 0.2 0.3 0\n3 2 H 1.008 .1 .1 .1 1\n"
    ),
    "general.dump": (
        "ITEM: TIMESTEP\n1\nITEM: NUMBER OF ATOMS\n2\nITEM: BOX BOUNDS abc origin pp pp pp\n8 0 0 0\n1 8 0 0\n0 1 8 1\n"
        "ITEM: ATOMS id type x y z\n1 1 0 0 0\n2 2 1 1 1\n"
    )
    * 2,
    "some.data": (
        "LAMMPS data file, units = metal\n\n3 atoms\n2 bonds\n2 atom types\n\n0 8 xlo xhi\n0 8 ylo yhi\n0 8 zlo zhi\n"
        "0.5 0 0.1 xy xz yz\n\nMasses\n\n1 15.999 # O\n2 1.008 # H\n\nAtoms # full\n\n1 1 1 -0.8 0 0 0 0 0 0\n"
        "2 1 2 0.4 0.9 0 0 0 0 0\n3 1 2 0.4 0 0.9 0 0 1 0\n\nBonds\n\n1 1 1 2\n2 1 1 3\n"
    ),
    "labels.lmp": (
        "title\n2 atoms\n2 atom types\n8 0 0 avec\n0 8 0 bvec\n1 0 8 cvec\n0 0 0 abc origin\n\n"
        "Atom Type Labels\n\n1 O\n2 H\n\nAtoms\n\n1 O 0 0 0\n2 H 1 0 0\n"
    ),
    "one.pdb": (
        "CRYST1   20.000   21.000   22.000  90.00  90.00  95.00 P 1\nMODEL     1\n"
        "ATOM      1  OW  SOL     1       1.000   2.000   3.000  1.00  0.00           O\n"
        "ATOM      2  HW1 SOL     1       1.900   2.000   3.000  1.00  0.00            \nENDMDL\n"
        "MODEL     2\nATOM      1  OW  SOL     1       1.000   2.000   3.000  1.00  0.00           O\nENDMDL\nEND\n"
    ),
    "one.gro": (
        "water t= 1.0\n    3\n    1SOL     OW    1   0.100   0.200   0.300  0.1  0.2  0.3\n"
        "    1SOL    HW1    2   0.190   0.200   0.300\n    1SOL    HW2    3   0.100   0.290   0.300\n"
        "   2.00000   2.10000   2.20000   0.0   0.0   0.5   0.0   0.0   0.0\n"
    ),
    "POSCAR": (
        "water\n1.0\n8 0 0\n0.5 8 0\n0 0 8\nO H\n1 2\nSelective dynamics\nDirect\n"
        "0.1 0.2 0.3 T T F\n0.2 0.2 0.3 T T T\n0.1 0.3 0.3 F F F\n"
    ),
    "old.poscar": "O H\n-512.0\n8 0 0\n0.5 8 0\n0 0 8\n1 2\nCartesian\n0 0 0\n1 0 0\n0 1 0\n",
}
FORMATS = ("cif", "traj", "json", "xsf", "cfg")


@functools.cache
def originals() -> dict[str, dict[str, bytes]]:
    """Sound inputs: by kind, the files that make them, by their names below a folder."""
    import tempfile

    found = {name: {name: text.encode()} for name, text in TEXTS.items()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_all(folder)
        write_raw(folder / "text", folder / "standard")
        write_tensors(folder)
        for name in ("mixed", "open", "standard", "text", *TENSOR_SYSTEMS):
            files = [path for path in sorted((folder / name).rglob("*")) if path.is_file()]
            found[f"{name}/"] = {f"{name}/{path.relative_to(folder / name)}": path.read_bytes() for path in files}
        found["standard.hdf5"] = {"standard.hdf5": (folder / "standard.hdf5").read_bytes()}
        found["small.hdf5"] = {"small.hdf5": _compressed(folder / "small.hdf5")}
        for suffix in FORMATS:
            data = _through_ase(folder / f"some.{suffix}")
            if data is not None:
                found[f"some.{suffix}"] = {f"some.{suffix}": data}
    import gzip

    found["packed.xyz.gz"] = {"packed.xyz.gz": gzip.compress(TEXTS["extended.xyz"].encode(), mtime=0)}
    return found


def _compressed(path: Path) -> bytes:
    """An HDF5 system in chunks, compressed, with names as strings of fixed size."""
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("s")
        group["type.raw"] = np.array([0, 1, 1])
        group["type_map.raw"] = np.array([b"O", b"H"])
        first = group.create_group("set.000")
        coords = np.linspace(0.0, 5.0, 36).reshape(4, 9)
        first.create_dataset("coord.npy", data=coords, chunks=(2, 9), compression="gzip", shuffle=True)
        first.create_dataset("box.npy", data=np.tile(8.0 * np.eye(3).ravel(), (4, 1)), chunks=(1, 9), fletcher32=True)
    return path.read_bytes()


def _through_ase(path: Path) -> bytes | None:
    try:
        import ase.io
        from ase.calculators.singlepoint import SinglePointCalculator
    except ImportError:
        return None
    atoms = ase.Atoms("OHH", [[0, 0, 0], [0.9, 0, 0], [0, 0.9, 0.1]], cell=[8, 8.5, 9], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.ones((3, 3)), stress=np.arange(6.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ase.io.write(path, [atoms, atoms] if path.suffix == ".traj" else atoms)
    return path.read_bytes()


def make(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """One of the inputs, with one of its files mutated."""
    inputs = originals()
    kind = sorted(inputs)[rng.integers(len(inputs))]
    files = dict(inputs[kind])
    victim = sorted(files)[rng.integers(len(files))]
    other = inputs[sorted(inputs)[rng.integers(len(inputs))]]
    files[victim] = mutate(rng, files[victim], other[sorted(other)[0]])
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return kind, str(folder / kind.rstrip("/"))


def labels(frame: Frame) -> None:
    """What models of other kinds ask a frame for."""
    from dpa2 import InputError
    from dpa2.data.labels import label_of

    n = len(frame)
    for name, shape in {"dipole": (3,), "polarizability": (3, 3), "dos": (7,), "gap": (2,)}.items():
        with suppress(InputError):
            found = label_of(frame, name, shape)
            assert found is None or (found.shape == shape and found.dtype == np.float64)
        with suppress(InputError):
            found = label_of(frame, f"atom_{name}", shape, frame.types == 0)
            assert found is None or (found.shape == (n, *shape) and found.dtype == np.float64)


def read(path: str) -> None:
    """All frames of a file, as commands read them."""
    from dpa2 import InputError
    from dpa2.data import read_structures, write_frame

    failures = []
    for types in (None, ("O", "H")):
        try:
            for source in read_structures(path, types=types):
                source.count()
                frames = 0
                for frame in itertools.islice(source, 1000):
                    frames += 1
                    n = len(frame)
                    assert frame.coords.shape == (n, 3)
                    assert frame.coords.dtype == np.float64
                    assert frame.box is None or frame.box.shape == (3, 3)
                    assert frame.box is not None or not any(frame.pbc)
                    assert frame.forces is None or frame.forces.shape == (n, 3)
                    assert frame.virial is None or frame.virial.shape == (3, 3)
                    assert frame.names is None or n == 0 or int(frame.types.max()) < len(frame.names)
                    names = [*(frame.names or ("O", "H")), "X"]
                    if n == 0 or int(frame.types.max()) < len(names) - 1:
                        symbols = [names[max(int(t), -1)] for t in frame.types]
                        write_frame(io.StringIO(), frame.coords, symbols, frame.box, frame.pbc, None, frame.info)
                    labels(frame)
                assert frames > 0
        except InputError as error:
            failures.append(error)
    if len(failures) == 2:
        raise failures[0]


if __name__ == "__main__":
    sys.exit(main("fuzz_data:read", make, __doc__ or ""))
