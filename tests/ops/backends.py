"""What the operations run on: the compiled kernels of each level, emulated CUDA, CUDA."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import needs
import numpy as np
from cuda_emulator import EmulatedDevice
from cuda_emulator.arguments import structs
from gpu_device import GpuDevice, KernelDevice

Arrays = dict[str, np.ndarray]


class Library:
    """tests/native/operations.cpp of a build of the native tests."""

    def __init__(self, build: Path) -> None:
        self._c = ctypes.CDLL(str(build / "tests" / "native" / "operations.so"))
        for name, kind in (
            ("operation_error", ctypes.c_char_p),
            ("operation_levels", ctypes.c_char_p),
            ("operation_size", ctypes.c_long),
            ("operation_block", ctypes.POINTER(ctypes.c_double)),
        ):
            getattr(self._c, name).restype = kind
        self.levels = self._c.operation_levels().decode().split()

    def run(
        self, name: str, level: str, single: bool, ints: Sequence[int], blocks: Sequence[Any], backward: bool
    ) -> list[np.ndarray]:
        arrays = [np.ascontiguousarray(block, dtype=np.float64).ravel() for block in blocks]
        pointers = (ctypes.POINTER(ctypes.c_double) * len(arrays))(
            *(array.ctypes.data_as(ctypes.POINTER(ctypes.c_double)) for array in arrays)
        )
        sizes = (ctypes.c_long * len(arrays))(*(array.size for array in arrays))
        numbers = (ctypes.c_int * len(ints))(*(int(number) for number in ints))
        count = self._c.operation_run(
            *(name.encode(), level.encode(), int(single), int(backward)),
            *(numbers, len(numbers), pointers, sizes, len(arrays)),
        )
        if count < 0:
            raise AssertionError(f"{name} at {level}: {self._c.operation_error().decode()}")
        return [self._block(number) for number in range(count)]

    def _block(self, number: int) -> np.ndarray:
        size = self._c.operation_size(number)
        return np.ctypeslib.as_array(self._c.operation_block(number), (size,)).copy() if size else np.empty(0)


class Cpu:
    """The compiled kernels of one level in one precision."""

    def __init__(self, library: Library, level: str, precision: str) -> None:
        self._library, self._level, self._single = library, level, precision == "float32"

    def __call__(
        self, name: str, ints: Sequence[int], blocks: Sequence[Any], seeds: Sequence[Any] | None = None
    ) -> list[np.ndarray]:
        """Outputs as flat blocks; with seeds the gradients of the inputs."""
        backward = seeds is not None
        return self._library.run(name, self._level, self._single, ints, [*blocks, *(seeds or [])], backward)


class Cuda:
    """Kernels on a device, emulated or real, with arrays of the host."""

    def __init__(self, device: KernelDevice, precision: str) -> None:
        self.device, self.precision, self.real = device, precision, np.dtype(precision).type
        self.defines = {"real": "float" if precision == "float32" else "double"}

    def up(self, value: Any) -> np.ndarray:
        """A copy in the precision of the kernels."""
        return np.array(value, self.real, order="C")

    def integers(self, value: Any) -> np.ndarray:
        return np.array(value, np.int32, order="C")

    def start(self, source: str, kernel: str, struct: str, grid: int, **values: Any) -> None:
        """A kernel with blocks of 128 threads that takes a struct; members that are not given are null or 0."""
        pointers = {name: pointer for name, _, pointer, _ in structs()[struct]}
        missing = {name: None if pointer else 0 for name, pointer in pointers.items() if name not in values}
        self.device.start(source, kernel, grid, 128, struct, values | missing, 0, self.defines)

    def empty(self, *shape: int) -> np.ndarray:
        return self.device.empty(shape, self.real)

    def filled(self, *shape: int) -> np.ndarray:
        """What an output starts from that is added to."""
        return np.ones(shape, self.real)

    def down(self, array: np.ndarray) -> np.ndarray:
        return array.astype(np.float64)

    def added(self, array: np.ndarray) -> np.ndarray:
        """What has been added to an array of :meth:`filled`."""
        return self.down(array) - 1.0


def cuda(kind: str, precision: str) -> Cuda:
    if kind == "emulated":
        return Cuda(EmulatedDevice(seed=11), precision)
    needs.package("cupy")
    return Cuda(GpuDevice(), precision)
