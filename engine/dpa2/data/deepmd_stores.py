"""Where the arrays of a deepmd system lie: in folders of .npy files, in an HDF5 file, or in .raw text files.

A store knows files and how to open them; what must be in them is the business of :mod:`.deepmd_system`. Arrays are
opened without reading them, and rows are read as they are needed. HDF5 files are in :mod:`.deepmd_hdf5`.
"""

from __future__ import annotations

import math
import os
import re
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..inputs import Float
from .text import brief, check_regular, natural, real


class Rows(Protocol):
    """An array of which single rows are read: a NumPy array, an HDF5 dataset, or :class:`TextRows`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, index: Any) -> Any: ...


class Store(Protocol):
    """The files of one system. Names are those of deepmd/npy folders, whatever they are stored as."""

    path: str

    def opened(self) -> AbstractContextManager[object]:
        """Keeps open what the other methods read from."""
        ...

    def has(self, name: str) -> bool:
        """Whether the system has this file."""
        ...

    def words(self, name: str) -> list[str]:
        """The words of a text file of the system."""
        ...

    def sets(self) -> list[str]:
        """The names of the sets, in order."""
        ...

    def keys(self, folder: str) -> list[str]:
        """The names of the arrays of a set, in alphabetical order."""
        ...

    def name_of(self, folder: str, key: str) -> str:
        """The array of a set, for messages."""
        ...

    def rows(self, folder: str, key: str) -> Rows:
        """The array itself, or InputError."""
        ...


def read_words(path: str) -> list[str]:
    """The words of a text file.

    Raises:
        InputError: it is none.
    """
    check_regular(path)
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read().split()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error})") from error


# The header is a Python dictionary. It is taken apart by patterns, since nothing else than this may stand in it.
_DESCR = re.compile(r"'descr'\s{0,9}:\s{0,9}'([<>|=]?[a-zA-Z]\w{0,9}(?:\[\w{1,9}\])?)'")
_ORDER = re.compile(r"'fortran_order'\s{0,9}:\s{0,9}(True|False)")
_SHAPE = re.compile(r"'shape'\s{0,9}:\s{0,9}\(([\d\s,L]{0,400})\)")
_MAGIC = b"\x93NUMPY"
_BLOCK = 2**20


class NpyRows:
    """A .npy file of which rows are read as they are asked for; never a pickle, never an archive.

    Nothing is mapped into memory: a file that becomes shorter while it is read would end the process.

    Raises:
        InputError: it is missing, no such file, or shorter than it says; also later, from reading.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            check_regular(path)
        except FileNotFoundError:
            raise InputError(f"{path}: this file is missing") from None
        with open(path, "rb") as handle:
            header, self._start = self._header(handle)
        descr, order, shape = _DESCR.search(header), _ORDER.search(header), _SHAPE.search(header)
        if descr is None or order is None or shape is None:
            raise self._bad(f"its header is no description of a plain array: {brief(header.strip())}")
        try:
            self.dtype: np.dtype[Any] = np.dtype(descr[1])
        except TypeError:
            raise self._bad(f"its elements are of the unknown type {brief(descr[1])}") from None
        sizes = [natural(word.strip().removesuffix("L")) for word in shape[1].split(",") if word.strip()]
        self.shape: tuple[int, ...] = tuple(-1 if size is None else size for size in sizes)
        if self.dtype.hasobject or min(self.shape, default=0) < 0 or len(self.shape) > 16:
            what = "objects of Python" if self.dtype.hasobject else f"an array of shape ({brief(shape[1])})"
            raise self._bad(f"it holds {what}")
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        claimed = math.prod(self.shape) * self.dtype.itemsize
        there = os.path.getsize(path) - self._start
        if claimed > there:
            raise self._bad(f"its header says {claimed} bytes of numbers, but there are {max(0, there)}")
        self._fortran = order[1] == "True" and len(self.shape) > 1
        self._whole: NDArray[Any] | None = None  # of arrays whose rows do not lie together
        self._first, self._block = 0, np.empty((0, *self.shape[1:]), self.dtype) if claimed else None
        self._next = 0  # the row that a walk from the front asks for

    def _bad(self, what: str) -> InputError:
        return InputError(f"{self.path}: not a readable .npy file: {what}")

    def _header(self, handle: IO[bytes]) -> tuple[str, int]:
        """The header, and where the numbers begin."""
        start = handle.read(8)
        width = 2 if start[6:7] == b"\x01" else 4
        length = int.from_bytes(handle.read(width), "little")
        if start[:6] != _MAGIC or start[6:7] not in (b"\x01", b"\x02", b"\x03") or length > 2**16:
            raise self._bad("it does not begin as one")
        header = handle.read(length)
        if len(header) < length:
            raise self._bad("it ends within its header")
        return header.decode("latin-1"), 8 + width + length

    def __getitem__(self, index: Any) -> NDArray[Any]:
        if index is Ellipsis or self._fortran or not self.shape:
            if self._whole is None:
                flat = self._read(0, math.prod(self.shape))
                self._whole = flat.reshape(self.shape, order="F" if self._fortran else "C")
            return self._whole if index is Ellipsis else np.ascontiguousarray(self._whole[index])
        if self._block is None:  # rows of no bytes
            return np.empty(self.shape[1:], self.dtype)
        if not self._first <= index < self._first + len(self._block):
            # blocks for a walk, single rows where they are asked for in any order
            ahead = max(1, _BLOCK // self._row_bytes) if index == self._next else 1
            count = min(self.shape[0] - index, ahead)
            width = math.prod(self.shape[1:])
            self._block = self._read(index * width, count * width).reshape(count, *self.shape[1:])
            self._first = index
        self._next = index + 1
        row: NDArray[Any] = self._block[index - self._first]
        return row

    def _read(self, first: int, count: int) -> NDArray[Any]:
        size = count * self.dtype.itemsize
        with open(self.path, "rb") as handle:
            handle.seek(self._start + first * self.dtype.itemsize)
            data = handle.read(size)
        if len(data) < size:
            raise self._bad("it has become shorter while it was read")
        return np.frombuffer(data, self.dtype)


class NpyStore:
    """deepmd/npy: a folder with folders ``set.*`` of .npy files."""

    def __init__(self, path: str) -> None:
        self.path = path

    def opened(self) -> AbstractContextManager[object]:
        return nullcontext()

    def has(self, name: str) -> bool:
        return os.path.exists(os.path.join(self.path, name))

    def words(self, name: str) -> list[str]:
        return read_words(os.path.join(self.path, name))

    def sets(self) -> list[str]:
        names = [name for name in os.listdir(self.path) if name.startswith("set.")]
        return sorted(name for name in names if os.path.isdir(os.path.join(self.path, name)))

    def keys(self, folder: str) -> list[str]:
        names = os.listdir(os.path.join(self.path, folder))
        return sorted(name.removesuffix(".npy") for name in names if name.endswith(".npy"))

    def name_of(self, folder: str, key: str) -> str:
        return os.path.join(self.path, folder, f"{key}.npy")

    def rows(self, folder: str, key: str) -> Rows:
        return NpyRows(self.name_of(folder, key))


class TextRows:
    """A text file with one row of numbers per line, of which lines are read as they are asked for."""

    dtype: np.dtype[Any] = np.dtype(np.float64)

    def __init__(self, path: str) -> None:
        self.path = path
        self.offsets: list[int] = []
        columns, offset = 0, 0
        try:
            check_regular(path)
        except FileNotFoundError:
            raise InputError(f"{path}: this file is missing") from None
        with open(path, "rb") as handle:
            for line in handle:
                if line.strip():
                    columns = columns or len(line.split())
                    self.offsets.append(offset)
                offset += len(line)
        self.shape: tuple[int, ...] = (len(self.offsets), columns)

    def __getitem__(self, index: int) -> Float:
        with open(self.path, "rb") as handle:
            handle.seek(self.offsets[index])
            words = handle.readline().split()
        where = f"{self.path}, row {index}"
        if len(words) != self.shape[1]:
            raise InputError(f"{where}: {self.shape[1]} numbers expected as in the first row, found {len(words)}")
        try:
            return np.array([real(word.decode("latin-1")) for word in words])
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None


class RawStore(NpyStore):
    """deepmd/raw: a folder with text files ``coord.raw``, ``box.raw``, ``energy.raw``, ... of one line per frame."""

    def sets(self) -> list[str]:
        return [""] if self.has("coord.raw") else []

    def keys(self, folder: str) -> list[str]:
        names = [name.removesuffix(".raw") for name in os.listdir(self.path) if name.endswith(".raw")]
        return sorted(set(names) - {"type", "type_map"})

    def name_of(self, folder: str, key: str) -> str:
        return os.path.join(self.path, f"{key}.raw")

    def rows(self, folder: str, key: str) -> Rows:
        return TextRows(self.name_of(folder, key))
