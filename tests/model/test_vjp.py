"""Gradients of weighted sums of outputs: slopes of these sums, whatever the model, the boundaries and the weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import dpa2
import numpy as np
import pytest
from cases import DIFFERENCE, SAME, TOLERANCE, ModelCase, System, golden_cases
from helpers import DEVICE, case_system, golden, model_of, relative

#: of the long list, for every run: each kind of block, padded slots, exclusions, parameters, virtual atoms
QUICK = ("base", "strip", "published_medium", "davg_rough_strip", "fparam_aparam", "virtual_davg", "atom_exclude")
SEEDS = ("atom_energy", "descriptor")
#: angstrom, or strain: so short that no neighbour enters a list on the way, and no kink of an activation is passed
STEP = 1e-5


def frames_of(system: System) -> list[dict[str, Any]]:
    """The frames as arguments: coordinates, box and parameters."""
    given = {"box": system.box, "fparam": system.fparam, "aparam": system.aparam}
    return [
        {"coords": coords, **{name: None if rows is None else rows[f] for name, rows in given.items()}}
        for f, coords in enumerate(system.coord)
    ]


def random_weights(model: dpa2.Model, natoms: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([natoms, seed])
    return {"atom_energy": rng.normal(size=natoms), "descriptor": rng.normal(size=(natoms, model.descriptor_dim))}


def gradients(model: dpa2.Model, types: Any, frame: dict[str, Any], weights: Any) -> tuple[np.ndarray, np.ndarray]:
    return model.vjp(frame["coords"], types, frame["box"], weights, fparam=frame["fparam"], aparam=frame["aparam"])


def moved(frame: dict[str, Any], direction: np.ndarray, strain: np.ndarray) -> tuple[np.ndarray, Any]:
    """Coordinates and boxes of the four frames of a 4th-order central difference."""
    steps = STEP * np.array([1.0, -1.0, 2.0, -2.0])[:, None, None]
    turned = np.eye(3) + steps * strain
    coords = (frame["coords"] @ turned.transpose(0, 2, 1)) + steps * direction
    return coords, None if frame["box"] is None else frame["box"].reshape(3, 3) @ turned.transpose(0, 2, 1)


def slope(model: dpa2.Model, types: Any, frame: dict[str, Any], weights: Any, *how: np.ndarray) -> float:
    """The slope of the weighted sum along a direction of the coordinates and of the strain."""
    coords, boxes = moved(frame, *how)
    total = np.zeros(4)
    if "atom_energy" in weights:
        found = model.evaluate(coords, types, boxes, fparam=frame["fparam"], aparam=frame["aparam"], forces=False)
        total += found.atom_energy @ weights["atom_energy"]
    if "descriptor" in weights:
        total += np.einsum("fic,ic->f", model.descriptor(coords, types, boxes), weights["descriptor"])
    return float((8 * (total[0] - total[1]) - (total[2] - total[3])) / (12 * STEP))


def assert_slopes(model: dpa2.Model, types: Any, frame: dict[str, Any], weights: Any, seed: int) -> None:
    """The gradients against slopes along a few directions in which everything takes part."""
    gradient, strain = gradients(model, types, frame, weights)
    assert gradient.shape == frame["coords"].shape
    assert strain.shape == (3, 3)
    rng, none = np.random.default_rng(seed), np.zeros((3, 3))
    scale = max(1.0, np.abs(gradient).max(initial=0.0), np.abs(strain).max())
    for _ in range(2):
        direction = rng.uniform(-1.0, 1.0, gradient.shape)
        expected = slope(model, types, frame, weights, direction, none)
        assert abs(float((gradient * direction).sum()) - expected) <= DIFFERENCE * scale
        direction = rng.uniform(-0.3, 0.3, (3, 3))
        expected = slope(model, types, frame, weights, np.zeros((1, 3)), direction)
        assert abs(float((strain * direction).sum()) - expected) <= DIFFERENCE * scale


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c.name in QUICK else [pytest.mark.slow], id=c.name) for c in golden_cases()],
)
def test_gradients_are_slopes_of_the_weighted_sum(case: ModelCase, seed: str) -> None:
    model = model_of(golden(case.name))
    for system in golden(case.name).systems:
        weights = random_weights(model, len(system.atype))
        for number, frame in enumerate(frames_of(system)):
            assert_slopes(model, system.atype, frame, {seed: weights[seed]}, number)


@pytest.mark.parametrize("where", ["open", "tiny"])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_component_is_a_slope(where: str, seed: str) -> None:
    model, system = model_of(golden("base")), case_system("base", where)
    frame, types = frames_of(system)[-1], system.atype
    weights = {seed: random_weights(model, len(types))[seed]}
    gradient, strain = gradients(model, types, frame, weights)
    for k in range(gradient.size):
        direction = np.zeros(gradient.size)
        direction[k] = 1.0
        expected = slope(model, types, frame, weights, direction.reshape(-1, 3), np.zeros((3, 3)))
        assert abs(gradient.ravel()[k] - expected) <= DIFFERENCE * max(1.0, np.abs(gradient).max())
    for k in range(9):
        direction = np.zeros(9)
        direction[k] = 1.0
        expected = slope(model, types, frame, weights, np.zeros((1, 3)), direction.reshape(3, 3))
        assert abs(strain.ravel()[k] - expected) <= DIFFERENCE * max(1.0, np.abs(strain).max())


@pytest.mark.parametrize("name", ["base", "published_medium", "rough_strip", "fparam_aparam", "atom_ener"])
def test_the_weight_1_gives_forces_and_virial(name: str) -> None:
    model = model_of(golden(name))
    for system in golden(name).systems:
        parameters = {"fparam": system.fparam, "aparam": system.aparam}
        expected = model.evaluate(system.coord, system.atype, system.box, **parameters)
        ones = {"atom_energy": np.ones(len(system.atype))}
        gradient, strain = model.vjp(system.coord, system.atype, system.box, ones, **parameters)
        assert np.array_equal(gradient, -expected.forces)
        assert np.array_equal(strain, -expected.virial)


@pytest.mark.parametrize("name", ["base", "virtual_davg"])
def test_linear_in_the_weights(name: str) -> None:
    model, system = model_of(golden(name)), case_system(name, "bulk")
    frame, types = frames_of(system)[0], system.atype
    one, two = (random_weights(model, len(types), seed) for seed in (1, 2))
    for which in (["atom_energy"], ["descriptor"], list(SEEDS)):
        parts = [gradients(model, types, frame, {key: w[key] for key in which}) for w in (one, two)]
        whole = gradients(model, types, frame, {key: 2.0 * one[key] - 0.5 * two[key] for key in which})
        for got, a, b in zip(whole, *parts, strict=True):
            assert relative(got, 2.0 * a - 0.5 * b) <= SAME
    both = gradients(model, types, frame, one)
    single = [gradients(model, types, frame, {key: one[key]}) for key in SEEDS]
    for got, a, b in zip(both, *single, strict=True):
        assert relative(got, a + b) <= SAME
    for key in SEEDS:
        nothing = gradients(model, types, frame, {key: np.zeros_like(one[key])})
        assert not any(part.any() for part in nothing)


def test_virtual_atoms_move_nothing() -> None:
    system = case_system("virtual", "bulk")
    model, frame, virtual = model_of(golden("virtual")), frames_of(system)[0], system.atype < 0
    assert virtual.any()
    weights = random_weights(model, len(system.atype))
    gradient, _ = gradients(model, system.atype, frame, weights)
    assert not gradient[virtual].any()
    others = {key: np.where(virtual.reshape(-1, *[1] * (w.ndim - 1)), 0.0, w) for key, w in weights.items()}
    assert np.array_equal(gradients(model, system.atype, frame, others)[0], gradient)


def test_energies_of_excluded_atoms_have_no_gradient() -> None:
    system, excluded = case_system("atom_exclude", "bulk"), golden("atom_exclude").config["atom_exclude_types"]
    model, frame = model_of(golden("atom_exclude")), frames_of(system)[0]
    chosen = np.isin(system.atype, excluded)
    assert chosen.any()
    nothing = gradients(model, system.atype, frame, {"atom_energy": chosen.astype(float)})
    assert not any(part.any() for part in nothing)
    rows = chosen[:, None] * np.ones(model.descriptor_dim)
    assert gradients(model, system.atype, frame, {"descriptor": rows})[0].any()


def test_atoms_may_be_outside_of_the_box() -> None:
    """Wherever an atom's image is, its gradient is the same, and so is the strain's."""
    model, system = model_of(golden("base")), case_system("base", "bulk")
    frame, types = frames_of(system)[0], system.atype
    box = frame["box"].reshape(3, 3)
    weights = random_weights(model, len(types))
    shift = np.random.default_rng(4).integers(-3, 4, frame["coords"].shape) @ box
    one = gradients(model, types, frame, weights)
    two = gradients(model, types, {**frame, "coords": frame["coords"] + shift}, weights)
    assert relative(two[0], one[0]) <= SAME
    assert relative(two[1], one[1]) <= 10 * SAME


def test_frames_one_by_one() -> None:
    model, system = model_of(golden("fparam_aparam"), threads=2), case_system("fparam_aparam", "bulk")
    parameters = {"fparam": system.fparam, "aparam": system.aparam}
    nframes, natoms = system.coord.shape[:2]
    rng = np.random.default_rng(3)
    own = {"atom_energy": rng.normal(size=(nframes, natoms)), "descriptor": rng.normal(size=(nframes, natoms, 12))}
    done: list[tuple[int, int]] = []
    gradient, strain = model.vjp(
        system.coord, system.atype, system.box, own, **parameters, progress=lambda *count: done.append(count)
    )
    assert gradient.shape == (nframes, natoms, 3)
    assert strain.shape == (nframes, 3, 3)
    assert done == [(f + 1, nframes) for f in range(nframes)]
    for f, frame in enumerate(frames_of(system)):
        one = gradients(model, system.atype, frame, {key: rows[f] for key, rows in own.items()})
        assert relative(gradient[f], one[0]) <= SAME  # side by side, each on one thread
        assert relative(strain[f], one[1]) <= SAME
    shared = model.vjp(system.coord, system.atype, system.box, {"atom_energy": own["atom_energy"][0]}, **parameters)
    column = {"atom_energy": np.repeat(own["atom_energy"][:1, :, None], nframes, axis=0)}  # deepmd-kit's shape
    again = model.vjp(system.coord, system.atype, system.box, column, **parameters)
    assert np.array_equal(shared[0], again[0])


@pytest.mark.skipif(DEVICE != "cpu", reason="threads are those of the CPU")
@pytest.mark.parametrize("name", ["base", "davg_strip"])
def test_threads_change_rounding_only(name: str) -> None:
    system = case_system(name, "bulk")
    frame = frames_of(system)[0]
    one = model_of(golden(name))
    weights = random_weights(one, len(system.atype))
    expected = gradients(one, system.atype, frame, weights)
    for threads in (2, 3):
        found = gradients(model_of(golden(name), threads=threads), system.atype, frame, weights)
        assert relative(found[0], expected[0]) <= SAME
        assert relative(found[1], expected[1]) <= SAME


@pytest.mark.skipif(DEVICE != "cpu", reason="only the compiled core orders atoms")
@pytest.mark.parametrize("skin", [0.0, 0.5])
def test_large_systems_keep_weights_with_their_atoms(skin: float) -> None:
    """From 1,024 atoms on they are computed in another order: copies of a cell give copies of its gradient."""
    small, system = model_of(golden("strip")), case_system("strip", "bulk")
    frame, types = frames_of(system)[0], system.atype
    box, n = frame["box"].reshape(3, 3), len(types)
    weights = random_weights(small, n)
    expected = gradients(small, types, frame, weights)
    m = int(np.ceil((1100 / n) ** (1 / 3)))
    copies = [np.array(k) @ box for k in np.ndindex(m, m, m)]
    coords = np.concatenate([frame["coords"] + shift for shift in copies])
    assert len(coords) >= 1024
    order = np.random.default_rng(1).permutation(len(coords))
    rows = np.tile(np.arange(n), len(copies))[order]
    model = model_of(golden("strip"), threads=2, skin=skin)
    for _ in range(2):
        found = model.vjp(coords[order], types[rows], box * m, {key: w[rows] for key, w in weights.items()})
        assert relative(found[0], expected[0][rows]) <= SAME
        assert relative(found[1], len(copies) * expected[1]) <= 10 * SAME


@pytest.mark.skipif(DEVICE == "reference", reason="the reference knows float64 only")
@pytest.mark.parametrize("name", ["base", "strip", "published_medium"])
def test_float32(name: str) -> None:
    system = case_system(name, "bulk")
    frame, double, single = frames_of(system)[0], model_of(golden(name)), model_of(golden(name), precision="float32")
    weights = random_weights(double, len(system.atype))
    for key in SEEDS:
        expected = gradients(double, system.atype, frame, {key: weights[key]})
        found = gradients(single, system.atype, frame, {key: weights[key]})
        for got, want in zip(found, expected, strict=True):
            assert 0.0 < relative(got, want) <= TOLERANCE["float32"]


@pytest.mark.parametrize("name", ["base", "strip", "virtual_davg", "fparam_aparam"])
def test_the_reference_says_the_same(name: str) -> None:
    system = case_system(name, "tiny")
    frame, model, reference = frames_of(system)[0], model_of(golden(name)), model_of(golden(name), device="reference")
    weights = random_weights(model, len(system.atype))
    for key in SEEDS:
        expected = gradients(reference, system.atype, frame, {key: weights[key]})
        found = gradients(model, system.atype, frame, {key: weights[key]})
        for got, want in zip(found, expected, strict=True):
            assert relative(got, want) <= TOLERANCE["float64"]


def test_parameters_are_for_energies_only() -> None:
    model, system = model_of(golden("fparam_aparam")), case_system("fparam_aparam", "tiny")
    weights = random_weights(model, len(system.atype))
    coords, box = system.coord[0], None if system.box is None else system.box[0]
    assert model.vjp(coords, system.atype, box, {"descriptor": weights["descriptor"]})[0].any()
    with pytest.raises(dpa2.InputError, match="pass fparam="):
        model.vjp(coords, system.atype, box, {"atom_energy": weights["atom_energy"]})


def test_no_atoms() -> None:
    model = model_of(golden("base"))
    gradient, strain = model.vjp(np.zeros((0, 3)), [], None, {"atom_energy": []})
    assert gradient.shape == (0, 3)
    assert np.array_equal(strain, np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({}, "weights must be a dict of arrays, by the name of the output they belong to: 'atom_energy' or 'descr"),
        (np.ones(2), "weights must be a dict"),
        (
            {"energy": 1.0},
            "there is no gradient of 'energy'; weights may be those of 'atom_energy' or 'descriptor' or 'rot_mat'",
        ),
        ({"atom_energy": np.ones(3)}, r"the weights of 'atom_energy' must have shape \(2,\), got \(3,\)"),
        ({"atom_energy": np.ones((1, 2))}, r"must have shape \(2,\), got \(1, 2\)"),
        ({"descriptor": np.ones((2, 5))}, r"the weights of 'descriptor' must have shape \(2, 12\), got \(2, 5\)"),
        ({"atom_energy": [1.0, np.nan]}, r"the weights of 'atom_energy'\[1\] = nan is not finite"),
        ({"atom_energy": ["a", "b"]}, "the weights of 'atom_energy' must be an array of real numbers"),
    ],
)
def test_weights_that_are_refused(weights: Any, says: str) -> None:
    model = model_of(golden("base"))
    coords, types = np.array([[0.0, 0.0, 0.0], [1.2, 0.4, 0.1]]), [0, 1]
    with pytest.raises(dpa2.InputError, match=says):
        model.vjp(coords, types, None, weights)
    with pytest.raises(dpa2.InputError, match=r"^frame 0: atoms 0 and 1 .*at the same p"):
        model.vjp(np.zeros((1, 2, 3)), types, None, {"atom_energy": np.ones(2)})


def test_gradients_beyond_all_numbers_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(golden("base"))
    frame = np.array([[0.0, 0.0, 0.0], [1.2, 0.4, 0.1]]), [0, 1], None
    too_large = "a gradient is not a finite number: .* or weights or parameters so large"
    with pytest.raises(dpa2.InputError, match=too_large):
        model.vjp(*frame, {"descriptor": np.full((2, model.descriptor_dim), 1.7e308)})
    found = np.zeros((2, 3)), np.full((3, 3), np.inf), ([], None)
    monkeypatch.setattr(model, "_engine", SimpleNamespace(vjp=lambda *_: found))
    with pytest.raises(dpa2.InputError, match=too_large):  # strains are larger by the distance of atoms
        model.vjp(*frame, {"atom_energy": np.ones(2)})
