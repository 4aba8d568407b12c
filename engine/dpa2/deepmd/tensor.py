"""Dipoles and polarizabilities with deepmd-kit's names."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from dpa2.errors import UnsupportedModelError
from dpa2.inputs import Float

from .arguments import Array, warn_of_ignored
from .evaluator import DeepEval

__all__ = ["DeepDipole", "DeepGlobalPolar", "DeepPolar", "DeepWFC"]


class _Tensor(DeepEval):
    """What dipoles and polarizabilities have in common."""

    def eval(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        atomic: bool = True,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        mixed_type: bool = False,
        **kwargs: Any,
    ) -> Array:
        """The tensors of the atoms, or their sum.

        Returns:
            One array, float64, in the unit of the labels: (nframes, natoms, d), or with ``atomic=False`` the sums
            (nframes, d); d is 3 for dipoles and 9 for polarizabilities, row by row. Zero for virtual atoms and those
            of excluded types.

        Raises:
            InputError: sizes that do not fit, and see :meth:`dpa2.Model.evaluate`.
        """
        warn_of_ignored(type(self), kwargs)
        batch = self._batch(coords, cells, atom_types, fparam, aparam, mixed_type)
        found = self._outputs(batch, forces=False)
        nframes, natoms = batch.types.shape
        if atomic:
            return self._flat(found[self.output_tensor_name], nframes, natoms)
        return self._flat(found[f"global_{self.output_tensor_name}"], nframes)

    def _flat(self, rows: Float, *lead: int) -> Array:
        return rows.reshape(*lead, self._size)

    @abstractmethod
    def eval_full(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        atomic: bool = False,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        mixed_type: bool = False,
        **kwargs: Any,
    ) -> tuple[Array, ...]: ...

    #: numbers of a tensor
    _size: ClassVar[int]

    @property
    def output_tensor_name(self) -> str:
        """The name of the output of the atoms."""
        return self._kind


class DeepDipole(_Tensor):
    """A dipole model with the methods of deepmd-kit's class of this name."""

    _kind: ClassVar[str] = "dipole"
    _size: ClassVar[int] = 3

    def eval_full(
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
        """The dipole of the structure and its derivatives.

        The numbers are what deepmd-kit documents, and not what its version 3.2.0 returns for ``force`` and the atomic
        virial: there the axes of atoms and components are mixed up, because (nframes, natoms, 3, 3) numbers are taken
        for (nframes, 3, natoms, 3) as they lie in memory.

        Returns:
            dipole (nframes, 3); force (nframes, 3, natoms, 3), minus the derivative of a component of the dipole
            by the position of an atom; virial (nframes, 3, 9), minus its derivative by the strain; with ``atomic``
            also atomic dipoles (nframes, natoms, 3) and atomic virial (nframes, 3, natoms, 9) as deepmd-kit defines
            it. All of them float64, in the unit of the labels, and that by angstrom.

        Raises:
            InputError: sizes that do not fit, and see :meth:`dpa2.Model.evaluate`.
        """
        warn_of_ignored(type(self), kwargs)
        batch = self._batch(coords, cells, atom_types, fparam, aparam, mixed_type)
        found = self._outputs(batch, atomic="deepmd" if atomic else False)
        whole = (found["global_dipole"], _components_first(found["force"]), found["virial"])
        return (*whole, found["dipole"], _components_first(found["atom_virial"])) if atomic else whole


class DeepPolar(_Tensor):
    """A polarizability model with the methods of deepmd-kit's class of this name."""

    _kind: ClassVar[str] = "polar"
    _size: ClassVar[int] = 9

    def eval_full(
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
        """The polarizability of the structure; polarizabilities have no derivatives, as in deepmd-kit.

        Returns:
            polarizability (nframes, 9); NaN (nframes, 1, natoms, 3) and (nframes, 1, 9) in place of derivatives; with
            ``atomic`` also those of atoms (nframes, natoms, 9), and NaN (nframes, 1, natoms, 9). All of them float64.

        Raises:
            InputError: sizes that do not fit, and see :meth:`dpa2.Model.evaluate`.
        """
        warn_of_ignored(type(self), kwargs)
        batch = self._batch(coords, cells, atom_types, fparam, aparam, mixed_type)
        found = self._outputs(batch)
        nframes, natoms = batch.types.shape
        whole = (
            self._flat(found["global_polar"], nframes),
            np.full((nframes, 1, natoms, 3), np.nan),
            np.full((nframes, 1, 9), np.nan),
        )
        if not atomic:
            return whole
        return (*whole, self._flat(found["polar"], nframes, natoms), np.full((nframes, 1, natoms, 9), np.nan))


class _OfTensorFlow:
    """A class of deepmd-kit that no model of its PyTorch backend, and so none of dpa2, is evaluated with."""

    _in_place: ClassVar[str]

    def __init__(self, model_file: Any, *args: Any, **kwargs: Any) -> None:
        raise UnsupportedModelError(
            f"{type(self).__name__} is for files of deepmd-kit's TensorFlow backend: no model of the PyTorch backend "
            f"is one, and dpa2 reads no others. {self._in_place}"
        )


class DeepGlobalPolar(_OfTensorFlow):
    """Says that no PyTorch model is one; the polarizability of a structure is :meth:`DeepPolar.eval` of its atoms' sum.

    Raises:
        UnsupportedModelError: always.
    """

    _in_place: ClassVar[str] = "The polarizability of a whole structure is DeepPolar(...).eval(..., atomic=False)"


class DeepWFC(_OfTensorFlow):
    """Says that no PyTorch model is one.

    Raises:
        UnsupportedModelError: always.
    """

    _in_place: ClassVar[str] = "Wannier centres relative to their atoms are what a dipole model learns: see DeepDipole"


def _components_first(rows: Float) -> Array:
    """(nframes, 3, natoms, k) of (nframes, natoms, 3, k)."""
    return np.ascontiguousarray(np.swapaxes(rows, 1, 2))
