"""A stand-in for CuPy on the emulated driver.

Its arrays are NumPy's with an address; its modules are compiled for the emulated devices and loaded there.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from cuda_emulator.driver import driver
from dpa2._native import kernel_folder


class Array(np.ndarray):
    """A NumPy array in the memory of an emulated device, which tells its address and its device as CuPy does."""

    number = -1

    def __array_finalize__(self, other: Any) -> None:
        self.number = getattr(other, "number", -1)

    def __neg__(self) -> Array:
        with StandIn.device(self.number):
            return StandIn.made(-np.array(self))

    def astype(self, *words: Any, **options: Any) -> Any:
        with StandIn.device(self.number):
            return StandIn.made(np.array(self).astype(*words, **options))

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)

    def __dlpack_device__(self) -> tuple[int, int]:  # type: ignore[override]
        return 2, self.number


def allocated(nbytes: int, number: int) -> int:
    """Memory of a device, for the rest of the process, which keeps its context as well."""
    context = ctypes.c_void_p()
    driver().call("cuInit", 0)
    driver().call("cuDevicePrimaryCtxRetain", ctypes.byref(context), number)
    with driver().current(number):
        return driver().allocate(max(1, nbytes))


class Memory:
    """Of the pool."""

    given: ClassVar[list[Memory]] = []

    def __init__(self, nbytes: int) -> None:
        self.nbytes, self.device = nbytes, StandIn.current[-1]
        self.ptr = allocated(nbytes, self.device)
        Memory.given.append(self)


class Kernel:
    """A function of a module, launched on the default stream of the current device."""

    def __init__(self, function: int) -> None:
        self.kernel = SimpleNamespace(ptr=function)

    def __call__(self, grid: Any, block: Any, args: tuple[Any, ...], *, shared_mem: int = 0) -> None:
        """Of what CuPy passes, only structs by value, which are NumPy arrays of one element."""
        assert all(type(value) is np.ndarray and value.shape == (1,) for value in args)
        values = (ctypes.c_void_p * len(args))(*(value.ctypes.data for value in args))
        sizes = [ctypes.c_uint(int(n)) for n in (*grid, *block, shared_mem)]
        with driver().current(StandIn.current[-1]):
            driver().call("cuLaunchKernel", ctypes.c_void_p(self.kernel.ptr), *sizes, None, values, None)
            driver().call("cuStreamSynchronize", None)


class Module:
    """Compiled by the emulated compiler, when a kernel is first asked for."""

    made: ClassVar[list[Module]] = []

    def __init__(self, code: str, options: tuple[str, ...], backend: str) -> None:
        assert backend == "nvrtc"
        self.code, self.options, self.device = code, options, StandIn.current[-1]
        Module.made.append(self)

    def get_function(self, name: str) -> Kernel:
        return Kernel(self._load(name))

    def _load(self, name: str) -> int:
        nvrtc, cuda = (ctypes.CDLL(os.environ[name]) for name in ("DPA2_NVRTC", "DPA2_CUDA_DRIVER"))
        program, size, module, function = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_void_p(), ctypes.c_void_p()
        source = next(path.name for path in sources() if self.code.endswith(path.read_text(encoding="utf-8")))
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), self.code.encode(), source.encode(), 0, None, None)
        words = [*self.options, "-arch=sm_75"]
        texts = (ctypes.c_char_p * len(words))(*(word.encode() for word in words))
        assert nvrtc.nvrtcCompileProgram(program, len(words), texts) == 0
        nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size))
        image = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetCUBIN(program, image)
        context, device = ctypes.c_void_p(), ctypes.c_int()
        cuda.cuInit(0)
        cuda.cuDeviceGet(ctypes.byref(device), self.device)
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
        cuda.cuCtxPushCurrent_v2(context)
        assert cuda.cuModuleLoadData(ctypes.byref(module), image) == 0
        assert cuda.cuModuleGetFunction(ctypes.byref(function), module, name.encode()) == 0
        cuda.cuCtxPopCurrent_v2(ctypes.byref(context))
        assert function.value
        return function.value


def sources() -> list[Path]:
    """The files with kernels."""
    return sorted((Path(kernel_folder()) / "cuda").glob("*.cu"))


class StandIn(ModuleType):
    """CuPy with two devices."""

    current: ClassVar[list[int]] = [0]

    def __init__(self) -> None:
        super().__init__("cupy")
        StandIn.current, Module.made, Memory.given = [0], [], []
        self.ndarray, self.RawModule = Array, Module
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDeviceCount=lambda: 2),
            Device=self.device,
            alloc=Memory,
            get_current_stream=lambda: SimpleNamespace(ptr=0),
        )

    @staticmethod
    @contextmanager
    def device(number: int) -> Iterator[None]:
        StandIn.current.append(number)
        try:
            yield
        finally:
            StandIn.current.pop()

    @staticmethod
    def made(array: Any) -> Array:
        """An array in the memory of the current device with these contents."""
        number = StandIn.current[-1]
        if isinstance(array, Array) and array.number == number:
            return array
        given = np.asarray(array)
        memory = (ctypes.c_char * max(1, given.nbytes)).from_address(allocated(given.nbytes, number))
        order = "F" if given.flags.f_contiguous and not given.flags.c_contiguous else "C"
        found = np.frombuffer(memory, given.dtype, given.size).reshape(given.shape, order=order).view(Array)
        found[...] = given
        found.number = number
        return found

    def empty(self, shape: Any, dtype: Any) -> Array:
        found = self.made(np.empty(shape, dtype))
        found.fill(7)  # CuPy promises nothing
        return found

    def asarray(self, value: Any, dtype: Any = None) -> Array:
        same = isinstance(value, Array) and (dtype is None or value.dtype == dtype)
        return self.made(value if same else np.array(value, dtype))

    def ascontiguousarray(self, value: Any) -> Array:
        return self.made(value if value.flags.c_contiguous else np.array(value, order="C"))

    def broadcast_to(self, value: Any, shape: Any) -> Any:
        return self.made(np.array(np.broadcast_to(np.asarray(value), shape)))

    def clip(self, value: Any, low: Any, high: Any) -> Any:
        return self.made(np.clip(np.array(value), low, high))

    def asnumpy(self, value: Any) -> Any:
        return np.array(value)

    def of_device(self, array: Any, number: int = 0) -> Array:
        """An array of one of the devices."""
        with self.device(number):
            return self.made(array)

    def from_dlpack(self, value: Any) -> Array:
        value.__dlpack__(stream=1)
        return self.made(value.held.numpy())


def install() -> StandIn:
    """From now on it is what `import cupy` finds."""
    stand_in = StandIn()
    sys.modules["cupy"] = stand_in
    return stand_in
