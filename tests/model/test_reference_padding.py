"""The closed forms for padded slots against the same operations with every padded slot written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dpa2.reference import ReferenceModel
from dpa2.reference.activation import activation
from dpa2.reference.common import segment_sum
from dpa2.reference.embedding_net import embedding_net
from dpa2.reference.env_mat import env_mat
from dpa2.reference.neighbors import Edges, block_list, build
from dpa2.reference.pair_attention import softmax
from dpa2.reference.repinit import embed, repinit
from dpa2.reference.three_body import three_body
from random_model import random_model, random_structure

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "one_side": {"repinit": {"type_one_side": True}},
    "strip": {"repinit": {"tebd_input_mode": "strip"}},
    "rough": {"descriptor": {"smooth": False}},
    "rough_strip": {"descriptor": {"smooth": False}, "repinit": {"tebd_input_mode": "strip"}},
    "excluded": {"descriptor": {"exclude_types": [[0, 2]]}, "pair_exclude_types": [[1, 1]]},
}


def padded(
    block: str, rcut: float, rcut_smth: float, nsel: int, edges: Edges, types: Any, model: ReferenceModel
) -> Any:
    """Rows (n, nsel, 4), switches, neighbour types and use (each (n, nsel)) of a list with all its slots."""
    option, weights, n = model.config["descriptor"], model.weights, len(types)
    mean, stddev = weights[f"descriptor.{block}.mean"], weights[f"descriptor.{block}.stddev"]
    compact = block_list(edges, block.removeprefix("repinit_"))
    pad = edges.pad_repinit if block == "repinit" else edges.pad_three
    filled, sw = env_mat(
        compact.d, compact.r, types[compact.i], mean, stddev, rcut_smth, rcut, option["env_protection"]
    )
    rows = np.broadcast_to((-mean / stddev)[types][:, None, :], (n, nsel, 4)).copy()
    switches, neighbour_types = np.zeros((n, nsel)), np.full((n, nsel), types[0])
    use = np.zeros((n, nsel))
    for i in range(n):
        own, count = compact.of(i), int(compact.count[i])
        rows[i, :count], switches[i, :count] = filled[own], sw[own]
        neighbour_types[i, :count] = types[compact.j[own]]
        use[i, : count + int(pad[i])] = 1.0  # the slots of pairs that the descriptor excludes stay out
    return rows, switches, neighbour_types, use


def setup(name: str) -> tuple[ReferenceModel, Any, Edges]:
    rng = np.random.default_rng(31)
    sel = {"nsel": 25, "three_body_sel": 14}
    options = {**OPTIONS[name], "repinit": {**OPTIONS[name].get("repinit", {}), **sel}, "repformer": {"nsel": 14}}
    model = ReferenceModel(*random_model(rng, davg=0.4, davg_vector=True, **options))
    coords, types, box, pbc = random_structure(rng, 3, 7, "triclinic")
    return model, types, build(coords, types, box, pbc, model.config)


@pytest.mark.parametrize("name", OPTIONS)
def test_repinit(name: str) -> None:
    model, types, edges = setup(name)
    config, option = model.config["descriptor"], model.config["descriptor"]["repinit"]
    rows, sw, tj, use = padded("repinit", option["rcut"], option["rcut_smth"], option["nsel"], edges, types, model)
    assert edges.pad_repinit.max() > 0
    phi, ti = activation("tanh"), np.repeat(types, option["nsel"])
    g = embed(rows[..., 0].ravel(), sw.ravel(), tj.ravel(), ti, model.network.tebd, config, model.weights, phi, None)
    moments = np.einsum("nk,nkm,nkc->nmc", use, rows, g.reshape(*rows.shape[:2], -1)) / option["nsel"]
    expected = np.einsum("nmc,nma->nca", moments, moments[:, :, : option["axis_neuron"]]).reshape(len(types), -1)
    got = repinit(block_list(edges, "repinit"), edges.pad_repinit, types, model.network.tebd, config, model.weights)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("name", OPTIONS)
def test_three_body(name: str) -> None:
    model, types, edges = setup(name)
    config, option = model.config["descriptor"], model.config["descriptor"]["repinit"]
    rcut, smth, sel = option["three_body_rcut"], option["three_body_rcut_smth"], option["three_body_sel"]
    rows, sw, tj, use = padded("repinit_three_body", rcut, smth, sel, edges, types, model)
    assert edges.pad_three.max() > 0
    net = "descriptor.repinit_three_body.filter_layers"
    e = np.einsum("njx,nkx->njk", rows[..., 1:], rows[..., 1:])
    shape = (len(types), sel, sel, model.network.tebd.shape[1])
    pairs = [
        np.broadcast_to(model.network.tebd[tj][:, :, None], shape),
        np.broadcast_to(model.network.tebd[tj][:, None], shape),
    ]
    layers, phi = len(option["three_body_neuron"]), activation("tanh")

    def run(suffix: str, *parts: Any) -> Any:
        return embedding_net(
            np.concatenate(parts, axis=-1), model.weights, f"{net}{suffix}.networks.0", layers, phi, False
        )

    if option["tebd_input_mode"] == "strip":
        gate = sw[:, :, None] * sw[:, None, :] if config["smooth"] else np.ones_like(e)
        h = run("", e[..., None]) * (1.0 + run("_strip", *pairs) * gate[..., None])
    else:
        h = run("", e[..., None], *pairs)
    expected = np.einsum("nj,nk,njk,njkc->nc", use, use, e, h) / sel**2
    got = three_body(block_list(edges, "three_body"), edges.pad_three, types, model.network.tebd, config, model.weights)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("pad", [0, 1, 7])
def test_softmax(pad: int) -> None:
    """Padded slots have the logit -20 where real ones have b - 20."""
    b = np.random.default_rng(32).normal(scale=10.0, size=(3, 4, 5)) - 5.0
    logits = np.concatenate([b - 20.0, np.full((3, 4, pad), -20.0)], axis=-1)
    dense = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(softmax(b, pad), dense[..., :5], rtol=1e-13)


def test_softmax_of_extreme_logits() -> None:
    b = np.array([[-1e6, -1e6], [1e6, 0.0]])
    np.testing.assert_array_equal(softmax(b, 0), [[0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_array_equal(softmax(b, 3), [[0.0, 0.0], [1.0, 0.0]])


def test_sums_over_segments_with_empty_ones() -> None:
    values = np.arange(12.0).reshape(6, 2)
    got = segment_sum(values, np.array([0, 0, 2, 2, 6, 6]))
    np.testing.assert_array_equal(got, [[0, 0], [2, 4], [0, 0], [28, 32], [0, 0]])
    assert segment_sum(values[:0], np.array([0, 0, 0])).tolist() == [[0, 0], [0, 0]]
