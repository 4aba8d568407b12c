"""What kernels execute, counted without a GPU: instructions, multiply-adds, shared memory and its bank conflicts.

    pip install nvidia-cuda-nvrtc==13.5.37 nvidia-nvjitlink==13.5.37 nvidia-cuda-nvdisasm==13.5.37
    python bench/gpu_counts.py
    python bench/gpu_counts.py --model medium --precision float --lines 20
    python bench/gpu_counts.py --update

NOTHING HERE IS A TIME. One evaluation of a small box of water runs on the CPU, with the kernels as NVIDIA's compiler
makes them: its PTX, translated (tests/cuda_emulator/translate.py). That counts how often warps go through each basic
block, and the address of every access to shared memory. The machine code of the same PTX says what a block costs.

What the columns are:

fma       fused multiply-adds among all instructions that warps execute. The rest is loads, addresses, loops, waiting.
waves/fma wavefronts of shared memory for each multiply-add of a warp. A wavefront is 32 words of 4 bytes from different
          banks; a multiprocessor makes one per clock and four warp multiply-adds (float), so more than 0.25 slows down.
tensor    products of fragments by tensor cores (DPA2_CUDA_TENSOR=1), each as many multiply-adds as 32 (float) or 8
          (double) instructions of a warp.
conflicts wavefronts beyond the fewest that could bring the same words, as a share of these.
generic   loads and stores whose kind of memory is found out when they run.

What they cannot know: the assembler unrolls some loops once more, whose copies here cost their mean; a block that it
has turned into predicated instructions costs as if they were always issued; functions for rare numbers cost nothing;
lanes that go through loops a different number of times are taken for as far together as they can be. Multiply-adds and
wavefronts hardly depend on any of that. Caches, latency and the order of blocks are not there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import ROOT, stricter, write_csv

sys.path.insert(0, str(ROOT / "tests"))
import gpu_memory
import gpu_sass
from cuda_emulator.compiled import Executed, executed, module_of, space_of
from gpu_cases import MODELS, PRECISIONS, Evaluation, liquid, process, water

LIMITS = Path(__file__).resolve().parent / "gpu_counts.json"
ARCHITECTURE = "sm_90"


@dataclass(frozen=True)
class Row:
    """A kernel, in all launches of an evaluation: numbers per atom where they are not shares."""

    model: str
    precision: str
    kernel: str
    launches: int
    instructions: float  # of warps
    fma: float  # of these, multiply-adds
    fma_share: float
    wavefronts: float  # of shared memory
    waves_per_fma: float
    conflicts: float  # beyond the fewest, as a share of these
    tensor: float  # products by tensor cores: instructions of warps
    special: float  # instructions for exponentials, roots and reciprocals
    sectors: float  # of 32 bytes that warps ask the device's memory for
    traffic: float  # bytes of these that differ within a launch, read or written
    generic: int  # loads and stores in the code
    shared: int  # bytes of the largest launch, static and dynamic


def row_of(model: str, precision: str, atoms: int, found: list[Executed]) -> Row:
    """Of one kernel; several where it is compiled with different names defined."""
    instructions: Counter[str] = Counter()
    waves = ideal = generic = sectors = 0
    for one in found:
        module = module_of(one.source, one.defines)
        name = one.kernel.kernel.name
        machine = gpu_sass.machine_code(module.numbered, ARCHITECTURE)[name]
        instructions += gpu_sass.executed(one.kernel.kernel, machine, [int(n) for n in one.blocks[:, 0]])
        needed, fewest = one.pieces("shared")
        waves += needed
        ideal += fewest
        sectors += one.pieces("global")[0]
        generic += gpu_sass.generic(machine.code)
    total = float(sum(instructions.values()))
    fma = float(sum(instructions[name] for name in gpu_sass.FUSED))
    return Row(
        model,
        precision,
        found[0].kernel.kernel.name,
        sum(one.launches for one in found),
        total / atoms,
        fma / atoms,
        fma / total if total else 0.0,
        waves / atoms,
        waves / fma if fma else 0.0,
        (waves - ideal) / ideal if ideal else 0.0,
        float(sum(instructions[name] for name in gpu_sass.TENSOR)) / atoms,
        instructions["MUFU"] / atoms,
        sectors / atoms,
        32.0 * sum(one.read + one.written for one in found) / atoms,
        generic,
        max(one.shared for one in found),
    )


def count_here(name: str, precision: str, lines: int, real: bool) -> dict[str, Any]:
    """A steady step of a model, counted in this process; what :class:`Counts` has."""
    evaluation = Evaluation(MODELS[name], precision)
    structure = liquid() if real else water(MODELS[name].atoms)
    atoms = len(structure.types)
    evaluation.step(structure)  # which finds out how long the lists are
    evaluation.step(structure)
    executed()
    evaluation.step(structure)
    found = executed()
    by_kernel: dict[str, list[Executed]] = {}
    for one in found:
        by_kernel.setdefault(one.kernel.kernel.name, []).append(one)
    return {
        "rows": [asdict(row_of(name, precision, atoms, some)) for some in by_kernel.values()],
        "lines": worst_lines(found, lines),
        "launches": evaluation.native.launches,
    }


@dataclass(frozen=True)
class Counts:
    """A steady step of a model."""

    rows: list[Row]  # the sum, "all", and the kernels in order of instructions
    lines: list[tuple[str, str, int, int]]  # the worst: see worst_lines
    launches: int  # as the engine says
    bytes_per_atom: float  # of the device, in a large system (gpu_memory.py)


def count(name: str, precision: str, lines: int = 0, real: bool = False) -> Counts:
    """Counts a model in a process of its own, for as few atoms as are enough. ``real``: for 192 atoms of an
    equilibrated box, with the kernels in their form for large systems."""
    words = ("--here", name, precision, str(lines), "real" if real else "")
    found = process(Path(__file__).resolve(), *words, sanitizer="ptx", multiprocessors=1 if real else 132)
    rows = sorted((Row(**row) for row in found["rows"]), key=lambda row: -row.instructions)
    instructions, fma, waves, tensor, special, sectors, traffic = (
        sum(getattr(row, key) for row in rows)
        for key in ("instructions", "fma", "wavefronts", "tensor", "special", "sectors", "traffic")
    )
    fewest = sum(row.wavefronts / (1.0 + row.conflicts) for row in rows)
    whole = Row(
        name, precision, "all", sum(row.launches for row in rows), instructions, fma, fma / instructions, waves,
        waves / fma, waves / fewest - 1.0, tensor, special, sectors, traffic,
        sum(row.generic for row in rows), max(row.shared for row in rows),
    )  # fmt: skip
    worst = [tuple(line) for line in found["lines"]]
    return Counts([whole, *rows], worst, found["launches"], gpu_memory.bytes_per_atom(name, precision))


def worst_lines(found: list[Executed], number: int) -> list[tuple[str, str, int, int]]:
    """Lines of the sources with the most wavefronts beyond the fewest: kernel, line, wavefronts, fewest."""
    lines: dict[tuple[str, str], list[int]] = {}
    for one in found:
        for instruction, (_, waves, ideal, _) in zip(one.kernel.accesses, one.accesses.tolist(), strict=True):
            if space_of(instruction) != "shared":
                continue
            sums = lines.setdefault((one.kernel.kernel.name, instruction.source), [0, 0])
            sums[0] += waves
            sums[1] += ideal
    worst = sorted(lines.items(), key=lambda item: item[1][1] - item[1][0])[:number]
    return [(*where, waves, ideal) for where, (waves, ideal) in worst]


def exceeded(counts: Counts, limits: dict[str, Any]) -> list[str]:
    """What is beyond the limits of a model."""
    model, precision = counts.rows[0].model, counts.rows[0].precision
    whole = limits["models"].get(model, {}).get(precision, {"bytes_per_atom": 0, "kernels": {}})
    known, wrong = whole["kernels"], []
    if counts.bytes_per_atom > whole["bytes_per_atom"]:
        found = f"{counts.bytes_per_atom:.0f} bytes per atom, at most {whole['bytes_per_atom']} allowed"
        wrong.append(f"{model} ({precision}): {found}")
    for row in counts.rows:
        where = f"{model} ({precision}), {row.kernel}"
        limit = known.get(row.kernel)
        if limit is None:
            wrong.append(f"{where} has no limits: bench/gpu_counts.py --update writes them")
            continue
        wrong += [
            f"{where}: {name} {getattr(row, name):.4g}, at most {limit[name]:.4g} allowed"
            for name in ("launches", "instructions", "waves_per_fma", "conflicts", "generic", "shared")
            if getattr(row, name) > limit[name]
        ]
        if row.fma_share < limit["fma_share"]:
            wrong.append(f"{where}: fma_share {row.fma_share:.3f}, at least {limit['fma_share']:.3f} wanted")
    missing = known.keys() - {row.kernel for row in counts.rows}
    return wrong + [f"{model} ({precision}): {name} was not launched" for name in sorted(missing)]


def limits_of(counts: Counts) -> dict[str, Any]:
    """Limits that hold for these counts, with a little room: the next compiler's choices are no loss."""
    kernels = {
        row.kernel: {
            "launches": row.launches,
            "instructions": float(f"{1.05 * row.instructions:.4g}"),
            "fma_share": int(1000 * 0.95 * row.fma_share) / 1000,
            "waves_per_fma": float(f"{1.05 * row.waves_per_fma + 0.001:.3g}"),
            "conflicts": float(f"{1.05 * row.conflicts + 0.01:.3g}"),
            "generic": row.generic,
            "shared": row.shared,
        }
        for row in sorted(counts.rows, key=lambda row: row.kernel)
    }
    return {"bytes_per_atom": int(1.02 * counts.bytes_per_atom) + 1, "kernels": kernels}


def updated(known: dict[str, Any] | None, found: dict[str, Any]) -> dict[str, Any]:
    """The limits of a model with new ones, of which none is easier to keep; kernels that are gone are left out."""
    if known is None:
        return found
    kernels = {
        name: stricter(known["kernels"][name], limit) if name in known["kernels"] else limit
        for name, limit in found["kernels"].items()
    }
    return {"bytes_per_atom": min(known["bytes_per_atom"], found["bytes_per_atom"]), "kernels": kernels}


def show(rows: list[Row], lines: list[tuple[str, str, int, int]]) -> None:
    """Print the tables."""
    print(f"\n{rows[0].model}, {rows[0].precision}; instructions, multiply-adds and wavefronts of warps per atom")
    print(
        f"{'kernel':<28}{'launches':>9}{'instr.':>11}{'fma':>10}{'share':>7}{'tensor':>8}{'waves/fma':>11}{'conflicts':>10}"
        f"{'generic':>8}{'shared':>8}"
    )
    for row in rows:
        print(
            f"{row.kernel:<28}{row.launches:>9}{row.instructions:>11.0f}{row.fma:>10.0f}{row.fma_share:>7.1%}"
            f"{row.tensor:>8.0f}{row.waves_per_fma:>11.2f}{row.conflicts:>10.1%}{row.generic:>8}{row.shared:>8}"
        )
    for kernel, line, waves, ideal in lines:
        print(f"  {kernel} {line}: {waves} wavefronts, {ideal} would do")


def main() -> None:
    """Count, print, compare."""
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps(count_here(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "real")))
        return
    parser = argparse.ArgumentParser(description="Executed instructions and accesses to shared memory, without a GPU.")
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["float"])
    parser.add_argument(
        "--lines", type=int, default=5, help="how many lines with bank conflicts are shown (default: 5)"
    )
    parser.add_argument("--csv", help="append the rows to this file")
    parser.add_argument(
        "--update", action="store_true", help="write limits that hold for this, where they are stricter or new"
    )
    args = parser.parse_args()
    limits = json.loads(LIMITS.read_text(encoding="utf-8")) if LIMITS.exists() else {"models": {}}
    wrong: list[str] = []
    for name in args.model:
        for precision in args.precision:
            found = count(name, precision, lines=args.lines)
            rows = found.rows
            show(rows, found.lines)
            print(
                f"{found.launches} launches, {found.bytes_per_atom / 1e3:.1f} kB of the device for each of many atoms"
            )
            if args.csv:
                write_csv(args.csv, [asdict(row) for row in rows])
            if args.update:
                models = limits["models"].setdefault(name, {})
                models[precision] = updated(models.get(precision), limits_of(found))
            wrong += exceeded(found, limits)
    if args.update:
        LIMITS.write_text(json.dumps(limits, indent=1) + "\n", encoding="utf-8")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
