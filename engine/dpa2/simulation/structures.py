"""Frames as atoms of ASE with a model as their calculator, and what is written of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian, dict2constraint

from ..ase import DPA2Calculator
from ..data import Frame
from ..data.elements import is_element
from ..data.labels import spins_of
from ..errors import InputError
from ..inputs import Float
from ..model import Model
from ..streams import Parameters
from ..units import EV_PER_ANGSTROM3_IN_GPA

MOMENTA = "momenta"


def check_potential(model: Model) -> None:
    """Raises InputError if a model has no energy."""
    if model.kind not in ("energy", "spin"):
        raise InputError(f"a model with an energy is needed, and this one is of kind {model.kind!r}")


def atoms_of(frame: Frame, model: Model, parameters: Parameters) -> Atoms:
    """The atoms of a frame, with its constraints, parameters, spins and momenta, and the model as their calculator.

    Raises:
        InputError: virtual atoms, types that are no elements, no spins for a spin model.
    """
    types = frame.types_in(model.type_map)
    if (types < 0).any():
        raise InputError(f"{frame.where}: atom {int(np.argmax(types < 0))} is a virtual one, which has no mass")
    names = [model.type_map[index] for index in types.tolist()]
    for atom, name in enumerate(names):
        if not is_element(name):
            raise InputError(f"{frame.where}: atom {atom} is {name!r}, which is no element and has no mass")
    if not names:
        raise InputError(f"{frame.where}: there are no atoms")
    atoms = Atoms(names, positions=frame.coords, cell=frame.box, pbc=frame.pbc)
    atoms.set_constraint([dict2constraint(constraint) for constraint in frame.constraints])
    keywords = parameters.keywords(frame)
    for name in ("fparam", "aparam"):
        if keywords[name] is not None:
            atoms.info[name] = np.asarray(keywords[name], dtype=np.float64)
    if model.kind == "spin":
        atoms.set_initial_magnetic_moments(spins_of(frame))
    momenta = frame.labels.get(MOMENTA)
    if momenta is not None and np.shape(momenta) == (len(atoms), 3):
        atoms.set_momenta(np.asarray(momenta), apply_constraint=False)
    atoms.calc = DPA2Calculator(model)
    return atoms


def is_periodic(atoms: Atoms) -> bool:
    """Whether all directions are periodic, with a volume."""
    return bool(atoms.pbc.all()) and abs(float(np.linalg.det(atoms.cell.array))) > 0.0


def pressure_of(atoms: Atoms) -> float | None:
    """That of the virial, without the kinetic part, GPa; None where there is no volume."""
    if not is_periodic(atoms):
        return None
    stress = atoms.get_stress(apply_constraint=False)
    return -float(stress[:3].sum()) / 3.0 * EV_PER_ANGSTROM3_IN_GPA


def largest_force(forces: Float) -> float:
    """The length of the largest force."""
    return float(np.linalg.norm(forces, axis=1).max(initial=0.0))


def remaining_force(atoms: Atoms) -> float:
    """The largest force on what may move, eV/angstrom."""
    return largest_force(atoms.get_forces())


def snapshot(atoms: Atoms) -> Atoms:
    """A copy as the atoms are now, with the results that their calculator has."""
    copy = atoms.copy()
    known = ("energy", "free_energy", "forces", "stress", "magmoms")
    results = {name: value for name, value in atoms.calc.results.items() if name in known}
    copy.calc = SinglePointCalculator(copy, **results)
    return copy


def columns_of(atoms: Atoms) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns and the entries of a frame of extended XYZ of a snapshot, besides positions and cell."""
    results = atoms.calc.results
    arrays: dict[str, Any] = {"forces": results["forces"]}
    info: dict[str, Any] = {"energy": float(results["energy"])}
    if is_periodic(atoms):
        xx, yy, zz, yz, xz, xy = results["stress"]
        info["stress"] = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if atoms.has(MOMENTA):
        arrays[MOMENTA] = atoms.get_momenta()
    if atoms.has("initial_magmoms"):
        arrays["initial_magmoms"] = atoms.get_initial_magnetic_moments()
    movable = _movable(atoms)
    if movable is not None:
        arrays["move_mask"] = movable
    for name, value in atoms.info.items():
        if name == "aparam" and np.ndim(value) == 2:
            arrays[name] = value
        elif name != "aparam":
            info[name] = value
    return arrays, info


def _movable(atoms: Atoms) -> Any:
    """(natoms,) or (natoms, 3), what ASE's column ``move_mask`` says; None where nothing is fixed."""
    free = np.ones((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            free[constraint.index] = False
        elif isinstance(constraint, FixCartesian):
            free[constraint.index] &= ~np.asarray(constraint.mask, dtype=bool)
    if free.all():
        return None
    return free[:, 0] if (free == free[:, :1]).all() else free


def removed_coordinates(atoms: Atoms) -> int:
    """How many coordinates the constraints take away."""
    return 3 * len(atoms) - int(atoms.get_number_of_degrees_of_freedom())
