"""Second derivatives: against deepmd-kit's Hessians and central differences of forces, their symmetries, bad input."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import dpa2
import numpy as np
import pytest
from api_models import make_model
from cases import DIFFERENCE, SAME, TOLERANCE, ModelCase, golden_cases
from dpa2 import _native
from dpa2.compress import compress
from dpa2.files import ModelData
from helpers import DEVICE, case_system, golden, model_of, relative
from hessian_cases import CASES, hessian_of
from kind_models import kind, kind_model

pytestmark = pytest.mark.skipif(DEVICE != "cpu", reason="second derivatives are computed on the CPU")

#: of the long list, for every run: each kind of block, padded slots, exclusions, parameters, virtual atoms
QUICK = ("base", "strip", "davg_rough_strip", "fparam_aparam", "virtual_davg", "atom_exclude", "direct_dist_davg")
#: angstrom; short, for the forces of some of these models bend within hundredths of an angstrom
STEP = 3e-6


def structure(case: str, system: str, frame: int = 0) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Of a frame of a golden case: coordinates, types and box, and parameters by name."""
    found = case_system(case, system)
    box, fparam, aparam = (None if a is None else a[frame] for a in (found.box, found.fparam, found.aparam))
    return (found.coord[frame], found.atype, box), {"fparam": fparam, "aparam": aparam}


def hessian(model: dpa2.Model, case: str, system: str, frame: int = 0) -> np.ndarray:
    given, parameters = structure(case, system, frame)
    found: np.ndarray = model.hessian(*given, **parameters)
    return found


def directions(natoms: int, *several: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([natoms, seed]).normal(size=(*several, natoms, 3))


# ------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize(("case", "system"), [(case, system) for case, systems in CASES.items() for system in systems])
def test_deepmd_kit_says_the_same(case: str, system: str) -> None:
    found, expected = hessian(model_of(golden(case)), case, system), hessian_of(case, system)
    assert relative(found, expected) <= TOLERANCE["float64"]
    assert relative(found, found.T) <= SAME


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[] if c.name in QUICK else [pytest.mark.slow], id=c.name) for c in golden_cases()]
)
def test_products_are_slopes_of_the_forces(case: ModelCase) -> None:
    """4th-order central differences, so close that no list and no kink changes on the way."""
    model = model_of(golden(case.name))
    steps = STEP * np.array([1.0, -1.0, 2.0, -2.0])[:, None, None]
    for system in golden(case.name).systems:
        for frame in range(len(system.coord)):
            (coords, types, box), parameters = structure(case.name, system.name, frame)
            direction = directions(len(types), seed=frame)
            found = model.hessian_product(coords, types, box, direction, **parameters)
            forces = model.evaluate(coords + steps * direction, types, box, **parameters).forces
            expected = -(8.0 * (forces[0] - forces[1]) - (forces[2] - forces[3])) / (12.0 * STEP)
            scale = max(1.0, np.abs(found).max())
            assert np.abs(found - expected).max() <= DIFFERENCE * scale, (system.name, frame)


def test_the_matrix_makes_the_products() -> None:
    model, (given, _) = model_of(golden("base")), structure("base", "bulk")
    matrix = model.hessian(*given)
    several = directions(len(given[1]), 4)
    found = model.hessian_product(*given, several)
    assert found.shape == several.shape
    assert relative(found.reshape(4, -1), several.reshape(4, -1) @ matrix) <= SAME
    for one, product in zip(several, found, strict=True):
        assert np.array_equal(model.hessian_product(*given, one), product)
    assert np.array_equal(model.hessian_product(*given, several[:0]), several[:0])


@pytest.mark.parametrize("name", ["base", "strip", "published_medium", "davg_rough_strip"])
def test_float32(name: str) -> None:
    single = model_of(golden(name), precision="float32")
    for system in ("bulk", "open"):
        error = relative(hessian(single, name, system), hessian(model_of(golden(name)), name, system))
        assert 0.0 < error <= TOLERANCE["float32"]


# ------------------------------------------------------------------------------------------ symmetries


@pytest.mark.parametrize("system", ["bulk", "open", "tiny"])
@pytest.mark.parametrize("name", ["base", "davg_rough_strip"])
def test_translations_change_no_force(name: str, system: str) -> None:
    matrix = hessian(model_of(golden(name)), name, system)
    sums = matrix.reshape(len(matrix), -1, 3).sum(axis=1)
    assert np.abs(sums).max() <= 100 * SAME * np.abs(matrix).max()


def test_rotations_turn_it_and_permutations_move_it() -> None:
    """With statistics that know no direction, as those of real models."""
    data = golden("base")
    weights = {key: value.copy() for key, value in data.weights.items()}
    for key, value in weights.items():
        if key.endswith(".stddev"):
            value[:, 2:] = value[:, 1:2]
    model = dpa2.Model(ModelData(data.config, weights), threads=1, on_overflow="ignore")
    (coords, types, box), _ = structure("base", "bulk", 1)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    order = np.random.default_rng(4).permutation(len(types))
    cell = box.reshape(3, 3)
    blocks = model.hessian(coords, types, box).reshape(len(types), 3, len(types), 3)
    turned = model.hessian(coords[order] @ turn.T, types[order], cell @ turn.T).reshape(blocks.shape)
    expected = np.einsum("ca,iakb,db->ickd", turn, blocks[order][:, :, order], turn)
    assert relative(turned, expected) <= 10 * SAME


@pytest.mark.parametrize("skin", [0.0, 0.5])
def test_large_systems_keep_directions_with_their_atoms(skin: float) -> None:
    """From 1,024 atoms on they are computed in another order: copies of a cell have copies of its products."""
    (coords, types, box), _ = structure("strip", "bulk")
    cell, n = box.reshape(3, 3), len(types)
    direction = directions(n)
    expected = model_of(golden("strip")).hessian_product(coords, types, box, direction)
    m = int(np.ceil((1100 / n) ** (1 / 3)))
    shifts = [np.array(k) @ cell for k in np.ndindex(m, m, m)]
    many = np.concatenate([coords + shift for shift in shifts])
    assert len(many) >= 1024
    order = np.random.default_rng(1).permutation(len(many))
    rows = np.tile(np.arange(n), len(shifts))[order]
    model = model_of(golden("strip"), threads=2, skin=skin)
    found = model.hessian_product(many[order], types[rows], cell * m, direction[rows])
    assert relative(found, expected[rows]) <= SAME


# ------------------------------------------------------------------------------------------ frames and threads


def test_frames_threads_and_progress() -> None:
    system, one, two = (
        case_system("fparam_aparam", "bulk"),
        *(model_of(golden("fparam_aparam"), threads=threads) for threads in (1, 2)),
    )
    frames, parameters = (system.coord, system.atype, system.box), {"fparam": system.fparam, "aparam": system.aparam}
    nframes, natoms = system.coord.shape[:2]
    width, done = 3 * natoms, []
    expected = np.stack([hessian(one, "fparam_aparam", "bulk", f) for f in range(nframes)])
    for model in (one, two):  # each product on one thread
        done.clear()
        found = model.hessian(*frames, **parameters, progress=lambda *count: done.append(count))
        assert np.array_equal(found, expected)
        assert done == [(k + 1, nframes * width) for k in range(nframes * width)]

    def products(direction: np.ndarray) -> np.ndarray:
        found: np.ndarray = two.hessian_product(*frames, direction, **parameters)
        return found

    own = directions(natoms, nframes, 3)
    wanted = (own.reshape(nframes, 3, width) @ expected).reshape(own.shape)
    assert relative(products(own), wanted) <= SAME
    assert relative(products(own[:, 0]), wanted[:, 0]) <= SAME
    assert relative(products(own[0, 0])[0], wanted[0, 0]) <= SAME
    assert products(own[0, 0]).shape == (nframes, natoms, 3)


def test_threads_share_a_product() -> None:
    given, _ = structure("base", "bulk")
    direction = directions(len(given[1]))
    expected = model_of(golden("base")).hessian_product(*given, direction)
    found = model_of(golden("base"), threads=3).hessian_product(*given, direction)
    assert relative(found, expected) <= SAME


def test_evaluations_before_and_after_are_not_changed() -> None:
    model, (given, _) = model_of(golden("base")), structure("base", "bulk")
    before = model.evaluate(*given)
    model.hessian(*given)
    after = model.evaluate(*given)
    assert np.array_equal(after.forces, before.forces)
    assert after.energy == before.energy


# ------------------------------------------------------------------------------------------ special structures


def test_few_atoms_and_no_neighbours() -> None:
    model = model_of(golden("base"))
    for coords in (np.zeros((0, 3)), np.zeros((1, 3)), np.array([[0.0, 0.0, 0.0], [30.0, 0.0, 0.0]])):
        found = model.hessian(coords, np.zeros(len(coords), int))
        assert found.shape == (3 * len(coords), 3 * len(coords))
        assert not found.any()
        assert not np.signbit(found).any()
    assert model.hessian(np.zeros((2, 0, 3)), []).shape == (2, 0, 0)
    assert model.hessian(np.zeros((0, 2, 3)), [0, 0]).shape == (0, 6, 6)
    assert model.hessian_product(np.zeros((2, 0, 3)), [], None, np.zeros((0, 3))).shape == (2, 0, 3)
    alone = model.hessian([[0.1, 0.2, 0.3]], [0], np.eye(3) * 2.5)  # its images move with it
    assert np.abs(alone).max() <= 1e-10


def test_rows_of_virtual_atoms_are_zero() -> None:
    model, ((coords, types, box), _) = model_of(golden("virtual_davg")), structure("virtual_davg", "bulk")
    blocks = model.hessian(coords, types, box).reshape(len(types), 3, len(types), 3)
    virtual = types < 0
    assert virtual.any()
    assert not blocks[virtual].any()
    assert not blocks[:, :, virtual].any()
    direction = directions(len(types))
    still = np.where(virtual[:, None], 0.0, direction)
    found = [model.hessian_product(coords, types, box, each) for each in (direction, still)]
    assert np.array_equal(*found)


# ------------------------------------------------------------------------------------------ evaluate, and refusals


def test_evaluate_computes_it_when_asked() -> None:
    model, system = model_of(golden("base")), case_system("base", "bulk")
    frames = (system.coord, system.atype, system.box)
    done: list[tuple[int, int]] = []
    assert not model.has_hessian
    assert "hessian" not in model.evaluate(*frames).outputs
    found = model.evaluate(*frames, hessian=True, progress=lambda *count: done.append(count))
    assert done == [(1, 2), (2, 2)]
    assert np.array_equal(found.outputs["hessian"], model.hessian(*frames))
    assert np.array_equal(found.frame(1).outputs["hessian"], hessian(model, "base", "bulk", 1))
    values = model.evaluate(system.coord[0], system.atype, system.box[0], forces=False, hessian=True)
    assert values.forces is None
    assert values.outputs["hessian"].shape == (42, 42)
    with pytest.raises(dpa2.InputError, match="hessian must be True or False, got 1"):
        model.evaluate(*frames, hessian=1)  # type: ignore[arg-type]


PAIR: tuple[Any, ...] = ([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], [0, 1])
FRAMES = (np.zeros((3, 2, 3)) + np.array(PAIR[0]), PAIR[1])


@pytest.mark.parametrize(
    ("given", "direction", "says"),
    [
        (PAIR, np.ones(6), r"direction must have shape \(2, 3\), or for n directions at once \(n, 2, 3\), got \(6,\)"),
        (PAIR, np.ones((1, 1, 2, 3)), r"got \(1, 1, 2, 3\)"),
        (PAIR, np.ones((3, 3)), r"got \(3, 3\)"),
        (FRAMES, np.ones((4, 2, 3)), r"one per frame \(3, 2, 3\), .* \(3, n, 2, 3\), got \(4, 2, 3\)"),
        (FRAMES, np.ones((1, 5, 2, 3)), r"got \(1, 5, 2, 3\)"),
        (PAIR, [[0, 0, np.nan], [0, 0, 0]], r"direction\[0, 2\] = nan is not finite"),
        (PAIR, [["x", "y", "z"]] * 2, "direction must be an array of real numbers"),
        (PAIR, None, "direction must be an array of real numbers"),
        (PAIR, np.array([[0.0, 0.0, 0.0], [1.7e308, 0.0, 0.0]]), "a second derivative is not a finite number"),
        (([[0.0, 0.0]], [0]), np.ones((1, 3)), "coords must have shape"),
    ],
)
def test_directions_that_are_none(given: tuple[Any, ...], direction: Any, says: str) -> None:
    with pytest.raises(dpa2.InputError, match=says):
        make_model("cpu").hessian_product(*given, None, direction)


def test_errors_name_the_frame() -> None:
    frames = FRAMES[0].copy()
    frames[1, 1] = 0.0
    with pytest.raises(dpa2.InputError, match="frame 1: atoms 0 and 1 are at the same place"):
        make_model("cpu").hessian(frames, PAIR[1])
    with pytest.raises(dpa2.InputError, match="pass fparam="):
        make_model("cpu", nf=2, na=1).hessian(*PAIR)


def test_other_devices_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(dpa2.InputError, match='the reference has no second derivatives: load the model with device="c'):
        make_model("reference").hessian(*PAIR)
    on_gpu = model_of(golden("base"))
    monkeypatch.setattr(on_gpu, "_device", "cuda:1")
    says = "second derivatives are computed on the CPU, and the model is on cuda:1"
    for call in (on_gpu.hessian, lambda *given: on_gpu.evaluate(*given, hessian=True)):
        with pytest.raises(dpa2.InputError, match=says):
            call(*PAIR)
    with pytest.raises(dpa2.InputError, match=says):
        on_gpu.hessian_product(*PAIR, None, np.ones((2, 3)))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dipole", "Hessians are those of energies, and this is a dipole model"),
        ("polar", "this is a polar model"),
        ("property", "this is a property model"),
        ("zbl", "the Hessian of a combination of models is not there"),
        ("linear", "the Hessian of a combination of models is not there"),
    ],
)
def test_models_that_have_none(name: str, says: str) -> None:
    model, system = kind_model(name), kind(name).systems[0]
    box, fparam, aparam = (None if a is None else a[0] for a in (system.box, system.fparam, system.aparam))
    given, parameters = (system.coord[0], system.atype, box), {"fparam": fparam, "aparam": aparam}
    with pytest.raises(dpa2.UnsupportedModelError, match=says):
        model.hessian(*given, **parameters)
    with pytest.raises(dpa2.UnsupportedModelError, match=says):
        model.evaluate(*given, hessian=True, **parameters)


def test_compressed_models_have_none() -> None:
    config = golden("published_small").config | {"hessian_mode": True}
    model = dpa2.Model(compress(ModelData(config, golden("published_small").weights), 1e-4)[0], threads=1)
    assert not model.has_hessian
    assert "hessian" not in model.evaluate(*PAIR).outputs
    with pytest.raises(dpa2.UnsupportedModelError, match="the model is compressed, its networks are tables"):
        model.hessian(*PAIR)


def test_what_does_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "available_memory", lambda: (8 * 36 + 7, "this test"))
    model = make_model("cpu")
    assert model.hessian(*PAIR).shape == (6, 6)
    says = "the Hessian of 3 frames with 2 atoms takes 8.64e-07 GB, but this test leaves .* GB: ask for fewer frames"
    with pytest.raises(dpa2.OutOfMemoryError, match=says):
        model.hessian(*FRAMES)


def test_numbers_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(golden("base"))
    found = np.full((2, 3), np.inf), ([], None, -1, 0)
    monkeypatch.setattr(model, "_engine", SimpleNamespace(hessian_product=lambda *_: found))
    with pytest.raises(dpa2.InputError, match="a second derivative is not a finite number: atoms are so close"):
        model.hessian(*PAIR)
