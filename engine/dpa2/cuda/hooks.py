"""What CuPy does for a model on a GPU: it compiles kernels, keeps them on disk, and gives memory."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpa2.errors import Error, InputError, OutOfMemoryError

_INSTALL = (
    "install CuPy and the libraries of CUDA with `pip install cupy-cuda13x[ctk]` (for drivers of CUDA 13; that is what "
    "`pip install dpa2[cuda]` does) or `pip install cupy-cuda12x[ctk]` (for CUDA 12), or load the model with "
    'device="cpu"'
)


@functools.cache
def headers(folder: Path) -> str:
    """A digest of everything that a kernel may include."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("cuda/*.cuh"), *folder.glob("cuda/*.hpp"), *folder.glob("math/*.hpp")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class CupyHooks:
    """The hooks of one device: ``function`` and ``memory`` are called by the compiled core.

    Args:
        number: of the device, among those that CUDA shows.

    Raises:
        InputError: CuPy finds no such device.
    """

    def __init__(self, number: int) -> None:
        import cupy

        try:
            count = int(cupy.cuda.runtime.getDeviceCount())
        except Exception as error:  # CuPy's own error class, or that of a missing CUDA library
            raise InputError(
                f"CuPy finds no CUDA device ({error}). A driver that is older than CuPy's CUDA looks like this, too: "
                f"{_INSTALL}"
            ) from error
        if number >= count:
            has = f"{count} of them" if count else "none"
            raise InputError(f'there is no CUDA device {number}: this machine has {has}; device="cpu" needs none')
        self.cupy: Any = cupy
        self.number = number
        self._modules: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}

    def function(self, source: str, name: str, defines: Sequence[tuple[str, str]]) -> int:
        """The handle of kernel ``name`` of src/cuda/``source``; valid as long as this object."""
        return int(self.kernel(source, name, defines).kernel.ptr)

    def kernel(self, source: str, name: str, defines: Sequence[tuple[str, str]]) -> Any:
        """The same as CuPy's object."""
        from dpa2._native import kernel_folder, kernel_options

        key = (source, tuple(defines))
        with self._device(f"compiling {source}"):
            module = self._modules.get(key)
            if module is None:
                folder = Path(kernel_folder())
                options = tuple(kernel_options(list(defines), str(folder)))
                # CuPy keeps compiled modules by their text and options, and does not look into headers.
                text = f"// {headers(folder)}\n" + (folder / "cuda" / source).read_text(encoding="utf-8")
                module = self._modules[key] = self.cupy.RawModule(code=text, options=options, backend="nvrtc")
            return module.get_function(name)

    def memory(self, nbytes: int) -> Any:
        """Memory of CuPy's pool: an object with an address ``ptr`` that keeps it."""
        with self._device(f"asking for {nbytes} bytes of memory"):
            return self.cupy.cuda.alloc(nbytes)

    @contextmanager
    def _device(self, doing: str) -> Iterator[None]:
        """The device is CuPy's current one, and CuPy's errors become dpa2's."""
        try:
            with self.cupy.cuda.Device(self.number):
                yield
        except Error:
            raise
        except MemoryError as error:
            raise OutOfMemoryError(f"CuPy, {doing}: {error}") from error
        except Exception as error:
            raise Error(f"CuPy, {doing}: {error}") from error


def cupy_hooks(number: int) -> CupyHooks | None:
    """Those of a device; None where CuPy is not there or a stand-in is named for the driver.

    The core then finds NVRTC and the driver by itself.
    """
    if os.environ.get("DPA2_CUDA_DRIVER"):
        return None
    try:
        import cupy  # noqa: F401
    except ImportError:
        return None
    return CupyHooks(number)
