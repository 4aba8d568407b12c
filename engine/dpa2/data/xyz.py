"""XYZ files, plain and extended, with any number of frames.

A frame is a line with the number of atoms, a comment line, and a line per atom. The comment of an extended file has
``key=value`` pairs: ``Lattice="ax ay az bx by bz cx cy cz"``, ``Properties=species:S:1:pos:R:3:...``,
``pbc="T T F"``. Without ``Lattice`` the structure is open; without ``Properties`` the columns are symbol, x, y, z.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..inputs import Float, Pbc
from .frames import Frame, index_names

_PAIR = re.compile(
    r"""
    (?P<key> "[^"]*" | '[^']*' | [^\s=]+ )
    (?: \s* = \s* (?P<value> "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | \{[^}]*\} | \[[^\]]*\] | [^\s]* ) )?
    """,
    re.VERBOSE,
)
_BRACKETS = {'"': '"', "'": "'", "{": "}", "[": "]"}
_TRUE_FALSE = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
_SPECIES = ("species", "symbols", "symbol", "element")


def _unquote(text: str) -> str:
    if len(text) > 1 and _BRACKETS.get(text[0]) == text[-1]:
        return text[1:-1].replace('\\"', '"').replace("\\'", "'") if text[0] in "\"'" else text[1:-1]
    return text


def parse_comment(line: str) -> dict[str, str]:
    """The ``key=value`` pairs of a comment line, as text; a key alone has the value ``"T"``."""
    pairs: dict[str, str] = {}
    for match in _PAIR.finditer(line):
        value = match["value"]
        pairs[_unquote(match["key"])] = "T" if value is None else _unquote(value)
    return pairs


def _numbers(text: str, count: int | None, what: str, where: str) -> Float:
    try:
        values = np.array([float(word) for word in text.replace(",", " ").replace("[", " ").replace("]", " ").split()])
    except ValueError:
        raise InputError(f"{where}: {what} must be numbers, found {text!r}") from None
    if count is not None and len(values) != count:
        raise InputError(f"{where}: {what} must be {count} numbers, found {len(values)}: {text!r}")
    return values


class _Columns:
    """The columns of a frame's atom lines, from its ``Properties``."""

    def __init__(self, properties: str | None, where: str) -> None:
        self.slices: dict[str, tuple[str, slice]] = {}
        self.exact = properties is not None
        words = (properties or "species:S:1:pos:R:3").split(":")
        start = 0
        try:
            for name, kind, width in zip(words[0::3], words[1::3], words[2::3], strict=True):
                if kind not in ("S", "R", "I", "L") or int(width) < 1:
                    raise ValueError
                self.slices[name.lower()] = (kind, slice(start, start + int(width)))
                start += int(width)
        except ValueError:
            raise InputError(
                f"{where}: Properties must be triples name:kind:columns with kind S, R, I or L, found {properties!r}"
            ) from None
        self.width = start
        species = next((name for name in _SPECIES if name in self.slices), None)
        if species is None or "pos" not in self.slices or self.slices["pos"][1].stop - self.slices["pos"][1].start != 3:
            raise InputError(f"{where}: Properties needs species:S:1 and pos:R:3, found {properties!r}")
        self.species = self.slices[species][1].start


def _fields(columns: _Columns, lines: Sequence[str], first_line: int, path: str) -> list[list[str]]:
    rows = [line.split() for line in lines]
    for k, row in enumerate(rows):
        if len(row) < columns.width or (columns.exact and len(row) > columns.width):
            line = f"{path}, line {first_line + k}"
            raise InputError(f"{line}: {columns.width} columns expected, found {len(row)}: {lines[k].strip()!r}")
    return rows


def _block(columns: _Columns, name: str, rows: list[list[str]], first_line: int, path: str) -> Float:
    part = columns.slices[name][1]
    try:
        return np.array([row[part] for row in rows], dtype=np.float64).reshape(len(rows), part.stop - part.start)
    except ValueError:
        for k, row in enumerate(rows):
            for word in row[part]:
                try:
                    float(word)
                except ValueError:
                    message = f"{path}, line {first_line + k}: {name} must be numbers, found {word!r}"
                    raise InputError(message) from None
        raise


def _flags(text: str, where: str) -> Pbc:
    words = text.replace(",", " ").lower().split()
    if len(words) not in (1, 3) or any(word not in _TRUE_FALSE for word in words):
        raise InputError(f'{where}: pbc must be like "T T F", found {text!r}')
    x, y, z = (_TRUE_FALSE[word] for word in (words * 3 if len(words) == 1 else words))
    return (x, y, z)


def _make_frame(comment: str, lines: Sequence[str], first_line: int, path: str, k: int) -> Frame:
    where = f"{path}, frame {k} (line {first_line - 1})"
    pairs = parse_comment(comment)
    lower = {key.lower(): key for key in pairs}

    def take(key: str) -> str | None:
        return pairs.pop(lower[key]) if key in lower else None

    columns = _Columns(take("properties"), where)
    rows = _fields(columns, lines, first_line, path)
    types, names = index_names([row[columns.species] for row in rows])
    lattice, pbc = take("lattice"), take("pbc")
    extended = columns.exact or lattice is not None  # else the comment is free text, where words mean nothing
    if pbc is not None and not extended and len(pbc.split()) != 3:
        pbc = None
    box = None if lattice is None else _numbers(lattice, 9, "Lattice", where).reshape(3, 3)
    flags = (box is not None,) * 3 if pbc is None else _flags(pbc, where)
    if box is None and any(flags):
        raise InputError(f"{where}: pbc is {pbc!r}, but there is no Lattice")
    forces = next((name for name in ("forces", "force") if name in columns.slices), None)
    frame = Frame(
        coords=_block(columns, "pos", rows, first_line, path),
        types=types,
        names=names,
        box=box,
        pbc=flags,
        forces=None if forces is None else _block(columns, forces, rows, first_line, path),
        aparam=_block(columns, "aparam", rows, first_line, path) if "aparam" in columns.slices else None,
        where=f"{path}, frame {k}",
    )
    if extended:
        energy, virial, fparam = take("energy"), take("virial"), take("fparam")
        frame.energy = None if energy is None else float(_numbers(energy, 1, "energy", where)[0])
        frame.virial = None if virial is None else _numbers(virial, 9, "virial", where).reshape(3, 3)
        frame.fparam = None if fparam is None else _numbers(fparam, None, "fparam", where)
        frame.info = dict(pairs)
    return frame


def _natoms(line: str, path: str, number: int) -> int:
    word = line.strip()
    if not word.isdecimal():
        raise InputError(f"{path}, line {number}: the number of atoms of the next frame expected, found {word[:60]!r}")
    return int(word)


class XyzFile:
    """An XYZ file; frames are read one at a time."""

    def __init__(self, path: str) -> None:
        self.path = path

    def count(self) -> int | None:
        frames = 0
        with open(self.path, encoding="utf-8", errors="replace") as handle:
            for line in handle:
                if not line.strip():
                    continue
                if not line.strip().isdecimal():
                    return None  # malformed; reading it says where
                for _ in range(int(line) + 1):
                    if not handle.readline():
                        return None
                frames += 1
        return frames

    def __iter__(self) -> Iterator[Frame]:
        with open(self.path, encoding="utf-8", errors="replace") as handle:
            number, k = 0, 0
            while True:
                line = handle.readline()
                number += 1
                if not line:
                    break
                if not line.strip():
                    continue
                natoms = _natoms(line, self.path, number)
                comment = handle.readline()
                lines = []
                for _ in range(natoms):
                    text = handle.readline()
                    if not text:
                        break
                    lines.append(text)
                if not comment or len(lines) < natoms:
                    what = f"{self.path}: frame {k} (line {number})"
                    raise InputError(f"{what} has {natoms} atoms, but the file ends after {len(lines)}")
                yield _make_frame(comment, lines, number + 2, self.path, k)
                number += 1 + natoms
                k += 1
        if k == 0:
            raise InputError(f"{self.path}: no frames in this file")


def _row(values: NDArray[Any]) -> str:
    return " ".join(repr(float(value)) for value in values.ravel())


def _quoted(value: object) -> str:
    text = _row(value) if isinstance(value, np.ndarray) else str(value)
    escaped = text.replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"' if not escaped or re.search(r'[\s="\'{}\[\],]', escaped) else escaped


def write_frame(
    handle: TextIO,
    coords: Float,
    symbols: Sequence[str],
    box: Float | None = None,
    pbc: Pbc | None = None,
    arrays: Mapping[str, Float] | None = None,
    info: Mapping[str, object] | None = None,
) -> None:
    """Append a frame of extended XYZ; every number is written so that it reads back exactly.

    Args:
        handle: an open text file.
        coords: (natoms, 3), angstrom.
        symbols: one per atom.
        box: (3, 3) or None. ``pbc``: all True with a box by default.
        arrays: further columns, (natoms,) or (natoms, k) each, like ``forces``.
        info: further pairs for the comment line, like ``energy``; arrays are written flat.
    """
    columns = [("pos", np.asarray(coords, dtype=np.float64).reshape(len(symbols), 3))]
    for name, array in (arrays or {}).items():
        values = np.asarray(array, dtype=np.float64)
        columns.append((name, values.reshape(len(symbols), math.prod(values.shape[1:]))))
    pairs = [] if box is None else [f'Lattice="{_row(np.asarray(box))}"']
    pairs.append("Properties=species:S:1:" + ":".join(f"{name}:R:{array.shape[1]}" for name, array in columns))
    pairs += [f"{key}={_quoted(value)}" for key, value in (info or {}).items()]
    flags = (box is not None,) * 3 if pbc is None else pbc
    pairs.append('pbc="{}"'.format(" ".join("T" if flag else "F" for flag in flags)))
    handle.write(f"{len(symbols)}\n{' '.join(pairs)}\n")
    table = np.concatenate([array for _, array in columns], axis=1)
    for symbol, values in zip(symbols, table.tolist(), strict=True):
        handle.write(f"{symbol} {' '.join(map(repr, values))}\n")
