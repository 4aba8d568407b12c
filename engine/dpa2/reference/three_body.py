"""The three-body block: an embedding of the products of neighbour vectors (theory 6).

Q_i has three_body_neuron[-1] entries.

v_e = R_e[1:4] with the block's own statistics and switch, e in the three-body list, ns = three_body_sel.

    e_jk = v_j . v_k                                               for all ORDERED pairs of edges, j = k included
    concat:  H_jk = net_three([ e_jk, T[t_j], T[t_k] ])
    strip:   H_jk = net_three(e_jk) * (1 + Ht[t_j, t_k] c_jk),  Ht[a, b] = net_three_strip([ T_a, T_b ]),
             c_jk = sw_j sw_k if smooth else 1
    Q_i = (1/ns^2) sum_jk e_jk H_jk

The centre's type enters through the statistics only; type_one_side does not apply. The padded slots are one extra
pseudo-neighbour (theory P7) of multiplicity pad_three(i) with v = R_pad(t_i)[1:4], type t0 (that of ATOM 0) and sw = 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .activation import activation
from .common import Array, Config, EdgeList, IntArray, Weights
from .embedding_net import embedding_net
from .env_mat import env_mat, pad_row
from .tabulate import tabulate

BLOCK = "descriptor.repinit_three_body"


def three_body(
    edges: EdgeList,
    pad: IntArray,
    types: IntArray,
    tebd: Array,
    config: Config,
    weights: Weights,
    grid: dict[str, Any] | None = None,
) -> Array:
    """(n, three_body_neuron[-1]) Q of every atom; arguments as in repinit, for the three-body list."""
    option = config["repinit"]
    strip, smooth = option["tebd_input_mode"] == "strip", config["smooth"]
    nlayers, resnet_dt = len(option["three_body_neuron"]), option["resnet_dt"]
    phi = activation(option["activation_function"])
    mean, stddev = weights[f"{BLOCK}.mean"], weights[f"{BLOCK}.stddev"]
    rcut, rcut_smth = option["three_body_rcut"], option["three_body_rcut_smth"]
    rows, switches = env_mat(edges.d, edges.r, types[edges.i], mean, stddev, rcut_smth, rcut, config["env_protection"])
    vectors_pad = pad_row(mean, stddev)[:, 1:]
    ntypes, dim = tebd.shape
    # (ntypes, ntypes, 2 tebd_dim): [ T_a, T_b ]
    pairs = np.concatenate(
        [np.broadcast_to(tebd[:, None], (ntypes, ntypes, dim)), np.broadcast_to(tebd, (ntypes, ntypes, dim))], axis=-1
    )
    if strip:
        table = embedding_net(pairs, weights, f"{BLOCK}.filter_layers_strip.networks.0", nlayers, phi, resnet_dt)

    out = np.zeros((len(types), option["three_body_neuron"][-1]), dtype=rows.dtype)
    for i in range(len(types)):
        own = edges.of(i)
        v = np.concatenate([rows[own, 1:], vectors_pad[types[i]][None]])
        sw = np.append(switches[own], 0.0)
        multiplicity = np.append(np.ones(len(sw) - 1), float(pad[i]))
        t = np.append(types[edges.j[own]], types[0])
        tj, tk = t[:, None], t[None, :]
        e = v @ v.T
        if strip:
            gate = sw[:, None] * sw[None, :] if smooth else np.ones_like(e)
            if grid is not None:
                h = tabulate(e, 0, grid, weights[f"{BLOCK}.table"])
            else:
                h = embedding_net(e[..., None], weights, f"{BLOCK}.filter_layers.networks.0", nlayers, phi, resnet_dt)
            h = h * (1.0 + table[tj, tk] * gate[..., None])
        elif grid is not None:
            h = tabulate(e, tj * ntypes + tk, grid, weights[f"{BLOCK}.table"])
        else:
            inputs = np.concatenate([e[..., None], pairs[tj, tk]], axis=-1)
            h = embedding_net(inputs, weights, f"{BLOCK}.filter_layers.networks.0", nlayers, phi, resnet_dt)
        weight = multiplicity[:, None] * multiplicity[None, :] * e
        out[i] = np.tensordot(weight, h, axes=([0, 1], [0, 1]))
    q: Array = out / option["three_body_sel"] ** 2
    return q
