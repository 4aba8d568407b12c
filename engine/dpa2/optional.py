"""Packages that only some file formats need, or a message that says what is missing."""

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
