""".npy files that grow row by row."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import DTypeLike, NDArray

# Long enough for the header of any shape: it is written again, in place, when the number of rows is known.
_HEADER = 256


def npy_header(dtype: DTypeLike, shape: tuple[int, ...]) -> bytes:
    """The start of a .npy file, always of the same length."""
    descr = npy_format.dtype_to_descr(np.dtype(dtype))
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + text.ljust(_HEADER - 11).encode() + b"\n"


class NpyAppender:
    """Writes a .npy file whose first axis grows; the file is a valid one after every :meth:`append`.

    The file is closed between calls, so that any number of them may grow at once.
    """

    def __init__(self, path: str, dtype: DTypeLike, row: tuple[int, ...]) -> None:
        self.path = path
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.row = row
        self.count = 0
        with open(path, "wb") as handle:
            handle.write(npy_header(self.dtype, (0, *row)))

    def append(self, rows: NDArray[Any]) -> None:
        """Append an array of shape (k, \\*row).

        Raises:
            ValueError: another shape.
        """
        if rows.shape[1:] != self.row:
            raise ValueError(f"rows of shape {self.row} expected, got {rows.shape[1:]}")
        self.count += len(rows)
        with open(self.path, "r+b") as handle:
            handle.seek(0, os.SEEK_END)
            handle.write(np.ascontiguousarray(rows, dtype=self.dtype).data)
            handle.seek(0)
            handle.write(npy_header(self.dtype, (self.count, *self.row)))


class ReplacingFolder:
    """A folder that is written under another name, and gets its own when all went well, or on Ctrl-C what is there."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.part = f"{path.rstrip(os.sep)}.{os.getpid()}.part"

    def __enter__(self) -> str:
        os.makedirs(self.part)
        return self.part

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import shutil

        if kind is not None and not (issubclass(kind, KeyboardInterrupt) and os.listdir(self.part)):
            shutil.rmtree(self.part, ignore_errors=True)
            return
        if os.path.isdir(self.path):
            os.rmdir(self.path)  # an empty one, as was checked before
        os.replace(self.part, self.path)
