"""The convolution: what the neighbours' g1 says through the pair channel (theory 8.4). P = proj_g1g2.

g1_out_conv:  conv_i = kappa_n sum_e w_e (g2_e P) * g1_j         (n1)
otherwise:    conv_i = kappa_n sum_e w_e g2_e * (g1_j P)         (n2)
"""

from __future__ import annotations

from .common import Array, Weights, segment_sum
from .g2_embed import RepformerEdges
from .linear import linear


def conv(g1: Array, g2: Array, geometry: RepformerEdges, out_conv: bool, weights: Weights, name: str) -> Array:
    """(n, g1_dim) with ``out_conv``, else (n, g2_dim); ``name`` is the prefix of the layer."""
    edges = geometry.edges
    if out_conv:
        message = linear(g2, weights, f"{name}.proj_g1g2", bias=False) * g1[edges.j]
    else:
        message = g2 * linear(g1, weights, f"{name}.proj_g1g2", bias=False)[edges.j]
    return geometry.kappa_n[:, None] * segment_sum(geometry.w[:, None] * message, edges.start)
