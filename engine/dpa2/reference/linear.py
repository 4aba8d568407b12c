"""The plain linear map: y = x W + b, or x W for the maps that have no bias. No skip, no activation."""

from __future__ import annotations

from .common import Array, Weights


def linear(x: Array, weights: Weights, name: str, bias: bool = True) -> Array:
    """(..., out) of x (..., in) with ``name``.matrix (in, out) and, with ``bias``, ``name``.bias (out)."""
    y: Array = x @ weights[f"{name}.matrix"]
    if bias:
        y = y + weights[f"{name}.bias"]
    return y
