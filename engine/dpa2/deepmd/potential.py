"""Energies, forces and virials with deepmd-kit's names."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import ArrayLike

from .arguments import Array, warn_of_ignored
from .evaluator import DeepEval

__all__ = ["DeepPot"]


class DeepPot(DeepEval):
    """A DPA-2 potential, or a combination of potentials, with the methods of deepmd-kit's class of this name."""

    _kind: ClassVar[str] = "energy"

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
        """Energies and their derivatives.

        Returns:
            energy (nframes, 1) eV, force (nframes, natoms, 3) eV/angstrom, virial (nframes, 9) eV; with ``atomic``
            also atomic energy (nframes, natoms, 1) eV and atomic virial (nframes, natoms, 9) eV, the latter as
            deepmd-kit defines it; with :attr:`has_hessian` in the end the Hessian (nframes, 3 natoms, 3 natoms)
            eV/angstrom^2. All of them float64.

        Raises:
            InputError: sizes that do not fit, and see :meth:`dpa2.Model.evaluate`.
        """
        warn_of_ignored(type(self), kwargs)
        batch = self._batch(coords, cells, atom_types, fparam, aparam, mixed_type)
        found = self._outputs(batch, atomic="deepmd" if atomic else False)
        names = ["energy", "force", "virial", *(["atom_energy", "atom_virial"] if atomic else [])]
        return tuple(found[name] for name in [*names, *(["hessian"] if self.has_hessian else [])])
