"""What `dpa2.train.gradient` takes: shapes of a batch and its labels, flags, losses, models that are refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, ClassVar

import dpa2
import numpy as np
import pytest
import training_cases as training
from cases import GOLDEN
from dpa2 import _native, train
from dpa2.errors import InputError, UnsupportedModelError
from dpa2.files import ModelData, read, schema
from dpa2.files._data import RawModel
from dpa2.files.assembly import assemble
from dpa2.train.gradient import parameters
from helpers import golden, model_of
from kind_cases import FILES, KIND_CASES, load_kind

NFRAMES, NATOMS = 2, 14


class Recorder:
    """In place of the trainer of the core: what it is given."""

    calls: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, config: str, weights: dict[str, np.ndarray], precision: str, threads: int) -> None:
        self.config, self.weights = json.loads(config), weights
        Recorder.calls = [(precision, threads)]

    def gradient(self, *inputs: Any) -> tuple[float, dict[str, float], dict[str, np.ndarray]]:
        Recorder.calls.append(inputs)
        found = {name: np.full(weight.shape, 0.5) for name, weight in schema.expected_weights(self.config).items()}
        return 1.5, {"rmse": 1.25}, found


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "Trainer", Recorder, raising=False)


@pytest.fixture
def model() -> dpa2.Model:
    return model_of(golden("fparam_aparam"))


@pytest.fixture
def batch() -> dict[str, Any]:
    """As the golden system "bulk" has it: flat arrays, one row per frame."""
    case = golden("fparam_aparam")
    arrays = training.batch(case, case.systems[0])
    return {name: array.reshape(NFRAMES, -1) for name, array in arrays.items()}


LOSS = training.ENERGY_LOSSES["generalized"] | {
    f"{end}_pref_{term}": 1.0 for end in ("start", "limit") for term in ("ae", "pf")
}


def given(model: Any, batch: Any, loss: Any = LOSS, lr: Any = 1e-3, **options: Any) -> dict[str, Any]:
    """What the core gets: the structures by name, and the labels."""
    train.gradient(model, batch, loss, lr, **options)
    coords, types, boxes, fparam, aparam, _, _, labels = Recorder.calls[1]
    return {"coord": coords, "atype": types, "box": boxes, "fparam": fparam, "aparam": aparam, **labels}


def test_what_comes_back(model: dpa2.Model, batch: dict[str, Any]) -> None:
    found = train.gradient(model, batch, LOSS, 1e-3)
    assert (found["value"], found["parts"]) == (1.5, {"rmse": 1.25})
    assert found["gradient"].keys() == training.expected()["fparam_aparam", "mix"].norms.keys()
    assert all(np.all(array == 0.5) for array in found["gradient"].values())


def test_shapes(model: dpa2.Model, batch: dict[str, Any]) -> None:
    """Every shape that deepmd-kit's arrays have means the same."""
    flat = given(model, batch)
    shapes = {
        "coord": (NFRAMES, NATOMS, 3), "atype": (NFRAMES, NATOMS), "box": (NFRAMES, 3, 3), "fparam": (NFRAMES, 2),
        "aparam": (NFRAMES, NATOMS, 3), "energy": (NFRAMES, 1), "force": (NFRAMES, NATOMS, 3), "virial": (NFRAMES, 9),
        "atom_ener": (NFRAMES, NATOMS, 1), "atom_pref": (NFRAMES, NATOMS, 3), "drdq": (NFRAMES, NATOMS, 6),
    }  # fmt: skip
    assert {name: array.shape for name, array in flat.items()} == shapes
    for name in shapes.keys() - {"atype"}:
        assert np.array_equal(flat[name].ravel(), batch[name].ravel())
    others = {
        "coord": (NFRAMES, NATOMS, 3), "box": (NFRAMES, 3, 3), "aparam": (NFRAMES, NATOMS, 3), "energy": (NFRAMES,),
        "force": (NFRAMES, NATOMS, 3), "virial": (NFRAMES, 3, 3), "atom_ener": (NFRAMES, NATOMS, 1),
        "atom_pref": (NFRAMES, NATOMS, 3), "drdq": (NFRAMES, 3 * NATOMS, 2),
    }  # fmt: skip
    again = given(model, batch | {name: batch[name].reshape(shape) for name, shape in others.items()})
    assert all(np.array_equal(again[name], flat[name]) for name in flat)
    one = given(model, batch | {"atype": batch["atype"][0]})
    assert np.array_equal(one["atype"], flat["atype"])


def test_one_weight_per_atom(model: dpa2.Model, batch: dict[str, Any]) -> None:
    weights = training.wave("weights", (NFRAMES, NATOMS))
    for array in (weights, weights[..., None]):
        found = given(model, batch | {"atom_pref": array})["atom_pref"]
        assert np.array_equal(found, np.repeat(weights[..., None], 3, axis=2))


def test_other_names(model: dpa2.Model, batch: dict[str, Any]) -> None:
    energies = batch.pop("atom_ener")
    for name in ("atomic_ener", "atom_energy"):
        assert np.array_equal(given(model, batch | {name: energies})["atom_ener"].ravel(), energies.ravel())
    polar = model_of(load_kind(next(case for case in KIND_CASES if case.name == "polar")))
    case = load_kind(next(case for case in KIND_CASES if case.name == "polar"))
    arrays = training.batch(case, case.systems[0])
    arrays["atomic_polarizability"] = arrays.pop("atom_polarizability").reshape(NFRAMES, -1, 3, 3)
    loss = {"type": "tensor", "pref": 1.0, "pref_atomic": 1.0}
    assert given(polar, arrays, loss).keys() >= {"polarizability", "atom_polarizability"}


def test_flags(model: dpa2.Model, batch: dict[str, Any]) -> None:
    for zero in (0, 0.0, np.float32(0), np.zeros((NFRAMES, 1)), False):
        assert "virial" not in given(model, batch | {"find_virial": zero})
    for one in (1, 1.0, np.ones(1), True, None):
        assert "virial" in given(model, batch | {"find_virial": one})
    assert "virial" not in given(model, batch | {"virial": None})
    only = training.ENERGY_LOSSES["energy"]
    assert "energy" not in given(model, batch | {"find_energy": 0}, only)  # said, not forgotten
    with pytest.raises(InputError, match="the batch has no label that the loss compares with: energy"):
        given(model, {name: batch[name] for name in batch.keys() - {"energy"}}, only)
    with pytest.raises(InputError, match="the batch has no 'energy', but find_energy says that it has"):
        given(model, {name: batch[name] for name in batch.keys() - {"energy"}} | {"find_energy": 1.0})
    with pytest.raises(InputError, match="find_virial must be 0 or 1, got 2"):
        given(model, batch | {"find_virial": 2})


def test_placeholders_and_open_systems(model: dpa2.Model, batch: dict[str, Any]) -> None:
    types = np.array(batch["atype"], dtype=np.int64)
    types[1, 3:] = -1
    found = given(model, batch | {"atype": types, "box": None})
    assert np.array_equal(found["atype"], types)
    assert found["atype"].dtype == np.int32
    assert found["box"] is None


def test_options(model: dpa2.Model, batch: dict[str, Any]) -> None:
    train.gradient(model, batch, {"start_pref_f": np.int64(10), "_comment": "x"}, np.float32(1e-3), "float32", 2)
    (precision, threads), inputs = Recorder.calls
    assert (precision, threads) == ("float32", 2)
    assert json.loads(inputs[5]) == {"start_pref_f": 10, "_comment": "x"}
    assert inputs[6] == float(np.float32(1e-3))
    train.gradient(model, batch, LOSS, 0.0)
    assert Recorder.calls[0] == ("float64", 1)  # the model's own


@pytest.mark.parametrize(("name", "shape", "message"), [
    ("coord", (NFRAMES, NATOMS + 1, 3), r"coord must have shape \(nframes, natoms, 3\)"),
    ("coord", (NATOMS, 3), "coord must have shape"),
    ("box", (NFRAMES, 3), r"in the batch, box must have shape \(3, 3\)"),
    ("fparam", (NFRAMES, 3), "in the batch, fparam must have shape"),
    ("aparam", (NFRAMES, NATOMS, 2), "in the batch, aparam must have shape"),
    ("energy", (NFRAMES, 2), r"energy must have shape \(2, 1\) or \(2,\), got \(2, 2\)"),
    ("force", (NFRAMES, 3, NATOMS), r"force must have shape \(2, 14, 3\) or \(2, 42\), got \(2, 3, 14\)"),
    ("virial", (9,), r"virial must have shape \(2, 9\) or \(2, 3, 3\), got \(9,\)"),
    ("atom_ener", (NFRAMES,), r"atom_ener must have shape \(2, 14, 1\) or \(2, 14\), got \(2,\)"),
    ("atom_pref", (NFRAMES, 2 * NATOMS), r"atom_pref must have shape \(2, 14\) or \(2, 14, 3\) or \(2, 42\)"),
    ("drdq", (NFRAMES, NATOMS, 3), r"drdq must have shape \(2, 14, 6\) or \(2, 84\) or \(2, 42, 2\)"),
])  # fmt: skip
def test_wrong_shapes(
    model: dpa2.Model, batch: dict[str, Any], name: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        given(model, batch | {name: np.zeros(shape)})


def test_wrong_numbers(model: dpa2.Model, batch: dict[str, Any]) -> None:
    broken = batch["force"].copy()
    broken[1, 4] = np.nan
    with pytest.raises(InputError, match=r"force\[1, 4\] = nan is not finite"):
        given(model, batch | {"force": broken})
    with pytest.raises(InputError, match="energy must be an array of real numbers"):
        given(model, batch | {"energy": ["a", "b"]})
    with pytest.raises(InputError, match="in the batch, types: atom 0 of frame 0 has type 7"):
        given(model, batch | {"atype": np.full((NFRAMES, NATOMS), 7)})
    with pytest.raises(InputError, match="in the batch, coords of atom 0 of frame 0: x = nan is not finite"):
        given(model, batch | {"coord": np.full((NFRAMES, NATOMS, 3), np.nan)})


@pytest.mark.parametrize(("change", "message"), [
    ({"batch": [1]}, "batch must be a dict of arrays"),
    ({"batch": {"coord": np.zeros((1, 3))}}, "the batch has no 'atype'"),
    ({"batch": {"coord": np.zeros((0, 3)), "atype": np.zeros(1, int)}}, "the batch has no frames"),
    ({"loss": "ener"}, "loss must be a dict, the loss section of an input, got str"),
    ({"loss": {"start_pref_e": float("nan")}}, "loss must hold what JSON can"),
    ({"loss": {"start_pref_e": object()}}, "loss must hold what JSON can: it holds object"),
    ({"loss": {"start_prev_e": 1.0}}, "loss.start_prev_e is not a key"),
    ({"lr": -1e-3}, "lr must be a number that is finite and not negative"),
    ({"lr": "1e-3"}, "lr must be a number"),
    ({"precision": "double"}, "precision must be one of"),
    ({"threads": 0}, "threads must be a positive integer"),
    ({"head": "water"}, "leave it out where a model is given"),
    ({"model": 3}, "the path of a model file must be a str"),
])  # fmt: skip
def test_wrong_arguments(model: dpa2.Model, batch: dict[str, Any], change: dict[str, Any], message: str) -> None:
    arguments = {"model": model, "batch": batch, **change}
    with pytest.raises(InputError, match=message):
        given(**arguments)


def test_files_and_heads(batch: dict[str, Any]) -> None:
    """From a file the names are those of its parameters, in a multi-task one of a head."""
    arrays = {"coord": np.eye(3)[None], "atype": np.array([0, 1, 1]), "gap": np.zeros((1, 2))}
    found = train.gradient(FILES / "multitask" / "model.pt", arrays, {"type": "property"}, 1e-3, head="gap")
    names = training.expected()["multitask_gap-open", "mae"].norms.keys()
    assert found["gradient"].keys() == names
    with pytest.raises(InputError, match="choose one with head="):
        train.gradient(FILES / "multitask" / "model.pt", arrays, {"type": "property"}, 1e-3)


def test_refused_models(batch: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="the model is compressed"):
        train.gradient(GOLDEN / "compressed" / "smooth.pth", batch, LOSS, 1e-3)
    with pytest.raises(UnsupportedModelError, match="no gradients of linear combinations"):
        train.gradient(FILES / "linear" / "model.pt", batch, LOSS, 1e-3)


@pytest.mark.parametrize(("options", "frozen"), [
    ({}, ()),
    ({"descriptor": True, "fitting_net": [True, True]}, ()),
    ({"descriptor": False}, ("descriptor.",)),
    ({"fitting_net": False}, ("fitting_net.",)),
    ({"fitting_net": [True, False, True]}, ("fitting_net.",)),
    ({"descriptor": False, "fitting_net": [False, False]}, ("descriptor.", "fitting_net.")),
])  # fmt: skip
def test_what_is_not_trained(options: dict[str, Any], frozen: tuple[str, ...]) -> None:
    """`trainable` of the definition: deepmd-kit trains a fitting net only if every layer of it is trained."""
    case = golden("base")
    params = {**case.config, **{block: {**case.config[block], "trainable": flag} for block, flag in options.items()}}
    data = assemble(RawModel(params, dict(case.weights)))
    assert data.frozen == frozen
    left = parameters(data)
    assert left == [name for name in parameters(ModelData(case.config, case.weights)) if not name.startswith(frozen)]


def test_not_trained_in_files(tmp_path: Path, batch: dict[str, Any]) -> None:
    path = tmp_path / "model.yaml"
    text = (FILES / "property" / "model.yaml").read_text()
    assert text.count("trainable: true") > 1
    path.write_text(text.replace("trainable: true", "trainable: false"))
    assert "descriptor." in read(path).frozen
    model = dpa2.load(path)
    assert pickle.loads(pickle.dumps(model))._data.frozen == model._data.frozen
