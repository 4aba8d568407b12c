"""The entry to the repformer: per edge the pair channel g2, the vector h2 and the switch (theory 8).

R_e is the environment matrix of the repformer list with the repformer's statistics.

    direct_dist = false:   x_e = R_e[0],       h2_e = R_e[1:4]
    direct_dist = true:    x_e = r_e / rcut,   h2_e = d_e / rcut        (no switch, no statistics, no protection)
    g2_e = phi(x_e Wg + bg)

and the two normalisations of sums over the edges of a centre, with n the number of its repformer edges:

    smooth:      kappa_n = 1/nsel,           kappa_h = nsel^(-1/2) if use_sqrt_nnei else 1/nsel
    non-smooth:  kappa_n = 1/(1e-4 + n),     kappa_h = 1/(1e-4 + sqrt(n)) if use_sqrt_nnei else 1/(1e-4 + n)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .activation import activation
from .common import Array, Config, EdgeList, IntArray, Weights
from .env_mat import env_mat
from .linear import linear

BLOCK = "descriptor.repformers"


@dataclass(frozen=True)
class RepformerEdges:
    """What every layer sees of the geometry."""

    edges: EdgeList
    sw: Array  # (ne)       the switch
    w: Array  # (ne)        the weight in sums: sw if smooth, else 1
    kappa_n: Array  # (n)   normalisation of the convolution
    kappa_h: Array  # (n)   normalisation of the symmetrisation
    pad: IntArray  # (n)    padded slots of the repformer list


def g2_embed(edges: EdgeList, types: IntArray, config: Config, weights: Weights) -> tuple[Array, Array, RepformerEdges]:
    """``g2`` (ne, g2_dim), ``h2`` (ne, 3) and the constants of all layers; ``edges`` is the repformer list."""
    option = config["repformer"]
    rows, sw = env_mat(
        edges.d,
        edges.r,
        types[edges.i],
        weights[f"{BLOCK}.mean"],
        weights[f"{BLOCK}.stddev"],
        option["rcut_smth"],
        option["rcut"],
        config["env_protection"],
    )
    if option["direct_dist"]:
        x, h2 = edges.r / option["rcut"], edges.d / option["rcut"]
    else:
        x, h2 = rows[:, 0], rows[:, 1:]
    g2 = activation(option["activation_function"])(linear(x[:, None], weights, f"{BLOCK}.g2_embd"))

    nsel, sqrt_nnei = float(option["nsel"]), option["use_sqrt_nnei"]
    n = edges.count.astype(np.float64)
    if config["smooth"]:
        kappa_n = np.full(len(n), 1.0 / nsel)
        kappa_h = np.full(len(n), nsel**-0.5 if sqrt_nnei else 1.0 / nsel)
        w = sw
    else:
        kappa_n = 1.0 / (1e-4 + n)
        kappa_h = 1.0 / (1e-4 + np.sqrt(n)) if sqrt_nnei else kappa_n
        w = np.ones_like(sw)
    return g2, h2, RepformerEdges(edges, sw, w, kappa_n, kappa_h, option["nsel"] - edges.count)
