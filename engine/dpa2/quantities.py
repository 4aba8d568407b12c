"""Which outputs an evaluation computes, and what they are called in messages."""

from __future__ import annotations

from collections.abc import Sequence

from .results import Output

#: asked for by themselves, with :meth:`dpa2.Model.descriptor`
OF_DESCRIPTOR = ("descriptor", "rot_mat")

_WORDS = {
    "energy": {"energy": "the energy", "force": "a force"},
    "spin": {"energy": "the energy", "force": "a force", "force_mag": "a magnetic force"},
    "dipole": {"dipole": "a component of the dipole", "force": "a derivative of the dipole"},
    "polar": {"polar": "a component of the polarizability"},
    "dos": {"atom_dos": "a number of the density of states"},
    "population": {"population": "a population"},
}


def evaluated(outputs: Sequence[Output], natoms: int, derivatives: bool, atomic: bool) -> dict[str, tuple[int, ...]]:
    """The outputs that an evaluation of a structure computes, by name with their shapes.

    ``derivatives``: forces and virials, too; ``atomic``: virials of the atoms.
    """
    return {
        output.name: output.shape_for(natoms)
        for output in outputs
        if output.name not in OF_DESCRIPTOR
        and (derivatives or not output.derivative)
        and (atomic or output.name != "atom_virial" or not output.derivative)
    }


def has_derivatives(outputs: Sequence[Output]) -> bool:
    return any(output.derivative for output in outputs)


def must_be_finite(kind: str, outputs: Sequence[Output]) -> dict[str, str]:
    """Outputs that are numbers if anything is, and what a number of them is called.

    The mean of an intensive property is none of them: of no atoms it is not a number.
    """
    words = _WORDS.get(kind)
    if words is None:  # a property, by its name
        words = {o.name: f"{o.name.removeprefix('atom_')} of an atom" for o in outputs if weighable(o)}
    return words


def weighable(output: Output) -> bool:
    """Whether there is a gradient of a weighted sum of the output: it is of the atoms, and no derivative."""
    return output.per_atom and not output.derivative and output.name not in OF_DESCRIPTOR
