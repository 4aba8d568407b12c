"""deepmd/hdf5: systems in an HDF5 file that has the layout of deepmd/npy folders, named ``file.hdf5#/group``.

A file is read only where it holds the numbers itself: no links to other files, no numbers that lie in other files or
were never written. Nothing is allocated that a file of its size cannot mean.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import optional
from ..errors import Error, InputError, ModelFileError
from ..files.hdf5_attribute import heap_object
from .deepmd_stores import Rows
from .text import check_regular

if TYPE_CHECKING:
    import h5py

HDF5_SUFFIXES = (".h5", ".hdf5")
# a row, or a chunk of a compressed dataset, may be so large, and so much larger for every byte of the file
_ROW_BYTES, _EXPANSION = 2**20, 200
_WORD_BYTES, _MOST_WORDS = 2**20, 10_000
_MOST_LINKS = 16


@contextmanager
def open_hdf5(path: str) -> Iterator[h5py.File]:
    """An HDF5 file for reading.

    Raises:
        InputError: no HDF5 file; also for what goes wrong inside it while it is open. FileNotFoundError: no such file.
    """
    check_regular(path)
    h5py = optional.hdf5()
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except Error:
        raise
    except Exception as error:  # the library has many for damaged files
        raise InputError(f"{path}: not a readable HDF5 file: {str(error)[:300]}") from error


def find(top: Any, name: str) -> Any:
    """An object of a file by its name, through links within the file; None where there is none.

    Raises:
        InputError: a link to another file, or one that goes round in circles.
    """
    h5py = optional.hdf5()
    place, parts, links = top, [part for part in name.split("/") if part], 0
    while parts:
        part = parts.pop(0)
        link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
        if link is None:
            return None
        if isinstance(link, h5py.SoftLink):
            links += 1
            if links > _MOST_LINKS:
                raise InputError(f"{top.file.filename}#{top.name}: the link {name!r} goes round in circles")
            target = str(link.path)
            place = place.file if target.startswith("/") else place
            parts = [word for word in target.split("/") if word and word != "."] + parts
        elif isinstance(link, h5py.HardLink):
            place = place[part]
        else:
            raise InputError(
                f"{top.file.filename}#{top.name}: {name!r} is a link to another file, which is not followed"
            )
    return place


def check_dataset(dataset: Any, name: str, size: int) -> None:
    """Refuse a dataset that the file does not hold as a whole.

    Args:
        dataset: of HDF5. name: for messages. size: of the file, bytes.

    Raises:
        InputError: what is wrong with it.
    """
    h5py = optional.hdf5()
    if dataset.shape is None:
        raise InputError(f"{name}: this dataset is empty")
    plist = dataset.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
        raise InputError(f"{name}: the numbers of this dataset lie in other files, which are not read")
    shape, itemsize = [int(n) for n in dataset.shape], dataset.dtype.itemsize
    stored, claimed = dataset.id.get_storage_size(), math.prod(shape) * itemsize
    allowed = _ROW_BYTES + _EXPANSION * size
    row = math.prod(shape[1:]) * itemsize
    if plist.get_layout() == h5py.h5d.CHUNKED:
        chunk = plist.get_chunk()
        needed = math.prod(-(-n // c) for n, c in zip(shape, chunk, strict=True))
        complete = dataset.id.get_num_chunks() >= needed
        row = max(row, math.prod(chunk) * itemsize)
    else:
        complete = stored >= claimed
    if claimed and not complete:
        raise InputError(f"{name}: this dataset of shape {tuple(shape)} was not written, or in part only")
    if row > allowed:
        raise InputError(f"{name}: a row of {row} bytes cannot be in a file of {size} bytes")


class Hdf5Store:
    """A group of an HDF5 file that has the layout of a deepmd/npy folder."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file_path, _, group = path.partition("#")
        self.group_name = "/" + group.strip("/")
        self.group: Any = None
        self._size = 0
        self._users = 0
        self._file = ExitStack()

    @contextmanager
    def opened(self) -> Iterator[None]:
        h5py = optional.hdf5()
        if self.group is None:
            file = self._file.enter_context(open_hdf5(self.file_path))
            with self._closing_on_error():
                group = find(file, self.group_name)
                if not isinstance(group, h5py.Group):
                    raise InputError(f"{self.path}: there is no group {self.group_name!r} in this file")
            self._size = os.path.getsize(self.file_path)
            self.group = group
        self._users += 1
        try:
            yield
        except Error:
            raise
        except Exception as error:
            raise InputError(f"{self.path}: this part of the file cannot be read: {str(error)[:300]}") from error
        finally:
            self._users -= 1
            if self._users == 0:
                self.group = None
                self._file.close()

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._file.close()
            raise

    def has(self, name: str) -> bool:
        return find(self.group, name) is not None

    def words(self, name: str) -> list[str]:
        h5py = optional.hdf5()
        dataset, label = find(self.group, name), f"{self.file_path}#{self.group_name.rstrip('/')}/{name}"
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(f"{label}: this dataset is missing")
        check_dataset(dataset, label, self._size)
        if dataset.size > self._size:
            raise InputError(f"{label}: {dataset.size} entries cannot be in a system of a file of {self._size} bytes")
        if dataset.dtype.kind in "fiub":
            return [str(value) for value in np.asarray(dataset[()]).ravel().tolist()]
        text = dataset.dtype.kind == "S" or h5py.check_string_dtype(dataset.dtype) is not None
        if not text:
            raise InputError(f"{label}: words or numbers expected, found elements of type {dataset.dtype}")
        too_long = InputError(f"{label}: these words are too many or too long for names of types")
        if dataset.size * dataset.dtype.itemsize > _WORD_BYTES or dataset.size > _MOST_WORDS:
            raise too_long
        words, length = [], 0
        variable = dataset.dtype.kind == "O"
        for value in self._texts(dataset, label) if variable else np.asarray(dataset[()]).ravel().tolist():
            length += len(value)
            if length > _WORD_BYTES:
                raise too_long
            words.append(value.decode("utf-8", "replace"))
        return words

    def _texts(self, dataset: Any, label: str) -> Iterator[bytes]:
        """Texts of variable length, one by one; not by the HDF5 library, which a damaged heap keeps busy for ever."""
        offset, base = dataset.id.get_offset(), dataset.file.userblock_size
        if offset is None:
            raise InputError(
                f"{label}: texts of variable length must be stored in one piece (without chunks), or as type 'S'"
            )
        with open(self.file_path, "rb") as file:
            file.seek(base + offset)
            entries = file.read(16 * dataset.size)
            for size, address, index in struct.iter_unpack("<IQI", entries[: len(entries) // 16 * 16]):
                if size > _WORD_BYTES:
                    raise InputError(f"{label}: a word of {size} bytes is no name of a type")
                try:
                    yield heap_object(file, base + address, index, size).rstrip(b"\0") if size else b""
                except ModelFileError:
                    raise InputError(f"{label}: damaged: a text is not where the dataset says") from None

    def sets(self) -> list[str]:
        h5py = optional.hdf5()
        names = [name for name in self.group if name.startswith("set.")]
        return sorted(name for name in names if isinstance(find(self.group, name), h5py.Group))

    def keys(self, folder: str) -> list[str]:
        return sorted(name.removesuffix(".npy") for name in find(self.group, folder) if name.endswith(".npy"))

    def name_of(self, folder: str, key: str) -> str:
        return f"{self.file_path}#{self.group_name.rstrip('/')}/{folder}/{key}.npy"

    def rows(self, folder: str, key: str) -> Rows:
        h5py = optional.hdf5()
        found, name = find(self.group, f"{folder}/{key}.npy"), self.name_of(folder, key)
        if not isinstance(found, h5py.Dataset):
            raise InputError(f"{name}: this dataset is missing")
        check_dataset(found, name, self._size)
        rows: Rows = found
        return rows


def find_hdf5_groups(path: str) -> list[str]:
    """The systems in an HDF5 file, or in the group of one that ``file#/group`` names; those inside of others first."""
    h5py = optional.hdf5()
    file_path, _, group = path.partition("#")
    found: list[str] = []
    with open_hdf5(file_path) as file:
        top = find(file, group)
        if not isinstance(top, h5py.Group):
            raise InputError(f"{path}: there is no group '/{group.strip('/')}' in this file")

        def visit(name: str, item: object) -> None:
            if isinstance(item, h5py.Group) and item.get("type.raw", getlink=True) is not None:
                found.append(str(item.name))

        top.visititems(visit)
        found.sort()
        if top.get("type.raw", getlink=True) is not None:
            found.append(str(top.name))
    return [f"{file_path}#{name}" for name in found]
