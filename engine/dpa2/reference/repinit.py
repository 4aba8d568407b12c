"""The first block: a Gram matrix of embedded neighbour moments (theory 5). D_i has neuron[-1] * axis_neuron entries.

Edge e = (i, j) of the repinit list, R_e its row of the environment matrix, s_e = R_e[0], T the type embedding.

    concat:  G_e = net([ s_e, T[t_j], T[t_i] ])          (only [ s_e, T[t_j] ] with type_one_side)
    strip:   G_e = net(s_e) * (1 + Gt[t_j, t_i] * c_e),  c_e = sw_e if smooth else 1,
             Gt[a, b] = net_strip([ T_a, T_b ])          (Gt[a] = net_strip(T_a) with type_one_side)

    M_i[m, c] = (1/nsel) { sum_e R_e[m] G_e[c] + pad_repinit(i) Rp[m] Gp[c] }        m = 0..3
    D_i[c * axis + a] = sum_m M_i[m, c] M_i[m, a],   a < axis                 (channel-major)

nsel is the width of the list, not the number of neighbours. The padded slots enter through Rp = R_pad(t_i), zero unless
the model has mean != 0, and Gp = G at s = Rp[0], neighbour type t0 (the type of ATOM 0), centre type t_i, sw = 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .activation import Activation, activation
from .common import Array, Config, EdgeList, IntArray, Weights, segment_sum
from .embedding_net import embedding_net
from .env_mat import env_mat, pad_row
from .tabulate import tabulate

BLOCK = "descriptor.repinit"


def embed(
    s: Array,
    sw: Array,
    tj: IntArray,
    ti: IntArray,
    tebd: Array,
    config: Config,
    weights: Weights,
    phi: Activation,
    grid: dict[str, Any] | None,
) -> Array:
    """(ne, neuron[-1]) G of edges with radial entry s (ne), switch sw (ne), neighbour types tj and centre types ti.

    With ``grid`` the net is the table of a compressed model.
    """
    option, smooth = config["repinit"], config["smooth"]
    nlayers, one_side, resnet_dt = len(option["neuron"]), option["type_one_side"], option["resnet_dt"]
    if option["tebd_input_mode"] == "concat":
        if grid is not None:
            return tabulate(s, tj if one_side else tj * len(tebd) + ti, grid, weights[f"{BLOCK}.table"])
        parts = [s[:, None], tebd[tj]] if one_side else [s[:, None], tebd[tj], tebd[ti]]
        return embedding_net(
            np.concatenate(parts, axis=1), weights, f"{BLOCK}.filter_layers.networks.0", nlayers, phi, resnet_dt
        )
    if grid is not None:
        radial = tabulate(s, 0, grid, weights[f"{BLOCK}.table"])
    else:
        radial = embedding_net(s[:, None], weights, f"{BLOCK}.filter_layers.networks.0", nlayers, phi, resnet_dt)
    types = tebd[tj] if one_side else np.concatenate([tebd[tj], tebd[ti]], axis=1)
    table = embedding_net(types, weights, f"{BLOCK}.filter_layers_strip.networks.0", nlayers, phi, resnet_dt)
    gate = sw if smooth else np.ones_like(sw)
    out: Array = radial * (1.0 + table * gate[:, None])
    return out


def repinit(
    edges: EdgeList,
    pad: IntArray,
    types: IntArray,
    tebd: Array,
    config: Config,
    weights: Weights,
    grid: dict[str, Any] | None = None,
) -> Array:
    """(n, neuron[-1] * axis_neuron) D of every atom.

    ``edges`` is the repinit list, ``pad`` (n) its padded slots, ``types`` (n) the types, ``tebd`` the embedding table,
    ``config`` the descriptor's options, ``grid`` the grid of the table of a compressed model.
    """
    option = config["repinit"]
    mean, stddev = weights[f"{BLOCK}.mean"], weights[f"{BLOCK}.stddev"]
    phi = activation(option["activation_function"])
    ti, tj = types[edges.i], types[edges.j]
    rows, sw = env_mat(
        edges.d, edges.r, ti, mean, stddev, option["rcut_smth"], option["rcut"], config["env_protection"]
    )
    g = embed(rows[:, 0], sw, tj, ti, tebd, config, weights, phi, grid)
    moments = segment_sum(rows[:, :, None] * g[:, None, :], edges.start)

    # What the padded slots add (theory P6): per centre type a constant outer product.
    rows_pad = pad_row(mean, stddev)
    every_type = np.arange(len(mean))
    first_type = np.full(len(mean), types[0])
    g_pad = embed(rows_pad[:, 0], np.zeros(len(mean)), first_type, every_type, tebd, config, weights, phi, grid)
    moments = moments + pad[:, None, None] * (rows_pad[:, :, None] * g_pad[:, None, :])[types]

    moments = moments / option["nsel"]
    gram: Array = np.einsum("nmc,nma->nca", moments, moments[:, :, : option["axis_neuron"]])
    return gram.reshape(len(types), -1)
