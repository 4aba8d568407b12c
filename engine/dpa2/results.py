"""What a model says about structures: :class:`Result`; and what it can be asked for: :class:`Output`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from .inputs import Float

#: None where it was not computed, which only who asked for that has to know
MaybeNone: TypeAlias = Any


@dataclass(frozen=True)
class Output:
    """The description of an output of a model.

    Attributes:
        name: deepmd-kit's name for it.
        unit: "" for a number without one.
        shape: of the value of an atom or of the frame, as in :attr:`Result.outputs`.
        per_atom: whether there is one for every atom.
        reduction: "sum" or "mean" where the value of a frame is that of the atoms' values of ``of``.
        of: the output that this one is a reduction or a derivative of; "" where it is of its own.
    """

    name: str
    unit: str
    shape: tuple[int, ...]
    per_atom: bool
    reduction: str
    of: str


@dataclass(frozen=True, eq=False)
class Result:
    """Energy and its derivatives. With a frame axis in the input every field has one in front.

    Attributes:
        energy: total energy, a float; (nframes,) with a frame axis. eV.
        forces: (natoms, 3), eV/angstrom. None with ``forces=False``.
        virial: (3, 3), ``-dE/dstrain``, first index = force component. eV. None with ``forces=False``.
        atom_energy: (natoms,), eV; sums to ``energy``. Zero for virtual and excluded atoms.
        atom_virial: (natoms, 3, 3), eV; sums to ``virial``. None unless asked for with ``atomic``.
    """

    energy: float | Float
    forces: Float | MaybeNone
    virial: Float | MaybeNone
    atom_energy: Float
    atom_virial: Float | None = None

    _pending: ClassVar[Any] = None  # of results on a GPU: what is to be checked

    @classmethod
    def pending(cls, fields: dict[str, Any], pending: Any) -> Result:
        """A result of these fields that may still be computed, and what says when it stands."""
        result = cls(**fields)
        object.__setattr__(result, "_pending", pending)
        return result

    def check(self) -> Result:
        """The result, when it is known to stand.

        Results that lie on a GPU may still be computed when they are returned. This waits for them, warns where there
        is something to warn of, and has an evaluation done again, into the same arrays, whose neighbour lists had grown
        beyond their buffers: until then the arrays hold NaN. Coordinates must not have been changed meanwhile. Other
        results always stand.

        Raises:
            InputError: an atom that cannot be evaluated. OutOfMemoryError: there is too little memory to repeat.
        """
        if self._pending is not None:
            self._pending.check()
        return self

    @property
    def outputs(self) -> dict[str, Float]:
        """What was computed, by deepmd-kit's names and in its shapes; the numbers are those of the fields.

        ``energy`` (1,), ``atom_energy`` (natoms, 1), ``force`` (natoms, 3), ``virial`` (9,), ``atom_virial``
        (natoms, 9); with a frame axis in the input all of them have one in front.
        """
        atoms = tuple(self.atom_energy.shape)
        frames = atoms[:-1]
        energy: Any = self.energy if hasattr(self.energy, "reshape") else np.asarray(self.energy)
        fields = {
            "energy": (energy, (*frames, 1)),
            "atom_energy": (self.atom_energy, (*atoms, 1)),
            "force": (self.forces, (*atoms, 3)),
            "virial": (self.virial, (*frames, 9)),
            "atom_virial": (self.atom_virial, (*atoms, 9)),
        }
        return {name: value.reshape(shape) for name, (value, shape) in fields.items() if value is not None}
