"""Every CUDA operation by itself on the emulated device: its backward against central differences of its forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from dpa2.cuda.fitting import Fitting
from dpa2.cuda.geometry import BlockList, Geometry, Incoming, Lists, _incoming
from dpa2.cuda.launcher import Launcher, lead
from dpa2.cuda.prepared import Prepared, activation_defines
from helpers import golden, relative

Arrays = dict[str, np.ndarray]
STEP, BOUND = 1e-4, 1e-8
N, COUNT = 4, (3, 0, 7, 2)
SILU = activation_defines("silu")  # neither its value nor its slope is a function of the other
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
    return Edges(start, j, centre, _incoming(np, j, N), np.array([0, 2, 1, 0], dtype=np.int32))


def launcher() -> Launcher:
    return Launcher(EmulatedDevice(seed=11), "float64")


def draw(seed: int, **shapes: tuple[int, ...]) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def weights_in(inputs: Arrays) -> Arrays:
    """The same with w (weights of edges) between 0 and 1."""
    return inputs | {"w": 1.0 / (1.0 + np.exp(-inputs["w"]))}


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


@pytest.mark.parametrize("direct", [0.0, 0.3])
def test_env_mat(direct: float) -> None:
    e, run = edges(), launcher()
    statistics = draw(1, mean=(3, 4), inv_std=(3, 4))
    d = draw(2, d=(e.number, 3))["d"]

    def forward(inputs: Arrays) -> Arrays:
        r = np.sqrt((inputs["d"] ** 2).sum(axis=1))
        R, sw = run.array("R", e.number, 4), run.array("sw", e.number)
        run.run("env_mat.cu", "env_mat", 1, e.number, R, sw, inputs["d"], r, None, e.centre, e.types,
                statistics["mean"], statistics["inv_std"], *CUTOFF)  # fmt: skip
        if direct:
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
    net = model.net1
    head = (model.ng, model.axis1, model.ntypes, int(model.one_side), int(model.smooth), model.inv_nsel1, model.nd)

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
    net, most = model.net3, max(COUNT)
    edge, pad = np.arange(e.number, dtype=np.int32), np.array([3, 1, 0, 5], dtype=np.int32)
    head = (model.n3, model.ntypes, int(model.smooth), model.inv_nsel3, model.n3, 0, most)
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


def test_g2_embed() -> None:
    e, run, n2 = edges(), launcher(), 5
    fixed = draw(5, weight=(n2,), bias=(n2,), d=(e.number, 3), r=(e.number,))
    edge = np.arange(e.number, dtype=np.int32)

    def forward(inputs: Arrays) -> Arrays:
        g2, h2 = run.array("g2", e.number, n2), run.array("h2", e.number, 3)
        x, w = run.array("x", e.number), run.array("w", e.number)
        run.run("g2_embed.cu", "g2_embed", 2, e.number, n2, 1, 0.0, g2, h2, x, w, inputs["R"], fixed["r"], fixed["d"],
                fixed["r"], edge, fixed["weight"], fixed["bias"], defines=SILU)  # fmt: skip
        return {"g2": g2.copy(), "h2": h2.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        forward(inputs)
        dR = run.array("dR", e.number, 4)
        run.warps("g2_embed.cu", "g2_embed_backward", e.number, n2, dR, seeds["g2"], seeds["h2"],
                  run.array("x", e.number), fixed["weight"], fixed["bias"], defines=SILU)  # fmt: skip
        return {"R": dR}

    assert_adjoint(forward, backward, draw(6, R=(e.number, 4)))


@pytest.mark.parametrize("indexed", [False, True])
def test_symmetrization(indexed: bool) -> None:
    e, run, nc, axis, width = edges(), launcher(), 37, 3, 120
    kappa = np.linspace(0.5, 1.5, N)
    index = e.j if indexed else None
    shared = run.numbers(3 * nc)

    def forward(inputs: Arrays) -> Arrays:
        C, gram = run.array("C", N, 3, nc), run.zeros("gram", N, width)
        run.run("symmetrization.cu", "symmetrization", N, nc, axis, width, C, gram, inputs["X"], index, inputs["h2"],
                inputs["w"], kappa, e.start, shared=shared)  # fmt: skip
        return {"gram": gram.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        forward(inputs)
        dX, dh2, dw = np.ones((e.number, nc)), np.ones((e.number, 3)), np.ones(e.number)
        run.run("symmetrization.cu", "symmetrization_backward", N, nc, axis, width, 1, dX, dh2, dw, seeds["gram"],
                run.array("C", N, 3, nc), inputs["X"], index, inputs["h2"], inputs["w"], kappa, e.start,
                shared=shared)  # fmt: skip
        dX -= 1.0
        return {"X": incoming_sum(run, e, dX) if indexed else dX, "h2": dh2 - 1.0, "w": dw - 1.0}

    assert_adjoint(forward, backward, draw(7, X=(N if indexed else e.number, nc), h2=(e.number, 3), w=(e.number,)))


def incoming_sum(run: Launcher, e: Edges, rows: np.ndarray) -> np.ndarray:
    out = np.ones((N, rows.shape[1]))
    run.run("linear.cu", "sum_incoming", N, rows.shape[1], 1, out, rows, e.incoming.begin, e.incoming.edges)
    return out - 1.0


@pytest.mark.parametrize("n1", [9, 140])
def test_conv(n1: int) -> None:
    e, run, n2 = edges(), launcher(), 5
    P, kappa = draw(8, P=(n2, n1))["P"], np.linspace(0.5, 1.5, N)

    def forward(inputs: Arrays) -> Arrays:
        out = run.array("out", N, n1)
        run.run("conv.cu", "conv", N, n1, n2, out, inputs["g1"], inputs["g2"], P, inputs["w"], kappa, e.start, e.j,
                shared=run.numbers(32 * n2))  # fmt: skip
        return {"out": out.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        rows, dg2, dw = run.array("rows", e.number, n1), np.ones((e.number, n2)), np.ones(e.number)
        run.run("conv.cu", "conv_backward", N, n1, n2, rows, dg2, dw, seeds["out"], inputs["g1"], inputs["g2"], P,
                np.ascontiguousarray(P.T), inputs["w"], kappa, e.start, e.j,
                shared=run.numbers(32 * (2 * n2 + n1)))  # fmt: skip
        return {"g1": incoming_sum(run, e, rows), "g2": dg2 - 1.0, "w": dw - 1.0}

    assert_adjoint(forward, backward, draw(9, g1=(N, n1), g2=(e.number, n2), w=(e.number,)))


def test_conv_of_projected_nodes() -> None:
    e, run, n2, width = edges(), launcher(), 5, 11
    kappa = np.linspace(0.5, 1.5, N)

    def forward(inputs: Arrays) -> Arrays:
        out = run.zeros("out", N, width)
        run.run("conv.cu", "conv_node", N, n2, width, out, inputs["g2"], inputs["node"], inputs["w"], kappa, e.start,
                e.j)  # fmt: skip
        return {"out": out.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        rows, dg2, dw = run.array("rows", e.number, n2), np.ones((e.number, n2)), np.ones(e.number)
        run.run("conv.cu", "conv_node_backward", N, n2, width, rows, dg2, dw, seeds["out"], inputs["g2"],
                inputs["node"], inputs["w"], kappa, e.start, e.j)  # fmt: skip
        return {"node": incoming_sum(run, e, rows), "g2": dg2 - 1.0, "w": dw - 1.0}

    assert_adjoint(forward, backward, draw(10, node=(N, n2), g2=(e.number, n2), w=(e.number,)))


def test_g1g1() -> None:
    e, run, n1, n2 = edges(), launcher(), 9, 5
    W = draw(11, W=(n1, n2))["W"]

    def forward(inputs: Arrays) -> Arrays:
        U = run.array("U", e.number, n2)
        run.run("g1g1.cu", "g1g1", N, n1, n2, U, inputs["g1"], W, inputs["w"], e.start, e.j,
                shared=run.numbers(16 * n1))  # fmt: skip
        return {"U": U.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        dg1, rows, dw = np.ones((N, n1)), np.zeros((e.number, n1)), np.ones(e.number)
        run.run("g1g1.cu", "g1g1_backward", N, n1, n2, dg1, rows, dw, seeds["U"], inputs["g1"],
                np.ascontiguousarray(W.T), inputs["w"], e.start, e.j, shared=run.numbers(16 * (n1 + n2)))  # fmt: skip
        return {"g1": dg1 - 1.0 + incoming_sum(run, e, rows), "w": dw - 1.0}

    assert_adjoint(forward, backward, draw(12, g1=(N, n1), w=(e.number,)))


@pytest.mark.parametrize(("shift", "nsel"), [(20.0, 9), (0.0, 0)])
def test_local_attention(shift: float, nsel: int) -> None:
    e, run, n1, heads = edges(), launcher(), 9, 3
    most = max(COUNT)

    def forward(inputs: Arrays) -> Arrays:
        o = run.array("o", N, heads * n1)
        run.run("local_attention.cu", "local_attention", N, n1, heads, shift, nsel, o, inputs["tq"], inputs["g1"],
                inputs["w"], e.start, e.j, shared=run.numbers(2 * heads * most))  # fmt: skip
        return {"o": o.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        dtq, rows, dw = run.array("dtq", N, heads * n1), np.zeros((e.number, n1)), np.ones(e.number)
        run.run("local_attention.cu", "local_attention_backward", N, n1, heads, shift, nsel, dtq, rows, dw,
                seeds["o"], inputs["tq"], inputs["g1"], inputs["w"], e.start, e.j,
                shared=run.numbers(3 * heads * most))  # fmt: skip
        found = {"tq": dtq, "g1": incoming_sum(run, e, rows), "w": dw - 1.0}
        return found if nsel else {name: found[name] for name in ("tq", "g1")}

    inputs = weights_in(draw(13, tq=(N, heads * n1), g1=(N, n1), w=(e.number,)))
    assert_adjoint(forward, backward, inputs if nsel else inputs | {"w": np.ones(e.number)})


@pytest.mark.parametrize("gate", [0, 1])
@pytest.mark.parametrize(("shift", "nsel"), [(20.0, 9), (0.0, 0)])
@pytest.mark.parametrize("updates", ["g2", "h2", "both"])
def test_pair_attention(gate: int, shift: float, nsel: int, updates: str) -> None:
    e, run, n2, heads, most = edges(), launcher(), 5, 2, max(COUNT)
    ld, vd = lead(most), lead(n2)
    fixed = draw(14, A=(n2, heads * n2), B=(n2, heads * n2), bias=(n2,), h2=(heads,))
    A, B = fixed["A"], fixed["B"] if updates != "h2" else None
    h2_weight = fixed["h2"] if updates != "g2" else None
    head = (n2, heads, gate, shift, nsel, most, ld, vd)

    def forward(inputs: Arrays) -> Arrays:
        z, dh = run.zeros("z", e.number, n2), run.zeros("dh", e.number, 3)
        run.run("pair_attention.cu", "pair_attention", N, *head, z, dh, inputs["g2"], inputs["h2"], inputs["w"],
                e.start, A, B, fixed["bias"], h2_weight,
                shared=run.numbers(2 * n2 * ld + most * (2 * vd + ld) + 7 * ld))  # fmt: skip
        return {"z": z.copy(), "dh": dh.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        dg2, dh2, dw = np.ones((e.number, n2)), np.ones((e.number, 3)), np.ones(e.number)
        run.run("pair_attention.cu", "pair_attention_backward", N, *head, dg2, dh2, dw, seeds["z"], seeds["dh"],
                inputs["g2"], inputs["h2"], inputs["w"], e.start, A, np.ascontiguousarray(A.T), B,
                None if B is None else np.ascontiguousarray(B.T), h2_weight,
                shared=run.numbers(4 * n2 * ld + most * (vd + 4 * ld) + 11 * ld))  # fmt: skip
        found = {"g2": dg2 - 1.0, "h2": dh2 - 1.0, "w": dw - 1.0}
        return found if nsel else {name: found[name] for name in ("g2", "h2")}

    inputs = weights_in(draw(15, g2=(e.number, n2), h2=(e.number, 3), w=(e.number,)))
    assert_adjoint(forward, backward, inputs if nsel else inputs | {"w": np.ones(e.number)})


def test_layer_norm() -> None:
    run, rows, nc = launcher(), 7, 37
    gain = draw(16, gamma=(nc,), beta=(nc,))

    def forward(inputs: Arrays) -> Arrays:
        out = run.array("out", rows, nc)
        run.warps("layer_norm.cu", "layer_norm", rows, nc, 1e-3, out, inputs["z"], gain["gamma"], gain["beta"])
        return {"out": out.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        dz = seeds["out"].copy()
        run.warps("layer_norm.cu", "layer_norm_backward", rows, nc, 1e-3, dz, dz, inputs["z"], gain["gamma"])
        return {"z": dz}

    assert_adjoint(forward, backward, draw(17, z=(rows, nc)))


def test_residual_update() -> None:
    run, rows, width = launcher(), 6, 7
    fixed = draw(18, r0=(width,), r1=(width,), r2=(width,), b0=(width,), b1=(width,))
    terms = (("t0", "r0", "b0", 1), ("t1", "r1", "b1", 0), ("t2", "r2", None, 1))

    def given(inputs: Arrays, gradients: Arrays | None = None) -> list[Any]:
        found: list[Any] = []
        for t, r, b, active in terms:
            found += [] if gradients is None else [gradients[t]]
            found += [inputs[t], fixed[r], None if b is None else fixed[b], active]
        return found + [None] * (3 if gradients is None else 4) + [0]

    def forward(inputs: Arrays) -> Arrays:
        out = run.array("out", rows, width)
        run.each("residual_update.cu", "residual_update", rows * width, width, out, inputs["u"], 0.7, *given(inputs),
                 defines=SILU)  # fmt: skip
        return {"out": out.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        du = seeds["out"].copy()
        gradients = {t: run.array(f"d{t}", rows, width) for t, *_ in terms}
        run.each("residual_update.cu", "residual_update_backward", rows * width, width, du, du, 0.7,
                 *given(inputs, gradients), defines=SILU)  # fmt: skip
        return gradients | {"u": du}

    shape = (rows, width)
    assert_adjoint(forward, backward, draw(19, u=shape, t0=shape, t1=shape, t2=shape))


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


def test_entry_activation() -> None:
    run, e, width = launcher(), edges(), 7
    bias = draw(21, bias=(3, width))["bias"]

    def forward(inputs: Arrays) -> Arrays:
        y, dphi = run.array("y", N, width), run.array("dphi", N, width)
        run.each("linear.cu", "entry_activation", N * width, width, y, dphi, inputs["z"], bias, e.types, defines=SILU)
        return {"y": y.copy()}

    def backward(inputs: Arrays, seeds: Arrays) -> Arrays:
        forward(inputs)
        dz = run.array("dz", N, width)
        run.each("linear.cu", "entry_activation_backward", N * width, dz, seeds["y"], run.array("dphi", N, width),
                 defines=SILU)  # fmt: skip
        return {"z": dz}

    assert_adjoint(forward, backward, draw(22, z=(N, width)))


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
