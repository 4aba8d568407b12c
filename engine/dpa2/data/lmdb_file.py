"""LMDB databases, read by their layout on disk: a B+ tree of pages with sorted keys.

Only the main database is read, as it was after the last transaction. Nothing is mapped into memory, and every number
of the file is checked before it is followed: a damaged file is refused, and does not end the process.
"""

from __future__ import annotations

import os
import struct
from typing import NoReturn

from ..errors import InputError
from .text import check_regular

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER, _NODE = 16, 8
_BRANCH, _LEAF, _OVERFLOW, _META = 0x01, 0x02, 0x04, 0x08
_BIG, _SUB = 0x01, 0x06  # flags of nodes: the value has pages of its own; it is no plain value
_NONE = 2**64 - 1
_MOST_DEPTH = 64
_KEPT = 256  # branch pages that stay in memory


class LmdbFile:
    """A database, of which values are read by their keys.

    Args:
        path: the folder with ``data.mdb``.

    Attributes:
        entries: how many there are.

    Raises:
        InputError: it is no such database; also later, from reading. FileNotFoundError: there is none.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.join(path, "data.mdb") if os.path.isdir(path) else path
        check_regular(self.path)
        with open(self.path, "rb") as file:
            self._size = os.fstat(file.fileno()).st_size
            self._fd = os.dup(file.fileno())
        self._branches: dict[int, bytes] = {}
        try:
            self._page_size = 4096
            first = self._meta(0)
            self._page_size = int(first[2])
            if self._page_size not in {2**k for k in range(9, 17)}:
                self._bad(f"its pages have {self._page_size} bytes")
            _, self._root, _, self.entries = max(first, self._meta(self._page_size))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def _bad(self, what: str) -> NoReturn:
        raise InputError(f"{self.path}: not a readable LMDB database: {what}")

    def _read(self, start: int, size: int) -> bytes:
        if start + size > self._size:
            self._bad("it is shorter than it says")
        data = os.pread(self._fd, size, start)
        if len(data) < size:
            self._bad("it has become shorter while it was read")
        return data

    def _meta(self, start: int) -> tuple[int, int, int, int]:
        """The number of the last transaction, the root of the main database, the size of pages, entries."""
        data = self._read(start, _HEADER + 136)
        magic, version = struct.unpack_from("<II", data, _HEADER)
        if magic != _MAGIC or version != _VERSION or not struct.unpack_from("<H", data, 10)[0] & _META:
            self._bad("it does not begin as one")
        (page_size,) = struct.unpack_from("<I", data, _HEADER + 24)
        entries, root = struct.unpack_from("<QQ", data, _HEADER + 24 + 48 + 32)
        (transaction,) = struct.unpack_from("<Q", data, _HEADER + 128)
        return transaction, root, page_size, entries

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None if it is not there."""
        number = self._root
        if number == _NONE:
            return None
        for _ in range(_MOST_DEPTH):
            page, leaf = self._page(number)
            offsets = self._offsets(page)
            # the last node whose key is not beyond; the first one of a branch stands for everything before it
            low, high = (0, len(offsets)) if leaf else (1, len(offsets))
            while low < high:
                middle = (low + high) // 2
                if self._key(page, offsets[middle]) <= key:
                    low = middle + 1
                else:
                    high = middle
            if low == 0:
                return None
            node = offsets[low - 1]
            lower, upper, flags, _ = struct.unpack_from("<HHHH", page, node)
            if leaf:
                return self._value(page, node, key) if self._key(page, node) == key else None
            number = lower | upper << 16 | flags << 32
        self._bad("its pages go round in circles")

    def _page(self, number: int) -> tuple[bytes, bool]:
        """A page of keys, and whether it is one of values."""
        page = self._branches.get(number)
        if page is None:
            page = self._read(number * self._page_size, self._page_size)
        flags = struct.unpack_from("<H", page, 10)[0] & (_BRANCH | _LEAF | _OVERFLOW | _META)
        if flags not in (_BRANCH, _LEAF) or struct.unpack_from("<Q", page)[0] != number:
            self._bad(f"page {number} is none of keys")
        if flags == _BRANCH and len(self._branches) < _KEPT:
            self._branches[number] = page
        return page, flags == _LEAF

    def _offsets(self, page: bytes) -> tuple[int, ...]:
        """Where the nodes of a page begin."""
        (lower,) = struct.unpack_from("<H", page, 12)
        count = (lower - _HEADER) // 2
        if not 0 < count <= (self._page_size - _HEADER) // 2:
            self._bad("a page has no keys")
        offsets = struct.unpack_from(f"<{count}H", page, _HEADER)
        if min(offsets) < lower or max(offsets) > self._page_size - _NODE:
            self._bad("a key is outside of its page")
        return offsets

    def _key(self, page: bytes, node: int) -> bytes:
        (size,) = struct.unpack_from("<H", page, node + 6)
        if node + _NODE + size > self._page_size:
            self._bad("a key is outside of its page")
        return page[node + _NODE : node + _NODE + size]

    def _value(self, page: bytes, node: int, key: bytes) -> bytes:
        lower, upper, flags, width = struct.unpack_from("<HHHH", page, node)
        size, start = lower | upper << 16, node + _NODE + width
        if flags & _SUB:
            self._bad(f"the value of {key!r} is another database")
        if not flags & _BIG:
            if start + size > self._page_size:
                self._bad("a value is outside of its page")
            return page[start : start + size]
        if start + 8 > self._page_size:
            self._bad("a value is outside of its page")
        number = struct.unpack_from("<Q", page, start)[0]
        data = self._read(number * self._page_size, _HEADER + size)
        own, flags, pages = struct.unpack_from("<Q2xHI", data)
        if own != number or not flags & _OVERFLOW or pages * self._page_size < _HEADER + size:
            self._bad(f"the pages of the value of {key!r} are not where they should be")
        return data[_HEADER:]
