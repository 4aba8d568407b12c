"""CuPy's part of a model on a GPU, with a stand-in for CuPy: what it is asked for, and what it is handed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice, EmulationError
from cupy_stand_in import Array, Memory, Module, StandIn
from dpa2._native import kernel_folder, kernel_options
from dpa2.cuda import gpu, hooks
from dpa2.cuda.arrays import CupyArrays
from dpa2.cuda.hooks import CupyHooks
from gpu_device import GpuDevice
from gpu_models import OnDevice, emulate
from helpers import golden, model_of
from ops.attention import PairAttention
from ops.backends import Cuda


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """With the driver and the compiler behind it emulated."""
    emulate(monkeypatch)
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    monkeypatch.setattr(gpu, "cupy_hooks", CupyHooks)
    return stand_in


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small kernels and what they include, in place of the installed one."""
    installed = Path(kernel_folder())
    shutil.copytree(Path(__file__).parent / "sources", tmp_path, dirs_exist_ok=True)
    shutil.copytree(installed / "math", tmp_path / "math")
    for header in installed.glob("cuda/*.cuh"):
        shutil.copy(header, tmp_path / "cuda")
    monkeypatch.setenv("DPA2_CUDA_SOURCES", str(tmp_path))
    return tmp_path


def test_compiled_once_with_the_options_of_all_compilers(cupy: StandIn, kernels: Path) -> None:
    made = CupyHooks(1)
    defines = [[("real", "float"), ("ACT", "1")], [("real", "float"), ("ACT", "1")], [("real", "double"), ("ACT", "1")]]
    handles = [made.function("small.cu", "scale", given) for given in defines]
    first, second = Module.made
    assert all(handles)
    assert handles[2] not in handles[:2]
    folder = kernel_folder()
    assert folder == str(kernels)
    assert first.options == tuple(kernel_options(defines[0], folder))
    assert {"-Dreal=float", "-DACT=1", f"-I{folder}"} <= set(first.options)
    assert "-Dreal=double" in second.options
    assert (first.device, StandIn.current) == (1, [0])
    digest, _, text = first.code.partition("\n")
    assert digest == f"// {hooks.headers(kernels)}"
    assert text == (kernels / "cuda" / "small.cu").read_text(encoding="utf-8")


def test_kernels_of_the_tests_on_cupy(cupy: StandIn) -> None:
    """tests/gpu_device.py: what it copies there and back are the results of the emulated device."""
    op = PairAttention("both", True, True)
    seeds = tuple(np.ones(np.shape(value)) for value in op.reference(**op.inputs))
    answers = []
    for device in (GpuDevice(1), EmulatedDevice()):
        run = Cuda(device, "float64")
        answers.append(np.concatenate([part.ravel() for s in (None, seeds) for part in op.cuda(run, op.inputs, s)]))
    assert {one.device for one in Module.made} == {1}
    np.testing.assert_array_equal(*answers)


def test_kernels_of_the_tests_are_watched(cupy: StandIn, kernels: Path) -> None:
    device, x = GpuDevice(), np.arange(4.0)
    values = {"to": np.zeros(4), "from": x, "count": 4, "by": 2.0}

    def start(**more: Any) -> None:
        device.start("small.cu", "scale", 1, 32, "ScaleArgs", values | more, 0, {"real": "double"})

    start()
    assert values["to"].tolist() == [0.0, 2.0, 4.0, 6.0]
    with pytest.raises(EmulationError, match=r"two arrays overlap"):
        start(to=x[1:], count=3)
    with pytest.raises(EmulationError, match=r"wrote behind an array of shape \(3,\)"):
        start(to=np.zeros(3))


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
    cupy.RawModule = fails(ValueError("(3): error: what is this"))
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
        return cupy.of_device(array, number)

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
    x = cupy.of_device(coords, 1)
    for one in (coords, x, coords, x):  # until buffers are as large as they have to be
        model.evaluate(one, types, box, atomic=True).check()
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
