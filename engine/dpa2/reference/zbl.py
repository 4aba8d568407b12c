"""The switch between a network and a pair table near collisions (theory 9.8).

With a_e = exp(-r_e / alpha) for all neighbours e in the list of the table,

    sigma_i = sum_e r_e a_e / max(sum_e a_e, 1e-20)
    v = (sigma - sw_rmin) / (sw_rmax - sw_rmin)
    w = 1 where sigma < sw_rmin,   1 + v^3 (-6 v^2 + 15 v - 10) between,   0 where sigma >= sw_rmax or sigma = 0
    E_i = (1 - w_i) E_i(network) + w_i E_i(table) + out_bias[t_i]

sigma is a soft nearest distance. The bound 1e-20 acts where even the nearest neighbour is beyond about 46 alpha: sigma
goes to 0 there, and w to 1. An atom without neighbours has sigma = 0 and w = 0.
"""

from __future__ import annotations

import numpy as np

from .common import Array, Config, EdgeList, segment_sum
from .env_mat import switch

LEAST_SUM = 1e-20


def soft_distance(edges: EdgeList, alpha: float) -> tuple[Array, Array]:
    """(n) sigma, angstrom, and (n) whether the bound on the sum acts."""
    a = np.exp(-edges.r / alpha)
    total = segment_sum(a, edges.start)
    bounded = total.real < LEAST_SUM
    sigma: Array = segment_sum(edges.r * a, edges.start) / np.where(bounded, LEAST_SUM, total)
    return sigma, bounded


def table_weight(sigma: Array, option: Config) -> Array:
    """(n) w; option is the configuration of the whole model."""
    out: Array = np.where(sigma.real == 0.0, 0.0, switch(sigma, option["sw_rmin"], option["sw_rmax"]))
    return out


def clamped(edges: EdgeList, option: Config) -> Array:
    """(n) whether an atom has energy of the table because the bound on the sum acts."""
    sigma, bounded = soft_distance(edges, option["smin_alpha"])
    out: Array = bounded & (table_weight(sigma, option) > 0.0)
    return out


def interpolated(network: Array, table: Array, edges: EdgeList, option: Config) -> Array:
    """(n) energies (eV) of those of the network (n) and of the table (n); edges is the list of the table."""
    w = table_weight(soft_distance(edges, option["smin_alpha"])[0], option)
    out: Array = (1.0 - w) * network + w * table
    return out
