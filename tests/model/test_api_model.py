"""Model objects: properties, saving, pickling, overflow, sharing between threads, loading, the embedded default."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import threading
import warnings
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from api_models import BOX, COORDS, DEVICES, TYPES, frames, make_model, model_data
from dpa2 import embedded
from dpa2.files import write_safetensors
from dpa2.model import Model

every_device = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, model_data())
    return path


@every_device
def test_properties(device: str) -> None:
    model = make_model(device)
    assert model.type_map == ("O", "H", "C")
    assert model.rcut == 4.0
    assert model.descriptor_dim == 6 + 5
    assert model.precision == "float64"
    assert model.threads == 1
    assert model.device == device
    text = f"<dpa2.Model O H C: descriptor_dim 11, rcut 4, float64, {device}, 1 thread>"
    assert repr(model) == text


@every_device
def test_config_is_a_copy(device: str) -> None:
    model = make_model(device)
    before = model.evaluate(COORDS, TYPES, BOX).energy
    config = model.config
    json.dumps(config)
    config["descriptor"]["repinit"]["rcut"] = 1.0
    config["type_map"].append("Xe")
    assert model.rcut == 4.0
    assert model.config["type_map"] == ["O", "H", "C"]
    assert model.evaluate(COORDS, TYPES, BOX).energy == before


@every_device
def test_results_are_frozen(device: str) -> None:
    result = make_model(device).evaluate(COORDS, TYPES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.energy = 0.0  # type: ignore[misc]


@every_device
@pytest.mark.parametrize("how", ["pickle", "copy", "deepcopy", "save"])
def test_copies_give_the_same_numbers(device: str, how: str, tmp_path: Path) -> None:
    model = Model(model_data(), threads=1, device=device, on_overflow="error")
    if how == "pickle":
        other = pickle.loads(pickle.dumps(model))
    elif how == "save":
        model.save(tmp_path / "copy.safetensors")
        other = dpa2.load(tmp_path / "copy.safetensors", threads=1, device=device)
    else:
        other = getattr(copy, how)(model)
    assert repr(other) == repr(model)
    assert other.config == model.config
    one, two = model.evaluate(COORDS, TYPES, BOX), other.evaluate(COORDS, TYPES, BOX)
    assert one.energy == two.energy
    np.testing.assert_array_equal(one.forces, two.forces)


@every_device
def test_shared_between_threads(device: str) -> None:
    model = make_model(device)
    coords = frames(4)
    expected = [model.evaluate(c, TYPES, BOX) for c in coords]
    found: list[dpa2.Result | None] = [None] * len(coords)

    def work(k: int) -> None:
        found[k] = model.evaluate(coords[k], TYPES, BOX)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(coords))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result, wanted in zip(found, expected, strict=True):
        assert result is not None
        assert result.energy == wanted.energy
        np.testing.assert_array_equal(result.forces, wanted.forces)


@every_device
def test_overflow_warns_once(device: str) -> None:
    model = Model(model_data(nsel=6), threads=1, device=device)
    pattern = r"atom \d \([OHC]\) of frame 0 has \d+ neighbours within the cutoff of the .* more than its sel of \d"
    with pytest.warns(dpa2.NeighborOverflowWarning, match=pattern) as record:
        model.evaluate(frames(2), TYPES, BOX)
    assert len(record) == 1
    assert record[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.evaluate(COORDS, TYPES, BOX)
        model.descriptor(COORDS, TYPES, BOX)
    fresh = Model(model_data(nsel=6), threads=1, device=device)
    with pytest.warns(dpa2.NeighborOverflowWarning, match="sel of") as record:
        fresh.descriptor(COORDS, TYPES, BOX)
    assert record[0].filename == __file__


@every_device
def test_overflow_names_the_worst_atom(device: str) -> None:
    model = Model(model_data(nsel=6), threads=1, device=device, on_overflow="error")
    # atom 1 in the middle sees all seven others, which do not see all of each other
    directions = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1], [0.6, 0.6, 0.6]])
    coords = np.insert(2.5 * directions, 1, 0.0, axis=0)
    with pytest.raises(dpa2.InputError, match=r"atom 1 \(H\) has 7 neighbours .* sel of 5.*on_overflow=\"warn\""):
        model.evaluate(coords, [0, 1, 2, 0, 1, 2, 0, 1])


@every_device
def test_overflow_can_be_ignored(device: str) -> None:
    model = Model(model_data(nsel=6), threads=1, device=device, on_overflow="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(model.evaluate(COORDS, TYPES, BOX).energy)


@every_device
def test_load(device: str, model_file: Path) -> None:
    for path in (model_file, str(model_file)):
        model = dpa2.load(path, threads=1, device=device)
        assert model.evaluate(COORDS, TYPES, BOX).energy == make_model(device).evaluate(COORDS, TYPES, BOX).energy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"device": "cuda:01"},
            "device must be one of 'cpu', 'cuda', 'cuda:N', 'reference', got 'cuda:01'; CUDA_VISIBLE_DEVICES says",
        ),
        *(({"device": f"cuda:{n}"}, f"got 'cuda:{n}'") for n in ("", "-1", "1.0", " 1", "0x1", "12345")),
        ({"device": "tpu"}, "device must be one of 'cpu', 'cuda', 'cuda:N', 'reference', got 'tpu'$"),
        ({"precision": "float16"}, "precision must be one of 'float64', 'float32', got 'float16'"),
        ({"device": "reference", "precision": "float32"}, "the reference computes in float64 only"),
        ({"threads": 0}, "threads must be a positive integer up to 4096, or None, got 0"),
        ({"threads": 1.5}, "threads must be"),
        ({"threads": True}, "threads must be"),
        ({"on_overflow": "raise"}, "on_overflow must be one of 'warn', 'error', 'ignore', got 'raise'"),
        ({"head": "water"}, "head"),
    ],
)
def test_wrong_arguments_of_load(model_file: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        dpa2.load(model_file, **options)  # type: ignore[arg-type]


def test_missing_model_file(tmp_path: Path) -> None:
    with pytest.raises(dpa2.ModelFileError, match=r"nothing\.pth"):
        dpa2.load(tmp_path / "nothing.pth")


def test_saved_under_a_native_name_only(tmp_path: Path) -> None:
    with pytest.raises(dpa2.InputError, match=r"ending in \.safetensors"):
        make_model("reference").save(tmp_path / "model.pth")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", DEVICES[:1])
def test_precision(device: str, tmp_path: Path) -> None:
    exact = make_model(device).evaluate(COORDS, TYPES, BOX)
    single = Model(model_data(), "float32", threads=1, device=device)
    assert single.precision == "float32"
    result = single.evaluate(COORDS, TYPES, BOX)
    assert result.forces.dtype == np.float64
    assert 0 < np.abs(result.forces - exact.forces).max() < 1e-4 * np.abs(exact.forces).max()
    # what is saved is the file's own precision, not the one that the model runs in
    single.save(tmp_path / "copy.safetensors")
    again = dpa2.load(tmp_path / "copy.safetensors", threads=1, device=device)
    assert again.precision == "float64"
    assert again.evaluate(COORDS, TYPES, BOX).energy == exact.energy
    assert pickle.loads(pickle.dumps(single)).precision == "float32"


@pytest.mark.parametrize(("value", "threads"), [("3", 3), ("5,2", 5), ("0", None), ("many", None), ("", None)])
def test_default_number_of_threads(monkeypatch: pytest.MonkeyPatch, value: str, threads: int | None) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    available = len(os.sched_getaffinity(0))
    assert Model(model_data(), device="reference").threads == (threads or available)


@pytest.mark.parametrize("value", ["99999999999", "4097", "²", "1" * 6000])
def test_senseless_number_of_threads_in_the_environment(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.raises(
        dpa2.InputError, match=rf"OMP_NUM_THREADS is '{value[:40]}.*', not a number of threads up to 4096"
    ):
        Model(model_data())
    assert Model(model_data(), threads=2).threads == 2


@every_device
@pytest.mark.parametrize("threads", [4097, 2**31, 2**64, np.uint64(2**63)])
def test_more_threads_than_any_machine_has(device: str, threads: Any) -> None:
    with pytest.raises(dpa2.InputError, match="threads must be a positive integer up to 4096, or None"):
        Model(model_data(), threads=threads, device=device)


@every_device
def test_compute_descriptor_with_a_model(device: str, model_file: Path) -> None:
    model = make_model(device)
    expected = model.descriptor(COORDS, TYPES, BOX)
    np.testing.assert_array_equal(dpa2.compute_descriptor(COORDS, TYPES, BOX, model), expected)
    open_box = dpa2.compute_descriptor(COORDS, TYPES, BOX, model, pbc=False)
    np.testing.assert_array_equal(open_box, dpa2.compute_descriptor(COORDS, TYPES, model=model))


def test_default_model_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[object] = []

    def load(*path: Path, **options: Any) -> Model:
        assert options == {"precision": None, "device": "cpu"}
        loads.append(path)
        return make_model("reference")

    monkeypatch.setattr(embedded, "load", load)
    monkeypatch.setattr(embedded, "_default", {})
    threads = [threading.Thread(target=embedded.default_model) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    descriptor = dpa2.compute_descriptor(COORDS, TYPES, BOX)
    np.testing.assert_array_equal(descriptor, make_model("reference").descriptor(COORDS, TYPES, BOX))
    assert loads == [()]  # which is the embedded model
