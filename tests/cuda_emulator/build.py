"""A kernel source as a shared library for this processor, kept in a folder between runs of the tests.

The folder is that of $DPA2_EMULATION_CACHE, else one of the user's own below the system's temporary folder.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent.parent / "src"

KEPT_SECONDS = 3 * 24 * 3600
# Compiling takes longer than running: with the address sanitizer four times as long where code is optimised.
SANITIZERS: dict[str, tuple[str, ...]] = {
    "": ("-O1",),
    "address": (
        *("-O0", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
        "-fsanitize-sections=cuda_shared",
    ),
    "thread": ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=thread"),
}
# Contraction to fused multiply-adds differs between processors; the tests want one answer.
COMMON = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unused-function",
          "-Wno-attributes", "-Wno-unknown-pragmas", "-Wno-unused-variable", "-Wno-unused-parameter")  # fmt: skip
KERNEL = re.compile(
    r"__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\(((?:[^()]|\([^()]*\))*)\)\s*)?(?:void\s+)?(\w+)\s*\("
)


class EmulationError(RuntimeError):
    """A kernel that does not compile, is launched wrongly, or misuses what threads do together."""


def kernels_of(text: str) -> dict[str, str | None]:
    """The kernels of a source and the largest block of each as written in its __launch_bounds__."""
    plain = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    return {name: bounds for bounds, name in KERNEL.findall(plain)}


@functools.cache
def compiler() -> tuple[str, ...]:
    """The C++ compiler of this machine: $CXX, else c++ or g++."""
    given = shlex.split(os.environ.get("CXX", ""))
    found = given or [next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), "c++")]
    return tuple(found)


@functools.cache
def compiler_version() -> str:
    """What the compiler says of itself."""
    return subprocess.run([*compiler(), "--version"], capture_output=True, text=True, check=True).stdout


def has_sanitizer(name: str) -> bool:
    """Whether the compiler brings the library of a sanitizer ("address" or "thread")."""
    return sanitizer_library(name) is not None


@functools.cache
def sanitizer_library(name: str) -> str | None:
    """The library that must be preloaded for a sanitizer; GCC only, since others do not watch sections of their own."""
    short = {"address": "libasan.so", "thread": "libtsan.so"}[name]
    found = subprocess.run([*compiler(), f"-print-file-name={short}"], capture_output=True, text=True, check=False)
    path = found.stdout.strip()
    return path if "clang" not in compiler_version() and Path(path).is_absolute() else None


@functools.cache
def cache_folder() -> Path:
    """Where libraries are kept."""
    given = os.environ.get("DPA2_EMULATION_CACHE")
    folder = Path(given) if given else Path(tempfile.gettempdir()) / f"dpa2-emulation-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.stat()
    if owner.st_uid != os.getuid() or (not given and stat.S_IMODE(owner.st_mode) & 0o022):
        raise EmulationError(f"{folder} belongs to others; set DPA2_EMULATION_CACHE to a folder of your own")
    for entry in folder.iterdir():  # of sources that have long changed
        with suppress(OSError):  # another process may be quicker
            if entry.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return folder


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _run(command: list[str]) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # compilers stay unwatched
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
    if done.returncode != 0:
        raise EmulationError(f"{shlex.join(command)}\n{done.stderr[:8000]}")


@functools.cache
def _own_text() -> str:
    """The emulation itself and the compiler, for the key of the cache."""
    return "\0".join(path.read_text(encoding="utf-8") for path in sorted(HERE.glob("*pp"))) + compiler_version()


@functools.cache
def _shared_text(folder: Path) -> str:
    """Everything that any source may include, for the key of the cache."""
    files = [*sorted(folder.glob("cuda/*.cuh")), *sorted(folder.glob("cuda/*.hpp")), *sorted((SOURCES / "math").iterdir())]
    return "\0".join(path.read_text(encoding="utf-8") for path in files) + _own_text()


def _runtime(sanitizer: str) -> Path:
    """The compiled runtime: never watched by a sanitizer itself."""
    target = cache_folder() / f"runtime-{_digest(_own_text(), shlex.join(compiler()))}.o"
    if not target.exists():
        part = target.with_suffix(f".{os.getpid()}.o")
        options = ["-O2", "-fno-tree-loop-distribute-patterns", "-fno-stack-protector"]
        _run([*compiler(), *COMMON, *options, f"-I{HERE}", "-c", str(HERE / "runtime.cpp"), "-o", str(part)])
        part.replace(target)
    return target


@functools.cache
def _prepared_header(sanitizer: str) -> list[str]:
    """The include option of the precompiled emulation.hpp: most of the time of a small source is this header's."""
    if "clang" in compiler_version():
        return []
    flags = [*COMMON, *SANITIZERS[sanitizer]]
    folder = cache_folder() / f"header-{_digest(_own_text(), *flags, *compiler())}"
    target = folder / "emulation.hpp.gch"
    if not target.exists():
        folder.mkdir(exist_ok=True)
        part = folder / f"{os.getpid()}.part"
        _run([*compiler(), *flags, "-x", "c++-header", str(HERE / "emulation.hpp"), "-o", str(part)])
        part.replace(target)
    return [f"-I{folder}"]


def _wrapper(path: Path, kernels: Mapping[str, str | None], defines: Mapping[str, str | int]) -> str:
    """The translation unit around a source. Defines may be names of standard headers, so they come after these."""
    lines = ['#include "emulation.hpp"']
    lines += [f"#define {name} {value}" for name, value in defines.items()]
    # Internal linkage, because shared variables of merged templates would have no guarded ends.
    lines += [
        "namespace {",
        f'#include "{path}"',
        "}",
        'extern "C" {',
        '#define EXPORT __attribute__((visibility("default")))',
    ]
    edges = [f"unsigned char __{edge}_cuda_shared[]" for edge in ("start", "stop")]
    lines += [f'extern __attribute__((weak, visibility("hidden"))) {edge};' for edge in edges]
    lines.append(
        "int emulation_launch(void (*)(void**), void**, unsigned char*, unsigned char*, const unsigned*, "
        "const unsigned*, std::size_t, long long, char*, std::size_t);"
    )
    for name, bounds in kernels.items():
        lines += [
            f"static void call_{name}(void** values) {{ emulation::call(&{name}, values); }}",
            f"EXPORT int bound_{name}() {{ const int all[] = {{{bounds or 1024}}}; return all[0]; }}",
            f"EXPORT void signature_{name}(char* to, std::size_t n) {{",
            f"  strncpy(to, emulation::signature_of(&{name}).c_str(), n - 1); }}",
            f"EXPORT int launch_{name}(void** values, const unsigned* grid, const unsigned* block, std::size_t shared,",
            "  long long seed, char* message, std::size_t n) {",
            f"  return emulation_launch(call_{name}, values, __start_cuda_shared, __stop_cuda_shared, grid, block,",
            "    shared, seed, message, n); }",
        ]
    return "\n".join([*lines, "}", ""])


def build(path: Path, defines: Mapping[str, str | int], sanitizer: str = "") -> tuple[Path, list[str]]:
    """The library of a source file compiled with these defines, and the names of its kernels."""
    text = path.read_text(encoding="utf-8")
    kernels = kernels_of(text)
    wrapper = _wrapper(path, kernels, defines)
    flags = [*COMMON, *SANITIZERS[sanitizer]]
    target = (
        cache_folder()
        / f"{path.stem}-{_digest(text, wrapper, _shared_text(path.parent.parent), *flags, *compiler())}.so"
    )
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            unit, part = Path(folder) / "unit.cpp", Path(folder) / "unit.so"
            unit.write_text(wrapper, encoding="utf-8")
            includes = [*_prepared_header(sanitizer), f"-I{HERE}", f"-I{path.parent.parent}", f"-I{SOURCES}"]
            options = ["-shared", "-Wl,-Bsymbolic", str(unit), str(_runtime(sanitizer)), "-o", str(part)]
            _run([*compiler(), *flags, *includes, *options])
            part.replace(target)
    return target, list(kernels)
