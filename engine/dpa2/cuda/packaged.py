"""The kernels that an installation brings compiled (docs/cuda.md)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Error


@dataclass(frozen=True)
class PackagedKernels:
    """What there is, as :func:`packaged_kernels` finds it."""

    path: str  #: of the package, or ""
    compiler: str  #: NVRTC's version: drivers of an older CUDA refuse its PTX
    ptx: list[str]  #: compute capabilities, each for later ones as well
    machine_code: list[str]  #: compute capabilities, each for itself
    modules: int  #: sources times what they are compiled with, of the sources that are installed
    stale: int  #: those of other sources, which are never used
    missing: str  #: why there is none, or ""

    def __str__(self) -> str:
        if not self.modules:
            why = self.missing or "those of the package are of other sources"
            return f"none in the package ({why}): compiled by NVRTC or CuPy when a model is loaded"
        text = f"{self.modules} modules of NVRTC {self.compiler} in the package"
        if self.ptx:
            text += f", as PTX for compute capability {', '.join(self.ptx)} and later"
        if self.machine_code:
            text += f", as machine code for {', '.join(self.machine_code)}"
        return text + (f"; {self.stale} others are of other sources and not used" if self.stale else "")


def packaged_kernels() -> PackagedKernels:
    """What this installation brings. Needs nothing of CUDA."""
    from .._native import kernel_package

    try:
        path, compiler, images, missing = kernel_package()
    except Error as error:  # no sources beside the library
        path, compiler, images, missing = "", "", [], str(error)
    fresh = [image for image in images if image[3]]

    def capabilities(kind: str) -> list[str]:
        numbers = sorted({int(image[0].removeprefix(kind)) for image in fresh if image[0].startswith(kind)})
        return [f"{number // 10}.{number % 10}" for number in numbers]

    def modules(of: list[tuple[str, str, list[tuple[str, str]], bool]]) -> int:
        return len({(source, tuple(defines)) for _, source, defines, _ in of})

    stale = modules([image for image in images if not image[3]])
    return PackagedKernels(
        path, compiler, capabilities("compute_"), capabilities("sm_"), modules(fresh), stale, missing
    )
