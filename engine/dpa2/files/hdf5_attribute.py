"""The text of an attribute of an HDF5 file's root, read without the HDF5 library.

The library takes as much memory for a text of variable length as its descriptor in the file claims, up to 4 GB,
before it looks at the text. Here the claim is compared with what is there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dpa2.errors import ModelFileError

_CONTINUED, _ATTRIBUTE = 0x10, 0x0C
_MAX_CHUNKS, _MAX_HEADER = 100, 2**24


def _corrupt(what: str) -> ModelFileError:
    return ModelFileError(f"truncated or corrupt file: {what} of the HDF5 file's root cannot be read")


def _at(file: BinaryIO, address: int, size: int) -> bytes:
    """Bytes of the file; the caller has made sure that ``size`` is not much."""
    if address >= 2**62:
        raise _corrupt("an address")
    file.seek(address)
    data = file.read(size)
    if len(data) != size:
        raise _corrupt("a part")
    return data


def _root(file: BinaryIO) -> int:
    """The address of the root's object header, from the superblock."""
    start = _at(file, 0, 14)
    version = start[8]
    sizes = start[13:14] if version < 2 else start[9:10]
    if version > 3 or sizes != b"\x08":
        raise _corrupt("the superblock")
    at = {0: 64, 1: 68}.get(version, 36)
    return int.from_bytes(_at(file, at, 8), "little")


def _messages(file: BinaryIO, address: int) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and content of the messages of an object header."""
    start = _at(file, address, 12)
    first = start[:4] != b"OHDR"
    if first:
        if start[0] != 1:
            raise _corrupt("the header")
        chunks = [(address + 16, int.from_bytes(start[8:12], "little"))]
        head = "<HHB3x"
    else:
        flags = start[5]
        at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        chunks = [(at + width, int.from_bytes(_at(file, at, width), "little"))]
        head = "<BHB2x" if flags & 4 else "<BHB"
    total = 0
    for number, (begin, size) in enumerate(chunks):  # the list grows on the way
        total += size
        if number >= _MAX_CHUNKS or total > _MAX_HEADER:
            raise _corrupt("the header")
        data = _at(file, begin, size)
        pos = 0
        while pos + struct.calcsize(head) <= size:
            kind, length, flags = struct.unpack_from(head, data, pos)
            pos += struct.calcsize(head)
            body = data[pos : pos + length]
            pos += length
            if kind == _CONTINUED and len(body) >= 16:
                begin, more = struct.unpack_from("<QQ", body)
                chunks.append((begin, more) if first else (begin + 4, max(0, more - 8)))
            yield kind, flags, body


def _value(body: bytes, name: bytes) -> bytes | None:
    """What an attribute message holds as the value, if the attribute has this name."""
    if len(body) < 9:
        return None
    version, flags, *sizes = struct.unpack_from("<BBHHH", body)
    if version not in (1, 2, 3):
        return None
    pos = 9 if version == 3 else 8
    if body[pos : pos + sizes[0]].rstrip(b"\0") != name:
        return None
    if version > 1 and flags:
        raise _corrupt("an attribute of a shared type")
    padded = [(n + 7) // 8 * 8 for n in sizes] if version == 1 else sizes
    return body[pos + sum(padded) :]


def heap_object(file: BinaryIO, address: int, index: int, size: int) -> bytes:
    """The first ``size`` bytes of an object of a global heap collection."""
    start = _at(file, address, 16)
    end = address + int.from_bytes(start[8:16], "little")
    if start[:5] != b"GCOL\x01":
        raise _corrupt("a text")
    at = address + 16
    while at + 16 <= end:
        found, length = struct.unpack("<H6xQ", _at(file, at, 16))
        if found == index:
            if size > length or at + 16 + size > end:
                break
            return _at(file, at + 16, size)
        if found == 0:
            break
        at += 16 + (length + 7) // 8 * 8
    raise _corrupt("a text")


def variable_text(path: Path, name: str) -> bytes:
    """The text of the root's attribute ``name``, which is a single text of variable length.

    Raises:
        ModelFileError: there is none, it is stored in another way than in the header, or the file is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        for kind, flags, body in _messages(file, _root(file)):
            value = _value(body, name.encode()) if kind == _ATTRIBUTE and not flags & 2 else None
            if value is not None and len(value) >= 16:
                length, address, index = struct.unpack_from("<IQI", value)
                if length > size:
                    raise ModelFileError(f"corrupt file: its attribute {name!r} claims {length} bytes of {size}")
                return heap_object(file, address, index, length)
    raise ModelFileError(
        f"corrupt file: its attribute {name!r} is not in the header of the root, as with more than 8 attributes"
    )
