"""deepmd-kit's LMDB data sets: single frames of any composition, packed by MessagePack, with a table of contents."""

from __future__ import annotations

import math
import os
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .lmdb_file import LmdbFile
from .msgpack import unpack
from .text import brief, first_twice

#: deepmd-kit's names of what has others in these files
_NAMES = {
    "coords": "coord", "cells": "box", "energies": "energy", "forces": "force", "virials": "virial",
    "atom_types": "atype",
}  # fmt: skip
_CONTENTS = b"__metadata__"
_FORMAT = re.compile(r"0?\d{0,3}d")


def is_lmdb(path: str) -> bool:
    """Whether a path names such a data set."""
    return path.endswith((".lmdb", ".mdb")) or os.path.isfile(os.path.join(path, "data.mdb"))


class LmdbFrames:
    """A data set, of which frames are read by their numbers.

    Args:
        path: the folder.

    Attributes:
        nframes: how many.
        type_map: the names of its types, or None.
        natoms: (nframes,) atoms of each.
        systems: (nframes,) the number of the system that each comes from, or None.

    Raises:
        InputError: it is none; also later, from frames. FileNotFoundError: there is none.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = LmdbFile(path)
        packed = self._file.get(_CONTENTS)
        if packed is None:
            raise InputError(f"{path}: no LMDB data set of deepmd-kit: it has no entry {_CONTENTS.decode()}")
        contents = unpack(packed, f"{path}, {_CONTENTS.decode()}")
        nframes = contents.get("nframes") if isinstance(contents, dict) else None
        if not isinstance(nframes, int) or not 0 < nframes <= self._file.entries:
            what = "no frames" if nframes == 0 else f"nframes is {nframes!r}, with {self._file.entries} entries"
            raise InputError(f"{path}: {what} in this data set")
        self.nframes = nframes
        self._format = contents.get("frame_idx_fmt", "012d")
        if not isinstance(self._format, str) or not _FORMAT.fullmatch(self._format):
            raise InputError(f"{path}: frame_idx_fmt must be like '012d', found {self._format!r}")
        self.type_map = self._names(contents.get("type_map"))
        counts = self._table(contents, "frame_nlocs")
        self.natoms = self._counted() if counts is None else counts
        self.systems = self._table(contents, "frame_system_ids")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _names(self, names: Any) -> tuple[str, ...] | None:
        if names is None:
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{self.path}: type_map must be a list of names, found {brief(str(names))}")
        twice = first_twice(names)
        if twice is not None:
            raise InputError(f"{self.path}: type_map has {brief(twice)} twice")
        return tuple(names)

    def _table(self, contents: dict[str, Any], name: str) -> NDArray[np.int32] | None:
        values = contents.get(name)
        if values is None:
            return None
        values = _array(values, f"{self.path}: {name}") if isinstance(values, dict) else values
        try:
            table = np.asarray(values, dtype=np.int64)
        except (TypeError, ValueError, OverflowError):
            table = np.empty((0, 0), dtype=np.int64)
        if table.shape != (self.nframes,) or table.min() < 0 or table.max() >= 2**31:
            raise InputError(f"{self.path}: {name} must be {self.nframes} numbers that are not negative")
        return table.astype(np.int32)

    def _counted(self) -> NDArray[np.int32]:
        """From the frames, where the contents do not say it."""
        return np.array([len(self.frame(k)["atype"]) for k in range(self.nframes)], dtype=np.int32)

    def where(self, number: int) -> str:
        """The frame, for messages."""
        return f"{self.path}, frame {number}"

    def frame(self, number: int) -> dict[str, Any]:
        """The arrays of a frame as they are stored, under deepmd-kit's names; ``coord`` and ``atype`` are there.

        Raises:
            InputError: the frame is missing, or cannot be read.
        """
        where = self.where(number)
        packed = self._file.get(format(number, self._format).encode())
        if packed is None:
            raise InputError(f"{where}: this frame is missing")
        entries = unpack(packed, where)
        if not isinstance(entries, dict):
            raise InputError(f"{where}: a dictionary of arrays expected, found {type(entries).__name__}")
        found: dict[str, Any] = {}
        for key, value in entries.items():
            name = _NAMES.get(key, key) if isinstance(key, str) else str(key)
            name = name.replace("find_atomic_", "find_atom_") if name.startswith("find_") else name
            name = "atom_" + name.removeprefix("atomic_") if name.startswith("atomic_") else name
            if isinstance(value, dict) and ("data" in value or b"data" in value):
                found[name] = _array(value, f"{where}: {key}")
            elif isinstance(value, (int, float)):
                found[name] = np.asarray(value)
        for name in ("coord", "atype"):
            if name not in found:
                raise InputError(f"{where}: this frame has no {name}")
        return found


def _array(entry: dict[Any, Any], where: str) -> NDArray[Any]:
    """An array from its type, its shape and its bytes."""
    parts = {str(key, "utf-8", "replace") if isinstance(key, bytes) else key: value for key, value in entry.items()}
    data = parts.get("data")
    try:
        dtype = np.dtype(parts.get("type", b""))
    except (TypeError, ValueError):
        raise InputError(f"{where} has elements of the unknown type {brief(str(parts.get('type')))}") from None
    if dtype.kind not in "fiub" or not isinstance(data, bytes):
        raise InputError(f"{where} must be an array of numbers, found elements of type {dtype}")
    shape = parts.get("shape", [len(data) // dtype.itemsize])
    good = isinstance(shape, list) and len(shape) < 16 and all(isinstance(n, int) and n >= 0 for n in shape)
    if not good or math.prod(shape) * dtype.itemsize != len(data):
        raise InputError(f"{where}: {len(data)} bytes are no array of {dtype} of shape {brief(str(shape))}")
    array: NDArray[Any] = np.frombuffer(data, dtype=dtype).reshape(shape)
    return array
