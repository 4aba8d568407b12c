"""The native format: safetensors with the configuration in its metadata.

``__metadata__`` is {"format": "dpa2", "format_version": "1", "config": JSON of the canonical configuration}; the
tensors are the weights under their canonical names. The header is checked here, strictly, before the tensors are
touched: no duplicate keys, no overlaps, no gaps, sizes that agree with shapes.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import schema
from dpa2.files._data import ModelData, RawModel
from dpa2.files.assembly import assemble
from dpa2.files.pt import refuse_head
from dpa2.outputs import replacing

MAX_HEADER = 32 * 2**20
MAX_VALUES = 1_000_000
_DTYPES: dict[str, np.dtype[Any]] = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4")}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ModelFileError("corrupt file: a key occurs twice in the safetensors header")
    return out


def _constant(name: str) -> Any:
    raise ModelFileError(f"corrupt file: {name} in the safetensors header")


def _json(text: bytes | str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except (ValueError, RecursionError) as err:
        if isinstance(err, ModelFileError):
            raise
        raise ModelFileError(f"corrupt file: {what} is not valid JSON") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"corrupt file: {what} is not a JSON object")
    return value


def _header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The header and the position of the data behind it."""
    first = file.read(8)
    if len(first) < 8:
        raise ModelFileError("truncated file: no safetensors header")
    length = int.from_bytes(first, "little")
    if length > MAX_HEADER or length > size - 8:
        raise ModelFileError(f"corrupt file: the safetensors header claims {length} bytes, the file has {size}")
    text = file.read(length)
    if len(text) != length or not text.startswith(b"{"):
        raise ModelFileError("corrupt file: the safetensors header is not a JSON object")
    if sum(map(text.count, (b",", b"[", b"{"))) > MAX_VALUES:  # each takes much more memory than its text
        raise ModelFileError(f"corrupt file: the safetensors header has more than {MAX_VALUES} values")
    return _json(text, "the safetensors header"), 8 + length


def _layout(header: dict[str, Any], nbytes: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]:
    """name -> (dtype, shape, offset of its first byte in the data), with every byte used exactly once."""
    out: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ModelFileError(f"corrupt file: the entry of the tensor {name[:100]!r} is malformed")
        dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise ModelFileError(
                f"corrupt file: the tensor {name[:100]!r} is of dtype {str(dtype)[:20]!r}, not F64 or F32"
            )
        for numbers in (shape, span):
            if not isinstance(numbers, list) or len(numbers) > 8 or any(type(n) is not int or n < 0 for n in numbers):
                raise ModelFileError(f"corrupt file: shape or offsets of the tensor {name[:100]!r} are malformed")
        count = 1
        for n in shape:
            count *= n
        if len(span) != 2 or span[1] - span[0] != count * _DTYPES[dtype].itemsize:
            raise ModelFileError(f"corrupt file: offsets and shape of the tensor {name[:100]!r} disagree")
        out[name] = (_DTYPES[dtype], tuple(shape), span[0])
        spans.append((span[0], span[1]))
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise ModelFileError("corrupt file: tensors overlap or leave gaps")
        at = end
    if at != nbytes:
        raise ModelFileError(f"truncated or corrupt file: its tensors need {at} bytes, it has {nbytes}")
    return out


def _config_of(header: dict[str, Any]) -> dict[str, Any]:
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != "dpa2":
        raise UnsupportedModelError("this safetensors file is no dpa2 model (its metadata does not say so)")
    if metadata.get("format_version") != str(schema.format_version()):
        found = str(metadata.get("format_version"))[:20]
        raise UnsupportedModelError(f"the file has format version {found}; this dpa2 reads {schema.format_version()}")
    text = metadata.get("config")
    if not isinstance(text, str):
        raise ModelFileError("corrupt file: the metadata holds no configuration")
    return _json(text, "the configuration")


class FileTensor:
    """A tensor of a native file, read on demand."""

    __slots__ = ("_at", "_dtype", "_file", "shape")

    def __init__(self, file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...], at: int) -> None:
        self._file, self._dtype, self.shape, self._at = file, dtype, shape, at

    def numpy(self) -> NDArray[Any]:
        """The values in native byte order."""
        count = math.prod(self.shape)
        self._file.seek(self._at)
        values = np.fromfile(self._file, self._dtype, count)
        if len(values) != count:  # read, not mapped: a file that shrinks would end the process
            raise ModelFileError("truncated file: it has become shorter while it was read")
        return values.astype(self._dtype.newbyteorder("="), copy=False).reshape(self.shape)


class NativeFile:
    """A native file, opened read-only; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")

    def __enter__(self) -> NativeFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def model(self, head: str | None) -> RawModel:
        """The model, its tensors unread."""
        size = os.fstat(self._file.fileno()).st_size
        header, start = _header(self._file, size)
        config = _config_of(header)
        own = config.get("head")
        if own is not None and not isinstance(own, str):
            raise ModelFileError("corrupt file: the head in the configuration is not a name")
        refuse_head(head, own)
        tensors = {
            name: FileTensor(self._file, dtype, shape, start + offset)
            for name, (dtype, shape, offset) in _layout(header, size - start).items()
        }
        distance = config.get("min_nbor_dist")
        if distance is not None and (isinstance(distance, bool) or not isinstance(distance, (int, float))):
            raise ModelFileError("corrupt file: min_nbor_dist is not a number")
        return RawModel(config, tensors, distance, own, size)


def write(path: Path, data: ModelData) -> None:
    """Write a model; an incomplete or inconsistent one is refused before anything is written."""
    from safetensors.numpy import save

    tensors: dict[str, Any] = dict(data.weights)
    checked = assemble(RawModel(dict(data.config), tensors, data.config.get("min_nbor_dist"), data.config.get("head")))
    metadata = {
        "format": "dpa2",
        "format_version": str(schema.format_version()),
        "config": json.dumps(checked.config),
    }
    blob = save(checked.weights, metadata)
    with replacing(path) as part:
        Path(part).write_bytes(blob)
