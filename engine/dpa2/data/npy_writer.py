""".npy files that grow row by row."""

from __future__ import annotations

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


def write_npy(path: str, array: NDArray[Any]) -> None:
    """Write a .npy file; errors say what they are, which those of ``numpy.save`` do not."""
    plain = np.ascontiguousarray(array)
    with open(path, "wb") as handle:
        npy_format.write_array_header_1_0(handle, npy_format.header_data_from_array_1_0(plain))
        handle.write(plain.data)


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
        end = _HEADER + self.count * int(self.dtype.itemsize * np.prod(self.row, dtype=int))
        with open(self.path, "r+b") as handle:
            handle.seek(end)
            handle.truncate()  # what an append that was interrupted has left
            handle.write(np.ascontiguousarray(rows, dtype=self.dtype).data)
            handle.seek(0)
            handle.write(npy_header(self.dtype, (self.count + len(rows), *self.row)))
        self.count += len(rows)
