"""What NVIDIA's compiler makes of a kernel, run on the CPU: PTX translated to C++ for the emulation, and counted.

What g++ makes of a kernel does not say what a GPU would execute: loops are unrolled, loads joined, products
and sums contracted by NVIDIA's compiler. Its PTX says all of that, and is an assembler of simple instructions: each
becomes a line of C++ (compiled.hpp has the operations), registers become variables, labels stay labels. So the
kernels of an evaluation run as they were compiled, and every basic block and every access to shared memory
is counted on the way.

What is not PTX's: denormal numbers are kept although ``.ftz`` flushes them, the approximate functions (``ex2.approx``
and the like) are those of the C library, and the weak memory model is not there.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .operands import Operands
from .ptx import ARRAY, TYPES, Instruction, Module, PtxError

COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi":
           ">", "hs": ">="}  # fmt: skip
FUNCTIONS = {
    "ex2": "exp2{f}({x})", "lg2": "log2{f}({x})", "sqrt": "sqrt{f}({x})", "rsqrt": "1 / sqrt{f}({x})", "rcp": "1 / {x}",
    "sin": "sin{f}({x})", "cos": "cos{f}({x})", "tanh": "tanh{f}({x})",
}  # fmt: skip
LOGIC = {"and": "&", "or": "|", "xor": "^"}
SHUFFLES = {"idx": "shuffle", "up": "shuffle_up", "down": "shuffle_down", "bfly": "shuffle_xor"}


class Translator(Operands):
    """A kernel as the body of a C++ function."""

    def body(self) -> list[str]:
        lines: list[str] = []
        first = -1
        for one in self.kernel.body:
            if isinstance(one, str):
                lines += self.other(one)
                continue
            if one.block != first:
                lines.append(f"t.enter({one.block});")
                first = one.block
            code = self.instruction(one)
            condition = one.predicate.replace("%", "v_")
            lines.append(f"if ({condition}) {{ {code} }}" if condition else code)
        return lines

    def other(self, text: str) -> list[str]:
        if text in "{}":
            return [text]
        if text.endswith(":"):
            return [text.replace("$", "") + ";"]
        local = ARRAY.match(text)
        if local:
            self.locals.add(local[4])
            return [f"alignas({local[2] or 8}) unsigned char {local[4]}[{local[6]}];"]
        found = re.match(r"\.reg\s+\.(\w+)\s+(.*);", text)
        if found:
            names = []
            for part in found[2].split(","):
                many = re.fullmatch(r"%(\w+)<(\d+)>", part.strip())
                names += [f"v_{many[1]}{k}" for k in range(int(many[2]))] if many else [self.register(part)]
            self.registers.update(dict.fromkeys(names, TYPES[found[1]]))
            return [f"{TYPES[found[1]]} {', '.join(names)};"]
        if text.startswith(".pragma"):
            return []
        raise PtxError(f"{self.kernel.name}: {text} is not known")

    def instruction(self, one: Instruction) -> str:
        words = one.operation.split(".")
        handler: Callable[..., str] | None = getattr(self, f"op_{words[0]}", None)
        try:
            if words[0] in FUNCTIONS:
                return self.function(words, *one.operands)
            if words[0] in LOGIC:
                return self.logic(words, *one.operands)
            if handler is None:
                raise PtxError(f"{self.kernel.name}: {one.text} is not known")
            return handler(one, words[1:], *one.operands)
        except (KeyError, TypeError, IndexError) as error:
            raise PtxError(f"{self.kernel.name}: {one.text}: {error!r}") from error

    # moves and arithmetic

    def op_mov(self, one: Instruction, words: list[str], d: str, a: str) -> str:
        kind = TYPES[words[-1]]
        if d.startswith("{"):
            parts = [part.strip() for part in d.strip("{}").split(",")]
            bits = int(kind[1:]) // len(parts)
            whole = self.value(a, f"u{bits * len(parts)}")
            return " ".join(
                self.put(part, f"static_cast<u{bits}>({whole} >> {k * bits})") for k, part in enumerate(parts)
            )
        if a.startswith("{"):
            parts = [part.strip() for part in a.strip("{}").split(",")]
            bits = int(kind[1:]) // len(parts)
            whole = f"u{bits * len(parts)}"
            terms = [f"static_cast<{whole}>({self.value(p, f'u{bits}')}) << {k * bits}" for k, p in enumerate(parts)]
            return self.put(d, " | ".join(f"({term})" for term in terms))
        return self.put(d, self.value(a, kind), kind)

    def binary(self, words: list[str], d: str, a: str, b: str, sign: str) -> str:
        kind = TYPES[words[-1]]
        if kind[0] == "s":  # no undefined overflow
            kind = "u" + kind[1:]
        return self.put(d, f"static_cast<{kind}>({self.value(a, kind)} {sign} {self.value(b, kind)})", kind)

    def op_add(self, one: Instruction, words: list[str], d: str, a: str, b: str, sign: str = "+") -> str:
        if not self.directed(words):
            return self.binary(words, d, a, b, sign)
        return self.rounded(words, d, f"f64({self.value(a, 'f32')}) {sign} f64({self.value(b, 'f32')})")

    def op_sub(self, one: Instruction, words: list[str], d: str, a: str, b: str) -> str:
        return self.op_add(one, words, d, a, b, "-")

    @staticmethod
    def directed(words: list[str]) -> bool:
        found = {"rm", "rp", "rz"} & set(words)
        if found and words[-1] == "f64":
            raise PtxError("directed rounding in double precision is not known")
        return bool(found)

    def rounded(self, words: list[str], d: str, value: str) -> str:
        name = "down" if "rm" in words else "up" if "rp" in words else "toward_zero"
        return self.put(d, f"{name}({value})")

    def op_mul(self, one: Instruction, words: list[str], d: str, a: str, b: str) -> str:
        kind = TYPES[words[-1]]
        if "wide" in words:
            wide = kind[0] + str(2 * int(kind[1:]))
            return self.put(
                d, f"static_cast<{wide}>({self.value(a, kind)}) * static_cast<{wide}>({self.value(b, kind)})", wide
            )
        if self.directed(words):
            return self.rounded(words, d, f"f64({self.value(a, 'f32')}) * f64({self.value(b, 'f32')})")
        if "hi" in words:
            wide = {"u32": "u64", "s32": "s64", "u64": "unsigned __int128", "s64": "__int128"}[kind]
            product = f"static_cast<{wide}>({self.value(a, kind)}) * static_cast<{wide}>({self.value(b, kind)})"
            return self.put(d, f"static_cast<{kind}>(({product}) >> {kind[1:]})")
        return self.binary(words, d, a, b, "*")

    def op_mad(self, one: Instruction, words: list[str], d: str, a: str, b: str, c: str) -> str:
        kind = TYPES[words[-1]]
        if "wide" in words:
            wide = kind[0] + str(2 * int(kind[1:]))
            product = f"static_cast<{wide}>({self.value(a, kind)}) * static_cast<{wide}>({self.value(b, kind)})"
            return self.put(d, f"static_cast<u{wide[1:]}>({product}) + {self.value(c, 'u' + wide[1:])}")
        if "lo" not in words:
            raise PtxError(f"{one.text} is not known")
        kind = "u" + kind[1:]
        return self.put(
            d, f"static_cast<{kind}>({self.value(a, kind)} * {self.value(b, kind)} + {self.value(c, kind)})", kind
        )

    def op_fma(self, one: Instruction, words: list[str], d: str, a: str, b: str, c: str) -> str:
        kind = TYPES[words[-1]]
        name = "__builtin_fmaf" if kind == "f32" else "__builtin_fma"
        if self.directed(words):
            product = ", ".join(f"static_cast<f64>({self.value(x, 'f32')})" for x in (a, b, c))
            return self.rounded(words, d, f"__builtin_fma({product})")
        value = f"{name}({self.value(a, kind)}, {self.value(b, kind)}, {self.value(c, kind)})"
        return self.put(d, f"unit({value})" if "sat" in words else value, kind)

    def op_div(self, one: Instruction, words: list[str], d: str, a: str, b: str) -> str:
        kind = TYPES[words[-1]]
        if kind[0] == "f":
            return self.binary(words, d, a, b, "/")
        return self.put(d, f"quotient<{kind}>({self.value(a, kind)}, {self.value(b, kind)})")

    def op_rem(self, one: Instruction, words: list[str], d: str, a: str, b: str) -> str:
        kind = TYPES[words[-1]]
        return self.put(d, f"remainder_of<{kind}>({self.value(a, kind)}, {self.value(b, kind)})")

    def extreme(self, words: list[str], d: str, a: str, b: str, integer: str, real: str) -> str:
        kind = TYPES[words[-1]]
        x, y = self.value(a, kind), self.value(b, kind)
        if kind[0] == "f":
            return self.put(d, f"{real}{'f' if kind == 'f32' else ''}({x}, {y})")
        return self.put(d, f"({x} {integer} {y} ? {x} : {y})")

    def op_min(self, one: Instruction, words: list[str], d: str, a: str, b: str) -> str:
        return self.extreme(words, d, a, b, "<", "__builtin_fmin")

    def op_max(self, one: Instruction, words: list[str], d: str, a: str, b: str) -> str:
        return self.extreme(words, d, a, b, ">", "__builtin_fmax")

    def op_neg(self, one: Instruction, words: list[str], d: str, a: str) -> str:
        kind = TYPES[words[-1]]
        kind = "u" + kind[1:] if kind[0] == "s" else kind
        return self.put(d, f"static_cast<{kind}>(-{self.value(a, kind)})")

    def op_abs(self, one: Instruction, words: list[str], d: str, a: str) -> str:
        kind = TYPES[words[-1]]
        x = self.value(a, kind)
        return self.put(
            d, f"__builtin_fabs{'f' if kind == 'f32' else ''}({x})" if kind[0] == "f" else f"({x} < 0 ? -{x} : {x})"
        )

    def op_copysign(self, one: Instruction, words: list[str], d: str, a: str, b: str) -> str:
        kind = TYPES[words[-1]]
        name = "__builtin_copysign" + ("f" if kind == "f32" else "")
        return self.put(d, f"{name}({self.value(b, kind)}, {self.value(a, kind)})")

    def function(self, words: list[str], d: str, a: str) -> str:
        kind = TYPES[words[-1]]
        end = "f" if kind == "f32" else ""
        return self.put(d, f"static_cast<{kind}>({FUNCTIONS[words[0]].format(f=end, x=self.value(a, kind))})")

    # bits

    def logic(self, words: list[str], d: str, a: str, b: str) -> str:
        kind = TYPES[words[-1]]
        return self.put(d, f"static_cast<{kind}>({self.value(a, kind)} {LOGIC[words[0]]} {self.value(b, kind)})", kind)

    def op_not(self, one: Instruction, words: list[str], d: str, a: str) -> str:
        kind = TYPES[words[-1]]
        return self.put(
            d, f"!{self.value(a, kind)}" if kind == "bool" else f"static_cast<{kind}>(~{self.value(a, kind)})"
        )

    def op_shl(self, one: Instruction, words: list[str], d: str, a: str, b: str) -> str:
        kind = TYPES[words[-1]]
        return self.put(d, f"shift_left<{kind}>({self.value(a, kind)}, {self.value(b, 'u32')})", kind)

    def op_shr(self, one: Instruction, words: list[str], d: str, a: str, b: str) -> str:
        kind = TYPES[words[-1]]
        return self.put(d, f"shift_right<{kind}>({self.value(a, kind)}, {self.value(b, 'u32')})", kind)

    def op_shf(self, one: Instruction, words: list[str], d: str, a: str, b: str, c: str) -> str:
        low, high, by = self.value(a, "u32"), self.value(b, "u32"), self.value(c, "u32")
        by = f"({by} & 31)" if "wrap" in words else f"({by} > 32 ? 32 : {by})"
        whole = f"(static_cast<u64>({high}) << 32 | {low})"
        return self.put(
            d, f"static_cast<u32>({whole} << {by} >> 32)" if "l" in words else f"static_cast<u32>({whole} >> {by})"
        )

    def op_bfi(self, one: Instruction, words: list[str], d: str, a: str, b: str, at: str, n: str) -> str:
        kind = TYPES[words[-1]]
        x, y = self.value(a, kind), self.value(b, kind)
        return self.put(d, f"insert<{kind}>({x}, {y}, {self.value(at, 'u32')}, {self.value(n, 'u32')})")

    def op_bfe(self, one: Instruction, words: list[str], d: str, a: str, at: str, n: str) -> str:
        kind = TYPES[words[-1]]
        return self.put(d, f"extract<{kind}>({self.value(a, kind)}, {self.value(at, 'u32')}, {self.value(n, 'u32')})")

    def op_prmt(self, one: Instruction, words: list[str], d: str, a: str, b: str, c: str) -> str:
        return self.put(d, f"permuted({self.value(a, 'u32')}, {self.value(b, 'u32')}, {self.value(c, 'u32')})")

    def op_popc(self, one: Instruction, words: list[str], d: str, a: str) -> str:
        return self.put(d, f"u32(__builtin_popcountll({self.value(a, TYPES[words[-1]])}))")

    def op_clz(self, one: Instruction, words: list[str], d: str, a: str) -> str:
        kind = TYPES[words[-1]]
        x = self.value(a, kind)
        return self.put(d, f"u32({x} == 0 ? {kind[1:]} : __builtin_clz{'ll' if kind == 'u64' else ''}({x}))")

    def op_bfind(self, one: Instruction, words: list[str], d: str, a: str) -> str:
        kind = TYPES[words[-1]]
        x = self.value(a, "u" + kind[1:])
        if kind[0] == "s":  # the first bit that is not the sign
            x = f"({x} ^ static_cast<u{kind[1:]}>(shift_right<{kind}>({self.value(a, kind)}, {int(kind[1:]) - 1})))"
        clz = f"u32(__builtin_clz{'ll' if kind[1:] == '64' else ''}({x}))"
        return self.put(d, f"({x} == 0 ? ~0u : {clz if 'shiftamt' in words else f'{int(kind[1:]) - 1}u - {clz}'})")

    def op_brev(self, one: Instruction, words: list[str], d: str, a: str) -> str:
        return self.put(d, f"reversed({self.value(a, 'u32')})")

    # comparisons and conversions

    def op_setp(self, one: Instruction, words: list[str], d: str, a: str, b: str, c: str = "") -> str:
        kind, name = TYPES[words[-1]], words[0]
        x, y = self.value(a, kind), self.value(b, kind)
        if name in ("num", "nan"):
            result = f"({x} == {x} && {y} == {y})" if name == "num" else f"({x} != {x} || {y} != {y})"
        elif kind[0] == "f" and name.endswith("u") and name != "u":  # or unordered
            opposite = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}[name[:-1]]
            result = f"!({x} {COMPARE[opposite]} {y})" if name != "equ" else f"!({x} < {y} || {x} > {y})"
            if name == "neu":
                result = f"!({x} == {y})"
        elif kind[0] == "f" and name == "ne":  # ordered
            result = f"({x} < {y} || {x} > {y})"
        else:
            result = f"({x} {COMPARE[name]} {y})"
        for word, sign in (("and", "&&"), ("or", "||"), ("xor", "!=")):
            if word in words[1:-1]:
                result = f"({result} {sign} {c.replace('%', 'v_')})"
        p, _, q = d.partition("|")
        put = self.put(p, result, "bool")
        return f"{put} {self.put(q, f'!{self.register(p)}', 'bool')}" if q else put

    def op_selp(self, one: Instruction, words: list[str], d: str, a: str, b: str, p: str) -> str:
        kind = TYPES[words[-1]]
        return self.put(d, f"({self.value(p, 'bool')} ? {self.value(a, kind)} : {self.value(b, kind)})", kind)

    def op_cvt(self, one: Instruction, words: list[str], d: str, a: str) -> str:
        to, of = TYPES[words[-2]], TYPES[words[-1]]
        x = self.value(a, of)
        whole = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}
        by = next((whole[word] for word in words if word in whole), None)
        if by and of[0] == "f":
            x = f"{by}{'f' if of == 'f32' else ''}({x})"
        if of[0] == "f" and to[0] != "f":
            return self.put(d, f"saturated<{to}>({x})")
        if to == "f32" and of == "f64" and self.directed(words):
            return self.rounded(words, d, x)
        if "sat" in words and to[0] == "f":
            x = f"unit({x})"
        return self.put(d, f"static_cast<{to}>({x})", to)

    def op_cvta(self, one: Instruction, words: list[str], d: str, a: str) -> str:
        if "shared" not in words:
            return self.put(d, self.value(a, "u64"))
        window = "reinterpret_cast<u64>(t.window)"
        return self.put(d, f"{self.value(a, 'u64')} {'-' if 'to' in words else '+'} {window}")

    # control and what threads do together

    def op_bra(self, one: Instruction, words: list[str], label: str) -> str:
        return f"goto {label.replace('$', '')};"

    def op_ret(self, one: Instruction, words: list[str]) -> str:
        return "return;"

    op_exit = op_ret

    def op_trap(self, one: Instruction, words: list[str]) -> str:
        return "__builtin_trap();"

    def op_membar(self, one: Instruction, words: list[str]) -> str:
        return ";"

    def op_fence(self, one: Instruction, words: list[str]) -> str:
        return ";"

    def op_bar(self, one: Instruction, words: list[str], *operands: str) -> str:
        meet = "t.meet(emulation::Operation::"
        if words[0] == "warp":
            return f"{meet}warp, {self.value(operands[0], 'u32')}, 0, 0, 32, {one.number});"
        if words[0] == "sync":
            return f"{meet}barrier, 0, 0, 0, 32, {one.number});"
        if words[0] == "red":
            d, predicate = operands[0], operands[-1]
            name = {"popc": "barrier_count", "and": "barrier_and", "or": "barrier_or"}[words[1]]
            kind = TYPES[words[-1]]
            truth = f"({'!' if predicate.startswith('!') else ''}{self.value(predicate.lstrip('!'), 'bool')} ? 1 : 0)"
            return self.put(d, f"static_cast<{kind}>({meet}{name}, 0, {truth}, 0, 32, {one.number}))")
        raise PtxError(f"{one.text} is not known")

    def op_barrier(self, one: Instruction, words: list[str], *operands: str) -> str:
        return self.op_bar(one, [word for word in words if word not in ("cta", "aligned")], *operands)

    def op_shfl(self, one: Instruction, words: list[str], d: str, a: str, b: str, c: str, mask: str) -> str:
        numbers = ", ".join(self.value(operand, "u32") for operand in (mask, a, b, c))
        found = f"t.shuffle(emulation::Operation::{SHUFFLES[words[1]]}, {numbers}, {one.number})"
        to, _, p = d.partition("|")
        return self.put(to, found) + (f" {self.register(p)} = true;" if p else "")

    def op_vote(self, one: Instruction, words: list[str], d: str, p: str, mask: str) -> str:
        name = {"ballot": "ballot", "any": "any", "all": "all"}[words[1]]
        truth = f"({'!' if p.startswith('!') else ''}{self.value(p.lstrip('!'), 'bool')} ? 1 : 0)"
        kind = "bool" if words[-1] == "pred" else "u32"
        lanes = self.value(mask, "u32")
        found = f"t.meet(emulation::Operation::{name}, {lanes}, {truth}, 0, 32, {one.number})"
        return self.put(d, f"static_cast<{kind}>({found})")

    def op_mma(self, one: Instruction, words: list[str], d: str, a: str, b: str, c: str) -> str:
        """The two shapes that src/cuda/mma.cuh has; see emulation.hpp."""
        parts = [[self.register(part) for part in operand.strip("{}").replace(" ", "").split(",")]
                 for operand in (d, a, b, c)]  # fmt: skip
        shape = tuple(word for word in words if word not in ("sync", "aligned", "row", "col"))
        if shape == ("m16n8k8", "f32", "tf32", "tf32", "f32"):
            kind, name, factor = "f32", "multiply_tf32", "u32"
        elif shape == ("m8n8k4", "f64", "f64", "f64", "f64"):
            kind, name, factor = "f64", "multiply_f64", "f64"
        else:
            raise PtxError(f"{one.text} is not known")
        arrays = [f"{kind} d[] = {{{', '.join(f'as<{kind}>({part})' for part in parts[3])}}};"]
        for letter, own in zip("ab", parts[1:3], strict=True):
            arrays.append(f"const {factor} {letter}[] = {{{', '.join(f'as<{factor}>({part})' for part in own)}}};")
        results = " ".join(f"set({part}, d[{k}]);" for k, part in enumerate(parts[0]))
        return f"{{ {' '.join(arrays)} t.{name}(d, a, b, {one.number}); {results} }}"

    # memory

    def place(self, one: Instruction, words: list[str], address: str, kind: str, count: int, load: bool) -> str:
        """Where a load or store is made, recorded unless it is of the thread's own memory or of constants."""
        if {"local", "const", "param"} & set(words):
            return f"reinterpret_cast<unsigned char*>({self.address(address)})"
        how = next((space for space in ("shared", "global") if space in words), "generic")
        self.accesses.append(one)
        number = len(self.accesses) - 1
        at = self.address(address)
        if how == "shared":  # whose addresses have 32 bits: they come round
            at = f"u32({at})"
        return f"t.template {how}<{kind}, {count}>({number}, {at}, {str(load).lower()})"

    @staticmethod
    def count(words: list[str]) -> int:
        return next((int(word[1:]) for word in words if word in ("v2", "v4", "v8")), 1)

    def op_ld(self, one: Instruction, words: list[str], d: str, address: str) -> str:
        kind, n = TYPES[words[-1]], self.count(words)
        into = [part.strip() for part in d.strip("{}").split(",")]
        at = self.place(one, words, address, kind, n, True)
        loads = [self.put(part, f"load<{kind}>(at + {k} * sizeof({kind}))", kind) for k, part in enumerate(into)]
        return f"{{ const unsigned char* const at = {at}; {' '.join(loads)} }}"

    op_ldu = op_ld

    def op_st(self, one: Instruction, words: list[str], address: str, a: str) -> str:
        kind, n = TYPES[words[-1]], self.count(words)
        parts = [part.strip() for part in a.strip("{}").split(",")]
        at = self.place(one, words, address, kind, n, False)

        def value(part: str) -> str:
            own = self.value(part, kind)
            return (
                own
                if kind[0] == "f" or not part.startswith("%")
                else f"static_cast<{kind}>({self.register(part)})"
                if int(kind[1:]) < 32
                else own
            )

        stores = [f"store<{kind}>(at + {k} * sizeof({kind}), {value(part)});" for k, part in enumerate(parts)]
        return f"{{ unsigned char* const at = {at}; {' '.join(stores)} }}"

    def op_atom(self, one: Instruction, words: list[str], d: str, address: str, b: str, c: str = "") -> str:
        kind = TYPES[words[-1]]
        own = next(word for word in words if word in ("add", "min", "max", "and", "or", "xor", "exch", "cas"))
        x, y = self.value(b, kind), self.value(c, kind) if c else ""
        change = {
            "add": f"old + {x}", "min": f"(old < {x} ? old : {x})", "max": f"(old > {x} ? old : {x})",
            "and": f"old & {x}", "or": f"old | {x}", "xor": f"old ^ {x}", "exch": x,
            "cas": f"(old == {x} ? {y} : old)",
        }[own]  # fmt: skip
        at = f"reinterpret_cast<u64>({self.place(one, words, address, kind, 1, False)})"
        return self.put(d, f"atomic<{kind}>({at}, [&]({kind} old) {{ return static_cast<{kind}>({change}); }})")

    def op_red(self, one: Instruction, words: list[str], address: str, b: str) -> str:
        return self.op_atom(one, words, "_", address, b)


def constants(module: Module) -> list[str]:
    """The arrays of a module outside of its kernels."""
    lines = []
    for name, (kind, number, values) in module.constants.items():
        words = [word.strip() for word in values.strip("{}").split(",") if word.strip()]
        bits = [f"as<{kind}>(u{4 * len(w[2:])}(0x{w[2:]}ull))" if w[:2].lower() in ("0f", "0d") else w for w in words]
        lines.append(f"alignas(16) {kind} {name}[{number}]{' = {' + ', '.join(bits) + '}' if bits else ''};")
    return lines


def translate(module: Module, most_shared: int) -> tuple[list[str], dict[str, Translator]]:
    """C++ for all kernels of a module, and how each was translated; see compiled.py for the rest of the unit."""
    lines = ['#include "compiled.hpp"', "namespace ptx {", "using namespace compiled;"]
    lines.append(f'alignas(128) __attribute__((section("cuda_shared"))) unsigned char memory[{most_shared}];')
    lines.append("Window window{memory, sizeof memory};")
    lines += constants(module)
    translators = {}
    for name, kernel in module.kernels.items():
        one = Translator(module, kernel)
        body = one.body()
        translators[name] = one
        n, m = max(1, kernel.blocks), len(one.accesses)
        lines += [
            f"Counts counts_{name}({n}, {m});",
            f"void run_{name}(void** values) {{",
            f"Thread<{n}, {m}> t(counts_{name}, window);",
            *body,
            "}",
        ]
    return [*lines, "}"], translators
