"""One structure, and a sequence of them that is read while it is walked through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..inputs import Float, Int, Pbc
from .text import brief


@dataclass
class Frame:
    """A structure with what its file says about it. Angstrom and eV.

    Attributes:
        coords: (natoms, 3).
        types: (natoms,), indices into ``names``; -1 is a virtual atom.
        names: the type names of the file; None if it has none: then ``types`` are indices into the model's own.
        box: (3, 3), lattice vectors as rows, or None.
        pbc: the periodic directions.
        energy, forces (natoms, 3), virial (3, 3): reference values if the file has them.
        fparam (numb_fparam,), aparam (natoms, numb_aparam): if the file has them.
        labels: further arrays of a deepmd system under their names: ``atom_ener`` (natoms,) eV, ``atom_pref``
            (natoms,), and any other, with the axis of frames gone.
        constraints: which atoms or coordinates are fixed, as ``ase.constraints.dict2constraint`` takes each.
        info: other entries of the file's comment line. ``unread``: names of what else the file has.
        where: file and frame, for messages.
    """

    coords: Float
    types: Int
    names: tuple[str, ...] | None
    box: Float | None = None
    pbc: Pbc = (False, False, False)
    energy: float | None = None
    forces: Float | None = None
    virial: Float | None = None
    fparam: Float | None = None
    aparam: Float | None = None
    labels: dict[str, NDArray[Any]] = field(default_factory=dict)
    constraints: tuple[dict[str, Any], ...] = ()
    info: dict[str, Any] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    where: str = ""

    def __len__(self) -> int:
        return len(self.types)

    @property
    def volume(self) -> float | None:
        """The volume of the box, angstrom^3; None if a direction is open."""
        return abs(float(np.linalg.det(self.box))) if self.box is not None and all(self.pbc) else None

    def types_in(self, type_map: Sequence[str]) -> Int:
        """``types`` as indices into ``type_map``.

        Raises:
            InputError: an atom's type is not in ``type_map``.
        """
        names = self.names
        if names is None:
            if len(self.types) and int(self.types.max()) >= len(type_map):
                atom = int(np.argmax(self.types >= len(type_map)))
                raise InputError(
                    f"{self.where}: atom {atom} has type {self.types[atom]}, but the model has {len(type_map)} types "
                    f"({' '.join(type_map)}) and the file does not name its own"
                )
            return self.types
        index = {name: i for i, name in enumerate(type_map)}
        lookup = np.array([*(index.get(name, -2) for name in names), -1], dtype=np.int32)  # the last one for -1
        types = lookup[np.maximum(self.types, -1)]
        if (types == -2).any():
            atom = int(np.argmax(types == -2))
            name = names[self.types[atom]]
            hint = "; if that is a number of a type, name the elements of the types with --types"
            raise InputError(
                f"{self.where}: atom {atom} is {brief(name)}, which the model does not know; "
                f"its type_map is {' '.join(type_map)}{hint if name.isdecimal() else ''}"
            )
        return types


class Structures(Protocol):
    """The frames of one file or folder; every walk over it reads it again."""

    path: str

    def __iter__(self) -> Iterator[Frame]: ...

    def count(self) -> int | None:
        """The number of frames, if it can be told without reading them all."""
        ...


def index_names(symbols: Sequence[str]) -> tuple[Int, tuple[str, ...]]:
    """Symbols as indices into the distinct names, in order of appearance."""
    index: dict[str, int] = {}
    types = np.array([index.setdefault(symbol, len(index)) for symbol in symbols], dtype=np.int32)
    return types, tuple(index)
