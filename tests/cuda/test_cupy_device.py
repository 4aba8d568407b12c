"""The device behind device="cuda", with a stand-in for CuPy: what it hands to the library, as that would take it.

The stand-in's arrays are NumPy's with an address; its cuBLAS is column-major, as the real one, and works on addresses.
"""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import dpa2
import numpy as np
import pytest
from dpa2.cuda.device import CupyDevice, source_folder


class Array(np.ndarray):
    """A NumPy array that tells its address as CuPy does."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)


def of_address(address: int, rows: int, columns: int, leading: int, dtype: Any) -> np.ndarray:
    """The column-major matrix at an address."""
    size = np.dtype(dtype).itemsize
    count = leading * (columns - 1) + rows
    memory = np.frombuffer((ctypes.c_char * (count * size)).from_address(address), dtype)
    return np.lib.stride_tricks.as_strided(memory, (rows, columns), (size, leading * size))


def gemm_of(dtype: Any) -> Any:
    def gemm(handle: int, ta: int, tb: int, m: int, n: int, k: int, alpha: int, a: int, lda: int, b: int, ldb: int,
             beta: int, c: int, ldc: int) -> None:  # fmt: skip
        left = of_address(a, k, m, lda, dtype).T if ta else of_address(a, m, k, lda, dtype)
        right = of_address(b, n, k, ldb, dtype).T if tb else of_address(b, k, n, ldb, dtype)
        out = of_address(c, m, n, ldc, dtype)
        factors = [float(of_address(address, 1, 1, 1, dtype)[0, 0]) for address in (alpha, beta)]
        assert handle == 7
        out[...] = factors[0] * (left @ right) + (factors[1] * out if factors[1] else 0.0)

    return gemm


class Kernel:
    """A compiled kernel that writes down how it is called."""

    def __init__(self, name: str) -> None:
        self.name, self.max_dynamic_shared_size_bytes = name, 48 * 1024
        self.calls: list[Any] = []

    def __call__(self, grid: Any, block: Any, args: Any, *, shared_mem: int) -> None:
        self.calls.append((grid, block, args, shared_mem))


class Module:
    made: ClassVar[list[Module]] = []

    def __init__(self, code: str, options: tuple[str, ...], backend: str) -> None:
        self.code, self.options, self.kernels = code, options, {}
        assert backend == "nvrtc"
        Module.made.append(self)

    def get_function(self, name: str) -> Kernel:
        return self.kernels.setdefault(name, Kernel(name))


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    stand_in, cuda, cublas = ModuleType("cupy"), ModuleType("cupy.cuda"), ModuleType("cupy.cuda.cublas")
    cublas.sgemm, cublas.dgemm = gemm_of(np.float32), gemm_of(np.float64)  # type: ignore[attr-defined]
    cuda.cublas = cublas  # type: ignore[attr-defined]
    cuda.runtime = SimpleNamespace(getDeviceCount=lambda: 1)  # type: ignore[attr-defined]
    device = SimpleNamespace(attributes={"MaxSharedMemoryPerBlockOptin": 232448}, cublas_handle=7)
    cuda.Device = lambda: device  # type: ignore[attr-defined]
    Module.made = []
    members = {
        "cuda": cuda,
        "ndarray": Array,
        "RawModule": Module,
        "empty": lambda shape, dtype: np.empty(shape, dtype).view(Array),
        "zeros": lambda shape, dtype: np.zeros(shape, dtype).view(Array),
        "asarray": lambda value, dtype=None: np.asarray(value, dtype).view(Array),
        "ascontiguousarray": lambda value: np.ascontiguousarray(value).view(Array),
        "asnumpy": lambda value: np.array(value),
    }
    for name, value in members.items():
        setattr(stand_in, name, value)
    for name, module in (("cupy", stand_in), ("cupy.cuda", cuda), ("cupy.cuda.cublas", cublas)):
        monkeypatch.setitem(sys.modules, name, module)
    return stand_in


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("sizes", [(3, 4, 5), (1, 4, 1), (4, 1, 2), (1, 1, 1)])
def test_products(cupy: ModuleType, dtype: Any, transposed: tuple[bool, bool], accumulate: bool, sizes: Any) -> None:
    """Row-major products by a column-major library, also where the matrices are columns of wider arrays."""
    m, n, k = sizes
    device, rng = CupyDevice(), np.random.default_rng(0)

    def matrix(rows: int, columns: int, wider: int) -> Any:
        whole = device.asarray(rng.normal(size=(rows, columns + wider)), dtype)
        return whole[:, wider:]

    for wider in (0, 2):
        a = matrix(*((k, m) if transposed[0] else (m, k)), wider)
        b = matrix(*((n, k) if transposed[1] else (k, n)), wider)
        out = matrix(m, n, wider)
        product = np.array(a.T if transposed[0] else a) @ np.array(b.T if transposed[1] else b)
        expected = product + (np.array(out) if accumulate else 0.0)
        device.gemm(a, b, out, *transposed, accumulate)
        np.testing.assert_allclose(out, expected, rtol=1e-5 if dtype == np.float32 else 1e-13)


def test_products_without_an_inner_dimension(cupy: ModuleType) -> None:
    device = CupyDevice()
    out = device.asarray(np.ones((2, 3)))
    none = device.zeros((2, 0), np.float64), device.zeros((0, 3), np.float64)
    device.gemm(*none, out, accumulate=True)
    assert (out == 1).all()
    device.gemm(*none, out)
    assert not out.any()


def test_launches(cupy: ModuleType) -> None:
    """One compilation per source and defines, null pointers of eight bytes, much shared memory only if asked for."""
    device = CupyDevice()
    assert device.max_shared == 232448
    array = device.zeros(3, np.float32)
    for shared, real in ((0, "float"), (100_000, "float"), (0, "double")):
        device.launch("linear.cu", "copy_columns", 5, 128, (np.int32(1), array, None), shared, {"real": real, "ACT": 1})
    device.launch("linear.cu", "copy_columns", 0, 128, (), 0, {"real": "float"})
    first, second = Module.made
    assert {"-Dreal=float", "-DACT=1", f"-I{source_folder()}"} <= set(first.options)
    assert "-Dreal=double" in second.options
    assert first.code.partition("\n")[2] == (source_folder() / "cuda" / "linear.cu").read_text(encoding="utf-8")
    kernel = first.kernels["copy_columns"]
    assert kernel.max_dynamic_shared_size_bytes == 100_000
    (grid, block, args, shared), (*_, more) = kernel.calls
    assert (grid, block, shared, more) == ((5, 1, 1), (128, 1, 1), 0, 100_000)
    assert args[1] is array
    assert [args[0].dtype, args[2].dtype, args[2]] == [np.int32, np.uint64, 0]


def test_machines_without_a_device(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver")

    for count, message in ((lambda: 0, "has no CUDA device"), (fail, "cudaErrorInsufficientDriver")):
        monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", count)
        with pytest.raises(dpa2.InputError, match=message):
            CupyDevice()
