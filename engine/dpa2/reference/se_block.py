"""se_e2_a, and dpa1 without attention: the moments of repinit (`repinit`) as a descriptor of its own (theory 16.2).

    R_e   as in env_mat, with the cutoff and the statistics of the block
    G_e = net[t_j](R_e[0])                        se_e2_a with type_one_side
        = net[t_j * ntypes + t_i](R_e[0])         se_e2_a
        = that of repinit                         dpa1
    M_i[m, c] = (1/nsel) { sum_e R_e[m] G_e[c] + sum_a pads(i, a) Rp[m] Gp_a[c] }
    D_i[c * axis + a] = sum_m M_i[m, c] M_i[m, a],   a < axis
    rotation matrix:  M_i[1:4, c], a row per channel c

pads(i, a) are the padded slots of atom i whose neighbour has type a; Rp = R_pad(t_i), Gp_a = G at s = Rp[0] with the
types a and t_i, and sw = 0.
"""

from __future__ import annotations

import numpy as np

from .activation import activation
from .common import Array, Config, EdgeList, IntArray, Weights, segment_sum
from .embedding_net import embedding_net
from .env_mat import env_mat, pad_row
from .repinit import embed


def networks_of_types(s: Array, tj: IntArray, ti: IntArray, ntypes: int, config: Config, weights: Weights) -> Array:
    """(ne, neuron[-1]) G of edges of se_e2_a; arguments as for ``repinit.embed``."""
    phi, nlayers = activation(config["activation_function"]), len(config["neuron"])
    number = tj if config["type_one_side"] else tj * ntypes + ti
    out = np.zeros((len(s), config["neuron"][-1]), dtype=s.dtype)
    for k in np.unique(number):
        name = f"descriptor.repinit.filter_layers.networks.{k}"
        own = number == k
        out[own] = embedding_net(s[own, None], weights, name, nlayers, phi, config["resnet_dt"])
    return out


def se_block(
    edges: EdgeList, pads: IntArray, types: IntArray, tebd: Array | None, config: Config, weights: Weights
) -> tuple[Array, Array]:
    """(n, neuron[-1] * axis_neuron) D and (n, neuron[-1], 3) rotation matrices.

    ``pads`` (n, ntypes), ``types`` (n), ``tebd`` the type embedding of dpa1, ``config`` the descriptor's options,
    ``weights`` those of the block under the names of repinit.
    """
    mean, stddev = weights["descriptor.repinit.mean"], weights["descriptor.repinit.stddev"]
    ntypes = len(mean)

    def embedded(s: Array, sw: Array, tj: IntArray, ti: IntArray) -> Array:
        if tebd is None:
            return networks_of_types(s, tj, ti, ntypes, config, weights)
        phi = activation(config["activation_function"])
        own = {"repinit": config, "smooth": config["smooth_type_embedding"]}
        return embed(s, sw, tj, ti, tebd, own, weights, phi, None)

    ti, tj = types[edges.i], types[edges.j]
    rows, sw = env_mat(
        edges.d, edges.r, ti, mean, stddev, config["rcut_smth"], config["rcut"], config["env_protection"]
    )
    moments = segment_sum(rows[:, :, None] * embedded(rows[:, 0], sw, tj, ti)[:, None, :], edges.start)
    rows_pad, every_type = pad_row(mean, stddev), np.arange(ntypes)
    for a in range(ntypes):
        g_pad = embedded(rows_pad[:, 0], np.zeros(ntypes), np.full(ntypes, a), every_type)
        moments = moments + pads[:, a, None, None] * (rows_pad[:, :, None] * g_pad[:, None, :])[types]
    sel = config["sel"]
    moments = moments / (sel if isinstance(sel, int) else sum(sel))
    gram: Array = np.einsum("nmc,nma->nca", moments, moments[:, :, : config["axis_neuron"]])
    return gram.reshape(len(types), -1), moments[:, 1:].transpose(0, 2, 1)
