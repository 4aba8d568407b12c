"""What ``dpa2 eval`` writes for a frame: which outputs of a model, and what they are called where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..data import Frame
    from ..model import Model
    from ..results import Result

#: arrays of a frame, (natoms, ...) where they are of its atoms, by their names in ``.npz`` files
Values = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """An output of a model.

    Attributes:
        name: in ``.npz`` files. output: deepmd-kit's name for it.
        shape: of the value of the frame or of an atom.
        per_atom: whether it is of the atoms.
        xyz: its name in extended XYZ. label: that of the array in a deepmd system. "": it is not written there.
    """

    name: str
    output: str
    shape: tuple[int, ...]
    per_atom: bool
    xyz: str = ""
    label: str = ""


_ENERGY = (
    Column("energy", "energy", (), False, "energy", "energy"),
    Column("virial", "virial", (3, 3), False, "virial", "virial"),
    Column("forces", "force", (3,), True, "forces", "force"),
    Column("atom_energy", "atom_energy", (), True, "atom_energy", "atom_ener"),
)
_ATOM_VIRIAL = Column("atom_virial", "atom_virial", (3, 3), True, "atom_virial")
# with spins, which are written beside them
_MAGNETIC = (
    Column("magnetic_forces", "force_mag", (3,), True, "force_mag", "force_mag"),
    Column("mask_mag", "mask_mag", (), True),
)
_MASK = Column("mask", "mask", (), True)
# names under which outputs of other kinds are found again as labels; derivatives are none
_LABELS = {
    "dipole": {"global_dipole": "dipole", "dipole": "atom_dipole"},
    "polar": {"global_polar": "polarizability", "polar": "atom_polarizability"},
    "population": {"population": "atom_population"},
}


def columns_of(model: Model, atomic: str | None = None) -> tuple[Column, ...]:
    """What is written of a model's answers; ``atomic``: virials of the atoms, too.

    Raises:
        InputError: ``atomic`` for a model without forces.
    """
    from ..quantities import OF_DESCRIPTOR, has_derivatives

    if model.kind in ("energy", "spin"):
        return (*_ENERGY, *(_MAGNETIC if model.kind == "spin" else ()), *([_ATOM_VIRIAL] if atomic else []))
    outputs = [output for output in model.outputs if output.name not in OF_DESCRIPTOR]
    if atomic and not has_derivatives(outputs):
        raise InputError(f"--atomic is for models with forces: a {model.kind} model has no virial")
    labels = _LABELS.get(model.kind, {})
    found = []
    for output in outputs:
        if output.derivative and output.name == "atom_virial" and not atomic:
            continue
        label = "" if output.derivative else labels.get(output.name, output.name)
        xyz = f"{model.kind}_{output.name}" if output.derivative else label
        found.append(Column(output.name, output.name, output.shape, output.per_atom, xyz, label))
    return (*sorted(found, key=lambda column: column.per_atom), _MASK)


def spins_beside(columns: tuple[Column, ...], frame: Frame) -> Values:
    """The spins of a frame whose magnetic forces are written, under their name in files."""
    from ..data.labels import spins_of

    return {"spin": spins_of(frame)} if set(_MAGNETIC) <= set(columns) else {}


def values_of(columns: tuple[Column, ...], result: Result, natoms: int) -> Values:
    """The arrays of one frame."""
    outputs = result.outputs
    return {
        column.name: outputs[column.output].reshape((natoms, *column.shape) if column.per_atom else column.shape)
        for column in columns
    }
