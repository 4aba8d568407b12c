"""Products over atoms, emulated: against NumPy and the reference, gradients by adjointness and central differences."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice, EmulationError
from cuda_emulator.build import SOURCES
from cuda_emulator.sanitize import mutate
from cuda_emulator.sanitize import run as run_sanitized
from dpa2._native import folded
from dpa2.reference.activation import activation
from dpa2.reference.common import Weights
from dpa2.reference.fitting import fitting
from dpa2.reference.linear import linear
from dpa2.reference.residual_update import residual_update
from helpers import relative
from node_products import Fitting, G1Update, Nodes, activation_defines
from random_model import random_model

Array = np.ndarray
PRECISION = pytest.mark.parametrize("precision", ["float64", "float32"])
#: large tiles and small ones in both precisions, with tensor cores as well: most of the time goes into compiling them
VARIANT = pytest.mark.parametrize(
    ("precision", "each", "tensor"),
    [
        ("float64", None, False),
        ("float32", 2, False),
        pytest.param("float64", 2, False, marks=pytest.mark.slow),
        pytest.param("float32", None, False, marks=pytest.mark.slow),
        pytest.param("float64", None, True, marks=pytest.mark.slow),
        pytest.param("float64", 2, True, marks=pytest.mark.slow),
        pytest.param("float32", None, True, marks=pytest.mark.slow),
        pytest.param("float32", 2, True, marks=pytest.mark.slow),
    ],
)
BOUND = {"float64": 1e-13, "float32": 2e-5}
ROWS, WIDTHS = (1, 3, 31, 32, 33, 64, 65, 130), (1, 6, 24, 128, 240, 600)


def nodes(precision: str = "float64", each: int | None = None, tensor: bool = False, seed: int | None = 11) -> Nodes:
    return Nodes(EmulatedDevice(seed=seed), precision, each, tensor)


def rounded(run: Nodes, *arrays: Array) -> list[Array]:
    """What the kernel sees, in double."""
    return [array.astype(run.real).astype(np.float64) for array in arrays]


def sampled() -> list[tuple[int, int, int]]:
    """Every number of rows with a few widths, every width in either place."""
    rng = np.random.default_rng(3)
    few = [(rows, *(int(w) for w in rng.choice(WIDTHS, 2))) for rows in ROWS for _ in range(2)]
    return few + [(33, width, 6) for width in WIDTHS] + [(33, 6, width) for width in WIDTHS]


# ------------------------------------------------------------------------------------------- product


@VARIANT
def test_product_of_every_size(precision: str, each: int | None, tensor: bool) -> None:
    run, rng = nodes(precision, each, tensor), np.random.default_rng(1)
    for rows, k, n in sampled():
        a, b = rounded(run, rng.normal(size=(rows, k)), rng.normal(size=(k, n)) / np.sqrt(k))
        out, slope = run.product(a, b)
        assert relative(out, a @ b) <= BOUND[precision], (rows, k, n)
        assert (slope == 1).all()


@VARIANT
@pytest.mark.parametrize("identity", [False, True])
def test_every_prologue_and_epilogue(precision: str, each: int | None, tensor: bool, identity: bool) -> None:
    run, rng = nodes(precision, each, tensor), np.random.default_rng(2)
    rows, k, n = 37, 21, 21 if identity else 70
    a, factor, onto = rounded(run, *(rng.normal(size=(rows, w)) for w in (k, k, n)))
    b, term = rounded(run, rng.normal(size=(k, n)) / 4, rng.normal(size=(3, n)))
    types = rng.integers(0, 3, rows)
    for scaled in (False, True):
        for with_term in (False, True):
            for active in (False, True):
                for accumulate in (False, True):
                    out, slope = run.product(
                        a, None if identity else b, factor if scaled else None, term if with_term else None,
                        types if with_term else None, active, onto if accumulate else None,
                    )  # fmt: skip
                    z = a * factor if scaled else a
                    z = (z if identity else z @ b) + (term[types] if with_term else 0.0)
                    y = np.tanh(z) if active else z
                    assert relative(out, y + onto if accumulate else y) <= BOUND[precision]
                    assert relative(slope, 1.0 - y**2 if active else np.ones_like(y)) <= BOUND[precision]


@pytest.mark.parametrize("each", [2, 4, 8])
def test_rows_do_not_know_each_other(each: int) -> None:
    """The same bits in any tile, and numbers that are not finite stay in their row."""
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(130, 50)), rng.normal(size=(50, 70))
    want, _ = nodes().product(a, b)
    a[[7, 64]] = np.nan
    a[90, 49] = np.inf
    found, _ = nodes(each=each).product(a, b)
    others = np.setdiff1d(np.arange(130), [7, 64, 90])
    assert found[others].tobytes() == want[others].tobytes()
    assert np.isnan(found[[7, 64]]).all()
    assert not np.isfinite(found[90]).any()


def test_the_widest_model() -> None:
    """Shared memory does not grow with widths: no launch asks for any."""
    run, rng = nodes(), np.random.default_rng(5)
    a, b = rng.normal(size=(2, 3000)), rng.normal(size=(3000, 1030))
    assert relative(run.product(a, b)[0], a @ b) <= 1e-12
    assert all(launch.shared == 0 for launch in run.device.launches)


@pytest.mark.parametrize("kind", ["linear", "relu", "relu6", "sigmoid", "softplus", "gelu", "silu", "silut"])
def test_entry_with_every_activation(kind: str) -> None:
    """The first g1 and its gradient."""
    number = ("linear", "tanh", "relu", "relu6", "sigmoid", "softplus", "gelu", "silu", "silut").index(kind)
    s = 1.0 / (1.0 + np.exp(-3.0))
    act = activation_defines(np.array([number, 3.0, s + 3.0 * s * (1.0 - s), 3.0 * s]))
    run, rng = nodes(), np.random.default_rng(6)
    D, shape, term = rng.normal(size=(5, 12)) * 2, rng.normal(size=(12, 7)), rng.normal(size=(2, 7))
    types, seed, direction = rng.integers(0, 2, 5), rng.normal(size=(5, 7)), rng.normal(size=(5, 12))
    out, slope = run.product(D, shape, None, term, types, True, act=act)
    assert relative(out, activation(kind)(D @ shape + term[types])) <= 1e-13
    dD, _ = run.product(seed, shape.T, slope, act=act)
    moved = activation(kind)((D + 1e-30j * direction) @ shape + term[types])
    assert float((dD * direction).sum()) == pytest.approx(float((seed * moved.imag).sum()) / 1e-30, rel=1e-11)


def test_wrong_use_of_the_emulated_struct_is_refused() -> None:
    with pytest.raises(EmulationError, match=r"ProductArgs\.a must be an array of float64"):
        nodes().start("product.cu", "product", 1, [1], "ProductArgs", dict.fromkeys(
            ("out", "slope", "factor", "b", "type_term", "types"), None) | dict.fromkeys(
            ("rows", "n", "k", "active", "accumulate"), 1) | {"a": np.zeros((1, 1), np.float32)}, {})  # fmt: skip


# ------------------------------------------------------------------------------------------- update of g1

LAYERS: dict[str, dict[str, Any]] = {
    "everything": {},
    "no self MLP": {"g1_out_mlp": False, "update_style": "res_avg"},
    "conv in linear1": {"g1_out_conv": False, "update_style": "res_incr"},
    "g1 alone": {
        "g1_out_mlp": False, "update_g1_has_conv": False, "update_g1_has_grrg": False, "update_g1_has_drrd": False,
        "update_g1_has_attn": False,
    },
    "no attention": {"update_g1_has_attn": False, "activation_function": "silut:1.0"},
    "only drrd, wide": {
        "g1_out_mlp": False, "update_g1_has_conv": False, "update_g1_has_grrg": False, "g1_dim": 70, "attn1_nhead": 1,
        "activation_function": "gelu",
    },
}  # fmt: skip


@cache
def layer_model(name: str) -> tuple[Any, Any, Any]:
    config, weights = random_model(np.random.default_rng(7), repformer={"nlayers": 1, **LAYERS[name]})
    return config, weights, folded(json.dumps(config), weights)


class Layer:
    """One layer's update, in NumPy from the raw weights, on what the edges have left."""

    prefix = "descriptor.repformers.layers.0"

    def __init__(self, name: str, n: int) -> None:
        config, weights, self.host = layer_model(name)
        self.option, self.weights = config["descriptor"]["repformer"], Weights(weights)
        option, rng = self.option, np.random.default_rng(8)
        self.n1, n2, axis = option["g1_dim"], option["g2_dim"], option["axis_neuron"]
        self.conv_inside = option["update_g1_has_conv"] and not option["g1_out_conv"]
        self.out_conv = option["update_g1_has_conv"] and option["g1_out_conv"]
        width = n2 * self.conv_inside
        width += n2 * axis * option["update_g1_has_grrg"] + self.n1 * axis * option["update_g1_has_drrd"]
        self.inputs = {"g1": rng.normal(size=(n, self.n1)), "cat": rng.normal(size=(n, width))}
        if self.out_conv:
            self.inputs["conv"] = rng.normal(size=(n, self.n1))
        if option["update_g1_has_attn"]:
            self.inputs["o"] = rng.normal(size=(n, option["attn1_nhead"] * self.n1))

    def reference(self, g1: Any, cat: Any, conv: Any = None, o: Any = None) -> Any:
        phi, updates = activation(self.option["activation_function"]), []
        if self.option["g1_out_mlp"]:
            updates.append(phi(linear(g1, self.weights, f"{self.prefix}.g1_self_mlp")))
        else:
            cat = np.concatenate([g1, cat], axis=1)
        if conv is not None:
            updates.append(conv)
        updates.append(phi(linear(cat, self.weights, f"{self.prefix}.linear1")))
        if o is not None:  # heads after value and head map are one matrix of the fold
            updates.append(o @ self.host["layers.0.local_attention.value"] + self.host["layers.0.local_attention.b"])
        return residual_update(g1, updates, self.option["update_style"], self.weights, f"{self.prefix}.g1_residual")


def update_of(layer: Layer, run: Nodes) -> tuple[G1Update, Array, Any, Any]:
    update = G1Update(run, layer.host, "layers.0")
    given = {name: layer.inputs.get(name) for name in ("g1", "cat", "conv", "o")}
    assert given["cat"] is not None
    assert given["g1"] is not None
    assert update.width == given["cat"].shape[1]
    return update, *update.forward(given["g1"], given["cat"], given["conv"], given["o"])


@VARIANT
@pytest.mark.parametrize("name", LAYERS)
def test_update_of_g1(name: str, precision: str, each: int | None, tensor: bool) -> None:
    for n in (1, 35):
        layer, run = Layer(name, n), nodes(precision, each, tensor)
        want = layer.reference(**layer.inputs)
        update, found, *kept = update_of(layer, run)
        assert relative(found, want) <= BOUND[precision]
        # with no gradient the same numbers, and nothing else is written
        given = [layer.inputs.get(key) for key in ("g1", "cat", "conv", "o")]
        again = update.forward(*given, keep=False)  # type: ignore[arg-type]
        assert again[0].tobytes() == found.tobytes()
        assert again[1:] == (None, None)
        assert len(run.device.launches) == 2
        rng = np.random.default_rng(9)
        seed = rng.normal(size=want.shape)
        gradients = dict(zip(("g1", "cat", "o"), update.backward(seed, *kept), strict=True))
        if layer.out_conv:
            gradients["conv"] = seed * update.constants["conv_r"]
        assert len(run.device.launches) == 3
        for key, value in layer.inputs.items():
            direction = rng.normal(size=value.shape)
            moved = layer.reference(**layer.inputs | {key: value + 1e-30j * direction})
            terms = [seed * moved.imag / 1e-30, gradients[key] * direction]
            scale = max(1e-3, *(np.abs(term).sum() for term in terms))
            assert abs(terms[0].sum() - terms[1].sum()) / scale <= BOUND[precision], key


def test_update_of_g1_by_central_differences() -> None:
    """The kernel's gradient against the kernel."""
    layer, run, rng = Layer("everything", 9), nodes(), np.random.default_rng(10)
    update, out, *kept = update_of(layer, run)
    seed = rng.normal(size=out.shape)
    gradients = update.backward(seed, *kept)
    for key, gradient in zip(("g1", "cat", "o"), gradients, strict=True):
        assert gradient is not None
        direction, difference = rng.normal(size=gradient.shape), 0.0
        for steps, factor in ((1, 2.0 / 3.0), (2, -1.0 / 12.0)):
            for sign in (1, -1):
                moved = layer.inputs | {key: layer.inputs[key] + sign * steps * 1e-3 * direction}
                value = update.forward(moved["g1"], moved["cat"], moved["conv"], moved["o"])[0]
                difference += sign * factor * float((seed * value).sum()) / 1e-3
        assert float((gradient * direction).sum()) == pytest.approx(difference, rel=1e-8), key


# ------------------------------------------------------------------------------------------- fitting

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "parameters": {"fitting": {"numb_fparam": 2, "numb_aparam": 3, "dim_case_embd": 4}},
    "default fparam, mask": {
        "fitting": {"numb_fparam": 2, "default_fparam": [0.3, -0.7], "numb_aparam": 1, "use_aparam_as_mask": True}
    },
    "vacuum": {"fitting": {"atom_ener": [1.0, None, None]}, "atom_exclude_types": [2]},
    "vacuum, fparam": {"fitting": {"numb_fparam": 1, "atom_ener": [None, 2.0, None]}},
    "vacuum, aparam": {"fitting": {"numb_fparam": 1, "numb_aparam": 2, "atom_ener": [None, 2.0, None]}},
    "no idt, skips of the input": {
        "fitting": {"neuron": [15, 30, 30, 7], "resnet_dt": False, "activation_function": "silut"}
    },
    "first skip twice": {"descriptor": {"concat_output_tebd": False}, "fitting": {"neuron": [20, 20]}},
    "wide": {"fitting": {"neuron": [130, 130, 65], "numb_fparam": 3}},
    "no hidden layer": {"fitting": {"neuron": [], "numb_fparam": 1, "atom_ener": [1.0, None, None]}},
}


@cache
def network(name: str) -> tuple[Any, Any, Any]:
    config, weights = random_model(np.random.default_rng(12), **NETWORKS[name])
    return config, weights, folded(json.dumps(config), weights)


class Energies:
    """Atoms of several frames, one of them virtual."""

    def __init__(self, name: str, frames: int, each: int) -> None:
        self.config, weights, self.host = network(name)
        self.weights, self.frames, n = Weights(weights), frames, frames * each
        rng, option = np.random.default_rng(13), self.config["fitting_net"]
        self.types = rng.integers(0, 3, n)
        self.types[n // 2] = -1
        self.g1 = rng.normal(size=(n, self.config["descriptor"]["repformer"]["g1_dim"]))
        self.fparam = rng.normal(size=(frames, option["numb_fparam"]))
        self.aparam = rng.normal(size=(n, option["numb_aparam"]))
        if option["default_fparam"] is not None:
            self.fparam = None

    def reference(self, g1: Any) -> Any:
        option, types = self.config["fitting_net"], np.maximum(self.types, 0)
        tebd = self.host["type_embedding"]
        x = np.concatenate([g1, tebd[types]], axis=1) if self.config["descriptor"]["concat_output_tebd"] else g1
        active = (self.types >= 0) * ~np.isin(self.types, self.config["atom_exclude_types"])
        each, found = len(types) // self.frames, []
        for f in range(self.frames):
            own = slice(f * each, (f + 1) * each)
            fparam = np.array(option["default_fparam"]) if self.fparam is None else self.fparam[f]
            found.append(fitting(x[own], types[own], active[own], fparam, self.aparam[own], self.config, self.weights))
        return np.concatenate(found)[:, 0]

    def network(self, run: Nodes) -> Fitting:
        descriptor = self.config["descriptor"]
        return Fitting(
            run,
            self.host,
            self.config["fitting_net"],
            descriptor["concat_output_tebd"],
            descriptor["repformer"]["g1_dim"],
        )

    def forward(self, net: Fitting, failed: int = 0) -> tuple[Array, list[Array]]:
        aparam = self.aparam if net.na else None
        return net.forward(self.g1, self.types, self.fparam, aparam, self.frames, failed)


@VARIANT
@pytest.mark.parametrize("name", NETWORKS)
def test_fitting(name: str, precision: str, each: int | None, tensor: bool) -> None:
    for frames, atoms in ((1, 2), (3, 13)):
        case, run = Energies(name, frames, atoms), nodes(precision, each, tensor)
        net = case.network(run)
        energy, slopes = case.forward(net)
        hidden = len(net.hidden)
        assert relative(energy, case.reference(case.g1)) <= 10 * BOUND[precision]
        assert energy[case.types < 0] == 0.0
        assert len(run.device.launches) == hidden + 1
        rng = np.random.default_rng(14)
        for seed in (None, rng.normal(size=len(energy))):
            dg1, direction = net.backward(case.types, slopes, seed), rng.normal(size=case.g1.shape)
            moved = case.reference(case.g1 + 1e-30j * direction).imag / 1e-30
            terms = [moved * (1.0 if seed is None else seed), dg1 * direction]
            scale = max(1e-3, *(np.abs(term).sum() for term in terms))
            assert abs(terms[0].sum() - terms[1].sum()) / scale <= BOUND[precision]
            assert (dg1[case.types < 0] == 0).all()
        assert len(run.device.launches) == hidden + 1 + 2 * max(1, hidden)


def test_energies_of_a_void_evaluation_are_no_numbers() -> None:
    case = Energies("vacuum", 1, 5)
    assert np.isnan(case.forward(case.network(nodes()), failed=1)[0]).all()


# ------------------------------------------------------------------------------------------- outputs


@PRECISION
def test_outputs(precision: str) -> None:
    run, rng = nodes(precision), np.random.default_rng(15)
    rows, n1, n2, ntebd = 9, 37, 33, 5
    g1, tebd, C = (run.up(rng.normal(size=shape)) for shape in ((rows, n1), (2, ntebd), (rows, 3, n2)))
    types = rng.integers(0, 2, rows).astype(np.int32)
    real = {"real": "float" if precision == "float32" else "double"}

    def start(kernel: str, struct: str, **values: Any) -> None:
        run.device.start("outputs.cu", kernel, -(-rows // 4), 128, struct, {"rows": rows, **values}, 0, real)

    for failed in (0, 1):
        flag = np.array([failed], np.int32)
        out, rotation = np.empty((rows, n1 + ntebd)), np.empty((rows, n2, 3))
        start("descriptor_rows", "DescriptorRowsArgs", out=out, g1=g1, tebd=tebd, types=types, failed=flag, n1=n1,
              ntebd=ntebd)  # fmt: skip
        start("rotation_rows", "RotationArgs", out=rotation, C=C, failed=flag, n2=n2)
        if failed:
            assert np.isnan(out).all()
            assert np.isnan(rotation).all()
        else:
            np.testing.assert_array_equal(out, np.concatenate([g1, tebd[types]], axis=1))
            np.testing.assert_array_equal(rotation, C.transpose(0, 2, 1))
    plain = np.empty((rows, n1))
    start(
        "descriptor_rows", "DescriptorRowsArgs", out=plain, g1=g1, tebd=None, types=types, failed=None, n1=n1, ntebd=0
    )
    np.testing.assert_array_equal(plain, g1)

    seed, seed_rotation = rng.normal(size=(rows, n1 + ntebd)), rng.normal(size=(rows, n2, 3))
    for accumulate in (0, 1):
        dg1 = g1.copy()
        start(
            "descriptor_seeds",
            "DescriptorSeedsArgs",
            dg1=dg1,
            seed=seed,
            n1=n1,
            width=n1 + ntebd,
            accumulate=accumulate,
        )
        np.testing.assert_array_equal(dg1, seed[:, :n1].astype(run.real) + (g1 if accumulate else 0))
        dC = C.copy()
        start("rotation_seeds", "RotationSeedsArgs", dC=dC, seed=seed_rotation, n2=n2, accumulate=accumulate, unused=0)
        np.testing.assert_array_equal(dC, seed_rotation.transpose(0, 2, 1).astype(run.real) + (C if accumulate else 0))


# ------------------------------------------------------------------------------------------- all of them


def everything(device: EmulatedDevice) -> bytes:
    """Every kernel but those of the outputs, on edges of tiles; the bits of what they give."""
    run, layer = Nodes(device, "float64"), Layer("everything", 35)
    update, out, *kept = update_of(layer, run)
    case = Energies("vacuum, aparam", 2, 9)
    net = case.network(run)
    energy, slopes = case.forward(net)
    product, _ = run.product(out, out.T, out, np.ones((3, 35)), np.arange(35) % 3, True, np.ones((35, 35)))
    arrays = [product, out, *update.backward(out, *kept), energy, net.backward(case.types, slopes)]
    assert all(array is not None and np.isfinite(array).all() for array in arrays)
    return b"".join(array.tobytes() for array in arrays if array is not None)


def test_one_answer_whatever_the_schedule() -> None:
    """Blocks and threads in any order, bit by bit the same."""
    assert len({everything(EmulatedDevice(seed=seed)) for seed in (None, 1, 2, 3)}) == 1


def sanitized(sanitizer: str, sources: Path) -> Any:
    needs.sanitizer(sanitizer)
    return run_sanitized(
        "import sys; from pathlib import Path; sys.path.insert(0, 'cuda'); import test_nodes\n"
        f"device = test_nodes.EmulatedDevice(sanitizer={sanitizer!r}, sources=Path({str(sources)!r}))\n"
        "test_nodes.everything(device)",
        sanitizer,
    )


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_sanitizers_find_nothing(sanitizer: str) -> None:
    done = sanitized(sanitizer, SOURCES / "cuda")
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.mark.slow
@pytest.mark.parametrize("occurrence", [0, 1])
def test_a_removed_barrier_is_a_race(tmp_path: Path, occurrence: int) -> None:
    done = sanitized("thread", mutate(tmp_path, "product.cuh", "__syncthreads();", "", occurrence))
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stderr[-3000:]
    assert "product.cuh:" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("min(i0_ + own + ROWS_AT_ONCE * s, rows_ - 1)", "i0_ + own + ROWS_AT_ONCE * s"),
        ("ka + LANES_OF_A * j < left ? rows[s](LANES_OF_A * j) : real(0)", "rows[s](LANES_OF_A * j)"),
        ("if (ProductSums::down(x) >= rows || offset >= columns) continue", "if (offset >= columns) continue"),
    ],
)
def test_an_edge_that_is_forgotten_is_found(tmp_path: Path, old: str, new: str) -> None:
    done = sanitized("address", mutate(tmp_path, "product.cuh", old, new))
    assert "AddressSanitizer: " in done.stderr, done.stderr[-3000:]
    assert "product.cuh:" in done.stderr
