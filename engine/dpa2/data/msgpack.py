"""MessagePack, as far as data sets have it: numbers, texts, bytes, lists and dictionaries of these."""

from __future__ import annotations

import struct
from typing import Any

from ..errors import InputError

_MOST_DEPTH = 32
#: of a first byte: the format of a number
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i",
    0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
#: of a first byte: what follows, and how many bytes its length has
_SIZED = {
    0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4), 0xD9: ("text", 1), 0xDA: ("text", 2),
    0xDB: ("text", 4), 0xDC: ("list", 2), 0xDD: ("list", 4), 0xDE: ("dictionary", 2), 0xDF: ("dictionary", 4),
}  # fmt: skip


class _Reader:
    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where, self.at = data, where, 0

    def bad(self, what: str) -> InputError:
        return InputError(f"{self.where}: no readable MessagePack: {what}")

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise self.bad("it ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def value(self, depth: int = 0) -> Any:
        if depth > _MOST_DEPTH:
            raise self.bad("it is nested too deeply")
        first = self.take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 256
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            form = _NUMBERS[first]
            return struct.unpack(form, self.take(struct.calcsize(form)))[0]
        if first < 0xC0:
            kind, size = (("dictionary", 0x0F), ("list", 0x0F), ("text", 0x1F), ("text", 0x1F))[(first - 0x80) >> 4]
            return self.sized(kind, first & size, depth)
        if first in _SIZED:
            kind, width = _SIZED[first]
            return self.sized(kind, int.from_bytes(self.take(width), "big"), depth)
        raise self.bad(f"an extension (byte {first:#x}) is not read")

    def sized(self, kind: str, size: int, depth: int) -> Any:
        if kind == "bytes":
            return self.take(size)
        if kind == "text":
            return self.take(size).decode("utf-8", "replace")
        if size > len(self.data) - self.at:
            raise self.bad("it ends too early")
        if kind == "list":
            return [self.value(depth + 1) for _ in range(size)]
        pairs = {}
        for _ in range(size):
            key = self.value(depth + 1)
            if not isinstance(key, (str, bytes, int)):
                raise self.bad("the key of a dictionary is neither text nor a number")
            pairs[key] = self.value(depth + 1)
        return pairs


def unpack(data: bytes, where: str) -> Any:
    """The value that these bytes are.

    Args:
        data: the whole value. where: for messages.

    Raises:
        InputError: they are none.
    """
    reader = _Reader(data, where)
    value = reader.value()
    if reader.at != len(data):
        raise reader.bad("something follows it")
    return value
