"""The first blocks with series in place of their networks, and the networks for what is outside of their range.

As test_entry.py: forward against the reference, gradients against the reference's exact derivative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from entry_checks import REPINIT, assert_right, small
from entry_kernels import Edges, EntryKernels, draw_edges

slow = pytest.mark.slow
#: most lengths of lists about which kernels think: parts of a tile, tiles, bands of pairs
COUNTS = [[0, 1, 2, 31, 33, 90, 7]]
CLOSE = 6  # the centre of which one neighbour is too near


def with_a_close_pair(edges: Edges) -> Edges:
    first = edges.start[CLOSE]
    edges.d[first] *= 0.1 / np.sqrt((edges.d[first] ** 2).sum())
    edges.three[CLOSE] = max(1, edges.three[CLOSE])
    return edges


def draw(seed: int, ntypes: int = 3) -> Edges:
    return with_a_close_pair(draw_edges(seed, COUNTS, ntypes))


def of_the_networks(kernels: EntryKernels) -> tuple[list[int], list[int], list[int]]:
    """Centres whose columns of repinit and of the three-body block need the networks, and edges whose gradients from
    repinit do: all are broken, and answers show it."""
    blocks = [kernels.repinit, *([kernels.three] if kernels.n3 else [])]
    whole = [block.args["weights"] for block in blocks]
    out = kernels.forward()
    seeds = {name: np.zeros(value.shape) for name, value in out.items()}
    seeds["D"][:, : kernels.nd - kernels.n3] = 1
    try:
        for block in blocks:
            block.args["weights"] = np.full_like(block.args["weights"], np.nan)
        kernels.n3, n3 = 0, kernels.n3
        gamma = kernels.backward(seeds)
        kernels.n3 = n3
        D = kernels.forward()["D"]
    finally:
        for block, weights in zip(blocks, whole, strict=True):
            block.args["weights"] = weights
    split = kernels.nd - n3
    broken = (D[:, :split], D[:, split:], gamma)
    repinit, three, edges = (np.flatnonzero(np.isnan(value).any(axis=1)).tolist() for value in broken)
    return repinit, three, edges


def only_the_close_pair(kernels: EntryKernels) -> None:
    first = int(kernels.edges.start[CLOSE])
    assert of_the_networks(kernels) == ([CLOSE], [CLOSE] if kernels.n3 else [], [first])


@pytest.mark.parametrize(
    ("name", "precision"),
    [("base", "double"), ("strip", "double"), pytest.param("odd", "double", marks=slow), ("strip", "float"),
     pytest.param("resnet_dt", "double", marks=slow), pytest.param("one_side", "double", marks=slow),
     pytest.param("one_side_strip", "double", marks=slow), pytest.param("no_three_body", "double", marks=slow),
     pytest.param("base", "float", marks=slow)],
)  # fmt: skip
def test_options(name: str, precision: str) -> None:
    config, weights = small(repinit=REPINIT[name], davg=0.3, davg_vector=True)
    only_the_close_pair(assert_right(config, weights, draw(2), precision, warps=2))


@pytest.mark.parametrize("ntypes", [pytest.param(1, marks=slow), pytest.param(2, marks=slow), 4])
@pytest.mark.parametrize("mode", [pytest.param("concat", marks=slow), "strip"])
def test_types(ntypes: int, mode: str) -> None:
    """Without the switch in the gate, where there is one."""
    model = small(ntypes=ntypes, descriptor={"smooth": False}, repinit={"tebd_input_mode": mode})
    only_the_close_pair(assert_right(*model, draw(3, ntypes), warps=2))


@slow
@pytest.mark.parametrize("warps", [1, 3, 4])
@pytest.mark.parametrize("mode", ["concat", "strip"])
def test_centres_of_a_block(warps: int, mode: str) -> None:
    """Also more warps than centres that are left."""
    options = {"tebd_input_mode": mode, "three_body_neuron": [3]}
    assert_right(*small(repinit=options), draw_edges(4, [[5, 0, 20, 1, 9]]), "float", warps=warps)


@slow
@pytest.mark.parametrize("mode", ["concat", "strip"])
@pytest.mark.parametrize("precision", ["double", "float"])
def test_long_lists(mode: str, precision: str) -> None:
    """Several tiles of edges, and of pairs more than are done at a time."""
    options = {"tebd_input_mode": mode, "neuron": [4], "three_body_neuron": [3]}
    edges = draw_edges(5, [[500, 2], [200, 129]])
    edges.three = np.minimum(edges.three, 200)
    assert_right(*small(repinit=options, davg=0.3, davg_vector=True), edges, precision, warps=1)


@pytest.mark.parametrize("mode", [pytest.param("concat", marks=slow), "strip"])
@pytest.mark.parametrize("precision", ["double", pytest.param("float", marks=slow)])
def test_many_neighbours_too_near(mode: str, precision: str) -> None:
    """More than the network has at a time, among others and alone."""
    edges = draw_edges(9, [[40, 100, 3]])
    near = np.concatenate([np.arange(40), 40 + np.arange(0, 100, 3)])
    edges.d[near] *= 0.2
    edges.three[:] = [35, 40, 3]
    model = small(davg=0.3, davg_vector=True, repinit={"tebd_input_mode": mode, "neuron": [4, 9], "axis_neuron": 3})
    kernels = assert_right(*model, edges, precision, warps=3)
    repinit, three, outside = of_the_networks(kernels)
    assert (repinit, three) == ([0, 1], [0, 1])
    assert set(outside) >= set(near[np.linalg.norm(edges.d[near], axis=1) < 0.59].tolist())


@slow
def test_wide_networks() -> None:
    """More channels than the lanes of a warp have at a time, and more than series need room for."""
    for neuron, three in (([65, 130], [33]), ([5, 400, 9], [5, 450, 3])):
        options = {"neuron": neuron, "axis_neuron": 3, "three_body_neuron": three}
        only_the_close_pair(assert_right(*small(repinit=options), draw(6), warps=1))


@slow
@pytest.mark.parametrize("ntypes", [8, 9])
def test_many_kinds_of_neighbours(ntypes: int) -> None:
    """With a gate, groups of pairs are numbered by kinds of neighbours: pairs of too many go through the network."""
    model = small(ntypes=ntypes, repinit={"tebd_input_mode": "strip", "three_body_neuron": [3]})
    edges = draw_edges(7, [[30] * 12], ntypes)
    edges.types[:] = np.arange(12) % ntypes
    kernels = assert_right(*model, edges, warps=2)
    kinds = [len(set(edges.types[edges.j[a : a + n]])) for a, n in zip(edges.start, edges.three, strict=False)]
    assert max(kinds) == ntypes
    assert of_the_networks(kernels) == ([], [i for i, n in enumerate(kinds) if n > 8], [])


def test_one_answer_whatever_the_schedule() -> None:
    """Blocks and threads in any order, bit by bit the same."""
    config, weights = small(davg=0.3, davg_vector=True, repinit={"tebd_input_mode": "strip"})
    edges = draw(8)
    seen = set()
    for seed in (None, 1, 2):
        kernels = EntryKernels(config, weights, EmulatedDevice(seed), "float", warps=2)
        kernels.lists(edges, edges.d)
        out = kernels.forward()
        seeds = {name: np.sin(np.arange(value.size)).reshape(value.shape) for name, value in out.items()}
        seen.add(b"".join(value.tobytes() for value in [*out.values(), kernels.backward(seeds)]))
    assert len(seen) == 1


@slow
def test_as_exact_as_the_networks_in_float32() -> None:
    """Against double: the series of this precision are as near as its networks are, but for chance."""
    errors: dict[int, list[float]] = {0: [], 2: []}  # by warps: networks, series
    for seed in range(6):
        config, weights = small(seed, repinit={"tebd_input_mode": ("concat", "strip")[seed % 2]})
        edges = draw_edges(seed, [[40, 25, 60]])

        def run(precision: str, warps: int, model: Any = (config, weights), edges: Edges = edges) -> Any:
            kernels = EntryKernels(*model, EmulatedDevice(1), precision, warps=warps)
            kernels.lists(edges, edges.d)
            out = kernels.forward()
            seeds = {name: np.ones(value.shape) * (name == "D") for name, value in out.items()}
            return out["D"].astype(np.float64), kernels.backward(seeds).astype(np.float64)

        exact = run("double", 0)
        for warps, found in errors.items():
            for value, right in zip(run("float", warps), exact, strict=True):
                found.append(float(((value - right) ** 2).mean() / (right**2).mean()))
    network, series = (float(np.sqrt(np.mean(found))) for found in errors.values())
    assert series <= 1.3 * network
    assert series <= 5e-7
