"""What Python asks of the core beside evaluations, compared with the reference: networks, embeddings, lattices."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from dpa2 import InputError, ModelFileError, _native
from dpa2.reference.activation import activation
from dpa2.reference.common import Weights
from dpa2.reference.embedding_net import embedding_net
from dpa2.reference.fitting import fitting_input, last_hidden
from dpa2.reference.lattice import face_distances, reduced
from dpa2.reference.type_embedding import type_embedding
from random_model import random_model

ACTIVATIONS = ("tanh", "relu", "relu6", "sigmoid", "softplus", "gelu", "silu", "silut:0.7", "linear")
PREFIX = {"repinit": "descriptor.repinit", "three_body": "descriptor.repinit_three_body"}


def model(seed: int, **options: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config, weights = random_model(np.random.default_rng(seed), **options)
    return config, weights


def curves(config: dict[str, Any], weights: dict[str, np.ndarray], block: str) -> _native.EmbeddingCurves:
    return _native.EmbeddingCurves(json.dumps(config), weights, block == "three_body")


def complex_step(
    config: dict[str, Any], weights: dict[str, np.ndarray], block: str, row: np.ndarray, s: np.ndarray
) -> Any:
    """Value and slope of the reference's network along its scalar; row: the types that it sees beside."""
    option = config["descriptor"]["repinit"]
    x = np.concatenate([s[:, None], np.broadcast_to(row, (len(s), len(row)))], axis=1).astype(complex)
    x[:, 0] += 1e-30j
    layers = len(option["neuron" if block == "repinit" else "three_body_neuron"])
    phi = activation(option["activation_function"])
    name = f"{PREFIX[block]}.filter_layers.networks.0"
    y = embedding_net(x, Weights(weights), name, layers, phi, option["resnet_dt"])
    return y.real, y.imag / 1e-30


@pytest.mark.parametrize("block", ["repinit", "three_body"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_embedding_curves(name: str, block: str) -> None:
    option = {"tebd_input_mode": "concat", "activation_function": name, "resnet_dt": True, "neuron": [3, 6, 6]}
    config, weights = model(3, repinit=option)
    found, tebd = curves(config, weights, block), type_embedding(config, Weights(weights))
    one_side = block == "repinit" and config["descriptor"]["repinit"]["type_one_side"]
    assert found.count == (len(tebd) if one_side else len(tebd) ** 2)
    s, h = np.linspace(-2.0, 2.0, 131) + 0.00123, 1e-5
    for curve in range(found.count):
        row = tebd[curve] if one_side else np.concatenate([tebd[curve // len(tebd)], tebd[curve % len(tebd)]])
        value, slope, second = found.evaluate(curve, s)
        expected, expected_slope = complex_step(config, weights, block, row, s)
        np.testing.assert_allclose(value, expected, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(slope, expected_slope, rtol=1e-12, atol=1e-12)
        ends = [complex_step(config, weights, block, row, s + sign * h)[1] for sign in (1, -1)]
        difference = (ends[0] - ends[1]) / (2 * h)
        smooth = np.abs(difference - second) < 1e-6 * max(1.0, np.abs(second).max())
        assert smooth.all() if ":" not in name and not name.startswith("relu") else smooth.mean() > 0.97  # kinks


def test_strip_mode_has_one_curve() -> None:
    config, weights = model(5, repinit={"tebd_input_mode": "strip", "resnet_dt": False})
    found, s = curves(config, weights, "repinit"), np.linspace(-1.0, 3.0, 65)
    assert found.count == 1
    expected, _ = complex_step(config, weights, "repinit", np.zeros(0), s)
    np.testing.assert_allclose(found.evaluate(0, s)[0], expected, rtol=1e-13, atol=1e-13)
    assert found.evaluate(0, s[:0]).shape == (3, 0, found.channels)
    for curve in (-1, 1):
        with pytest.raises(InputError, match="there is no curve"):
            found.evaluate(curve, s)


@pytest.mark.parametrize("change", [lambda a: a[..., :-1], lambda a: a[:-1], lambda a: a[None]])
def test_weights_that_do_not_fit_are_refused(change: Any) -> None:
    config, weights = model(3, repinit={"tebd_input_mode": "concat", "resnet_dt": True, "neuron": [4, 8]})
    needed = [name for name in weights if ".filter_layers." in name or "type_embedding" in name]
    for name in needed:
        block = "three_body" if "three_body" in name else "repinit"
        if "fitting" in name:
            continue
        with pytest.raises(ModelFileError, match=name):
            curves(config, weights | {name: change(weights[name])}, block)
        with pytest.raises(ModelFileError, match=name):
            curves(config, {key: value for key, value in weights.items() if key != name}, block)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fitting": {"numb_fparam": 2, "numb_aparam": 3, "dim_case_embd": 2, "resnet_dt": True}},
        {"fitting": {"numb_aparam": 2, "use_aparam_as_mask": True, "neuron": []}},
    ],
)
def test_last_hidden_layer(options: dict[str, Any]) -> None:
    config, weights = model(9, **options)
    given = json.dumps(config)
    option, rng = config["fitting_net"], np.random.default_rng(2)
    repformer, repinit = config["descriptor"]["repformer"], config["descriptor"]["repinit"]
    width = repformer["g1_dim"] + (repinit["tebd_dim"] if config["descriptor"]["concat_output_tebd"] else 0)
    x = rng.normal(size=(2, 70, width))
    fparam = rng.normal(size=(2, option["numb_fparam"])) if option["numb_fparam"] else None
    aparam = rng.normal(size=(2, 70, option["numb_aparam"])) if option["numb_aparam"] else None
    found = _native.last_hidden(given, weights, x, fparam, aparam)
    for f in range(2):
        frame, atoms = (None if part is None else part[f] for part in (fparam, aparam))
        whole = fitting_input(x[f], frame, atoms, option, Weights(weights))
        np.testing.assert_allclose(found[f], last_hidden(whole, option, Weights(weights)), rtol=1e-12, atol=1e-13)
    with pytest.raises(InputError, match="descriptor must have"):
        _native.last_hidden(given, weights, x[:, :, :-1], fparam, aparam)
    if fparam is not None:
        with pytest.raises(InputError, match="fparam has the wrong size"):
            _native.last_hidden(given, weights, x, None, aparam)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, True), (False, False, False)])
def test_reduced_lattices(pbc: tuple[bool, bool, bool]) -> None:
    rng = np.random.default_rng(4)
    for skew in (0.0, 0.4, 3.0, 700.0):
        box = np.eye(3) * rng.uniform(2, 9, 3) + rng.uniform(-skew, skew, (3, 3)) * (1 - np.eye(3)) * [[1], [0], [1]]
        expected = reduced(box, pbc)
        rows, inverse, heights, transform = _native.reduced_lattice(box, pbc)
        np.testing.assert_array_equal(transform, expected.transform)
        periodic = np.asarray(pbc)
        np.testing.assert_allclose(rows[periodic], expected.rows[periodic], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(rows @ inverse, np.eye(3), atol=1e-10)
        np.testing.assert_allclose(heights, face_distances(rows), rtol=1e-10)
        open_ = rows[~periodic]
        np.testing.assert_allclose(
            open_ @ rows.T, np.eye(3)[~periodic], atol=1e-9
        )  # unit vectors, orthogonal to the others
    with pytest.raises(InputError, match="shape"):
        _native.reduced_lattice(np.eye(2), pbc)
