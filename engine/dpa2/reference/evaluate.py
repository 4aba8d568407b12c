"""The whole model: what it says of one structure, and the derivatives of that (theory 9).

A model is one network, or a combination of networks and pair tables, its children. Each has its own neighbour lists;
the values of atoms are a function of the vectors of all their edges.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import InputError
from dpa2.remarks import Remarks

from . import derivatives, neighbors, zbl
from .combination import combined
from .common import Array, Config, IntArray, Weights
from .derivatives import Pairs
from .head import DIFFERENTIABLE, names, reduced
from .hybrid import HybridNetwork
from .lattice import check_box
from .neighbors import Edges
from .network import Network
from .pair_table import pair_table

Pbc = tuple[bool, bool, bool]


class Table:
    """A pair table; config with the pair_exclude_types of the whole model."""

    def __init__(self, config: Config, weights: Weights) -> None:
        self.config = config
        self.weights = weights
        self.reach: tuple[float, int] = (config["rcut"], config["sel"])

    def energies(self, edges: Edges, types: IntArray, d: Array) -> Array:
        """(n) energies (eV) of atoms, with the bias that a trained table has as zeros."""
        energy = pair_table(edges.edge_list(d), types, self.config, self.weights["tab_data"])
        out: Array = energy + self.weights["out_bias"][0, types, 0]
        return out


class ReferenceModel:
    """A model from its canonical configuration and weights, evaluated in float64 with NumPy.

    The interface is that of the native model. ``precision`` and ``threads`` are part of it and change nothing here.
    """

    precision = "float64"

    def __init__(self, config: dict[str, Any], weights: dict[str, NDArray[Any]], precision: str = "float64") -> None:
        self.config = config
        self.weights = Weights(weights)
        type_map = config["type_map"]
        self.children: list[Network | Table] = []
        self.type_maps: list[IntArray] = []  # from the types of the model to those of each child
        for k, child in enumerate(config.get("models", [config])):
            own = self.weights.part(f"models.{k}.") if "models" in config else self.weights
            index = np.array([child["type_map"].index(name) for name in type_map])
            excluded = [[int(index[a]), int(index[b])] for a, b in config["pair_exclude_types"]]
            options = {**child, "pair_exclude_types": excluded}
            if "descriptor" not in child:
                self.children.append(Table(options, own))
            else:
                made = HybridNetwork if child["descriptor"]["type"] == "hybrid" else Network
                self.children.append(made(options, own))
            self.type_maps.append(index)
        self.first = next(k for k, child in enumerate(self.children) if isinstance(child, Network))
        self.fitting: Config = self.network.config["fitting_net"]

    @property
    def network(self) -> Network:
        """The model if it is a network, else the first child that is one."""
        child = self.children[self.first]
        assert isinstance(child, Network)
        return child

    @property
    def config_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(self.config)

    @property
    def descriptor_dim(self) -> int:
        """Length of the descriptor of an atom."""
        return self.network.descriptor_dim

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
        """The outputs of one frame under deepmd-kit's names and in its shapes, and ``remarks``.

        Energies (``energy`` (1), ``atom_energy`` (n, 1), eV) and dipoles have ``force`` (n, 3) or (n, 3, 3) and
        ``virial`` (9) or (3, 9): minus the derivatives of the sum. They come from complex-step differentiation (see
        ``derivatives``), exact to rounding, for the price of 3 n + 9 evaluations. ``atomic`` adds ``atom_virial``
        (n, 9) or (n, 3, 9): 1 that which gives half of every edge to each of its atoms, 2 that of deepmd-kit; either
        costs about 10 n further ones. Without ``forces`` there are no derivatives, for the price of one.
        """
        if atomic not in (0, 1, 2):
            raise InputError(f"atomic is {atomic}; wanted is 0 (none), 1 (edge) or 2 (deepmd)")
        frame = Frame(self, coords, types, box, pbc, fparam, aparam)
        pairs = frame.pairs
        values = frame.values(pairs.d)
        per_atom, whole = names(self.fitting)
        out: dict[str, Any] = {per_atom: values, "remarks": frame.remarks}
        if whole is not None:
            out[whole] = reduced(values, frame.active, self.fitting)
        if not forces or self.fitting["type"] not in DIFFERENTIABLE:
            return out

        def components(array: Array) -> Array:
            """Without the axis of the one component that an energy has; tensors as rows."""
            lead = array.shape[: array.ndim - 3]
            return array.reshape(*(lead + array.shape[-3:-2] if self.fitting["type"] == "dipole" else lead), 9)

        force, virial = derivatives.forces_and_virial(frame.values, pairs, values.shape[1:])
        out["force"], out["virial"] = force[:, 0] if self.fitting["type"] == "ener" else force, components(virial)
        if atomic == 1:
            out["atom_virial"] = components(derivatives.edge_atom_virial(frame.values, pairs, values.shape[1:]))
        elif atomic == 2:
            found = derivatives.deepmd_atom_virial(frame.values, pairs, frame.wrapped, values.shape[1:])
            out["atom_virial"] = components(found)
        return out

    def vjp(
        self,
        coords: Array,
        types: Array,
        box: Array | None,
        pbc: Pbc,
        fparam: Array | None,
        aparam: Array | None,
        weights: dict[str, Array],
        threads: int = 1,
    ) -> tuple[Array, Array, Remarks]:
        """The gradient to coordinates (n, 3) and strain (3, 3) of a weighted sum of values of atoms; remarks.

        ``weights`` has arrays by the names of outputs in their shapes, "descriptor" (n, descriptor_dim) and "rot_mat"
        (n, g2_dim, 3) among them.
        By complex-step differentiation.
        """
        per_atom, _ = names(self.fitting)
        frame = Frame(self, coords, types, box, pbc, fparam, aparam, with_parameters=per_atom in weights)
        natoms = len(frame.active)
        of_descriptor = "descriptor" in weights or "rot_mat" in weights

        def weighted(d: Array) -> Array:
            total = np.zeros(natoms, dtype=d.dtype)
            if per_atom in weights:
                total = total + (weights[per_atom] * frame.values(d)).reshape(natoms, -1).sum(axis=1)
            for name, rows in zip(
                ("descriptor", "rot_mat"), frame.descriptor(d) if of_descriptor else (), strict=False
            ):
                if name in weights:
                    total = total + (weights[name] * rows).reshape(natoms, -1).sum(axis=1)
            return total

        forces, virial = derivatives.forces_and_virial(weighted, frame.pairs)
        return -forces, -virial, frame.remarks

    def values(
        self,
        coords: Array,
        types: Array,
        box: Array | None = None,
        pbc: Pbc = (False, False, False),
        fparam: Array | None = None,
        aparam: Array | None = None,
    ) -> Array:
        """(n, ...) the values of atoms alone: one pass, no derivatives."""
        frame = Frame(self, coords, types, box, pbc, fparam, aparam)
        return frame.values(frame.pairs.d)

    def energy(self, *structure: Any, **parameters: Any) -> Array:
        """(n) atomic energies (eV) of an energy model; arguments as for ``values``."""
        return self.values(*structure, **parameters)[:, 0]

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
        frame = Frame(self, coords, types, box, pbc, None, None, with_parameters=False)
        out, rotation = frame.descriptor(frame.pairs.d)
        return out, (rotation if rot_mat else None), frame.remarks


class Frame:
    """One structure with its neighbour lists: values of atoms as a function of the edge displacements alone."""

    def __init__(
        self,
        model: ReferenceModel,
        coords: Array,
        types: Array,
        box: Array | None,
        pbc: Pbc,
        fparam: Array | None,
        aparam: Array | None,
        with_parameters: bool = True,
    ) -> None:
        self.model, config = model, model.config
        coords, types = np.asarray(coords, dtype=np.float64), np.asarray(types)
        neighbors.check_atoms(coords, types, len(config["type_map"]))
        reaches = [child.reach for child in model.children]
        self.lists: list[Any] = []
        self.types = []
        for child, index in zip(model.children, model.type_maps, strict=True):
            own = np.where(types < 0, -1, index[types]) if len(index) else types
            if isinstance(child, HybridNetwork):
                self.lists.append(child.build(coords, own, box, pbc, reaches))
            else:
                build = neighbors.build if isinstance(child, Network) else neighbors.build_table
                self.lists.append(build(coords, own, box, pbc, child.config, reaches))
            self.types.append(np.maximum(own, 0))
        self.pairs = Pairs.of(len(coords), self.lists)
        self.ends = np.cumsum([len(edges.j) for edges in self.lists])[:-1]
        rows = check_box(box, pbc)
        self.wrapped = coords - np.floor(coords @ np.linalg.inv(rows)) * np.asarray(pbc, dtype=bool) @ rows
        self.kinds = np.maximum(types, 0)
        self.active = np.where((types < 0) | np.isin(types, config["atom_exclude_types"]), 0.0, 1.0)
        self.fparam, self.aparam = (
            check_parameters(fparam, aparam, len(coords), model.fitting) if with_parameters else (None, None)
        )

    @property
    def remarks(self) -> Remarks:
        overflow = [entry for edges in self.lists for entry in edges.remarks.overflow]
        closest = [edges.remarks.closest for edges in self.lists if edges.remarks.closest is not None]
        nearest = min(closest, key=lambda pair: pair[2], default=None)
        if self.model.config.get("type") != "zbl":
            return Remarks(overflow, nearest)
        clamped = np.flatnonzero(zbl.clamped(self.lists[1].edge_list(), self.model.config))
        return Remarks(overflow, nearest, int(clamped[0]) if len(clamped) else -1, len(clamped))

    def descriptor(self, d: Array) -> tuple[Array, Array]:
        """Descriptors and rotation matrices for edge displacements d (ne, 3)."""
        k = self.model.first
        return self.model.network.descriptor(self.lists[k], self.types[k], np.split(d, self.ends)[k])

    def values(self, d: Array) -> Array:
        """(n, ...) values of atoms for edge displacements d (ne, 3), at fixed lists; complex where d is complex."""
        model = self.model
        if "models" not in model.config:
            return model.network.values(self.lists[0], self.types[0], self.active, self.fparam, self.aparam, d)
        energies, edge_lists = [], []
        everybody = np.ones_like(self.active)
        for child, edges, types, own in zip(
            model.children, self.lists, self.types, np.split(d, self.ends), strict=True
        ):
            if isinstance(child, Network):
                energies.append(child.values(edges, types, everybody, self.fparam, self.aparam, own)[:, 0])
            else:
                energies.append(child.energies(edges, types, own))
            if model.config["type"] == "zbl":
                edge_lists.append(edges.edge_list(own))
        energy = combined(energies, edge_lists, model.config) + model.weights["out_bias"][0, self.kinds, 0]
        out: Array = (energy * self.active)[:, None]
        return out


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
