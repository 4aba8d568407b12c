"""XYZ files, plain, extended and i-PI's, with any number of frames.

A frame is a line with the number of atoms, a comment line, and a line per atom. The comment of an extended file has
``key=value`` pairs: ``Lattice="ax ay az bx by bz cx cy cz"``, ``Properties=species:S:1:pos:R:3:...``,
``pbc="T T F"``. Without ``Lattice`` the structure is open; without ``Properties`` the columns are symbol, x, y, z.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..inputs import Float, Pbc
from . import elements
from .frames import Frame, index_names
from .labels import Labels, Reading, is_of_atoms, is_reference, numbers
from .text import Lines, brief, integer, natural, real, reals
from .xyz_comment import IpiComment, comment_pairs, ipi_comment, unread_cell

_TRUE_FALSE = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
# ASE's columns: which atoms or coordinates are free to move, and the momenta of dynamics
_MOVABLE, _MOMENTA = "move_mask", "momenta"
_SPECIES = ("species", "symbols", "symbol", "element")
# entries that may stand in a comment only once, besides labels
_ONCE = ("properties", "lattice", "pbc", "fparam")


class _Columns:
    """The columns of a frame's atom lines, from its ``Properties``."""

    def __init__(self, properties: str | None, where: str) -> None:
        self.names: dict[str, str] = {}  # as they stand there, by their lower case
        self.slices: dict[str, tuple[str, slice]] = {}
        self.exact = properties is not None
        words = (properties or "species:S:1:pos:R:3").split(":")
        start = 0
        for name, kind, count in zip(words[0::3], words[1::3], words[2::3], strict=False):
            width = natural(count)
            if kind not in ("S", "R", "I", "L") or not width:
                break
            if name.lower() in self.slices:
                raise InputError(f"{where}: Properties has the column {name!r} twice")
            self.names[name.lower()] = name
            self.slices[name.lower()] = (kind, slice(start, start + width))
            start += width
        if 3 * len(self.slices) != len(words):
            found = brief(properties or "")
            message = "Properties must be triples name:kind:columns with kind S, R, I or L, found"
            raise InputError(f"{where}: {message} {found}")
        self.width = start
        species = [name for name in _SPECIES if name in self.slices]
        if len(species) > 1:
            raise InputError(f"{where}: Properties has {' and '.join(species)}: which are the elements?")
        self.species = self._start("S", *species) if species else None
        self.numbers = self._start("I", "z")
        if (self.species is None and self.numbers is None) or self._width("pos", "RI") != 3:
            raise InputError(
                f"{where}: Properties needs species:S:1 (or Z:I:1) and pos:R:3, found {brief(properties or '')}"
            )

    def _width(self, name: str, kinds: str) -> int:
        kind, part = self.slices.get(name, ("", slice(0, 0)))
        return part.stop - part.start if kind and kind in kinds else 0

    def _start(self, kinds: str, name: str) -> int | None:
        """Where the only column of this name is."""
        return self.slices[name][1].start if self._width(name, kinds) == 1 else None


def _fields(columns: _Columns, lines: Sequence[str], first_line: int, path: str) -> list[list[str]]:
    rows = [line.split() for line in lines]
    for k, row in enumerate(rows):
        if len(row) < columns.width or (columns.exact and len(row) > columns.width):
            line = f"{path}, line {first_line + k}"
            raise InputError(f"{line}: {columns.width} columns expected, found {len(row)}: {brief(lines[k].strip())}")
    return rows


def _block(columns: _Columns, name: str, rows: list[list[str]], first_line: int, path: str) -> Float:
    part = columns.slices[name][1]
    try:
        return reals([row[part] for row in rows]).reshape(len(rows), part.stop - part.start)
    except ValueError:
        for k, row in enumerate(rows):
            for word in row[part]:
                try:
                    real(word)
                except ValueError:
                    message = f"{path}, line {first_line + k}: {name} must be numbers, found {brief(word)}"
                    raise InputError(message) from None
        raise


def _symbols(
    columns: _Columns, rows: list[list[str]], first_line: int, path: str, types: Sequence[str] | None
) -> list[str]:
    """The name of every atom, from the column of elements, of atomic numbers, or both."""
    named = None if columns.species is None else [row[columns.species] for row in rows]
    if named is not None and types is not None and all(natural(word) is not None for word in named):
        named = elements.of_types([int(word) for word in named], types, path)
    if columns.numbers is None:
        assert named is not None
        return named
    found = []
    for k, row in enumerate(rows):
        where, word = f"{path}, line {first_line + k}", row[columns.numbers]
        number = integer(word)
        if number is None:
            raise InputError(f"{where}: Z must be an atomic number, found {brief(word)}")
        if named is None:
            found.append(elements.of_number(number, where))
        elif number > 0 and elements.is_element(named[k]) and elements.of_number(number, where) != named[k]:
            raise InputError(f"{where}: the atom is {named[k]}, but its atomic number Z is {number}")
    return found if named is None else named


def _flags(text: str, where: str) -> Pbc:
    words = text.replace(",", " ").replace("[", " ").replace("]", " ").lower().split()
    if len(words) not in (1, 3) or any(word not in _TRUE_FALSE for word in words):
        raise InputError(f'{where}: pbc must be like "T T F", found {brief(text)}')
    x, y, z = (_TRUE_FALSE[word] for word in (words * 3 if len(words) == 1 else words))
    return (x, y, z)


class _Comment:
    """A comment line: what it says of the box, and its other entries."""

    def __init__(self, line: str, where: str) -> None:
        self.where = where
        self.entries: dict[str, str] = {}
        self._names: dict[str, list[str]] = {}  # as they stand there, by their lower case
        for name, value in comment_pairs(line):
            self.entries[name] = value
            self._names.setdefault(name.lower(), []).append(name)
        # a word alone is free text; pairs of other names may be as well
        self.extended = any(
            self.entries[name] != "T" for key in ("properties", "lattice") for name in self._names.get(key, [])
        )

    def take(self, key: str) -> str | None:
        """An entry, which is no longer there afterwards."""
        names = self._names.get(key, [])
        return self.entries.pop(names[0]) if names else None

    def check_once(self, labels: Labels) -> None:
        """Refuse entries that stand there twice, where it is not said which one counts."""
        twice = [names for names in self._names.values() if len(names) > 1]
        for names in twice:
            if names[0].lower() in _ONCE or any(labels.find(what, names) for what in ("energy", "virial", "stress")):
                raise InputError(f"{self.where}: the comment line has {names[0]!r} twice")


def _make_frame(comment: str, lines: Sequence[str], first_line: int, labels: Labels, k: int) -> Frame:
    path = labels.path
    where = f"{path}, frame {k} (line {first_line - 1})"
    ipi = ipi_comment(comment, where)
    said = _Comment("" if ipi is not None else comment, where)
    if said.extended:
        said.check_once(labels)
    columns = _Columns(said.take("properties") if said.extended else None, where)
    rows = _fields(columns, lines, first_line, path)
    types, names = index_names(_symbols(columns, rows, first_line, path, labels.reading.types))
    box, flags = _box(said, ipi)
    unread = unread_cell(comment) if box is None else None
    if unread is not None:
        labels.warn(
            "cell",
            f"{where}: the comment line seems to hold a cell that is not read ({unread}): the structure is taken as "
            'open. A cell is read from Lattice="ax ay az bx by bz cx cy cz"',
        )
    coords = _block(columns, "pos", rows, first_line, path)
    blocks = {
        columns.names[name]: _block(columns, name, rows, first_line, path)
        for name in [*labels.find("forces", columns.slices), *(["aparam"] if "aparam" in columns.slices else [])]
    }
    of_atoms = {
        columns.names[name]: _block(columns, name, rows, first_line, path)
        for name, (kind, _) in columns.slices.items()
        if (is_of_atoms(name) or name == _MOMENTA) and kind in "RI"
    }
    frame = Frame(
        coords=coords if ipi is None else coords * ipi.unit,
        types=types,
        names=names,
        box=box,
        pbc=flags,
        aparam=blocks.pop(columns.names["aparam"]) if "aparam" in columns.slices else None,
        labels=dict(of_atoms),
        constraints=_constraints(columns, rows, first_line, path),
        where=f"{path}, frame {k}",
    )
    if said.extended:
        fparam = said.take("fparam")
        frame.fparam = None if fparam is None else numbers(fparam, f"{where}: fparam")
        frame.where = where  # for the messages of labels
        taken = labels.fill(frame, said.entries, blocks)
        frame.where = f"{path}, frame {k}"
        frame.info = {name: value for name, value in said.entries.items() if name not in taken or is_reference(name)}
        read = blocks.keys() | of_atoms.keys() | ({columns.names[_MOVABLE]} if _MOVABLE in columns.names else set())
        frame.unread = tuple(columns.names[name] for name in columns.slices if columns.names[name] not in read)
    return frame


def _constraints(columns: _Columns, rows: list[list[str]], first_line: int, path: str) -> tuple[dict[str, Any], ...]:
    """What the column of movable atoms fixes: whole atoms, or coordinates of them."""
    kind, part = columns.slices.get(_MOVABLE, ("", slice(0)))
    if not kind:
        return ()
    words = [[word.lower() for word in row[part]] for row in rows]
    for k, row in enumerate(words):
        wrong = [word for word in row if word not in _TRUE_FALSE]
        if wrong or len(row) not in (1, 3):
            raise InputError(
                f"{path}, line {first_line + k}: the column {columns.names[_MOVABLE]} must be one or three of T and F, "
                f"found {brief(' '.join(row))}"
            )
    fixed = np.array([[not _TRUE_FALSE[word] for word in row] for row in words], dtype=bool)
    atoms = np.flatnonzero(fixed.all(axis=1)).tolist()
    found = [{"name": "FixAtoms", "kwargs": {"indices": atoms}}] if atoms else []
    for atom in np.flatnonzero(fixed.any(axis=1) & ~fixed.all(axis=1)).tolist():
        found.append({"name": "FixCartesian", "kwargs": {"a": [atom], "mask": fixed[atom].tolist()}})
    return tuple(found)


def _box(said: _Comment, ipi: IpiComment | None) -> tuple[Float | None, Pbc]:
    """The box, and which of its directions are periodic."""
    if ipi is not None:
        return ipi.box, (True, True, True)
    lattice, pbc = said.take("lattice") if said.extended else None, said.take("pbc")
    if pbc is not None and not said.extended and len(pbc.split()) != 3:
        pbc = None  # a word of free text
    box = None
    if lattice is not None:
        values = numbers(lattice, f"{said.where}: Lattice")
        if len(values) != 9:
            raise InputError(f"{said.where}: Lattice must be 9 numbers, found {len(values)}: {brief(lattice)}")
        box = values.reshape(3, 3)
    flags = (box is not None,) * 3 if pbc is None else _flags(pbc, said.where)
    if box is None and any(flags):
        raise InputError(f"{said.where}: pbc is {pbc!r}, but there is no Lattice")
    return box, flags


def _natoms(line: str, path: str, number: int) -> int:
    count = natural(line.strip())
    if count is None:
        where = f"{path}, line {number}"
        raise InputError(f"{where}: the number of atoms of the next frame expected, found {brief(line.strip())}")
    return count


class XyzFile:
    """An XYZ file; frames are read one at a time."""

    def __init__(self, path: str, reading: Reading | None = None) -> None:
        self.path = path
        self.reading = reading or Reading()

    def count(self) -> int | None:
        frames = 0
        with Lines(self.path) as lines:
            while (line := lines.next()) is not None:
                lines.begin_frame()
                if not line.strip():
                    continue
                natoms = natural(line.strip())
                if natoms is None:
                    return None  # malformed; reading it says where
                if not lines.skip(natoms + 1):
                    return None
                frames += 1
        return frames

    def __iter__(self) -> Iterator[Frame]:
        labels, k = Labels(self.path, self.reading), 0
        with Lines(self.path) as lines:
            while (line := lines.next()) is not None:
                lines.begin_frame()
                if not line.strip():
                    continue
                natoms, number = _natoms(line, self.path, lines.number), lines.number
                comment = lines.next()
                atoms = lines.take(natoms if comment is not None else 0, f"frame {k} (line {number})")
                if comment is None:
                    raise InputError(
                        f"{self.path}: frame {k} (line {number}) has {natoms} atoms, but the file ends after 0"
                    )
                yield _make_frame(comment, atoms, number + 2, labels, k)
                k += 1
        if k == 0:
            raise InputError(f"{self.path}: no frames in this file")
        labels.finish()


def looks_like_xyz(head: str) -> bool:
    """Whether the beginning of a file is that of an XYZ file, whatever its name is."""
    lines = head.split("\n", 3)
    count = natural(lines[0].strip())
    if count is None or len(lines) < 3:
        return False
    words = lines[2].split()
    try:
        return len(words) >= 4 and words[0][:1].isalpha() and all(map(np.isfinite, reals([words[1:4]])[0]))
    except ValueError:
        return False
