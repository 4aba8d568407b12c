"""Models that depend on spins: the part of :class:`dpa2.Model` that knows which atoms have some."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import UnsupportedModelError
from .inputs import Float, Int

if TYPE_CHECKING:
    from .files import ModelData


class Spins:
    """Spins stand in the energy as virtual atoms, each displaced along the spin of its own (docs/theory.md, 9.9)."""

    _data: ModelData

    @property
    def use_spin(self) -> tuple[bool, ...]:
        """Which types have spins, in the order of :attr:`type_map`; none in a model of another kind than "spin"."""
        magnetic = self._data.config.get("use_spin", ())
        return tuple(k in magnetic for k in range(len(self._data.config["type_map"])))

    @property
    def virtual_scale(self) -> Float:
        """(ntypes,) how far a virtual atom is from its own, angstrom per unit of spin; 0 for types without spins."""
        scale = self._data.config.get("virtual_scale", np.zeros(len(self.use_spin)))
        return np.where(self.use_spin, np.asarray(scale, dtype=np.float64), 0.0)

    def _magnetic(self, types: Int) -> NDArray[np.bool_]:
        """deepmd-kit's mask of the atoms that have magnetic forces: a negative scale counts as none."""
        mask: NDArray[np.bool_] = (types >= 0) & (self.virtual_scale > 0.0)[types]
        return mask

    def _refuse_spins(self, what: str) -> None:
        """Raise :class:`UnsupportedModelError` if this is a spin model."""
        if self._data.config.get("type") == "spin":
            raise UnsupportedModelError(
                f"this is a spin model, whose energies depend on spins as well: it has forces and magnetic forces, "
                f"and no {what}"
            )
