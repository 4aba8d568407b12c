"""DPA-2 models in TorchSim: :class:`DPA2Model`. The one module of the package that needs TorchSim to be imported.

>>> from dpa2.torchsim import DPA2Model                         # doctest: +SKIP
>>> torch_sim.integrate(atoms, DPA2Model("model.pth"), integrator=...)  # doctest: +SKIP
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch_sim.models.interface import ModelInterface

from .differentiable import Differentiable, Frames
from .errors import InputError
from .files.econf import SYMBOLS
from .inputs import Pbc
from .model import Model
from .torch import _for_engine, _from_engine, _groups

__all__ = ["DPA2Model"]

_UNKNOWN = -2  # -1 is a virtual atom


class DPA2Model(ModelInterface):  # type: ignore[misc]
    """A DPA-2 potential as a model of TorchSim: energies, forces, stresses of a batch of systems.

    Neighbours are found by dpa2. Systems of one size are evaluated at once.

    Args:
        model: a :class:`dpa2.Model`, the path of a model file, or None for the embedded model of water.
        dtype: of the numbers that go in and out; the model computes in its own precision.
        compute_forces, compute_stress: whether results have "forces" (natoms, 3), eV/angstrom, and "stress"
            (nsystems, 3, 3), eV/angstrom^3, positive under tension and not a number for cells without a volume.

    Raises:
        InputError: the model has no energy; when evaluating, an element that it does not know, and whatever
            :meth:`dpa2.Model.evaluate` refuses.
    """

    def __init__(
        self,
        model: Model | str | os.PathLike[str] | None = None,
        *,
        dtype: torch.dtype = torch.float64,
        compute_forces: bool = True,
        compute_stress: bool = True,
    ) -> None:
        super().__init__()
        self._of = Differentiable(model, ("energy", "atom_energy"))
        on = self._of.model.device
        self._device = torch.device(on if on.startswith("cuda") else "cpu")
        self._dtype = dtype
        self._compute_forces, self._compute_stress = compute_forces, compute_stress
        self._memory_scales_with = "n_atoms_x_density"
        types = [_UNKNOWN] * (len(SYMBOLS) + 1)
        for number, symbol in enumerate(SYMBOLS, 1):
            if symbol in self.model.type_map:
                types[number] = self.model.type_map.index(symbol)
        self._type_of_number = torch.tensor(types, device=self._device)

    @property
    def model(self) -> Model:
        """The model that is evaluated."""
        return self._of.model

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """The results of a ``torch_sim.SimState``, or of a dict with its fields.

        Returns:
            "energy" (nsystems,), "energies" (natoms,), and "forces" and "stress" as asked for when this was made.
        """
        get = state.__getitem__ if isinstance(state, dict) else lambda name: getattr(state, name)
        coords, numbers, systems = get("positions").detach(), get("atomic_numbers"), get("system_idx")
        cell = get("cell").detach().mT  # lattice vectors as rows
        systems = torch.zeros_like(numbers) if systems is None else systems
        types = self._types(numbers)
        groups, count = _groups(systems, len(coords), len(cell))
        derivatives = self._compute_forces or self._compute_stress
        pbc = _periodic(get("pbc"), count)
        energy, energies = coords.new_empty(count), coords.new_empty(len(coords))
        forces, stress = torch.zeros_like(coords), coords.new_empty((count, 3, 3))
        for structures, atoms in groups:
            for flags in sorted({pbc[k] for k in structures.tolist()}):
                mine = torch.tensor([pbc[k] == flags for k in structures.tolist()])
                which, at = structures[mine].to(coords.device), atoms[mine].to(coords.device)
                box = cell[which]
                given = _for_engine(coords[at]), _for_engine_types(types[at]), _for_engine(box) if any(flags) else None
                frames = Frames(*given, flags if any(flags) else None)
                values, found = self._of.values(frames, derivatives)
                energy[which] = _from_engine(values["energy"], coords)
                energies[at] = _from_engine(values["atom_energy"], coords)
                if found is not None:
                    forces[at] = _from_engine(found[0], coords)
                    virial = _from_engine(found[1], coords)
                    volume = torch.linalg.det(box).abs()[:, None, None]
                    symmetric = (virial + virial.mT) / -2.0
                    stress[which] = torch.where(volume > 0, symmetric / volume, torch.nan)
        results = {"energy": energy, "energies": energies}
        if self._compute_forces:
            results["forces"] = forces
        if self._compute_stress:
            results["stress"] = stress
        return {name: rows.to(self._dtype) for name, rows in results.items()}

    def _types(self, numbers: Tensor) -> Tensor:
        known = len(self._type_of_number)
        types = self._type_of_number.to(numbers.device)[numbers.clamp(0, known - 1)]
        unknown = (types == _UNKNOWN) | (numbers < 0) | (numbers >= known)
        if bool(unknown.any()):
            atom = int(torch.nonzero(unknown)[0])
            number = int(numbers[atom])
            symbol = SYMBOLS[number - 1] if 0 < number < known else f"of the atomic number {number}"
            raise InputError(
                f"atom {atom} is {symbol}, which the model does not know; its types are "
                f"{', '.join(self.model.type_map)}"
            )
        return types


def _for_engine_types(types: Tensor) -> Any:
    types = types.to(torch.int32)
    return types.numpy() if types.device.type == "cpu" else types


def _periodic(pbc: Any, count: int) -> list[Pbc]:
    """The periodic directions of every system, of one for all, three, or three for each."""
    flags = torch.as_tensor(pbc, dtype=torch.bool).cpu().expand(count, 3).tolist()
    return [(bool(x), bool(y), bool(z)) for x, y, z in flags]
