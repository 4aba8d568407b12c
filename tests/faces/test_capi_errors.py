"""What the C interface refuses: the status and the message of each, and that it goes on working afterwards."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, TYPES, model_data
from c_library import (
    INVALID_INPUT,
    MODEL_FILE,
    OK,
    OUT_OF_MEMORY,
    UNSUPPORTED,
    Answer,
    Handle,
    Parts,
    assert_ok,
    call,
    evaluate,
    load,
    message,
    new_domain,
)
from dpa2.files import ModelData, write_safetensors
from safetensors.numpy import save_file

pytestmark = needs.library

KINDS = TYPES.astype(np.intc)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``model.safetensors``, ``params.safetensors`` with parameters, and files that are none."""
    folder = tmp_path_factory.mktemp("capi")
    write_safetensors(folder / "model.safetensors", model_data())
    write_safetensors(folder / "params.safetensors", model_data(nf=2, na=1))
    data = (folder / "model.safetensors").read_bytes()
    (folder / "short.safetensors").write_bytes(data[:-3])
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "noise.safetensors").write_bytes(bytes(range(256)) * 4)
    (folder / "model.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    save_file({"a": np.zeros(3)}, folder / "other.safetensors", metadata={"format": "pt"})
    save_file(
        {"a": np.zeros(3)},
        folder / "newer.safetensors",
        metadata={"format": "dpa2", "format_version": "9", "config": "{}"},
    )
    return folder


@pytest.fixture
def parts() -> Parts:
    return Parts(COORDS, TYPES, BOX, 4.5)


def assert_refused(status: int, expected: int, *parts: str) -> None:
    assert status == expected, (status, message())
    for part in parts:
        assert part in message()


# ------------------------------------------------------------------------------------------------ loading


@pytest.mark.parametrize(
    ("name", "status", "part"),
    [
        ("absent.safetensors", MODEL_FILE, "cannot read"),
        (".", MODEL_FILE, "cannot read"),
        ("short.safetensors", MODEL_FILE, "truncated or corrupt"),
        ("empty.safetensors", MODEL_FILE, "truncated"),
        ("noise.safetensors", MODEL_FILE, "claims"),
        ("model.pth", MODEL_FILE, "make it by 'dpa2 convert "),
        ("other.safetensors", UNSUPPORTED, "dpa2"),
        ("newer.safetensors", UNSUPPORTED, "9"),
    ],
)
def test_files(name: str, status: int, part: str, folder: Path) -> None:
    place = ctypes.c_void_p(1)
    path = str(folder / name)
    assert_refused(call("model_load", path.encode(), None, 0.0, ctypes.addressof(place)), status, part, path)
    assert place.value is None
    if (folder / name).is_file():
        data = (folder / name).read_bytes()
        found = call("model_load_buffer", data, len(data), b"what was sent", None, 0.0, ctypes.addressof(place))
        assert_refused(found, status, part, "what was sent")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"path": None}, "path is NULL"),
        ({"place": None}, "model is NULL"),
        ({"precision": b"float16"}, "precision must be 'float64' or 'float32', not 'float16'"),
        ({"precision": b"double"}, "not 'double'"),
        ({"skin": -0.1}, "skin must be between 0 and the cutoff"),
        ({"skin": 1e9}, "skin must be between 0 and the cutoff"),
        ({"skin": float("nan")}, "skin must be between 0 and the cutoff"),
    ],
)
def test_arguments_of_loading(change: dict[str, Any], part: str, folder: Path) -> None:
    path, place = folder / "model.safetensors", ctypes.c_void_p(1)
    arguments: dict[str, Any] = {
        "path": str(path).encode(),
        "precision": None,
        "skin": 0.0,
        "place": ctypes.addressof(place),
    }
    arguments |= change
    assert_refused(call("model_load", *arguments.values()), INVALID_INPUT, part)
    if arguments["path"] is not None and arguments["place"] is not None:
        assert place.value is None
    data = None if arguments["path"] is None else path.read_bytes()
    buffered = (data, len(data or b""), None, *list(arguments.values())[1:])
    assert_refused(call("model_load_buffer", *buffered), INVALID_INPUT, part.replace("path", "data"))


def test_questions_to_nothing() -> None:
    for name in ("ntypes", "descriptor_dim", "g2_dim", "fparam_dim", "aparam_dim", "has_default_fparam"):
        assert call(f"model_{name}", None) == 0
    assert call("model_rcut", None) == 0.0
    assert call("model_exchange_width", None) == 0
    for name in ("precision", "config"):
        assert call(f"model_{name}", None) is None
    assert call("model_type_name", None, 0) is None
    assert call("model_type_index", None, b"O") == -1
    assert call("model_memory_estimate", None, 10, 10.0, 0, 1) == -1
    assert message() == "model is NULL"
    call("model_free", None)
    call("domain_free", None)


def test_senseless_estimates(folder: Path) -> None:
    model = load(folder / "model.safetensors")
    for natoms, neighbors in ((-1, 10.0), (10, -1.0), (10, float("nan")), (10, float("inf"))):
        assert call("model_memory_estimate", model.address, natoms, neighbors, 0, 1) == -1
    assert call("model_memory_estimate", model.address, 10, 10.0, 0, 4097) == -1
    for natoms, neighbors in ((2**63 - 1, 10.0), (2**62, 1e300), (10**18, 0.0)):
        assert call("model_memory_estimate", model.address, natoms, neighbors, 1, 4096) == 2**63 - 1


@pytest.mark.parametrize(("name", "value"), [("DPA2_MEMORY_LIMIT", "plenty"), ("DPA2_SERIES", "maybe")])
def test_senseless_variables(name: str, value: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, place = folder / "model.safetensors", ctypes.c_void_p(1)
    monkeypatch.setenv(name, value)
    status = call("model_load", str(path).encode(), None, 0.0, ctypes.addressof(place))
    assert_refused(status, INVALID_INPUT, f"{name} is '{value}'")
    assert place.value is None


# ------------------------------------------------------------------------------------------------ whole systems


def structure(model: Handle) -> dict[str, Any]:
    """The arguments that evaluations and descriptors start with."""
    return {"model": model.address, "natoms": 5, "coords": COORDS, "types": KINDS, "box": BOX, "pbc": None}


def moved(atom: int, value: float) -> np.ndarray:
    coords = COORDS.copy()
    coords[atom, 1] = value
    return coords


def typed(atom: int, value: int) -> np.ndarray:
    kinds = KINDS.copy()
    kinds[atom] = value
    return kinds


FLAT = np.array([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [4.0, 4.0, 0.0]])
WRONG = [
    ({"model": None}, "model is NULL"),
    ({"natoms": -1}, "the number of atoms is negative: -1"),
    ({"coords": None}, "coords is NULL"),
    ({"types": None}, "types is NULL"),
    ({"energy": None}, "energy is NULL"),
    ({"forces": None}, "virials are computed with forces only"),
    ({"forces": None, "virial": None}, "virials are computed with forces only"),
    ({"coords": moved(3, np.nan)}, "coordinate 1 of atom 3 is not finite: nan"),
    ({"coords": moved(0, -np.inf)}, "coordinate 1 of atom 0 is not finite: -inf"),
    ({"coords": moved(2, 1.0000001e7)}, "coordinate 1 of atom 2 is too large; coordinates are in angstrom: 1e+07"),
    ({"coords": moved(4, -3e9)}, "coordinate 1 of atom 4 is too large; coordinates are in angstrom: -3e+09"),
    ({"box": np.diag([5.0, 1.1e7, 5.0])}, "the box entry (1, 1) is too large; lengths are in angstrom: 1.1e+07"),
    ({"threads": 4097}, "threads must be between 1 and 4096, not 4097"),
    ({"threads": 2**31 - 1}, "threads must be between 1 and 4096, not 2147483647"),
    ({"types": typed(2, 3)}, "atom 2 has type 3, but the model has 3 types"),
    ({"box": FLAT}, "the box is singular"),
    ({"box": np.zeros((3, 3))}, "the box is singular: vector 0 is zero"),
    ({"box": np.full((3, 3), np.nan)}, "the box entry (0, 0) is not finite"),
    ({"box": None, "pbc": np.ones(3, dtype=np.intc)}, "a periodic direction needs a box"),
    ({"coords": COORDS[[0, 1, 2, 3, 1]]}, "atoms 1 and 4 are at the same place"),
    ({"coords": COORDS[[0, 1, 2, 3, 1]] + np.array([0, 0, 0, 0, 1])[:, None] * BOX[2]}, "are at the same place"),
    ({"fparam": None}, "the model needs fparam (2 values per frame)"),
    ({"aparam": None}, "the model needs aparam (1 values per atom)"),
    ({"fparam": np.array([0.1, np.nan])}, "number 1 of fparam is not finite: nan"),
    ({"aparam": np.array([0.1, 0.2, np.inf, 0.3, 0.1])}, "number 2 of aparam is not finite: inf"),
]


@pytest.mark.parametrize(("change", "part"), WRONG, ids=[f"{k}-{', '.join(c)}" for k, (c, _) in enumerate(WRONG)])
def test_evaluate(change: dict[str, Any], part: str, folder: Path) -> None:
    model = load(folder / "params.safetensors")
    answer = Answer(5, 5)
    arguments: dict[str, Any] = (
        structure(model)
        | {
            "fparam": np.array([0.2, -0.3]),
            "aparam": np.linspace(0, 1, 5),
            "threads": 1,
        }
        | dict(zip(("energy", "forces", "virial", "atom_energy", "atom_virial"), answer.places(), strict=True))
    )
    assert_refused(call("evaluate", *(arguments | change).values()), INVALID_INPUT, part)
    assert_ok(call("evaluate", *arguments.values()))
    assert np.isfinite(answer.forces).all()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"model": None}, "model is NULL"),
        ({"natoms": -2}, "negative: -2"),
        ({"coords": None}, "coords is NULL"),
        ({"types": None}, "types is NULL"),
        ({"descriptor": None}, "descriptor is NULL"),
        ({"coords": moved(1, np.nan)}, "coordinate 1 of atom 1 is not finite: nan"),
        ({"box": FLAT}, "the box is singular"),
        ({"types": typed(0, 7)}, "atom 0 has type 7"),
    ],
)
def test_descriptor(change: dict[str, Any], part: str, folder: Path) -> None:
    model = load(folder / "model.safetensors")
    arguments: dict[str, Any] = structure(model) | {
        "threads": 1,
        "descriptor": np.empty((5, call("model_descriptor_dim", model.address))),
        "rot_mat": None,
    }
    assert_ok(call("descriptor", *arguments.values()))
    assert_refused(call("descriptor", *(arguments | change).values()), INVALID_INPUT, part)


def test_numbers_out_of_range(folder: Path, parts: Parts) -> None:
    """Models whose weights are so large that nothing finite comes out."""
    data = model_data()
    weights = {name: 1e200 * w if ".matrix" in name and "repformer" in name else w for name, w in data.weights.items()}
    write_safetensors(folder / "huge.safetensors", ModelData(data.config, weights))
    weights = data.weights | {"out_bias": np.full_like(data.weights["out_bias"], 1e308)}
    write_safetensors(folder / "biased.safetensors", ModelData(data.config, weights))
    huge, biased, domain = load(folder / "huge.safetensors"), load(folder / "biased.safetensors"), new_domain()
    assert_ok(parts.set(domain))
    answer = Answer(parts.nall, parts.nlocal)
    inputs = (biased.address, 5, COORDS, KINDS, BOX, None, None, None, 1)
    part = "the energy or a force is not a finite number"
    assert_refused(call("evaluate", *inputs, *answer.places()), INVALID_INPUT, part)
    assert_refused(parts.try_evaluate(domain, biased, answer), INVALID_INPUT, part)
    rows = np.empty((5, call("model_descriptor_dim", huge.address)))
    part = "the descriptor is not a finite number"
    assert_refused(call("descriptor", huge.address, 5, COORDS, KINDS, BOX, None, 1, rows, None), INVALID_INPUT, part)
    inputs = (domain.address, huge.address, parts.types, 0, parts.exchange, 1)
    assert_refused(call("domain_descriptor", *inputs, rows, None), INVALID_INPUT, part)


def test_no_atoms_are_fine(folder: Path) -> None:
    model = load(folder / "model.safetensors")
    for box in (None, BOX):
        answer = evaluate(model, np.empty((0, 3)), [], box)
        assert answer.energy[0] == 0.0
        assert not answer.virial.any()
    energy = np.ones(1)
    assert_ok(call("evaluate", model.address, 0, *[None] * 6, 1, energy, None, None, None, None))
    assert energy[0] == 0.0


@pytest.mark.parametrize("threads", [-3, 0, 1, 64])
def test_any_number_of_threads_is_fine(threads: int, folder: Path) -> None:
    model = load(folder / "model.safetensors")
    one, many = (evaluate(model, COORDS, TYPES, BOX, threads=t) for t in (1, threads))
    assert np.allclose(one.forces, many.forces, rtol=0, atol=1e-12)


def test_more_memory_than_there_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folder / "model.safetensors")
    n = 40
    coords = 2.5 * np.stack(np.meshgrid(*[np.arange(n, dtype=float)] * 3), axis=-1).reshape(-1, 3)
    kinds, forces, energy = np.zeros(n**3, dtype=np.intc), np.empty((n**3, 3)), np.zeros(1)
    inputs = (model.address, n**3, coords, kinds, None, None, None, None, 1)
    with monkeypatch.context() as patch:
        patch.setenv("DPA2_MEMORY_LIMIT", "1M")
        assert_refused(call("evaluate", *inputs, energy, forces, None, None, None), OUT_OF_MEMORY, "DPA2_MEMORY_LIMIT")
    evaluate(model, COORDS, TYPES, BOX)


# ------------------------------------------------------------------------------------------------ parts of systems


def wrong_entry(p: Parts) -> None:
    p.lists[2][0] = p.nall


def negative_entry(p: Parts) -> None:
    p.lists[2][0] = -1


def coinciding(p: Parts) -> None:
    p.coords[p.lists[2][0]] = p.coords[2]


SETTING: list[tuple[Callable[[Parts], Any], str]] = [
    (lambda p: setattr(p, "nlocal", -1), "-1 centres among"),
    (lambda p: setattr(p, "nall", 3), "5 centres among 3 atoms"),
    (lambda p: setattr(p, "coords", None), "coords is NULL"),
    (lambda p: setattr(p, "numneigh", None), "numneigh is NULL"),
    (lambda p: setattr(p, "firstneigh", None), "firstneigh is NULL"),
    (lambda p: p.numneigh.__setitem__(1, -4), "atom 1 has -4 neighbours"),
    (lambda p: p.firstneigh.__setitem__(4, 0), "the list of neighbours of atom 4 is NULL"),
]
EVALUATING: list[tuple[Callable[[Parts], Any], str]] = [
    (wrong_entry, "neighbour 0 of atom 2 is number"),
    (negative_entry, "neighbour 0 of atom 2 is number -1"),
    (coinciding, "are at the same place: the model is not defined at distance 0"),
    (lambda p: p.coords.__setitem__((7, 2), np.nan), "coordinate 2 of atom 7 is not finite"),
    (lambda p: p.types.__setitem__(6, 3), "atom 6 has type 3, but the model has 3 types"),
]


@pytest.mark.parametrize(("change", "part"), SETTING, ids=[part for _, part in SETTING])
def test_atoms_of_a_domain(change: Callable[[Parts], Any], part: str, parts: Parts) -> None:
    domain = new_domain()
    assert_ok(parts.set(domain))
    change(parts)
    assert_refused(parts.set(domain), INVALID_INPUT, part)


@pytest.mark.parametrize(("change", "part"), EVALUATING, ids=[part for _, part in EVALUATING])
def test_evaluation_of_a_domain(change: Callable[[Parts], Any], part: str, parts: Parts, folder: Path) -> None:
    domain, model = new_domain(), load(folder / "model.safetensors")
    change(parts)
    assert_ok(parts.set(domain, names=False))
    assert_refused(parts.try_evaluate(domain, model, Answer(parts.nall, parts.nlocal)), INVALID_INPUT, part)
    again = Parts(COORDS, TYPES, BOX, 4.5)
    assert_ok(again.set(domain))
    expected = evaluate(model, COORDS, TYPES, BOX)
    assert np.allclose(again.evaluate(domain, model).forces, expected.forces, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"domain": None}, "domain is NULL"),
        ({"model": None}, "model is NULL"),
        ({"types": None}, "types is NULL"),
        ({"pad_type": 3}, "pad_type is 3, but the model has 3 types"),
        ({"fparam": None}, "the model needs fparam"),
        ({"aparam": None}, "the model needs aparam"),
        ({"aparam": np.full(5, np.nan)}, "number 0 of aparam is not finite"),
        ({"exchange": None}, "is a ghost and somebody's neighbour, but there is no exchange"),
        ({"exchange": bytes(24)}, "a callback of the exchange is NULL"),
        ({"energy": None}, "energy is NULL"),
        ({"forces": None}, "virials are computed with forces only"),
    ],
)
def test_arguments_of_a_domain(change: dict[str, Any], part: str, parts: Parts, folder: Path) -> None:
    domain, model = new_domain(), load(folder / "params.safetensors")
    answer = Answer(parts.nall, parts.nlocal)
    arguments: dict[str, Any] = {
        "domain": domain.address,
        "model": model.address,
        "types": parts.types,
        "pad_type": 0,
        "fparam": np.array([0.2, -0.3]),
        "aparam": np.linspace(0, 1, 5),
        "exchange": parts.exchange,
        "threads": 1,
    } | dict(zip(("energy", "forces", "virial", "atom_energy", "atom_virial"), answer.places(), strict=True))
    assert_ok(parts.set(domain))
    assert_refused(call("domain_evaluate", *(arguments | change).values()), INVALID_INPUT, part)
    if not {"fparam", "aparam", "energy", "forces"} & set(change):
        rows = np.empty((parts.nlocal, call("model_descriptor_dim", model.address)))
        names = ("domain", "model", "types", "pad_type", "exchange", "threads")
        inputs = [(arguments | change)[name] for name in names]
        assert_refused(call("domain_descriptor", *inputs, rows, None), INVALID_INPUT, part)
        inputs = [arguments[name] for name in names]
        assert_refused(call("domain_descriptor", *inputs, None, None), INVALID_INPUT, "descriptor is NULL")
    assert_ok(call("domain_evaluate", *arguments.values()))


def test_a_domain_without_place() -> None:
    assert_refused(call("domain_create", None), INVALID_INPUT, "domain is NULL")
    assert_refused(call("domain_set_atoms", None, 0, 0, *[None] * 4, -1), INVALID_INPUT, "domain is NULL")


def test_ghosts_that_are_nobodys_neighbours_need_no_exchange(folder: Path) -> None:
    model, domain = load(folder / "model.safetensors"), new_domain()
    far = Parts(COORDS, TYPES, 40.0 * np.eye(3), 45.0)
    assert far.nall > far.nlocal
    assert_ok(far.set(domain))
    energy = np.zeros(1)
    inputs = (domain.address, model.address, far.types, 0, None, None, None, 1)
    assert call("domain_evaluate", *inputs, energy, None, None, None, None) == OK
    assert abs(energy[0] - evaluate(model, COORDS, TYPES).energy[0]) < 1e-12
