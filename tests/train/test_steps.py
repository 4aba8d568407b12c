"""Learning rates, optimizers and averages, step by step as deepmd-kit and PyTorch have them."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import step_cases as steps
import training_cases as training
from cases import golden_cases, load_golden
from dpa2.errors import InputError
from dpa2.train.averages import MovingAverage
from dpa2.train.layout import layout, tensors
from dpa2.train.optimizer import Adam, Moments
from dpa2.train.schedule import Schedule


@cache
def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(steps.FILE.read_text())
    return found


def test_rates() -> None:
    """Every kind, option, warm-up and end; a power of a million steps may be rounded otherwise."""
    for (section, total), rates in zip(steps.SCHEDULES, expected()["rates"], strict=True):
        schedule = Schedule(section, total)
        for step, rate in zip(steps.moments(total), rates, strict=True):
            assert schedule.rate(step) == pytest.approx(rate, rel=1e-12, abs=0), (section, total, step)


@pytest.mark.parametrize(("section", "total", "message"), [
    ({"start_lr": 0.0, "stop_lr": 1e-8}, 10, r"start_lr must be above 0"),
    ({"start_lr": 1e-3}, 10, "neither is"),
    ({"start_lr": 1e-3, "stop_lr": 1e-8, "stop_lr_ratio": 0.1}, 10, "both are given"),
    ({"start_lr": 1e-3, "stop_lr": 1e-8, "warmup_steps": 10}, 10, r"warmup_steps .* fewer than the 10 steps"),
    ({"start_lr": 1e-3, "stop_lr": 1e-8, "warmup_ratio": 1.0}, 10, r"warmup_ratio makes 10 steps"),
    ({"start_lr": 1e-3, "stop_lr": 1e-8, "warmup_ratio": 0.1, "warmup_steps": 2}, 10, "both are given"),
    ({"start_lr": 1e-3, "stop_lr": 1e-8, "decay_steps": 0}, 10, r"decay_steps must be above 0, got 0"),
    ({"start_lr": 1e-3, "stop_lr": math.nan}, 10, r"stop_lr must be a number that is finite"),
    ({"start_lr": 1e-3, "stop_lr": 0.0, "type": "wsd"}, 10, r"stop_lr must be above 0"),
    ({"start_lr": 1e-3, "stop_lr": 1e-8, "type": "wsd", "decay_phase_ratio": 1.5}, 10, r"decay_phase_ratio"),
    ({"start_lr": 1e-3, "stop_lr": 1e-8, "type": "wsd", "decay_type": "steep"}, 10, r"decay_type .* got 'steep'"),
    ({"start_lr": 1e-3, "stop_lr": 1e-8, "type": "poly"}, 10, r"type must be one of exp, cosine, wsd, got 'poly'"),
])  # fmt: skip
def test_no_rates(section: dict[str, Any], total: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Schedule(section, total)


@pytest.mark.parametrize("name", steps.OPTIMIZERS)
def test_optimizer(name: str) -> None:
    """Parameters, averages and moments after twelve steps, of which one parameter has no part in four."""
    kind, dtype, decay, bound = steps.OPTIMIZERS[name]
    optimizer = Adam({"type": kind, "weight_decay": decay}, steps.first(dtype), bound)
    average = MovingAverage(steps.FADING, optimizer.parameters)
    for step in range(steps.STEPS):
        optimizer.step(steps.gradient(step, dtype), steps.rate(step))
        average.update(optimizer.parameters)
    moments = optimizer.moments()
    assert {key: found.step for key, found in moments.items()} == {"a": 12, "b": 8, "c": 12, "d": 12}
    rows = iter(expected()["optimizers"][name])
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    for key, value in optimizer.parameters.items():
        assert value.dtype == dtype
        for array in (value, average.values[key], moments[key].mean, moments[key].square):
            norm, product = next(rows)  # the product adds up roundings of entries of either sign
            assert training.fingerprint(key, array) == pytest.approx((norm, product), rel=0, abs=tolerance * norm)


def test_optimizer_goes_on() -> None:
    """What is kept of an optimizer makes another one take the same steps, to the last bit."""
    once, first = (Adam({}, steps.first("float64"), 3.0) for _ in range(2))
    for step in range(5):
        once.step(steps.gradient(step, "float64"), 0.01)
    for step in range(3):
        first.step(steps.gradient(step, "float64"), 0.01)
    kept = {
        name: Moments(found.step, found.mean.copy(), found.square.copy()) for name, found in first.moments().items()
    }
    second = Adam({}, {name: value.copy() for name, value in first.parameters.items()}, 3.0)
    second.restore(kept)
    for step in range(3, 5):
        second.step(steps.gradient(step, "float64"), 0.01)
    for name, value in once.parameters.items():
        np.testing.assert_array_equal(second.parameters[name], value)


def test_gradients_that_are_not_finite() -> None:
    """They change nothing, and the parameter is named."""
    optimizer = Adam({}, steps.first("float64"))
    gradient = steps.gradient(1, "float64")
    gradient["c"][1, 2] = np.inf
    with pytest.raises(InputError, match="gradient of c has entries that are not finite"):
        optimizer.step(gradient, 0.01)
    for name, value in steps.first("float64").items():
        np.testing.assert_array_equal(optimizer.parameters[name], value)
    assert optimizer.moments() == {}


@pytest.mark.parametrize(("section", "bound", "message"), [
    ({"type": "LKF"}, 0.0, "type must be Adam or AdamW, got 'LKF'"),
    ({"adam_beta1": 1.0}, 0.0, "adam_beta1 must be at least 0 and below 1"),
    ({"weight_decay": -0.1}, 0.0, "weight_decay"),
    ({}, math.inf, "gradient_max_norm"),
])  # fmt: skip
def test_no_optimizer(section: dict[str, Any], bound: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Adam(section, steps.first("float64"), bound)


@pytest.mark.parametrize("case", golden_cases(), ids=lambda case: case.name)
def test_layout(case: Any) -> None:
    """Names, shapes, precisions, parameters and their order, as of deepmd-kit's model with these options."""
    found = [(name, list(entry.shape), entry.dtype, entry.parameter) for name, entry in layout(case.config).items()]
    # deepmd-kit's first tensor is the smallest distance, which is not a weight
    assert steps.compact([("min_nbor_dist", [], "float64", False), *found]) == expected()["layouts"][case.name]


def test_tensors() -> None:
    """Statistics have a row for every neighbour; networks are there under two names."""
    case = next(case for case in golden_cases() if case.name == "base")
    weights = load_golden(case).weights
    found = tensors(case.config, weights)
    for name, entry in layout(case.config).items():
        assert found[name].shape == entry.shape
        assert found[name].dtype == entry.dtype
    mean = found["atomic_model.descriptor.repinit.mean"]
    assert (mean == weights["descriptor.repinit.mean"][:, None]).all()
    matrix = "atomic_model.fitting_net.filter_layers.{}.0.layers.0.matrix"
    assert found[matrix.format("networks")] is found[matrix.format("_networks")]
