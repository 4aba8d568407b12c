"""The argument structs of the kernels, read from the headers that host and kernels share.

A struct is a template on the scalar type; one member per line, `const T* name;`, `int name;` and so on.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .build import SOURCES, EmulationError

_STRUCT = re.compile(r"template\s*<class T>\s*struct (\w+)\s*\{(.*?)\n\};", re.DOTALL)
_PLAIN = re.compile(r"^struct (\w+)\s*\{(.*?)\n\};", re.DOTALL | re.MULTILINE)
_MEMBER = re.compile(r"^\s*(const\s+)?([\w<> ]+?)\s*(\*?)\s*(\w+)\s*(?:\[(\d+)\])?\s*(?:=[^;]*)?;", re.MULTILINE)
_NUMBERS = {"int": "i4", "long long": "i8", "unsigned": "u4", "unsigned long long": "u8", "float": "f4", "double": "f8",
            "signed char": "i1", "unsigned char": "u1"}  # fmt: skip


@functools.cache
def structs(folder: Path = SOURCES / "cuda") -> dict[str, list[tuple[str, str, str, int]]]:
    """Members (name, type, "*" for a pointer, length of an array or 0) of every struct of the headers."""
    found: dict[str, list[tuple[str, str, str, int]]] = {}
    for path in sorted(folder.glob("*.hpp")):
        text = re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8"))
        for name, body in [*_STRUCT.findall(text), *_PLAIN.findall(text)]:
            members = [(m[3], m[1].strip(), m[2], int(m[4] or 0)) for m in _MEMBER.findall(body)]
            found[name] = members
    return found


def layout(name: str, real: Any, folder: Path = SOURCES / "cuda") -> np.dtype[Any]:
    """The struct of that name as a NumPy type, laid out as C++ does."""
    every = structs(folder)
    if name not in every:
        raise EmulationError(f"no header of {folder} has a struct {name}")
    names, kinds = [], []
    for member, kind, pointer, length in every[name]:
        if pointer:
            one: Any = np.dtype("u8")
        elif kind == "T":
            one = np.dtype(real)
        elif kind in _NUMBERS:
            one = np.dtype(_NUMBERS[kind])
        else:
            one = layout(kind.removesuffix("<T>").strip(), real, folder)
        names.append(member)
        kinds.append((one, (length,)) if length else one)
    return np.dtype({"names": names, "formats": kinds}, align=True)


def host_address(array: NDArray[Any]) -> int:
    return int(array.ctypes.data)


def pack(
    name: str,
    real: Any,
    values: Mapping[str, Any],
    folder: Path = SOURCES / "cuda",
    place: Callable[[NDArray[Any]], int] = host_address,
) -> NDArray[Any]:
    """One struct, with arrays as their addresses; every member must be given, None for a null pointer.

    ``place`` gives the address of an array.

    Raises EmulationError for an array of another type than the member's, or one that is not contiguous.
    """
    kind = layout(name, real, folder)
    packed = np.zeros((), dtype=kind)
    members = structs(folder)[name]
    if set(values) != {member[0] for member in members}:
        missing, more = {m[0] for m in members} - set(values), set(values) - {m[0] for m in members}
        raise EmulationError(f"{name}: missing {sorted(missing)}, unknown {sorted(more)}")
    for member, base, pointer, _ in members:
        value = values[member]
        if pointer:
            if value is not None:
                wanted = real if base == "T" else _NUMBERS.get(base) or layout(base, real, folder)
                _check(value, np.dtype(wanted), f"{name}.{member}")
                packed[member] = place(value)
        elif isinstance(value, Mapping):
            packed[member] = pack(base.removesuffix("<T>").strip(), real, value, folder, place)
        else:
            packed[member] = value
    return packed


def _check(value: Any, wanted: np.dtype[Any], where: str) -> None:
    if not isinstance(value, np.ndarray) or value.dtype != wanted:
        raise EmulationError(f"{where} must be an array of {wanted}, not {value!r:.60}")
    if not value.flags.c_contiguous:
        raise EmulationError(f"{where} is not contiguous")
