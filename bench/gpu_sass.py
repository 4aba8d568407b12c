"""The machine code of a kernel: what each basic block of its PTX costs, generic loads and stores, bytes of stack.

Code comes from NVRTC's PTX by the linker of the same version, with the number of each PTX instruction as its line. The
compiler of a GPU's driver does what the linker does; NVRTC's own machine code has nearly the same instructions
(gpu_resources.py counts that one).
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import multimode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from cuda_emulator import nvidia
from cuda_emulator.build import _digest, cache_folder
from cuda_emulator.ptx import Instruction, Kernel, Module

_SECTION = re.compile(r"\.section\s+\.text\.([\w$]+)")
_FUNCTION = re.compile(r"\.type\s+(\S+),@function")
_LINE = re.compile(r'//## File "[^"]*", line (\d+)')
_CODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)([^;]*);")
#: instructions of PTX that are one instruction of the machine each time that they are executed
ANCHORS = (
    (re.compile(r"fma\.rn.*f32"), "FFMA"), (re.compile(r"fma\.rn.*f64"), "DFMA"), (re.compile(r"ld\.shared"), "LDS"),
    (re.compile(r"st\.shared"), "STS"), (re.compile(r"ld\.global"), "LDG"), (re.compile(r"st\.global"), "STG"),
    (re.compile(r"mma\.sync.*tf32"), "HMMA"), (re.compile(r"mma\.sync.*f64"), "DMMA"),
    (re.compile(r"shfl"), "SHFL"), (re.compile(r"bar\.sync"), "BAR"), (re.compile(r"ex2\.approx"), "MUFU"),
)  # fmt: skip
#: functions of the compiler that every call runs through; others are for rare numbers and are not counted
ALWAYS = re.compile(r"_(div|rem)_[su]64")
FUSED = ("FFMA", "DFMA")
TENSOR = ("HMMA", "DMMA")


@dataclass(frozen=True)
class Code:
    """One instruction of the machine."""

    number: int  # of the instruction of PTX that it comes from, 0 for unknown
    name: str  # FFMA, LDS.128 and so on
    predicate: str
    operands: str


@dataclass
class Machine:
    """A kernel's code, and that of the compiler's own functions that it calls."""

    name: str
    code: list[Code] = field(default_factory=list)
    functions: dict[str, list[Code]] = field(default_factory=dict)


def parse(text: str) -> dict[str, Machine]:
    """Kernels of what nvdisasm prints."""
    found: dict[str, Machine] = {}
    machine, code, line = Machine(""), [], 0
    section = ""
    for row in text.splitlines():
        if begun := _SECTION.search(row):
            section, line = begun[1], 0
            machine = found[section] = Machine(section)
            code = machine.code
        elif function := _FUNCTION.search(row):
            if function[1] != section:
                code = machine.functions.setdefault(function[1], [])
                line = 0
        elif place := _LINE.search(row):
            line = int(place[1])
        elif (one := _CODE.match(row)) and one[2] != "NOP":
            code.append(Code(line, one[2], one[1] or "", one[3].strip()))
    return found


@cache
def machine_code(numbered: str, architecture: str) -> dict[str, Machine]:
    """The kernels of a module whose instructions are numbered (:attr:`cuda_emulator.ptx.Module.numbered`)."""
    kept = cache_folder() / f"code-{_digest(numbered, architecture, nvidia.version(nvidia.LINKER))}.sass"
    if not kept.exists():
        part = kept.with_suffix(f".{os.getpid()}.part")
        part.write_text(nvidia.disassemble(nvidia.assemble(numbered, architecture)), encoding="utf-8")
        part.replace(kept)
    return parse(kept.read_text(encoding="utf-8"))


def generic(code: list[Code]) -> int:
    """Loads and stores by addresses of which the compiler does not know the kind of memory."""
    return sum(one.name.split(".")[0] in ("LD", "ST") for one in code)


def _copies(instructions: list[Instruction], of: dict[int, list[Code]]) -> int:
    """How many copies of a basic block the machine code has, of a loop that the assembler has unrolled."""
    anchors = []
    for one in instructions:
        for pattern, name in ANCHORS:
            if pattern.match(one.operation):
                anchors.append(sum(code.name.split(".")[0] == name for code in of.get(one.number, [])))
    anchors = [n for n in anchors if n > 0]
    if anchors:
        return min(multimode(anchors))
    return min((len(of[one.number]) for one in instructions if of.get(one.number)), default=1)


@dataclass
class Cost:
    """Instructions of the machine for each time that a warp goes through a basic block of PTX."""

    always: Counter[str] = field(default_factory=Counter)
    predicated: Counter[str] = field(default_factory=Counter)  # which a warp may also issue for nothing
    copies: int = 1


def costs(kernel: Kernel, machine: Machine) -> list[Cost]:
    """Of every basic block. Names are without their modifiers."""
    of: dict[int, list[Code]] = {}
    known = {one.number: one.block for one in kernel.instructions}
    first = min(known, default=0)
    for code in machine.code:
        of.setdefault(code.number if code.number in known else first, []).append(code)
    by_block: list[list[Instruction]] = [[] for _ in range(max(1, kernel.blocks))]
    for one in kernel.instructions:
        by_block[one.block].append(one)
    out = []
    for instructions in by_block:
        cost = Cost(copies=_copies(instructions, of))
        for one in instructions:
            for code in of.get(one.number, []):
                name = code.name.split(".")[0]
                jump = name in ("BRA", "EXIT", "RET", "CALL", "BSYNC", "BREAK")
                (cost.predicated if code.predicate and not jump else cost.always)[name] += 1
                if name == "CALL":
                    for function, inside in machine.functions.items():
                        if function in code.operands and ALWAYS.search(function):
                            cost.always.update(c.name.split(".")[0] for c in inside)
        out.append(cost)
    return out


def executed(kernel: Kernel, machine: Machine, warps: list[int]) -> Counter[str]:
    """Instructions that warps have executed, by name; ``warps`` of every basic block."""
    total: Counter[str] = Counter()
    for block, cost in enumerate(costs(kernel, machine)):
        around = max(warps[block], warps[block - 1] if block else 0)  # where a jump has become a predicate
        for counter, times in ((cost.always, warps[block]), (cost.predicated, around)):
            for name, number in counter.items():
                total[name] += number * times / cost.copies  # type: ignore[assignment]
    return total


def fused(module: Module, name: str, warps: list[int]) -> int:
    """Fused multiply-adds that warps have executed by the PTX alone."""
    return sum(warps[one.block] for one in module.kernels[name].instructions if one.operation.startswith("fma."))
