"""CUDA operations that take a prepared model, emulated: backward passes against central differences of the forward.

The other operations are in tests/ops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from dpa2.cuda.fitting import Fitting
from dpa2.cuda.geometry import BlockList, Geometry, Incoming, Lists
from dpa2.cuda.launcher import Launcher
from dpa2.cuda.prepared import Prepared
from helpers import golden
from host_lists import incoming

Arrays = dict[str, np.ndarray]
STEP, BOUND = 1e-4, 1e-8
N, COUNT = 4, (3, 0, 7, 2)


@dataclass
class Edges:
    """Edges of four atoms, one without neighbours."""

    start: np.ndarray
    j: np.ndarray
    centre: np.ndarray
    incoming: Incoming
    types: np.ndarray

    @property
    def number(self) -> int:
        return len(self.j)


def edges() -> Edges:
    rng = np.random.default_rng(5)
    start = np.concatenate([[0], np.cumsum(COUNT)]).astype(np.int32)
    j = rng.integers(0, N, start[-1]).astype(np.int32)
    centre = np.repeat(np.arange(N), COUNT).astype(np.int32)
    return Edges(start, j, centre, incoming(np, j, N), np.array([0, 2, 1, 0], dtype=np.int32))


def launcher() -> Launcher:
    return Launcher(EmulatedDevice(seed=11), "float64")


def draw(seed: int, **shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def assert_adjoint(
    forward: Callable[[Arrays], Arrays], backward: Callable[[Arrays, Arrays], Arrays], inputs: Arrays
) -> None:
    """The gradient of a random combination of the outputs, along a random direction of every single input."""
    rng = np.random.default_rng(77)
    seeds = {name: rng.normal(size=value.shape) for name, value in forward(inputs).items()}
    gradients = backward(inputs, seeds)
    assert gradients.keys() <= inputs.keys()
    assert gradients
    for name, gradient in gradients.items():
        direction = rng.normal(size=gradient.shape)
        difference = 0.0
        for steps, factor in ((1, 2.0 / 3.0), (2, -1.0 / 12.0)):  # of fourth order: the attention's shift bends sharply
            for sign in (1, -1):
                moved = forward(inputs | {name: inputs[name] + sign * steps * STEP * direction})
                value = sum(float((seeds[key] * array).sum()) for key, array in moved.items())
                difference += sign * factor * value / STEP
        assert abs(float((gradient * direction).sum()) - difference) <= BOUND * max(1.0, abs(difference)), name


@cache
def prepared(name: str) -> Prepared:
    data = golden(name)
    return Prepared(data.config, data.weights, Launcher(EmulatedDevice(), "float64"))


@pytest.mark.parametrize("name", ["base", "fparam_aparam", "atom_ener", "act_softplus"])
def test_fitting(name: str) -> None:
    e, model = edges(), prepared(name)
    rng = np.random.default_rng(20)
    active = np.array([1.0, 0.0, 1.0, 1.0])
    option = model.fitting_option
    parameters = [rng.normal(size=option["numb_fparam"]), rng.normal(size=(N, option["numb_aparam"]))]
    fitting = Fitting(model, model.launcher, geometry_of(e), active, *parameters)

    def forward(inputs: Arrays) -> Arrays:
        return {"energy": fitting.energies(inputs["g1"]).copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        forward(inputs)
        return {"g1": fitting.backward(seeds["energy"])}

    assert_adjoint(forward, backward, {"g1": rng.normal(size=(N, model.n1))})
    assert fitting.energies(rng.normal(size=(N, model.n1)))[1] == 0.0


def geometry_of(e: Edges) -> Geometry:
    empty: Any = np.zeros(0)
    lists = Lists(e.start, e.j, empty, empty, empty, empty, empty, empty, [], e.centre, e.incoming)
    whole = BlockList(e.start, np.arange(e.number, dtype=np.int32), e.j, max(COUNT))
    return Geometry(e.types, lists, whole, e.incoming, None)
