"""Gradients of losses to every parameter, against deepmd-kit's double backward."""

from __future__ import annotations

import json
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
import training_cases as training
from cases import Golden, System
from dpa2 import train
from dpa2._native import Trainer
from dpa2.files import ModelData, write_safetensors
from dpa2.train.batch import check_batch
from dpa2.train.gradient import PREFIX, LossGradient

#: of the norm of each parameter's gradient, and the value; without derivatives of the energy in the loss
TOLERANCE, PLAIN = 1e-9, 1e-11
#: gradients below this part of the largest one are measured by that
FLOOR = 1e-6
#: of the largest one: sums whose terms cancel are rounded by that much
ROUNDING = 2.0**-52
#: an error of float32 as a part of the whole gradient; deepmd-kit's own is 7e-7
SINGLE = 3 * 7e-7

CASES = {case.name: case for case in training.CASES}
#: the others are for longer runs
QUICK = ("strip", "virtual_davg", "davg_rough_strip-tiny", "fparam_aparam_case", "res_incr", "dipole", "polar_full",
         "dos", "property_extensive", "population_double")  # fmt: skip


@cache
def case_of(name: str) -> tuple[dpa2.Model, Golden, System]:
    golden = CASES[name].load()
    model = dpa2.Model(ModelData(golden.config, golden.weights), threads=1, on_overflow="ignore")
    return model, golden, next(s for s in golden.systems if s.name == CASES[name].system)


def gradient(name: str, loss: str, **options: Any) -> LossGradient:
    model, golden, system = case_of(name)
    section = training.LOSSES[golden.config["fitting_net"]["type"]][loss]
    section = section | {"starter_learning_rate": training.STARTER}
    return train.gradient(model, training.batch(golden, system), section, training.RATE, **options)


def plain(name: str, loss: str) -> bool:
    """Whether the loss has no derivatives of the energy."""
    fitting = case_of(name)[1].config["fitting_net"]["type"]
    return fitting != "ener" or loss in ("energy", "atom_ener")


def check_gradient(found: LossGradient, expected: training.Expected, tolerance: float) -> None:
    assert abs(found["value"] - expected.value) <= tolerance * max(1.0, abs(expected.value))
    assert found["gradient"].keys() == expected.norms.keys()
    largest = max(expected.norms.values())
    for parameter, array in found["gradient"].items():
        norm, product = training.fingerprint(parameter, array)
        size = max(expected.norms[parameter], FLOOR * largest)
        assert abs(norm - expected.norms[parameter]) <= 1e-6 * size, f"the norm of {parameter}"  # stored in float32
        # the product adds up errors of all entries, which are of either sign
        assert abs(product - expected.products[parameter]) <= max(tolerance * size, ROUNDING * largest), parameter


@pytest.mark.parametrize("name", [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES
])  # fmt: skip
def test_deepmd(name: str) -> None:
    """Every parameter that deepmd-kit trains, and no other, for every loss of the case."""
    for loss in CASES[name].losses:
        check_gradient(gradient(name, loss), training.expected()[name, loss], PLAIN if plain(name, loss) else TOLERANCE)


@pytest.mark.parametrize(("name", "loss"), [
    ("strip", "mix"), ("virtual_davg", "mae_norm"), ("strip", "energy"), ("dipole", "both"), ("dos", "all"),
    ("property", "rmse"),
])  # fmt: skip
def test_float32(name: str, loss: str) -> None:
    """The whole gradient is as near to that of float64 as deepmd-kit's in float32 is, within a factor of three."""
    double, single = (gradient(name, loss, precision=precision)["gradient"] for precision in ("float64", "float32"))
    size = np.sqrt(sum(float(np.vdot(g, g)) for g in double.values()))
    error = np.sqrt(sum(float(np.vdot(single[k] - g, single[k] - g)) for k, g in double.items()))
    assert 0.0 < error <= SINGLE * size


def test_frames_add_up() -> None:
    """Of losses that are means over frames: the gradient of a batch is the mean of those of its frames."""
    model, golden, system = case_of("strip")
    whole = training.batch(golden, system)
    loss = training.ENERGY_LOSSES["mix"]
    both = train.gradient(model, whole, loss, 1e-3)["gradient"]
    ones = [train.gradient(model, {k: a[f : f + 1] for k, a in whole.items()}, loss, 1e-3)["gradient"] for f in (0, 1)]
    for name, array in both.items():
        mean = (ones[0][name] + ones[1][name]) / 2.0
        assert np.abs(array - mean).max() <= 1e-12 * max(1.0, np.abs(array).max()), name


def test_linear_in_prefactors() -> None:
    model, golden, system = case_of("virtual_davg")
    batch = training.batch(golden, system)
    weights = {"energy": 0.3, "force": 2.0, "virial": 0.7}
    parts = {name: train.gradient(model, batch, training.ENERGY_LOSSES[name], 1e-3) for name in weights}
    mixed = {f"{end}_pref_{name[0]}": w for end in ("start", "limit") for name, w in weights.items()}
    found = train.gradient(model, batch, mixed, 1e-3)
    assert found["value"] == pytest.approx(sum(w * parts[name]["value"] for name, w in weights.items()), rel=1e-13)
    for name, array in found["gradient"].items():
        total = sum(w * parts[part]["gradient"][name] for part, w in weights.items())
        assert np.abs(array - total).max() <= 1e-12 * max(1.0, np.abs(array).max()), name


def test_a_step_along_the_gradient() -> None:
    """The value of a model whose parameters are moved: its slope is the gradient, in extrapolated differences."""
    model, golden, system = case_of("fparam_aparam_case")
    batch, loss = training.batch(golden, system), training.ENERGY_LOSSES["mix"]
    found = train.gradient(model, batch, loss, 1e-3)["gradient"]
    along = {name: training.wave(name, array.shape) for name, array in found.items()}
    slope = sum(float(np.vdot(array, along[name])) for name, array in found.items())

    def value(step: float) -> float:
        moved = dict(golden.weights)
        for name, direction in along.items():
            short = name.removeprefix(PREFIX)
            moved[short] = moved[short] + step * direction
        other = dpa2.Model(ModelData(golden.config, moved), threads=1, on_overflow="ignore")
        return train.gradient(other, batch, loss, 1e-3)["value"]

    step = 2e-4
    near, far = value(step) - value(-step), value(2 * step) - value(-2 * step)
    assert slope == pytest.approx((8.0 * near - far) / (12.0 * step), rel=1e-8)


def test_same_bits() -> None:
    """From run to run; with more threads up to rounding."""
    first, again = gradient("strip", "mix"), gradient("strip", "mix")
    threads = [gradient("strip", "mix", threads=2) for _ in range(2)]
    for name, array in first["gradient"].items():
        assert np.array_equal(array, again["gradient"][name]), name
        assert np.array_equal(threads[0]["gradient"][name], threads[1]["gradient"][name]), name
        assert np.abs(array - threads[0]["gradient"][name]).max() <= 1e-12 * max(1.0, np.abs(array).max()), name
    assert first["value"] == again["value"]


def test_missing_labels() -> None:
    """A term without its label changes neither value nor gradient."""
    model, golden, system = case_of("strip")
    batch = training.batch(golden, system)
    mix = training.ENERGY_LOSSES["mix"]
    without = train.gradient(model, {k: a for k, a in batch.items() if k != "virial"}, mix, 1e-3)
    same = train.gradient(model, batch, mix | {"start_pref_v": 0.0}, 1e-3)
    assert without["value"] == same["value"]
    assert np.isnan(without["parts"]["rmse_v"])
    assert "rmse_v" not in same["parts"]
    for name, array in same["gradient"].items():
        assert np.array_equal(without["gradient"][name], array), name


def test_from_a_file(tmp_path: Path) -> None:
    """A native file gives the bits of the model in memory, under the same names."""
    _, golden, system = case_of("strip")
    path = tmp_path / "model.safetensors"
    write_safetensors(path, ModelData(golden.config, golden.weights))
    section = training.ENERGY_LOSSES["mix"] | {"starter_learning_rate": training.STARTER}
    found = train.gradient(path, training.batch(golden, system), section, training.RATE, threads=1)
    for name, array in gradient("strip", "mix")["gradient"].items():
        assert np.array_equal(found["gradient"][name], array), name


def test_other_threads_run_meanwhile() -> None:
    """The interpreter is free while the core computes, also where no thread is made to give it away."""
    model, golden, system = case_of("strip")
    inputs = check_batch(golden.config, training.batch(golden, system))
    trainer = Trainer(json.dumps(golden.config), model._data.weights, "float64", 1)
    frames = [None if rows is None else np.repeat(rows, 8, axis=0)
              for rows in (inputs.coords, inputs.types, inputs.boxes, inputs.fparam, inputs.aparam)]  # fmt: skip
    labels = {"energy": np.zeros((len(frames[0]), 1))}
    order, gate = [], threading.Event()

    def other() -> None:
        gate.wait()
        order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    try:
        gate.set()
        trainer.gradient(*frames, json.dumps(training.ENERGY_LOSSES["energy"]), 1e-3, labels)
        order.append("main")
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert order == ["other", "main"]
