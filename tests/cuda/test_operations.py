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
from helpers import golden, relative
from host_lists import incoming

Arrays = dict[str, np.ndarray]
STEP, BOUND = 1e-4, 1e-8
N, COUNT = 4, (3, 0, 7, 2)
CUTOFF = (1.0, 1.0 / 2.5, 0.1)  # rcut_smth, 1/(rcut - rcut_smth), protection


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


def test_direct_distances() -> None:
    """Rows that are distances and displacements themselves; the switch is that of the environment matrix."""
    direct = 0.3
    e, run = edges(), launcher()
    statistics = draw(1, mean=(3, 4), inv_std=(3, 4))
    d = draw(2, d=(e.number, 3))["d"]

    def forward(inputs: Arrays) -> Arrays:
        r = np.sqrt((inputs["d"] ** 2).sum(axis=1))
        R, sw = run.array("R", e.number, 4), run.array("sw", e.number)
        run.run("env_mat.cu", "env_mat", 1, e.number, R, sw, inputs["d"], r, None, e.centre, e.types,
                statistics["mean"], statistics["inv_std"], *CUTOFF)  # fmt: skip
        R = np.concatenate([r[:, None], inputs["d"]], axis=1) * direct
        return {"R": R.copy(), "sw": sw.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        r = np.sqrt((inputs["d"] ** 2).sum(axis=1))
        gamma = np.ones((e.number, 3))
        edge = np.arange(e.number, dtype=np.int32)
        run.run("env_mat.cu", "env_mat_backward", 1, e.number, gamma, 1, seeds["R"], seeds["sw"], inputs["d"], r,
                edge, e.centre, e.types, statistics["inv_std"], *CUTOFF, direct)  # fmt: skip
        return {"d": gamma - 1.0}

    assert_adjoint(forward, backward, {"d": d})


@pytest.mark.parametrize("name", ["base", "strip", "resnet_dt", "one_side_strip"])
def test_repinit(name: str) -> None:
    e, model, run = edges(), prepared(name), launcher()
    net = model.net_repinit
    head = (
        model.ng,
        model.axis_repinit,
        model.ntypes,
        int(model.one_side),
        int(model.smooth),
        model.inv_nsel,
        model.nd,
    )

    def shared(copies: int) -> int:
        return run.numbers(4 * model.ng + 5 * run.lanes + copies * net.shared(run.lane_row))

    def forward(inputs: Arrays) -> Arrays:
        D, M = run.zeros("D", N, model.nd), run.array("M", N, 4, model.ng)
        run.run("repinit.cu", "repinit", N, *head, D, M, inputs["R"], inputs["sw"], e.start, e.j, e.types, *net.arrays,
                net.gate, None, None, None, shared=shared(1), defines=net.defines)  # fmt: skip
        return {"D": D.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        forward(inputs)
        dR, dsw = run.array("dR", e.number, 4), run.array("dsw", e.number)
        run.run("repinit.cu", "repinit_backward", N, *head, dR, dsw, seeds["D"], run.array("M", N, 4, model.ng),
                inputs["R"], inputs["sw"], e.start, e.j, e.types, *net.arrays, net.gate, shared=shared(2),
                defines=net.defines)  # fmt: skip
        return {"R": dR, "sw": dsw}

    assert_adjoint(forward, backward, draw(3, R=(e.number, 4), sw=(e.number,)))


@pytest.mark.parametrize("name", ["base", "strip", "davg_strip"])
def test_three_body(name: str) -> None:
    e, model, run = edges(), prepared(name), launcher()
    net, most = model.net_three, max(COUNT)
    edge, pad = np.arange(e.number, dtype=np.int32), np.array([3, 1, 0, 5], dtype=np.int32)
    head = (model.n3, model.ntypes, int(model.smooth), model.inv_nsel_squared, model.n3, 0, most)
    tail = (e.start, edge, e.j, e.types, *net.arrays, net.gate, pad, model.pad_v)

    def shared(copies: int) -> int:
        numbers = 4 * copies * (most + 1) + (1 + 2 * copies) * run.lanes + model.n3
        return run.numbers(numbers + copies * net.shared(run.lane_row), run.lanes + most + 1)

    def forward(inputs: Arrays) -> Arrays:
        Q = run.array("Q", N, model.n3)
        run.run("three_body.cu", "three_body", N, *head, Q, inputs["R"], inputs["sw"], *tail, shared=shared(1),
                defines=net.defines)  # fmt: skip
        return {"Q": Q * 1e3}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        dR, dsw = run.array("dR", e.number, 4), run.array("dsw", e.number)
        run.run("three_body.cu", "three_body_backward", N, *head, dR, dsw, seeds["Q"] * 1e3, inputs["R"], inputs["sw"],
                *tail, shared=shared(2), defines=net.defines)  # fmt: skip
        return {"R": dR, "sw": dsw}

    assert_adjoint(forward, backward, draw(4, R=(e.number, 4), sw=(e.number,)))


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


def test_assemble() -> None:
    """Against the sums as they are defined."""
    e, run = edges(), launcher()
    given = draw(23, gamma=(e.number, 3), d=(e.number, 3))
    gamma, d = given["gamma"], given["d"]
    force, virials, atom_virial = np.empty((N, 3)), np.empty((N, 9)), np.empty((N, 9))
    run.run("assemble.cu", "assemble", 1, N, force, virials, atom_virial, gamma, d, e.start, e.incoming.begin,
            e.incoming.edges)  # fmt: skip
    total = np.empty(9)
    run.run("assemble.cu", "column_sums", 9, N, 9, total, virials, block=256)
    expected = np.zeros((N, 3))
    np.add.at(expected, e.centre, gamma)
    np.add.at(expected, e.j, -gamma)
    share = -np.einsum("ek,el->ekl", gamma, d).reshape(-1, 9)
    halves = np.zeros((N, 9))
    np.add.at(halves, e.centre, 0.5 * share)
    np.add.at(halves, e.j, 0.5 * share)
    for found, wanted in ((force, expected), (total, share.sum(axis=0)), (atom_virial, halves)):
        assert relative(found, wanted) <= 1e-14
    assert relative(atom_virial.sum(axis=0), total) <= 1e-14
