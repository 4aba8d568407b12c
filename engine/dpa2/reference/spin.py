"""Spin models: an energy network that sees spins as virtual atoms (theory 9.9).

    x_v = x_i + s[t_i] S_i,   t_v = ntypes + t_i        one virtual atom v per atom i; s is 0 for types without spins
    E(x, S) = sum_i E_i of the network on atoms and virtual atoms; virtual atoms have no energies
    F_i = G_i + G_v,   F_mag_i = s[t_i] G_v             G: minus the gradient of E with respect to all positions
    W = W(network) - sum_i G_v (s[t_i] S_i)^T           at fixed spins: a strain moves virtual atoms with their atoms

Rows of the network are those of an atom and of its virtual one in turn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import InputError
from dpa2.remarks import Remarks

from .common import Array
from .evaluate import Pbc, ReferenceModel
from .neighbors import check_atoms


class SpinReference:
    """A spin model from its canonical configuration and weights; the interface is that of ReferenceModel."""

    precision = "float64"

    def __init__(self, config: dict[str, Any], weights: dict[str, NDArray[Any]]) -> None:
        self.config = config
        self.ntypes = len(config["type_map"])
        self.scale = np.where(np.isin(np.arange(self.ntypes), config["use_spin"]), config["virtual_scale"], 0.0)
        virtual = range(self.ntypes, 2 * self.ntypes)
        unseen = [t for t in virtual if t - self.ntypes not in config["use_spin"]]
        network = {
            **config["models"][0],
            "pair_exclude_types": config["pair_exclude_types"]
            + [[p, t] for p in unseen for t in range(2 * self.ntypes)],
            "atom_exclude_types": config["atom_exclude_types"] + list(virtual),
            "first_virtual": self.ntypes,
        }
        own = {name.removeprefix("models.0."): array for name, array in weights.items()}
        self.network = ReferenceModel(network, own)

    def expand(
        self, coords: Array, types: Array, aparam: Array | None, spins: Array | None
    ) -> tuple[Array, Array, Array | None, Array]:
        """Coordinates, types and atomic parameters of all rows; (n, 3) from atoms to their virtual ones, angstrom."""
        coords, types = np.asarray(coords, dtype=np.float64), np.asarray(types)
        check_atoms(coords, types, self.ntypes)
        if spins is None or np.shape(spins) != coords.shape or not np.isfinite(spins).all():
            raise InputError(f"the model needs finite spins, {coords.shape} numbers")
        shift = np.where(types < 0, 0.0, self.scale[types])[:, None] * spins
        rows = np.stack([coords, coords + shift], axis=1).reshape(-1, 3)
        own = np.stack([types, np.where(types < 0, -1, types + self.ntypes)], axis=1).reshape(-1)
        if aparam is not None:
            aparam = np.stack([aparam, np.zeros_like(aparam)], axis=1).reshape(len(own), -1)
        return rows, own, aparam, shift

    def evaluate(
        self,
        coords: Array,
        types: Array,
        box: Array | None = None,
        pbc: Pbc = (False, False, False),
        fparam: Array | None = None,
        aparam: Array | None = None,
        atomic: int = 0,
        threads: int = 1,
        forces: bool = True,
        spins: Array | None = None,
    ) -> dict[str, Any]:
        """As ReferenceModel.evaluate, and ``force_mag`` (n, 3); spins (n, 3)."""
        rows, own, aparam, shift = self.expand(coords, types, aparam, spins)
        out = self.network.evaluate(rows, own, box, pbc, fparam, aparam, atomic, threads, forces)
        out["remarks"] = of_atoms(out["remarks"])
        out["atom_energy"] = out["atom_energy"][::2]
        if forces:
            of_virtual = out["force"][1::2]
            out["force"] = out["force"][::2] + of_virtual
            out["force_mag"] = np.where(own[::2] < 0, 0.0, self.scale[own[::2]])[:, None] * of_virtual
            moved = np.einsum("nk,nl->nkl", of_virtual, shift).reshape(-1, 9)
            out["virial"] = out["virial"] - moved.sum(axis=0)
            if atomic:
                out["atom_virial"] = out["atom_virial"][::2] + out["atom_virial"][1::2] - moved
        return out

    def descriptor(
        self,
        coords: Array,
        types: Array,
        box: Array | None = None,
        pbc: Pbc = (False, False, False),
        rot_mat: bool = False,
        threads: int = 1,
        spins: Array | None = None,
    ) -> tuple[Array, Array | None, Remarks]:
        """Those of the atoms."""
        rows, own, _, _ = self.expand(coords, types, None, spins)
        out, rotation, remarks = self.network.descriptor(rows, own, box, pbc, rot_mat)
        return out[::2], None if rotation is None else rotation[::2], of_atoms(remarks)


def of_atoms(remarks: Remarks) -> Remarks:
    """What is said about rows, about atoms."""
    overflow = [(block, row // 2, count, sel) for block, row, count, sel in remarks.overflow]
    closest = remarks.closest
    return Remarks(overflow, None if closest is None else (closest[0] // 2, closest[1] // 2, closest[2]))
