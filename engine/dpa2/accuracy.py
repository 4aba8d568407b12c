"""How far a model is from the labels of a data set: mean absolute and root mean square errors.

The figures and their words are those of ``dp --pt test`` of deepmd-kit 3.2.0, so that scripts that read them go on
working. What is compared with what for each kind of model is in :mod:`dpa2.comparisons`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .comparisons import Comparison, EnergyComparison

if TYPE_CHECKING:
    from .data import Frame
    from .results import Result


@dataclass
class ErrorSums:
    """Sums from which errors follow, so that those of parts add up to those of the whole."""

    absolute: float = 0.0
    squared: float = 0.0
    weight: float = 0.0

    def add(self, difference: ArrayLike, weight: ArrayLike | None = None) -> None:
        """Take in an array of differences, perhaps with a weight for each."""
        values = np.asarray(difference, dtype=np.float64)
        weights = np.ones_like(values) if weight is None else np.asarray(weight, dtype=np.float64)
        self.absolute += float(np.sum(np.abs(values) * weights))
        self.squared += float(np.sum(values * values * weights))
        self.weight += float(np.sum(weights))

    def merge(self, other: ErrorSums) -> None:
        """Take in the sums of another part."""
        self.absolute += other.absolute
        self.squared += other.squared
        self.weight += other.weight

    @property
    def mae(self) -> float:
        """Mean absolute error; 0 if nothing has a weight."""
        return self.absolute / self.weight if self.weight > 0 else 0.0

    @property
    def rmse(self) -> float:
        """Root mean square error; 0 if nothing has a weight."""
        return float(np.sqrt(self.squared / self.weight)) if self.weight > 0 else 0.0


class Accuracy:
    """The errors over the frames that were added; a quantity that no frame has a label for is absent.

    Args:
        comparison: of :func:`dpa2.comparisons.comparison_of`; by default that of energy models.

    Attributes:
        frames: how many frames were added. labelled: how many of them had a label.
        errors: :class:`ErrorSums` by quantity. Energy models: ``energy``, ``energy_per_atom``, ``force``,
            ``force_weighted``, ``virial``, ``virial_per_atom``, ``stress``, ``atom_energy``; eV and angstrom. Dipoles
            and polarizabilities: ``rmse``, and divided by the number of atoms of the selected types ``rmse_n``, or by
            its root ``rmse_sqrtn``. Densities of states and properties: ``whole``, ``per_atom``, ``atomic``.
    """

    def __init__(self, comparison: Comparison | None = None) -> None:
        self.comparison = comparison or EnergyComparison()
        self.frames = self.labelled = 0
        self.errors: dict[str, ErrorSums] = {}

    def _sums(self, quantity: str) -> ErrorSums:
        return self.errors.setdefault(quantity, ErrorSums())

    def add(self, frame: Frame, result: Result, atomic: bool = False) -> None:
        """Compare a frame with what a model makes of it.

        Args:
            frame: with labels. result: of the same frame, without a frame axis.
            atomic: compare the values of atoms as well; of dipoles and polarizabilities these alone.

        Raises:
            InputError: ``atomic`` without labels of atoms; a label of the wrong size.
        """
        self.frames += 1
        differences = self.comparison.differences(frame, result, atomic)
        self.labelled += differences is not None
        for quantity, values, weights in differences or ():
            self._sums(quantity).add(values, weights)

    def merge(self, other: Accuracy) -> None:
        """Take in the errors of another system, but for those that are left to each system."""
        self.frames += other.frames
        self.labelled += other.labelled
        for quantity, sums in other.errors.items():
            if quantity not in self.comparison.of_systems:
                self._sums(quantity).merge(sums)

    def lines(self) -> list[str]:
        """What ``dp test`` prints for these errors; nothing if no frame had a label."""
        found = []
        for words, quantity, error, unit in self.comparison.lines:
            if quantity in self.errors:
                value = getattr(self.errors[quantity], error)
                found.append(f"{words:<{self.comparison.width}}: {value:e} {unit}".rstrip())
        if self.labelled and self.comparison.footer is not None:
            found.append(self.comparison.footer)
        return found
