"""Compressed models: tables within their bound, the answers that they give, and files of deepmd-kit's `dp compress`."""

from __future__ import annotations

import copy
import pickle
import shlex
import shutil
import warnings
from pathlib import Path
from typing import Any

import dpa2
import model_files as mf
import numpy as np
import pytest
from cases import GOLDEN, load_golden
from dpa2.cli import main
from dpa2.compress import Curves, compress, decompress, ranges
from dpa2.data import read_structures
from dpa2.embedded import default_model_path
from dpa2.files import ModelData, read, write_safetensors
from dpa2.files.compression import BLOCKS, upper
from dpa2.reference.tabulate import nodes, tabulate
from helpers import evaluate, relative
from hypothesis import given, settings
from hypothesis import strategies as st
from kind_files import KINDS
from pages import code_blocks
from random_model import random_model

ROOT = Path(__file__).resolve().parents[2]
FOLDER = GOLDEN / "compressed"
MADE_BY_DEEPMD = ("smooth", "rough", "one_side", "single")

OPTIONS: dict[str, dict[str, Any]] = {
    "concat": {"repinit": {"tebd_input_mode": "concat"}},
    "strip": {"repinit": {"tebd_input_mode": "strip"}},
    "one_side": {"repinit": {"tebd_input_mode": "concat", "type_one_side": True, "resnet_dt": True}, "davg": 0.3},
    "rough": {
        "repinit": {"tebd_input_mode": "strip"},
        "descriptor": {"smooth": False},
        "davg": 0.3,
        "davg_vector": True,
    },
    "doubling": {"repinit": {"tebd_input_mode": "strip", "neuron": [2, 4], "three_body_neuron": [1, 2, 2]}},
}


def small(name: str, **options: Any) -> ModelData:
    merged = copy.deepcopy(OPTIONS[name]) | options
    config, weights = random_model(np.random.default_rng(7), **merged)
    return ModelData(config, weights)


def structure(seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A cell of six atoms, none of them closer than 0.8 angstrom."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*3 * [np.arange(2)], indexing="ij"), -1).reshape(-1, 3)[:6] * 1.6
    return grid + rng.uniform(-0.4, 0.4, grid.shape), np.arange(6) % 2, np.eye(3) * 3.5


def answers(data: ModelData, **options: Any) -> dict[str, np.ndarray]:
    coords, types, box = structure()
    model = dpa2.Model(data, threads=1, on_overflow="ignore", **options)
    result = model.evaluate(coords, types, box)
    descriptor = model.descriptor(coords, types, box)
    return {"energy": np.asarray(result.energy), "forces": result.forces, "virial": result.virial, "d": descriptor}


def assert_identical(found: ModelData, expected: ModelData) -> None:
    assert found.config == expected.config
    assert found.weights.keys() == expected.weights.keys()
    for key, value in expected.weights.items():
        np.testing.assert_array_equal(found.weights[key], value)


# ------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_tables_are_within_the_bound(name: str) -> None:
    data = small(name)
    made, facts = compress(data, 1e-7)
    rng = np.random.default_rng(0)
    assert {table.block for table in facts} == set(BLOCKS)
    for table in facts:
        grid, weight = made.config["compression"][table.block], made.weights[f"{BLOCKS[table.block]}.table"]
        curve = Curves(data, table.block)
        assert weight.shape == (curve.count, table.intervals, 6, table.channels)
        assert 0 < table.value_error <= 1e-7
        assert 0 < table.slope_error <= 1e-7
        s = rng.uniform(*ranges(data, table.block), 400)
        for index in range(curve.count):
            value, slope, _ = curve(index, s)
            assert np.abs(tabulate(s, index, grid, weight) - value).max() <= 1e-7
            step = 1e-30
            assert np.abs(tabulate(s + 1j * step, index, grid, weight).imag / step - slope).max() <= 1e-7


@pytest.mark.parametrize("name", ["concat", "strip"])
def test_tables_are_twice_continuously_differentiable(name: str) -> None:
    made, facts = compress(small(name), 1e-8)
    powers = np.arange(6)
    for table in facts:
        a = made.weights[f"{BLOCKS[table.block]}.table"]
        length = np.diff(nodes(made.config["compression"][table.block]))[:, None]
        for order, factor in ((0, powers**0), (1, powers), (2, powers * (powers - 1))):
            end = (a * factor[:, None]).sum(axis=2) / length**order
            begin = a[:, :, order] * max(order, 1) / length**order
            size = max(1.0, np.abs(begin).max())
            assert np.abs(end[:, :-1] - begin[:, 1:]).max() <= 1e-9 * size, (table.block, order)


def test_curves_are_the_jets_of_the_network() -> None:
    for activation in ("tanh", "gelu", "silu", "softplus", "sigmoid", "silut:0.7", "linear", "relu"):
        option = {"repinit": {"tebd_input_mode": "concat", "activation_function": activation, "resnet_dt": True}}
        config, weights = random_model(np.random.default_rng(1), **option)
        curve = Curves(ModelData(config, weights), "repinit")
        s, h = np.linspace(-2.0, 2.0, 37) + 0.01234, 1e-4
        value, slope, second = curve(1, s)
        (v0, d0, _), (v1, d1, _) = curve(1, s - h), curve(1, s + h)
        smooth = np.abs(d1 - d0) < 0.05  # not across a kink
        assert smooth.mean() > 0.9
        assert np.abs(np.where(smooth, (v1 - v0) / (2 * h) - slope, 0)).max() < 1e-4 * max(1.0, np.abs(slope).max())
        if activation not in ("relu", "silut:0.7"):
            assert np.abs((d1 - d0) / (2 * h) - second).max() < 1e-4 * max(1.0, np.abs(second).max())
        assert value.shape == slope.shape == second.shape


def test_beyond_its_ends_a_table_is_a_straight_line() -> None:
    made, _ = compress(small("strip"), 1e-6)
    grid, weight = made.config["compression"]["repinit"], made.weights["descriptor.repinit.table"]
    for end, sign in ((grid["lower"], -1.0), (upper(grid), 1.0)):
        at = tabulate(end + sign * np.array([0.0, 1.0, 2.0, 5.0]), 0, grid, weight)
        np.testing.assert_allclose(np.diff(at, axis=0) / np.array([[1.0], [1.0], [3.0]]), at[1:2] - at[:1] + 0 * at[1:])
        inside = tabulate(np.array([end - sign * 1e-6]), 0, grid, weight)
        np.testing.assert_allclose((at[0] - inside[0]) * 1e6, at[1] - at[0], atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.floats(-9, -2), st.sampled_from(["concat", "strip"]))
def test_any_bound_is_kept(seed: int, exponent: float, mode: str) -> None:
    option = {"repinit": {"tebd_input_mode": mode, "neuron": [3, 6], "three_body_neuron": [2]}}
    config, weights = random_model(np.random.default_rng(seed), **option)
    made, facts = compress(ModelData(config, weights), 10.0**exponent)
    assert made.config["compression"]["max_error"] == 10.0**exponent
    assert all(max(table.value_error, table.slope_error) <= 10.0**exponent for table in facts)


# ------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_answers_of_a_compressed_model(name: str) -> None:
    data = small(name)
    exact, found = answers(data, precision="float64"), answers(compress(data)[0], precision="float64")
    for key, value in exact.items():
        # the default bound, and what the derivatives of the descriptor make of it
        assert 0 < relative(found[key], value) <= 1e-6, key


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("kind", ["dipole", "polar", "dos", "property", "population", "zbl", "linear"])
def test_answers_of_other_kinds(kind: str, device: str) -> None:
    data = KINDS[kind]()
    coords, types, box = structure()
    exact, found = (
        dpa2.Model(each, threads=1, on_overflow="ignore", device=device).evaluate(coords, types, box).outputs
        for each in (data, compress(data, 1e-7)[0])
    )
    assert exact.keys() == found.keys()
    for key in exact.keys() - {"mask"}:
        assert 0 < relative(found[key], exact[key]) <= 1e-5, key


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_compiled_core_is_the_reference(name: str) -> None:
    made, _ = compress(small(name), 1e-4)  # far from the networks
    reference = answers(made, device="reference")
    for key, value in answers(made, precision="float64").items():
        assert relative(value, reference[key]) <= 1e-10, key
    exact = answers(decompress(made), device="reference")
    assert relative(exact["forces"], reference["forces"]) > 1e-9


@pytest.mark.parametrize("name", ["concat", "rough"])
def test_float32(name: str) -> None:
    data = small(name)
    exact = answers(data, precision="float64")
    single, found = answers(data, precision="float32"), answers(compress(data)[0], precision="float32")
    for key, value in exact.items():
        assert relative(found[key], value) <= 2.0 * relative(single[key], value) + 1e-6, key


def test_embedded_model() -> None:
    frame = next(iter(read_structures(str(ROOT / "examples" / "water_192.extxyz"))[0]))
    with default_model_path() as path:
        data = read(path)
    exact, found = (
        dpa2.Model(model, "float64", 1).evaluate(frame.coords, frame.types, frame.box)
        for model in (data, compress(data)[0])
    )
    assert abs(found.energy - exact.energy) <= 1e-8 * 192
    assert 0 < np.abs(found.forces - exact.forces).max() <= 1e-6
    assert np.abs(found.virial - exact.virial).max() <= 1e-5


def test_forces_are_the_slope_of_the_energy() -> None:
    coords, types, box = structure()
    model = dpa2.Model(compress(small("concat"), 1e-3)[0], threads=1, on_overflow="ignore")
    forces, h = model.evaluate(coords, types, box).forces, 1e-5
    for atom, axis in ((0, 0), (4, 2), (5, 1)):
        ends = []
        for sign in (-1, 1):
            moved = coords.copy()
            moved[atom, axis] += sign * h
            ends.append(model.evaluate(moved, types, box).energy)
        assert abs((ends[0] - ends[1]) / (2 * h) - forces[atom, axis]) <= 1e-6 * max(1.0, np.abs(forces).max())


# ------------------------------------------------------------------------------------------------- files


@pytest.mark.filterwarnings("ignore::dpa2.ClosePairWarning")  # below the lower end of the tables, on purpose
@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("name", MADE_BY_DEEPMD)
def test_models_compressed_by_deepmd(name: str, device: str) -> None:
    """The system "close" leaves the range of the tables, where deepmd-kit also goes on along straight lines."""
    expected = load_golden(FOLDER / f"{name}.npz")
    # deepmd-kit's own float32 for the float32 file
    tolerance = 1e-5 if name == "single" else 1e-12
    options: dict[str, Any] = {"device": device, "threads": 1, "on_overflow": "ignore"}
    model = dpa2.load(FOLDER / f"{name}.pth", **options)
    networks = dpa2.load(FOLDER / f"{name}.pth", **options, compress=False)
    assert {system.name for system in expected.systems} == {"bulk", "open", "close"}
    for system in expected.systems:
        for quantity, value in evaluate(model, system).items():
            assert relative(value, system.expected[quantity]) <= tolerance, quantity
        descriptor = model.descriptor(system.coord, system.atype, system.box)
        assert relative(descriptor, system.expected["descriptor"]) <= tolerance
        if name != "single":  # the coarse table is not the network
            assert relative(evaluate(networks, system)["force"], system.expected["force"]) > 1e-7


@pytest.mark.parametrize("name", MADE_BY_DEEPMD)
def test_networks_of_compressed_files(name: str) -> None:
    expected, found = load_golden(FOLDER / f"{name}.npz"), read(FOLDER / f"{name}.pth")
    assert found.config["compression"]["max_error"] is None
    assert set(found.weights) == {*expected.weights, "descriptor.repinit.table"}
    for key, value in decompress(found).weights.items():
        np.testing.assert_array_equal(value, expected.weights[key])


def test_round_trip_through_the_native_file(tmp_path: Path) -> None:
    made, _ = compress(small("strip"), 1e-5)
    write_safetensors(tmp_path / "m.safetensors", made)
    assert_identical(read(tmp_path / "m.safetensors"), made)
    expected = answers(made)
    model = dpa2.load(tmp_path / "m.safetensors", threads=1, on_overflow="ignore")
    assert relative(pickle.loads(pickle.dumps(model)).evaluate(*structure()).forces, expected["forces"]) == 0.0
    model.save(tmp_path / "again.safetensors")
    assert_identical(read(tmp_path / "again.safetensors"), made)
    plain = dpa2.load(tmp_path / "m.safetensors", threads=1, on_overflow="ignore", compress=False)
    assert "compression" not in plain.config
    assert relative(plain.evaluate(*structure()).forces, answers(small("strip"))["forces"]) == 0.0


def test_load_makes_tables(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "m.safetensors", small("concat"))
    with pytest.warns(UserWarning, match="training data.*straight lines"):
        model = dpa2.load(tmp_path / "m.safetensors", threads=1, on_overflow="ignore", compress=1e-5)
    assert model.config["compression"]["max_error"] == 1e-5
    with pytest.warns(UserWarning, match="training data"):
        assert dpa2.load(tmp_path / "m.safetensors", compress=True).config["compression"]["max_error"] == 1e-8
    for wrong in (0.0, 2.0, float("nan"), "small"):
        with pytest.raises(dpa2.InputError, match="max_error must be a number"):
            dpa2.load(tmp_path / "m.safetensors", compress=wrong)  # type: ignore[arg-type]


def test_networks_with_kinks_are_refused() -> None:
    option = {"tebd_input_mode": "strip", "activation_function": "relu", "neuron": [3], "three_body_neuron": [2]}
    config, weights = random_model(np.random.default_rng(2), repinit=option)
    with pytest.raises(dpa2.InputError, match=r"repinit cannot be tabulated to 1e-08.*relu has kinks.*max_error"):
        compress(ModelData(config, weights))


def hostile_grids() -> list[tuple[dict[str, Any], str]]:
    return [
        ({"step": 0.0}, "step"),
        ({"step": float("nan")}, "expected a finite number"),
        ({"step": 1e-6, "lower": 1e6}, "too small"),
        ({"lower": float("inf")}, "expected a finite number"),
        ({"lower": "0"}, "expected a finite number"),
        ({"segments": []}, "segments has 0 entries, expected 1 to 10000"),
        ({"segments": [[1, 0]]}, r"segments\[0\] is 0, expected an integer"),
        ({"segments": [[True, 1]]}, r"segments\[0\] is True, expected an integer"),
        ({"segments": [[1.5, 1]]}, r"segments\[0\] is 1.5, expected an integer"),
        ({"segments": [[4000000, 4000000]]}, "more than"),
        ({"segments": [[5, 1]]}, "has shape"),
        ({"more": 1}, "compression.repinit.more is unknown"),
    ]


@pytest.mark.parametrize(("change", "message"), hostile_grids())
def test_hostile_grids(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    made, _ = compress(small("strip"), 1e-3)
    made.config["compression"]["repinit"] |= change
    with pytest.raises(dpa2.ModelFileError, match=message):
        write_safetensors(tmp_path / "m.safetensors", made)
    if all(value == value and value != float("inf") for value in change.values()):  # JSON has no such numbers
        with pytest.raises(dpa2.Error):
            dpa2.Model(made)


def test_hostile_tables(tmp_path: Path) -> None:
    made, _ = compress(small("strip"), 1e-3)
    name = "descriptor.repinit.table"
    for change in (lambda a: a[:, :-1], lambda a: a * np.nan, lambda a: a.astype(np.int64), lambda a: a[..., :-1]):
        broken = ModelData(made.config, made.weights | {name: change(made.weights[name])})
        with pytest.raises(dpa2.ModelFileError, match=name):
            write_safetensors(tmp_path / "m.safetensors", broken)
    without = ModelData(made.config, {k: v for k, v in made.weights.items() if k != name})
    with pytest.raises(dpa2.ModelFileError, match="missing"):
        write_safetensors(tmp_path / "m.safetensors", without)
    superfluous = ModelData(decompress(made).config, made.weights)
    with pytest.raises(dpa2.ModelFileError, match="do not use"):
        write_safetensors(tmp_path / "m.safetensors", superfluous)


@pytest.mark.parametrize(
    ("data", "info", "message"),
    [
        (np.ones((4, 23)), [0, 1, 2, 0.5, 0.5, -1], "does not fit"),
        (np.ones((4, 24)), [0, 1, 2], "has not 6 numbers"),
        (np.full((4, 24), np.nan), [0, 1, 2, 0.5, 0.5, -1], "finite"),
        (np.ones((4, 24)), [0, np.inf, 2, 0.5, 0.5, -1], "finite"),
        (np.ones((4, 24)), [1, 1, 1, 1, 1, 1], "make no sense"),
        (np.ones((4, 24)), [0, 1, 2, -0.5, 0.5, -1], "make no sense"),
        (np.ones((4, 24)), [0, 1, 2, 1e-9, 0.5, -1], "make no sense"),
    ],
)
def test_hostile_tables_of_deepmd(data: np.ndarray, info: list[float], message: str, tmp_path: Path) -> None:
    with pytest.raises(dpa2.ModelFileError, match=message):
        read(as_compressed(tmp_path, data, info))


def as_compressed(folder: Path, data: np.ndarray, info: list[float]) -> Path:
    model = mf.make(repinit={"tebd_input_mode": "strip"})
    root = mf.module_tree(
        mf.state(model)
        | {
            "atomic_model.descriptor.repinit.compress_data.0": data,
            "atomic_model.descriptor.repinit.compress_info.0": np.array(info, dtype=np.float64),
        }
    )
    root.attributes["model_def_script"] = mf.json.dumps(mf.definition(model))
    return mf.write_zip(folder / "m.pth", root, {"constants.pkl": b"\x80\x02)."})


def test_a_grid_that_deepmd_does_not_keep_is_left_aside(tmp_path: Path) -> None:
    path = as_compressed(tmp_path, np.ones((4, 24)), [0, 1, 2, 0.3, 0.6, -1])
    with pytest.warns(UserWarning, match="steps of 0.3 and 0.6 do not divide"):
        assert "compression" not in read(path).config


# ------------------------------------------------------------------------------------------------- commands


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = str(FOLDER / "smooth.pth"), str(tmp_path / "c.safetensors")
    assert main(["compress", source, "-o", target, "--max-error", "1e-6"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[0] for line in lines] == ["repinit", "largest", "three_body", "largest", f"{target}:"]
    assert "no closer than 0.75 angstrom" in printed.err
    errors = [float(word.rstrip(",")) for line in lines[1::2][:2] for word in line.split() if "e-" in word]
    assert len(errors) == 4
    assert max(errors) <= 1e-6
    assert main(["info", target]) == 0
    assert "errors of at most 1e-06" in capsys.readouterr().out
    assert main(["info", source]) == 0
    assert "made by deepmd-kit" in capsys.readouterr().out
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dpa2.load(target).config["compression"]["max_error"] == 1e-6
    for words, message in (
        (["compress", source, "-o", "c.pth"], "must end in .safetensors"),
        (["compress", source, "-o", target, "--max-error", "0"], "max_error must be"),
        (["compress", str(tmp_path / "none.pth"), "-o", target], "no such file"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What docs/compression.md shows, in the order in which it stands there."""
    shutil.copy(ROOT / "examples" / "water_192.extxyz", tmp_path)
    shutil.copy(GOLDEN / "files" / "trained" / "model.pth", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tiny model's sel
        for line in "".join(code_blocks("docs/compression.md", "sh")).splitlines():
            command, *words = shlex.split(line)
            assert (command, main(words)) == ("dpa2", 0)
        for block in code_blocks("docs/compression.md", "python"):
            exec(compile(block, "compression.md", "exec"), names)
    assert "errors of at most 1e-08" in capsys.readouterr().out
    assert_identical(read(tmp_path / "model_p.safetensors"), read(tmp_path / "model_c.safetensors"))
    assert (tmp_path / "model_6.safetensors").stat().st_size < (tmp_path / "model_c.safetensors").stat().st_size
    assert "compression" not in names["networks"].config
    assert names["tabulated"].config == read(tmp_path / "model_c.safetensors").config
