"""Lines of text files, compressed or not, within limits that no sound file meets."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TypeVar

import numpy as np

from ..errors import InputError
from ..inputs import Float

try:
    from lzma import LZMAError
except ImportError:  # a Python without that library
    LZMAError = EOFError  # type: ignore[misc, assignment]

T = TypeVar("T")

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "lzma"}
# what the modules raise for damaged files; of an OSError only if it is none of the system
_ERRORS = (EOFError, zlib.error, LZMAError, OSError)
_LONGEST_LINE = 2**25
# a frame of a compressed file may have so many bytes, and so many more for every byte of the file
_FRAME_BYTES, _EXPANSION = 2**24, 200
_MOST_DIGITS = 18  # of a whole number that is read


def check_regular(path: str) -> None:
    """Refuse what reading would wait for, such as a named pipe.

    Raises:
        InputError: it is no regular file. FileNotFoundError: it is not there.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"no such file: {path}") from None
    except OSError as error:  # such as a loop of links
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # such as a null character in the name
        raise InputError(f"{path!r}: no such file ({error})") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: not a regular file, but a {_kind(mode)}")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "named pipe", stat.S_IFDIR: "folder", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def compression(path: str) -> str | None:
    """The module that expands a file, by its first bytes."""
    with open(path, "rb") as handle:
        start = handle.read(6)
    return next((module for magic, module in _MAGIC.items() if start.startswith(magic)), None)


def head(path: str, size: int = 65536) -> str:
    """The text at the beginning of a file, expanded; what is no text is replaced."""
    with _reading(path), _opened(path) as handle:
        return handle.read(size).decode("utf-8", "replace")


def _of_the_system(error: Exception) -> bool:
    """Whether an error of reading is one of the system, such as a lack of permission, and no damage to the file."""
    return isinstance(error, OSError) and error.errno is not None


def _damage(path: str, error: Exception) -> InputError:
    return InputError(f"{path}: the compressed file is truncated or corrupt ({error})")


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        if _of_the_system(error):
            raise
        raise _damage(path, error) from error


def _opened(path: str) -> IO[bytes]:
    import importlib

    check_regular(path)
    module = compression(path) or "builtins"
    opened: IO[bytes] = importlib.import_module(module).open(path, "rb")
    return opened


def expanded_size(path: str) -> int:
    """How much a compressed file expands to; at most as much as it may, which is refused.

    Raises:
        InputError: a small file that expands to a very large one.
    """
    allowed, size = _FRAME_BYTES + _EXPANSION * os.path.getsize(path), 0
    with _reading(path), _opened(path) as handle:
        while part := handle.read(2**20):
            size += len(part)
            if size > allowed:
                raise InputError(f"{path}: the file expands to more than {allowed} bytes, which no structure needs")
    return size


class Lines:
    """The lines of a text file, one after the other. Use it in a ``with`` statement.

    Attributes:
        number: of the line that was read last, from 1.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.number = 0
        self._handle: IO[bytes] | None = None
        self._limit: int | None = None
        self._bytes = 0

    def __enter__(self) -> Lines:
        self._handle = _opened(self.path)
        if compression(self.path) is not None:
            self._limit = _FRAME_BYTES + _EXPANSION * os.path.getsize(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._handle is not None
        self._handle.close()

    def begin_frame(self) -> None:
        """What follows is counted anew."""
        self._bytes = 0

    def _next(self) -> bytes:
        assert self._handle is not None
        try:
            line = self._handle.readline(_LONGEST_LINE)
        except _ERRORS as error:
            if _of_the_system(error):
                raise
            raise _damage(self.path, error) from error
        if not line:
            return line
        self.number += 1
        if len(line) == _LONGEST_LINE:
            raise InputError(f"{self.path}, line {self.number}: a line of more than {_LONGEST_LINE - 1} bytes")
        if self._limit is not None:
            self._bytes += len(line)
            if self._bytes > self._limit:
                where = f"{self.path}, line {self.number}"
                raise InputError(f"{where}: a small file expands to a frame of {self._bytes} bytes")
        return line

    def next(self) -> str | None:
        """The next line without its end; None after the last one.

        Raises:
            InputError: a line, or a frame of a compressed file, longer than any structure needs.
        """
        line = self._next()
        return line.decode("utf-8", "replace").rstrip("\r\n") if line else None

    def skip(self, count: int) -> bool:
        """Pass over lines; False if the file ends before."""
        return all(self._next() for _ in range(count))

    def take(self, count: int, what: str) -> list[str]:
        """The next ``count`` lines.

        Raises:
            InputError: the file ends before.
        """
        lines: list[str] = []
        for _ in range(count):
            line = self._next()
            if not line:
                raise InputError(f"{self.path}: {what} has {count} atoms, but the file ends after {len(lines)}")
            lines.append(line.decode("utf-8", "replace"))
        return lines


def natural(word: str) -> int | None:
    """A whole number of ordinary digits; None for anything else, or for more digits than any count has."""
    return int(word) if word.isascii() and word.isdecimal() and len(word) <= _MOST_DIGITS else None


def integer(word: str) -> int | None:
    """A whole number with or without a sign; None for anything else."""
    number = natural(word[1:] if word[:1] in ("-", "+") else word)
    return -number if number is not None and word[0] == "-" else number


def real(word: str) -> float:
    """A number as files have it: no digit separators of Python, no other scripts' digits.

    Raises:
        ValueError: it is none.
    """
    if "_" in word or not word.isascii():
        raise ValueError(f"could not convert string to float: {brief(word)}")
    return float(word)


def reals(rows: Sequence[Sequence[str]]) -> Float:
    """An array of numbers from rows of words.

    Raises:
        ValueError: one is no number.
    """
    text = "".join([word for row in rows for word in row])
    if "_" in text or not text.isascii():
        raise ValueError("a number has digits that are none")
    return np.array(rows, dtype=np.float64)


def brief(text: str, most: int = 60) -> str:
    """A piece of a file for a message."""
    return repr(text if len(text) <= most else text[:most] + "...")


def first_twice(values: Iterable[T]) -> T | None:
    """The first value that was there before; None if all differ."""
    seen: set[T] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
