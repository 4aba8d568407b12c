"""deepmd-kit's systems, of one composition (standard) or several (mixed type), whatever files they are in.

A system has ``type.raw`` (an integer per atom), perhaps ``type_map.raw`` (their names) and ``nopbc`` (open
boundaries), and sets ``set.*`` with one row per frame: ``coord`` (nframes, 3 natoms) angstrom, ``box`` (nframes, 9),
and perhaps ``energy`` (nframes,), ``force`` (nframes, 3 natoms), ``virial`` (nframes, 9), ``fparam`` (nframes, nf),
``aparam`` (nframes, natoms na), ``atom_ener`` and ``atom_pref`` (nframes, natoms), and ``real_atom_types``
(nframes, natoms), which makes a system one of mixed type; -1 in it is a virtual atom. Arrays of other names, such as
``dipole`` or ``atom_dos``, are labels as well; what shape they have to have says the model that they are for
(:func:`dpa2.data.labels.label_of`).

A set of a single frame may lack the axis of frames.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..inputs import Float, Int
from .deepmd_hdf5 import Hdf5Store, find_hdf5_groups
from .deepmd_stores import NpyStore, RawStore, Rows, Store
from .frames import Frame
from .labels import Reading
from .text import brief, first_twice, real

# arrays that have fields of their own in a frame, or are none of its properties
_FIELDS = {"coord", "box", "energy", "force", "virial", "fparam", "aparam", "real_atom_types"}
# the widths of further labels; those that are not here are passed on as they are
_PER_ATOM = ("atom_ener", "atom_pref")

# frames without atoms take no room in a file, so that it may claim any number
_MOST_OF_NOTHING = 2**16


def find_systems(path: str) -> list[str]:
    """The systems below a folder, in a file ``.hdf5`` or in its group ``file.hdf5#/group``.

    As deepmd-kit does, at every depth; in alphabetical order, and ``path`` itself, if it is one, last.
    """
    if not os.path.isdir(path):
        return find_hdf5_groups(path)
    found, seen = [], set()
    for where, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:  # a link that leads upwards
            folders.clear()
            continue
        seen.add(real)
        if "type.raw" in files and where != path:
            found.append(where)
    itself = [path] if os.path.lexists(os.path.join(path, "type.raw")) else []
    return sorted(found) + itself


def _store(path: str) -> Store:
    if not os.path.isdir(path):
        return Hdf5Store(path)
    npy = NpyStore(path)
    return RawStore(path) if not npy.sets() and npy.has("coord.raw") else npy


def _integer(word: str) -> int | None:
    try:
        number = real(word)
    except ValueError:
        return None
    return int(number) if number.is_integer() and -(2**31) <= number < 2**31 else None


class Table:
    """An array of a set whose shape has been checked: one row of ``width`` numbers per frame."""

    def __init__(self, rows: Rows, name: str, single: bool) -> None:
        self.rows = rows
        self.name = name
        self.single = single  # without an axis of frames

    def __len__(self) -> int:
        return 1 if self.single else self.rows.shape[0]

    @property
    def width(self) -> int:
        shape = self.rows.shape if self.single else self.rows.shape[1:]
        return math.prod(shape)

    def row(self, f: int, *shape: int) -> Float:
        """Of a frame, in this shape."""
        row = self.rows[...] if self.single else self.rows[f]
        return np.array(row, dtype=np.float64).reshape(shape)

    def types(self, f: int) -> Int:
        """Of a frame, as types of atoms."""
        row = self.row(f, -1)
        types = np.where(np.abs(row) < 2.0**31, row, 0.5).astype(
            np.int32
        )  # what is no number of that size is not equal
        if (types != row).any():
            atom = int(np.argmax(types != row))
            raise InputError(f"{self.name}, row {f}: the type of atom {atom} must be an integer, found {row[atom]:g}")
        return types


class DeepmdSystem:
    """One system. Sets are opened one after the other, and their rows read as they are asked for.

    Raises:
        InputError: what the files of the system hold cannot be one; also later, from the sets. The message names the
            file, the array and its shape.
    """

    def __init__(self, path: str, reading: Reading | None = None) -> None:
        self.path = path
        reading = reading or Reading()
        self._names = self._label_names(reading)
        self.store = _store(path)
        with self.store.opened():
            self.types = self._read_types()
            self.names = reading.types
            self.has_names = self.store.has("type_map.raw")
            if self.has_names:
                self.names = tuple(self.store.words("type_map.raw"))
                twice = first_twice(self.names)
                if twice is not None:
                    raise InputError(f"{os.path.join(path, 'type_map.raw')}: the name {brief(twice)} is there twice")
            self.periodic = not self.store.has("nopbc")
            self.sets = self.store.sets()
            if not self.sets:
                raise InputError(
                    f"{path}: a deepmd/npy system needs at least one folder set.*, found none (and no coord.raw)"
                )
            mixed = [name for name in self.sets if "real_atom_types" in self.store.keys(name)]
        if mixed and len(mixed) < len(self.sets):
            plain = next(name for name in self.sets if name not in mixed)
            raise InputError(
                f"{path}: {mixed[0]} is of mixed type (it has real_atom_types.npy) and {plain} is not; "
                "all sets of a system must be of the same kind"
            )
        self.mixed = bool(mixed)
        self.check_types(self.types, os.path.join(path, "type.raw"))

    def _label_names(self, reading: Reading) -> dict[str, str]:
        """The arrays of labels: their own names, and others that the user gave."""
        if reading.stress_key is not None:
            raise InputError(f"{self.path}: a deepmd system has virials and no stresses: leave --stress-key out")
        given = {"energy": reading.energy_key, "force": reading.forces_key, "virial": reading.virial_key}
        self._given = {name: key for name, key in given.items() if key is not None}
        return {name: key or name for name, key in given.items()}

    def _read_types(self) -> Int:
        where = os.path.join(self.path, "type.raw")
        if not self.store.has("type.raw"):
            raise InputError(f"{where}: this file is missing")
        types = []
        for k, word in enumerate(self.store.words("type.raw")):
            number = _integer(word)
            if number is None:
                raise InputError(f"{where}: the type of atom {k} must be an integer, found {brief(word)}")
            types.append(number)
        return np.array(types, dtype=np.int32)

    def check_types(self, types: Int, where: str) -> None:
        """Refuse types that have no name, and negative ones but -1."""
        if types.size and int(types.min()) < -1:
            index = int(np.argmax(types < -1))
            raise InputError(
                f"{where}: atom {index} has type {types[index]}; the only negative type is -1, a virtual atom"
            )
        if self.names is not None and types.size and int(types.max()) >= len(self.names):
            said = "type_map.raw" if self.has_names else "--types"
            index = int(np.argmax(types >= len(self.names)))
            raise InputError(
                f"{where}: atom {index} has type {types[index]}, but {said} has {len(self.names)} names "
                f"({' '.join(self.names)})"
            )

    def count(self) -> int:
        """The number of frames."""
        with self.store.opened():
            return sum(len(self.coord(folder)) for folder in self.sets)

    def present(self, folder: str) -> dict[str, str]:
        """The arrays of a set, and the names of their files: atom_x may be in atomic_x.npy."""
        keys = sorted(self.store.keys(folder), key=lambda name: "atomic_" not in name)  # atom_ wins
        return {name.replace("atomic_", "atom_"): name for name in keys}

    def coord(self, folder: str) -> Table:
        """The coordinates of a set; it has as many frames as they have rows."""
        coord = self.table(folder, "coord", 3 * len(self.types))
        if len(self.types) == 0 and len(coord) > _MOST_OF_NOTHING:
            raise InputError(f"{coord.name}: {len(coord)} frames of no atoms")
        return coord

    def table(self, folder: str, key: str, width: int, nframes: int | None = None, file: str = "") -> Table:
        """The array ``key`` of a set as (nframes, width); width -1: any. ``file``: its name, if it is another."""
        name = self.store.name_of(folder, file or key)
        rows = self.store.rows(folder, file or key)
        shape = tuple(rows.shape)
        if rows.dtype.kind not in "fiu":
            raise InputError(f"{name}: {key} must be an array of numbers, found elements of type {rows.dtype}")
        columns = math.prod(shape[1:]) if shape else 0
        as_many = nframes is None or (bool(shape) and shape[0] == nframes)
        if len(shape) == 1 and width in (1, -1) and as_many:
            return Table(rows, name, single=False)
        if len(shape) == 1 and width in (-1, shape[0]) and nframes in (None, 1):
            return Table(rows, name, single=True)
        if not shape and width in (1, -1) and nframes == 1:
            return Table(rows, name, single=True)
        if len(shape) < 2 or width not in (-1, columns) or not as_many:
            wanted = f"({'nframes' if nframes is None else nframes}, {'any number of columns' if width < 0 else width})"
            raise InputError(f"{name}: {key} must have shape {wanted}, found {shape}")
        return Table(rows, name, single=False)

    def __iter__(self) -> Iterator[Frame]:
        k = 0
        with self.store.opened():
            keys = {key for folder in self.sets for key in self.store.keys(folder)}
            for name, key in self._given.items():
                if key not in keys:
                    option = {"force": "forces"}.get(name, name)
                    raise InputError(f"{self.path}: no set has an array {key!r}, which --{option}-key names")
            for folder in self.sets:
                for frame in self._frames(folder):
                    frame.where = f"{self.path}, frame {k}"
                    k += 1
                    yield frame
        if k == 0:
            raise InputError(f"{self.path}: no frames in this system: its arrays have no rows")

    def _frames(self, folder: str) -> Iterator[Frame]:
        natoms = len(self.types)
        coord = self.coord(folder)
        nframes = len(coord)
        present = self.present(folder)

        def optional(key: str, width: int) -> Table | None:
            return self.table(folder, key, width, nframes, present[key]) if key in present else None

        box = self.table(folder, "box", 9, nframes) if self.periodic else None
        energy, force = optional(self._names["energy"], 1), optional(self._names["force"], 3 * natoms)
        virial = optional(self._names["virial"], 9)
        fparam, aparam = optional("fparam", -1), optional("aparam", -1)
        if aparam is not None and natoms and aparam.width % natoms:
            raise InputError(
                f"{aparam.name}: aparam must have a multiple of {natoms} columns (atoms), "
                f"found shape {tuple(aparam.rows.shape)}"
            )
        real_types = optional("real_atom_types", natoms)
        per_atom = {key: table for key in _PER_ATOM if (table := optional(key, natoms)) is not None}
        others = self._others(folder, present, nframes)

        def row(table: Table | None, f: int, *shape: int) -> Any:
            return None if table is None else table.row(f, *shape)

        for f in range(nframes):
            types = self.types
            if real_types is not None:
                types = real_types.types(f)
                self.check_types(types, f"{real_types.name}, row {f}")
            yield Frame(
                coords=coord.row(f, natoms, 3),
                types=types,
                names=self.names,
                box=row(box, f, 3, 3),
                pbc=(self.periodic,) * 3,
                energy=None if energy is None else float(energy.row(f, 1)[0]),
                forces=row(force, f, natoms, 3),
                virial=row(virial, f, 3, 3),
                fparam=row(fparam, f, -1),
                aparam=row(aparam, f, natoms, -1) if natoms else None,
                labels={key: table.row(f, natoms) for key, table in per_atom.items()}
                | {key: np.asarray(rows[f]) for key, rows in others.items()},
            )

    def _others(self, folder: str, present: dict[str, str], nframes: int) -> dict[str, NDArray[Any] | Rows]:
        """Labels whose shape only a model knows, as they are; those that are no rows of numbers are left out."""
        found: dict[str, NDArray[Any] | Rows] = {}
        for key in present.keys() - _FIELDS - set(_PER_ATOM) - set(self._names.values()):
            rows = self.store.rows(folder, present[key])
            if rows.dtype.kind not in "fiub":
                continue
            if rows.shape and rows.shape[0] == nframes:
                found[key] = rows
            elif nframes == 1 and len(rows.shape) < 2:  # without the axis of frames
                found[key] = np.asarray(rows[...])[None]
        return found
