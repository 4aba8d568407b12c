"""Dipole and polarizability of every atom: coefficients contracted with its rotation matrix R_i (theory 9.6).

    dipole:  mu_i[x] = sum_c z_i[c] R_i[c, x]
    polar:   A_i[x, y] = sum_c z_i[c] R_i[c, x] R_i[c, y]                          fit_diag
             A_i[x, y] = sum_cb R_i[c, x] (Z_i + Z_i^T)[c, b] / 2 R_i[b, y]        else, Z_i = z_i as (g2_dim, g2_dim)
             A_i += scale[t_i] s[t_i] 1,  s[t] = mean of the diagonal of out_bias[t] as (3, 3)      shift_diag

Zero where the atom is not active: the coefficients are, and so is the shift. Seeds of a backward pass, with bar for the
gradient of a number to what stands below it:

    dipole:  bar z[c] = sum_x bar mu[x] R[c, x],    bar R[c, x] = z[c] bar mu[x]
    polar:   S = bar A + bar A^T
             bar z[c] = 1/2 sum_xy R[c, x] S[x, y] R[c, y],    bar R[c, y] = z[c] sum_x R[c, x] S[x, y]      fit_diag
             bar Z = 1/2 R S R^T,    bar R = (Z + Z^T)/2 R S                                                 else
"""

from __future__ import annotations

import numpy as np

from .common import Array, Config, IntArray, Weights


def dipole(z: Array, rotation: Array) -> Array:
    """(n, 3) of coefficients z (n, g2_dim) and rotation matrices (n, g2_dim, 3)."""
    out: Array = np.einsum("nc,ncx->nx", z, rotation)
    return out


def dipole_seeds(z: Array, rotation: Array, gradient: Array) -> tuple[Array, Array]:
    """Gradients to z and to the rotation matrices, of the gradient (n, 3) to dipoles."""
    return np.einsum("nx,ncx->nc", gradient, rotation), z[:, :, None] * gradient[:, None, :]


def polar(z: Array, rotation: Array, types: IntArray, active: Array, option: Config, weights: Weights) -> Array:
    """(n, 3, 3) of coefficients z (n, g2_dim) or (n, g2_dim squared) and rotation matrices (n, g2_dim, 3)."""
    if option["fit_diag"]:
        out: Array = np.einsum("nc,ncx,ncy->nxy", z, rotation, rotation)
    else:
        out = np.einsum("ncx,ncb,nby->nxy", rotation, symmetric(z, rotation.shape[1]), rotation)
    if option["shift_diag"]:
        out = out + (active * shift(option, weights)[types])[:, None, None] * np.eye(3)
    return out


def polar_seeds(z: Array, rotation: Array, gradient: Array, option: Config) -> tuple[Array, Array]:
    """Gradients to z and to the rotation matrices, of the gradient (n, 3, 3) to polarizabilities."""
    both = gradient + gradient.transpose(0, 2, 1)
    turned = rotation @ both
    if option["fit_diag"]:
        return 0.5 * np.einsum("ncx,ncx->nc", turned, rotation), z[:, :, None] * turned
    to_z = 0.5 * turned @ rotation.transpose(0, 2, 1)
    return to_z.reshape(z.shape), symmetric(z, rotation.shape[1]) @ turned


def symmetric(z: Array, width: int) -> Array:
    """(n, width, width) the symmetric part of coefficients z (n, width squared)."""
    square = z.reshape(len(z), width, width)
    out: Array = 0.5 * (square + square.transpose(0, 2, 1))
    return out


def shift(option: Config, weights: Weights) -> Array:
    """(ntypes) what shift_diag adds to the diagonal, by type."""
    bias = weights["out_bias"][0].reshape(-1, 3, 3)
    out: Array = np.asarray(option["scale"]) * np.trace(bias, axis1=1, axis2=2) / 3.0
    return out
