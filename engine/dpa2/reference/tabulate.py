"""The networks of a compressed model: piecewise quintic polynomials of one scalar (theory 4.3).

    G_c(s) = sum_{k=0..5} a[curve, n, k, c] u^k,    u = (s - b_n) / h_n,    on interval n = [b_n, b_n + h_n)

Below the first and above the last interval a curve goes on as a straight line, with its value and slope at the end.
Intervals follow each other from `lower` on, in segments of [number, length in units of `step`]; a curve belongs to one
combination of the types that the net sees (one curve in strip mode).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .common import Array, IntArray

TERMS = 6


def nodes(grid: dict[str, Any]) -> Array:
    """(intervals + 1) where the intervals begin and end."""
    widths = np.concatenate([np.full(count, width) for count, width in grid["segments"]])
    edges: Array = grid["lower"] + grid["step"] * np.concatenate([[0], np.cumsum(widths)])
    return edges


def tabulate(s: Array, curve: IntArray | int, grid: dict[str, Any], table: Array) -> Array:
    """(..., channels) the curves of ``table`` (curves, intervals, 6, channels) at s (...), each on its ``curve``."""
    bounds = nodes(grid)
    real = np.clip(np.real(s), bounds[0], bounds[-1])
    n = np.clip(np.searchsorted(bounds, real, side="right") - 1, 0, len(bounds) - 2)
    length = np.diff(bounds)[n]
    # Inside, the polynomial is a function of s itself; outside, of the end of the table, which does not move with s.
    inside = (np.real(s) >= bounds[0]) & (np.real(s) <= bounds[-1])
    u = np.where(inside, s - bounds[n], real - bounds[n]) / length
    a = table[curve, n]
    value, slope = a[..., 5, :], np.zeros_like(a[..., 5, :])
    for k in range(TERMS - 2, -1, -1):
        slope = slope * u[..., None] + value
        value = value * u[..., None] + a[..., k, :]
    beyond = np.where(inside, 0.0, (s - real) / length)
    out: Array = value + slope * beyond[..., None]
    return out
