"""Models with device="cuda" on the emulated driver: arrays of the host and of the device, through Python."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from cuda_emulator.driver import driver
from gpu_models import OnDevice, emulate, frame_of, gpu_model, host
from helpers import evaluate, golden, model_of, relative
from pages import run_page

FIELDS = ("energy", "forces", "virial", "atom_energy", "atom_virial")


@pytest.fixture(autouse=True)
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    emulate(monkeypatch)


def assert_same(result: dpa2.Result, wanted: dpa2.Result, bound: float = 1e-11) -> None:
    for name in FIELDS:
        found, expected = getattr(result, name), getattr(wanted, name)
        assert (found is None) == (expected is None), name
        if found is not None:
            found = host(found) if hasattr(found, "__dlpack__") and not isinstance(found, np.ndarray) else found
            assert relative(found, expected) <= bound, name


# ------------------------------------------------------------------------------------------------ arrays of the host


@pytest.mark.parametrize("name", ["base", "fparam_aparam", "default_fparam"])
def test_the_api_is_that_of_the_cpu(name: str) -> None:
    """Several frames, parameters, both atomic virials, descriptors, gradients."""
    model, cpu, system = gpu_model(name), model_of(golden(name), device="cpu"), golden(name).systems[0]
    for atomic in (False, True, "deepmd"):
        for quantity, wanted in evaluate(cpu, system, atomic).items():
            assert relative(evaluate(model, system, atomic)[quantity], wanted) <= 1e-11, quantity
    pairs = [(m.descriptor(system.coord, system.atype, system.box, rot_mat=True)) for m in (model, cpu)]
    assert max(relative(found, wanted) for found, wanted in zip(*pairs, strict=True)) <= 1e-11
    rng, n = np.random.default_rng(3), len(system.atype)
    weights = {"atom_energy": rng.normal(size=n), "descriptor": rng.normal(size=(n, model.descriptor_dim))}
    given = (system.coord, system.atype, system.box, weights, None, system.fparam, system.aparam)
    for found, wanted in zip(model.vjp(*given), cpu.vjp(*given), strict=True):
        assert relative(found, wanted) <= 1e-11


def test_what_a_model_says_of_itself() -> None:
    model = gpu_model("base", precision=None, device="cuda:1")
    assert (model.device, model.precision, model.check()) == ("cuda:1", "float64", True)
    assert "cuda:1" in repr(model)
    assert model.memory_estimate(1000) > model.memory_estimate(10) > 0
    with pytest.raises(
        dpa2.InputError, match='a model on cuda:1 does not know the memory of cpu: load it with device="cpu"'
    ):
        model.memory_estimate(10, device="cpu")
    coords, types, box = frame_of(golden("base").systems[0])
    wanted = model.evaluate(coords, types, box)
    assert wanted.check() is wanted
    again = pickle.loads(pickle.dumps(model))
    assert again.device == "cuda:1"
    np.testing.assert_array_equal(again.evaluate(coords, types, box).forces, wanted.forces)


def test_frames_are_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answers whatever frames go together, and as many launches for several as for one."""
    from cuda_emulator.driver import driver

    model, system = gpu_model("base"), golden("base").systems[0]
    rng = np.random.default_rng(1)
    coords = system.coord[:1] + 0.02 * rng.normal(size=(5, *system.coord.shape[1:]))
    box = None if system.box is None else system.box[0]
    launches, answers = [], []
    for at_once, frames in ((16384, 5), (16384, 1), (2 * coords.shape[1], 5)):
        monkeypatch.setattr("dpa2.batch.ATOMS_AT_ONCE", at_once)
        model.evaluate(coords[:frames], system.atype, box)
        driver().reset()
        answers.append(model.evaluate(coords[:frames], system.atype, box))
        launches.append(len(driver().launches()))
    assert launches[0] == launches[1]
    np.testing.assert_array_equal(answers[0].forces, answers[2].forces)
    np.testing.assert_array_equal(answers[0].forces[:1], answers[1].forces)
    assert_same(answers[0], model_of(golden("base"), device="cpu").evaluate(coords, system.atype, box))


@pytest.mark.filterwarnings("ignore:atoms 0 .* and 1 .* are 0.3 angstrom")
def test_series_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series take the place of the first blocks' networks, also where atoms are too near; a variable turns them off."""
    from cuda_emulator.driver import driver

    coords, types, box = frame_of(golden("base").systems[0])
    coords = coords.copy()
    coords[1] = coords[0] + [0.1, 0.2, 0.2]
    wanted = model_of(golden("base"), device="cpu").evaluate(coords, types, box, atomic=True)
    for value in ("on", "off"):
        monkeypatch.setenv("DPA2_SERIES", value)
        model = gpu_model("base")
        driver().reset()
        assert_same(model.evaluate(coords, types, box, atomic=True), wanted)
        kernels = {one.kernel for one in driver().launches()}
        networks, series = ({f"{block}{kind}{way}" for block in ("repinit", "three_body") for way in ("", "_backward")}
                            for kind in ("", "_series"))  # fmt: skip
        assert kernels & (series | networks) == (series if value == "on" else networks)


def test_a_bad_frame_of_a_batch_is_named() -> None:
    coords, types, box = frame_of(golden("base").systems[0])
    frames = np.repeat(coords[None], 4, axis=0)
    frames[2, 1] = frames[2, 0]
    told: list[int] = []
    with pytest.raises(dpa2.InputError, match=r"^frame 2: atoms 0 and 1 are at the same place"):
        gpu_model("base").evaluate(frames, types, box, progress=lambda done, of: told.append(done))
    assert told == [1, 2]


def test_no_atoms_and_no_frames() -> None:
    model, cpu = gpu_model("base"), model_of(golden("base"), device="cpu")
    for shape in ((0, 3), (0, 2, 3), (3, 0, 3)):
        types = [0] * shape[-2]
        for options in ({}, {"forces": False}, {"atomic": True}):
            for coords in (np.zeros(shape), OnDevice(np.zeros(shape))):
                found = model.evaluate(coords, types, **options).check().outputs
                wanted = cpu.evaluate(np.zeros(shape), types, **options).outputs
                del wanted["mask"]  # of the host alone
                found.pop("mask", None)
                assert {n: tuple(rows.shape) for n, rows in found.items()} == {n: r.shape for n, r in wanted.items()}
                for rows in found.values():
                    assert not np.any(rows if isinstance(rows, np.ndarray) else host(rows))
            weights = {"atom_energy": np.ones(shape[-2])}
            gradients = model.vjp(OnDevice(np.zeros(shape)), types, None, weights)
            assert [tuple(rows.shape) for rows in gradients] == [shape, (*shape[:-2], 3, 3)]
            rows = model.descriptor(OnDevice(np.zeros(shape)), types, rot_mat=True)
            assert [tuple(one.shape)[:-1] for one in rows] == [shape[:-1], (*shape[:-1], 5)]


def test_threads_take_turns() -> None:
    model, system = gpu_model("base"), golden("base").systems[0]
    inputs = [frame_of(system, f % len(system.coord)) for f in range(4)]
    wanted = [model.evaluate(*one).forces for one in inputs]
    found: list[Any] = [None] * 4

    def work(k: int) -> None:
        given = inputs[k] if k % 2 else (OnDevice(inputs[k][0]), *inputs[k][1:])
        forces = model.evaluate(*given).check().forces
        found[k] = forces if k % 2 else host(forces)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------------------------------------- arrays of the device


def test_coordinates_on_the_device_give_answers_on_the_device() -> None:
    model, (coords, types, box) = gpu_model("base"), frame_of(golden("base").systems[0])
    wanted = model.evaluate(coords, types, box, atomic=True)
    x = OnDevice(coords)
    for kinds in (OnDevice(types), types, [model.type_map[t] for t in types]):
        result = model.evaluate(x, kinds, OnDevice(box), atomic=True).check()
        for name in FIELDS:
            field = getattr(result, name)
            assert field.__dlpack_device__() == (2, 0)
            np.testing.assert_array_equal(host(field), getattr(wanted, name))
    assert set(x.streams) == {1}  # the default stream, as the array API numbers it
    shapes = {name: tuple(rows.shape) for name, rows in result.outputs.items()}
    assert shapes == {name: rows.shape for name, rows in wanted.outputs.items() if name != "mask"}
    result = model.evaluate(OnDevice(coords), types, box, forces=False)
    assert result.forces is result.virial is None
    np.testing.assert_array_equal(host(result.check().energy), wanted.energy)
    assert result.forces is None


def test_types_and_box_are_brought_again_only_where_they_change() -> None:
    model, (coords, types, box) = gpu_model("base"), frame_of(golden("base").systems[0])
    x, types, box = OnDevice(coords), types.astype(np.int64), np.array(box)

    def copies() -> np.ndarray:
        return np.array([driver().count(name) for name in ("copies_to_device", "copies_to_host")])

    def step() -> tuple[int, int]:
        before = copies()
        result = model.evaluate(x, types, box).check()
        up, down = copies() - before
        assert_same(result, model.evaluate(coords, types, box), 0.0)
        return up, down

    step()
    assert step() == (1, 1)  # the cell, and what there is to know of the lists
    types[:] = types[::-1].copy()  # in place
    assert step() == (2, 1)
    box *= 1.01
    assert step() == (1, 1)
    types[0] = len(model.type_map)
    for _ in range(2):
        with pytest.raises(dpa2.InputError, match="has type"):
            model.evaluate(x, types, box)
    types[0] = 0
    box[:] = 0.0
    with pytest.raises(dpa2.InputError, match="singular"):
        model.evaluate(x, types, box)
    assert_same(model.evaluate(x, types, None).check(), model.evaluate(coords, types, None), 0.0)


def test_frames_descriptors_and_gradients_on_the_device() -> None:
    model, system = gpu_model("base"), golden("base").systems[0]
    types, box = system.atype.astype(np.int32), None if system.box is None else system.box[0]
    coords = np.concatenate([system.coord[:1], system.coord[:1] + 0.01])
    wanted = model.evaluate(coords, types, box)
    for kinds in (types, OnDevice(types), OnDevice(np.stack([types, types]))):
        assert_same(model.evaluate(OnDevice(coords), kinds, box).check(), wanted, 0.0)
    found = model.descriptor(OnDevice(coords), types, box, rot_mat=True)
    assert model.check()
    for rows, same in zip(found, model.descriptor(coords, types, box, rot_mat=True), strict=True):
        np.testing.assert_array_equal(host(rows), same)
    rng = np.random.default_rng(0)
    weights = {"atom_energy": rng.normal(size=types.shape), "descriptor": rng.normal(size=(2, len(types), 12))}
    wanted_rows = model.vjp(coords, types, box, weights)
    for given in (weights, {name: OnDevice(rows) for name, rows in weights.items()}):
        for rows, same in zip(model.vjp(OnDevice(coords), types, box, given), wanted_rows, strict=True):
            np.testing.assert_array_equal(host(rows), same)
    with pytest.raises(dpa2.InputError, match="there is no gradient of 'energy'"):
        model.vjp(OnDevice(coords), types, box, {"energy": OnDevice(weights["atom_energy"])})


@pytest.mark.parametrize("name", ["fparam_aparam", "default_fparam"])
def test_parameters_on_the_device(name: str) -> None:
    model, system = gpu_model(name), golden(name).systems[0]
    coords, types, box = frame_of(system)
    given = {key: rows[0] for key, rows in (("fparam", system.fparam), ("aparam", system.aparam)) if rows is not None}
    wanted = model.evaluate(coords, types, box, **given)
    assert_same(model.evaluate(OnDevice(coords), types, box, **given).check(), wanted, 0.0)
    on_device = {key: OnDevice(rows) for key, rows in given.items()}
    assert_same(model.evaluate(OnDevice(coords), types, box, **on_device).check(), wanted, 0.0)
    frames = np.repeat(coords[None], 2, axis=0)
    many = model.evaluate(OnDevice(frames), types, box, **on_device).check()
    np.testing.assert_array_equal(host(many.forces), model.evaluate(frames, types, box, **given).forces)
    if given:
        with pytest.raises(dpa2.InputError, match="must have shape"):
            model.evaluate(OnDevice(coords), types, box, **{key: OnDevice(np.ones(99)) for key in given})


def refused(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, str]]:
    coords, types, _ = frame_of(golden("base").systems[0])
    grad = OnDevice(coords)
    grad.requires_grad = True
    return [
        (OnDevice(coords[:, :2]), types, r"coords must have shape .*, got \(\d+, 2\)"),
        (OnDevice(coords), OnDevice(types[:-1]), r"types must have shape"),
        (OnDevice(coords), types[:-1], r"types must have shape"),
        (OnDevice(coords, 1), types, "coords is on cuda:1, and the model on cuda:0: copy"),
        (OnDevice(coords), OnDevice(types, 1), "types is on cuda:1"),
        (
            OnDevice(coords.astype(np.float32)),
            types,
            "coords is float32 on the device: without CuPy",
        ),
        (OnDevice(coords), OnDevice(types.astype(np.int64)), "types is int64 on the device: without CuPy"),
        (OnDevice(coords), OnDevice(types.astype(float)), "types must be an array of integers"),
        (grad, types, r"coords is a tensor that requires a gradient.* pass coords.detach\(\)"),
    ]


@pytest.mark.parametrize("number", range(9))
def test_arrays_that_are_refused(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    coords, types, message = refused(monkeypatch)[number]
    with pytest.raises(dpa2.InputError, match=message):
        gpu_model("base").evaluate(coords, types, frame_of(golden("base").systems[0])[2])


def test_atoms_that_cannot_be_evaluated() -> None:
    """What was wrong is said at the check or by the next evaluation, and results before it stand."""
    model, (coords, types, box) = gpu_model("base"), frame_of(golden("base").systems[0])
    wanted = model.evaluate(coords, types, box)
    bad = coords.copy()
    bad[3, 0] = np.nan
    good, wrong = model.evaluate(OnDevice(coords), types, box), model.evaluate(OnDevice(bad), types, box)
    assert_same(model.evaluate(coords, types, box), wanted, 0.0)
    assert_same(good.check(), wanted, 0.0)
    for _ in range(2):
        with pytest.raises(dpa2.InputError, match="atom 3"):
            wrong.check()
    model.evaluate(OnDevice(bad), types, box)
    with pytest.raises(dpa2.InputError, match="atom 3"):
        model.check()
    assert model.check()
    assert_same(model.evaluate(OnDevice(coords), types, box).check(), wanted, 0.0)


def test_lists_that_grow() -> None:
    """No finite number is wrong before the check, and none is wrong after it."""
    model, (coords, types, box) = gpu_model("base"), frame_of(golden("base").systems[0])
    far = 100.0 * np.arange(len(types))[:, None] * np.ones(3)
    model.evaluate(OnDevice(far), types).check()
    result = model.evaluate(OnDevice(coords), types, box)
    first = host(result.forces)
    wanted = model_of(golden("base"), device="cpu").evaluate(coords, types, box)
    assert np.isnan(first).all() or relative(first, wanted.forces) <= 1e-11
    assert relative(host(result.check().forces), wanted.forces) <= 1e-11
    assert model.check()


def test_crowded_atoms_are_reported() -> None:
    coords, types, box = frame_of(golden("binding_sel").systems[0])
    for given in (coords, OnDevice(coords)):
        with pytest.raises(dpa2.InputError, match="more than its sel"):
            gpu_model("binding_sel", on_overflow="error").evaluate(given, types, box)
        with pytest.warns(dpa2.NeighborOverflowWarning, match="more than its sel"):
            gpu_model("binding_sel", on_overflow="warn").evaluate(given, types, box).check()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gpu_model("binding_sel", on_overflow="ignore").evaluate(given, types, box).check()


# -------------------------------------------------------------------------------------------------------- the package


def test_compute_descriptor_on_a_device() -> None:
    coords, types = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]], ["O", "H", "H"]
    for precision, bound in (("float64", 1e-11), (None, 1e-5)):
        found = dpa2.compute_descriptor(coords, types, device="cuda:1", precision=precision)
        assert relative(found, dpa2.compute_descriptor(coords, types, precision=precision)) <= bound
    with pytest.raises(dpa2.InputError, match="leave them out"):
        dpa2.compute_descriptor(coords, types, model=gpu_model("base"), device="cuda")


@pytest.mark.slow
def test_the_page_keeps_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_page("cuda.md", tmp_path, monkeypatch)
    assert names["model"].device == "cuda"
    assert names["result"].forces.shape == (3, 3)


def test_a_command_on_a_device(tmp_path: Path) -> None:
    structure = tmp_path / "water.xyz"
    structure.write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "dpa2", "eval", str(structure), "--device", "cuda:7"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "CUDA device 7" in done.stderr


def test_a_missing_driver_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    code = "import dpa2; dpa2.compute_descriptor([[0.0, 0, 0]], ['O'], device='cuda')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "DPA2_CUDA_DRIVER": str(tmp_path / "libnone.so")},
        capture_output=True,
        text=True,
    )
    assert "dpa2.errors.InputError" in done.stderr
    assert "libnone.so" in done.stderr
    assert 'device="cpu"' in done.stderr
