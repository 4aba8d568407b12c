"""Structures at a minimum of the energy, by ASE's optimizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ase import Atoms
from ase.optimize import BFGS, FIRE, LBFGS

from ..errors import Error, InputError, WorkFailedError
from ..optional import ase as ase_module
from ..units import EV_PER_ANGSTROM3_IN_GPA
from .structures import is_periodic

OPTIMIZERS = {"fire": FIRE, "bfgs": BFGS, "lbfgs": LBFGS}


@dataclass(frozen=True)
class Relaxation:
    """How to relax.

    Attributes:
        fmax: eV/angstrom, what the largest force must be below; with ``cell`` also ASE's force on the cell, the
            derivative of the energy (of the enthalpy, with a pressure) by the logarithm of the deformation over the
            number of atoms.
        steps: the most steps.
        optimizer: a name of :data:`OPTIMIZERS`.
        cell: whether the cell relaxes, too. pressure: that it does so under, GPa.
    """

    fmax: float = 0.01
    steps: int = 500
    optimizer: str = "bfgs"
    cell: bool = False
    pressure: float = 0.0

    def run(self, atoms: Atoms, on_step: Callable[[int], None] = lambda step: None) -> bool:
        """Relax atoms in place; whether that converged.

        Args:
            atoms: with a calculator.
            on_step: called with 0 at the beginning and after every step.

        Raises:
            InputError: the cell is to relax, and there is none; the atoms cannot be evaluated.
            WorkFailedError: they no longer could after some steps.
        """
        target: Any = atoms
        if self.cell:
            if not is_periodic(atoms):
                raise InputError("a cell relaxes where all three directions are periodic, with a volume")
            filters = ase_module("ase.filters", "to relax a cell")
            target = filters.FrechetCellFilter(atoms, scalar_pressure=self.pressure / EV_PER_ANGSTROM3_IN_GPA)
        step, converged = 0, False
        try:
            with OPTIMIZERS[self.optimizer](target, logfile=None) as optimizer:
                for step, converged in enumerate(optimizer.irun(fmax=self.fmax, steps=self.steps)):  # noqa: B007
                    on_step(step)
        except Error as error:
            if step == 0:
                raise
            raise WorkFailedError(f"the relaxation went wrong after step {step}: {error}") from error
        return bool(converged)
