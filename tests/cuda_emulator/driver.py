"""The emulated CUDA driver and compiler in place of NVIDIA's libraries: for whole processes, with or without Python.

environment(seed=3)                      variables for a process in which src/gpu finds the emulation
driver().launches()                      what has been launched in this process
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .build import HERE, SOURCES, EmulationError, cache_folder, native_library, sanitizer_library
from .sanitize import OPTIONS


def environment(
    *,
    seed: int | None = None,
    sanitizer: str = "",
    devices: int = 1,
    shared: int = 64 * 1024,
    memory: int | None = None,
    architecture: int = 75,
    multiprocessors: int = 132,
    deferred: bool = False,
    only_kernels: bool = False,
    sources: Path = SOURCES,
    log: Path | None = None,
) -> dict[str, str]:
    """Variables for a process that shall run on emulated devices; the libraries are built here.

    ``seed``: a random order of threads and blocks. ``deferred``: work waits until the host waits for it, and streams
    run in a random order that their events allow. ``only_kernels``: memory of the device can be touched by kernels and
    copies alone, anything else ends the process. ``log``: a file for what :func:`driver` tells within a process.
    """
    found = {
        "DPA2_CUDA_DRIVER": str(native_library("cuda")),
        "DPA2_NVRTC": str(native_library("nvrtc")),
        "DPA2_CUDA_SOURCES": str(sources),
        "DPA2_EMULATION_CACHE": str(cache_folder()),
        "DPA2_GPU_SEPARATE_BUFFERS": "1",  # so that overruns of each are found
        "DPA2_EMULATED_SANITIZER": sanitizer,
        "DPA2_EMULATED_DEVICES": str(devices),
        "DPA2_EMULATED_SHARED": str(shared),
        "DPA2_EMULATED_ARCHITECTURE": str(architecture),
        "DPA2_EMULATED_MULTIPROCESSORS": str(multiprocessors),
        "DPA2_EMULATED_SEED": "" if seed is None else str(seed),
        "DPA2_EMULATED_MEMORY": "" if memory is None else str(memory),
        "DPA2_EMULATED_STREAMS": "deferred" if deferred else "",
        "DPA2_EMULATED_MEMORY_ACCESS": "kernels" if only_kernels else "",
        "DPA2_EMULATED_LOG": "" if log is None else str(log),
    }
    if sanitizer == "ptx":
        path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        found |= {"DPA2_EMULATED_PYTHON": sys.executable, "PYTHONPATH": path}
    elif sanitizer:
        library = sanitizer_library(sanitizer)
        if library is None:
            raise RuntimeError(f"the compiler has no {sanitizer} sanitizer")
        found |= {**OPTIONS[sanitizer], "LD_PRELOAD": library}
    return found


@dataclass(frozen=True)
class Launched:
    """One launch of a kernel."""

    source: str
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    bytes: int  #: of all arguments
    device: int
    stream: int  #: numbered in the order of their making, the default one is 0
    graph: bool


@dataclass(frozen=True)
class Log:
    """Since the process began, or since the last reset."""

    launches: list[Launched]
    #: launches, copies_to_device, copies_to_host, copies_within_device, fills, synchronizations, allocations, frees,
    #: pinned_allocations, modules, captures, graphs, graph_launches, faults, leaks, live_allocations
    counts: dict[str, int]


def read_log(text: str) -> Log:
    """The log as the emulated driver writes it."""
    found = json.loads(text)
    names = [field.name for field in fields(Launched)]
    rows: list[dict[str, Any]] = [
        {name: tuple(v) if isinstance(v := row[name], list) else v for name in names} for row in found["launches"]
    ]
    return Log([Launched(**row) for row in rows], found["counts"])


class Driver:
    """The emulated driver of this process, which must have been started with :func:`environment`, or before it
    asks for the driver have got these variables."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(native_library("cuda")))
        self._library.emulated_launches.restype = ctypes.c_size_t
        self._library.emulated_count.restype = ctypes.c_longlong
        for name in ("cuMemAlloc_v2", "cuMemFree_v2", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2"):
            getattr(self._library, name).restype = ctypes.c_int

    def set_seed(self, seed: int | None) -> None:
        self._library.emulated_set_seed(ctypes.c_longlong(-1 if seed is None else seed))

    def log(self) -> Log:
        size = self._library.emulated_launches(None, ctypes.c_size_t(0))
        while True:
            text = ctypes.create_string_buffer(size)
            needed = self._library.emulated_launches(text, ctypes.c_size_t(size))
            if needed <= size:
                return read_log(text.value.decode())
            size = needed

    def launches(self) -> list[Launched]:
        return self.log().launches

    def count(self, name: str) -> int:
        return int(self._library.emulated_count(name.encode()))

    def reset(self) -> None:
        """Forget what is in the log."""
        self._library.emulated_reset_log()

    def repair(self) -> None:
        """Devices on which a kernel has failed work again."""
        self._library.emulated_repair()

    def depth(self) -> int:
        """How many contexts this thread has pushed and not popped."""
        return int(self._library.emulated_depth())

    def call(self, name: str, *arguments: Any) -> None:
        """A function of the driver; raises EmulationError with the driver's words."""
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            words = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(words))
            raise EmulationError(f"{name}: {status}, {(words.value or b'unknown').decode()}")

    @contextmanager
    def current(self, device: int = 0) -> Iterator[None]:
        """The primary context of a device is this thread's."""
        context = ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        try:
            self.call("cuCtxPushCurrent_v2", context)
            try:
                yield
            finally:
                self.call("cuCtxPopCurrent_v2", None)
        finally:
            self.call("cuDevicePrimaryCtxRelease_v2", device)

    def allocate(self, size: int) -> int:
        """Memory of the current device; its address."""
        at = ctypes.c_ulonglong()
        self.call("cuMemAlloc_v2", ctypes.byref(at), ctypes.c_size_t(size))
        return at.value

    def free(self, at: int) -> None:
        self.call("cuMemFree_v2", ctypes.c_ulonglong(at))

    def put(self, array: NDArray[Any], stream: int = 0) -> int:
        """A copy on the current device; its address."""
        given = np.ascontiguousarray(array)
        at = self.allocate(max(1, given.nbytes))
        self.call("cuMemcpyHtoDAsync_v2", ctypes.c_ulonglong(at), ctypes.c_void_p(given.ctypes.data),
                  ctypes.c_size_t(given.nbytes), ctypes.c_void_p(stream))  # fmt: skip
        self.call("cuStreamSynchronize", ctypes.c_void_p(stream))
        return at

    def get(self, at: int, shape: tuple[int, ...], dtype: Any, stream: int = 0) -> NDArray[Any]:
        """What is at an address of the current device."""
        found = np.empty(shape, dtype)
        self.call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(found.ctypes.data), ctypes.c_ulonglong(at),
                  ctypes.c_size_t(found.nbytes), ctypes.c_void_p(stream))  # fmt: skip
        self.call("cuStreamSynchronize", ctypes.c_void_p(stream))
        return found


@functools.cache
def driver() -> Driver:
    """The emulated driver of this process."""
    return Driver()


def use_here(**options: Any) -> Driver:
    """The emulated driver for this process, with the options of :func:`environment`; before anything asks for a GPU."""
    os.environ.update({name: value for name, value in environment(**options).items() if name != "LD_PRELOAD"})
    return driver()
