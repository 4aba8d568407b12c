"""Densities of states, properties and populations with deepmd-kit's names."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import ArrayLike

from .arguments import Array, warn_of_ignored
from .evaluator import DeepEval

__all__ = ["DeepDOS", "DeepPopulation", "DeepProperty"]


class DeepDOS(DeepEval):
    """A model of the density of states with the methods of deepmd-kit's class of this name."""

    _kind: ClassVar[str] = "dos"

    def eval(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        atomic: bool = False,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        mixed_type: bool = False,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """The density of states.

        Returns:
            (nframes, numb_dos); with ``atomic`` also that of atoms, (nframes, natoms, numb_dos). Both float64.

        Raises:
            InputError: sizes that do not fit, and see :meth:`dpa2.Model.evaluate`.
        """
        warn_of_ignored(type(self), kwargs)
        found = self._outputs(self._batch(coords, cells, atom_types, fparam, aparam, mixed_type))
        return (found["dos"], found["atom_dos"]) if atomic else (found["dos"],)

    @property
    def numb_dos(self) -> int:
        """Numbers in a density of states."""
        return self.get_numb_dos()

    def get_numb_dos(self) -> int:
        """Numbers in a density of states."""
        return self._width("dos")


class DeepProperty(DeepEval):
    """A property model with the methods of deepmd-kit's class of this name."""

    _kind: ClassVar[str] = "property"

    def eval(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        atomic: bool = False,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        mixed_type: bool = False,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """The property: of an extensive one the sum of the atoms, of an intensive one their mean.

        Returns:
            (nframes, task_dim); with ``atomic`` also the values of atoms, (nframes, natoms, task_dim). Both float64, in
            the unit of the labels.

        Raises:
            InputError: sizes that do not fit, and see :meth:`dpa2.Model.evaluate`.
        """
        warn_of_ignored(type(self), kwargs)
        found = self._outputs(self._batch(coords, cells, atom_types, fparam, aparam, mixed_type))
        name = self.get_var_name()
        return (found[name], found[f"atom_{name}"]) if atomic else (found[name],)

    @property
    def task_dim(self) -> int:
        """Numbers in a value of the property."""
        return self.get_task_dim()

    def get_task_dim(self) -> int:
        """Numbers in a value of the property."""
        return self._width(self.get_var_name())

    def get_intensive(self) -> bool:
        """Whether the value of a structure is the mean of its atoms, and not their sum."""
        return bool(self._config["fitting_net"]["intensive"])

    def get_var_name(self) -> str:
        """The name of the property."""
        return str(self._config["fitting_net"]["property_name"])


class DeepPopulation(DeepEval):
    """A model of populations with the methods of deepmd-kit's class of this name."""

    _kind: ClassVar[str] = "population"

    def eval(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        atomic: bool = False,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        mixed_type: bool = False,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """The populations of alpha and beta electrons of every atom, whatever ``atomic`` says.

        Returns:
            One array, in a tuple: (nframes, natoms, 2), float64.

        Raises:
            InputError: sizes that do not fit, and see :meth:`dpa2.Model.evaluate`.
        """
        warn_of_ignored(type(self), kwargs)
        found = self._outputs(self._batch(coords, cells, atom_types, fparam, aparam, mixed_type))
        return (found["population"],)
