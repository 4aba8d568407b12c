"""Single kernels on the emulation of CUDA, with NumPy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .arguments import pack
from .build import SOURCES, EmulationError, build, static_shared

MESSAGE_BYTES = 1 << 14
# What every device of compute capability 7.5 and later lets a block have.
SHARED_BYTES = 64 * 1024
LARGEST_GRID = (2**31 - 1, 65535, 65535)
LARGEST_BLOCK = 1024


class _Kernel:
    """A compiled kernel, the types of its parameters and its bytes of static shared memory."""

    def __init__(self, library: ctypes.CDLL, name: str, static_shared: int) -> None:
        self.static_shared = static_shared
        signature = ctypes.create_string_buffer(MESSAGE_BYTES)
        getattr(library, f"signature_{name}")(signature, ctypes.c_size_t(MESSAGE_BYTES))
        self.parameters = signature.value.decode().split(",")[:-1]
        self.bound = int(getattr(library, f"bound_{name}")())
        self.launch = getattr(library, f"launch_{name}")


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    return f"{value!r} of type {type(value).__name__}"


def _address(value: Any, code: str, where: str) -> int:
    """The address of an array for a pointer parameter."""
    if value is None:
        return 0
    constant = code.startswith("*c")
    wanted = np.dtype(code.removeprefix("*").removeprefix("c").replace("b1", "?"))
    if not isinstance(value, np.ndarray) or value.dtype != wanted:
        raise EmulationError(f"{where} must be an array of {wanted}, not {_describe(value)}")
    if not value.flags.c_contiguous:
        raise EmulationError(f"{where} is not contiguous: shape {value.shape}, strides {value.strides}")
    if not constant and not value.flags.writeable:
        raise EmulationError(f"{where} is written by the kernel, but the array is read-only")
    return int(value.ctypes.data)


def _number(value: Any, code: str, where: str) -> Any:
    """A NumPy scalar of exactly the type of the parameter: CuPy would pass the bytes of any other as they are."""
    wanted = np.dtype(code.replace("b1", "?"))
    if not isinstance(value, np.generic) or value.dtype != wanted:
        raise EmulationError(f"{where} must be a NumPy scalar of type {wanted}, not {_describe(value)}")
    return value


@dataclass(frozen=True)
class Launch:
    """A record of one launch."""

    source: str
    kernel: str
    grid: tuple[int, int, int]
    block: int
    shared: int


def undefined(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """NaN, and -1 or the largest number: what a kernel must not read."""
    array = np.empty(shape, dtype)
    array.view(np.uint8).reshape(-1)[...] = 0xFF if array.dtype != np.bool_ else 1
    return array


class EmulatedDevice:
    """A CUDA device on the CPU, whose memory is that of the host.

    ``seed``: None runs threads and blocks in a fixed order, a number in a random one. ``sanitizer``: "address" or
    "thread"; the interpreter must then have been started by :func:`~cuda_emulator.sanitize.run`. ``sources``: a folder
    in place of src/cuda. ``launches``: what has been launched, for those who count.
    """

    def __init__(
        self, seed: int | None = None, sanitizer: str = "", sources: Path | None = None, max_shared: int = SHARED_BYTES
    ) -> None:
        self.seed = seed
        self.sanitizer = sanitizer
        self.sources = sources or SOURCES / "cuda"
        self.max_shared = max_shared
        self.launches: list[Launch] = []
        self._libraries: dict[tuple[Any, ...], ctypes.CDLL] = {}
        self._kernels: dict[tuple[Any, ...], _Kernel] = {}

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of :func:`undefined` contents."""
        return undefined(shape, dtype)

    def _kernel(self, source: str, kernel: str, defines: Mapping[str, str | int]) -> _Kernel:
        key = (source, tuple(sorted(defines.items())))
        found = self._kernels.get((kernel, key))
        if found is None:
            library = self._libraries.get(key)
            if library is None:
                path = build(self.sources / source, dict(key[1]), self.sanitizer)
                library = self._libraries[key] = ctypes.CDLL(str(path))
            if not hasattr(library, f"launch_{kernel}"):
                raise EmulationError(f"{source} has no kernel {kernel}")
            found = self._kernels[(kernel, key)] = _Kernel(library, kernel, static_shared(Path(library._name))[kernel])
        return found

    def launch(
        self,
        source: str,
        kernel: str,
        grid: int | tuple[int, int, int],
        block: int,
        args: tuple[Any, ...],
        shared: int = 0,
        defines: Mapping[str, str | int] | None = None,
    ) -> None:
        """Launch a kernel with parameters of its own, as the tests of the emulation have: arrays, and NumPy scalars."""
        blocks = (int(grid), 1, 1) if isinstance(grid, (int, np.integer)) else tuple(int(n) for n in grid)
        if 0 in blocks:
            return
        found = self._kernel(source, kernel, defines or {})
        self._check_launch(kernel, found, blocks, block, shared, args)
        values = (ctypes.c_void_p * max(1, len(args)))()
        keep: list[Any] = []
        for number, (value, code) in enumerate(zip(args, found.parameters, strict=True)):
            where = f"argument {number} of {kernel}"
            if code.startswith("*"):
                cell: Any = np.array([_address(value, code, where)], dtype=np.uint64)
            else:
                cell = np.array([_number(value, code, where)])
            keep.append(cell)
            values[number] = int(cell.ctypes.data)
        self._call(source, kernel, found, values, blocks, block, shared)

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
        """Launch a kernel whose one parameter is the struct of that name, with these members; see :func:`pack`.

        ``defines`` has ``real``, "float" or "double".
        """
        if grid == 0:
            return
        given = dict(defines or {})
        packed = pack(struct, np.float32 if given["real"] == "float" else np.float64, values, self.sources)
        self.start_bytes(source, kernel, grid, block, packed, shared, given)

    def start_bytes(
        self,
        source: str,
        kernel: str,
        grid: int,
        block: int,
        packed: NDArray[Any],
        shared: int = 0,
        defines: Mapping[str, str | int] | None = None,
    ) -> None:
        """The same with the bytes of the struct."""
        given = dict(defines or {})
        found = self._kernel(source, kernel, given)
        if found.parameters != [f"s{packed.nbytes}"]:
            raise EmulationError(f"{kernel} takes {found.parameters}, the struct has {packed.nbytes} bytes")
        self._check_launch(kernel, found, (grid, 1, 1), block, shared, (packed,))
        pointers = (ctypes.c_void_p * 1)(int(packed.ctypes.data))
        self._call(source, kernel, found, pointers, (grid, 1, 1), block, shared)

    def _call(
        self, source: str, kernel: str, found: _Kernel, values: Any, blocks: Sequence[int], block: int, shared: int
    ) -> None:
        x, y, z = blocks
        self.launches.append(Launch(source, kernel, (x, y, z), block, shared))
        seed = -1 if self.seed is None else (self.seed + 7919 * len(self.launches)) % 2**62
        message = ctypes.create_string_buffer(MESSAGE_BYTES)
        three = ctypes.c_uint * 3
        status = found.launch(
            *(values, three(*blocks), three(block, 1, 1), ctypes.c_size_t(shared), ctypes.c_longlong(seed)),
            *(message, ctypes.c_size_t(MESSAGE_BYTES)),
        )
        if status != 0:
            raise EmulationError(f"{source}, {kernel}: {message.value.decode(errors='replace')}")

    def _check_launch(
        self, name: str, kernel: _Kernel, grid: Sequence[int], block: int, shared: int, args: Sequence[Any]
    ) -> None:
        if len(args) != len(kernel.parameters):
            raise EmulationError(f"{name} has {len(kernel.parameters)} parameters, {len(args)} arguments were given")
        if len(grid) != 3 or any(n < 0 or n > most for n, most in zip(grid, LARGEST_GRID, strict=True)):
            raise EmulationError(f"{name}: the grid {tuple(grid)} is not within {LARGEST_GRID}")
        if not 0 < block <= min(kernel.bound, LARGEST_BLOCK):
            raise EmulationError(f"{name}: a block has 1 to {min(kernel.bound, LARGEST_BLOCK)} threads, not {block}")
        if shared + kernel.static_shared > self.max_shared:
            raise EmulationError(
                f"{name}: {shared} bytes of shared memory beside {kernel.static_shared} of static, "
                f"the device has {self.max_shared} for a block"
            )
