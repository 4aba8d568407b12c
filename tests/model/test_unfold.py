"""The way back for gradients is the adjoint of every fold: <unfold(g), v> = <g, derivative of fold along v>.

All folded tensors but the gates of strip mode are polynomials of at most second degree in the raw weights, so their
central differences have no error but rounding, at any step. The gates are networks: their derivatives come from complex
steps through the reference, and again, less exactly, from extrapolated differences of the fold.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import dpa2
import numpy as np
import pytest
from cases import GOLDEN
from dpa2 import _native
from dpa2.embedded import default_model_path
from dpa2.files import read, schema
from dpa2.reference.activation import activation
from dpa2.reference.common import Weights
from dpa2.reference.embedding_net import embedding_net
from dpa2.reference.type_embedding import type_embedding
from helpers import CASES, golden
from kind_cases import KIND_CASES, load_kind
from random_model import draw_options, random_model

EXACT, DIFFERENCES = 1e-14, 1e-9
RANDOM = 30
STEP, IMAGINARY = 1e-3, 1e-30
WITH_KINKS = ("relu", "relu6", "silut", "custom_silu")
FITTINGS: tuple[dict[str, Any], ...] = (
    {}, {"type": "dipole"}, {"type": "polar"}, {"type": "dos", "numb_dos": 4}, {"type": "population"},
    {"type": "property", "task_dim": 2},
)  # fmt: skip
Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]


@dataclass
class Model:
    """A model with a direction `v` of its parameters and a gradient `g` of its folded tensors."""

    name: str
    config: dict[str, Any]
    raw: Arrays
    v: Arrays
    g: Arrays
    unfolded: Arrays

    def folded(self, step: float) -> Arrays:
        """The tensors that have gradients, at weights that are a number of steps away."""
        return tensors(self.config, {name: value + step * self.v.get(name, 0.0) for name, value in self.raw.items()})

    @property
    def network(self) -> tuple[dict[str, Any], str]:
        """The configuration of what has a network, and the prefix of its names."""
        return (self.config["models"][0], "models.0.") if "models" in self.config else (self.config, "")

    @property
    def strip(self) -> bool:
        return bool(self.network[0]["descriptor"]["repinit"]["tebd_input_mode"] == "strip")


def tensors(config: dict[str, Any], raw: Arrays) -> Arrays:
    """The folded matrices, without the one that is made of folded ones."""
    found = _native.folded(json.dumps(config), raw)
    return {
        name: value
        for name, value in found.items()
        if value.ndim == 2 and not name.endswith((".activation", ".pad_embedding"))
    }


def unfolded(config: dict[str, Any], raw: Arrays, gradient: Arrays) -> Arrays:
    return _native.unfolded(json.dumps(config), raw, gradient)


def parameters(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: w.shape for name, w in schema.expected_weights(config).items() if w.role == "parameter"}


def make(name: str, config: dict[str, Any], weights: Arrays) -> Model:
    rng = np.random.default_rng(len(name))
    raw = {key: np.asarray(value, dtype=np.float64) for key, value in weights.items()}
    v = {key: rng.normal(size=shape) for key, shape in parameters(config).items()}
    g = {key: rng.normal(size=value.shape) for key, value in tensors(config, raw).items()}
    return Model(name, config, raw, v, g, unfolded(config, raw, g))


@cache
def models() -> list[Model]:
    """All cases, other kinds with zbl among them, a compressed one, the model that is installed, and random ones."""
    found = [make(name, golden(name).config, golden(name).weights) for name in CASES]
    with default_model_path() as installed:
        for path in (*sorted((GOLDEN / "compressed").glob("*.pth")), installed):
            data = read(path, None)
            found.append(make(path.stem, data.config, data.weights))
    for case in KIND_CASES:
        if not case.combination or case.combination["type"] == "zbl":
            kind = load_kind(case)
            found.append(make(case.name, kind.config, kind.weights))
    for seed in range(RANDOM):
        rng = np.random.default_rng([17, seed])
        options = draw_options(rng)
        options["fitting"] |= FITTINGS[seed % len(FITTINGS)]
        if options["fitting"].get("type", "ener") != "ener":
            options["fitting"]["atom_ener"] = []
        found.append(make(f"random {seed}", *random_model(rng, **options)))
    return found


def product(a: Arrays, b: Arrays) -> tuple[float, float]:
    """The sum of products, and of their magnitudes."""
    terms = [a[name] * b[name] for name in a.keys() & b.keys()]
    return sum(float(t.sum()) for t in terms), sum(float(np.abs(t).sum()) for t in terms)


def second_degree(model: Model) -> Arrays:
    """The derivatives of everything but the gates."""
    after, before = model.folded(1.0), model.folded(-1.0)
    return {name: (after[name] - before[name]) / 2.0 for name in after if not name.endswith(".gate")}


def gates(model: Model) -> Arrays:
    """The derivatives of the gates, by complex steps through the reference."""
    config, prefix = model.network
    option = config["descriptor"]["repinit"]
    moved = {
        name.removeprefix(prefix): value + 1j * IMAGINARY * model.v.get(name, 0.0)
        for name, value in model.raw.items()
        if name.startswith(prefix)
    }
    weights = cast(Weights, moved)
    tebd = type_embedding(config, weights)
    pairs = np.array([[*tebd[a], *tebd[b]] for a in range(len(tebd)) for b in range(len(tebd))])
    found = {}
    for block, raw, neuron, types in (
        ("repinit", "repinit", "neuron", tebd if option["type_one_side"] else pairs),
        ("three_body", "repinit_three_body", "three_body_neuron", pairs),
    ):
        if block == "repinit" or option["use_three_body"]:
            name, phi = f"descriptor.{raw}.filter_layers_strip.networks.0", activation(option["activation_function"])
            gate = embedding_net(types, weights, name, len(option[neuron]), phi, option["resnet_dt"])
            found[f"{block}.gate"] = gate.imag / IMAGINARY
    return found


def is_adjoint(model: Model, derivatives: Arrays, tolerance: float) -> None:
    assert derivatives.keys() == model.g.keys(), model.name
    forward, magnitude = product(model.g, derivatives)
    backward, more = product(model.unfolded, model.v)
    assert abs(forward - backward) <= tolerance * (magnitude + more), model.name


def test_adjoint() -> None:
    for model in models():
        is_adjoint(model, second_degree(model) | (gates(model) if model.strip else {}), EXACT)
    assert sum(model.strip for model in models()) > 10


def test_differences_of_gates() -> None:
    seen = 0
    for model in models():
        if not model.strip or model.network[0]["descriptor"]["repinit"]["activation_function"].startswith(WITH_KINKS):
            continue
        at = {k: model.folded(k * STEP) for k in (-2, -1, 1, 2)}
        found = second_degree(model)
        for name in model.g.keys() - found.keys():
            near, far = ((at[k][name] - at[-k][name]) / (2 * k * STEP) for k in (1, 2))
            found[name] = (4 * near - far) / 3
        is_adjoint(model, found, DIFFERENCES)
        seen += 1
    assert seen > 5


@pytest.mark.parametrize("name", ["base", "strip", "four_layers", "random 0", "zbl"])
def test_tensor_by_tensor(name: str) -> None:
    """Tensors without a gradient count as zero, and each of the others comes back by itself."""
    model = next(m for m in models() if m.name == name)
    derivatives = second_degree(model) | (gates(model) if model.strip else {})
    total = {key: np.zeros_like(value) for key, value in model.unfolded.items()}
    for tensor, gradient in model.g.items():
        alone = unfolded(model.config, model.raw, {tensor: gradient})
        forward, backward = product({tensor: gradient}, derivatives), product(alone, model.v)
        assert abs(forward[0] - backward[0]) <= EXACT * (forward[1] + backward[1]), tensor
        for key in total:
            total[key] += alone[key]
    for key, value in model.unfolded.items():
        np.testing.assert_allclose(total[key], value, rtol=0, atol=EXACT * max(1.0, float(np.abs(value).max())))


def test_every_parameter_has_its_gradient() -> None:
    for model in models():
        assert {name: value.shape for name, value in model.unfolded.items()} == parameters(model.config), model.name
        zero = {name for name, value in model.unfolded.items() if not value.any()}
        assert zero == set(), model.name


def test_nothing_given_is_zero() -> None:
    for model in models():
        found = unfolded(model.config, model.raw, {})
        assert {name: value.shape for name, value in found.items()} == parameters(model.config)
        assert not any(value.any() for value in found.values())


def test_what_is_no_gradient_of_this_model() -> None:
    model = models()[0]
    g = model.g["entry.shape"]
    with pytest.raises(dpa2.InputError, match=r"'entry\.shape'"):
        unfolded(model.config, model.raw, {"entry.shape": g[1:]})
    with pytest.raises(dpa2.InputError, match="does not have"):
        unfolded(model.config, model.raw, {"entry.form": g})
