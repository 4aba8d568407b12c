"""Chebyshev series of the networks of the first blocks, made by NumPy for their kernels (src/cuda/series.hpp).

Written for itself, as the kernels' documents say it: nothing of the engine's series is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from dpa2.reference.activation import activation

SHARED = 48 * 1024
SLOTS, KINDS, WORDS = 32, 8, 256


def network(model: Any, block: str, act: str, s: np.ndarray, row: int) -> np.ndarray:
    """(len(s), channels) the folded network of a row of its type tables."""
    phi = activation(act).value
    x, number = s[:, None], 0
    while f"{block}.layers.{number}.in" in model:
        at = f"{block}.layers.{number}"
        if number == 0:
            z = x * model[f"{at}.w"] + model[f"{block}.type_term"][row]
            if f"{block}.type_skip" in model:
                rest = model[f"{block}.type_skip"][row, 1:]
                x = np.concatenate([x, np.broadcast_to(rest, (len(s), len(rest)))], axis=1)
        else:
            z = x @ model[f"{at}.w"] + model[f"{at}.b"]
        y = phi(z) * model.get(f"{at}.idt", 1.0)
        copies = int(model[f"{at}.skip"])
        x = y + np.concatenate([x] * copies, axis=1) if copies else y
        number += 1
    return x


@dataclass
class Interval:
    centre: float
    half: float
    level: int
    a: np.ndarray  # (terms, channels)


def fit(
    function: Callable[[np.ndarray], np.ndarray], lo: float, hi: float, terms: int, tolerance: float, level: int = 0
) -> list[Interval]:
    """Intervals in ascending order, each halved until twice as many terms bring nothing more."""
    nodes = 2 * terms
    angle = np.pi * (np.arange(nodes) + 0.5) / nodes
    values = function((lo + hi) / 2 + (hi - lo) / 2 * np.cos(angle))
    a = 2 / nodes * np.cos(np.arange(nodes)[:, None] * angle) @ values
    a[0] /= 2
    if np.abs(a[terms:]).max() <= tolerance * np.abs(values).max():
        return [Interval((lo + hi) / 2, (hi - lo) / 2, level, a[:terms])]
    assert level < 20, "the network has a kink"
    middle = (lo + hi) / 2
    lower = fit(function, lo, middle, terms, tolerance, level + 1)
    return lower + fit(function, middle, hi, terms, tolerance, level + 1)


class Series:
    """The members of ``SeriesArgs`` for a network on the range [lo, hi).

    ``pairs``: the number of types where both orders of a pair share a curve, and a gate; else 0.
    """

    def __init__(
        self,
        model: Any,
        block: str,
        act: str,
        real: Any,
        smooth: bool,
        lo: float,
        hi: float,
        pairs: int = 0,
    ) -> None:
        self.terms = 16 if real == np.float32 else 24
        typed = int(model[f"{block}.typed"])
        curves = len(model[f"{block}.type_term"]) if typed else 1

        def curve(row: int, x: np.ndarray) -> np.ndarray:
            value = network(model, block, act, x, row)
            if not typed or not pairs:
                return value
            other = row % pairs * pairs + row // pairs
            out: np.ndarray = (value + network(model, block, act, x, other)) / 2
            return out

        tolerance = 1e-9 if real == np.float32 else 4e-15
        fitted = [fit(lambda x, row=row: curve(row, x), lo, hi, self.terms, tolerance) for row in range(curves)]  # type: ignore[misc]
        deepest = max(place.level for found in fitted for place in found)
        cells, number = 2**deepest, 0
        covering: list[np.ndarray] = []
        places: list[Interval] = []
        for found in fitted:
            widths = [2 ** (deepest - place.level) for place in found]
            covering.append(np.repeat(np.arange(number, number + len(found)), widths))
            assert len(covering[-1]) == cells
            places += found
            number += len(found)
        centre, half = (np.array([getattr(place, name) for place in places]) for name in ("centre", "half"))
        coefficients = np.stack([place.a for place in places])
        self.intervals, _, channels = coefficients.shape
        self.nc = -(-channels // 8) * 8
        coefficients = np.pad(coefficients, ((0, 0), (0, 0), (0, self.nc - channels))).astype(real)
        gate = model.get(f"{block}.gate")
        self.gated = gate is not None
        if gate is not None:
            gate = np.pad(gate, ((0, 0), (0, self.nc - channels)))
            if pairs:
                gate = gate.reshape(pairs, pairs, -1)
                gate = ((gate + gate.transpose(1, 0, 2)) / 2).reshape(pairs * pairs, -1)
            gate = gate.astype(real)
        high = centre.astype(real)
        place = [high, centre - high, 1 / half, np.zeros(self.intervals)]
        self.args = {
            "interval": np.concatenate(covering).astype(np.int32),
            "place": np.ascontiguousarray(np.stack(place, axis=1), real), "a": coefficients,
            "at": np.ascontiguousarray(coefficients.transpose(0, 2, 1)), "gate": gate, "lo": lo, "hi": hi,
            "inv_cell": cells / (hi - lo), "cells": cells, "intervals": self.intervals, "nc": self.nc, "typed": typed,
            "gate_switch": int(smooth),
        }  # fmt: skip

    def repinit_bytes(self, each: int, backward: bool, size: int) -> int:
        """Of a warp, as repinit_series_bytes has it; ``each``: what the network takes for a scalar."""
        tile, part, runs = (128, 32, 4) if size == 4 else (96, 16, 2)
        work = runs * (8 if self.gated else 4) * self.terms
        if backward:
            work += work + 2 * runs * 4
        else:
            work += part * (self.terms + 16 // size)
        numbers = 4 * self.nc + 6 * tile + max(work, -(-each // 4) * 4)
        return numbers * size + 4 * (5 * tile + 4)

    def words(self, ntypes: int) -> int:
        kinds = min(ntypes, KINDS) if self.gated else 1
        return min(-(-self.intervals * kinds * kinds // 32), WORDS)

    def three_body_bytes(self, room: int, ntypes: int, each: int, backward: bool, size: int) -> int:
        """The same of three_body_series_bytes."""
        kinds, own = 2 if self.gated else 1, 0
        if backward:
            own = 4 * room + kinds * max(512, room)
            work = SLOTS * (kinds * self.terms + 1)
        else:
            work = 32 // self.terms * kinds * SLOTS * self.terms
            work += (32 if size == 4 else 16) * (self.terms + 16 // size)
        numbers = -(-(4 * room + self.nc + own + max(work, 96 + each)) // 4) * 4
        return numbers * size + 4 * (2 * room + KINDS + 2 * self.words(ntypes) + SLOTS + 32)
