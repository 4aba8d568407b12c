"""The build backend: meson-python, and what the wheel is to hold beside the rest among the requirements.

LAMMPS and MPI are 86 MB, and only their headers are needed, for an optional plugin. A build from source leaves them
out: the plugin is compiled when LAMMPS is first started. Wheels for machines without a compiler are built with
``-Csetup-args=-Dlammps=enabled``, and hold the plugin for the version that the extra ``lammps`` pins.
With ``-Csetup-args=-Dkernels=pip`` they hold compiled kernels of a GPU, made by NVIDIA's compiler (docs/cuda.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mesonpy
from mesonpy import build_editable, build_sdist, build_wheel, get_requires_for_build_editable

try:
    import tomllib
except ImportError:  # Python 3.10, where meson-python needs it too
    import tomli as tomllib  # type: ignore[import-not-found,no-redef]

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

PLUGIN, KERNELS = "-Dlammps=enabled", "-Dkernels=pip"
#: the first of CUDA 12: a driver takes PTX of its own and of older compilers
COMPILER = "nvidia-cuda-nvrtc-cu12==12.0.76"

Settings = dict[str, Any] | None


def _asked_for(config_settings: Settings) -> list[str]:
    """What the plugin and the kernels need, if they are asked for; called in the folder of ``pyproject.toml``."""
    given = (config_settings or {}).get("setup-args", [])
    options = [given] if isinstance(given, str) else given
    required: list[str] = []
    if PLUGIN in options:
        with Path("pyproject.toml").open("rb") as file:
            required += tomllib.load(file)["project"]["optional-dependencies"]["lammps"]
    return [*required, COMPILER] if KERNELS in options else required


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What a wheel needs beside the fixed requirements."""
    return [*mesonpy.get_requires_for_build_wheel(config_settings), *_asked_for(config_settings)]


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    """The same for the sources, which are configured as well before they are packed."""
    return [*mesonpy.get_requires_for_build_sdist(config_settings), *_asked_for(config_settings)]
