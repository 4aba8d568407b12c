"""Compiles every CUDA kernel for every architecture without a GPU: registers, spills, shared memory, occupancy.

    pip install nvidia-cuda-nvrtc==13.5.37 nvidia-cuda-nvdisasm==13.5.37
    python bench/gpu_resources.py
    python bench/gpu_resources.py --architecture sm_90 --precision float --csv resources.csv
    python bench/gpu_resources.py --update

The compiler is NVRTC from PyPI, in the version that the `test` extra pins: registers depend on it. The options are
those of production. Occupancy is that of the largest launch of each kernel in an evaluation of water with all terms of
the model, on the emulated device. `generic` counts loads and stores by addresses of which the
compiler does not know the kind of memory. gpu_limits.json has what the tests hold the kernels to: no spills, 25 %
occupancy but where it states less for an architecture, stack, generic loads, static shared memory, a few registers more
than there were; and for every kernel 48 KiB of static and dynamic shared memory together, but where it states more.
--update writes it anew.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import ROOT, stricter, write_csv
from gpu_cases import shapes

sys.path.insert(0, str(ROOT / "tests"))
import gpu_sass
from cuda_emulator import nvidia

SOURCES = ROOT / "src" / "cuda"
LIMITS = Path(__file__).resolve().parent / "gpu_limits.json"
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")
PRECISIONS = ("float", "double")
LEAST_OCCUPANCY = 0.25
MOST_SHARED = 48 * 1024  # what every device gives without being asked
LIMITED = ("registers", "spilled", "stack", "generic", "static_shared")
DEFAULT_BLOCK = 128
#: kernels that the host compiles in other ways as well, in these precisions
VARIANTS = {("pair_layer.cu", "float"): {"PAIR_FAST": "0"}}
WARP = 32


@dataclass(frozen=True)
class Multiprocessor:
    """What the blocks of a multiprocessor share (CUDA C++ programming guide, technical specifications)."""

    warps: int
    blocks: int
    shared: int  # bytes
    reserved: int  # bytes of shared memory that each block costs besides its own
    unit: int  # in which shared memory is given out
    registers: int = 65536
    register_unit: int = 256  # of a warp
    quarters: int = 4  # each with a quarter of the registers, for whole warps


MULTIPROCESSORS = {
    "sm_75": Multiprocessor(32, 16, 64 * 1024, 0, 256),
    "sm_80": Multiprocessor(64, 32, 164 * 1024, 1024, 128),
    "sm_90": Multiprocessor(64, 32, 228 * 1024, 1024, 128),
    "sm_100": Multiprocessor(64, 32, 228 * 1024, 1024, 128),
}


def occupancy(architecture: str, threads: int, registers: int, shared: int) -> float:
    """Warps that a multiprocessor can hold at once over the most that any kernel could have there."""
    limit = MULTIPROCESSORS[architecture]
    warps = -(-threads // WARP)
    per_warp = -(-max(registers, 1) * WARP // limit.register_unit) * limit.register_unit
    by_registers = limit.registers // limit.quarters // per_warp * limit.quarters // warps
    block = -(-(shared + limit.reserved) // limit.unit) * limit.unit
    by_shared = limit.shared // block if block else limit.blocks
    return min(limit.blocks, limit.warps // warps, by_registers, by_shared) * warps / limit.warps


@dataclass(frozen=True)
class Resources:
    """What a kernel takes: a row of the table."""

    source: str
    kernel: str
    precision: str
    architecture: str
    registers: int
    spilled: int  # bytes stored and loaded
    stack: int  # bytes
    generic: int  # loads and stores
    static_shared: int  # bytes
    threads: int
    dynamic_shared: int  # bytes
    occupancy: float


def sources() -> list[str]:
    """The files with kernels."""
    return sorted(path.name for path in SOURCES.glob("*.cu"))


def parse(log: str) -> dict[str, dict[str, int]]:
    """Kernel -> registers, spilled, stack, static_shared, from the log of ptxas."""
    found: dict[str, dict[str, int]] = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        numbers = {
            name: sum(int(n) for n in re.findall(pattern, part))
            for name, pattern in (
                ("registers", r"Used (\d+) registers"),
                ("spilled", r"(\d+) bytes spill"),
                ("stack", r"(\d+) bytes stack frame"),
                ("static_shared", r"(\d+) bytes smem"),
            )
        }
        found[part.split("'")[0]] = numbers
    return found


def compiled(compiler: nvidia.Nvrtc, architecture: str, precision: str) -> Iterator[Resources]:
    """Every kernel of src/cuda for one architecture and precision."""
    more = [(source, VARIANTS[source, precision]) for source in sources() if (source, precision) in VARIANTS]
    for source, defines in [*((source, {}) for source in sources()), *more]:
        options = [*nvidia.options({"real": precision} | defines), f"-arch={architecture}", "--ptxas-options=-v"]
        log, code = compiler.compile(SOURCES / source, options, "CUBIN")
        machines = gpu_sass.parse(nvidia.disassemble(code))
        for kernel, used in parse(log).items():
            used["generic"] = gpu_sass.generic(machines[kernel].code)
            launch = shapes(precision).get(kernel)
            threads, dynamic = (launch.threads, launch.shared) if launch else (DEFAULT_BLOCK, 0)
            share = occupancy(architecture, threads, used["registers"], used["static_shared"] + dynamic)
            yield Resources(
                source,
                kernel,
                precision,
                architecture,
                **used,
                threads=threads,
                dynamic_shared=dynamic,
                occupancy=share,
            )


def exceeded(row: Resources, limits: dict[str, Any]) -> list[str]:
    """What a kernel takes beyond its limits."""
    limit = limits["kernels"].get(row.kernel, {}).get(row.precision)
    where = f"{row.kernel} ({row.precision}, {row.architecture})"
    if limit is None:
        return [f"{where} has no limits: bench/gpu_resources.py --update writes them"]
    wrong = [
        f"{where}: {name} {getattr(row, name)}, at most {limit[name]} allowed"
        for name in LIMITED
        if getattr(row, name) > limit[name]
    ]
    both = row.static_shared + row.dynamic_shared
    if both > limit.get("shared", MOST_SHARED):
        wrong.append(f"{where}: {both} bytes of shared memory, at most {MOST_SHARED} allowed")
    least = limit.get("occupancy", {}).get(row.architecture, LEAST_OCCUPANCY)
    if row.occupancy < least:
        wrong.append(f"{where}: occupancy {row.occupancy:.0%}, at least {least:.0%} wanted")
    return wrong


def limits_of(rows: list[Resources], compiler: str) -> dict[str, Any]:
    """The limits that hold for these rows: the most over the architectures, the occupancy where it is too low."""
    kernels: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        room = -(-row.registers // 8) * 8 + 8  # a change of a line moves a few registers and is no loss
        limit = kernels.setdefault(row.kernel, {}).setdefault(row.precision, dict.fromkeys(LIMITED, 0))
        limit["registers"] = max(limit["registers"], room)
        for name in LIMITED[1:]:
            limit[name] = max(limit[name], getattr(row, name))
        both = row.static_shared + row.dynamic_shared
        if both > MOST_SHARED:
            limit["shared"] = max(limit.get("shared", 0), both)
        if row.occupancy < LEAST_OCCUPANCY:
            limit.setdefault("occupancy", {})[row.architecture] = int(1000 * row.occupancy) / 1000
    return {"compiler": compiler, "kernels": {name: kernels[name] for name in sorted(kernels)}}


def updated(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The limits with new ones, of which none is easier to keep; kernels that are gone are left out."""
    kernels = {
        name: {
            precision: stricter(known["kernels"][name][precision], limit)
            if precision in known["kernels"].get(name, {})
            else limit
            for precision, limit in both.items()
        }
        for name, both in found["kernels"].items()
    }
    return {"compiler": found["compiler"], "kernels": kernels}


def main() -> None:
    """Compile, print, compare."""
    parser = argparse.ArgumentParser(description="Registers, spills, shared memory and occupancy of every kernel.")
    parser.add_argument("--architecture", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--csv", help="append the rows to this file")
    parser.add_argument(
        "--update", action="store_true", help="write limits that hold for all of this, where they are stricter or new"
    )
    args = parser.parse_args()
    try:
        compiler = nvidia.Nvrtc()
    except (ImportError, OSError) as error:
        raise SystemExit(f"{error}; see the head of {Path(__file__).name}") from error
    print(f"NVRTC {compiler.version}")
    print(f"{'kernel':<28} {'type':<7} {'for':<7} registers spilled stack generic static dynamic threads occupancy")
    rows = []
    for architecture in args.architecture:
        for precision in args.precision:
            for row in compiled(compiler, architecture, precision):
                rows.append(row)
                print(
                    f"{row.kernel:<28} {row.precision:<7} {row.architecture:<7} {row.registers:>9} {row.spilled:>7} "
                    f"{row.stack:>5} {row.generic:>7} {row.static_shared:>6} "
                    f"{row.dynamic_shared:>7} {row.threads:>7} {row.occupancy:>9.0%}",
                    flush=True,
                )
    if args.csv:
        write_csv(args.csv, [{"nvrtc": compiler.version, **asdict(row)} for row in rows])
    limits = json.loads(LIMITS.read_text(encoding="utf-8"))
    if args.update:
        limits = updated(limits, limits_of(rows, compiler.version))
        LIMITS.write_text(json.dumps(limits, indent=1) + "\n", encoding="utf-8")
    wrong = [line for row in rows for line in exceeded(row, limits)]
    if wrong:
        raise SystemExit("\n".join(wrong))
    print(f"{len(rows)} kernels within their limits")


if __name__ == "__main__":
    main()
