"""Keys of a section of an input: what they may be, their defaults, and a section completed and checked by them."""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import InputError
from ..files.kinds import shown


class _Mark:
    """In place of a default."""


#: there is no default, and a section without the key is refused
REQUIRED: Final = _Mark()
#: there is no default, and a section without the key stays without it
ABSENT: Final = _Mark()


@dataclass(frozen=True)
class Key:
    """A key of a section.

    Attributes:
        name: as deepmd-kit writes it.
        kinds: the words of :data:`_KINDS`, of which a value must be one.
        default: a value, :data:`REQUIRED` or :data:`ABSENT`.
        aliases: other names that deepmd-kit takes.
        choices: what a text may be; anything if empty.
        lowest, above, below, highest: bounds of a number, and of every number of a list.
    """

    name: str
    kinds: tuple[str, ...]
    default: Any = ABSENT
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    lowest: float | None = None
    above: float | None = None
    below: float | None = None
    highest: float | None = None

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        words = " or ".join(_KINDS[kind][0] for kind in self.kinds)
        bounds = [
            text.format(value)
            for text, value in (
                ("at least {:.15g}", self.lowest),
                ("above {:.15g}", self.above),
                ("below {:.15g}", self.below),
                ("at most {:.15g}", self.highest),
            )
            if value is not None
        ]
        return f"{words}, {' and '.join(bounds)}" if bounds else words

    def check(self, value: Any, where: str) -> None:
        """Raise :class:`InputError` unless the key may have this value."""
        kind = next((kind for kind in self.kinds if _KINDS[kind][1](value)), None)
        if kind is None or not all(self._bounded(number) for number in _numbers(value)):
            raise InputError(f"{where} is {described(value)}, expected {self.wanted}")
        if kind == "text" and self.choices and value not in self.choices:
            raise InputError(f"{where} is {shown(value)}, expected one of {', '.join(self.choices)}")

    def _bounded(self, number: float) -> bool:
        return (
            (self.lowest is None or number >= self.lowest)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
            and (self.highest is None or number <= self.highest)
        )


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _number(value: Any) -> bool:
    return _integer(value) or (isinstance(value, float) and math.isfinite(value))


def _text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _list(entry: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(entry(item) for item in value)


def _hole(value: Any) -> bool:
    return value is None or _number(value)


def _section(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


_KINDS: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "null": ("null", lambda value: value is None),
    "boolean": ("true or false", _boolean),
    "integer": ("an integer", _integer),
    "number": ("a number", _number),
    "text": ("a text", _text),
    "section": ("a section of keys", _section),
    "booleans": ("a list of true and false", _list(_boolean)),
    "integers": ("a list of integers", _list(_integer)),
    "numbers": ("a list of numbers", _list(_number)),
    "holes": ("a list of numbers and nulls", _list(_hole)),
    "texts": ("a list of texts", _list(_text)),
    "pairs": ("a list of pairs of integers", _list(lambda item: _list(_integer)(item) and len(item) == 2)),
}


def _numbers(value: Any) -> list[float]:
    """The numbers of a value that has some."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if _number(item)]


def described(value: Any) -> str:
    """A value for a message, of a list of a few numbers or names these."""
    if isinstance(value, dict):
        return "a section of keys"
    if not isinstance(value, list):
        return shown(value)
    short = len(value) <= 8 and not any(isinstance(item, (list, dict)) for item in value)
    return f"[{', '.join(shown(item) for item in value)}]" if short else f"a list of {len(value)} entries"


def section(value: Any, where: str) -> dict[str, Any]:
    """A section without its comments, which are the keys that begin with an underscore.

    Raises:
        InputError: it is no section.
    """
    if not _section(value):
        raise InputError(f"{where} is {described(value)}, expected a section of keys")
    return {key: item for key, item in value.items() if not key.startswith("_")}


def place(where: str, name: str) -> str:
    """The place of a key in the input; the input itself is the empty place."""
    return f"{where}.{name}" if where else name


def complete(given: Any, keys: Sequence[Key], where: str) -> dict[str, Any]:
    """A section under the names that deepmd-kit writes, with all defaults, in the order in which it was given.

    Args:
        given: the section as it was read; it stays as it is.
        keys: those that there are.
        where: the section's place in the input, for messages.

    Raises:
        InputError: naming the key that is unknown, missing, given twice or has a value that it must not have.
    """
    known = {name: key for key in keys for name in (key.name, *key.aliases)}
    out: dict[str, Any] = {}
    for name, value in section(given, where).items():
        if name not in known:
            raise unknown(name, where, list(known))
        key = known[name]
        if key.name in out:
            raise InputError(f"{place(where, key.name)} is given twice, as {name} as well: leave one of them out")
        key.check(value, place(where, name))
        out[key.name] = copy.deepcopy(section(value, name) if _section(value) else value)
    for key in keys:
        if key.name in out:
            continue
        if key.default is REQUIRED:
            raise InputError(f"{place(where, key.name)} is missing; it must be {key.wanted}")
        if key.default is not ABSENT:
            out[key.name] = copy.deepcopy(key.default)
    return out


def unknown(name: str, where: str, known: Sequence[str]) -> InputError:
    """The error for a key that is not there."""
    plain = repr(name[:60])[1:-1]  # control characters would reach the user's terminal
    near = difflib.get_close_matches(name[:60], known, n=1)
    hint = f"did you mean {near[0]}?" if near else "keys that begin with an underscore are comments"
    return InputError(f"{place(where, plain)} is not a key of the input; {hint}")
