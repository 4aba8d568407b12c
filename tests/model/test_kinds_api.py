"""Models of every kind through `dpa2.Model`: what they say they compute, results by name and as fields, bad input."""

from __future__ import annotations

import copy
import pickle
import warnings
from functools import cache
from typing import Any

import dpa2
import numpy as np
import pytest
from cases import System
from dpa2.files import ModelData
from dpa2.streams import evaluate_frames
from helpers import relative
from kind_cases import KIND_CASES, KindCase, load_kind

CASES = {case.name: case for case in KIND_CASES}
#: one of each kind, and the combinations
EACH = ("dipole", "polar", "dos", "property", "property_extensive", "population", "zbl", "linear")
KINDS = {"property_extensive": "property", "zbl": "energy", "linear": "energy"}
FIELDS = ("energy", "forces", "virial", "atom_energy", "atom_virial")
DERIVATIVES = {"force", "virial", "atom_virial"}


def model_of(name: str, device: str = "cpu", **changes: Any) -> dpa2.Model:
    golden = load_kind(CASES[name])
    config = {**golden.config, **changes}
    return dpa2.Model(ModelData(config, golden.weights), threads=1, device=device, on_overflow="ignore")


shared = cache(model_of)


def system_of(name: str, where: str = "") -> System:
    systems = load_kind(CASES[name]).systems
    return next(system for system in systems if where in ("", system.name))


def asked(name: str, frame: Any = slice(None)) -> tuple[dpa2.Model, tuple[Any, ...], dict[str, Any]]:
    """A model, a structure or several, and their parameters."""
    system = system_of(name)
    rows = [None if a is None else a[frame] for a in (system.coord, system.box, system.fparam, system.aparam)]
    types = system.atype if system.atype.ndim == 1 else system.atype[frame]
    return shared(name), (rows[0], types, rows[1]), {"fparam": rows[2], "aparam": rows[3]}


def answers(case: KindCase) -> dict[str, tuple[int, ...]]:
    """The outputs that deepmd-kit has of one frame, with its shapes."""
    expected = system_of(case.name).expected
    return {name: expected[name].shape[1:] for name in case.answers}


# ------------------------------------------------------------------------------------------------ what there is


@pytest.mark.parametrize("name", EACH)
def test_a_model_says_what_it_computes(name: str) -> None:
    model, structure, _ = asked(name)
    assert model.kind == KINDS.get(name, name)
    natoms = structure[0].shape[1]
    described = {o.name: ((natoms, *o.shape) if o.per_atom else o.shape) for o in model.outputs}
    width = described.pop("descriptor")[1]
    assert described.pop("rot_mat")[2] == 3
    assert described == answers(CASES[name])
    assert model.descriptor_dim == width
    assert all(o.reduction == "" or o.of in described for o in model.outputs)
    assert (model.kind in repr(model)) == (model.kind != "energy")
    assert model.memory_estimate(100) > 0


def test_the_cutoff_is_the_largest_of_a_combination() -> None:
    assert shared("linear").rcut == 3.4
    assert shared("zbl").rcut == 5.0
    assert shared("linear_table").rcut == 3.3
    assert shared("linear_three").rcut == 3.6


@pytest.mark.parametrize("frame", [0, slice(None)])
@pytest.mark.parametrize("name", EACH)
def test_names_shapes_and_numbers_are_those_of_deepmd_kit(name: str, frame: Any) -> None:
    model, structure, parameters = asked(name, frame)
    lead, natoms = structure[0].shape[:-2], structure[0].shape[-2]
    expected = {n: system_of(name).expected[n][frame] for n in CASES[name].answers}
    for atomic in (False, True, "deepmd"):
        result = model.evaluate(*structure, **parameters, atomic=atomic)
        found = result.outputs
        mask = found.pop("mask")
        assert (mask.dtype, mask.shape) == (np.int32, (*lead, natoms))
        wanted = {n: a for n, a in expected.items() if n != "atom_virial" or atomic}
        assert {n: a.shape for n, a in found.items()} == {n: a.shape for n, a in wanted.items()}
        for n, rows in wanted.items():
            if n != "atom_virial" or atomic == "deepmd":
                assert relative(found[n], rows) <= CASES[name].tolerance, n
    assert pickle.loads(pickle.dumps(result)).outputs.keys() == result.outputs.keys()
    if model.kind == "energy":
        assert np.array_equal(result.outputs["force"], result.forces)
    else:
        assert [getattr(result, field) for field in FIELDS] == [None] * 5


@pytest.mark.parametrize("name", EACH)
def test_values_without_derivatives(name: str) -> None:
    model, structure, parameters = asked(name)
    full, found = (model.evaluate(*structure, **parameters, forces=forces).outputs for forces in (True, False))
    assert found.keys() == full.keys() - DERIVATIVES
    assert all(np.array_equal(rows, full[n]) for n, rows in found.items())


@pytest.mark.parametrize("name", EACH)
def test_the_atomic_virial_is_asked_for_where_there_is_one(name: str) -> None:
    model, structure, parameters = asked(name, 0)
    with_derivatives = any(o.derivative for o in model.outputs)
    assert with_derivatives == (model.kind in ("energy", "dipole"))
    if with_derivatives:
        with pytest.raises(dpa2.InputError, match="leave out atomic, or forces=False"):
            model.evaluate(*structure, **parameters, atomic=True, forces=False)
        found = model.evaluate(*structure, **parameters, atomic=True).outputs
        assert relative(found["atom_virial"].sum(axis=0), found["virial"]) <= 1e-12
    else:
        assert model.evaluate(*structure, **parameters, atomic="deepmd", forces=False).outputs
    with pytest.raises(dpa2.InputError, match="atomic must be"):
        model.evaluate(*structure, **parameters, atomic="each")


@pytest.mark.parametrize("name", ["dipole_excluded", "dipole_virtual", "property", "dos", "zbl_excluded"])
def test_the_mask_says_which_atoms_count(name: str) -> None:
    model, structure, parameters = asked(name)
    types = np.broadcast_to(structure[1], structure[0].shape[:2])
    counted = (types >= 0) & ~np.isin(types, model.config["atom_exclude_types"])
    assert not counted.all()
    found = model.evaluate(*structure, **parameters, forces=False).outputs
    assert np.array_equal(found["mask"], counted)
    per_atom = next(o.name for o in model.outputs if o.per_atom and o.of == "")
    assert not found[per_atom][~counted].any()
    assert found[per_atom][counted].any()


def test_results_show_what_there_is() -> None:
    model, structure, parameters = asked("dipole", 0)
    text = repr(model.evaluate(*structure, **parameters, forces=False))
    assert text.startswith("Result(global_dipole=array([")
    assert "mask=array([1, 1" in text
    assert "None" not in text
    assert "energy" not in text


def test_a_frame_of_a_result() -> None:
    for name in ("dipole", "zbl"):
        model, structure, parameters = asked(name)
        whole, frame = model.evaluate(*structure, **parameters), 1
        one = whole.frame(frame)
        assert one.outputs.keys() == whole.outputs.keys()
        assert all(np.array_equal(rows, whole.outputs[n][frame]) for n, rows in one.outputs.items())
        assert type(one.energy) is (float if name == "zbl" else type(None))


def test_a_property_may_have_the_name_of_an_energy() -> None:
    """Its kind decides what the fields are, and not its name."""
    golden = load_kind(CASES["property"])
    fitting = {**golden.config["fitting_net"], "property_name": "energy"}
    _, structure, parameters = asked("property", 0)
    model = model_of("property", fitting_net=fitting)
    found = model.evaluate(*structure, **parameters)
    assert model.kind == "property"
    assert found.energy is None
    assert found.outputs["energy"].shape == (3,)
    assert found.outputs["atom_energy"].shape == (len(structure[0]), 3)


def test_descriptors_of_every_kind() -> None:
    for name in ("polar", "linear_three"):
        model, structure, _ = asked(name)
        found, rotation = model.descriptor(*structure, rot_mat=True)
        expected = system_of(name).expected
        assert relative(found, expected["descriptor"]) <= 1e-10
        assert relative(rotation, expected["rot_mat"]) <= 1e-10
        assert np.array_equal(dpa2.compute_descriptor(*structure, model=model), found)


def test_frames_on_threads_and_in_streams() -> None:
    from dpa2.data import Frame

    name = "dipole"
    _, (coords, types, box), parameters = asked(name)
    golden = load_kind(CASES[name])
    model = dpa2.Model(ModelData(golden.config, golden.weights), threads=2)
    alone = shared(name).evaluate(coords, types, box, **parameters)
    found = model.evaluate(coords, types, box, **parameters)
    assert all(np.array_equal(found.outputs[n], rows) for n, rows in alone.outputs.items())
    cells = box.reshape(-1, 3, 3)
    frames = [
        Frame(
            coords[f], types, model.type_map, cells[f], (True, True, True), **{n: a[f] for n, a in parameters.items()}
        )
        for f in range(len(coords))
    ]
    for f, (_, result) in enumerate(evaluate_frames(model, frames)):
        assert all(np.array_equal(result.outputs[n], rows[f]) for n, rows in alone.outputs.items())


# ------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("name", [*EACH[:5], *EACH[6:], "polar_full", "population_double"])  # the other is float32
def test_gradients_of_every_output_of_atoms(name: str) -> None:
    """Against central differences of the weighted sum along a random direction, and of the cell."""
    model, (coords, types, box), parameters = asked(name, 0)
    rng = np.random.default_rng(11)
    output = next(o for o in model.outputs if o.per_atom and o.of == "" and o.name != "descriptor")
    weights = rng.normal(size=(len(coords), *output.shape))
    moves, strain, step = rng.normal(size=coords.shape), rng.normal(size=(3, 3)), 2e-5

    def weighted(step: float) -> float:
        x, b = (coords + step * moves) @ (np.eye(3) + step * strain).T, box @ (np.eye(3) + step * strain).T
        return float((model.evaluate(x, types, b, **parameters, forces=False).outputs[output.name] * weights).sum())

    gradient, of_strain = model.vjp(coords, types, box, {output.name: weights}, **parameters)
    slope = (gradient * moves).sum() + (of_strain * strain).sum()
    assert abs(slope) > 1e-3
    assert abs((weighted(step) - weighted(-step)) / (2 * step) - slope) < 1e-6 * max(1.0, abs(slope))
    rows = rng.normal(size=(len(coords), model.descriptor_dim))
    both = model.vjp(coords, types, box, {output.name: weights, "descriptor": rows}, **parameters)
    alone = model.vjp(coords, types, box, {"descriptor": rows})
    assert relative(both[0], gradient + alone[0]) <= 1e-10
    assert relative(both[1], of_strain + alone[1]) <= 1e-10


def test_gradients_of_dipoles_are_their_forces() -> None:
    model, structure, parameters = asked("dipole")
    found = model.evaluate(*structure, **parameters).outputs
    for k in range(3):
        gradient, strain = model.vjp(*structure, {"dipole": np.eye(3)[k] + np.zeros(structure[0].shape)}, **parameters)
        assert relative(gradient, -found["force"][:, :, k]) <= 1e-12
        assert relative(strain.reshape(-1, 9), -found["virial"][:, k]) <= 1e-12


# ------------------------------------------------------------------------------------------------ bad input


def test_wrong_weights() -> None:
    model, structure, parameters = asked("dipole", 0)
    natoms = len(structure[0])
    for weights, message in [
        (
            {"atom_energy": np.ones(natoms)},
            "no gradient of 'atom_energy'; weights may be those of 'dipole' or 'descriptor'",
        ),
        ({"global_dipole": np.ones(3)}, "no gradient of 'global_dipole'"),
        ({"force": np.ones((natoms, 3, 3))}, "no gradient of 'force'"),
        ({"dipole": np.ones(natoms)}, rf"weights of 'dipole' must have shape \({natoms}, 3\), got \({natoms},\)"),
        ({"dipole": np.full((natoms, 3), np.nan)}, r"weights of 'dipole'\[0, 0\] = nan is not finite"),
        ({}, "weights must be a dict of arrays"),
    ]:
        with pytest.raises(dpa2.InputError, match=message):
            model.vjp(*structure, weights, **parameters)
    polar, structure, parameters = asked("polar", 0)
    with pytest.raises(dpa2.InputError, match=r"weights of 'polar' must have shape \(\d+, 3, 3\), got \(\d+, 9\)"):
        polar.vjp(*structure, {"polar": np.ones((len(structure[0]), 9))}, **parameters)


def test_wrong_parameters() -> None:
    model, structure, parameters = asked("dipole", 0)
    for changed, message in [
        ({"aparam": None}, r"the model takes 1 atomic parameter: pass aparam=, shape \(\d+, 1\)"),
        ({"fparam": None}, "takes 2 frame parameters and has no default"),
        ({"fparam": [1.0]}, r"fparam must have shape \(2,\), got \(1,\)"),
        ({"fparam": [1.0, np.inf]}, r"fparam\[1\] = inf is not finite"),
        ({"aparam": np.ones((2, 1))}, r"aparam must have shape \(\d+, 1\)"),
    ]:
        with pytest.raises(dpa2.InputError, match=message):
            model.evaluate(*structure, **{**parameters, **changed})
    other, structure, _ = asked("linear", 0)
    with pytest.raises(dpa2.InputError, match="takes no frame parameters"):
        other.evaluate(*structure, fparam=[1.0])


def test_the_default_of_one_part() -> None:
    golden = load_kind(CASES["linear_table"])
    assert golden.config["models"][0]["fitting_net"]["default_fparam"] == [0.3]
    _, structure, _ = asked("linear_table", 0)
    given = shared("linear_table").evaluate(*structure, fparam=[0.3]).energy
    assert shared("linear_table").evaluate(*structure).energy == given


class Overflown:
    """An engine whose numbers left their range: NaN in one output, ones in the others."""

    def __init__(self, model: dpa2.Model, output: str) -> None:
        self.model, self.output = model, output

    def evaluate(self, coords: np.ndarray, *_: Any) -> dict[str, Any]:
        found: dict[str, Any] = {o.name: np.ones(o.shape_for(len(coords))) for o in self.model.outputs}
        return {**found, self.output: np.nan * found[self.output], "remarks": ((), None)}


@pytest.mark.parametrize(
    ("name", "output", "words"),
    [
        ("dipole", "dipole", "a component of the dipole"),
        ("dipole", "force", "a derivative of the dipole"),
        ("polar", "polar", "a component of the polarizability"),
        ("dos", "atom_dos", "a number of the density of states"),
        ("property", "atom_gap", "gap of an atom"),
        ("population", "population", "a population"),
        ("zbl", "energy", "the energy"),
        ("linear", "force", "a force"),
    ],
)
def test_numbers_out_of_range_are_named(name: str, output: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, structure, parameters = asked(name, 0)
    model = model_of(name)
    monkeypatch.setattr(model, "_engine", Overflown(model, output))
    with pytest.raises(dpa2.InputError, match=f"^{words} is not a finite number"):
        model.evaluate(*structure, **parameters)


def test_the_mean_of_no_atoms_is_no_error() -> None:
    """0 / 0, as in deepmd-kit."""
    model, (coords, _, box), parameters = asked("property", 0)
    excluded = model.config["atom_exclude_types"][0]
    found = model.evaluate(coords, np.full(len(coords), excluded), box, **parameters).outputs
    assert np.isnan(found["gap"]).all()
    assert not found["atom_gap"].any()


# ------------------------------------------------------------------------------------------------ pair tables


def far_pair(distance: float) -> tuple[np.ndarray, list[int]]:
    return np.array([[0.0, 0, 0], [distance, 0, 0], [20.0, 0, 0]]), [0, 1, 0]


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_energies_of_the_table_because_all_are_far(device: str) -> None:
    model = model_of("zbl", device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.evaluate(*far_pair(4.5), forces=False)
    said = r"^atom 0 \(O\) of frame 1 is more than 4\.6 angstrom from its nearest neighbour, as 1 more\. .*pair table"
    frames = np.stack([far_pair(4.5)[0], far_pair(4.9)[0]])
    with pytest.warns(dpa2.TableEnergyWarning, match=said) as record:
        model.evaluate(frames, far_pair(4.9)[1], forces=False)
    assert len(record) == 1
    assert record[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.evaluate(*far_pair(4.9), forces=False)
    with warnings.catch_warnings():  # nothing is switched in the other kinds of combinations
        warnings.simplefilter("error")
        model_of("linear_table", device).evaluate(*far_pair(3.2), forces=False)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_nearer_than_the_table_begins(device: str) -> None:
    model = model_of("zbl", device)
    with pytest.raises(dpa2.InputError, match=r"0\.2\b") as caught:
        model.evaluate(*far_pair(0.2))
    assert "0" in str(caught.value)
    assert "1" in str(caught.value)


@pytest.mark.parametrize("name", ["mask", "coord", "natoms", "virial"])
def test_names_that_a_property_cannot_have(name: str) -> None:
    golden = load_kind(CASES["property"])
    golden.config["fitting_net"]["property_name"] = name
    with pytest.raises(dpa2.UnsupportedModelError, match=f"property_name is '{name}'.*another name"):
        dpa2.Model(ModelData(golden.config, golden.weights))


def test_parts_with_defaults_of_their_own() -> None:
    golden = load_kind(CASES["linear_table"])
    _, structure, _ = asked("linear_table", 0)
    config = copy.deepcopy(golden.config)
    config["models"].append(copy.deepcopy(config["models"][0]))
    config["models"][2]["fitting_net"]["default_fparam"] = [-0.2]
    config["weights"] = [0.5, 0.5, 0.25]
    weights = dict(golden.weights)
    for key, value in golden.weights.items():
        if key.startswith("models.0."):
            weights["models.2." + key.removeprefix("models.0.")] = value
    weights["models.2.fitting_net.default_fparam_tensor"] = np.array([-0.2])
    whole = dpa2.Model(ModelData(config, weights), on_overflow="ignore")
    other = copy.deepcopy(golden.config)
    other["models"][0]["fitting_net"]["default_fparam"] = [-0.2]
    other["weights"] = [0.25, 0.0]
    more = {**golden.weights, "models.0.fitting_net.default_fparam_tensor": np.array([-0.2])}
    more["out_bias"] = np.zeros_like(golden.weights["out_bias"])
    part = dpa2.Model(ModelData(other, more), on_overflow="ignore")
    expected = shared("linear_table").evaluate(*structure).energy + part.evaluate(*structure).energy
    assert abs(whole.evaluate(*structure).energy - expected) < 1e-10 * max(1.0, abs(expected))
