"""The update of g2 in layers without attention among edges: linear2 and residual, against NumPy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from pair_cases import Rows
from pair_kernels import KINDS


@pytest.mark.cuda
@pytest.mark.parametrize("real", KINDS)
@pytest.mark.parametrize("n2", [6, 16, 32, 33, 128, 256])
@pytest.mark.parametrize(("edges", "g1g1"), [(0, True), (1, False), (33, False), (150, True), (130, True)])
def test_against_numpy(edges: int, g1g1: bool, n2: int, real: str) -> None:
    rows = Rows(edges, n2, g1g1, real)
    bound = 1e-13 if real == "double" else 1e-5
    wanted = rows.layer.forward(*rows.inputs, rows.U) | rows.layer.backward(*rows.inputs, rows.seeds)
    found = rows.forward() | rows.backward(rows.seeds, 0)
    assert set(found) == {"out", "g2", "h2", "w"} | ({"U"} if g1g1 else set())
    for name, got in found.items():
        assert np.abs(got - wanted[name]).max(initial=0) <= bound * np.abs(wanted[name]).max(initial=1), name


@pytest.mark.cuda
def test_gradients_are_those_of_the_forward() -> None:
    """Central differences of the kernel itself, one input at a time."""
    rows, rng, step = Rows(40, 38, True, "double"), np.random.default_rng(5), 1e-5
    found = rows.backward(rows.seeds)
    for name, value in (("g2", rows.inputs[0]), ("U", rows.U)):
        direction, kept = rng.normal(size=value.shape), value.copy()
        difference = 0.0
        for sign in (1, -1):
            value += sign * step * direction
            difference += sign * float((rows.forward()["out"] * rows.seeds["out"]).sum()) / (2 * step)
            value[...] = kept
        assert (found[name] * direction).sum() == pytest.approx(difference, rel=1e-7, abs=1e-7), name


@pytest.mark.cuda
@pytest.mark.parametrize("n2", [32, 70])
def test_same_bits_whatever_the_schedule(n2: int) -> None:
    seen = set()
    for seed in (None, 1, 2):
        rows = Rows(140, n2, True, "float", seed)
        seen.add(
            b"".join(x.tobytes() for x in itertools.chain(rows.forward().values(), rows.backward(rows.seeds).values()))
        )
    assert len(seen) == 1
