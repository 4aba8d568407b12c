"""Energies over volumes, and the equation of state of Birch and Murnaghan through them, by ASE."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.eos import EquationOfState as AseEquationOfState

from ..errors import InputError, WorkFailedError
from ..inputs import Float
from ..units import EV_PER_ANGSTROM3_IN_GPA
from .relaxation import Relaxation
from .structures import is_periodic, snapshot

#: a residual above this part of the range of the energies is called large
_LARGE = 0.02
_PARAMETERS = 4


@dataclass(frozen=True)
class Fit:
    """What was fitted, and what is doubtful about it.

    Attributes:
        volume: at the minimum, angstrom^3. energy: there, eV.
        bulk_modulus: GPa. derivative: of it by the pressure.
        residual: root mean square, eV.
        curve: the energies of the fit at any volumes, as (n,) and (n,).
        doubts: in words.
    """

    volume: float
    energy: float
    bulk_modulus: float
    derivative: float
    residual: float
    curve: tuple[Float, Float]
    doubts: tuple[str, ...]


def energies_over_volumes(
    atoms: Atoms,
    strain: float,
    points: int,
    relaxation: Relaxation | None = None,
    on_point: Callable[[Atoms, bool], None] = lambda atoms, converged: None,
) -> tuple[Float, Float]:
    """Volumes and energies of a cell that is scaled in all directions alike.

    Args:
        atoms: with a calculator; left as they are.
        strain: the lattice vectors are those of the atoms times 1 - strain to 1 + strain.
        points: how many, evenly spaced in the lattice vectors.
        relaxation: of the atoms in every cell; None: they are scaled with it.
        on_point: called with a snapshot of each, and whether its relaxation has converged.

    Raises:
        InputError: the atoms are not periodic in all directions.
    """
    if not is_periodic(atoms):
        raise InputError(
            "an equation of state needs a cell with a volume that is periodic in all three directions, and this "
            "structure has none"
        )
    volumes, energies = [], []
    for scale in np.linspace(1.0 - strain, 1.0 + strain, points):
        scaled = atoms.copy()
        scaled.calc = atoms.calc
        scaled.set_positions(atoms.positions * scale, apply_constraint=False)
        scaled.set_cell(atoms.cell.array * scale, scale_atoms=False)
        converged = relaxation is None or relaxation.run(scaled)
        energies.append(float(scaled.get_potential_energy()))
        volumes.append(float(scaled.get_volume()))
        on_point(snapshot(scaled), converged)
    return np.array(volumes), np.array(energies)


def fit(volumes: Float, energies: Float) -> Fit:
    """The equation of Birch and Murnaghan, of third order.

    Raises:
        WorkFailedError: it does not fit, or has no minimum within the volumes: the message says what to do.
    """
    scale = float(np.ptp(energies))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            equation = AseEquationOfState(volumes, energies - energies.min(), eos="birchmurnaghan")
            volume, energy, modulus = (float(value) for value in equation.fit(warn=False))
            derivative = float(equation.eos_parameters[2])
            curve = np.linspace(volumes.min(), volumes.max(), 200)
            fitted, smooth = (equation.func(each, *equation.eos_parameters) for each in (volumes, curve))
    except (RuntimeError, ValueError, TypeError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise WorkFailedError(f"no equation of state fits these energies: {error}") from error
    if not np.isfinite([volume, energy, modulus, derivative]).all():
        raise WorkFailedError("no equation of state fits these energies: its parameters are not finite")
    if modulus <= 0.0:
        raise WorkFailedError(
            "the energies have no minimum over the volume: the curve of the fit is bent downwards (a bulk modulus of "
            f"{modulus * EV_PER_ANGSTROM3_IN_GPA:.4g} GPa); relax the structure first (dpa2 relax --cell)"
        )
    if not volumes.min() < volume < volumes.max():
        raise WorkFailedError(
            f"the volumes from {volumes.min():.4g} to {volumes.max():.4g} angstrom^3 do not enclose the minimum, which "
            f"the fit has at {volume:.4g}; relax the cell first (dpa2 relax --cell), or take a larger --strain"
        )
    residual = float(np.sqrt(np.mean((fitted - (energies - energies.min())) ** 2)))
    doubts = []
    if residual > _LARGE * scale:
        doubts.append(
            f"the fit misses the energies by {residual:.3g} eV, {residual / scale:.1%} of their range: the structure "
            "may change with the volume; a smaller --strain may help, or --relax"
        )
    if len(volumes) <= _PARAMETERS:
        doubts.append(f"{len(volumes)} points for {_PARAMETERS} parameters: the fit says nothing of its own error")
    if not 1.0 < derivative < 10.0:
        doubts.append(f"the derivative of the bulk modulus, {derivative:.3g}, is far from the usual 2 to 8")
    base = float(energies.min())
    return Fit(
        volume,
        energy + base,
        modulus * EV_PER_ANGSTROM3_IN_GPA,
        derivative,
        residual,
        (curve, np.asarray(smooth) + base),
        tuple(doubts),
    )
