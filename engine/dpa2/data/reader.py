"""Which reader is for which path."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import InputError
from ..files.detect import FORMATS
from .ase_files import AseFile
from .biomolecules import GroFile, PdbFile, looks_like_pdb
from .deepmd_hdf5 import HDF5_SUFFIXES
from .deepmd_system import DeepmdSystem, find_systems
from .frames import Structures
from .labels import Reading
from .lammps_data import LammpsData, looks_like_data
from .lammps_dump import LammpsDump, looks_like_dump
from .lmdb_frames import is_lmdb
from .lmdb_system import LmdbSystem
from .text import check_regular, head
from .xyz import XyzFile, looks_like_xyz


def _is_hdf5(path: str) -> bool:
    """Whether a path that is no folder names an HDF5 file or a group in one."""
    file, hash_sign, _ = path.partition("#")
    return file.lower().endswith(HDF5_SUFFIXES) or (bool(hash_sign) and not os.path.exists(path))


def read_structures(
    path: str | os.PathLike[str],
    *,
    types: Sequence[str] | None = None,
    atom_style: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    virial_key: str | None = None,
    stress_key: str | None = None,
) -> list[Structures]:
    """The structures of a file or folder: one entry per file, and one per deepmd system of a folder or HDF5 file.

    A folder is a deepmd/npy or deepmd/raw system (it has ``type.raw``) or holds such systems at any depth; so does a
    file ``.hdf5`` or ``.h5``, or its part ``file.hdf5#/group``. A folder with ``data.mdb``, that file, or a path that
    ends in ``.lmdb``, is an LMDB data set. Other files are recognised by their content: XYZ, LAMMPS's dumps and data
    files, PDB; or by their name: ``.xyz``, ``.extxyz``, ``.pdb``, ``.gro``. The rest is read by ASE.

    Args:
        path: the file or folder.
        types: the elements of type numbers 1, 2, ..., for files that have numbers in place of elements.
        atom_style: of a LAMMPS data file that does not say it.
        energy_key, forces_key, virial_key, stress_key: the names of labels in the file, where they are not the usual
            ones (see docs/data.md). A virial from a stress is -volume times it.

    Raises:
        InputError: nothing to read, or a format that needs ASE without ASE. FileNotFoundError: no such path.
        Walking through the structures raises InputError for what is wrong with them, no frames included.
    """
    path = os.fspath(path)
    reading = Reading(
        None if types is None else tuple(types), atom_style, energy_key, forces_key, virial_key, stress_key
    )
    if is_lmdb(path):
        return [LmdbSystem(path, reading)]
    if os.path.isdir(path):
        systems = find_systems(path)
        if not systems:
            raise InputError(f"{path}: no deepmd/npy system in this folder (no type.raw in it or below it)")
        return [DeepmdSystem(system, reading) for system in systems]
    if not os.path.lexists(path.partition("#")[0] if _is_hdf5(path) else path):
        raise FileNotFoundError(f"no such structure file or folder: {path}")
    if _is_hdf5(path):
        systems = find_systems(path)
        if not systems:
            raise InputError(f"{path}: no deepmd system in this file (no group with a dataset type.raw)")
        return [DeepmdSystem(system, reading) for system in systems]
    check_regular(path)
    return [_reader(path)(path, reading)]


def _reader(path: str) -> type[XyzFile | LammpsDump | LammpsData | PdbFile | GroFile | AseFile]:
    """Who reads a file that is no deepmd system."""
    name = path.lower()
    for suffix in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(suffix)
    text = head(path)
    if name.endswith((".xyz", ".extxyz")):
        return XyzFile
    if looks_like_dump(text):
        return LammpsDump
    if looks_like_data(text):
        return LammpsData
    if name.endswith(".gro"):
        return GroFile
    if looks_like_xyz(text):
        return XyzFile
    if name.endswith((".pdb", ".ent")) or looks_like_pdb(text):
        return PdbFile
    if name.endswith(FORMATS):
        raise InputError(
            f"{path}: this looks like a model, and structures are expected: a model is given with -m "
            "(in Python: dpa2.load)"
        )
    return AseFile


def read_list(path: str | os.PathLike[str]) -> list[str]:
    """The paths in a text file, one per line, as ``dp test -f`` takes it; empty lines are skipped.

    Raises:
        InputError: no path in it, or no text file. FileNotFoundError: no such file.
    """
    path = os.fspath(path)
    check_regular(path)
    try:
        with open(path, encoding="utf-8") as handle:
            found = [line.strip() for line in handle if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error})") from error
    if not found:
        raise InputError(f"{path}: no paths in this list")
    return found
