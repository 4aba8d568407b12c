"""Where the C and C++ faces of an installed package are: ``python -m dpa2 --cflags --libs``."""

from __future__ import annotations

from pathlib import Path


def _package() -> Path:
    return Path(__file__).resolve().parent


def include_directory() -> Path:
    """The folder of ``dpa2.h`` and ``dpa2.hpp``."""
    return _package() / "include"


def library_directory() -> Path:
    """The folder of ``libdpa2.so``; ``pkgconfig/dpa2.pc`` lies below it."""
    return _package() / "lib"


def compile_flags() -> list[str]:
    """What a compiler needs to find the headers."""
    return [f"-I{include_directory()}"]


def link_flags() -> list[str]:
    """What a linker needs to find the library, now and when the program runs."""
    return [f"-L{library_directory()}", f"-Wl,-rpath,{library_directory()}", "-ldpa2"]
