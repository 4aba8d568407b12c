"""How far several models are from each other, or from labels, in the columns of ``dp model-devi``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .inputs import Float

if TYPE_CHECKING:
    from .data import Frame
    from .results import Result

#: what :meth:`Deviation.row` is of
COLUMNS = ("max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f", "devi_e")


@dataclass(frozen=True)
class Deviation:
    """The deviation of models on a frame: over the models, the standard deviation (or the RMS error to the labels).

    Attributes:
        virial: (9,) of each component of the virial per atom, eV.
        forces: (natoms,) norm over the components of the force, eV/angstrom.
        energy: of the energy per atom, eV.
    """

    virial: Float
    forces: Float
    energy: float

    def row(self) -> list[float]:
        """max_devi_v, min_devi_v, avg_devi_v (root mean square), max_devi_f, min_devi_f, avg_devi_f, devi_e."""
        average = float(np.linalg.norm(self.virial)) / 3.0
        virial = [float(self.virial.max()), float(self.virial.min()), average]
        forces = self.forces if self.forces.size else np.zeros(1)
        return [*virial, float(forces.max()), float(forces.min()), float(forces.mean()), self.energy]


def deviation(
    results: Sequence[Result],
    frame: Frame,
    *,
    real_error: bool = False,
    relative: float | None = None,
    relative_v: float | None = None,
) -> Deviation:
    """Compare what several models make of a frame.

    Args:
        results: one per model, without a frame axis.
        frame: the structure; virtual atoms count as atoms in what is per atom, as in deepmd-kit.
        real_error: the root mean square over the models of the errors to the labels of ``frame``; NaN for a label
            that it lacks.
        relative: divide the deviation of a force by the norm of the models' mean (or the label) plus this, eV/angstrom.
        relative_v: the same for the virial per atom, eV.

    Raises:
        InputError: ``real_error`` without any label.
    """
    natoms = max(1, len(frame))
    energies = np.array([float(result.energy) for result in results]) / natoms
    forces = np.stack([result.forces for result in results])
    virials = np.stack([result.virial.ravel() for result in results]) / natoms
    if real_error:
        if frame.energy is None and frame.forces is None and frame.virial is None:
            raise InputError(f"{frame.where}: there are no labels to compare with: no energy, forces or virial")
        middle_e = np.nan if frame.energy is None else frame.energy / natoms
        middle_f = np.full_like(forces[0], np.nan) if frame.forces is None else frame.forces
        middle_v = np.full(9, np.nan) if frame.virial is None else frame.virial.ravel() / natoms
    else:
        middle_e, middle_f, middle_v = float(energies.mean()), forces.mean(axis=0), virials.mean(axis=0)
    of_forces: Float = np.linalg.norm(np.sqrt(np.mean((forces - middle_f) ** 2, axis=0)), axis=-1)
    of_virial: Float = np.sqrt(np.mean((virials - middle_v) ** 2, axis=0))
    if relative is not None:
        of_forces = of_forces / (np.linalg.norm(middle_f, axis=-1) + relative)
    if relative_v is not None:
        of_virial = of_virial / (float(np.linalg.norm(middle_v)) + relative_v)
    return Deviation(of_virial, of_forces, float(np.sqrt(np.mean((energies - middle_e) ** 2))))


def header(system: str, atomic: bool = False) -> str:
    """The two lines above the rows of a system."""
    return f"# {system}\n{columns_header(atomic)}"


def columns_header(atomic: bool = False) -> str:
    """The line with the names of the columns."""
    names = [*COLUMNS, *(["atm_devi_f(N)"] if atomic else [])]
    return f"# {'step':10s}{''.join(f'{name:19s}' for name in names)}\n"


def line(step: int, found: Deviation, atomic: bool = False) -> str:
    """A row, with the deviation of the force on every atom at its end if ``atomic``."""
    return values_line(step, [*found.row(), *(found.forces.tolist() if atomic else [])])


def values_line(step: int, values: Sequence[float]) -> str:
    """A row of these numbers."""
    return f"{step:12d}{''.join(f'{value:19.6e}' for value in values)}\n"
