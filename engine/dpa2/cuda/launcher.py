"""Launching kernels on arrays of one precision, and the memory that they work in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dpa2.errors import OutOfMemoryError, UnsupportedModelError

from .device import Array, Defines, Device, Shape

BLOCK = 128  # threads of a block, in every launch but that of sums over columns


def lead(n: int) -> int:
    """A leading dimension for n numbers in shared memory: columns of four lanes fall on different banks."""
    row = -(-max(n, 1) // 8) * 8
    return row + 8 if row % 32 in (0, 16) else row


class Workspace:
    """Every buffer of an evaluation, by name: it grows to what is needed and is used again in the next evaluation."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffers: dict[tuple[str, str], Array] = {}

    def __call__(self, name: str, shape: Shape, dtype: DTypeLike) -> Array:
        """A C-contiguous array of undefined contents; the same memory for the same name."""
        sizes = (shape,) if isinstance(shape, int) else shape
        size = int(np.prod(sizes, dtype=np.int64))
        key = (name, np.dtype(dtype).str)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.size < size:
            self._buffers.pop(key, None)
            del buffer
            try:
                buffer = self._device.empty(size + size // 8, dtype)
            except MemoryError as error:  # CuPy's own class is one
                gigabytes = size * np.dtype(dtype).itemsize / 1e9
                raise OutOfMemoryError(
                    f"the device has no memory for {gigabytes:.2f} GB more: evaluate fewer atoms at once, in "
                    'float32, or with device="cpu"'
                ) from error
            self._buffers[key] = buffer
        return buffer[:size].reshape(sizes)

    @property
    def bytes(self) -> int:
        """What is held, in bytes."""
        return sum(int(buffer.nbytes) for buffer in self._buffers.values())


class Launcher:
    """Kernels of one precision on one device, with Python numbers as arguments."""

    def __init__(self, device: Device, precision: str) -> None:
        self.device = device
        self.real: type[np.floating[Any]] = np.float64 if precision == "float64" else np.float32
        self.workspace = Workspace(device)
        self._define = {"real": "double" if precision == "float64" else "float"}
        self.itemsize = np.dtype(self.real).itemsize
        self.lanes = 32 if self.itemsize == 4 else 16  # as in embedding_net.cuh
        self.lane_row = self.lanes + 8

    def array(self, name: str, *shape: int) -> Array:
        """A real array of the workspace."""
        return self.workspace(name, shape, self.real)

    def zeros(self, name: str, *shape: int) -> Array:
        """A real array of the workspace, filled with zeros."""
        array = self.array(name, *shape)
        array.fill(0)
        return array

    def constant(self, value: Any, dtype: DTypeLike | None = None) -> Array:
        """Numbers of the host as an array of the device, real unless said otherwise."""
        return self.device.asarray(np.ascontiguousarray(value, dtype=self.real if dtype is None else dtype))

    def _scalar(self, value: Any) -> Any:
        if isinstance(value, (bool, int)):
            return np.int32(value)
        return self.real(value) if isinstance(value, float) else value

    def run(
        self,
        source: str,
        kernel: str,
        grid: int,
        *args: Any,
        defines: Defines | None = None,
        shared: int = 0,
        block: int = BLOCK,
    ) -> None:
        """Launch a kernel; ``shared``: bytes of dynamic shared memory; an int is passed as int, a float as real."""
        if shared > self.device.max_shared:
            raise UnsupportedModelError(
                f"the kernel {kernel} needs {shared} bytes of shared memory per block for this model and these "
                f"neighbour lists, the device has {self.device.max_shared}; load the model with "
                'precision="float32" or device="cpu"'
            )
        values = tuple(self._scalar(value) for value in args)
        self.device.launch(source, kernel, grid, block, values, shared, {**self._define, **(defines or {})})

    def numbers(self, count: int, integers: int = 0) -> int:
        """Bytes of so many reals and integers."""
        return count * self.itemsize + 4 * integers

    def each(self, source: str, kernel: str, size: int, *args: Any, defines: Defines | None = None) -> None:
        """Launch a kernel with one thread per element; its first parameter is their number, a long long."""
        self.run(source, kernel, -(-size // BLOCK), np.int64(size), *args, defines=defines)

    def warps(self, source: str, kernel: str, rows: int, *args: Any, defines: Defines | None = None) -> None:
        """Launch a kernel with one warp per row; its first parameter is their number, an int."""
        self.run(source, kernel, -(-rows // (BLOCK // 32)), rows, *args, defines=defines)

    def gemm(self, a: Array, b: Array, out: Array, transpose_b: bool = False, accumulate: bool = False) -> None:
        """out = or += a b, or a b^T; rows without channels or the like are no product."""
        if out.shape[0] and out.shape[1]:
            self.device.gemm(a, b, out, False, transpose_b, accumulate)
