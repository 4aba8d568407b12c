"""A network: neighbour lists -> descriptor -> values of atoms (theory 7, 8.12, 9).

    g   = [ D_i, Q_i ]                                  (Q only with use_three_body)
    y_i = g Ws                                          (identity where the two widths are equal)
    y_i = y_i + T[t_i] Wt                               (add_tebd_to_repinit_out)
    g1_i = phi(y_i), then the repformer layers
    desc_i = [ g1_i, T[t_i] ]                           (T only with concat_output_tebd)
    values of atoms: head.py

The model itself, or a child of a combination. Virtual atoms (type < 0) count as type 0 here and have no edges.
"""

from __future__ import annotations

import numpy as np

from .activation import activation
from .common import Array, Config, IntArray, Weights
from .g2_embed import g2_embed
from .head import head
from .linear import linear
from .neighbors import Edges, block_list
from .repformer_layer import repformer_layer
from .repinit import repinit
from .symmetrization import contract
from .three_body import three_body
from .type_embedding import type_embedding


class Network:
    """A descriptor and a fitting net on it; config with the pair_exclude_types of the whole model."""

    def __init__(self, config: Config, weights: Weights) -> None:
        self.config = config
        self.weights = weights
        self.tebd = type_embedding(config, weights)
        repinit = config["descriptor"]["repinit"]
        #: cutoff (angstrom) and slots of the longest list
        self.reach: tuple[float, int] = (repinit["rcut"], repinit["nsel"])

    @property
    def descriptor_dim(self) -> int:
        """Length of the descriptor of an atom."""
        option = self.config["descriptor"]
        tebd = option["repinit"]["tebd_dim"] if option["concat_output_tebd"] else 0
        return int(option["repformer"]["g1_dim"] + tebd)

    def descriptor(self, edges: Edges, types: IntArray, d: Array | None = None) -> tuple[Array, Array]:
        """Descriptors (n, descriptor_dim) and rotation matrices (n, g2_dim, 3); types (n) >= 0.

        Other edge vectors ``d`` (ne, 3) keep the lists.
        """
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

    def values(
        self, edges: Edges, types: IntArray, active: Array, fparam: Array | None, aparam: Array | None, d: Array
    ) -> Array:
        """(n, ...) values of atoms for edge vectors d (ne, 3) at fixed lists; complex where d is complex."""
        descriptor, rotation = self.descriptor(edges, types, d)
        return head(descriptor, rotation, types, active, fparam, aparam, self.config, self.weights)
