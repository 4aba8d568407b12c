"""The host of the GPU in a program without Python, and kernels of its own: what tests/cuda runs on emulated devices."""

from __future__ import annotations

import shutil
from pathlib import Path

from cuda_emulator import build
from pages import ROOT

UNITS = [
    "src/gpu/driver.cpp",
    "src/gpu/device.cpp",
    "src/gpu/nvrtc.cpp",
    "src/gpu/kernel_package.cpp",
    "src/gpu/packing.cpp",
    "src/gpu/device_loader.cpp",
    "src/gpu/tensor.cpp",
    "tests/cuda/device_program.cpp",
]


def sources_of_tests(folder: Path) -> Path:
    """The kernels of the tests, with what they include, in a folder."""
    shutil.copytree(ROOT / "tests/cuda/sources", folder, dirs_exist_ok=True)
    shutil.copytree(build.SOURCES / "math", folder / "math")
    for header in build.SOURCES.glob("cuda/*.cuh"):
        shutil.copy(header, folder / "cuda")
    return folder


def device_program() -> Path:
    """tests/cuda/device_program.cpp, which makes one check at a time."""
    units = [ROOT / unit for unit in UNITS]
    return build.program(
        "device_program", units, [ROOT / folder for folder in ("src", "include", "tests/cuda", "tests/native")]
    )


def line_of(output: str, begin: str) -> str:
    """The line of an error."""
    found = [line for line in output.splitlines() if line.startswith(f"{begin}: ")]
    assert len(found) == 1, output
    return found[0]
