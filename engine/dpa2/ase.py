"""DPA-2 models in ASE: :class:`DPA2Calculator`. The one module of the package that needs ASE to be imported.

>>> from dpa2.ase import DPA2Calculator                         # doctest: +SKIP
>>> atoms.calc = DPA2Calculator("model.pth")                    # doctest: +SKIP
>>> atoms.get_potential_energy(), atoms.get_forces()            # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.data import atomic_numbers, chemical_symbols
from ase.outputs import Properties, all_outputs
from numpy.typing import ArrayLike

from .embedded import DEFAULT_SKIN, model_of
from .errors import InputError
from .files.schema import parameters
from .inputs import Float, Int, box_of_atoms
from .model import Model
from .options import OnOverflow, Precision
from .quantities import OF_DESCRIPTOR
from .results import Result

__all__ = ["DPA2Calculator"]

_UNKNOWN = -2  # -1 is a virtual atom
_PER_STRUCTURE = ("fparam", "aparam")
_OF_ENERGIES = ("energy", "free_energy", "forces", "virial", "stress", "energies", "stresses")
_OF_SPINS = ("magnetic_forces", "magmoms", "magmom")
_POTENTIALS = ("energy", "spin")


class DPA2Calculator(Calculator):  # type: ignore[misc]
    """An ASE calculator that evaluates a DPA-2 model.

    Properties, in ASE's units and signs (eV, angstrom; stress is positive under tension, in the order xx, yy, zz, yz,
    xz, xy):

    - ``energy``, ``free_energy``: the same number. ``energies`` (natoms,) sum to it.
    - ``forces`` (natoms, 3).
    - ``stress`` (6,), for cells with a volume only.
    - ``virial`` (3, 3), the strain derivative -dE/dstrain, eV, with any cell; ASE knows no such name, deepmd-kit does.
    - ``stresses`` (natoms, 6) sum to the stress: half of each edge's share goes to either of its atoms. Computed only
      when asked for.

    - ``dipole`` (3,) of the whole structure, with a dipole model as ``dipole``: computed with every energy, so that
      trajectories carry it.

    Spin models have the same properties, at the spins that the atoms have as initial magnetic moments, ``atoms.
    get_initial_magnetic_moments()``: vectors (natoms, 3), or numbers (natoms,), which are spins along z. Further:

    - ``magnetic_forces`` (natoms, 3), minus the derivative of the energy by the spins, eV per their unit.
    - ``magmoms``, ``magmom``: the spins as they were given, zero for elements without, and their sum. A model does not
      change them.

    Models of other kinds have no energy. A dipole model has the property ``dipole``, a polarizability model
    ``polarizability`` (3, 3) and ``atom_polarizability`` (natoms, 3, 3), others the outputs of
    :meth:`dpa2.Model.evaluate` under their names. ASE has functions for dipoles alone, and for the others
    ``calculator.get_property("polarizability", atoms)``. Units are those of the labels; of dipoles ASE expects e *
    angstrom.

    Directions are periodic as ``atoms.pbc`` says. Frame and atomic parameters may also come with the atoms, as
    ``atoms.info["fparam"]`` and ``atoms.info["aparam"]``, which go before those of the calculator.

    Args:
        model: the path of a model file, a :class:`dpa2.Model`, or None for the embedded model of water.
        head, precision, threads, device, on_overflow: as for :func:`dpa2.load`; not with a :class:`dpa2.Model`, which
            has its own. Properties are arrays of the host, wherever they are computed.
        skin: how far neighbour lists reach beyond the cutoff, so that they can be reused while no atom has moved by
            half of it, angstrom; 1 by default. Results are the same with any skin. Not with a :class:`dpa2.Model`.
        fparam: frame parameters, (numb_fparam,).
        aparam: atomic parameters, (natoms, numb_aparam), or (numb_aparam,) for all atoms.
        dipole: of a potential: the path of a dipole model, or a :class:`dpa2.Model`. It is evaluated with the same
            parameters, as far as it takes any, and loaded with the same options.
        type_dict: what the chemical symbols of the atoms are in the model: {symbol: index or name of a type}, -1 for
            virtual atoms. Needed where symbols and the names in ``type_map`` differ; other symbols go by their name.
        neighbor_list: taken and not used, for scripts of deepmd-kit: dpa2 looks for neighbours by itself.
        kwargs: ``atoms``, ``label`` and ``directory``, as every calculator of ASE takes them.

    Raises:
        InputError: wrong arguments; when evaluating, an element that the model does not know (the message names it)
            and whatever :meth:`dpa2.Model.evaluate` refuses.
        ModelFileError: see :func:`dpa2.load`.
    """

    name = "dpa2"
    implemented_properties: list[str] = list(_OF_ENERGIES)  # noqa: RUF012 -- an object may have its own
    default_parameters: ClassVar[dict[str, Any]] = dict.fromkeys(_PER_STRUCTURE)
    discard_results_on_any_change = True
    ignored_changes: set[str] = {"initial_charges", "initial_magmoms"}  # noqa: RUF012 -- an object may have its own

    def __init__(
        self,
        model: str | os.PathLike[str] | Model | None = None,
        *,
        head: str | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
        device: str | None = None,
        on_overflow: OnOverflow | None = None,
        skin: float | None = None,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        dipole: str | os.PathLike[str] | Model | None = None,
        type_dict: Mapping[str, int | str] | None = None,
        neighbor_list: Any = None,
        **kwargs: Any,
    ) -> None:
        options = {
            "head": head,
            "precision": precision,
            "threads": threads,
            "device": device,
            "on_overflow": on_overflow,
            "skin": skin,
        }
        self._model = model_of(model, options, skin=DEFAULT_SKIN)
        self._part = _Part(self._model, _type_table(self._model.type_map, type_dict or {}))
        self._dipole = None if dipole is None else _dipole_part(dipole, self._model, options, type_dict or {})
        self.implemented_properties = [*_properties(self._model), *([] if dipole is None else ["dipole"])]
        if self._model.kind == "spin":
            self.ignored_changes = {"initial_charges"}
        self._evaluated_with: tuple[Any, ...] = (None, None)
        super().__init__(fparam=fparam, aparam=aparam, **kwargs)

    @property
    def model(self) -> Model:
        """The model that is evaluated."""
        return self._model

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Change ``fparam`` or ``aparam`` and forget the results if they differ; returns what changed.

        Raises:
            InputError: another name.
        """
        unknown = sorted(set(kwargs) - set(_PER_STRUCTURE))
        if unknown:
            raise InputError(
                f"{', '.join(unknown)}: a DPA2Calculator has no parameter of this name; fparam and aparam can be set, "
                "for the rest make another calculator"
            )
        changed: dict[str, Any] = super().set(**kwargs)
        return changed

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last evaluation, frame and atomic parameters of the atoms included."""
        changes: list[str] = super().check_state(atoms, tol=tol)
        for name, before, now in zip(_PER_STRUCTURE, self._evaluated_with, self._parameters_of(atoms), strict=True):
            if not _same(before, now):
                changes.append(name)
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate the model; called by ASE.

        Raises:
            PropertyNotImplementedError: a stress was asked for, and the cell has no volume.
            InputError: the atoms cannot be evaluated.
        """
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms
        if atoms is None:
            raise InputError("there are no atoms to evaluate: pass them, or attach the calculator to some first")
        self.results = {}
        fparam, aparam = parameters = self._parameters_of(atoms)
        if self._model.kind not in _POTENTIALS:
            self.results = _named(self._part.evaluate(atoms, *parameters, forces=False), self._model)
            self._evaluated_with = (_copy(fparam), _copy(aparam))
            return
        volume = _volume(atoms)
        with_stresses = "stresses" in properties
        if volume is None and (with_stresses or "stress" in properties):
            raise PropertyNotImplementedError(
                "stress: the cell of these atoms has no volume, and stress is an energy per volume; set atoms.cell to "
                "three independent vectors"
            )
        found = self._part.evaluate(atoms, *parameters, atomic=with_stresses)
        dipole = {}
        if self._dipole is not None:
            dipole = _named(self._dipole.evaluate(atoms, *parameters, forces=False), self._dipole.model)
        self._evaluated_with = (_copy(fparam), _copy(aparam))
        self.results = {
            "energy": found.energy,
            "free_energy": found.energy,
            "forces": found.forces,
            "energies": found.atom_energy,
            "virial": found.virial,
            **dipole,
        }
        if self._model.kind == "spin":
            self.results |= self._part.magnetic(atoms, found)
        if volume is not None:
            self.results["stress"] = _voigt(found.virial) / -volume
            if found.atom_virial is not None:
                self.results["stresses"] = _voigt(found.atom_virial) / -volume

    def export_properties(self) -> Properties:
        """The results that ASE has a name for: ``atoms.get_properties`` takes no others."""
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})

    def get_hessian(self, atoms: Atoms | None = None) -> Float:
        """(3 natoms, 3 natoms) the Hessian of the energy, eV/angstrom^2, exact to rounding: no finite displacements.

        Row and column 3 i + a belong to coordinate a of atom i, as ``ase.vibrations.VibrationsData.from_2d`` takes it.
        Computed anew in every call, in 3 natoms evaluations; see :meth:`dpa2.Model.hessian`. Constraints do not act.

        Raises:
            UnsupportedModelError: no potential, a combination of models, or a compressed model.
            InputError: there are no atoms, or they cannot be evaluated.
        """
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise InputError("there are no atoms to evaluate: pass them, or attach the calculator to some first")
        return self._part.hessian(atoms, *self._parameters_of(atoms))

    def _parameters_of(self, atoms: Atoms) -> tuple[Any, ...]:
        """Frame and atomic parameters: those of the atoms, else those of the calculator."""
        return tuple(atoms.info.get(name, self.parameters[name]) for name in _PER_STRUCTURE)


@dataclass(frozen=True)
class _Part:
    """A model, and what it takes the elements for."""

    model: Model
    type_of_number: Int

    def evaluate(self, atoms: Atoms, fparam: Any, aparam: Any, **options: Any) -> Result:
        if self.model.kind == "spin":
            options["spin"] = spins_of_atoms(atoms)
        return self.model.evaluate(*self._structure(atoms), fparam, aparam, hessian=False, **options)

    def magnetic(self, atoms: Atoms, found: Result) -> dict[str, Any]:
        """The properties that spins add."""
        moments = atoms.get_initial_magnetic_moments()
        has_spin = np.array([*self.model.use_spin, False])[np.maximum(self._types(atoms), -1)]
        moments = np.where(has_spin if moments.ndim == 1 else has_spin[:, None], moments, 0.0)
        return {"magnetic_forces": found.magnetic_forces, "magmoms": moments, "magmom": moments.sum(axis=0)}

    def hessian(self, atoms: Atoms, fparam: Any, aparam: Any) -> Float:
        return self.model.hessian(*self._structure(atoms), fparam, aparam)

    def _structure(self, atoms: Atoms) -> tuple[Float, Int, Float | None, Any]:
        """Coordinates, types, box and periodic directions."""
        return atoms.positions, self._types(atoms), *box_of_atoms(atoms)

    def _types(self, atoms: Atoms) -> Int:
        types: Int = self.type_of_number[atoms.numbers]
        if (types == _UNKNOWN).any():
            atom = int(np.argmax(types == _UNKNOWN))
            symbol = chemical_symbols[atoms.numbers[atom]]
            raise InputError(
                f"atom {atom} is {symbol!r}, which the model does not know; its types are "
                f"{', '.join(self.model.type_map)}. If one of them is meant, say so with type_dict={{{symbol!r}: ...}}"
            )
        return types


class _DipolePart(_Part):
    """A dipole model beside a potential: parameters are those of the potential, as far as it takes any."""

    def evaluate(self, atoms: Atoms, fparam: Any, aparam: Any, **options: Any) -> Result:
        takes = parameters(self.model.config)
        of_frame, of_atoms = takes["numb_fparam"] > 0, takes["numb_aparam"] > 0
        return super().evaluate(atoms, fparam if of_frame else None, aparam if of_atoms else None, **options)


def _dipole_part(
    dipole: str | os.PathLike[str] | Model,
    potential: Model,
    options: dict[str, Any],
    type_dict: Mapping[str, int | str],
) -> _DipolePart:
    if potential.kind not in _POTENTIALS:
        raise InputError(
            f"dipole: a second model goes with a potential, but the first one is of kind {potential.kind!r}"
        )
    own = {} if isinstance(dipole, Model) else {name: value for name, value in options.items() if name != "head"}
    model = model_of(dipole, own, skin=DEFAULT_SKIN)
    if model.kind != "dipole":
        raise InputError(f"dipole must be a dipole model, but this one is of kind {model.kind!r}")
    names: dict[str, int | str] = {}  # the two models may number their types differently
    for symbol, wanted in type_dict.items():
        index = _type_index(wanted, potential.type_map, symbol)
        names[symbol] = index if index < 0 else potential.type_map[index]
    return _DipolePart(model, _type_table(model.type_map, names))


def _properties(model: Model) -> dict[str, str]:
    """What a calculator with this model alone computes: ASE's names, or ours, and the outputs that they are."""
    if model.kind in _POTENTIALS:
        return {name: name for name in (*_OF_ENERGIES, *(_OF_SPINS if model.kind == "spin" else ()))}
    if model.kind == "dipole":  # that of the structure: code for ASE expects no names but ASE's
        return {"dipole": "global_dipole"}
    if model.kind == "polar":
        return {"polarizability": "global_polar", "atom_polarizability": "polar"}
    return {o.name: o.name for o in model.outputs if o.name not in OF_DESCRIPTOR}


def _named(found: Result, model: Model) -> dict[str, Any]:
    """The properties of a model that is no potential."""
    return {name: found.outputs[output] for name, output in _properties(model).items()}


def _type_table(type_map: Sequence[str], type_dict: Mapping[str, int | str]) -> Int:
    """(numbers of elements,) the type of every atomic number, ``_UNKNOWN`` where there is none."""
    table = np.full(len(chemical_symbols), _UNKNOWN, dtype=np.int32)
    for index, name in enumerate(type_map):
        if name in atomic_numbers:
            table[atomic_numbers[name]] = index
    for symbol, wanted in type_dict.items():
        if symbol not in atomic_numbers:
            raise InputError(f"type_dict: {symbol!r} is not a chemical symbol; its keys are the symbols of the atoms")
        table[atomic_numbers[symbol]] = _type_index(wanted, type_map, symbol)
    return table


def _type_index(wanted: Any, type_map: Sequence[str], symbol: str) -> int:
    if isinstance(wanted, str) and wanted in type_map:
        return type_map.index(wanted)
    integer = isinstance(wanted, (int, np.integer)) and not isinstance(wanted, bool)
    if integer and -1 <= wanted < len(type_map):
        return int(wanted)
    known = ", ".join(f"{i} {name}" for i, name in enumerate(type_map))
    raise InputError(f"type_dict: {symbol!r} is to be {wanted!r}, but the types of the model are {known}")


def spins_of_atoms(atoms: Atoms) -> Float:
    """(natoms, 3) the initial magnetic moments; numbers are spins along z."""
    if not atoms.has("initial_magmoms"):
        raise InputError(
            "the model needs spins, and these atoms have none: atoms.set_initial_magnetic_moments(moments), with a "
            "vector for each, or a number for one along z"
        )
    moments: Float = np.asarray(atoms.get_initial_magnetic_moments(), dtype=np.float64)
    return moments if moments.ndim == 2 else moments[:, None] * np.array([0.0, 0.0, 1.0])


def _volume(atoms: Atoms) -> float | None:
    """angstrom^3; None without three independent lattice vectors."""
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    return volume if volume > 0.0 else None


def _voigt(tensor: Float) -> Float:
    """(..., 6) from (..., 3, 3): the symmetric part, in the order xx, yy, zz, yz, xz, xy."""
    symmetric = 0.5 * (tensor + np.swapaxes(tensor, -1, -2))
    voigt: Float = symmetric[..., (0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]
    return voigt


def _copy(value: Any) -> Any:
    """A parameter as it is now: the caller may change an array in place."""
    return None if value is None else np.array(value)


def _same(before: Any, now: Any) -> bool:
    if before is None or now is None:
        return before is now
    return np.array_equal(before, np.asarray(now))
