"""Which reader is for which path."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from ..errors import InputError
from .deepmd_stores import HDF5_SUFFIXES
from .deepmd_system import DeepmdSystem, find_systems
from .frames import Frame, Structures, index_names
from .xyz import XyzFile


class AseFile:
    """Any format that ASE reads."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            import ase.io  # noqa: F401
        except ImportError:
            raise InputError(
                f"{path}: only extended XYZ files (.xyz, .extxyz) and deepmd/npy folders are read without ASE; "
                "install it with: pip install 'dpa2[ase]'"
            ) from None

    def count(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Frame]:
        import ase.io

        k = 0
        try:
            for atoms in ase.io.iread(self.path, index=":"):
                yield self._frame(atoms, k)
                k += 1
        except (InputError, OSError, MemoryError):
            raise
        except Exception as error:  # ASE's readers raise whatever comes
            raise InputError(f"{self.path}: ASE cannot read frame {k}: {error or type(error).__name__}") from error

    def _frame(self, atoms: object, k: int) -> Frame:
        from ase import Atoms

        assert isinstance(atoms, Atoms)
        types, names = index_names([str(atom.symbol) for atom in atoms])
        x, y, z = (bool(flag) for flag in atoms.pbc)
        results = dict(atoms.calc.results) if atoms.calc is not None else {}
        forces = results.get("forces")
        return Frame(
            coords=np.ascontiguousarray(atoms.positions, dtype=np.float64),
            types=types,
            names=names,
            box=np.array(atoms.cell, dtype=np.float64) if x or y or z else None,
            pbc=(x, y, z),
            energy=float(results["energy"]) if "energy" in results else None,
            forces=None if forces is None else np.array(forces, dtype=np.float64),
            where=f"{self.path}, frame {k}",
        )


def _is_hdf5(path: str) -> bool:
    """Whether a path that is no folder names an HDF5 file or a group in one."""
    file, hash_sign, _ = path.partition("#")
    return file.lower().endswith(HDF5_SUFFIXES) or (bool(hash_sign) and not os.path.exists(path))


def read_structures(path: str | os.PathLike[str]) -> list[Structures]:
    """The structures of a file or folder: one entry per file, and one per deepmd system of a folder or HDF5 file.

    A folder is a deepmd/npy or deepmd/raw system (it has ``type.raw``) or holds such systems at any depth; so does a
    file ``.hdf5`` or ``.h5``, or its part ``file.hdf5#/group``. Files ending in ``.xyz`` or ``.extxyz`` are read by
    dpa2, others by ASE.

    Raises:
        InputError: nothing to read, or a format that needs ASE without ASE. FileNotFoundError: no such path.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        systems = find_systems(path)
        if not systems:
            raise InputError(f"{path}: no deepmd/npy system in this folder (no type.raw in it or below it)")
        return [DeepmdSystem(system) for system in systems]
    if not os.path.exists(path.partition("#")[0] if _is_hdf5(path) else path):
        raise FileNotFoundError(f"no such structure file or folder: {path}")
    if _is_hdf5(path):
        systems = find_systems(path)
        if not systems:
            raise InputError(f"{path}: no deepmd system in this file (no group with a dataset type.raw)")
        return [DeepmdSystem(system) for system in systems]
    if path.lower().endswith((".xyz", ".extxyz")):
        return [XyzFile(path)]
    return [AseFile(path)]


def read_list(path: str | os.PathLike[str]) -> list[str]:
    """The paths in a text file, one per line, as ``dp test -f`` takes it; empty lines are skipped.

    Raises:
        InputError: no path in it, or no text file. FileNotFoundError: no such file.
    """
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as handle:
            found = [line.strip() for line in handle if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error})") from error
    if not found:
        raise InputError(f"{path}: no paths in this list")
    return found
