"""Access to the zip archives that PyTorch writes: bounded, lazy, and without PyTorch.

Tensors come out of the pickle as :class:`LazyTensor`; their storages are read from the archive only when one of
them is turned into an array, and then checked against their declared size and the checksum of the archive.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import ModelFileError
from dpa2.files import pickle_reader
from dpa2.files.pickle_reader import Global, Instance

MAX_TEXT_BYTES = 2**31
MAX_ENTRIES = 200_000
MAX_OVERLAPPED = 2**22
"""Elements a tensor may have beyond those of its storage (strides of zero make that possible)."""

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8",
}  # fmt: skip
_DTYPES = {
    "float64": "float64", "double": "float64", "float32": "float32", "float": "float32", "float16": "float16",
    "half": "float16", "bfloat16": "bfloat16", "int64": "int64", "long": "int64", "int32": "int32", "int": "int32",
    "int16": "int16", "int8": "int8", "uint8": "uint8", "bool": "bool",
}  # fmt: skip


def item_size(dtype: str) -> int:
    """Bytes per element of a dtype name; bfloat16 has two."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def widen_bfloat16(raw: NDArray[np.uint16]) -> NDArray[np.float32]:
    """float32 values of bfloat16 bit patterns."""
    wide: NDArray[np.uint32] = raw.astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32)


class Storage:
    """A storage of the archive: dtype name, entry name, number of elements."""

    __slots__ = ("archive", "dtype", "key", "numel")

    def __init__(self, archive: TorchArchive, dtype: str, key: str, numel: int) -> None:
        self.archive, self.dtype, self.key, self.numel = archive, dtype, key, numel


class LazyTensor:
    """A strided view of a storage that is read on demand."""

    __slots__ = ("dtype", "offset", "shape", "storage", "stride")

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], dtype: str):
        numbers = (offset, *shape, *stride)
        if len(shape) != len(stride) or len(shape) > 8 or any(not _is_index(v) for v in numbers):
            raise ModelFileError("corrupt file: a tensor has an impossible shape, stride or offset")
        count = 1
        for n in shape:
            count *= n
        nbytes = storage.numel * item_size(storage.dtype)
        size = item_size(dtype)
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if count and (last + 1) * size > nbytes:
            raise ModelFileError(f"corrupt file: a tensor of shape {shape} goes beyond its storage {storage.key!r}")
        if count * size > nbytes and count > MAX_OVERLAPPED:
            raise ModelFileError(f"corrupt file: a tensor of shape {shape} repeats a small storage")
        self.storage, self.offset, self.shape, self.stride, self.dtype = storage, offset, shape, stride, dtype

    def numpy(self) -> NDArray[Any]:
        """A C-contiguous copy in native byte order; bfloat16 becomes float32."""
        raw = self.storage.archive.storage_bytes(self.storage)
        base = np.dtype(np.uint16 if self.dtype == "bfloat16" else self.dtype)
        flat = np.frombuffer(raw, dtype=base.newbyteorder(self.storage.archive.byteorder))
        if 0 in self.shape:
            view = np.zeros(self.shape, base)
        else:
            strides = tuple(s * base.itemsize for s in self.stride)
            view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides, writeable=False)
        out = np.array(view, dtype=base, order="C")
        return widen_bfloat16(out) if self.dtype == "bfloat16" else out


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _ints(value: Any, what: str) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > 8 or any(not _is_index(v) for v in value):
        raise ModelFileError(f"corrupt file: {what} of a tensor is not a short list of sizes")
    return tuple(value)


def _rebuild_v2(args: tuple[Any, ...]) -> LazyTensor:
    if len(args) < 4 or not isinstance(args[0], Storage) or not _is_index(args[1]):
        raise ModelFileError("corrupt file: a tensor without a storage")
    return LazyTensor(args[0], args[1], _ints(args[2], "the shape"), _ints(args[3], "the stride"), args[0].dtype)


def _rebuild_v3(args: tuple[Any, ...]) -> LazyTensor:
    if len(args) < 7 or not isinstance(args[0], Storage) or not isinstance(args[6], Global):
        raise ModelFileError("corrupt file: a tensor without a storage or dtype")
    if args[6].module != "torch" or args[6].name not in _DTYPES or not _is_index(args[1]):
        raise ModelFileError(f"a tensor of dtype {str(args[6])!r} cannot be read")
    dtype = _DTYPES[args[6].name]
    return LazyTensor(args[0], args[1], _ints(args[2], "the shape"), _ints(args[3], "the stride"), dtype)


def _first(args: tuple[Any, ...]) -> Any:
    if not args:
        raise ModelFileError("corrupt pickle: a constructor without arguments")
    return args[0]


def _ordered_dict(args: tuple[Any, ...]) -> dict[Any, Any]:
    if not args:
        return {}
    pairs = args[0]
    if len(args) != 1 or not isinstance(pairs, (list, tuple)):
        raise ModelFileError("corrupt pickle: an OrderedDict of something else than pairs")
    out = {}
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ModelFileError("corrupt pickle: an OrderedDict of something else than pairs")
        out[pickle_reader.check_key(pair[0])] = pair[1]
    return out


def _bytes(args: tuple[Any, ...]) -> bytes:
    if len(args) != 2 or not isinstance(args[0], str) or args[1] != "latin1":
        raise ModelFileError("corrupt pickle: unknown text encoding")
    return args[0].encode("latin-1", "replace")


def _opaque(args: tuple[Any, ...]) -> Instance:
    return Instance(Global("", "opaque"), args)


def _scalar(args: tuple[Any, ...]) -> Any:
    """A numpy scalar: (dtype, bytes)."""
    if len(args) != 2 or not isinstance(args[0], Instance) or not isinstance(args[1], bytes):
        raise ModelFileError("corrupt pickle: a malformed numpy scalar")
    code = args[0].args[0] if args[0].args else None
    state = args[0].state
    big = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"
    if code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"):
        raise ModelFileError("corrupt pickle: a numpy scalar of unknown type")
    dtype = np.dtype(str(code)).newbyteorder(">" if big else "<")
    if len(args[1]) != dtype.itemsize:
        raise ModelFileError("corrupt pickle: a numpy scalar of wrong length")
    return np.frombuffer(args[1], dtype)[0].item()


_CONSTRUCTORS: dict[tuple[str, str], pickle_reader.Constructor] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_v2,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_v3,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch", "Size"): lambda args: _ints(_first(args), "the size"),
    ("torch", "device"): _opaque,
    ("torch.jit._pickle", "build_intlist"): _first,
    ("torch.jit._pickle", "build_doublelist"): _first,
    ("torch.jit._pickle", "build_boollist"): _first,
    ("torch.jit._pickle", "build_tensorlist"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("_codecs", "encode"): _bytes,
    ("numpy", "dtype"): _opaque,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _CONSTRUCTORS[_module, "scalar"] = _scalar
    _CONSTRUCTORS[_module, "_reconstruct"] = _opaque

_NAMES = frozenset(
    {("torch", n) for n in _STORAGES}
    | {("torch", n) for n in _DTYPES}
    | {("torch.storage", n) for n in _STORAGES}
    | {("torch.nn.parameter", "Parameter"), ("numpy", "ndarray")}
)


class TorchArchive:
    """A zip archive of PyTorch (or of the ``.pt2`` family), opened read-only; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.size = path.stat().st_size
        self.byteorder: Literal["<", ">"] = "<"
        self._unread = self.size
        self._storages: dict[str, bytes] = {}
        try:
            self._zip = zipfile.ZipFile(path)
        except Exception as err:
            raise ModelFileError(f"the zip archive is truncated or corrupt ({err})") from None
        if len(self._zip.infolist()) > MAX_ENTRIES:
            raise ModelFileError(f"the zip archive has more than {MAX_ENTRIES} entries, which no model has")
        self._entries = {info.filename: info for info in self._zip.infolist()}
        self.root = ""
        for name in self._entries:
            if name.endswith("/data.pkl"):
                self.root = name[: -len("data.pkl")]
                break
        order = self.root + "byteorder"
        if order in self._entries:
            self.byteorder = ">" if self.read(order, 16).strip() == b"big" else "<"

    def __enter__(self) -> TorchArchive:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def names(self) -> list[str]:
        """The names of all entries."""
        return list(self._entries)

    def has(self, name: str) -> bool:
        """Whether the archive has an entry of this full name."""
        return name in self._entries

    def entry_size(self, name: str) -> int:
        """The declared size of an entry in bytes."""
        return self._entries[name].file_size

    def read(self, name: str, limit: int = MAX_TEXT_BYTES) -> bytes:
        """The bytes of an entry, with its checksum verified; at most ``limit`` of them."""
        info = self._entries.get(name)
        if info is None:
            raise ModelFileError(f"the archive has no entry {name[:200]!r}: it is incomplete")
        if info.file_size > limit:
            raise ModelFileError(
                f"the entry {name[:200]!r} claims {info.file_size} bytes; at most {limit} are accepted"
            )
        if info.compress_type != zipfile.ZIP_STORED:
            raise ModelFileError(f"the entry {name[:200]!r} is compressed, which the entries of a model file never are")
        if info.file_size > self.size:
            raise ModelFileError(f"the entry {name[:200]!r} claims more bytes than the file has")
        try:
            data = self._zip.read(info)
        except Exception as err:
            raise ModelFileError(f"the entry {name[:200]!r} is corrupt ({err})") from None
        if len(data) != info.file_size:
            raise ModelFileError(f"the entry {name[:200]!r} is truncated")
        return data

    def storage_bytes(self, storage: Storage) -> bytes:
        """The bytes of a storage, read once."""
        key = storage.key
        if key not in self._storages:
            name = f"{self.root}data/{key}"
            self._unread -= self.entry_size(name)
            if self._unread < 0:
                raise ModelFileError("hostile file: the entries of its archive overlap: together they exceed the file")
            data = self.read(name, limit=self.size)
            if len(data) != storage.numel * item_size(storage.dtype):
                raise ModelFileError(f"the storage {key!r} has {len(data)} bytes, not those of {storage.numel} numbers")
            self._storages[key] = data
        return self._storages[key]

    def unpickle(self, inert: Callable[[str], bool] = lambda module: False) -> Any:
        """The object graph of ``data.pkl``, tensors as :class:`LazyTensor`."""
        data = self.read(self.root + "data.pkl", limit=pickle_reader.MAX_BYTES)
        return pickle_reader.Reader(data, _CONSTRUCTORS, _NAMES, inert, self._persistent).load()

    def _persistent(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise ModelFileError("corrupt pickle: an unknown kind of persistent object")
        cls, key, numel = pid[1], pid[2], pid[4]
        if not isinstance(cls, Global) or cls.name not in _STORAGES or not isinstance(key, str) or len(key) > 64:
            raise ModelFileError("corrupt pickle: a malformed storage")
        name = f"{self.root}data/{key}"
        if not _is_index(numel) or name not in self._entries:
            raise ModelFileError(f"corrupt pickle: the storage {key!r} is missing")
        dtype = _STORAGES[cls.name]
        if numel * item_size(dtype) != self._entries[name].file_size:
            raise ModelFileError(f"the storage {key!r} does not have the declared number of elements")
        return Storage(self, dtype, key, numel)
