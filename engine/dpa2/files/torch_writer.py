"""Archives that ``torch.load(..., weights_only=True)`` reads: plain objects and tensors, written without PyTorch.

An archive is a zip file whose entries are stored as they are: ``data.pkl`` is the object, a pickle in which tensors
refer to storages; ``data/0``, ``data/1``, ... are the bytes of those.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

#: bytes at whose multiples storages begin, so that readers can map them
_ALIGNMENT = 64
#: deeper objects have no reason to be in a checkpoint; they refer to themselves
_DEEPEST = 200

_STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage",
    "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage", "uint8": "ByteStorage",
    "bool": "BoolStorage",
}  # fmt: skip


def write(handle: BinaryIO, value: Any, root: str = "archive") -> None:
    """Write an object to a file that is open for writing.

    Args:
        handle: the file.
        value: dicts with keys of text or whole numbers, ordered ones stay ordered; lists, tuples, texts, numbers,
            flags, None; arrays of NumPy, which become tensors. An array that occurs twice is one storage.
        root: the folder of the entries in the archive.

    Raises:
        TypeError: anything else.
    """
    pickler = _Pickler()
    data = pickler.dumps(value)
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED) as archive:
        entries: list[tuple[str, bytes]] = [
            ("data.pkl", data),
            (".format_version", b"1"),
            (".storage_alignment", str(_ALIGNMENT).encode()),
            ("byteorder", b"little"),
        ]
        entries += [(f"data/{key}", _bytes(array)) for key, array in enumerate(pickler.storages)]
        # PyTorch tells archives apart by it; the same contents have the same
        identity = f"{zlib.crc32(data):020d}{len(data):020d}"
        entries += [("version", b"3\n"), (".data/serialization_id", identity.encode())]
        for name, content in entries:
            info = zipfile.ZipInfo(f"{root}/{name}")
            # the header has 30 bytes, the name, and these: a mark, their number, and as many as are needed
            header = handle.tell() + 30 + len(info.filename.encode()) + 4
            filling = -header % _ALIGNMENT
            info.extra = b"FB" + struct.pack("<H", filling) + b"Z" * filling
            archive.writestr(info, content)


def _bytes(array: NDArray[Any]) -> bytes:
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return little.tobytes()


class _Pickler:
    """Writes one object in protocol 2 of pickle, in the subset of it that is safe to read.

    Attributes:
        storages: the arrays that the tensors refer to, in the order of their keys.
    """

    def __init__(self) -> None:
        self.storages: list[NDArray[Any]] = []
        self._out: list[bytes] = [b"\x80\x02"]
        self._keys: dict[int, int] = {}

    def dumps(self, value: Any) -> bytes:
        """The pickle."""
        self._add(value, 0)
        return b"".join([*self._out, b"."])

    def _add(self, value: Any, depth: int) -> None:
        if depth > _DEEPEST:
            raise TypeError("the object is nested too deeply, or holds itself")
        if isinstance(value, np.generic):
            value = value.item()
        add: Callable[[Any, int], None] | None = next(
            (add for kind, add in self._kinds() if isinstance(value, kind)), None
        )
        if value is None:
            self._out.append(b"N")
        elif add is None:
            raise TypeError(f"a checkpoint cannot hold an object of type {type(value).__name__}")
        else:
            add(value, depth + 1)

    def _kinds(self) -> list[tuple[Any, Callable[[Any, int], None]]]:
        return [
            (bool, lambda value, _: self._out.append(b"\x88" if value else b"\x89")),
            (int, self._integer),
            (float, lambda value, _: self._out.append(b"G" + struct.pack(">d", value))),
            (str, self._text),
            (np.ndarray, self._tensor),
            (Mapping, self._dict),
            (list, self._list),
            (tuple, self._tuple),
        ]

    def _integer(self, value: int, _: int = 0) -> None:
        if 0 <= value < 256:
            self._out.append(b"K" + struct.pack("<B", value))
        elif -(2**31) <= value < 2**31:
            self._out.append(b"J" + struct.pack("<i", value))
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self._out.append(b"\x8a" + struct.pack("<B", len(data)) + data)

    def _text(self, value: str, _: int = 0) -> None:
        data = value.encode("utf-8", "surrogatepass")
        self._out.append(b"X" + struct.pack("<I", len(data)) + data)

    def _global(self, module: str, name: str) -> None:
        self._out.append(b"c" + f"{module}\n{name}\n".encode())

    def _dict(self, value: Mapping[Any, Any], depth: int) -> None:
        if isinstance(value, OrderedDict):
            self._global("collections", "OrderedDict")
            self._out.append(b")R")
        else:
            self._out.append(b"}")
        self._out.append(b"(")
        for key, entry in value.items():
            if not isinstance(key, (str, int)):
                raise TypeError(f"a checkpoint cannot hold a dict with the key {key!r}")
            self._add(key, depth)
            self._add(entry, depth)
        self._out.append(b"u")

    def _list(self, value: list[Any], depth: int) -> None:
        self._out.append(b"](")
        for entry in value:
            self._add(entry, depth)
        self._out.append(b"e")

    def _tuple(self, value: tuple[Any, ...], depth: int) -> None:
        self._out.append(b"(")
        for entry in value:
            self._add(entry, depth)
        self._out.append(b"t")

    def _tensor(self, value: NDArray[Any], depth: int) -> None:
        """A call of PyTorch's function that makes a tensor of a storage, an offset, a shape and strides."""
        name = value.dtype.name
        if name not in _STORAGES:
            raise TypeError(f"a checkpoint cannot hold an array of {name}")
        if id(value) not in self._keys:
            self._keys[id(value)] = len(self.storages)
            self.storages.append(value)
        strides = [math.prod(value.shape[axis + 1 :]) for axis in range(value.ndim)]
        self._global("torch._utils", "_rebuild_tensor_v2")
        self._out.append(b"((")
        self._text("storage")
        self._global("torch", _STORAGES[name])
        self._text(str(self._keys[id(value)]))
        self._text("cpu")
        self._integer(value.size)
        self._out.append(b"tQ")
        self._integer(0)
        self._tuple(value.shape, depth)
        self._tuple(tuple(strides), depth)
        self._out.append(b"\x89")
        self._dict(OrderedDict(), depth)
        self._out.append(b"tR")
