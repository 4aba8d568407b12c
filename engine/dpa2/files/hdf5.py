"""`.dp` and `.hlo` files: HDF5 with the tree as JSON in an attribute and the arrays as plain data sets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2 import optional
from dpa2.errors import Error, ModelFileError
from dpa2.files.hdf5_attribute import variable_text
from dpa2.files.nested import load_json
from dpa2.files.torch_zip import widen_bfloat16

_NAME = re.compile(r"/?[A-Za-z0-9_]+")


@contextmanager
def _damage() -> Iterator[None]:
    """Errors of the HDF5 library are damage to the file."""
    try:
        yield
    except Error:
        raise
    except Exception as err:
        raise ModelFileError(f"the HDF5 file is truncated or corrupt ({str(err)[:200]})") from None


class H5Tensor:
    """A data set of the file, read on demand."""

    __slots__ = ("_dataset", "shape")

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.shape: tuple[int, ...] = tuple(dataset.shape)

    def numpy(self) -> NDArray[Any]:
        """The values; bfloat16 (stored as two raw bytes) becomes float32."""
        with _damage():
            values = np.asarray(self._dataset[()])
        if values.dtype.kind == "V":
            return widen_bfloat16(values.view("<u2").reshape(self.shape))
        return values.astype(values.dtype.newbyteorder("="), copy=False)


class TreeFile:
    """An HDF5 file opened read-only; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._h5py, self._path = optional.hdf5(), path
        self.size = path.stat().st_size
        with _damage():
            self._file = self._h5py.File(path, "r", locking=False)

    def __enter__(self) -> TreeFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def tree(self) -> dict[str, Any]:
        """The tree of the file."""
        with _damage():
            return self._tree()

    def _tree(self) -> dict[str, Any]:
        if "json" not in self._file.attrs:
            raise ModelFileError("this HDF5 file holds no model: it has no attribute 'json'")
        h5py = self._h5py
        attribute = self._file.attrs.get_id("json")
        single = attribute.get_space().get_simple_extent_type() == h5py.h5s.SCALAR
        kind = attribute.get_type()
        if not single or not isinstance(kind, h5py.h5t.TypeStringID) or attribute.get_storage_size() > self.size:
            raise ModelFileError("corrupt file: its attribute 'json' is not a string")
        text = variable_text(self._path, "json") if kind.is_variable_str() else self._file.attrs["json"]
        return load_json(text, "the attribute 'json'")

    def resolve(self, value: Any, name: str) -> H5Tensor:
        """The data set that an entry of the tree names."""
        with _damage():
            return self._resolve(value, name)

    def _resolve(self, value: Any, name: str) -> H5Tensor:
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise ModelFileError(f"corrupt file: {name!r} refers to no data set")
        link = self._file.get(value, getlink=True)
        if link is None:
            raise ModelFileError(f"corrupt or incomplete file: the data set {value[:60]!r} of {name!r} is missing")
        if not isinstance(link, self._h5py.HardLink):
            raise ModelFileError(f"hostile file: {value[:60]!r} is a link to somewhere else")
        dataset = self._file[value]
        if not isinstance(dataset, self._h5py.Dataset) or dataset.shape is None or len(dataset.shape) > 8:
            raise ModelFileError(f"corrupt file: {value[:60]!r} is no array")
        plist = dataset.id.get_create_plist()
        plain = plist.get_layout() in (self._h5py.h5d.CONTIGUOUS, self._h5py.h5d.COMPACT)
        if not plain or plist.get_external_count() or plist.get_nfilters():
            raise ModelFileError(f"hostile file: {value[:60]!r} is stored in another file, in chunks or compressed")
        dtype = dataset.dtype
        if dtype.kind != "f" and dtype != np.dtype("V2"):
            raise ModelFileError(f"corrupt file: {value[:60]!r} holds {str(dtype)[:40]} values, not floating point")
        count = 1
        for n in dataset.shape:
            count *= int(n)
        if count * dtype.itemsize > self.size or dataset.id.get_storage_size() != count * dtype.itemsize:
            raise ModelFileError(f"truncated or corrupt file: {value[:60]!r} claims more values than the file holds")
        return H5Tensor(dataset)
