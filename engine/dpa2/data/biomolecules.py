"""PDB and GROMACS's .gro: columns at fixed places, atoms that have names, and elements only if there is room."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ..errors import InputError
from ..inputs import Float
from . import elements
from .frames import Frame, index_names
from .labels import Labels, Reading
from .text import Lines, brief, natural, real
from .xyz_comment import cell_from_lengths, ipi_units

_RECORDS = ("ATOM", "HETATM", "CRYST1", "HEADER", "TITLE", "REMARK", "MODEL", "COMPND", "AUTHOR")
_IPI_TITLE = re.compile(r"\b(positions|cell)\{")


def looks_like_pdb(head: str) -> bool:
    """Whether the beginning of a file is that of a PDB file."""
    record = head.lstrip("\n")[:6].strip()
    return record in _RECORDS and any(line.startswith(("ATOM  ", "HETATM", "CRYST1")) for line in head.split("\n"))


class _Named:
    """Atoms of a frame as they are read, with elements from their names where nothing better is there."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.symbols: list[str] = []
        self.rows: list[list[float]] = []
        self.taken: dict[str, str] = {}  # names that were taken for elements

    def add(self, words: list[str], symbol: str | None, name: str, residue: str, where: str) -> None:
        try:
            self.rows.append([real(word.strip()) for word in words])
        except ValueError as error:
            raise InputError(f"{where}: coordinates must be numbers: {error}") from None
        if symbol is None:
            symbol = elements.of_label(name, residue)
            if symbol is None:
                what = f"atom {name.strip()!r} of residue {residue.strip()!r}"
                raise InputError(
                    f"{where}: the name does not tell the element of {what}; write a PDB file with its columns 77 and "
                    "78 for elements, or extended XYZ"
                )
            self.taken[name.strip()] = symbol
        self.symbols.append(symbol)

    def frame(self, box: Float | None, unit: float, where: str) -> Frame:
        if self.taken:
            said = ", ".join(f"{name} is {symbol}" for name, symbol in list(self.taken.items())[:12])
            self.labels.warn("names", f"{self.labels.path}: elements from the names of atoms: {said}")
        types, names = index_names(self.symbols)
        coords = np.array(self.rows, dtype=np.float64).reshape(-1, 3) * unit
        return Frame(coords, types, names, box, (box is not None,) * 3, where=where)


class PdbFile:
    """A PDB file; every model is a frame, with the cell that was stated last."""

    def __init__(self, path: str, reading: Reading | None = None) -> None:
        self.path = path
        self.reading = reading or Reading()

    def count(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Frame]:
        labels, k = Labels(self.path, self.reading), 0
        box: Float | None = None
        unit = cell_unit = 1.0
        atoms, places = _Named(labels), set[str]()
        with Lines(self.path) as lines:
            while (line := lines.next()) is not None:
                record, where = line[:6].rstrip(), f"{self.path}, line {lines.number}"
                if record in ("ATOM", "HETATM"):
                    places.add(line[16:17].strip())
                    if len(places - {""}) > 1:
                        raise InputError(f"{where}: atoms have alternate locations; leave one of each atom in the file")
                    symbol = line[76:78].strip().capitalize()
                    words = [line[30:38], line[38:46], line[46:54]]
                    known = symbol if elements.is_element(symbol) else None
                    atoms.add(words, known, line[12:16], line[17:21], where)
                elif record == "CRYST1":
                    box = self._cell(line, labels, where)
                    box = None if box is None else box * cell_unit
                elif record in ("TITLE", "REMARK") and _IPI_TITLE.search(line):
                    unit, cell_unit = ipi_units(line, where, "angstrom")
                elif record in ("END", "ENDMDL") and atoms.rows:
                    yield atoms.frame(box, unit, f"{self.path}, frame {k}")
                    atoms, places, k = _Named(labels), set(), k + 1
                    lines.begin_frame()
        if atoms.rows:
            yield atoms.frame(box, unit, f"{self.path}, frame {k}")
            k += 1
        if k == 0:
            raise InputError(f"{self.path}: no frames in this file: it has no records ATOM or HETATM of PDB")
        labels.finish()

    def _cell(self, line: str, labels: Labels, where: str) -> Float | None:
        words = [line[6:15], line[15:24], line[24:33], line[33:40], line[40:47], line[47:54]]
        try:
            values = np.array([real(word.strip()) for word in words])
        except ValueError as error:
            raise InputError(f"{where}: CRYST1 must have six numbers: {error}") from None
        if (values[:3] <= 1.0).all() and (values[:3] >= 0.0).all():  # the way to write that there is no crystal
            labels.warn("cell", f"{where}: a cell of {values[0]:g} angstrom stands for none: the structure is open")
            return None
        return cell_from_lengths(values, where)


class GroFile:
    """A .gro file of GROMACS, nm, of one frame or several."""

    def __init__(self, path: str, reading: Reading | None = None) -> None:
        self.path = path
        self.reading = reading or Reading()

    def count(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[Frame]:
        labels, k = Labels(self.path, self.reading), 0
        with Lines(self.path) as lines:
            while lines.next() is not None:
                lines.begin_frame()
                text = lines.next()
                if text is None and k:
                    break  # an empty line at the end
                natoms = natural((text or "").strip())
                where = f"{self.path}, line {lines.number}"
                if natoms is None:
                    raise InputError(f"{where}: the number of atoms expected, found {brief(text or '')}")
                number, atoms = lines.number, _Named(labels)
                for i, line in enumerate(lines.take(natoms, f"frame {k} (line {number})"), number + 1):
                    width = self._width(line, f"{self.path}, line {i}")
                    words = [line[20 + width * axis : 20 + width * (axis + 1)] for axis in range(3)]
                    atoms.add(words, None, line[10:15], line[5:10], f"{self.path}, line {i}")
                yield atoms.frame(self._box(lines.next() or "", lines.number), 10.0, f"{self.path}, frame {k}")
                k += 1
        if k == 0:
            raise InputError(f"{self.path}: no frames in this file")
        labels.finish()

    def _width(self, line: str, where: str) -> int:
        """The width of a coordinate, which is told by the distance of the decimal points."""
        points = [at for at, letter in enumerate(line) if letter == "." and at >= 20]
        if len(points) < 3:
            raise InputError(f"{where}: three coordinates with decimal points expected, found {brief(line)}")
        return points[1] - points[0]

    def _box(self, line: str, number: int) -> Float | None:
        where = f"{self.path}, line {number}"
        try:
            values = [real(word) for word in line.split()]
        except ValueError as error:
            raise InputError(f"{where}: the box must be numbers: {error}") from None
        if len(values) not in (3, 9):
            raise InputError(f"{where}: the box must be 3 or 9 numbers, found {len(values)}")
        if not any(values):
            return None
        xx, yy, zz, xy, xz, yx, yz, zx, zy = [*values, *[0.0] * 6][:9]
        return 10.0 * np.array([[xx, xy, xz], [yx, yy, yz], [zx, zy, zz]])
