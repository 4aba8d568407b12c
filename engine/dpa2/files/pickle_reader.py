"""An interpreter for the data subset of pickle.

Nothing is imported and nothing is called but the constructors that the caller lists: a global name stays a name
(:class:`Global`), an instance of a permitted foreign class stays an inert record (:class:`Instance`). The work is
linear in the length of the stream: constructors that copy their arguments are charged against a budget, and
dictionary keys are limited to strings and small integers, so that neither shared sub-graphs nor crafted hashes can
make it grow. What takes much more memory than its opcode, containers, memo entries and marks, is counted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dpa2.errors import ModelFileError

MAX_BYTES = 32 * 2**20
MAX_MEMO = 50_000_000
MAX_COPIED = 10_000_000
MAX_OBJECTS = 2_000_000
MAX_MARKS = 10_000
MAX_LONG_BYTES = 1024


@dataclass(frozen=True)
class Global:
    """The name of a class or function that a pickle refers to."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:200]


class Instance:
    """An object of a foreign class: its class name, constructor arguments and state, none of them interpreted."""

    __slots__ = ("args", "cls", "state")

    def __init__(self, cls: Global, args: tuple[Any, ...] = ()) -> None:
        self.cls = cls
        self.args = args
        self.state: Any = None


class _Mark:
    __slots__ = ()


_MARK = _Mark()

Constructor = Callable[[tuple[Any, ...]], Any]


def check_key(key: Any) -> Any:
    """Return ``key`` if it may be a dictionary key, else raise: hashing nested tuples can take exponential time."""
    if isinstance(key, str) or (isinstance(key, int) and abs(key) < 2**31):
        return key
    raise ModelFileError("corrupt pickle: a dictionary key is neither a string nor a small integer")


class Reader:
    """Interprets one pickle stream.

    Args:
        data: the stream.
        constructors: what may be called by REDUCE, by (module, name), each taking the argument tuple.
        inert: whether instances of a class of this module may be created as :class:`Instance`.
        persistent: turns a persistent id into an object; None if the stream may hold none.
    """

    def __init__(
        self,
        data: bytes,
        constructors: Mapping[tuple[str, str], Constructor],
        names: frozenset[tuple[str, str]] = frozenset(),
        inert: Callable[[str], bool] = lambda module: False,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        if len(data) > MAX_BYTES:
            raise ModelFileError(f"the pickle has {len(data)} bytes; at most {MAX_BYTES} are accepted")
        self._data = data
        self._pos = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._copied = 0
        self._made = 0
        self._constructors = constructors
        self._names = names
        self._inert = inert
        self._persistent = persistent

    def load(self) -> Any:
        """The object of the stream. Raises :class:`ModelFileError` for anything outside the accepted subset."""
        ops, data, end = _OPS, self._data, len(self._data)
        try:
            while self._pos < end:
                code = data[self._pos]
                self._pos += 1
                if code == 0x2E:  # STOP
                    if len(self._stack) != 1 or self._marks:
                        raise ModelFileError("corrupt pickle: objects left over at its end")
                    return self._stack[0]
                op = ops.get(code)
                if op is None:
                    raise ModelFileError(
                        f"corrupt or hostile pickle: opcode 0x{code:02x} at byte {self._pos - 1} is not accepted"
                    )
                op(self)
        except (IndexError, struct.error):
            raise ModelFileError(f"corrupt pickle: it goes wrong at byte {self._pos}") from None
        except UnicodeDecodeError:
            raise ModelFileError(f"corrupt pickle: a string before byte {self._pos} is not UTF-8") from None
        raise ModelFileError("truncated pickle: it has no end")

    # reading -----------------------------------------------------------------------------------------------------

    def _take(self, n: int) -> bytes:
        if n < 0 or n > len(self._data) - self._pos:
            raise ModelFileError(f"truncated pickle: {n} bytes wanted at byte {self._pos}")
        self._pos += n
        return self._data[self._pos - n : self._pos]

    def _line(self) -> str:
        stop = self._data.find(b"\n", self._pos)
        if stop < 0:
            raise ModelFileError(f"truncated pickle: a line without end at byte {self._pos}")
        text = self._take(stop - self._pos)
        self._pos += 1
        return text.decode("utf-8")

    def _uint(self, n: int) -> int:
        return int.from_bytes(self._take(n), "little")

    # stack -------------------------------------------------------------------------------------------------------

    def _pop(self) -> Any:
        if not self._stack or (self._marks and len(self._stack) == self._marks[-1]):
            raise ModelFileError(f"corrupt pickle: stack underflow at byte {self._pos}")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack or (self._marks and len(self._stack) == self._marks[-1]):
            raise ModelFileError(f"corrupt pickle: stack underflow at byte {self._pos}")
        return self._stack[-1]

    def _pop_mark(self) -> list[Any]:
        if not self._marks:
            raise ModelFileError(f"corrupt pickle: no mark for the opcode before byte {self._pos}")
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _make(self, value: Any) -> None:
        """Push a container or an object."""
        self._made += 1
        if self._made > MAX_OBJECTS:
            raise ModelFileError(f"hostile pickle: it makes more than {MAX_OBJECTS} objects, which no model has")
        self._push(value)

    def _charge(self, n: int) -> None:
        self._copied += n
        if self._copied > MAX_COPIED:
            raise ModelFileError("hostile pickle: it copies shared objects without bound")

    # opcodes -----------------------------------------------------------------------------------------------------

    def _proto(self) -> None:
        if self._uint(1) > 5:
            raise ModelFileError("corrupt pickle: unknown protocol")

    def _frame(self) -> None:
        if self._uint(8) > len(self._data) - self._pos:
            raise ModelFileError("truncated pickle: a frame goes beyond its end")

    def _put(self, index: int) -> None:
        if index >= MAX_MEMO:
            raise ModelFileError("corrupt pickle: memo index out of range")
        if len(self._memo) >= MAX_OBJECTS:
            raise ModelFileError(f"hostile pickle: it remembers more than {MAX_OBJECTS} objects, which no model has")
        self._memo[index] = self._top()

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise ModelFileError(f"corrupt pickle: memo entry {index} is used before it is set")
        self._push(self._memo[index])

    def _decimal(self) -> int:
        line = self._line().removesuffix("L")
        if len(line) > 400 or not line.lstrip("-").isascii() or not line.lstrip("-").isdigit():
            raise ModelFileError(f"corrupt pickle: not an integer before byte {self._pos}")
        return int(line)

    def _text_int(self) -> None:
        if self._data[self._pos : self._pos + 3] in (b"00\n", b"01\n"):
            self._push(self._data[self._pos + 1] == 0x31)
            self._pos += 3
        else:
            self._push(self._decimal())

    def _text_float(self) -> None:
        try:
            self._push(float(self._line()))
        except ValueError:
            raise ModelFileError(f"corrupt pickle: not a number before byte {self._pos}") from None

    def _long(self, width: int) -> None:
        n = self._uint(width)
        if n > MAX_LONG_BYTES:
            raise ModelFileError("corrupt pickle: an integer of unreasonable size")
        self._push(int.from_bytes(self._take(n), "little", signed=True))

    def _unicode(self, width: int) -> None:
        self._push(self._take(self._uint(width)).decode("utf-8"))

    def _tuple(self, n: int) -> None:
        self._make(tuple(reversed([self._pop() for _ in range(n)])))

    def _extend_list(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise ModelFileError("corrupt pickle: items appended to something that is not a list")
        target.extend(items)

    def _append(self) -> None:
        value = self._pop()
        self._extend_list([value])

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            raise ModelFileError("corrupt pickle: items set on something that is not a dictionary")
        for i in range(0, len(items), 2):
            target[check_key(items[i])] = items[i + 1]

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _dict(self) -> None:
        items = self._pop_mark()
        self._make({})
        self._set_items(items)

    def _resolve(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ModelFileError("corrupt pickle: the name of a global is not a string")
        ref = Global(module, name)
        if (module, name) not in self._constructors and (module, name) not in self._names and not self._inert(module):
            raise ModelFileError(f"hostile or foreign pickle: it refers to {str(ref)!r}, which a model never needs")
        self._make(ref)

    def _global(self) -> None:
        module = self._line()
        self._resolve(module, self._line())

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._resolve(module, name)

    def _reduce(self) -> None:
        args, func = self._pop(), self._pop()
        if not isinstance(func, Global) or not isinstance(args, tuple):
            raise ModelFileError("hostile pickle: a call of something that is not a listed constructor")
        make = self._constructors.get((func.module, func.name))
        if make is None:
            raise ModelFileError(f"hostile pickle: a call of {str(func)!r}, which is not a listed constructor")
        self._charge(sum(len(a) for a in args if isinstance(a, (list, tuple, dict, str, bytes))))
        self._make(make(args))

    def _newobj(self) -> None:
        args, cls = self._pop(), self._pop()
        if not isinstance(cls, Global) or not isinstance(args, tuple) or not self._inert(cls.module):
            raise ModelFileError("hostile pickle: an object of a class that a model never needs")
        self._make(Instance(cls, args))

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if isinstance(target, Instance):
            target.state = state
        elif not isinstance(target, dict):  # an OrderedDict's attributes (`_metadata`) are of no use
            raise ModelFileError("hostile pickle: state given to something that takes none")

    def _persid(self) -> None:
        if self._persistent is None:
            raise ModelFileError("corrupt pickle: a persistent id where none is expected")
        self._make(self._persistent(self._pop()))

    def _mark(self) -> None:
        if len(self._marks) >= MAX_MARKS:
            raise ModelFileError("hostile pickle: it nests too deeply")
        self._marks.append(len(self._stack))

    def _pop_any(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._pop()

    def _pop_to_mark(self) -> None:
        self._pop_mark()

    def _list(self) -> None:
        self._make(self._pop_mark())


_OPS: dict[int, Callable[[Reader], None]] = {
    0x80: Reader._proto,
    0x95: Reader._frame,
    ord("("): Reader._mark,
    ord("0"): Reader._pop_any,
    ord("1"): Reader._pop_to_mark,
    ord("2"): lambda r: r._push(r._top()),
    ord("N"): lambda r: r._push(None),
    0x88: lambda r: r._push(True),
    0x89: lambda r: r._push(False),
    ord("I"): Reader._text_int,
    ord("L"): lambda r: r._push(r._decimal()),
    ord("J"): lambda r: r._push(struct.unpack("<i", r._take(4))[0]),
    ord("K"): lambda r: r._push(r._uint(1)),
    ord("M"): lambda r: r._push(r._uint(2)),
    0x8A: lambda r: r._long(1),
    0x8B: lambda r: r._long(4),
    ord("F"): Reader._text_float,
    ord("G"): lambda r: r._push(struct.unpack(">d", r._take(8))[0]),
    ord("X"): lambda r: r._unicode(4),
    0x8C: lambda r: r._unicode(1),
    0x8D: lambda r: r._unicode(8),
    ord("V"): lambda r: r._push(r._line().encode("utf-8").decode("raw-unicode-escape")),
    ord("U"): lambda r: r._push(r._take(r._uint(1)).decode("latin-1")),
    ord("T"): lambda r: r._push(r._take(r._uint(4)).decode("latin-1")),
    ord("B"): lambda r: r._push(r._take(r._uint(4))),
    ord("C"): lambda r: r._push(r._take(r._uint(1))),
    0x8E: lambda r: r._push(r._take(r._uint(8))),
    ord(")"): lambda r: r._push(()),
    ord("t"): lambda r: r._make(tuple(r._pop_mark())),
    0x85: lambda r: r._tuple(1),
    0x86: lambda r: r._tuple(2),
    0x87: lambda r: r._tuple(3),
    ord("]"): lambda r: r._make([]),
    ord("l"): Reader._list,
    ord("a"): Reader._append,
    ord("e"): lambda r: r._extend_list(r._pop_mark()),
    ord("}"): lambda r: r._make({}),
    ord("d"): Reader._dict,
    ord("s"): Reader._set_item,
    ord("u"): lambda r: r._set_items(r._pop_mark()),
    ord("p"): lambda r: r._put(r._decimal()),
    ord("q"): lambda r: r._put(r._uint(1)),
    ord("r"): lambda r: r._put(r._uint(4)),
    0x94: lambda r: r._put(len(r._memo)),
    ord("g"): lambda r: r._get(r._decimal()),
    ord("h"): lambda r: r._get(r._uint(1)),
    ord("j"): lambda r: r._get(r._uint(4)),
    ord("c"): Reader._global,
    0x93: Reader._stack_global,
    ord("R"): Reader._reduce,
    0x81: Reader._newobj,
    ord("b"): Reader._build,
    ord("Q"): Reader._persid,
}
