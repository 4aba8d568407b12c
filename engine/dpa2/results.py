"""What a model says about structures: :class:`Result`; and what it can be asked for: :class:`Output`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .inputs import Float

#: None where it was not computed, which only who asked for that has to know
MaybeNone: TypeAlias = Any

# Of an energy or spin model: its outputs by deepmd-kit's names, their fields, and the shapes of a value there and here.
_FIELDS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "energy": ("energy", (1,), ()),
    "atom_energy": ("atom_energy", (1,), ()),
    "force": ("forces", (3,), (3,)),
    "force_mag": ("magnetic_forces", (3,), (3,)),
    "mask_mag": ("mask_mag", (1,), ()),
    "virial": ("virial", (9,), (3, 3)),
    "atom_virial": ("atom_virial", (9,), (3, 3)),
}


@dataclass(frozen=True)
class Output:
    """The description of an output of a model.

    Attributes:
        name: deepmd-kit's name for it.
        unit: "" for a number without one, and where it is that of the labels the model was trained on.
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

    @property
    def derivative(self) -> bool:
        """Whether it is a derivative of another output."""
        return self.of != "" and self.reduction == ""

    def shape_for(self, natoms: int) -> tuple[int, ...]:
        """Of the output of one structure."""
        return (natoms, *self.shape) if self.per_atom else self.shape


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What a model says of a structure or of many. With a frame axis in the input everything has one in front.

    :attr:`outputs` has the results of every kind of model, by deepmd-kit's names. Energy and spin models have them as
    fields too, in shapes that are easier to use; for other kinds these fields are None.

    Attributes:
        energy: total energy, a float; (nframes,) with a frame axis. eV.
        forces: (natoms, 3), eV/angstrom. None with ``forces=False``.
        virial: (3, 3), ``-dE/dstrain``, first index = force component. eV. None with ``forces=False``. Of a spin model
            at fixed spins, and not symmetric.
        atom_energy: (natoms,), eV; sums to ``energy``. Zero for virtual and excluded atoms.
        atom_virial: (natoms, 3, 3), eV; sums to ``virial``. None unless asked for with ``atomic``.
        magnetic_forces: (natoms, 3), minus the derivative of the energy of a spin model by the spins, eV per unit of
            spin; zero for types without spins. None for other models, and with ``forces=False``.
        mask_mag: (natoms,), of a spin model: which atoms have magnetic forces.
        others: what has no field of its own, by deepmd-kit's names and in its shapes.
    """

    energy: float | Float | MaybeNone = None
    forces: Float | MaybeNone = None
    virial: Float | MaybeNone = None
    atom_energy: Float | MaybeNone = None
    atom_virial: Float | MaybeNone = None
    magnetic_forces: Float | MaybeNone = None
    mask_mag: NDArray[np.bool_] | MaybeNone = None
    others: Mapping[str, Any] = field(default_factory=dict)

    _pending: ClassVar[Any] = None  # of results on a GPU: what is to be checked

    @classmethod
    def of_outputs(cls, kind: str, outputs: Mapping[str, Any], pending: Any = None) -> Result:
        """A result of arrays by deepmd-kit's names and in its shapes, all with a frame axis or none.

        Args:
            kind: of the model.
            pending: what says whether arrays that may still be computed stand.
        """
        named: dict[str, Any] = {}
        others = {}
        for name, rows in outputs.items():
            if kind in ("energy", "spin") and name in _FIELDS:
                own, there, here = _FIELDS[name]
                value = rows.reshape((*rows.shape[: rows.ndim - len(there)], *here))
                one = own == "energy" and isinstance(value, np.ndarray) and value.ndim == 0
                named[own] = float(value) if one else value
            else:
                others[name] = rows
        result = cls(**named, others=others)
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
    def outputs(self) -> dict[str, Any]:
        """What was computed, by deepmd-kit's names and in its shapes; the numbers are those of the fields.

        With a frame axis in the input all of them have one in front.

        - energy models: ``energy`` (1,), ``atom_energy`` (natoms, 1), ``force`` (natoms, 3), ``virial`` (9,),
          ``atom_virial`` (natoms, 9), ``hessian`` (3 natoms, 3 natoms) eV/angstrom^2.
        - spin models: the same but for the Hessian, and ``force_mag`` (natoms, 3), ``mask_mag`` (natoms, 1).
        - dipole: ``global_dipole`` (3,), ``dipole`` (natoms, 3); minus the derivatives of the global dipole,
          ``force`` (natoms, 3, 3) with axes atom, component, direction, ``virial`` (3, 9), ``atom_virial``
          (natoms, 3, 9).
        - polar: ``global_polar`` (3, 3), ``polar`` (natoms, 3, 3).
        - dos: ``dos`` (n,), ``atom_dos`` (natoms, n).
        - property: its name (n,) and ``atom_`` with its name (natoms, n).
        - population: ``population`` (natoms, 2).
        - of every kind, where the result is not on a GPU: ``mask`` (natoms,) int32, 1 for atoms that count and 0 for
          virtual ones and those of an excluded type.

        What is for the whole structure is the sum of the atoms, but for intensive properties their mean. Numbers have
        the unit of the labels that the model was trained on.
        """
        found = {}
        for name, (own, there, here) in _FIELDS.items():
            value: Any = getattr(self, own)
            if value is not None:
                rows = value if hasattr(value, "reshape") else np.asarray(value)
                found[name] = rows.reshape((*rows.shape[: rows.ndim - len(here)], *there))
        return {**found, **self.others}

    def frame(self, index: int) -> Result:
        """The result of one frame; of a result with a frame axis."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "others"}
        rows = {name: None if value is None else value[index] for name, value in own.items()}
        if rows["energy"] is not None:
            rows["energy"] = float(rows["energy"])
        return Result(**rows, others={name: value[index] for name, value in self.others.items()})

    def __repr__(self) -> str:
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "others"}
        shown = {name: value for name, value in {**own, **self.others}.items() if value is not None}
        return f"Result({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
