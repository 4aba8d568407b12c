"""Packages that only some file formats and commands need, or a message that says what is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import InputError


def _needed(module: str, message: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise InputError(message) from None


def hdf5() -> Any:
    """The module ``h5py``."""
    return _needed("h5py", "HDF5 files (.dp, .hlo, .h5, .hdf5) need h5py; install it with: pip install h5py")


def yaml() -> Any:
    """The module ``yaml``."""
    return _needed("yaml", "YAML files (.yaml, .yml) need PyYAML; install it with: pip install PyYAML")


def ase(name: str, needed_for: str) -> Any:
    """A module of ASE by its name, such as ``ase.md.bussi``; ``needed_for`` begins the message."""
    try:
        import_module("ase")
    except ImportError:
        raise InputError(f"{needed_for} needs ASE; install it with: pip install 'dpa2[ase]'") from None
    return _needed(name, f"{needed_for} needs ASE 3.26 or newer; get it with: pip install --upgrade ase")


def phonopy() -> Any:
    """The module ``phonopy``."""
    return _needed("phonopy", "dpa2 phonons needs phonopy; install it with: pip install 'dpa2[phonons]'")
