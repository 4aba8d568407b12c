"""The switch function and the environment matrix (theory 2).

    u = clamp((r - rcut_smth) / (rcut - rcut_smth), 0, 1),    sw(r) = 1 + u^3 (-6 u^2 + 15 u - 10)
    q = r + env_protection
    E = [ sw/q, sw d_x/q^2, sw d_y/q^2, sw d_z/q^2 ]
    R = (E - mean[t_i]) / stddev[t_i]                         with the statistics of the CENTRE's type

A padded slot has E = 0 and sw = 0, so its row is R_pad(t_i) = -mean[t_i] / stddev[t_i].
"""

from __future__ import annotations

import numpy as np

from .common import Array, IntArray


def switch(r: Array, rcut_smth: float, rcut: float) -> Array:
    """(ne) the weight of a neighbour at distance r (angstrom): 1 up to rcut_smth, 0 from rcut on, with no kink."""
    u = (r - rcut_smth) / (rcut - rcut_smth)
    u = np.where(u.real <= 0.0, 0.0, np.where(u.real >= 1.0, 1.0, u))
    return 1.0 + u**3 * (-6.0 * u**2 + 15.0 * u - 10.0)


def env_mat(
    d: Array,
    r: Array,
    centre_type: IntArray,
    mean: Array,
    stddev: Array,
    rcut_smth: float,
    rcut: float,
    env_protection: float,
) -> tuple[Array, Array]:
    """``R`` (ne, 4) and ``sw`` (ne) of the edges d (ne, 3), r (ne), in angstrom; mean and stddev are (ntypes, 4)."""
    sw = switch(r, rcut_smth, rcut)
    q = r + env_protection
    e = np.concatenate([(sw / q)[:, None], (sw / q**2)[:, None] * d], axis=1)
    return (e - mean[centre_type]) / stddev[centre_type], sw


def pad_row(mean: Array, stddev: Array) -> Array:
    """(ntypes, 4) the normalised row of a padded slot, per type of the centre."""
    return -mean / stddev
