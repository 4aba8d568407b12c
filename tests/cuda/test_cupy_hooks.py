"""CuPy's part of a model on a GPU, with a stand-in for CuPy: what it is asked for, and what it is handed.

The stand-in's arrays are NumPy's with an address; its modules are compiled for the emulated devices and loaded there.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import dpa2
import numpy as np
import pytest
from dpa2._native import kernel_folder, kernel_options
from dpa2.cuda import gpu, hooks
from dpa2.cuda.arrays import CupyArrays
from dpa2.cuda.hooks import CupyHooks
from gpu_models import OnDevice, emulate
from helpers import golden, model_of


class Array(np.ndarray):
    """A NumPy array that tells its address and its device as CuPy does."""

    number = 0

    def __array_finalize__(self, other: Any) -> None:
        self.number = getattr(other, "number", 0)

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)

    def __dlpack_device__(self) -> tuple[int, int]:  # type: ignore[override]
        return 2, self.number


class Memory:
    """Of the pool."""

    given: ClassVar[list[Memory]] = []

    def __init__(self, nbytes: int) -> None:
        self.array = np.empty(nbytes + 256, np.uint8)
        self.ptr = -(-self.array.ctypes.data // 256) * 256
        self.nbytes, self.device = nbytes, StandIn.current[-1]
        Memory.given.append(self)


class Module:
    """Compiled by the emulated compiler, when a kernel is first asked for."""

    made: ClassVar[list[Module]] = []

    def __init__(self, code: str, options: tuple[str, ...], backend: str) -> None:
        assert backend == "nvrtc"
        self.code, self.options, self.device = code, options, StandIn.current[-1]
        Module.made.append(self)

    def get_function(self, name: str) -> Any:
        return SimpleNamespace(kernel=SimpleNamespace(ptr=self._load(name)))

    def _load(self, name: str) -> int:
        nvrtc, cuda = (ctypes.CDLL(os.environ[name]) for name in ("DPA2_NVRTC", "DPA2_CUDA_DRIVER"))
        program, size, module, function = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_void_p(), ctypes.c_void_p()
        source = next(path.name for path in hooks_sources() if self.code.endswith(path.read_text(encoding="utf-8")))
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


def hooks_sources() -> Iterator[Any]:
    from pathlib import Path

    return (Path(kernel_folder()) / "cuda").glob("*.cu")


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
        found = np.asarray(array).view(Array)
        found.number = StandIn.current[-1]
        return found

    def empty(self, shape: Any, dtype: Any) -> Array:
        found = self.made(np.empty(shape, dtype))
        found.fill(7)  # CuPy promises nothing
        return found

    def asarray(self, value: Any, dtype: Any = None) -> Array:
        return self.made(np.asarray(value, dtype))

    def ascontiguousarray(self, value: Any) -> Array:
        return self.made(np.array(value, order="C", copy=None, ndmin=0))

    def broadcast_to(self, value: Any, shape: Any) -> Any:
        return np.broadcast_to(value, shape)

    def clip(self, value: Any, low: Any, high: Any) -> Any:
        return np.clip(value, low, high)

    def asnumpy(self, value: Any) -> Any:
        return np.array(value)

    def from_dlpack(self, value: Any) -> Array:
        value.__dlpack__(stream=1)
        return self.made(value.held.numpy())


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """With the driver and the compiler behind it emulated."""
    emulate(monkeypatch, devices=2)
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    monkeypatch.setattr(gpu, "cupy_hooks", CupyHooks)
    return stand_in


def test_compiled_once_with_the_options_of_all_compilers(cupy: StandIn) -> None:
    made = CupyHooks(1)
    calls = [("linear.cu", [("real", "float"), ("ACT", "1")])] * 2 + [("linear.cu", [("real", "double"), ("ACT", "1")])]
    handles = [made.function(source, "copy_columns", defines) for source, defines in calls]
    first, second = Module.made
    assert all(handles)
    assert handles[2] not in handles[:2]
    folder = kernel_folder()
    assert first.options == tuple(kernel_options(calls[0][1], folder))
    assert {"-Dreal=float", "-DACT=1", f"-I{folder}"} <= set(first.options)
    assert "-Dreal=double" in second.options
    assert (first.device, StandIn.current) == (1, [0])
    digest, _, text = first.code.partition("\n")
    assert len(digest) == len("// ") + 64
    assert text == next(path for path in hooks_sources() if path.name == "linear.cu").read_text(encoding="utf-8")


def test_headers_are_part_of_the_text(tmp_path: Any) -> None:
    """CuPy keeps what it compiled by text and options."""
    digests = set()
    for name in ("cuda/one.cuh", "cuda/one.hpp", "math/one.hpp"):
        for words in ("a", "b"):
            path = tmp_path / f"{name.replace('/', '_')}{words}" / name
            path.parent.mkdir(parents=True)
            path.write_text(words)
            digests.add(hooks.headers(path.parents[1]))
    assert len(digests) == 2
    assert len(hooks.headers(tmp_path)) == 64


def test_memory_of_the_pool(cupy: StandIn) -> None:
    made = CupyHooks(1)
    assert made.memory(100).ptr == Memory.given[0].ptr
    assert (Memory.given[0].nbytes, Memory.given[0].device) == (100, 1)


class TooMuch(MemoryError):
    """CuPy's class."""


def test_errors_become_those_of_dpa2(cupy: StandIn) -> None:
    def fails(error: BaseException) -> Any:
        def call(*_: Any, **__: Any) -> None:
            raise error

        return call

    made = CupyHooks(0)
    cases: list[tuple[BaseException, type[BaseException], str]] = [
        (TooMuch("Out of memory allocating 9 bytes"), dpa2.OutOfMemoryError, "asking for 9 bytes .*Out of memory"),
        (RuntimeError("cudaErrorLaunchFailure"), dpa2.Error, "cudaErrorLaunchFailure"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ]
    for error, kind, words in cases:
        cupy.cuda.alloc = fails(error)
        with pytest.raises(kind, match=words):
            made.memory(9)
        cupy.cuda.alloc, cupy.RawModule = Memory, fails(error)
        with pytest.raises(kind):  # through the compiled core
            model_of(golden("base"), device="cuda")
        cupy.RawModule = Module
    cupy.RawModule = fails(ValueError("linear.cu(3): error: what is this"))
    with pytest.raises(dpa2.Error, match=r"compiling .*what is this"):
        model_of(golden("base"), device="cuda")


def test_machines_without_a_device(cupy: StandIn) -> None:
    def fail() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver")

    cases = (
        (lambda: 0, "there is no CUDA device 0: this machine has none"),
        (fail, "cudaErrorInsufficientDriver.*pip"),
    )
    for count, message in cases:
        cupy.cuda.runtime.getDeviceCount = count
        with pytest.raises(dpa2.InputError, match=message):
            model_of(golden("base"), device="cuda")
    cupy.cuda.runtime.getDeviceCount = lambda: 2
    with pytest.raises(dpa2.InputError, match="there is no CUDA device 2: this machine has 2"):
        model_of(golden("base"), device="cuda:2")


def test_where_there_is_no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DPA2_CUDA_DRIVER", "")
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert hooks.cupy_hooks(0) is None
    monkeypatch.setitem(sys.modules, "cupy", StandIn())
    assert isinstance(hooks.cupy_hooks(0), CupyHooks)
    monkeypatch.setenv("DPA2_CUDA_DRIVER", "/somewhere/libcuda.so")
    assert hooks.cupy_hooks(0) is None


def test_arrays_are_converted(cupy: StandIn) -> None:
    arrays = CupyArrays(CupyHooks(1))

    def on(number: int, array: Any) -> Array:
        with cupy.device(number):
            return cupy.made(array)

    x = on(1, np.arange(6.0).reshape(2, 3))
    assert arrays.address(arrays.take(x, "float64", "coords")) == x.ctypes.data  # never a copy without need
    for given in (x.astype(np.float32), on(1, np.asfortranarray(x)), np.arange(6).reshape(2, 3).tolist()):
        taken = arrays.take(given, "float64", "coords")
        assert (taken.dtype, taken.flags.c_contiguous, taken.number) == (np.float64, True, 1)
        np.testing.assert_array_equal(taken, x)
    kinds = arrays.take(on(1, np.array([0, -5, 2**32, -(2**40)])), "int32", "types")
    assert kinds.tolist() == [0, -1, 2**31 - 1, -1]
    foreign = OnDevice(np.arange(3.0), 1)
    np.testing.assert_array_equal(arrays.take(foreign, "float64", "coords"), np.arange(3.0))
    assert foreign.streams == [1]
    wrong = [
        (on(0, x), "float64", "coords is on cuda:0, and the model on cuda:1"),
        (on(1, x + 1j), "float64", "must be an array of real numbers"),
        (on(1, np.ones(3)), "int32", "must be an array of integers"),
    ]
    for value, dtype, message in wrong:
        with pytest.raises(dpa2.InputError, match=message):
            arrays.take(value, dtype, "coords")
    foreign.requires_grad = True
    with pytest.raises(dpa2.InputError, match=r"coords\.detach\(\)"):
        arrays.take(foreign, "float64", "coords")


def test_evaluations_through_cupy(cupy: StandIn) -> None:
    """Kernels and memory of CuPy, arrays of the host and of CuPy; and Python is not called in a step."""
    system = golden("base").systems[0]
    coords, types = system.coord[0], system.atype
    box = None if system.box is None else system.box[0]
    wanted = model_of(golden("base"), device="cpu").evaluate(coords, types, box, atomic=True)
    model = model_of(golden("base"), device="cuda:1")
    with cupy.device(1):
        x = cupy.made(coords)
    model.evaluate(coords, types, box, atomic=True)
    made, given = len(Module.made), len(Memory.given)
    assert made > 0
    assert given > 0
    assert {one.device for one in (*Module.made, *Memory.given)} == {1}
    answers = [model.evaluate(one, types, box, atomic=True).check() for one in (coords, x)]
    assert (len(Module.made), len(Memory.given)) == (made, given)
    for answer in answers:
        for name in ("energy", "forces", "virial", "atom_energy", "atom_virial"):
            np.testing.assert_allclose(getattr(answer, name), getattr(wanted, name), rtol=1e-10, atol=1e-10)
    assert isinstance(answers[1].forces, Array)
    assert answers[1].forces.number == 1
    gradients = model.vjp(x, types, box, {"atom_energy": np.ones(len(types))})
    np.testing.assert_allclose(gradients[0], -wanted.forces, rtol=1e-10, atol=1e-10)
