"""PTX, the assembler that NVIDIA's compiler writes, read: kernels, their basic blocks and instructions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TYPES = {"b8": "u8", "b16": "u16", "b32": "u32", "b64": "u64", "pred": "bool"} | {
    name: name for name in ("u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "f32", "f64")
}
BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}


class PtxError(RuntimeError):
    """PTX that is not understood."""


@dataclass(frozen=True)
class Instruction:
    """One instruction: its number in the module, the line of the source that it comes from."""

    number: int
    text: str  # without predicate and semicolon
    predicate: str  # "", "%p1" or "!%p1"
    operation: str
    operands: tuple[str, ...]
    block: int
    source: str  # "conv.cu:17", or "" where nothing is known


@dataclass
class Kernel:
    """An entry of a module."""

    name: str
    parameters: list[tuple[str, int]]  # names and bytes
    threads: int
    body: list[str | Instruction] = field(default_factory=list)  # labels, braces, declarations; and instructions
    blocks: int = 0

    @property
    def instructions(self) -> list[Instruction]:
        return [one for one in self.body if isinstance(one, Instruction)]


@dataclass
class Module:
    """PTX, read. ``numbered``: the same text in which every instruction is a line of a file of its own."""

    kernels: dict[str, Kernel]
    shared: dict[str, tuple[int, int]]  # alignment and bytes, -1 for those that the launch gives
    constants: dict[str, tuple[str, int, str]]  # type, number, initial values
    numbered: str


ARRAY = re.compile(
    r"(?:\.visible |\.extern |\.weak )*\.(shared|global|const|local)\s+(?:\.align (\d+) )?\.(\w+)\s+"
    r"([\w$]+)(\[(\d*)\])?(?:\s*=\s*(.*))?;"
)
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align (\d+) )?\.(\w+)\s+(?:\.ptr\s+\S+\s+(?:\.align \d+ )?)?([\w$]+)(?:\[(\d+)\])?"
)


def _operands(text: str) -> tuple[str, ...]:
    """Split at commas that are outside of brackets."""
    found, depth, part = [], 0, ""
    for char in text:
        depth += char in "[{"
        depth -= char in "]}"
        if char == "," and depth == 0:
            found.append(part.strip())
            part = ""
        else:
            part += char
    return (*found, part.strip()) if part.strip() else tuple(found)


class _Reader:
    """Reads a module line by line."""

    def __init__(self, text: str) -> None:
        self.module = Module({}, {}, {}, "")
        self.out: list[str] = []
        self.files: dict[str, str] = {}
        self.source = ""
        self.kernel: Kernel | None = None
        self.number = self.depth = 0
        self.begins = False
        for file, path in re.findall(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', text, re.MULTILINE):
            self.files[file] = path.rsplit("/", 1)[-1]
        plain = re.sub(r"^\s*\.section.*?^\s*\}", "", text, flags=re.MULTILINE | re.DOTALL)
        for line in plain.splitlines():
            self.line(re.sub(r"//.*", "", line).strip(), line)
        self.out.append('.file 1 "ptx"')
        self.module.numbered = "\n".join(self.out) + "\n"

    def line(self, text: str, original: str) -> None:
        if re.match(r"\.loc\s", text):
            words = text.split()
            self.source = f"{self.files.get(words[1], '')}:{words[2]}"
            return
        if text.startswith(".file"):
            return
        if self.kernel is None or self.depth == 0:
            self.out.append(original)
            self.head(text)
            return
        for part in re.findall(r"^\{(?=\s|$)|[^;]+;|[\w$]+:|\}$", text):
            self.part(part.strip())

    def head(self, text: str) -> None:
        entry = re.search(r"\.entry\s+([\w$]+)", text)
        if entry:
            self.kernel = Kernel(entry[1], [], 1024)
            self.module.kernels[entry[1]] = self.kernel
        if self.kernel is not None:
            for _, kind, name, count in _PARAMETER.findall(text):
                size = BYTES[re.sub(r"\D", "", kind)] * int(count or 1)
                self.kernel.parameters.append((name, size))
            most = re.match(r"\.maxntid\s+(\d+)", text)
            if most:
                self.kernel.threads = int(most[1])
            if text == "{":
                self.depth = 1
                self.begins = True
                self.kernel.blocks = 0
                self.source = ""
            return
        self.array(text)

    def array(self, text: str) -> bool:
        found = ARRAY.match(text)
        if found is None:
            return False
        space, align, kind, name, is_array, count, values = found.groups()
        size = BYTES[re.sub(r"\D", "", kind)]
        if space == "shared":
            bytes_ = -1 if is_array and not count else size * int(count or 1)
            self.module.shared[name] = (int(align or size), bytes_)
        else:
            self.module.constants[name] = (TYPES[kind], int(count or 1), values or "")
        return True

    def part(self, text: str) -> None:
        kernel = self.kernel
        assert kernel is not None
        if text == "{":
            self.depth += 1
            self.out.append(text)
            kernel.body.append(text)
        elif text == "}":
            self.depth -= 1
            self.out.append(text)
            if self.depth == 0:
                self.kernel = None
            else:
                kernel.body.append(text)
        elif text.endswith(":"):
            self.out.append(text)
            kernel.body.append(text)
            self.begins = True
        elif text.startswith(".local"):
            self.out.append(text)
            kernel.body.append(text)
        elif text.startswith("."):
            self.out.append(text)
            if not self.array(text):
                kernel.body.append(text)
        else:
            self.instruction(kernel, text.rstrip(";").strip())

    def instruction(self, kernel: Kernel, text: str) -> None:
        predicate, rest = "", text
        if text.startswith("@"):
            predicate, rest = text[1:].split(None, 1)
        operation, _, operands = rest.replace("\t", " ").partition(" ")
        if self.begins:
            kernel.blocks += 1
            self.begins = False
        self.number += 1
        one = Instruction(self.number, rest, predicate, operation, _operands(operands), kernel.blocks - 1, self.source)
        kernel.body.append(one)
        self.out += [f".loc 1 {self.number} 1", text + ";"]
        if operation.split(".")[0] in ("bra", "ret", "exit", "trap"):
            self.begins = True


def read(text: str) -> Module:
    """A module from its text, as NVRTC writes it (with ``-lineinfo``, for the lines of the source)."""
    return _Reader(text).module
