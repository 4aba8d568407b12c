"""What the operands of an instruction of PTX are in C++: registers, numbers, addresses."""

from __future__ import annotations

import re

from .ptx import Instruction, Kernel, Module, PtxError

SPECIAL = {f"%{name}.{axis}": f"{cuda}.{axis}" for name, cuda in
           (("tid", "threadIdx"), ("ntid", "blockDim"), ("ctaid", "blockIdx"), ("nctaid", "gridDim"))
           for axis in "xyz"} | {"%laneid": "u32(t.lane)", "WARP_SZ": "32u"}  # fmt: skip


class Operands:
    """The registers, arrays and accesses of a kernel."""

    def __init__(self, module: Module, kernel: Kernel) -> None:
        self.module, self.kernel = module, kernel
        self.registers: dict[str, str] = {}  # variable -> C++ type
        self.locals: set[str] = set()
        self.accesses: list[Instruction] = []
        self.offsets: dict[str, int] = {}
        used = {word for one in kernel.instructions for word in re.findall(r"[\w$]+", one.text)}
        at = 0
        for name, (align, size) in sorted(module.shared.items(), key=lambda item: item[1][1] < 0):
            if name in used:
                at = -(-at // align) * align
                self.offsets[name] = at
                at += max(size, 0)
        dynamic = [size < 0 for name, (_, size) in module.shared.items() if name in used]
        self.static = -(-at // 16) * 16 if any(dynamic) and at else at

    def value(self, operand: str, kind: str) -> str:
        """An operand as an expression of this C++ type."""
        if operand in SPECIAL:
            return f"as<{kind}>(u32({SPECIAL[operand]}))"
        if operand.startswith("%"):
            own = self.register(operand)
            return own if self.registers.get(own) == kind else f"as<{kind}>({own})"
        if operand.startswith(("0f", "0F")):
            return f"as<{kind}>(u32(0x{operand[2:]}u))"
        if operand.startswith(("0d", "0D")):
            return f"as<{kind}>(u64(0x{operand[2:]}ull))"
        if re.fullmatch(r"-?\d+U?|0x[0-9a-fA-F]+U?", operand):
            number = int(operand.rstrip("U"), 0)
            return (
                "true"
                if kind == "bool" and number
                else "false"
                if kind == "bool"
                else f"static_cast<{kind}>({number & (1 << 64) - 1}ull)"
            )
        return f"static_cast<{kind}>({self.symbol(operand)})"

    def symbol(self, name: str) -> str:
        if name in self.offsets:
            return f"{self.offsets[name]}u"
        if name in self.locals or name in self.module.constants:
            return f"reinterpret_cast<u64>({name})"
        for number, (parameter, _) in enumerate(self.kernel.parameters):
            if parameter == name:
                return f"reinterpret_cast<u64>(values[{number}])"
        raise PtxError(f"{self.kernel.name}: {name} is not known")

    def register(self, name: str) -> str:
        return "v_" + name.strip().lstrip("%")

    def address(self, operand: str) -> str:
        inside = operand.strip("[]").strip()
        base, sign, offset = re.fullmatch(r"(.+?)\s*(?:([+-])\s*(-?\d+))?", inside).groups()  # type: ignore[union-attr]
        where = f"u64({self.register(base)})" if base.startswith("%") else f"u64({self.symbol(base)})"
        return where if not offset else f"({where} {sign} ({offset}))"

    def put(self, operand: str, value: str, kind: str = "") -> str:
        """A register becomes a value of this C++ type. It may be left open, but compilers are slow at finding out."""
        own = self.register(operand)
        if operand == "_":
            return f"(void)({value});"
        return f"{own} = {value};" if kind and self.registers.get(own) == kind else f"set({own}, {value});"
