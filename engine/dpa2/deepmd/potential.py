"""Energies, forces and virials with deepmd-kit's names."""

from __future__ import annotations

from typing import Any, ClassVar

from numpy.typing import ArrayLike

from .arguments import Array, warn_of_ignored
from .backend import Backend
from .evaluator import DeepEval

__all__ = ["DeepPot"]


class DeepPot(DeepEval):
    """A DPA-2 potential, a spin model or a combination of potentials, as deepmd-kit's class of this name."""

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

        A spin model takes ``spin`` as well: nframes x natoms x 3 numbers in any shape, in the unit of its training.

        Returns:
            energy (nframes, 1) eV, force (nframes, natoms, 3) eV/angstrom, virial (nframes, 9) eV; with ``atomic``
            also atomic energy (nframes, natoms, 1) eV and atomic virial (nframes, natoms, 9) eV, the latter as
            deepmd-kit defines it; of a spin model then magnetic force (nframes, natoms, 3), minus the derivative by the
            spins, eV per their unit, and (nframes, natoms, 1) bool, which atoms have one; with :attr:`has_hessian` in
            the end the Hessian (nframes, 3 natoms, 3 natoms) eV/angstrom^2. All numbers are float64.

        Raises:
            InputError: sizes that do not fit, spins that are missing; and see :meth:`dpa2.Model.evaluate`.
        """
        spin = self._spin(kwargs)
        warn_of_ignored(type(self), kwargs)
        found = self._found(coords, cells, atom_types, atomic, fparam, aparam, mixed_type, spin)
        names = ["energy", "force", "virial", *(["atom_energy", "atom_virial"] if atomic else [])]
        names += [*(["force_mag", "mask_mag"] if self.has_spin else []), *(["hessian"] if self.has_hessian else [])]
        return tuple(found[name] for name in names)

    def _found(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        atomic: bool = False,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        mixed_type: bool = False,
        spin: ArrayLike | None = None,
    ) -> dict[str, Array]:
        """All that :meth:`eval` computes, by dpa2's names."""
        batch = self._batch(coords, cells, atom_types, fparam, aparam, mixed_type, spin)
        return self._outputs(batch, atomic="deepmd" if atomic else False)

    @property
    def deep_eval(self) -> Backend:
        """What deepmd-kit's class keeps below itself: outputs by their names."""
        return Backend(self)


DeepEval._classes["spin"] = DeepPot
