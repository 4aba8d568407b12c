"""Where the arrays of a deepmd system lie: in folders of .npy files, in an HDF5 file, or in .raw text files.

A store knows files and how to open them; what must be in them is the business of :mod:`.deepmd_system`. Arrays are
opened without reading them: .npy files are mapped into memory, of HDF5 and text files single rows are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ..errors import InputError
from ..inputs import Float

if TYPE_CHECKING:
    import h5py

HDF5_SUFFIXES = (".h5", ".hdf5")


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
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read().split()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error})") from error


def open_npy(path: str) -> NDArray[Any]:
    """A .npy file, mapped into memory; never a pickle, never an archive.

    Raises:
        InputError: it is missing, or no such file.
    """
    try:
        mapped: NDArray[Any] = npy_format.open_memmap(path, mode="r")
        return mapped
    except FileNotFoundError:
        raise InputError(f"{path}: this file is missing") from None
    except (ValueError, EOFError, SyntaxError, OverflowError) as error:
        empty = _empty_npy(path)  # a file of no rows cannot be mapped
        if empty is None:
            raise InputError(f"{path}: not a readable .npy file: {error}") from error
        return empty


def _empty_npy(path: str) -> NDArray[Any] | None:
    try:
        with open(path, "rb") as handle:
            version = npy_format.read_magic(handle)
            read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, _, dtype = read_header(handle)
    except (ValueError, EOFError, SyntaxError):
        return None
    return np.empty(shape, dtype) if 0 in shape and not dtype.hasobject else None


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
        return open_npy(self.name_of(folder, key))


class TextRows:
    """A text file with one row of numbers per line, of which lines are read as they are asked for."""

    dtype: np.dtype[Any] = np.dtype(np.float64)

    def __init__(self, path: str) -> None:
        self.path = path
        self.offsets: list[int] = []
        columns, offset = 0, 0
        try:
            with open(path, "rb") as handle:
                for line in handle:
                    if line.strip():
                        columns = columns or len(line.split())
                        self.offsets.append(offset)
                    offset += len(line)
        except FileNotFoundError:
            raise InputError(f"{path}: this file is missing") from None
        self.shape: tuple[int, ...] = (len(self.offsets), columns)

    def __getitem__(self, index: int) -> Float:
        with open(self.path, "rb") as handle:
            handle.seek(self.offsets[index])
            words = handle.readline().split()
        where = f"{self.path}, row {index}"
        if len(words) != self.shape[1]:
            raise InputError(f"{where}: {self.shape[1]} numbers expected as in the first row, found {len(words)}")
        try:
            return np.array([float(word) for word in words])
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


@contextmanager
def open_hdf5(path: str) -> Iterator[h5py.File]:
    """An HDF5 file for reading.

    Raises:
        InputError: no such file, or none of HDF5; also for what goes wrong inside it while it is open.
    """
    import h5py

    if not os.path.isfile(path):
        raise FileNotFoundError(f"no such HDF5 file: {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{path}: not a readable HDF5 file: {error}") from error


class Hdf5Store:
    """deepmd/hdf5: a group of an HDF5 file that has the layout of a deepmd/npy folder, named ``file.hdf5#/group``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file_path, _, group = path.partition("#")
        self.group_name = "/" + group.strip("/")
        self.group: Any = None
        self._users = 0
        self._file = ExitStack()

    @contextmanager
    def opened(self) -> Iterator[None]:
        import h5py

        if self.group is None:
            file = self._file.enter_context(open_hdf5(self.file_path))
            group = file.get(self.group_name)
            if not isinstance(group, h5py.Group):
                self._file.close()
                raise InputError(f"{self.path}: there is no group {self.group_name!r} in this file")
            self.group = group
        self._users += 1
        try:
            yield
        except (OSError, RuntimeError, KeyError) as error:
            raise InputError(f"{self.path}: this part of the file cannot be read: {error}") from error
        finally:
            self._users -= 1
            if self._users == 0:
                self.group = None
                self._file.close()

    def has(self, name: str) -> bool:
        return name in self.group

    def words(self, name: str) -> list[str]:
        values = np.asarray(self.group[name]).ravel().tolist()
        return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]

    def sets(self) -> list[str]:
        import h5py

        return sorted(
            name for name in self.group if name.startswith("set.") and isinstance(self.group[name], h5py.Group)
        )

    def keys(self, folder: str) -> list[str]:
        return sorted(name.removesuffix(".npy") for name in self.group[folder] if name.endswith(".npy"))

    def name_of(self, folder: str, key: str) -> str:
        return f"{self.file_path}#{self.group_name.rstrip('/')}/{folder}/{key}.npy"

    def rows(self, folder: str, key: str) -> Rows:
        import h5py

        found = self.group[folder].get(f"{key}.npy")
        if not isinstance(found, h5py.Dataset):
            raise InputError(f"{self.name_of(folder, key)}: this dataset is missing")
        rows: Rows = found
        return rows


def find_hdf5_groups(path: str) -> list[str]:
    """The systems in an HDF5 file, or in the group of one that ``file#/group`` names; those inside of others first."""
    import h5py

    file_path, _, group = path.partition("#")
    found: list[str] = []
    with open_hdf5(file_path) as file:
        top = file.get("/" + group.strip("/"))
        if not isinstance(top, h5py.Group):
            raise InputError(f"{path}: there is no group '/{group.strip('/')}' in this file")

        def visit(name: str, item: object) -> None:
            if isinstance(item, h5py.Group) and "type.raw" in item:
                found.append(str(item.name))

        top.visititems(visit)
        found.sort()
        if "type.raw" in top:
            found.append(str(top.name))
    return [f"{file_path}#{name}" for name in found]
