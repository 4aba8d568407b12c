"""Every fold is exact: operations on folded tensors, written out here, are the reference's on the raw weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from cases import GOLDEN
from dpa2 import ModelFileError, _native
from dpa2.files import read
from dpa2.reference.activation import activation
from dpa2.reference.common import EdgeList, Weights
from dpa2.reference.embedding_net import embedding_net
from dpa2.reference.env_mat import pad_row
from dpa2.reference.fitting import fitting
from dpa2.reference.g2_embed import RepformerEdges
from dpa2.reference.local_attention import local_attention
from dpa2.reference.pair_attention import SHIFT, pair_attention, softmax
from dpa2.reference.repinit import embed
from dpa2.reference.residual_update import residual_update
from dpa2.reference.tabulate import nodes, tabulate
from dpa2.reference.type_embedding import type_embedding
from helpers import CASES, golden, relative
from kind_cases import KIND_CASES, load_kind
from pages import ROOT
from random_model import draw_options, random_model

EXACT = 1e-13
NATOMS, NEIGHBOURS = 4, 3
RANDOM = 25
Array = np.ndarray[Any, Any]
ACTIVATIONS = {"linear": 0, "none": 0, "tanh": 1, "relu": 2, "relu6": 3, "sigmoid": 4, "softplus": 5, "gelu": 6,
               "gelu_tf": 6, "silu": 7, "silut": 8, "custom_silu": 8}  # fmt: skip


@dataclass
class Model:
    """A model, raw and folded."""

    name: str
    config: dict[str, Any]
    raw: Weights
    folded: dict[str, Array]
    rng: np.random.Generator

    @property
    def descriptor(self) -> dict[str, Any]:
        return self.config["descriptor"]

    @property
    def repformer(self) -> dict[str, Any]:
        return self.descriptor["repformer"]

    @property
    def grids(self) -> dict[str, Any]:
        return self.config.get("compression") or {}

    def layers(self) -> Iterator[tuple[int, str, str, bool]]:
        """Number, name among the raw tensors, name among the folded ones, whether it is the last."""
        count = self.repformer["nlayers"]
        for number in range(count):
            yield number, f"descriptor.repformers.layers.{number}", f"layers.{number}", number == count - 1

    def equal(self, what: str, found: Any, expected: Any) -> bool:
        """Asserts it; True, so that a test can say that something was compared."""
        assert relative(found, expected) <= EXACT, f"{what} of {self.name}"
        return True

    def absent(self, *names: str) -> None:
        found = [key for key in self.folded if any(key == name or key.startswith(f"{name}.") for name in names)]
        assert found == [], self.name


def make(name: str, config: dict[str, Any], weights: dict[str, Array]) -> Model:
    folded = _native.folded(json.dumps(config), weights)
    return Model(name, config, Weights(weights), folded, np.random.default_rng(len(name)))


@cache
def models() -> list[Model]:
    """All cases, compressed ones and those of other kinds too, and random models."""
    found = [make(name, golden(name).config, golden(name).weights) for name in CASES]
    for path in sorted((GOLDEN / "compressed").glob("*.pth")):
        data = read(path, None)
        found.append(make(f"compressed {path.stem}", data.config, data.weights))
    for case in KIND_CASES:
        if not case.children:
            data = load_kind(case)
            found.append(make(case.name, data.config, data.weights))
    for seed in range(RANDOM):
        rng = np.random.default_rng(seed)
        found.append(make(f"random {seed}", *random_model(rng, **draw_options(rng))))
    return found


def hidden(model: Model, at: str, act: str, x: Array, pre: Array | None = None) -> Array:
    """A folded hidden layer on rows x; `pre`: its product before the activation, where that is not x w + b."""
    f = model.folded
    z = x @ f[f"{at}.w"] + f[f"{at}.b"] if pre is None else pre
    y = activation(act)(z) * f.get(f"{at}.idt", np.ones((1, 1)))
    return y + np.tile(x, int(f[f"{at}.skip"])) if f[f"{at}.skip"] else y


def test_type_embedding() -> None:
    assert len(models()) > RANDOM
    for model in models():
        assert model.equal("type embedding", model.folded["type_embedding"], type_embedding(model.config, model.raw))


@pytest.mark.parametrize(
    ("block", "raw", "prefix"),
    [
        ("repinit", "descriptor.repinit", "repinit."),
        ("three_body", "descriptor.repinit_three_body", "repinit.three_body_"),
        ("repformer", "descriptor.repformers", "repformer."),
    ],
)
def test_statistics(block: str, raw: str, prefix: str) -> None:
    for model in models():
        if block == "three_body" and not model.descriptor["repinit"]["use_three_body"]:
            model.absent("three_body")
            continue
        f, mean, stddev = model.folded, model.raw[f"{raw}.mean"], model.raw[f"{raw}.stddev"]
        section, _, key = prefix.partition(".")
        rcut, smooth = (model.descriptor[section][f"{key}{name}"] for name in ("rcut", "rcut_smth"))
        np.testing.assert_array_equal(f[f"{block}.mean"], mean)
        np.testing.assert_array_equal(f[f"{block}.stddev"], stddev)
        model.equal("standard deviations", f[f"{block}.inv_std"] * stddev, np.ones_like(stddev))
        model.equal("padding", f[f"{block}.pad"], pad_row(mean, stddev))
        assert f[f"{block}.rcut_smth"] == smooth
        assert f[f"{block}.protection"] == model.descriptor["env_protection"]
        model.equal("width of the switch", f[f"{block}.inv_width"] * (rcut - smooth), 1.0)
        counts = {"repinit": ("inv_nsel", "nsel", 1), "three_body": ("inv_nsel_squared", "three_body_sel", 2)}
        if block in counts:
            name, sel, power = counts[block]
            model.equal(name, f[f"{block}.{name}"] * model.descriptor["repinit"][sel] ** power, 1.0)


@pytest.mark.parametrize("block", ["repinit", "three_body"])
def test_embedding_nets(block: str) -> None:
    for model in models():
        option, f = model.descriptor["repinit"], model.folded
        if block == "three_body" and not option["use_three_body"]:
            continue
        raw = "descriptor.repinit" if block == "repinit" else "descriptor.repinit_three_body"
        act, neuron = option["activation_function"], option["neuron" if block == "repinit" else "three_body_neuron"]
        one_side, strip = option["type_one_side"] and block == "repinit", option["tebd_input_mode"] == "strip"
        tebd = type_embedding(model.config, model.raw)
        n = len(tebd)
        types = tebd if one_side else np.array([[*tebd[a], *tebd[b]] for a in range(n) for b in range(n)])
        net = (model.raw, f"{raw}.filter_layers.networks.0", len(neuron), activation(act), option["resnet_dt"])
        s = np.linspace(-0.7, 1.9, 5)
        rows = 1 if strip else len(types)
        inputs = [s[:, None]] if strip else [np.array([[v, *row] for v in s]) for row in types]
        assert f[f"{block}.typed"] == int(not strip)
        assert f[f"{block}.type_term"].shape == (rows, neuron[0])
        for row, x in enumerate(inputs):
            at = f"{block}.layers.0"
            first = np.zeros((len(s), int(f[f"{at}.in"])))
            first[:, 0] = s
            if f[f"{at}.skip"]:
                first[:, 1:] = f[f"{block}.type_skip"][row, 1:]
            pre = s[:, None] * f[f"{at}.w"] + f[f"{block}.type_term"][row]
            y = hidden(model, at, act, first, pre)
            for number in range(1, len(neuron)):
                y = hidden(model, f"{block}.layers.{number}", act, y)
            model.equal("embedding net", y, embedding_net(x, *net))
        if strip:
            gate = embedding_net(types, model.raw, f"{raw}.filter_layers_strip.networks.0", *net[2:])
            model.equal("gate", f[f"{block}.gate"], gate)
        else:
            model.absent(f"{block}.gate")
        grid = model.grids.get(block)
        if grid is None:
            model.absent(f"{block}.table")
            continue
        np.testing.assert_array_equal(f[f"{block}.table.nodes"][0], nodes(grid))
        np.testing.assert_array_equal(f[f"{block}.table.coefficients"], model.raw[f"{raw}.table"])


def test_compressed_models_are_among_these() -> None:
    assert any(grid is not None for model in models() for grid in model.grids.values())


def test_padded_slots() -> None:
    seen = 0
    for model in models():
        mean, stddev = model.raw["descriptor.repinit.mean"], model.raw["descriptor.repinit.stddev"]
        if not pad_row(mean, stddev).any():
            model.absent("repinit.pad_embedding")
            continue
        seen += 1
        n, tebd = len(mean), type_embedding(model.config, model.raw)
        first, centre = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
        s, phi = pad_row(mean, stddev)[centre, 0], activation(model.descriptor["repinit"]["activation_function"])
        g = embed(s, np.zeros(n * n), first, centre, tebd, model.descriptor, model.raw, phi, model.grids.get("repinit"))
        model.equal("padded embedding", model.folded["repinit.pad_embedding"], g)
    assert seen > 5


@pytest.mark.parametrize("beyond", [-40.0, 40.0])
def test_padded_slots_beyond_a_table(beyond: float) -> None:
    """The table of a compressed model goes on as a straight line."""
    data = read(GOLDEN / "compressed" / "single.pth", None)
    weights = dict(data.weights)
    weights["descriptor.repinit.mean"] = np.full_like(weights["descriptor.repinit.mean"], beyond)
    weights["descriptor.repinit.stddev"] = np.ones_like(weights["descriptor.repinit.stddev"])
    model = make("beyond", data.config, weights)
    grid, n = model.grids["repinit"], len(weights["descriptor.repinit.mean"])
    assert not nodes(grid)[0] <= -beyond <= nodes(grid)[-1]
    strip = model.descriptor["repinit"]["tebd_input_mode"] == "strip"
    curve = np.zeros(n * n, int) if strip else np.arange(n * n)
    if model.descriptor["repinit"]["type_one_side"]:
        curve //= n
    expected = tabulate(np.full(n * n, -beyond), curve, grid, model.raw["descriptor.repinit.table"])
    model.equal("padded embedding", model.folded["repinit.pad_embedding"], expected)


def test_entry() -> None:
    for model in models():
        f, raw, name = model.folded, model.raw, "descriptor.g1_shape_tranform.matrix"
        if name in raw:
            np.testing.assert_array_equal(f["entry.shape"], raw[name])
        else:
            model.absent("entry.shape")
        if model.descriptor["add_tebd_to_repinit_out"]:
            term = type_embedding(model.config, raw) @ raw["descriptor.tebd_transform.matrix"]
            model.equal("type term", f["entry.type_term"], term)
        else:
            model.absent("entry.type_term")
        np.testing.assert_array_equal(f["repformer.g2.w"], raw["descriptor.repformers.g2_embd.matrix"])
        np.testing.assert_array_equal(f["repformer.g2.b"][0], raw["descriptor.repformers.g2_embd.bias"])
        model.equal("cutoff", f["repformer.inv_rcut"] * model.repformer["rcut"], 1.0)
        assert f["repformer.attention_shift"] == (SHIFT if model.descriptor["smooth"] else 0.0)


def test_activations() -> None:
    sections = {"repinit": ("descriptor", "repinit"), "repformer": ("descriptor", "repformer"), "fitting": ()}
    for model in models():
        for name, (*path,) in sections.items():
            option = model.config[path[0]][path[1]] if path else model.config["fitting_net"]
            kind, threshold, slope, offset = model.folded[f"{name}.activation"][0]
            base, _, argument = option["activation_function"].lower().partition(":")
            assert kind == ACTIVATIONS[base], model.name
            if kind != ACTIVATIONS["silut"]:
                continue
            assert threshold == float(argument or 3.0)
            phi, x = activation(option["activation_function"]), threshold + np.array([0.0, 0.4, 2.0])
            model.equal("silut", np.tanh(slope * (x - threshold)) + offset, phi(x))


def geometry(model: Model) -> RepformerEdges:
    """Four atoms with three neighbours each, drawn at random."""
    rng, ne = model.rng, NATOMS * NEIGHBOURS
    start = np.arange(0, ne + 1, NEIGHBOURS)
    i, j = np.repeat(np.arange(NATOMS), NEIGHBOURS), rng.integers(0, NATOMS, ne)
    d = rng.normal(size=(ne, 3))
    edges = EdgeList(start, i, j, d, np.sqrt((d**2).sum(axis=1)))
    sw = rng.uniform(0.2, 1.0, ne)
    w = sw if model.descriptor["smooth"] else np.ones(ne)
    return RepformerEdges(edges, sw, w, np.ones(NATOMS), np.ones(NATOMS), np.array([5, 0, 2, 1]))


def attention(scores: Array, switches: Array, pad: int, smooth: bool) -> Array:
    return softmax((scores + SHIFT) * switches, pad) * switches if smooth else softmax(scores, 0)


def test_linear1() -> None:
    for model in models():
        option, f, rng = model.repformer, model.folded, model.rng
        n1, n2, axis = option["g1_dim"], option["g2_dim"], option["axis_neuron"]
        conv = option["update_g1_has_conv"] and not option["g1_out_conv"]
        inputs = {
            "g1": n1 if not option["g1_out_mlp"] else 0,
            "conv": n2 if conv else 0,
            "grrg": axis * n2 if option["update_g1_has_grrg"] else 0,
            "drrd": axis * n1 if option["update_g1_has_drrd"] else 0,
        }
        for _, raw, at, _ in model.layers():
            parts = {name: rng.normal(size=(2, width)) for name, width in inputs.items() if width}
            assert [key for key in f if key.startswith(f"{at}.linear1.")] == [
                *(f"{at}.linear1.{name}" for name in parts), f"{at}.linear1.b"
            ], model.name  # fmt: skip
            found = sum(x @ f[f"{at}.linear1.{name}"] for name, x in parts.items()) + f[f"{at}.linear1.b"]
            cat = np.concatenate(list(parts.values()), axis=1)
            model.equal("linear1", found, cat @ model.raw[f"{raw}.linear1.matrix"] + model.raw[f"{raw}.linear1.bias"])


def test_plain_products() -> None:
    for model in models():
        option = model.repformer
        for _, raw, at, last in model.layers():
            pairs = {
                "self.w": ("g1_self_mlp.matrix", option["g1_out_mlp"]),
                "self.b": ("g1_self_mlp.bias", option["g1_out_mlp"]),
                "conv.w": ("proj_g1g2.matrix", option["update_g1_has_conv"]),
                "linear2.w": ("linear2.matrix", not last),
                "linear2.b": ("linear2.bias", not last),
                "g1g1.w": ("proj_g1g1g2.matrix", option["update_g2_has_g1g1"] and not last),
            }
            for name, (source, present) in pairs.items():
                if present:
                    expected = np.atleast_2d(model.raw[f"{raw}.{source}"])
                    np.testing.assert_array_equal(model.folded[f"{at}.{name}"], expected)
                else:
                    model.absent(f"{at}.{name}")


def test_local_attention() -> None:
    compared = 0
    for model in models():
        option, f, smooth = model.repformer, model.folded, model.descriptor["smooth"]
        n1, nh = option["g1_dim"], option["attn1_nhead"]
        for _, raw, at, _ in model.layers():
            if not option["update_g1_has_attn"]:
                model.absent(f"{at}.local_attention")
                continue
            geo, g1 = geometry(model), model.rng.normal(size=(NATOMS, n1))
            found = np.zeros((NATOMS, n1))
            for i in range(NATOMS):
                own = geo.edges.of(i)
                neighbours = g1[geo.edges.j[own]]
                scores = (g1[i] @ f[f"{at}.local_attention.query"]).reshape(nh, n1) @ neighbours.T
                mean = attention(scores, geo.sw[own], int(geo.pad[i]), smooth) @ neighbours
                found[i] = mean.ravel() @ f[f"{at}.local_attention.value"] + f[f"{at}.local_attention.b"][0]
            expected = local_attention(g1, geo, model.descriptor, model.raw, raw)
            compared += model.equal("local attention", found, expected)
    assert compared > len(models())


def test_pair_attention() -> None:
    for model in models():
        option, f, smooth = model.repformer, model.folded, model.descriptor["smooth"]
        n2, nh = option["g2_dim"], option["attn2_nhead"]
        for _, raw, layer, last in model.layers():
            at = f"{layer}.pair_attention"
            if last or not (option["update_g2_has_attn"] or option["update_h2"]):
                model.absent(at)
                continue
            geo, rng = geometry(model), model.rng
            g2, h2 = rng.normal(size=(NATOMS * NEIGHBOURS, n2)), rng.normal(size=(NATOMS * NEIGHBOURS, 3))
            dg2, dh2 = pair_attention(g2, h2, geo, model.descriptor, model.raw, raw)
            for i in range(NATOMS):
                own = geo.edges.of(i)
                g, h, sw = g2[own], h2[own], geo.sw[own]
                product, z, dh = h @ h.T, np.zeros((NEIGHBOURS, n2)), np.zeros((NEIGHBOURS, 3))
                for head in range(nh):
                    block = slice(head * n2, (head + 1) * n2)
                    scores = g @ (g @ f[f"{at}.query"][:, block]).T
                    if option["attn2_has_gate"]:
                        scores = scores * product
                    weight = attention(scores, sw[:, None] * sw[None, :], int(geo.pad[i]), smooth) * product
                    if dg2 is not None:
                        z += weight @ (g @ f[f"{at}.value"][:, block])
                    if dh2 is not None:
                        dh += f[f"{at}.h2"][head, 0] * (weight @ h)
                if dg2 is not None:
                    z = z + f[f"{at}.b"]
                    assert np.abs(z.mean(axis=1)).max() < 1e-12
                    spread = np.sqrt((z**2).mean(axis=1, keepdims=True) + option["ln_eps"])
                    model.equal("attention", z / spread * f[f"{at}.gain"] + f[f"{at}.shift"], dg2[own])
                else:
                    model.absent(f"{at}.value", f"{at}.b", f"{at}.gain", f"{at}.shift")
                if dh2 is not None:
                    model.equal("attention of h2", dh, dh2[own])
                else:
                    model.absent(f"{at}.h2")


def test_residuals() -> None:
    for model in models():
        option, f = model.repformer, model.folded
        for _, raw, at, last in model.layers():
            members = {
                "g1": {
                    "self": option["g1_out_mlp"],
                    "conv": option["update_g1_has_conv"] and option["g1_out_conv"],
                    "linear1": True,
                    "attention": option["update_g1_has_attn"],
                },
                "g2": {
                    "linear2": not last,
                    "g1g1": option["update_g2_has_g1g1"] and not last,
                    "attention": option["update_g2_has_attn"] and not last,
                },
                "h2": {"attention": option["update_h2"] and not last},
            }
            for channel, width in (("g1", option["g1_dim"]), ("g2", option["g2_dim"]), ("h2", 1)):
                names = [name for name, present in members[channel].items() if present]
                prefix = f"{at}.{channel}_residual"
                if not names:
                    model.absent(prefix)
                    continue
                wanted = [f"{prefix}.a", *(f"{prefix}.{name}" for name in names)]
                assert [key for key in f if key.startswith(f"{prefix}.")] == wanted, model.name
                u, *updates = model.rng.normal(size=(1 + len(names), 2, width))
                terms = zip(names, updates, strict=True)
                found = f[f"{prefix}.a"] * u + sum(f[f"{prefix}.{name}"] * update for name, update in terms)
                expected = residual_update(u, updates, option["update_style"], model.raw, f"{raw}.{channel}_residual")
                model.equal(f"residual of {channel}", found, expected)


def test_fitting_and_heads() -> None:
    shifted = 0
    for model in models():
        option, f, rng = model.config["fitting_net"], model.folded, model.rng
        ntypes = len(model.config["type_map"])
        types = np.arange(ntypes)
        width = model.repformer["g1_dim"]
        width += model.descriptor["repinit"]["tebd_dim"] if model.descriptor["concat_output_tebd"] else 0
        descriptor = rng.normal(size=(ntypes, width))
        fparam, aparam = rng.normal(size=option["numb_fparam"]), rng.normal(size=(ntypes, option["numb_aparam"]))

        def net(x: Array, model: Model = model, fparam: Array = fparam, aparam: Array = aparam) -> Array:
            f, option, parts = model.folded, model.config["fitting_net"], [x]
            if "fitting.fparam_avg" in f:
                scaled = (fparam - f["fitting.fparam_avg"]) * f["fitting.fparam_inv_std"]
                parts.append(np.broadcast_to(scaled, (len(x), scaled.size)))
            if "fitting.aparam_avg" in f:
                parts.append((aparam - f["fitting.aparam_avg"]) * f["fitting.aparam_inv_std"])
            if "fitting.case_embd" in f:
                case = f["fitting.case_embd"]
                parts.append(np.broadcast_to(case, (len(x), case.size)))
            y = np.concatenate(parts, axis=1)
            for number in range(len(option["neuron"])):
                y = hidden(model, f"fitting.layers.{number}", option["activation_function"], y)
            return np.asarray(y @ f["fitting.out.w"] + f["fitting.out.b"])

        z = net(descriptor)
        vacuum = any(value is not None for value in option["atom_ener"])
        assert f["head.vacuum"] == vacuum
        if vacuum:
            z = z - net(np.zeros_like(descriptor))
        counted = np.array([float(t not in model.config["atom_exclude_types"]) for t in range(ntypes)])
        np.testing.assert_array_equal(f["head.counted"][0], counted)
        assert ("head.scale" in f) == (option["type"] in ("polar", "property"))
        expected = fitting(descriptor, types, counted, fparam, aparam, model.config, model.raw)
        model.equal("coefficients", (z * f.get("head.scale", 1.0) + f["head.bias"]) * counted[:, None], expected)
        if option["type"] == "polar" and option["shift_diag"]:
            tensors = np.reshape(model.raw["out_bias"], (ntypes, 3, 3))
            diagonal = np.einsum("taa->t", tensors) / 3.0
            shifted += model.equal("shift", f["head.shift"][0], diagonal * option["scale"])
        else:
            model.absent("head.shift")
    assert shifted > 0


def stated_names() -> dict[str, str]:
    """The names in the table of src/fold/folded.hpp, with the expressions that they stand for."""
    letters = {"B": "(repinit|three_body|repformer)", "N": "(repinit|three_body)", "L": r"layers\.\d+"}
    found = {}
    for line in (ROOT / "src" / "fold" / "folded.hpp").read_text(encoding="utf-8").splitlines():
        row = re.match(r"//   (\S.*?\S)  +\S", line)
        if row is None or row[1] == "name":
            continue
        parent = ""
        for name in re.split("[,;] ", row[1]):
            full = parent + name if name.startswith(".") else name
            parent = parent if name.startswith(".") else name.rpartition(".")[0]
            first, *others = full.split(".")
            numbers = [r"\d+" if part == "L" else r"\w+" if part == "*" else part for part in others]
            found[full] = r"\.".join([letters.get(first, first), *numbers])
    return found


def test_the_names_are_those_of_the_table() -> None:
    names, table = {name for model in models() for name in model.folded}, stated_names()
    assert {name for name in names if not any(re.fullmatch(stated, name) for stated in table.values())} == set()
    assert [entry for entry, stated in table.items() if not any(re.fullmatch(stated, name) for name in names)] == []


def test_the_weights_are_checked() -> None:
    data = golden("base")
    text, name = json.dumps(data.config), "descriptor.repinit.stddev"
    with pytest.raises(ModelFileError, match=f"'{name}'"):
        _native.folded(text, {key: value for key, value in data.weights.items() if key != name})
    with pytest.raises(ModelFileError, match=name):
        _native.folded(text, {**data.weights, name: np.zeros_like(data.weights[name])})


def test_what_is_folded_is_a_copy() -> None:
    data = golden("base")
    before = {name: value.copy() for name, value in data.weights.items()}
    for value in _native.folded(json.dumps(data.config), data.weights).values():
        value[...] = np.nan
    for name, value in data.weights.items():
        np.testing.assert_array_equal(value, before[name])
