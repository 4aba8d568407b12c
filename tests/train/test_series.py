"""Gradients through the series of the embedding networks against those of the networks themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dpa2
import numpy as np
import pytest
import training_cases as training
from cases import golden_cases, load_golden
from dpa2 import train
from dpa2.cli.bench import water_box
from dpa2.embedded import default_model_path
from dpa2.files import ModelData, read

#: of the norm of the whole gradient, and of each array's
TOLERANCE, ARRAY = 1e-11, 1e-9
#: arrays below this part of the largest one are measured by that
FLOOR = 1e-6
#: in float32, where each of the two has the rounding of its kernels
SINGLE = 2e-6
RATE = 1e-3
MIX = training.ENERGY_LOSSES["mix"]
Gradients = Mapping[str, np.ndarray]

CASES = {case.name: case for case in golden_cases()}
#: with an activation that has kinks there is no series
KINKED = ("act_relu", "act_relu6", "act_silut")
QUICK = ("base", "davg_rough_strip", "one_side_strip", "resnet_dt", "act_relu")
LONGER = (
    "strip", "one_side", "resnet_dt_strip", "rough", "rough_strip", "davg", "davg_strip", "tebd_skip_double",
    "first_layer_skip", "three_body_skip_strip", "no_three_body", "odd_widths", "seven_types", "virtual_davg",
    "env_protection", "act_sigmoid", "act_gelu", "act_silu", "act_silut", "act_softplus", "act_relu6",
)  # fmt: skip


def golden(name: str, close: bool = False) -> tuple[ModelData, dict[str, np.ndarray]]:
    """A model and a batch; with `close` two atoms are nearer to each other than the range of a series begins."""
    case = load_golden(CASES[name])
    batch = training.batch(case, case.systems[0])
    if close:
        batch["coord"] = batch["coord"].reshape(len(batch["coord"]), -1, 3).copy()
        batch["coord"][0, 3] = batch["coord"][0, 2] + [0.2, -0.2, 0.1]
    return ModelData(case.config, case.weights), batch


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the engines of a model that use the series and the networks, as later sets of weights of them do."""

    class Pair:
        def __init__(self, data: ModelData, **options: Any) -> None:
            model = dpa2.Model(data, threads=1, on_overflow="ignore")
            self.both = {}
            for value in ("on", "off"):
                monkeypatch.setenv("DPA2_SERIES", value)
                self.both[value] = train.GradientEngine(model, **options)

        def assign(self, values: Gradients) -> None:
            for value, engine in self.both.items():
                monkeypatch.setenv("DPA2_SERIES", value)
                engine.assign(values)

        def gradients(self, batch: Gradients, loss: Mapping[str, Any] = MIX) -> tuple[Gradients, Gradients]:
            series, network = (engine.gradient(batch, loss, RATE) for engine in self.both.values())
            assert series["value"] == pytest.approx(network["value"], rel=1e-5)
            return series["gradient"], network["gradient"]

        @property
        def bytes(self) -> int:
            return int(self.both["on"]._trainer.bytes())

    return Pair


def norm(arrays: Any) -> float:
    return float(np.sqrt(sum(float(np.vdot(a, a)) for a in arrays)))


def distance(found: Gradients, exact: Gradients) -> float:
    """Of the whole gradient, as a part of its norm."""
    return norm(found[name] - exact[name] for name in exact) / norm(exact.values())


def check(found: Gradients, exact: Gradients) -> None:
    assert distance(found, exact) <= TOLERANCE
    largest = max(norm([array]) for array in exact.values())
    for name, array in exact.items():
        assert norm([found[name] - array]) <= ARRAY * max(norm([array]), FLOOR * largest), name


@pytest.mark.parametrize("close", [False, True], ids=["apart", "close"])
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONGER)])
def test_golden_models(engines: Any, name: str, close: bool) -> None:
    data, batch = golden(name, close)
    found, exact = engines(data).gradients(batch)
    check(found, exact)
    same = all(np.array_equal(found[parameter], array) for parameter, array in exact.items())
    assert same == (name in KINKED), "a series is used where there can be one"


@pytest.mark.parametrize("name", ["base", pytest.param("davg_rough_strip", marks=pytest.mark.slow)])
def test_float32(engines: Any, name: str) -> None:
    data, batch = golden(name)
    found, exact = engines(data, precision="float32").gradients(batch)
    assert 0.0 < distance(found, exact) <= SINGLE


def water(natoms: int) -> tuple[ModelData, dict[str, np.ndarray]]:
    """The first molecules of the packaged box as a cluster, and the packaged weights, which were trained."""
    with default_model_path() as path:
        data = read(path)
    frame = water_box()
    types = frame.types_in(tuple(data.config["type_map"]))
    near = np.argsort(np.linalg.norm(frame.coords - frame.coords.mean(0), axis=1))[:natoms]
    batch = training.labels(data.config, 1, natoms)
    return data, batch | {"coord": frame.coords[near][None], "atype": np.asarray(types)[near]}


@pytest.mark.parametrize("loss", [
    pytest.param(name, marks=[] if name == "mae_norm" else [pytest.mark.slow])
    for name in training.ENERGY_LOSSES if name not in ("energy", "atom_ener")
])  # fmt: skip
def test_trained_weights(engines: Any, loss: str) -> None:
    data, batch = water(12)
    found, exact = engines(data, precision="float64").gradients(batch, training.ENERGY_LOSSES[loss])
    check(found, exact)


def moved(values: Gradients, step: float) -> dict[str, np.ndarray]:
    """Every number by up to that part of the largest one of its array."""
    return {name: a + step * np.abs(a).max(initial=0.0) * training.wave(name, a.shape) for name, a in values.items()}


def networks(values: Gradients, part: str) -> list[str]:
    """Arrays of the embedding networks."""
    found = [key for key in values if ".repinit" in key and "filter_layers.networks" in key and key.endswith(part)]
    assert found
    return found


@pytest.mark.parametrize("name", ["strip", pytest.param("base", marks=pytest.mark.slow)])
def test_other_weights(engines: Any, name: str) -> None:
    """Series are made anew for every set of weights, and do not depend on the sets before it."""
    data, batch = golden(name)
    pair = engines(data)
    first, exact = pair.gradients(batch)
    values, bytes_of_first = pair.both["on"].parameters, pair.bytes
    for step in (1e-4, 1e-2):
        pair.assign(moved(values, step))
        check(*pair.gradients(batch))
    pair.assign({key: 6.0 * values[key] for key in networks(values, "matrix")})
    check(*pair.gradients(batch))
    assert pair.bytes > bytes_of_first, "more intervals have more coefficients"
    pair.assign(values)
    again, network = pair.gradients(batch)
    check(again, exact)
    for key, array in exact.items():
        assert np.array_equal(network[key], array), key
        assert np.array_equal(again[key], first[key]), key


@pytest.mark.parametrize("name", ["odd_widths", pytest.param("resnet_dt", marks=pytest.mark.slow)])
def test_networks_that_are_constant(engines: Any, name: str) -> None:
    """Last layers of zeros: values say nothing of the steep layers before, but gradients see them."""
    data, batch = golden(name)
    pair = engines(data)
    values = pair.both["on"].parameters
    moved = {key: 6.0 * values[key] for key in networks(values, "matrix")}
    for key in networks(values, "idt" if name == "resnet_dt" else "matrix"):
        block, layer = key.split(".layers.")
        if int(layer[0]) == max(int(k.split(".layers.")[1][0]) for k in values if k.startswith(block + ".layers.")):
            moved[key] = np.zeros_like(values[key])
    pair.assign(moved)
    check(*pair.gradients(batch))
