"""Data files of LAMMPS, as ``read_data`` takes them: periodic in all directions, since they do not say otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ..errors import InputError
from ..inputs import Float
from . import elements
from .frames import Frame, index_names
from .labels import Labels, Reading
from .lammps_common import (
    check_box,
    elements_by_mass,
    length_unit,
    named_elements,
    restricted_box,
    symbols_of,
)
from .text import Lines, brief, first_twice, integer, real

# columns of a row of the section Atoms, before what else a style has: type, molecule and numbers (n) before x y z,
# and how many columns follow z (None: any number)
_STYLES: dict[str, tuple[str, int | None]] = {
    "atomic": ("id type x y z", 0),
    "charge": ("id type n x y z", 0),
    "molecular": ("id mol type x y z", 0),
    "bond": ("id mol type x y z", 0),
    "angle": ("id mol type x y z", 0),
    "full": ("id mol type n x y z", 0),
    "sphere": ("id type n n x y z", 0),
    "ellipsoid": ("id type n n x y z", 0),
    "peri": ("id type n n x y z", 0),
    "body": ("id type n n x y z", 0),
    "line": ("id mol type n n x y z", 0),
    "tri": ("id mol type n n x y z", 0),
    "dipole": ("id type n x y z", 3),
    "dielectric": ("id type n x y z", 8),
    "dpd": ("id type n x y z", 0),
    "mdpd": ("id type n x y z", 0),
    "edpd": ("id type n n x y z", 0),
    "electron": ("id type n n n x y z", 0),
    "sph": ("id type n n n x y z", 0),
    "template": ("id type n n n x y z", 0),
    "spin": ("id type x y z", 4),
    "smd": ("id type n n n n n n n n x y z", 0),
    "tdpd": ("id type x y z", None),
    "hybrid": ("id type x y z", None),
}
_SECTION = re.compile(r"[A-Z][A-Za-z0-9]{0,40}(?: [A-Za-z0-9]{1,40}){0,4}")
_COUNT = re.compile(r"\s*(\d{1,18})\s+(atoms|atom\s+types|ellipsoids|lines|triangles|bodies)\s*")
_TITLE_UNITS = re.compile(r"\bunits = (\w{1,20})")
_HEADER_LINES = 300


def looks_like_data(head: str) -> bool:
    """Whether the beginning of a file is that of a data file: a title, then a header with counts and bounds."""
    lines = [line.partition("#")[0] for line in head.split("\n")[1:_HEADER_LINES]]
    atoms = any(re.fullmatch(r"\s*\d{1,18}\s+atoms\s*", line) for line in lines)
    return atoms and any(re.search(r"\b(xlo\s+xhi|avec)\s*$", line) for line in lines)


class _Header:
    """Counts and the box."""

    def __init__(self, path: str, title: str) -> None:
        self.path = path
        found = _TITLE_UNITS.search(title[:4096])
        self.unit = 1.0 if found is None else length_unit(found[1], f"{path}, line 1")
        self.counts: dict[str, int] = {}
        self._values: dict[str, list[float]] = {}

    def add(self, text: str, number: int) -> None:
        """A line of the header; what is none of counts and box is passed over, as LAMMPS's fixes may have their own."""
        found = _COUNT.fullmatch(text)
        words = text.split()
        if found is not None:
            self.counts[" ".join(found[2].split())] = int(found[1])
            return
        for keys, count in (("xlo xhi", 2), ("ylo yhi", 2), ("zlo zhi", 2), ("xy xz yz", 3), ("abc origin", 3)):
            if words[count:] == keys.split():
                self._store(keys, words[:count], number)
        if len(words) == 4 and words[3] in ("avec", "bvec", "cvec"):
            self._store(words[3], words[:3], number)

    def _store(self, key: str, words: list[str], number: int) -> None:
        try:
            self._values[key] = [real(word) for word in words]
        except ValueError as error:
            raise InputError(f"{self.path}, line {number}: {key} must be numbers: {error}") from None

    def box(self) -> Float:
        """Lattice vectors as rows, angstrom."""
        vectors = [self._values[key] for key in ("avec", "bvec", "cvec") if key in self._values]
        if len(vectors) == 3:
            return np.array(vectors) * self.unit
        bounds = [self._values[key] for key in ("xlo xhi", "ylo yhi", "zlo zhi") if key in self._values]
        if len(bounds) != 3:
            raise InputError(f"{self.path}: the header must have xlo xhi, ylo yhi, zlo zhi")
        box = restricted_box(np.array(bounds), self._values.get("xy xz yz", [0.0, 0.0, 0.0]))
        return check_box(box, self.path) * self.unit


class LammpsData:
    """A data file: one frame."""

    def __init__(self, path: str, reading: Reading | None = None) -> None:
        self.path = path
        self.reading = reading or Reading()

    def count(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Frame]:
        labels = Labels(self.path, self.reading)
        header, sections, style = self._read()
        rows = sections.get("Atoms", [])
        natoms = header.counts.get("atoms")
        if natoms is None or len(rows) != natoms:
            raise InputError(f"{self.path}: the header has {natoms} atoms, the section Atoms {len(rows)}")
        columns, end = self._columns(style, [row for _, row, _ in rows], header)
        known = {}  # types by their labels
        for line, words, _ in sections.get("Atom Type Labels", []):
            if len(words) != 2:
                raise InputError(f"{self.path}, line {line}: a type and its label expected")
            known[words[1]] = _whole(words[0], "type", f"{self.path}, line {line}")
        ids, numbers, coords = [], [], np.empty((natoms, 3))
        place = {name: columns.index(name) for name in ("id", "type", "x")}
        for k, (line, words, _) in enumerate(rows):
            where = f"{self.path}, line {line}"
            if end is not None and len(words) not in (end, end + 3):
                raise InputError(
                    f"{where}: a row of Atoms has {len(words)} columns, but {end} (or {end + 3} with image flags) in "
                    f"style {style or 'guessed from the first row'}"
                )
            if len(words) < len(columns):
                raise InputError(f"{where}: a row of Atoms has {len(words)} columns, {len(columns)} at least expected")
            ids.append(_whole(words[place["id"]], "id", where))
            word = words[place["type"]]
            numbers.append(known[word] if word in known else _whole(word, "type", where))
            try:
                coords[k] = [real(number) for number in words[place["x"] : place["x"] + 3]]
            except ValueError as error:
                raise InputError(f"{where}: coordinates must be numbers: {error}") from None
        twice = first_twice(ids)
        if twice is not None:
            raise InputError(f"{self.path}: there are two atoms of id {twice}")
        symbols = self._symbols(numbers, sections, {number: label for label, number in known.items()}, labels)
        order = np.argsort(np.array(ids, dtype=np.int64), kind="stable")
        types, names = index_names([symbols[i] for i in order.tolist()])
        coords = np.ascontiguousarray(coords[order] * header.unit)
        frame = Frame(coords, types, names, header.box(), (True, True, True), where=f"{self.path}, frame 0")
        if (self.reading.atom_style or style.partition(" ")[0]) == "spin":
            frame.labels["spin"] = self._spins([(line, words) for line, words, _ in rows])[order]
        yield frame
        labels.finish()

    def _spins(self, rows: list[tuple[int, list[str]]]) -> Float:
        """(natoms, 3) the spins behind the coordinates: a direction of any length, then the length."""
        spins = np.zeros((len(rows), 3))
        for k, (line, words) in enumerate(rows):
            try:
                *direction, length = [real(word) for word in words[5:9]]
            except ValueError as error:
                raise InputError(f"{self.path}, line {line}: a spin must be numbers: {error}") from None
            norm = np.linalg.norm(direction)
            spins[k] = np.multiply(direction, length / norm) if norm > 0.0 else 0.0
        return spins

    def _read(self) -> tuple[_Header, dict[str, list[tuple[int, list[str], str]]], str]:
        """The header; the rows of the sections that matter, with their lines and comments; the style of Atoms."""
        wanted = ("Atoms", "Masses", "Atom Type Labels")
        sections: dict[str, list[tuple[int, list[str], str]]] = {}
        rows: list[tuple[int, list[str], str]] | None = None
        style, inside = "", False
        with Lines(self.path) as lines:
            header = _Header(self.path, lines.next() or "")
            while (line := lines.next()) is not None:
                text, _, comment = line.partition("#")
                text = text.strip()
                if not text:
                    continue
                if _SECTION.fullmatch(text) and not any(word[0].isdigit() for word in text.split()):
                    inside, rows = True, None
                    if text in sections:
                        raise InputError(f"{self.path}, line {lines.number}: the section {text} is there twice")
                    if text in wanted:
                        rows = sections[text] = []
                    if text == "Atoms":
                        style = " ".join(comment.split())
                elif not inside:
                    header.add(text, lines.number)
                elif rows is not None:
                    rows.append((lines.number, text.split(), comment.strip()))
        return header, sections, style

    def _columns(self, style: str, rows: list[list[str]], header: _Header) -> tuple[list[str], int | None]:
        """What the columns of Atoms are, and how many a row has without image flags (None: any number)."""
        style = self.reading.atom_style or style.partition(" ")[0]
        if style:
            if style not in _STYLES:
                raise InputError(f"{self.path}: the atom style {brief(style)} is not known; {', '.join(_STYLES)} are")
            names, after = _STYLES[style]
            columns = names.split()
            return columns, None if after is None else len(columns) + after
        widths = {len(row) for row in rows}
        width = widths.pop() if len(widths) == 1 else 0
        if width >= 8 and all(integer(word) is not None for row in rows for word in row[-3:]):
            width -= 3  # image flags, unless what stands before them is no coordinate either
            width = 0 if all(integer(row[width - 1]) is not None for row in rows) else width
        special = any(header.counts.get(name) for name in ("ellipsoids", "lines", "triangles", "bodies"))
        found = None if special else _style_of(width, rows, header.counts.get("atom types", 0))
        if rows and found is None:
            raise InputError(
                f"{self.path}: the section Atoms does not say its style, and its columns may mean several things; "
                "say it with --atom-style (in Python: atom_style=), such as --atom-style full, or write 'Atoms # full'"
            )
        names, _ = _STYLES[found or "atomic"]
        return names.split(), len(names.split())

    def _symbols(
        self,
        numbers: list[int],
        sections: dict[str, list[tuple[int, list[str], str]]],
        known: dict[int, str],
        labels: Labels,
    ) -> list[str]:
        if self.reading.types is not None:
            return elements.of_types(numbers, self.reading.types, self.path)
        masses, comments = {}, {}
        by_label = {label: number for number, label in known.items()}
        for line, words, comment in sections.get("Masses", []):
            where = f"{self.path}, line {line}"
            number = by_label[words[0]] if words[0] in by_label else _whole(words[0], "type", where)
            try:
                masses[number] = real(words[1])
            except (IndexError, ValueError):
                raise InputError(f"{where}: a type and its mass expected, found {brief(' '.join(words))}") from None
            if comment:
                comments[number] = comment.split()[0]
        found = named_elements(masses, known, self.path)
        if found is None and comments.keys() == masses.keys():
            found = named_elements(masses, comments, self.path)
        if found is None and masses:
            used = {number: mass for number, mass in masses.items() if number in set(numbers)}
            found = elements_by_mass(used, labels, self.path)
        return symbols_of(numbers, found or {}, self.path)


def _whole(word: str, what: str, where: str) -> int:
    number = integer(word)
    if number is None:
        raise InputError(f"{where}: the {what} must be a whole number, found {brief(word)}")
    return number


def _style_of(width: int, rows: list[list[str]], ntypes: int) -> str | None:
    """The only common style that rows of this width can have; None where there are two."""
    if width == 5:
        return "atomic"

    def whole(column: int) -> bool:
        return all(integer(row[column]) is not None for row in rows)

    def is_type(column: int) -> bool:
        return whole(column) and all(1 <= int(row[column]) <= max(ntypes, 1) for row in rows)

    if width == 6:
        if not whole(2):
            return "charge"
        charge, molecular = is_type(1), is_type(2)
        return "molecular" if molecular and not charge else "charge" if charge and not molecular else None
    if width == 7 and is_type(2) and not whole(3):
        return "full"
    return None
