"""Laws of models of other kinds, whatever their weights: symmetries, derivatives, sums, locality, reproducibility."""

from __future__ import annotations

from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from cases import DIFFERENCE, SAME, Golden
from helpers import DEVICE, model_of, relative
from kind_models import CASES, COMBINATIONS, WITH_FORCES, frames, kind, kind_model, outputs, system_of

pytestmark = pytest.mark.filterwarnings("ignore:.*from its nearest neighbour")

ALL = pytest.mark.parametrize("name", CASES)
#: for a quick run: one of each kind, of combinations all
QUICK = {"dipole", "polar_full", "dos", "property", "population_double", *COMBINATIONS}
MOST = pytest.mark.parametrize("name", needs.mostly_slow(tuple(CASES), QUICK, str))
FEW = pytest.mark.parametrize("name", needs.mostly_slow(tuple(CASES), {"dipole", "polar", "zbl", "linear_three"}, str))
#: no padded slot carries a type there, so that nothing knows the order of atoms
UNORDERED = tuple(name for name, case in CASES.items() if case.davg == 0.0)
#: how many indices of an output turn with the structure; derivatives of a dipole have one more
TENSORS = {"dipole": 1, "global_dipole": 1, "polar": 2, "global_polar": 2}
DERIVATIVES = {"force": 1, "virial": 2, "atom_virial": 2}
#: angstrom, or strain: so short that no neighbour enters a list on the way
STEP = 1e-5


def frame_of(name: str, system: str = "bulk", number: int = -1) -> dict[str, Any]:
    """A frame, at least a small one: heads of a multi-task file have the open system only."""
    known = {s.name for s in kind(name).systems}
    return frames(system_of(name, system if system in known else "open"))[number]


def rank(name: str, output: str) -> int:
    """How many indices of an output of a case turn with the structure."""
    if output in DERIVATIVES:
        return DERIVATIVES[output] + ("dipole" in CASES[name].answers)
    return TENSORS.get(output, 0)


def turned(value: np.ndarray, q: np.ndarray, indices: int) -> np.ndarray:
    """A tensor of so many indices, in its last axes, of the structure that `q` has turned."""
    out = value.reshape(-1, *[3] * indices)
    for axis in range(1, indices + 1):
        out = np.moveaxis(np.tensordot(q, out, axes=(1, axis)), 0, axis)
    return out.reshape(value.shape)


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.linalg.det(q)))


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], bound: float = 10 * SAME) -> None:
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert relative(value, expected[key]) <= bound, key


# --------------------------------------------------------------------------------------------------- symmetries


@ALL
def test_rotation(name: str) -> None:
    """Dipoles and polarizabilities turn with the structure, their derivatives in every index; numbers stay."""
    model, frame, q = kind_model(name, isotropic=True), frame_of(name), rotation(3)
    there = frame | {"coords": frame["coords"] @ q.T}
    if "box" in frame:
        there["box"] = frame["box"] @ q.T
    expected = {key: turned(v, q, rank(name, key)) for key, v in outputs(model, frame, atomic=True).items()}
    assert_same(outputs(model, there, atomic=True), expected)


@ALL
def test_translation(name: str) -> None:
    model, frame = kind_model(name), frame_of(name)
    moved = frame | {"coords": frame["coords"] + np.array([3.1, -7.7, 0.4])}
    assert_same(outputs(model, moved, atomic=True), outputs(model, frame, atomic=True))


@pytest.mark.parametrize("name", UNORDERED)
def test_permutation(name: str) -> None:
    model, frame = kind_model(name), frame_of(name)
    order = np.random.default_rng(8).permutation(len(frame["types"]))
    other = frame | {key: frame[key][order] for key in ("coords", "types", "aparam") if key in frame}
    expected = outputs(model, frame, atomic=True)
    per_atom = {o.name for o in model.outputs if o.per_atom} | {"mask"}
    expected = {key: value[order] if key in per_atom else value for key, value in expected.items()}
    assert_same(outputs(model, other, atomic=True), expected)


@ALL
def test_atoms_moved_by_lattice_vectors(name: str) -> None:
    frame = frame_of(name)
    if "box" in frame:
        shift = np.random.default_rng(4).integers(-3, 4, frame["coords"].shape) @ frame["box"]
        model = kind_model(name)
        moved = frame | {"coords": frame["coords"] + shift}
        assert_same(outputs(model, moved, atomic=True), outputs(model, frame, atomic=True))


# -------------------------------------------------------------------------------------------------- derivatives


def total(name: str) -> str:
    """The output whose derivatives a model has."""
    return "global_dipole" if "dipole" in CASES[name].answers else "energy"


def changed(frame: dict[str, Any], direction: np.ndarray, strain: np.ndarray, step: float) -> dict[str, Any]:
    matrix = np.eye(3) + step * strain
    moved = frame | {"coords": frame["coords"] @ matrix.T + step * direction}
    if "box" in frame:
        moved["box"] = frame["box"] @ matrix.T
    return moved


def slope(
    model: dpa2.Model, frame: dict[str, Any], output: str, direction: np.ndarray, strain: np.ndarray
) -> np.ndarray:
    """4th-order central difference of an output along a direction of the coordinates and of the strain."""
    low, high, lower, higher = (
        outputs(model, changed(frame, direction, strain, factor * STEP), forces=False)[output]
        for factor in (-1.0, 1.0, -2.0, 2.0)
    )
    return np.asarray((8.0 * (high - low) - (higher - lower)) / (12.0 * STEP))


def assert_derivatives(name: str, model: dpa2.Model, frame: dict[str, Any], directions: Any) -> None:
    """Forces and virial against slopes along (direction, strain) pairs."""
    found = outputs(model, frame)
    components = found[total(name)].size
    force = found["force"].reshape(len(frame["types"]), components, 3)
    virial = found["virial"].reshape(components, 3, 3)
    scale = max(1.0, np.abs(force).max(), np.abs(virial).max())
    for direction, strain in directions:
        expected = -slope(model, frame, total(name), direction, strain)
        along = np.einsum("icx,ix->c", force, direction) + np.einsum("ckl,kl->c", virial, strain)
        assert np.abs(along - expected).max() <= DIFFERENCE * scale


@pytest.mark.parametrize("name", WITH_FORCES)
def test_forces_and_virials_are_slopes(name: str) -> None:
    """In every frame, along directions in which everything takes part."""
    model, rng = kind_model(name), np.random.default_rng(5)
    for system in kind(name).systems:
        for frame in frames(system):
            shape = frame["coords"].shape
            along = [
                (rng.uniform(-1.0, 1.0, shape), np.zeros((3, 3))),
                (np.zeros(shape), rng.uniform(-0.3, 0.3, (3, 3))),
            ]
            assert_derivatives(name, model, frame, along)


@pytest.mark.parametrize("name", ["dipole", "dipole_excluded", "zbl", "linear"])
def test_every_component_is_a_slope(name: str) -> None:
    model, frame = kind_model(name), frame_of(name, "tiny")
    unit = np.eye(frame["coords"].size + 9)
    directions = [(row[:-9].reshape(-1, 3), row[-9:].reshape(3, 3)) for row in unit]
    assert_derivatives(name, model, frame, directions)


@pytest.mark.parametrize("name", WITH_FORCES)
def test_shares_add_up(name: str) -> None:
    """Atomic virials to the virial, values of atoms to that of the structure, forces to nothing."""
    model = kind_model(name)
    for system in kind(name).systems:
        frame = frames(system)[-1]
        for atomic in ("edge", "deepmd"):
            found = outputs(model, frame, atomic)
            assert relative(found["atom_virial"].sum(axis=0), found["virial"]) <= 10 * SAME
            value = "dipole" if total(name) == "global_dipole" else "atom_energy"
            assert relative(found[value].sum(axis=0), found[total(name)]) <= 10 * SAME
            scale = max(1.0, np.abs(found["force"]).max())
            assert np.abs(found["force"].sum(axis=0)).max() <= 10 * SAME * scale


# ------------------------------------------------------------------------------- between a network and a table

#: of the model "zbl", angstrom: the switch and where the bound on the sum begins to act
SW_RMIN, SW_RMAX, BOUND = 1.2, 2.1, 0.1 * np.log(1e20)


def pair(r: float) -> dict[str, Any]:
    """Two atoms at a distance: the soft nearest distance of both is this distance, up to the bound."""
    return {"coords": np.array([[0.0, 0.0, 0.0], [0.48, 0.6, 0.64]]) * [[1.0], [r]], "types": np.array([0, 1])}


def bounded(sigma: float) -> float:
    """The distance beyond the bound at which the soft nearest distance of a pair has fallen to sigma."""
    r = BOUND + 0.1
    for _ in range(60):
        r = 0.1 * np.log(r / sigma * 1e20)
    return float(r)


DISTANCES = {
    "table": 0.9, "inner end": SW_RMIN, "middle, near": 1.4, "middle": 1.65, "middle, far": 1.9, "outer end": SW_RMAX,
    "network": 3.3, "at the bound": BOUND, "behind the bound": 4.65, "bounded, outer end": bounded(SW_RMAX),
    "bounded, middle": bounded(1.65), "bounded, inner end": bounded(SW_RMIN), "bounded, table": 4.85,
}  # fmt: skip


@pytest.mark.parametrize("where", DISTANCES)
def test_forces_are_slopes_through_the_whole_switch(where: str) -> None:
    model, frame = kind_model("zbl"), pair(DISTANCES[where])
    direction = np.zeros((2, 3))
    direction[1] = frame["coords"][1] / np.linalg.norm(frame["coords"][1])
    strain = np.random.default_rng(2).uniform(-0.05, 0.05, (3, 3))  # beyond the bound the switch is steep
    assert_derivatives("zbl", model, frame, [(direction, np.zeros((3, 3))), (np.zeros((2, 3)), strain)])


def parts_of_zbl() -> tuple[dpa2.Model, dpa2.Model]:
    """The network of "zbl" alone, and the whole switched over to the table everywhere, both without other biases."""
    data = kind("zbl")
    child = data.config["models"][0]
    alone = {
        "format_version": 1, "type_map": child["type_map"], "precision": "float64", "descriptor": child["descriptor"],
        "fitting_net": child["fitting_net"], "pair_exclude_types": [], "atom_exclude_types": [],
        "min_nbor_dist": None, "head": None,
    }  # fmt: skip
    weights = {key.removeprefix("models.0."): v for key, v in data.weights.items() if key.startswith("models.0.")}
    network = model_of(Golden(alone, weights, (), {}))
    table = model_of(Golden({**data.config, "sw_rmin": 90.0, "sw_rmax": 91.0}, data.weights, (), {}))
    return network, table


@pytest.mark.parametrize(
    ("where", "weight"),
    [("table", 1.0), ("inner end", 1.0), ("middle", 0.5), ("outer end", 0.0), ("network", 0.0),
     ("bounded, outer end", 0.0), ("bounded, middle", 0.5), ("bounded, inner end", 1.0), ("bounded, table", 1.0)],
)  # fmt: skip
def test_the_weight_of_the_table(where: str, weight: float) -> None:
    """Half in the middle, all of it near, nothing far; all of it again where the nearest atom is beyond the bound."""
    frame, whole = pair(DISTANCES[where]), kind_model("zbl")
    network, table = parts_of_zbl()
    bias = kind("zbl").weights["out_bias"][0, frame["types"]]
    of_network, of_table = (outputs(m, frame)["atom_energy"] for m in (network, table))
    expected = (1.0 - weight) * of_network + weight * (of_table - bias) + bias
    assert relative(outputs(whole, frame)["atom_energy"], expected) <= 1e-10
    assert np.abs(of_network + bias - of_table).max() > 1e-2  # the two can be told apart


def test_an_atom_alone_has_the_energy_of_the_network() -> None:
    network, _ = parts_of_zbl()
    frame = {"coords": np.zeros((1, 3)), "types": np.array([1])}
    expected = outputs(network, frame)["energy"] + kind("zbl").weights["out_bias"][0, 1]
    assert relative(outputs(kind_model("zbl"), frame)["energy"], expected) <= SAME


@pytest.mark.filterwarnings("ignore:atoms 0 .* are 0.2501 angstrom from each other")
@pytest.mark.parametrize("name", ["zbl", "linear_table"])
@pytest.mark.parametrize("device", [DEVICE, "reference"])
def test_a_pair_nearer_than_the_table_begins_is_refused(name: str, device: str) -> None:
    model = kind_model(name, device=device)
    kept, near = pair(0.2501), pair(0.2499)
    assert np.isfinite(outputs(model, kept)["energy"]).all()
    with pytest.raises(dpa2.InputError, match="table"):
        outputs(model, near)


# -------------------------------------------------------------------------------------------------------- masks


@ALL
def test_atoms_that_do_not_count_have_nothing(name: str) -> None:
    model, excluded = kind_model(name), kind(name).config["atom_exclude_types"]
    for system in kind(name).systems:
        counts = (system.atype >= 0) & ~np.isin(system.atype, excluded)
        for frame in frames(system):
            found = outputs(model, frame)
            assert found["mask"].dtype == np.int32
            assert np.array_equal(found["mask"], counts)
            for output in model.outputs:
                if output.per_atom and output.of == "" and output.name not in ("descriptor", "rot_mat"):
                    value = found[output.name]
                    assert not value[~counts].any(), output.name
                    if system.name == "bulk":  # an atom without neighbours has no dipole
                        assert (value[counts] != 0.0).mean() > 0.8, output.name
            if "force" in found:
                assert not found["force"][system.atype < 0].any()
                if system.name == "bulk":  # excluded atoms act as neighbours
                    real, left_out = system.atype >= 0, np.isin(system.atype, excluded)
                    assert found["force"][real].any(axis=tuple(range(1, found["force"].ndim))).mean() >= 0.5
                    assert found["force"][left_out].any() == left_out.any()


@ALL
def test_where_no_atom_counts(name: str) -> None:
    """Everything is zero, but the mean of an intensive property, which is no number."""
    model, excluded = kind_model(name), kind(name).config["atom_exclude_types"]
    intensive = {o.name for o in model.outputs if o.reduction == "mean"}
    assert bool(intensive) == (name in ("property", "multitask_gap"))
    frame = frame_of(name)
    chosen = [np.full(3, -1), np.zeros(0, dtype=int), *([np.full(3, excluded[0])] if excluded else [])]
    for types in chosen:
        n = len(types)
        part = frame | {"coords": np.array([[0.0, 0.0, 0.0], [1.2, 0.3, 0.1], [0.2, 1.3, 0.9]])[:n], "types": types}
        part |= {"aparam": frame["aparam"][:n]} if "aparam" in frame else {}
        for key, value in outputs(model, part).items():
            assert np.isnan(value).all() if key in intensive else not value.any(), key


def test_the_mean_is_over_atoms_that_count() -> None:
    for name in ("property", "multitask_gap"):
        for frame in map(frames, kind(name).systems):
            found = outputs(kind_model(name), frame[0])
            assert relative(found["gap"], found["atom_gap"].sum(axis=0) / found["mask"].sum()) <= SAME
    assert found["mask"].sum() > 1


# ----------------------------------------------------------------------------------------------------- locality


@MOST
def test_supercell(name: str) -> None:
    """Sums double, means stay, atoms have what they had."""
    frame = frame_of(name, "tiny" if name not in ("dos", "linear_three", "zbl_excluded") else "bulk")
    if "box" not in frame:
        return
    model, count = kind_model(name), len(frame["types"])
    double = frame | {
        "coords": np.concatenate([frame["coords"], frame["coords"] + frame["box"][1]]),
        "types": np.tile(frame["types"], 2),
        "box": frame["box"] * [[1.0], [2.0], [1.0]],
    }
    if "aparam" in frame:
        double["aparam"] = np.tile(frame["aparam"], (2, 1))
    one, two = outputs(model, frame), outputs(model, double)
    for output in model.outputs:
        if output.name in one:
            value, factor = one[output.name], 1.0 if output.reduction == "mean" else 2.0
            expected = np.concatenate([value, value]) if output.per_atom else factor * value
            assert relative(two[output.name], expected) <= 10 * SAME, output.name
    assert two["mask"].shape == (2 * count,)


# ---------------------------------------------------------------------------------------------- reproducibility


@FEW
@pytest.mark.skipif(DEVICE != "cpu", reason="threads and skins are those of the CPU")
def test_threads_change_rounding_only(name: str) -> None:
    frame = frame_of(name)
    one = outputs(kind_model(name), frame, atomic="deepmd")
    for threads in (2, 3):
        assert_same(outputs(kind_model(name, threads=threads), frame, atomic="deepmd"), one)


@FEW
@pytest.mark.skipif(DEVICE != "cpu", reason="threads and skins are those of the CPU")
def test_a_skin_changes_no_bit(name: str) -> None:
    """Lists that reach farther are used again while atoms move, and made again when they have moved too far."""
    plain, remembering = kind_model(name), kind_model(name, skin=0.4)
    frame, rng = frame_of(name), np.random.default_rng(6)
    for step in (0.0, 0.05, 0.05, 0.3, 0.02):
        frame = frame | {"coords": frame["coords"] + step * rng.uniform(-1.0, 1.0, frame["coords"].shape)}
        expected = outputs(plain, frame, atomic=True)
        for key, value in outputs(remembering, frame, atomic=True).items():
            assert np.array_equal(value, expected[key]), key


@FEW
@pytest.mark.parametrize("threads", [1, 2])
def test_frames_are_what_they_are_alone(name: str, threads: int) -> None:
    frame, rng = frame_of(name), np.random.default_rng(7)
    coords = frame["coords"] + 0.03 * rng.normal(size=(5, *frame["coords"].shape))
    model = kind_model(name, threads=threads)
    together = outputs(model, frame, atomic=True, coords=coords)
    for f, one in enumerate(coords):
        expected = outputs(model, frame, atomic=True, coords=one)
        assert_same({key: value[f] for key, value in together.items()}, expected)


@FEW
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.skipif(DEVICE == "reference", reason="the reference knows float64 only")
def test_same_bits_from_run_to_run(name: str, precision: str) -> None:
    frame = frame_of(name)
    runs = [outputs(kind_model(name, precision=precision, threads=2), frame, atomic="deepmd") for _ in range(2)]
    for key, value in runs[0].items():
        assert np.array_equal(value, runs[1][key]), key
