"""Libraries of kernels as NVIDIA's compiler makes them (see translate.py), and what their kernels have counted."""

from __future__ import annotations

import ctypes
import functools
import json
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import nvidia
from .build import (
    COMMON,
    HERE,
    SOURCES,
    _digest,
    _run,
    _runtime,
    _shared_text,
    cache_folder,
    compiler,
    kernels_of,
)
from .ptx import Instruction, Module, read
from .translate import Translator, translate

MOST_SHARED = 1 << 20  # so much is emulated; what a kernel may have, others check


def _fma() -> list[str]:
    """Where the processor has fused multiply-adds, they are used: the C library's are slow."""
    try:
        return ["-mfma"] if " fma " in Path("/proc/cpuinfo").read_text(encoding="utf-8") else []
    except OSError:
        return []


def _unit(path: Path, defines: Mapping[str, str | int], lines: list[str], translators: Mapping[str, Translator]) -> str:
    """The translation unit: the translated kernels, and for each what the library of a source offers."""
    bounds = kernels_of(path.read_text(encoding="utf-8"))
    unit = [*lines, *(f"#define {name} {value}" for name, value in defines.items())]
    # The source itself only for the types of the parameters; no code is made of it.
    unit += [
        "namespace {",
        f'#include "{path}"',
        "}",
        'extern "C" {',
        '#define EXPORT __attribute__((visibility("default")))',
    ]
    for name, one in translators.items():
        unit += [
            f"EXPORT int bound_{name}() {{ const int all[] = {{{bounds[name] or 1024}}}; return all[0]; }}",
            f"EXPORT void signature_{name}(char* to, std::size_t n) {{",
            f"  strncpy(to, emulation::signature_of(static_cast<decltype(&{name})>(nullptr)).c_str(), n - 1); }}",
            f"EXPORT int launch_{name}(void** values, const unsigned* grid, const unsigned* block, std::size_t shared,",
            "  long long seed, char* message, std::size_t n) {",
            f"  return compiled::start(ptx::run_{name}, ptx::counts_{name}, ptx::window, {one.static},",
            "    values, grid, block, shared, seed, message, n); }",
            f"EXPORT void counts_{name}(unsigned long long* to[3]) {{",
            f"  compiled::report(ptx::counts_{name}, to[0], to[1], to[2]); }}",
            f"EXPORT void clear_{name}() {{ ptx::counts_{name}.clear(); }}",
        ]
    return "\n".join([*unit, "}", ""])


LARGE = 1_500_000  # characters, for which the compiler would optimise longer than that saves


@functools.cache
def _text(path: Path, defines: tuple[tuple[str, str | int], ...], key: str) -> str:
    """The PTX of a source, kept between runs."""
    target = cache_folder() / f"{path.stem}-{key}.ptx"
    if not target.exists():
        part = target.with_suffix(f".{id(target)}.part")
        part.write_text(nvidia.ptx(path, {name: str(value) for name, value in defines}), encoding="utf-8")
        part.replace(target)
    return target.read_text(encoding="utf-8")


def ptx_of(path: Path, defines: Mapping[str, str | int]) -> str:
    """The PTX of a source of src/cuda."""
    given = tuple(sorted(defines.items()))
    text, how = path.read_text(encoding="utf-8"), (nvidia.Nvrtc().version, *nvidia.options({}, Path()))
    return _text(path, given, _digest(text, repr(given), _shared_text(path.parent.parent), *how))


@functools.cache
def _module(path: Path, defines: tuple[tuple[str, str], ...]) -> tuple[Module, list[str], dict[str, Translator]]:
    module = read(ptx_of(path, dict(defines)))
    return (module, *translate(module, MOST_SHARED))


def module_of(path: Path, defines: Mapping[str, str | int]) -> Module:
    """The PTX of a source, read."""
    return _module(path, tuple(sorted((name, str(value)) for name, value in defines.items())))[0]


def build_compiled(path: Path, defines: Mapping[str, str | int]) -> Path:
    """The library of a source as NVIDIA's compiler sees it: the functions of :func:`.build.build`'s, and `counts_NAME`.

    Raises ImportError where NVIDIA's compiler is not installed.
    """
    _, lines, translators = _module(path, tuple(sorted((name, str(value)) for name, value in defines.items())))
    unit = _unit(path, defines, lines, translators)
    flags = [*COMMON, "-O0" if len(unit) > LARGE else "-O1", "-w", *_fma()]
    target = cache_folder() / f"{path.stem}-{_digest(unit, _shared_text(path.parent.parent), *flags, *compiler())}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            source, part = Path(folder) / "unit.cpp", Path(folder) / "unit.so"
            source.write_text(unit, encoding="utf-8")
            includes = [f"-I{HERE}", f"-I{path.parent.parent}", f"-I{SOURCES}"]
            _run(
                [
                    *compiler(),
                    *flags,
                    *includes,
                    "-shared",
                    "-Wl,-Bsymbolic",
                    str(source),
                    str(_runtime("")),
                    "-o",
                    str(part),
                ]
            )
            shared = "".join(f"{name} {one.static}\n" for name, one in translators.items())
            Path(f"{target}.shared").write_text(shared, encoding="utf-8")
            about = {"source": str(path), "defines": sorted((name, str(value)) for name, value in defines.items())}
            target.with_suffix(".json").write_text(json.dumps(about), encoding="utf-8")
            with suppress(FileExistsError):  # another process was quicker, and what it counts has that file's name
                target.hardlink_to(part)
    return target


@dataclass(frozen=True)
class Executed:
    """What a kernel has executed: one row per basic block of its PTX, and one per load or store."""

    source: Path
    defines: dict[str, str]
    kernel: Translator
    launches: int
    blocks_launched: int
    threads: int  # of the largest block
    shared: int  # bytes of the largest launch, static and dynamic
    read: int  # sectors of 32 bytes of the device's memory, each once per launch
    written: int
    blocks: NDArray[np.uint64]  # (blocks, 2) by warps, by threads
    accesses: NDArray[np.uint64]  # (accesses, 4) by warps, pieces, the fewest for these words, by generic addresses

    def pieces(self, space: str) -> tuple[int, int]:
        """Wavefronts of "shared" memory (and generic loads), or sectors of "global" memory; and the fewest."""
        rows = [row for one, row in zip(self.kernel.accesses, self.accesses, strict=True) if space == space_of(one)]
        return sum(int(row[1]) for row in rows), sum(int(row[2]) for row in rows)


def space_of(access: Instruction) -> str:
    """The memory of a load or store."""
    return "global" if "global" in access.operation.split(".") else "shared"


def executed(clear: bool = True) -> list[Executed]:
    """Of every kernel that this process has launched from a library of :func:`build_compiled`, whoever loaded it."""
    found = []
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        loaded = sorted({line.split()[-1] for line in maps if line.rstrip().endswith(".so")})
    for name in loaded:
        about = Path(name).with_suffix(".json")
        if not about.exists():
            continue
        given = json.loads(about.read_text(encoding="utf-8"))
        library, path = ctypes.CDLL(name), Path(given["source"])
        for kernel, one in _module(path, tuple(map(tuple, given["defines"])))[2].items():
            launches = np.zeros(6, np.uint64)
            blocks = np.zeros((max(1, one.kernel.blocks), 2), np.uint64)
            accesses = np.zeros((len(one.accesses), 4), np.uint64)
            pointers = (ctypes.c_void_p * 3)(*(array.ctypes.data for array in (launches, blocks, accesses)))
            getattr(library, f"counts_{kernel}")(pointers)
            if clear:
                getattr(library, f"clear_{kernel}")()
            if launches[0] > 0:
                found.append(Executed(path, dict(given["defines"]), one, *map(int, launches), blocks, accesses))
    return found


def main() -> None:
    """Prints the path of the library of a source: for the emulated driver, which is no Python."""
    path, *defines = sys.argv[1:]
    pairs = [define.split("=", 1) for define in defines]
    print(build_compiled(Path(path), dict(pairs)))


if __name__ == "__main__":
    main()
