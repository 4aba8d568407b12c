"""What the engine needs of a device: memory, kernel launches and dense products.

The launch code is written against :class:`Device` alone. :class:`CupyDevice` is a CUDA device through CuPy; the tests
have another implementation, which runs the same kernels on the CPU.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dpa2.errors import InputError

Array: TypeAlias = Any  # an array of the device: numpy.ndarray or cupy.ndarray, always C-contiguous
Shape: TypeAlias = int | tuple[int, ...]
Defines: TypeAlias = Mapping[str, "str | int"]

# More dynamic shared memory than this per block has to be asked for, kernel by kernel.
DEFAULT_SHARED_BYTES = 48 * 1024


class Device(Protocol):
    """A device that runs the kernels of src/cuda. All work is ordered: one stream."""

    #: the array module: cupy or numpy. Used for cheap operations beside the kernels (sums, sorting, gathers).
    xp: Any
    #: bytes of dynamic shared memory that a block may have
    max_shared: int

    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        """An array of undefined contents."""

    def zeros(self, shape: Shape, dtype: DTypeLike) -> Array: ...

    def asarray(self, value: Any, dtype: DTypeLike | None = None) -> Array:
        """``value`` (of the host or of the device) as a C-contiguous array of the device; itself where it is one."""

    def asnumpy(self, array: Array) -> NDArray[Any]:
        """A copy in the memory of the host, when everything before it is done."""

    def launch(
        self,
        source: str,
        kernel: str,
        grid: int | tuple[int, int, int],
        block: int,
        args: tuple[Any, ...],
        shared: int = 0,
        defines: Defines | None = None,
    ) -> None:
        """Start ``kernel`` of the file ``source`` of src/cuda, compiled with ``defines``, on ``grid`` blocks.

        ``args`` has, in the order of the kernel's parameters: for a pointer an array of the device of that type, or
        None for a null pointer; for a number a NumPy scalar of exactly the parameter's type (np.int32 for int,
        np.float32 or np.float64 for real). ``shared``: bytes of dynamic shared memory. A grid of 0 blocks launches
        nothing.
        """

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
    ) -> None:
        """out (m, n) = op(a) (m, k) op(b) (k, n), or += with ``accumulate``; row-major arrays of one type.

        Views of whole rows and of columns side by side are fine: the last axis must be contiguous.
        """

    def synchronize(self) -> None:
        """Wait until everything is done."""


def source_folder() -> Path:
    """The folder that ``#include`` starts from, with the kernels in ``cuda/``: of the package, else of the checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "src"
    return installed if installed.is_dir() else here.parents[2] / "src"


_INSTALL = (
    "install CuPy and the libraries of CUDA with `pip install cupy-cuda13x[ctk]` (for drivers of CUDA 13; that is what "
    "`pip install dpa2[cuda]` does) or `pip install cupy-cuda12x[ctk]` (for CUDA 12), or load the model with "
    'device="cpu"'
)


@functools.cache
def _headers(folder: Path) -> str:
    """A digest of everything that a kernel may include."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("cuda/*.cuh"), *folder.glob("math/*.hpp")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class CupyDevice:
    """The current CUDA device of CuPy, on CuPy's current stream. Kernels are compiled on first use and kept."""

    def __init__(self) -> None:
        try:
            import cupy
            from cupy.cuda import cublas
        except ImportError as error:
            raise InputError(f'device="cuda" needs CuPy, which cannot be imported ({error}): {_INSTALL}') from error
        try:
            count = int(cupy.cuda.runtime.getDeviceCount())
        except Exception as error:  # CuPy's own error class, or that of a missing CUDA library
            raise InputError(
                f'device="cuda": CuPy finds no CUDA device ({error}). A driver that is older than CuPy\'s CUDA looks '
                f"like this, too: {_INSTALL}"
            ) from error
        if count == 0:
            raise InputError('device="cuda": this machine has no CUDA device; load the model with device="cpu"')
        self.xp: Any = cupy
        self._cublas: Any = cublas
        attributes = cupy.cuda.Device().attributes
        self.max_shared = int(attributes["MaxSharedMemoryPerBlockOptin"])
        self._kernels: dict[tuple[Any, ...], Any] = {}
        self._modules: dict[tuple[Any, ...], Any] = {}
        self._factors: dict[tuple[str, int], NDArray[Any]] = {}

    def empty(self, shape: Shape, dtype: DTypeLike) -> Array:
        return self.xp.empty(shape, dtype)

    def zeros(self, shape: Shape, dtype: DTypeLike) -> Array:
        return self.xp.zeros(shape, dtype)

    def asarray(self, value: Any, dtype: DTypeLike | None = None) -> Array:
        if hasattr(value, "__dlpack__") and not isinstance(value, (np.ndarray, np.generic, self.xp.ndarray)):
            value = self.xp.from_dlpack(value) if value.__dlpack_device__()[0] in (2, 13) else np.asarray(value)
        return self.xp.ascontiguousarray(self.xp.asarray(value, dtype))

    def asnumpy(self, array: Array) -> NDArray[Any]:
        host: NDArray[Any] = self.xp.asnumpy(array)
        return host

    def _kernel(self, source: str, kernel: str, defines: Defines) -> Any:
        key = (source, tuple(sorted(defines.items())))
        function = self._kernels.get((kernel, key))
        if function is None:
            module = self._modules.get(key)
            if module is None:
                folder = source_folder()
                options = ["--std=c++17", f"-I{folder}", *(f"-D{name}={value}" for name, value in key[1])]
                # CuPy keeps compiled modules on disk by their text and options, and does not look into headers.
                text = f"// {_headers(folder)}\n" + (folder / "cuda" / source).read_text(encoding="utf-8")
                module = self._modules[key] = self.xp.RawModule(code=text, options=tuple(options), backend="nvrtc")
            function = self._kernels[(kernel, key)] = module.get_function(kernel)
        return function

    def launch(
        self,
        source: str,
        kernel: str,
        grid: int | tuple[int, int, int],
        block: int,
        args: tuple[Any, ...],
        shared: int = 0,
        defines: Defines | None = None,
    ) -> None:
        blocks = (grid, 1, 1) if isinstance(grid, int) else grid
        if 0 in blocks:
            return
        function = self._kernel(source, kernel, defines or {})
        if shared > DEFAULT_SHARED_BYTES and function.max_dynamic_shared_size_bytes < shared:
            function.max_dynamic_shared_size_bytes = shared
        # A null pointer is eight zero bytes, like any pointer.
        given = tuple(np.uint64(0) if value is None else value for value in args)
        function(blocks, (block, 1, 1), given, shared_mem=shared)

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
    ) -> None:
        m, n = out.shape
        k = a.shape[0] if transpose_a else a.shape[1]
        if m == 0 or n == 0:
            return
        if k == 0:
            if not accumulate:
                out[...] = 0
            return
        run = self._cublas.dgemm if out.dtype == np.float64 else self._cublas.sgemm
        # cuBLAS is column-major: the transposed product of the transposed factors is the row-major one.
        handle = self.xp.cuda.Device().cublas_handle
        swapped = (int(transpose_b), int(transpose_a), n, m, k)
        one, beta = self._factor(out.dtype, 1), self._factor(out.dtype, int(accumulate))
        size = out.dtype.itemsize
        steps = [max(array.strides[0] // size, array.shape[1]) for array in (b, a, out)]
        run(handle, *swapped, one, b.data.ptr, steps[0], a.data.ptr, steps[1], beta, out.data.ptr, steps[2])

    def _factor(self, dtype: Any, value: int) -> int:
        """The address of a number in the memory of the host, which is how cuBLAS takes alpha and beta."""
        number = self._factors.setdefault((str(dtype), value), np.array([value], dtype=dtype))
        return int(number.ctypes.data)

    def synchronize(self) -> None:
        self.xp.cuda.get_current_stream().synchronize()
