"""Symmetrisation: rotation-invariant contraction of a channel X over the neighbours of a centre (theory 8.8).

    C_i[x, c] = kappa_h sum_e h2_e[x] w_e X_e[c],   x = 0..2
    Gam_i[a * n + c] = (1/3) sum_x C_i[x, a] C_i[x, c],   a < axis_neuron        (AXIS-major)

grrg: X_e = g2_e ;   drrd: X_e = g1_j. The rotation matrix is C with X = g2, transposed.
"""

from __future__ import annotations

import numpy as np

from .common import Array, segment_sum
from .g2_embed import RepformerEdges


def contract(x: Array, h2: Array, geometry: RepformerEdges) -> Array:
    """(n, 3, channels) C of the edge channel x (ne, channels)."""
    weighted = (geometry.w[:, None] * h2)[:, :, None] * x[:, None, :]
    out: Array = geometry.kappa_h[:, None, None] * segment_sum(weighted, geometry.edges.start)
    return out


def symmetrization(x: Array, h2: Array, geometry: RepformerEdges, axis_neuron: int) -> Array:
    """(n, axis_neuron * channels) Gam of the edge channel x (ne, channels)."""
    c = contract(x, h2, geometry)
    gram: Array = np.einsum("nxa,nxc->nac", c[:, :, :axis_neuron], c) / 3.0
    return gram.reshape(len(c), -1)
