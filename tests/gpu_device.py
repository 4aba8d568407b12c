"""Kernels of src/cuda on a GPU, with arrays of the host: what EmulatedDevice does, through CuPy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from cuda_emulator.arguments import pack
from cuda_emulator.build import EmulationError
from cuda_emulator.device import undefined
from dpa2._native import kernel_folder
from dpa2.cuda.hooks import CupyHooks
from numpy.typing import DTypeLike, NDArray

GUARD = np.full(64, 0xA5, np.uint8)  # behind every array: nobody may write there, and no array is empty


class KernelDevice(Protocol):
    """A device, emulated or real, that runs kernels on arrays of the host."""

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of undefined contents."""

    def start(
        self,
        source: str,
        kernel: str,
        grid: int,
        block: int,
        struct: str,
        values: Mapping[str, Any],
        shared: int = 0,
        defines: Mapping[str, str | int] | None = None,
    ) -> None:
        """Launch a kernel whose one parameter is the struct of that name, with these members."""


class GpuDevice:
    """A real one. Every launch copies its arrays there and back.

    Raises:
        InputError: CuPy finds no such device.
    """

    def __init__(self, number: int = 0) -> None:
        self._hooks = CupyHooks(number)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return undefined(shape, dtype)

    def start(
        self,
        source: str,
        kernel: str,
        grid: int,
        block: int,
        struct: str,
        values: Mapping[str, Any],
        shared: int = 0,
        defines: Mapping[str, str | int] | None = None,
    ) -> None:
        if grid == 0:
            return
        given = {name: str(value) for name, value in (defines or {}).items()}
        xp = self._hooks.cupy
        held: list[tuple[NDArray[Any], Any]] = []

        def place(array: NDArray[Any]) -> int:
            for other, there in held:
                if np.may_share_memory(array, other):
                    if (array.ctypes.data, array.nbytes) != (other.ctypes.data, other.nbytes):
                        raise EmulationError(f"{kernel}: two arrays overlap, and only one can be copied back")
                    return int(there.data.ptr)
            held.append((array, xp.asarray(np.concatenate([array.reshape(-1).view(np.uint8), GUARD]))))
            return int(held[-1][1].data.ptr)

        with xp.cuda.Device(self._hooks.number):
            real, headers = np.float32 if given["real"] == "float" else np.float64, Path(kernel_folder()) / "cuda"
            packed = pack(struct, real, values, headers, place)
            function = self._hooks.kernel(source, kernel, tuple(given.items()))
            function((grid, 1, 1), (block, 1, 1), (packed.reshape(1),), shared_mem=shared)
            for array, there in held:
                found = xp.asnumpy(there)
                if not np.array_equal(found[array.nbytes :], GUARD):
                    raise EmulationError(f"{kernel} wrote behind an array of shape {array.shape}")
                if array.flags.writeable:
                    array[...] = found[: array.nbytes].view(array.dtype).reshape(array.shape)
