"""The plain linear map: y = x W, or x W + b. No skip, no activation; a map without bias in the model has none here."""

from __future__ import annotations

from .common import Array, Weights


def linear(x: Array, weights: Weights, name: str) -> Array:
    """(..., out) of x (..., in) with ``name``.matrix (in, out) and, where the model has it, ``name``.bias (out)."""
    y: Array = x @ weights[f"{name}.matrix"]
    if f"{name}.bias" in weights:
        y = y + weights[f"{name}.bias"]
    return y
