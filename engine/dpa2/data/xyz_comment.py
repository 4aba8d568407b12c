"""The second line of an XYZ frame: ``key=value`` pairs, i-PI's cell and units, or free text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..inputs import Float
from .labels import numbers
from .text import brief

_BLANKS, _KEY, _WORD = re.compile(r"\s*"), re.compile(r"[^\s=]*"), re.compile(r"\S*")
_BRACKETS = {'"': '"', "'": "'", "{": "}", "[": "]"}


def _unquote(text: str) -> str:
    if len(text) > 1 and _BRACKETS.get(text[0]) == text[-1]:
        return text[1:-1].replace('\\"', '"').replace("\\'", "'") if text[0] in "\"'" else text[1:-1]
    return text


class _Scanner:
    """Walks over a line once; what has no end is never searched for twice, so that time grows with the length."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.at = 0
        self.last = {closing: line.rfind(closing) for closing in set(_BRACKETS.values())}
        self.endless: set[str] = set()  # brackets without an end, from some place on

    def skip(self) -> None:
        self._match(_BLANKS)

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.line, self.at)
        assert found is not None  # patterns match the empty text
        self.at = found.end()
        return found[0]

    def key(self) -> str:
        opening = self.line[self.at]
        if opening in "\"'":
            end = self.line.find(opening, self.at + 1) if self.last[opening] > self.at else -1
            if end >= 0:
                start, self.at = self.at, end + 1
                return self.line[start : self.at]
        return self._match(_KEY)

    def value(self) -> str:
        opening = self.line[self.at : self.at + 1]
        closing = _BRACKETS.get(opening)
        if closing is not None and self.last[closing] > self.at and opening not in self.endless:
            end = self._quote_end(opening) if opening == closing else self._bracket_end(opening, closing)
            if end is not None:
                start, self.at = self.at, end + 1
                return self.line[start : self.at]
            self.endless.add(opening)
        return self._match(_WORD)

    def _quote_end(self, quote: str) -> int | None:
        at, size = self.at + 1, len(self.line)
        while at < size:
            if self.line[at] == "\\":
                at += 2
            elif self.line[at] == quote:
                return at
            else:
                at += 1
        return None

    def _bracket_end(self, opening: str, closing: str) -> int | None:
        depth = 0
        for at in range(self.at, self.last[closing] + 1):
            depth += (self.line[at] == opening) - (self.line[at] == closing)
            if depth == 0:
                return at
        return None


def comment_pairs(line: str) -> list[tuple[str, str]]:
    """The ``key=value`` pairs of a comment line, as text; a key alone has the value ``"T"``."""
    pairs: list[tuple[str, str]] = []
    scanner = _Scanner(line)
    while True:
        scanner.skip()
        if scanner.at >= len(line):
            return pairs
        if line[scanner.at] == "=":  # without a key
            scanner.at += 1
            continue
        key = _unquote(scanner.key())
        scanner.skip()
        if line[scanner.at : scanner.at + 1] != "=":
            pairs.append((key, "T"))
            continue
        scanner.at += 1
        scanner.skip()
        pairs.append((key, _unquote(scanner.value())))


# -------------------------------------------------------------------------------- i-PI

BOHR = 0.529177210903  # angstrom, CODATA 2018
_LENGTHS = {
    "atomic_unit": BOHR,
    "bohr": BOHR,
    "angstrom": 1.0,
    "ase": 1.0,
    "nanometer": 10.0,
    "picometer": 0.01,
    "meter": 1e10,
}
_CELL = re.compile(r"\bCELL[(\[{](abcABC|H|GENH)[)\]}]:\s*([-+0-9.Ee ]{0,400})")
_UNIT = re.compile(r"\b([A-Za-z_]{1,40})\{([^{}]{0,40})\}")
_POSITIONS = ("positions", "x_centroid")


@dataclass(frozen=True)
class IpiComment:
    """What i-PI says of a frame: its box, angstrom, and how many angstrom a unit of its coordinates is."""

    box: Float
    unit: float


def _length(unit: str, where: str) -> float:
    if unit.strip().lower() not in _LENGTHS:
        raise InputError(f"{where}: the unit of length {brief(unit)} is not known; {', '.join(_LENGTHS)} are")
    return _LENGTHS[unit.strip().lower()]


def ipi_units(line: str, where: str, default: str) -> tuple[float, float]:
    """How many angstrom the units of the coordinates and of the cell are, which i-PI writes in braces.

    Raises:
        InputError: another quantity than positions, or an unknown unit.
    """
    units: dict[str, str] = dict(_UNIT.findall(line))
    cell = _length(units.pop("cell", default), where)
    others = [name for name in units if name not in (*_POSITIONS, "CELL")]
    if others:
        raise InputError(f"{where}: i-PI wrote {others[0]} to this file, and no positions: there is no structure in it")
    return _length(next((unit for name, unit in units.items() if name in _POSITIONS), default), where), cell


def ipi_comment(line: str, where: str) -> IpiComment | None:
    """What a comment of i-PI says; None if it is none of i-PI's.

    Cells are ``CELL(abcABC)``: lengths and angles; ``CELL(H)``: a matrix whose columns are the lattice vectors;
    ``CELL(GENH)``: one whose rows are. Lengths are in bohr where no unit stands in braces.

    Raises:
        InputError: as :func:`ipi_units`; also numbers that make no cell.
    """
    found = _CELL.search(line)
    if found is None:
        return None
    kind = found[1]
    unit, cell_unit = ipi_units(line, where, "atomic_unit")
    count = 6 if kind == "abcABC" else 9
    values = numbers(" ".join(found[2].split()[:count]), f"{where}: CELL({kind})")
    if len(values) < count:
        raise InputError(f"{where}: CELL({kind}) must be {count} numbers, found {len(values)}")
    matrix = values.reshape(3, 3) if count == 9 else cell_from_lengths(values, where)
    box = matrix.T if kind == "H" else matrix
    return IpiComment(np.ascontiguousarray(box * cell_unit), unit)


def cell_from_lengths(values: Float, where: str) -> Float:
    """Lattice vectors as rows from three lengths and three angles in degrees: the first along x, the second in xy.

    Raises:
        InputError: they make no cell.
    """
    text = " ".join(f"{x:g}" for x in values[:6])
    a, b, c, *angles = (float(x) for x in values[:6])
    if not np.isfinite(values[:6]).all() or min(a, b, c) <= 0.0 or not all(0.0 < x < 180.0 for x in angles):
        raise InputError(f"{where}: no cell has these lengths and angles: {text}")
    cos_a, cos_b, cos_c = (0.0 if x == 90.0 else math.cos(math.radians(x)) for x in angles)
    sin_c = math.sin(math.radians(angles[2]))
    square = 1.0 - cos_a**2 - cos_b**2 - cos_c**2 + 2.0 * cos_a * cos_b * cos_c
    if square <= 0.0:
        raise InputError(f"{where}: no cell has these lengths and angles: {text}")
    along = (cos_a - cos_b * cos_c) / sin_c
    rows = [[a, 0.0, 0.0], [b * cos_c, b * sin_c, 0.0], [c * cos_b, c * along, c * math.sqrt(square) / sin_c]]
    return np.array(rows)


# -------------------------------------------------------------------------------- cells that are not read

_CELL_WORDS = re.compile(r"cell|lattice|box|cryst|pbc|abc|period|vec|dimension|size|edge", re.IGNORECASE)
_CUBE = re.compile(
    r"\b(?:unit_?cell|cell|lattice|box|boxsize|box_size|length|edge|l)\s{0,4}[=:]\s{0,4}\d", re.IGNORECASE
)
_EDGES = re.compile(r"\ba\s{0,4}[=:]?\s{0,4}\d[^a-z]{0,40}\bb\s{0,4}[=:]?\s{0,4}\d", re.IGNORECASE)
_COLUMNS = re.compile(r"\bproperties=\S{1,4096}", re.IGNORECASE)  # a column of logicals ends in L:1
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eEdD][-+]?\d{1,3})?(?![\w.])")


def unread_cell(line: str) -> str | None:
    """A piece of a comment that looks like a cell, for a warning; None where nothing does."""
    line = _COLUMNS.sub("", line[:4096])
    found = _CUBE.search(line) or _EDGES.search(line)
    if found is None:
        word = _CELL_WORDS.search(line)
        found = word if word is not None and len(_NUMBER.findall(line, max(0, word.start() - 1))) >= 3 else None
    if found is not None:
        return brief(line[found.start() :].strip(), 80)
    words = line.replace(",", " ").split()
    leading = next((k for k, word in enumerate(words) if not _NUMBER.fullmatch(word)), len(words))
    return brief(line.strip(), 80) if leading >= 6 or leading == len(words) == 3 else None
