"""The C++ side of the emulation, compiled on first use and kept in a folder between runs of the tests.

The folder is that of $DPA2_EMULATION_CACHE, else one of the user's own below the system's temporary folder. Kernels are
compiled by native/kernel_library.cpp, into the same folder.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
NATIVE = HERE / "native"
SOURCES = HERE.parent.parent / "src"

# Contraction to fused multiply-adds differs between processors; the tests want one answer.
COMMON = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unused-function",
          "-Wno-attributes", "-Wno-unknown-pragmas", "-Wno-unused-variable", "-Wno-unused-parameter")  # fmt: skip
# Compiling takes longer than running: with the address sanitizer four times as long where code is optimised.
SANITIZERS: dict[str, tuple[str, ...]] = {
    "": ("-O1",),
    "address": (
        *("-O0", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
        "-fsanitize-sections=cuda_shared",
    ),
    "thread": ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=thread"),
}
KEPT_SECONDS = 3 * 24 * 3600
FLAGS = ("-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")
#: the libraries that are put in place of NVIDIA's, and their sources
LIBRARIES = {"cuda": ("cuda", "streams", "machine", "memory"), "nvrtc": ("nvrtc", "kernel_library")}
MESSAGE_BYTES = 1 << 14


class EmulationError(RuntimeError):
    """A kernel that does not compile, is launched wrongly, or misuses what threads do together."""


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
    files = [*sorted(HERE.glob("*pp")), *sorted(NATIVE.glob("*pp"))]
    flags = [*FLAGS, *COMMON, repr(SANITIZERS)]
    return "\0".join([*(path.read_text(encoding="utf-8") for path in files), compiler_version(), *compiler(), *flags])


@functools.cache
def _shared_text(folder: Path) -> str:
    """Everything that any source may include, for the key of the cache."""
    roots = dict.fromkeys((folder, SOURCES))
    files = [path for root in roots for kind in ("cuh", "hpp") for path in sorted(root.glob(f"cuda/*.{kind}"))]
    files += sorted((SOURCES / "math").iterdir())
    return "\0".join(path.read_text(encoding="utf-8") for path in files) + _own_text()


def _once(target: Path, command: Callable[[Path], list[str]]) -> Path:
    """A file that a command makes; other processes wait for the one that runs it."""
    if not target.exists():
        with target.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                part = target.with_suffix(".part")
                _run(command(part))
                part.replace(target)
    return target


def program(name: str, units: Sequence[Path], includes: Sequence[Path], flags: Sequence[str] = ()) -> Path:
    """A C++ program for the tests. What its sources may include lies in their folders and in ``includes``."""
    folders = sorted({*(unit.parent for unit in units), *includes})
    read = sorted({*units, *(path for folder in folders for path in folder.rglob("*.hpp"))})
    options = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-pedantic", *flags]
    key = _digest(
        compiler_version(), *compiler(), *options, *(f"{path}\n{path.read_text(encoding='utf-8')}" for path in read)
    )
    words = [*options, *(f"-I{folder}" for folder in includes), *(str(unit) for unit in units), "-ldl", "-pthread"]
    return _once(cache_folder() / f"{name}-{key}", lambda part: [*compiler(), *words, "-o", str(part)])


@functools.cache
def native_library(name: str) -> Path:
    """The emulated driver ("cuda") or the compiler of kernels ("nvrtc"): never watched by a sanitizer itself."""
    words = {"FOLDER": str(HERE), "DIGEST": _digest(_own_text()), "COMPILER": " ".join(compiler())}
    words |= {"COMMON": " ".join(COMMON)}
    words |= {(key or "plain").upper(): " ".join(flags) for key, flags in SANITIZERS.items()}
    options = [f'-DEMULATION_{key}="{value}"' for key, value in words.items()]
    units = [str(NATIVE / f"{unit}.cpp") for unit in LIBRARIES[name]]
    target = cache_folder() / f"libemulated_{name}-{_digest(_own_text())}.so"
    return _once(target, lambda part: [*compiler(), *FLAGS, *options, *units, "-o", str(part), "-ldl", "-pthread"])


@functools.cache
def _builder() -> ctypes.CDLL:
    return ctypes.CDLL(str(native_library("nvrtc")))


def _ask(name: str, *words: str) -> str:
    """What a function of the builder says; EmulationError with its words where it fails."""
    to = ctypes.create_string_buffer(MESSAGE_BYTES)
    status = getattr(_builder(), name)(*(word.encode() for word in words), to, ctypes.c_size_t(MESSAGE_BYTES))
    text = to.value.decode(errors="replace")
    if status != 0:
        raise EmulationError(text)
    return text


def _runtime(sanitizer: str = "") -> Path:
    """The compiled runtime: never watched by a sanitizer itself."""
    return Path(_ask("emulated_runtime"))


def kernels_of(text: str) -> dict[str, str | None]:
    """The kernels of a source and the largest block of each as written in its __launch_bounds__."""
    lines = [line.partition(" ") for line in _ask("emulated_kernels", text).splitlines()]
    return {name: bounds for name, _, bounds in lines}


def build(path: Path, defines: Mapping[str, str | int], sanitizer: str = "") -> Path:
    """The library of a source file compiled with these defines.

    With "ptx" in place of a sanitizer, of what NVIDIA's compiler makes of it: see compiled.py.
    """
    if sanitizer == "ptx":
        from .compiled import build_compiled

        return build_compiled(path, defines)
    includes = "\n".join(dict.fromkeys([str(path.parent.parent), str(SOURCES)]))
    given = "\n".join(f"{name}={value}" for name, value in defines.items())
    return Path(_ask("emulated_build", str(path), includes, given, sanitizer))


def static_shared(library: Path) -> dict[str, int]:
    """Bytes of static shared memory of the kernels of a library."""
    rows = [line.split() for line in Path(f"{library}.shared").read_text(encoding="utf-8").splitlines()]
    return {name: int(size) for name, size in rows}
