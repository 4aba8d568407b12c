"""The whole model: neighbour lists -> descriptor -> atomic energies, and their derivatives (theory 7, 8.12, 9).

    g   = [ D_i, Q_i ]                                  (Q only with use_three_body)
    y_i = g Ws                                          (identity where the two widths are equal)
    y_i = y_i + T[t_i] Wt                               (add_tebd_to_repinit_out)
    g1_i = phi(y_i), then the repformer layers
    desc_i = [ g1_i, T[t_i] ]                           (T only with concat_output_tebd)
    E = sum_i e_i

Virtual atoms (type < 0) count as type 0 here, have no edges and the energy 0.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import InputError
from dpa2.remarks import Remarks

from . import derivatives, neighbors
from .activation import activation
from .common import Array, Config, Weights
from .fitting import fitting
from .g2_embed import g2_embed
from .lattice import check_box
from .linear import linear
from .neighbors import Edges, block_list
from .repformer_layer import repformer_layer
from .repinit import repinit
from .symmetrization import contract
from .three_body import three_body
from .type_embedding import type_embedding

Pbc = tuple[bool, bool, bool]


class ReferenceModel:
    """A DPA-2 model from its canonical configuration and weights, evaluated in float64 with NumPy.

    The interface is that of the native model. ``precision`` and ``threads`` are part of it and change nothing here.
    """

    precision = "float64"

    def __init__(self, config: dict[str, Any], weights: dict[str, NDArray[Any]], precision: str = "float64") -> None:
        self.config = config
        self.weights = Weights(weights)
        self.tebd = type_embedding(config, self.weights)

    @property
    def config_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(self.config)

    @property
    def descriptor_dim(self) -> int:
        """Length of the descriptor of an atom."""
        option = self.config["descriptor"]
        tebd = option["repinit"]["tebd_dim"] if option["concat_output_tebd"] else 0
        return int(option["repformer"]["g1_dim"] + tebd)

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
    ) -> dict[str, Any]:
        """Energy (eV), forces (n, 3) eV/angstrom, virial (3, 3) eV, atom_energy (n) of one frame; remarks.

        The derivatives come from complex-step differentiation (see ``derivatives``), exact to rounding, for the price
        of 3 n + 9 energies. ``atomic`` adds ``atom_virial`` (n, 3, 3): 1 that which gives half of every edge to each of
        its atoms, 2 that of deepmd-kit; either costs about 10 n further energies.
        Without ``forces`` there are no forces and no virials, for the price of one.
        """
        frame = Frame(self, coords, types, box, pbc, fparam, aparam)
        atom_energy = frame.atom_energy(frame.edges.d)
        out: dict[str, Any] = {
            "energy": float(atom_energy.sum()),
            "atom_energy": atom_energy,
            "remarks": frame.edges.remarks,
        }
        if not forces:
            return out
        out["forces"], out["virial"] = derivatives.forces_and_virial(frame.atom_energy, frame.edges)
        if atomic == 1:
            out["atom_virial"] = derivatives.edge_atom_virial(frame.atom_energy, frame.edges)
        elif atomic == 2:
            out["atom_virial"] = derivatives.deepmd_atom_virial(frame.atom_energy, frame.edges, frame.wrapped)
        elif atomic != 0:
            raise InputError(f"atomic is {atomic}; wanted is 0 (none), 1 (edge) or 2 (deepmd)")
        return out

    def vjp(
        self,
        coords: Array,
        types: Array,
        box: Array | None,
        pbc: Pbc,
        fparam: Array | None,
        aparam: Array | None,
        atom_energy: Array | None,
        descriptor: Array | None,
        threads: int = 1,
    ) -> tuple[Array, Array, Remarks]:
        """The gradient to coordinates (n, 3) and strain (3, 3) of the sum of atomic energies and descriptors with the
        weights (n) and (n, descriptor_dim), None for zeros; remarks. By complex-step differentiation.
        """
        if atom_energy is None:  # parameters are none of the descriptor's business
            edges, kinds = neighbors.build(coords, types, box, pbc, self.config), np.maximum(types, 0)
        else:
            frame = Frame(self, coords, types, box, pbc, fparam, aparam)
            edges, kinds = frame.edges, frame.types

        def weighted(d: Array) -> Array:
            total = np.zeros(len(kinds), dtype=d.dtype)
            if atom_energy is not None:
                total = total + atom_energy * frame.atom_energy(d)
            if descriptor is not None:
                total = total + (descriptor * self.descriptor_from_edges(edges, kinds, d)[0]).sum(axis=1)
            return total

        forces, virial = derivatives.forces_and_virial(weighted, edges)
        return -forces, -virial, edges.remarks

    def energy(
        self,
        coords: Array,
        types: Array,
        box: Array | None = None,
        pbc: Pbc = (False, False, False),
        fparam: Array | None = None,
        aparam: Array | None = None,
    ) -> Array:
        """(n) atomic energies (eV) alone: one pass, no derivatives."""
        frame = Frame(self, coords, types, box, pbc, fparam, aparam)
        return frame.atom_energy(frame.edges.d)

    def descriptor(
        self,
        coords: Array,
        types: Array,
        box: Array | None = None,
        pbc: Pbc = (False, False, False),
        rot_mat: bool = False,
        threads: int = 1,
    ) -> tuple[Array, Array | None, Remarks]:
        """Descriptors (n, descriptor_dim), rotation matrices (n, g2_dim, 3) if wanted, and remarks."""
        edges = neighbors.build(coords, types, box, pbc, self.config)
        out, rotation = self.descriptor_from_edges(edges, np.maximum(types, 0))
        return out, (rotation if rot_mat else None), edges.remarks

    def descriptor_from_edges(self, edges: Edges, types: Array, d: Array | None = None) -> tuple[Array, Array]:
        """Descriptors and rotation matrices; types (n) >= 0; other edge vectors ``d`` (ne, 3) keep the lists."""
        config, weights, tebd = self.config["descriptor"], self.weights, self.tebd
        option = config["repformer"]
        if len(types) == 0:
            return np.zeros((0, self.descriptor_dim)), np.zeros((0, option["g2_dim"], 3))
        grids = self.config.get("compression") or {}
        y = repinit(
            block_list(edges, "repinit", d), edges.pad_repinit, types, tebd, config, weights, grids.get("repinit")
        )
        if config["repinit"]["use_three_body"]:
            grid = grids.get("three_body")
            q = three_body(block_list(edges, "three_body", d), edges.pad_three, types, tebd, config, weights, grid)
            y = np.concatenate([y, q], axis=1)
        if y.shape[1] != option["g1_dim"]:
            y = linear(y, weights, "descriptor.g1_shape_tranform", bias=False)
        if config["add_tebd_to_repinit_out"]:
            y = y + linear(tebd, weights, "descriptor.tebd_transform", bias=False)[types]
        g1 = activation(option["activation_function"])(y)

        g2, h2, geometry = g2_embed(block_list(edges, "repformer", d), types, config, weights)
        for layer in range(option["nlayers"]):
            name, last = f"descriptor.repformers.layers.{layer}", layer == option["nlayers"] - 1
            g1, g2, h2 = repformer_layer(g1, g2, h2, geometry, config, weights, name, last)
        rotation = contract(g2, h2, geometry).transpose(0, 2, 1)
        if config["concat_output_tebd"]:
            g1 = np.concatenate([g1, tebd[types]], axis=1)
        return g1, rotation


class Frame:
    """One structure with its neighbour lists: atomic energies as a function of the edge displacements alone."""

    def __init__(
        self,
        model: ReferenceModel,
        coords: Array,
        types: Array,
        box: Array | None,
        pbc: Pbc,
        fparam: Array | None,
        aparam: Array | None,
    ) -> None:
        self.model, config = model, model.config
        coords, types = np.asarray(coords, dtype=np.float64), np.asarray(types)
        self.edges = neighbors.build(coords, types, box, pbc, config)
        rows = check_box(box, pbc)
        self.wrapped = coords - np.floor(coords @ np.linalg.inv(rows)) * np.asarray(pbc, dtype=bool) @ rows
        self.types = np.maximum(types, 0)
        self.active = np.where((types < 0) | np.isin(types, config["atom_exclude_types"]), 0.0, 1.0)
        self.fparam, self.aparam = check_parameters(fparam, aparam, len(coords), config["fitting_net"])

    def atom_energy(self, d: Array) -> Array:
        """(n) atomic energies (eV) for edge displacements d (ne, 3), at fixed lists; complex where d is complex."""
        model = self.model
        descriptor, _ = model.descriptor_from_edges(self.edges, self.types, d)
        return fitting(descriptor, self.types, self.active, self.fparam, self.aparam, model.config, model.weights)


def check_parameters(
    fparam: Array | None, aparam: Array | None, natoms: int, option: Config
) -> tuple[Array | None, Array | None]:
    """Frame parameters (numb_fparam) and atomic parameters (natoms, numb_aparam), the model's default filled in."""
    nf, na = option["numb_fparam"], option["numb_aparam"]
    if fparam is None and nf:
        fparam = option["default_fparam"]
        if fparam is None:
            raise InputError(f"the model needs fparam, {nf} numbers per frame")
    if aparam is None and na and not option["use_aparam_as_mask"]:
        raise InputError(f"the model needs aparam, {na} numbers per atom")
    out: list[Array | None] = []
    for name, value, shape in (("fparam", fparam, (nf,)), ("aparam", aparam, (natoms, na))):
        if value is None or shape[-1] == 0:
            if value is not None and np.size(value):
                raise InputError(f"the model takes no {name}")
            out.append(None)
            continue
        array = np.asarray(value, dtype=np.float64)
        if array.shape != shape:
            raise InputError(f"{name} has the shape {array.shape}; wanted is {shape}")
        if not np.isfinite(array).all():
            raise InputError(f"{name} has values that are not finite")
        out.append(array)
    return out[0], out[1]
