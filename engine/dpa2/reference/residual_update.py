"""How a layer adds its updates U_1 .. U_K to a channel u (theory 8.11).

    res_residual:  u + sum_k r_k * U_k               with learnt vectors r_k
    res_avg:       (u + sum_k U_k) / sqrt(K + 1)
    res_incr:      u + (sum_k U_k) / sqrt(K)

With an empty list u stays as it is.
"""

from __future__ import annotations

import math

from dpa2.errors import UnsupportedModelError

from .common import Array, Weights


def residual_update(u: Array, updates: list[Array], style: str, weights: Weights, name: str) -> Array:
    """The updated channel, shaped as u; ``name``.0, .1, ... are the residual vectors of the members of ``updates``."""
    if not updates:
        return u
    if style == "res_residual":
        for k, update in enumerate(updates):
            u = u + weights[f"{name}.{k}"] * update
        return u
    total = sum(updates[1:], start=updates[0])
    if style == "res_avg":
        return (u + total) / math.sqrt(len(updates) + 1)
    if style == "res_incr":
        return u + total / math.sqrt(len(updates))
    raise UnsupportedModelError(f"unknown update_style {style!r}; known are res_residual, res_avg, res_incr")
