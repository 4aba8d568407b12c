"""Text dumps of LAMMPS, of the styles ``atom`` and ``custom``: orthogonal and tilted boxes, coordinates of every kind.

Atoms are sorted by their ids. Forces of a dump are not labels: a dump does not say in which units they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import InputError
from ..inputs import Float, Int, Pbc
from . import elements
from .frames import Frame, index_names
from .labels import Labels, Reading
from .lammps_common import check_box, elements_by_mass, length_unit, restricted_box, symbols_of
from .text import Lines, brief, first_twice, integer, natural, reals

# coordinates by preference, and whether they are fractions of the box
_COORDINATES = (
    ("x", "y", "z", False),
    ("xu", "yu", "zu", False),
    ("xs", "ys", "zs", True),
    ("xsu", "ysu", "zsu", True),
)
_FLAGS = frozenset("pfsm")


def looks_like_dump(head: str) -> bool:
    """Whether the beginning of a file is that of a dump."""
    return head.lstrip().startswith("ITEM:")


class _Snapshot:
    """The items above the atoms."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.natoms: int | None = None
        self.box: Float | None = None
        self.origin: Float = np.zeros(3)
        self.pbc: Pbc = (True, True, True)
        self.stated_pbc = True

    def read_box(self, words: Sequence[str], rows: list[str]) -> None:
        """``ITEM: BOX BOUNDS``: lo and hi, with tilt, or three vectors with an origin."""
        flags = [word for word in words if len(word) == 2 and set(word) <= _FLAGS]
        shape = [word for word in words if word not in flags]
        general, tilted = shape == ["abc", "origin"], shape == ["xy", "xz", "yz"]
        if (shape and not general and not tilted) or len(flags) not in (0, 3):
            raise InputError(f"{self.where}: BOX BOUNDS {brief(' '.join(words))} is no box that is known")
        self.stated_pbc = bool(flags)
        if flags:
            x, y, z = (flag == "pp" for flag in flags)
            self.pbc = (x, y, z)
        width = 4 if general else 3 if tilted else 2
        words_of = [row.split() for row in rows]
        try:
            values = reals([row[:width] for row in words_of])
        except ValueError as error:
            raise InputError(f"{self.where}: the bounds of the box must be numbers: {error}") from None
        if values.shape != (3, width):
            raise InputError(f"{self.where}: the bounds of the box must be 3 rows of {width} numbers")
        if general:
            self.box, self.origin = values[:, :3].copy(), values[:, 3].copy()
            if not np.isfinite(values).all():
                raise InputError(f"{self.where}: the bounds of the box must be finite numbers")
            return
        bounds, tilt = values[:, :2].copy(), [0.0, 0.0, 0.0]
        if tilted:
            xy, xz, yz = tilt = values[:, 2].tolist()
            bounds[0] -= min(0.0, xy, xz, xy + xz), max(0.0, xy, xz, xy + xz)
            bounds[1] -= min(0.0, yz), max(0.0, yz)
        self.box, self.origin = restricted_box(bounds, tilt), bounds[:, 0].copy()
        if all(self.pbc):
            check_box(self.box, self.where)


class _Atoms:
    """The table of the atoms, by the names of its columns."""

    def __init__(self, columns: list[str], rows: list[str], where: str) -> None:
        self.where = where
        self.index = {name: k for k, name in enumerate(columns)}
        if len(self.index) != len(columns):
            raise InputError(f"{where}: ATOMS has a column twice: {brief(' '.join(columns))}")
        self.rows = [row.split() for row in rows]
        for k, row in enumerate(self.rows):
            if len(row) != len(columns):
                raise InputError(
                    f"{where}: {len(columns)} columns expected, found {len(row)}: {brief(rows[k].strip())}"
                )

    def words(self, name: str) -> list[str]:
        return [row[self.index[name]] for row in self.rows]

    def integers(self, name: str) -> list[int]:
        found = []
        for word in self.words(name):
            number = integer(word)
            if number is None:
                raise InputError(f"{self.where}: {name} must be whole numbers, found {brief(word)}")
            found.append(number)
        return found

    def floats(self, names: Sequence[str]) -> Float:
        try:
            return reals([[row[self.index[name]] for name in names] for row in self.rows]).reshape(-1, len(names))
        except ValueError as error:
            raise InputError(f"{self.where}: {' '.join(names)} must be numbers: {error}") from None

    def order(self) -> Int | None:
        """The atoms by their ids; None where they have none."""
        if "id" not in self.index:
            return None
        ids = self.integers("id")
        twice = first_twice(ids)
        if twice is not None:
            raise InputError(f"{self.where}: there are two atoms of id {twice}")
        return np.argsort(np.array(ids, dtype=np.int64), kind="stable").astype(np.int32)


class LammpsDump:
    """A text dump; frames are read one at a time."""

    def __init__(self, path: str, reading: Reading | None = None) -> None:
        self.path = path
        self.reading = reading or Reading()

    def count(self) -> int | None:
        frames = 0
        with Lines(self.path) as lines:
            while (line := lines.next()) is not None:
                lines.begin_frame()
                if line.startswith("ITEM: ATOMS"):
                    frames += 1
        return frames

    def __iter__(self) -> Iterator[Frame]:
        labels, k, unit = Labels(self.path, self.reading), 0, 1.0
        with Lines(self.path) as lines:
            snapshot: _Snapshot | None = None
            while (line := lines.next()) is not None:
                where = f"{self.path}, frame {k} (line {lines.number})"
                if not line.strip():
                    continue
                if not line.startswith("ITEM:"):
                    raise InputError(f"{where}: a line 'ITEM: ...' expected, found {brief(line)}")
                item = line.removeprefix("ITEM:").strip()
                if item == "UNITS":
                    unit = length_unit((lines.next() or "").strip(), where)
                elif item == "TIME":
                    lines.next()
                elif item == "TIMESTEP":
                    lines.begin_frame()
                    lines.next()
                    snapshot = _Snapshot(where)
                elif snapshot is None:
                    raise InputError(f"{where}: 'ITEM: TIMESTEP' expected, found {brief(line)}")
                elif item == "NUMBER OF ATOMS":
                    snapshot.natoms = natural((lines.next() or "").strip())
                    if snapshot.natoms is None:
                        raise InputError(f"{where}: the line below is no number of atoms")
                elif item.startswith("BOX BOUNDS"):
                    rows = [lines.next() or "" for _ in range(3)]
                    snapshot.read_box(item.split()[2:], rows)
                elif item.split()[:1] == ["ATOMS"]:
                    if snapshot.natoms is None or snapshot.box is None:
                        raise InputError(f"{where}: NUMBER OF ATOMS and BOX BOUNDS must stand above ATOMS")
                    rows = lines.take(snapshot.natoms, f"frame {k} (line {lines.number})")
                    yield self._frame(snapshot, item.split()[1:], rows, unit, labels, k)
                    snapshot, k = None, k + 1
                else:
                    raise InputError(f"{where}: dumps of atoms are read, not of {brief(item)}")
        if snapshot is not None:
            raise InputError(f"{self.path}: the file ends within frame {k}")
        if k == 0:
            raise InputError(f"{self.path}: no frames in this file")
        labels.finish()

    def _frame(
        self, snapshot: _Snapshot, columns: list[str], rows: list[str], unit: float, labels: Labels, k: int
    ) -> Frame:
        assert snapshot.box is not None
        where = f"{self.path}, frame {k}"
        if not columns:
            raise InputError(
                f"{where}: ITEM: ATOMS does not name its columns; write the dump with a LAMMPS of our time"
            )
        atoms = _Atoms(columns, rows, where)
        symbols = self._symbols(atoms, labels, where)
        coords = self._coords(atoms, snapshot, where)
        order = atoms.order()
        if order is not None:
            symbols, coords = [symbols[i] for i in order.tolist()], coords[order]
        if not snapshot.stated_pbc:
            labels.warn("pbc", f"{where}: the dump does not say which directions are periodic; all are taken to be")
        types, names = index_names(symbols)
        return Frame(
            coords=np.ascontiguousarray(coords * unit),
            types=types,
            names=names,
            box=snapshot.box * unit,
            pbc=snapshot.pbc,
            unread=tuple(f"force ({name})" for name in columns if name in ("fx", "fy", "fz")),
            where=where,
        )

    def _coords(self, atoms: _Atoms, snapshot: _Snapshot, where: str) -> Float:
        assert snapshot.box is not None
        for *names, scaled in _COORDINATES:
            if all(name in atoms.index for name in names):
                values = atoms.floats([str(name) for name in names])
                return snapshot.origin + values @ snapshot.box if scaled else values
        found = brief(" ".join(atoms.index))
        raise InputError(f"{where}: the dump must have columns x y z (or xu, xs, xsu and so on), found {found}")

    def _symbols(self, atoms: _Atoms, labels: Labels, where: str) -> list[str]:
        types = labels.reading.types
        if types is not None:
            if "type" not in atoms.index:
                raise InputError(f"{where}: --types names the elements of types, but the dump has no column 'type'")
            return elements.of_types(atoms.integers("type"), types, where)
        if "element" in atoms.index:
            symbols = atoms.words("element")
            if set(symbols) == {"C"} and "type" in atoms.index and len(set(atoms.words("type"))) > 1:
                message = "every type is C, which LAMMPS writes where 'dump_modify ... element' does not say otherwise"
                raise InputError(f"{where}: {message}; {elements.HINT}")
            return symbols
        if "typelabel" in atoms.index and all(map(elements.is_element, set(atoms.words("typelabel")))):
            return atoms.words("typelabel")
        if "mass" in atoms.index:
            masses = atoms.floats(["mass"])[:, 0].tolist()
            distinct = {mass: n for n, mass in enumerate(sorted(set(masses)), 1)}
            numbers = atoms.integers("type") if "type" in atoms.index else [distinct[mass] for mass in masses]
            of_types = dict(zip(numbers, masses, strict=True))
            for number, mass in zip(numbers, masses, strict=True):
                if of_types[number] != mass:
                    both = f"{mass:g} and {of_types[number]:g}"
                    raise InputError(f"{where}: atoms of type {number} have the masses {both}; {elements.HINT}")
            return symbols_of(numbers, elements_by_mass(of_types, labels, where), where)
        raise InputError(
            f"{where}: the dump has type numbers and no elements; {elements.HINT} "
            "(or write a column 'element' with LAMMPS's dump custom and dump_modify ... element)"
        )
