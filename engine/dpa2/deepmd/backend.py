"""What deepmd-kit keeps below :class:`DeepPot` as ``deep_eval``: scripts call its ``eval`` for outputs by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from dpa2.errors import UnsupportedModelError

from .arguments import Array, warn_of_ignored

if TYPE_CHECKING:
    from .potential import DeepPot

#: its own names of what :class:`DeepPot` has under others
_RENAMED = {
    "get_has_efield": "has_efield",
    "get_has_spin": "has_spin",
    "get_has_hessian": "has_hessian",
    "get_use_spin": "use_spin",
}


class Backend:
    """The evaluator below a :class:`DeepPot`: its methods, and :meth:`eval` with outputs by their names.

    Attributes:
        model_path: the file. type_map, rcut: of the model.
    """

    def __init__(self, owner: DeepPot) -> None:
        self._owner = owner
        self.model_path = owner.model_file
        self.type_map = owner.get_type_map()
        self.rcut = owner.get_rcut()

    def __getattr__(self, name: str) -> Any:
        if name in _RENAMED:
            return lambda: getattr(self._owner, _RENAMED[name])
        if name.startswith(("eval_", "get_", "has_")) or name == "close":
            return getattr(self._owner, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def eval(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        atomic: bool = False,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        **kwargs: Any,
    ) -> dict[str, Array]:
        """Energies and their derivatives, for nf frames of N atoms; arguments are those of :meth:`DeepPot.eval`.

        Returns:
            ``energy`` of the atoms (nf, N, 1, 1), ``energy_redu`` of the frames (nf, 1, 1), ``energy_derv_r``, the
            forces (nf, 1, N, 3), ``energy_derv_c_redu``, the virials (nf, 1, 9), ``mask`` (nf, N, 1, 1), which atoms
            count; with ``atomic`` also ``energy_derv_c``, the virials of atoms (nf, 1, N, 9).

        Raises:
            UnsupportedModelError: a spin model. InputError: see :meth:`DeepPot.eval`.
        """
        if self._owner.has_spin:
            raise UnsupportedModelError("outputs of spin models have no such names here: call DeepPot.eval")
        mixed_type = bool(kwargs.pop("mixed_type", False))
        warn_of_ignored(type(self._owner), kwargs)
        found = self._owner._found(coords, cells, atom_types, atomic, fparam, aparam, mixed_type)
        out = {
            "energy": found["atom_energy"][..., None],
            "energy_redu": found["energy"][..., None],
            "energy_derv_r": found["force"][:, None],
            "energy_derv_c_redu": found["virial"][:, None],
            "mask": found["mask"][..., None, None],
        }
        if atomic:
            out["energy_derv_c"] = found["atom_virial"][:, None]
        return out
