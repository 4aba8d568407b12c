"""Properties of the reference model: symmetries, cutoffs, padding, derivatives, parameters and errors."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import numpy as np
import pytest
from dpa2.errors import InputError, ModelFileError, UnsupportedModelError
from dpa2.reference import ReferenceModel
from random_model import draw_options, random_model, random_parameters, random_structure

OPEN = (False, False, False)
PERIODIC = (True, True, True)
LAYER = "descriptor.repformers.layers"
# Option sets that between them reach every operation.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "strip": {"repinit": {"tebd_input_mode": "strip"}, "repformer": {"update_h2": True}},
    "rough": {"descriptor": {"smooth": False}, "repformer": {"update_h2": True, "use_sqrt_nnei": False}},
    "direct": {"repformer": {"direct_dist": True, "attn2_has_gate": False, "g1_out_conv": False, "g1_out_mlp": False}},
    "average": {"repformer": {"update_style": "res_avg"}, "repinit": {"use_three_body": False}},
    "increment": {"repformer": {"update_style": "res_incr"}, "repinit": {"type_one_side": True, "resnet_dt": True}},
}


def build(seed: int, variant: str = "base", **more: Any) -> tuple[np.random.Generator, ReferenceModel]:
    rng = np.random.default_rng(seed)
    config, weights = random_model(rng, **{**VARIANTS[variant], **more})
    return rng, ReferenceModel(config, weights)


def isotropic(model: ReferenceModel) -> ReferenceModel:
    """The model with statistics that do not distinguish x, y and z, as all trained models have them."""
    weights = dict(model.weights)
    for name in weights:
        if name.endswith(".stddev"):
            weights[name] = weights[name].copy()
            weights[name][:, 2:] = weights[name][:, 1:2]
    return ReferenceModel(model.config, weights)


def changed(model: ReferenceModel, **weights: Any) -> ReferenceModel:
    return ReferenceModel(model.config, {**model.weights, **weights})


def assert_close(got: Any, expected: Any, tolerance: float = 1e-12) -> None:
    assert np.shape(got) == np.shape(expected)
    if np.size(got):
        assert np.abs(np.subtract(got, expected)).max() <= tolerance * max(1.0, np.abs(expected).max())


# ------------------------------------------------------------------------------------------------ symmetries


@pytest.mark.parametrize("variant", VARIANTS)
def test_translation(variant: str) -> None:
    rng, model = build(1, variant)
    coords, types, box, pbc = random_structure(rng, 3, 8, "triclinic")
    for shift in (np.array([0.3, -0.2, 0.7]), np.array([11.0, -30.0, 5.0])):
        assert_close(model.energy(coords + shift, types, box, pbc), model.energy(coords, types, box, pbc))


@pytest.mark.parametrize("variant", VARIANTS)
def test_rotation(variant: str) -> None:
    rng, model = build(2, variant)
    model = isotropic(model)
    coords, types, box, pbc = random_structure(rng, 3, 6, "triclinic")
    assert box is not None
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert np.linalg.norm(q - np.eye(3)) > 0.5
    for rotation in (q, -q):  # one of the two is a reflection
        one = model.evaluate(coords, types, box, pbc)
        two = model.evaluate(coords @ rotation.T, types, box @ rotation.T, pbc)
        assert_close(two["atom_energy"], one["atom_energy"])
        assert_close(two["force"], one["force"] @ rotation.T)
        virial, there = (result["virial"].reshape(3, 3) for result in (one, two))
        assert_close(there, rotation @ virial @ rotation.T)
        assert_close(virial, virial.T)
        descriptor, frame, _ = model.descriptor(coords, types, box, pbc, rot_mat=True)
        turned, turned_frame, _ = model.descriptor(coords @ rotation.T, types, box @ rotation.T, pbc, rot_mat=True)
        assert frame is not None
        assert_close(turned, descriptor)
        assert_close(turned_frame, frame @ rotation.T)


@pytest.mark.parametrize("variant", VARIANTS)
def test_permutation(variant: str) -> None:
    rng, model = build(3, variant)
    coords, types, box, pbc = random_structure(rng, 3, 8, "left_handed")
    order = rng.permutation(8)
    assert_close(model.energy(coords[order], types[order], box, pbc), model.energy(coords, types, box, pbc)[order])


def test_permutation_with_davg_depends_on_the_first_atom_in_concat_mode_only() -> None:
    changes = []
    for variant in ("base", "strip"):
        rng, model = build(4, variant, davg=0.3)
        coords, _, box, pbc = random_structure(rng, 3, 6, "cubic")
        types = np.array([0, 1, 2, 0, 1, 2])
        order = np.roll(np.arange(6), 1)
        one = model.descriptor(coords, types, box, pbc)[0]
        two = model.descriptor(coords[order], types[order], box, pbc)[0]
        changes.append(np.abs(two - one[order]).max())
    assert changes[0] > 1e-5
    assert changes[1] < 1e-12


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_cells_of_the_same_crystal(variant: str) -> None:
    rng, model = build(5, variant)
    coords, types, box, pbc = random_structure(rng, 3, 3, "tiny")
    assert box is not None
    energy = model.energy(coords, types, box, pbc)
    skewed = np.array([[1, 0, 0], [2, 1, 0], [-1, 1, -1]]) @ box
    assert_close(model.energy(coords, types, skewed, pbc), energy)
    doubled = model.energy(np.concatenate([coords, coords + box[1]]), np.tile(types, 2), box * [[1], [2], [1]], pbc)
    assert_close(doubled, np.tile(energy, 2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_distant_parts_do_not_see_each_other(variant: str) -> None:
    rng, model = build(6, variant)
    coords, types, *_ = random_structure(rng, 3, 7, "open")
    far = np.concatenate([coords, [[500.0, 0.0, 0.0]]])
    energy = model.energy(far, np.append(types, 1))
    assert_close(energy[:7], model.energy(coords, types))
    assert_close(energy[7:], model.energy(np.zeros((1, 3)), np.array([1])))


def test_open_box_and_no_box_are_the_same() -> None:
    rng, model = build(7)
    coords, types, box, _ = random_structure(rng, 3, 6, "cubic")
    assert_close(model.energy(coords, types, box, OPEN), model.energy(coords, types))
    assert_close(model.energy(coords, types, np.eye(3) * 200.0, PERIODIC), model.energy(coords, types))


# --------------------------------------------------------------------------------------- cutoffs and padding


@pytest.mark.parametrize("variant", ["base", "strip", "direct"])
def test_energy_and_forces_are_continuous_at_every_cutoff(variant: str) -> None:
    _, model = build(8, variant)
    option = model.config["descriptor"]
    coords = np.array([[0.0, 0, 0], [1.1, 0.4, 0], [0.2, -1.2, 0.3], [0, 0, 0]])
    types = np.array([0, 1, 2, 1])
    for rcut in (option["repinit"]["rcut"], option["repinit"]["three_body_rcut"], option["repformer"]["rcut"]):
        results = []
        for r in (rcut - 1e-5, rcut + 1e-5):
            coords[3] = [-r, 0, 0]
            results.append(model.evaluate(coords, types))
        assert abs(results[0]["energy"] - results[1]["energy"]) < 1e-7
        assert np.abs(results[0]["force"] - results[1]["force"]).max() < 1e-4
        assert not np.array_equal(results[0]["force"], results[1]["force"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_width_of_the_lists_enters_by_its_powers_only(variant: str) -> None:
    """D goes with 1/nsel^2 and Q with 1/sel^2; the repformer's width does not enter at all without smoothing."""
    rng, model = build(9, variant)
    coords, types, box, pbc = random_structure(rng, 3, 8, "cubic")
    config = copy.deepcopy(model.config)
    repinit, repformer = config["descriptor"]["repinit"], config["descriptor"]["repformer"]
    shape = model.weights["descriptor.g1_shape_tranform.matrix"].copy()
    d = repinit["neuron"][-1] * repinit["axis_neuron"]
    shape[:d] *= ((repinit["nsel"] + 30) / repinit["nsel"]) ** 2
    shape[d:] *= ((repinit["three_body_sel"] + 9) / repinit["three_body_sel"]) ** 2
    repinit["nsel"] += 30
    repinit["three_body_sel"] += 9
    if not config["descriptor"]["smooth"]:
        repformer["nsel"] += 9
    wider = ReferenceModel(config, {**model.weights, "descriptor.g1_shape_tranform.matrix": shape})
    assert_close(wider.energy(coords, types, box, pbc), model.energy(coords, types, box, pbc))


def test_excluding_pairs_in_model_or_descriptor_is_the_same_without_davg() -> None:
    pairs = [[0, 1], [2, 2]]
    energies = []
    for options in ({"pair_exclude_types": pairs}, {"descriptor": {"exclude_types": pairs}}):
        rng, model = build(10, **options)
        coords, types, box, pbc = random_structure(rng, 3, 8, "cubic")
        energies.append(model.energy(coords, types, box, pbc))
    assert_close(energies[0], energies[1])


def test_excluding_pairs_in_model_and_descriptor_differs_with_davg() -> None:
    energies = []
    for options in ({"pair_exclude_types": [[0, 1]]}, {"descriptor": {"exclude_types": [[0, 1]]}}):
        rng, model = build(11, davg=0.3, **options)
        coords, _, box, pbc = random_structure(rng, 3, 6, "cubic")
        energies.append(model.energy(coords, np.array([0, 1, 2, 0, 1, 2]), box, pbc))
    assert np.abs(energies[0] - energies[1]).max() > 1e-6


def test_fully_excluded_types_do_not_interact() -> None:
    rng, model = build(12, pair_exclude_types=[[0, 1]])
    coords, _, *_ = random_structure(rng, 3, 6, "open")
    types = np.array([0, 1, 0, 1, 0, 1])
    both = model.energy(coords, types)
    assert_close(both[types == 0], model.energy(coords[types == 0], types[types == 0]))
    assert_close(both[types == 1], model.energy(coords[types == 1], types[types == 1]))


def test_only_the_nearest_neighbours_are_kept() -> None:
    rng, model = build(13, repinit={"nsel": 9, "three_body_sel": 4}, repformer={"nsel": 4})
    coords, types, box, pbc = random_structure(rng, 3, 8, "cubic")
    _, _, remarks = model.descriptor(coords, types, box, pbc)
    assert [entry[0] for entry in remarks.overflow] == ["repinit", "three_body", "repformer"]
    assert all(count > sel for _, _, count, sel in remarks.overflow)
    result = model.evaluate(coords, types, box, pbc)
    assert result["remarks"] == remarks
    assert np.isfinite(result["force"]).all()


# ----------------------------------------------------------------------------------------------- derivatives


def differences(
    model: ReferenceModel, coords: Any, types: Any, box: Any, pbc: Any, move: Any, *parameters: Any
) -> float:
    """Fourth-order central difference of the energy along the strain or displacement ``move(coords, box, step)``."""
    h, total = 1e-4, 0.0
    for factor, step in ((8.0, h), (-8.0, -h), (-1.0, 2 * h), (1.0, -2 * h)):
        x, b = move(coords, box, step)
        total += factor * float(model.energy(x, types, b, pbc, *parameters).sum())
    return total / (12.0 * h)


@pytest.mark.parametrize("seed", range(12))
def test_derivatives_against_differences_of_the_energy(seed: int) -> None:
    """Random models without truncation (which makes the energy jump) and without kinks."""
    rng = np.random.default_rng([5, seed])
    options = draw_options(rng)
    options["descriptor"]["smooth"] = True
    options["repinit"] |= {"nsel": 130, "three_body_sel": 120, "activation_function": "silu"}
    options["repinit"]["three_body_rcut"] = options["repformer"]["rcut"]
    options["repformer"] |= {"nsel": 120, "activation_function": "tanh"}
    options["fitting"]["activation_function"] = "softplus"
    options["davg"] = 0.0
    config, weights = random_model(rng, **options)
    model = ReferenceModel(config, weights)
    coords, types, box, pbc = random_structure(
        rng, options["ntypes"], 6, ["triclinic", "mixed", "tiny", "open"][seed % 4]
    )
    parameters = random_parameters(rng, config, len(coords))
    result = model.evaluate(coords, types, box, pbc, *parameters)
    assert abs(result["force"].sum(axis=0)).max() < 1e-12 * max(1.0, abs(result["force"]).max())
    scale = max(1.0, float(np.abs(result["force"]).max()), float(np.abs(result["virial"]).max()))
    for _ in range(3):
        i, k, axis = int(rng.integers(len(coords))), int(rng.integers(3)), int(rng.integers(3))

        def displace(x: Any, b: Any, step: float, i: int = i, k: int = k) -> Any:
            moved = x.copy()
            moved[i, k] += step
            return moved, b

        def strain(x: Any, b: Any, step: float, k: int = k, axis: int = axis) -> Any:
            matrix = np.eye(3)
            matrix[k, axis] += step
            return x @ matrix.T, None if b is None else b @ matrix.T

        force = -differences(model, coords, types, box, pbc, displace, *parameters)
        virial = -differences(model, coords, types, box, pbc, strain, *parameters)
        assert abs(result["force"][i, k] - force) < 1e-8 * scale
        assert abs(result["virial"][3 * k + axis] - virial) < 1e-8 * scale


@pytest.mark.parametrize("kind", ["triclinic", "tiny", "open"])
@pytest.mark.parametrize("atomic", [1, 2])
def test_atomic_virials_sum_to_the_virial(kind: str, atomic: int) -> None:
    rng, model = build(14, "strip")
    coords, types, box, pbc = random_structure(rng, 3, 4, kind)
    result = model.evaluate(coords, types, box, pbc, atomic=atomic)
    assert_close(result["atom_virial"].sum(axis=0), result["virial"])
    assert "atom_virial" not in model.evaluate(coords, types, box, pbc)


def test_atomic_virial_of_a_pair_is_split_in_halves() -> None:
    _, model = build(15)
    result = model.evaluate(np.array([[0.0, 0, 0], [1.2, 0.5, 0.3]]), np.array([0, 1]), atomic=1)
    assert_close(result["atom_virial"][0], result["atom_virial"][1])


def test_unknown_atomic() -> None:
    _, model = build(15)
    with pytest.raises(InputError, match="atomic"):
        model.evaluate(np.zeros((1, 3)), np.array([0]), atomic=3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_coinciding_atoms_with_protection_give_finite_results(variant: str) -> None:
    options = copy.deepcopy(VARIANTS[variant])
    options["descriptor"] = {**options.get("descriptor", {}), "env_protection": 0.2}
    _, model = build(16, variant, **options)
    result = model.evaluate(np.array([[0.0, 0, 0], [0.0, 0, 0], [1.0, 0.4, 0.2]]), np.array([0, 1, 2]))
    assert np.isfinite(result["force"]).all()
    assert_close(result["force"].sum(axis=0), np.zeros(3))


def test_isolated_and_virtual_atoms_have_no_forces() -> None:
    for variant in VARIANTS:
        _, model = build(17, variant)
        result = model.evaluate(np.zeros((1, 3)), np.array([0]))
        assert np.isfinite(result["energy"])
        assert not result["force"].any()
        assert not result["virial"].any()
    rng, model = build(17)
    coords, types, box, pbc = random_structure(rng, 3, 5, "cubic")
    types[2] = -1
    result = model.evaluate(coords, types, box, pbc)
    assert result["atom_energy"][2] == 0.0
    assert not result["force"][2].any()
    assert model.evaluate(np.zeros((0, 3)), np.zeros(0, dtype=int))["energy"] == 0.0


# ------------------------------------------------------------------------------------------ the fitting net


def test_excluded_types_have_no_energy_but_act_as_neighbours() -> None:
    rng, model = build(18)
    coords, types, box, pbc = random_structure(rng, 3, 6, "cubic")
    types[:3] = [0, 1, 2]
    config = copy.deepcopy(model.config)
    config["atom_exclude_types"] = [1]
    excluding = ReferenceModel(config, model.weights)
    expected = np.where(types == 1, 0.0, model.energy(coords, types, box, pbc))
    assert_close(excluding.energy(coords, types, box, pbc), expected)
    assert np.abs(excluding.evaluate(coords, types, box, pbc)["force"][types == 1]).max() > 0.0


def test_default_and_missing_parameters() -> None:
    rng, model = build(19, fitting={"numb_fparam": 2, "default_fparam": [0.3, -0.4], "numb_aparam": 1})
    coords, types, *_ = random_structure(rng, 3, 4, "open")
    aparam = rng.normal(size=(4, 1))
    default = model.energy(coords, types, aparam=aparam)
    assert_close(default, model.energy(coords, types, fparam=np.array([0.3, -0.4]), aparam=aparam))
    assert np.abs(default - model.energy(coords, types, fparam=np.zeros(2), aparam=aparam)).max() > 1e-6
    assert np.abs(default - model.energy(coords, types, aparam=aparam + 0.1)).max() > 1e-6
    with pytest.raises(InputError, match="needs aparam"):
        model.energy(coords, types)
    with pytest.raises(InputError, match="fparam has the shape"):
        model.energy(coords, types, fparam=np.zeros(3), aparam=aparam)
    with pytest.raises(InputError, match="aparam has values"):
        model.energy(coords, types, aparam=aparam * np.nan)
    model.config["fitting_net"]["default_fparam"] = None
    with pytest.raises(InputError, match="needs fparam"):
        model.energy(coords, types, aparam=aparam)
    with pytest.raises(InputError, match="takes no fparam"):
        build(1)[1].energy(coords, types, fparam=np.zeros(2))


def test_aparam_as_mask_is_not_an_input_of_the_net() -> None:
    rng, model = build(20, fitting={"numb_aparam": 2, "use_aparam_as_mask": True})
    coords, types, *_ = random_structure(rng, 3, 4, "open")
    assert_close(model.energy(coords, types), model.energy(coords, types, aparam=rng.normal(size=(4, 2))))


def test_atom_ener_fixes_the_energy_of_nothing() -> None:
    """With any entry of atom_ener set, an atom whose descriptor is zero has the bias as its energy."""
    _, model = build(
        21,
        fitting={"atom_ener": [None, 0.7, None], "numb_fparam": 1},
        descriptor={"concat_output_tebd": False},
        repformer={"update_g1_has_attn": False},
    )
    silent = {name: 0.0 * value for name, value in model.weights.items() if name.startswith(LAYER)}
    model = changed(model, **silent)
    energy = model.energy(np.zeros((1, 3)), np.array([1]), fparam=np.array([0.4]))
    bias = model.weights["fitting_net.bias_atom_e"][1, 0] + model.weights["out_bias"][0, 1, 0]
    assert_close(energy, np.array([bias]))


def test_case_embedding_selects_the_task() -> None:
    rng, model = build(22, fitting={"dim_case_embd": 3})
    coords, types, *_ = random_structure(rng, 3, 4, "open")
    energies = [
        model.energy(coords, types)
        if k is None
        else changed(model, **{"fitting_net.case_embd": np.eye(3)[k]}).energy(coords, types)
        for k in (0, 1, 2)
    ]
    assert np.abs(energies[0] - energies[1]).max() > 1e-6
    assert np.abs(energies[1] - energies[2]).max() > 1e-6


# ------------------------------------------------------------------------------------------------- interface


def test_interface() -> None:
    rng, model = build(23)
    assert model.precision == "float64"
    assert json.loads(model.config_json) == model.config
    coords, types, box, pbc = random_structure(rng, 3, 5, "cubic")
    descriptor, rotation, remarks = model.descriptor(coords, types, box, pbc)
    assert descriptor.shape == (5, model.descriptor_dim)
    assert descriptor.dtype == np.float64
    assert rotation is None
    assert remarks.overflow == []
    result = model.evaluate(coords, types, box, pbc)
    assert_close(result["atom_energy"].sum(axis=0), result["energy"])
    assert_close(model.energy(coords, types, box, pbc), result["atom_energy"][:, 0])


def test_the_model_is_not_changed_by_an_evaluation() -> None:
    rng, model = build(24)
    before = {name: value.copy() for name, value in model.weights.items()}
    config = copy.deepcopy(model.config)
    coords, types, box, pbc = random_structure(rng, 3, 5, "cubic")
    inputs = [value.copy() for value in (coords, types, box)]
    one, two = model.evaluate(coords, types, box, pbc), model.evaluate(coords, types, box, pbc)
    np.testing.assert_array_equal(one["force"], two["force"])
    assert model.config == config
    assert all(np.array_equal(before[name], value) for name, value in model.weights.items())
    assert all(np.array_equal(a, b) for a, b in zip(inputs, (coords, types, box), strict=True))


def test_a_missing_weight_is_named() -> None:
    config, weights = random_model(np.random.default_rng(25))
    del weights[f"{LAYER}.1.linear2.matrix"]
    with pytest.raises(ModelFileError, match=r"layers\.1\.linear2\.matrix"):
        ReferenceModel(config, weights).energy(np.zeros((1, 3)), np.array([0]))


def test_unknown_options_are_named() -> None:
    for option, value in (("activation_function", "mish"), ("update_style", "res_other")):
        _, model = build(26)
        model.config["descriptor"]["repformer"][option] = value
        with pytest.raises(UnsupportedModelError, match=value):
            model.energy(np.zeros((1, 3)), np.array([0]))


@pytest.mark.parametrize("seed", range(30))
def test_any_combination_of_options_evaluates(seed: int) -> None:
    rng = np.random.default_rng([6, seed])
    config, weights = random_model(rng, **draw_options(rng))
    model = ReferenceModel(config, weights)
    coords, types, box, pbc = random_structure(rng, len(config["type_map"]), 7, virtual=seed % 3 == 0)
    energy = model.energy(coords, types, box, pbc, *random_parameters(rng, config, len(coords)))
    assert energy.dtype == np.float64
    assert np.isfinite(energy).all()


@pytest.mark.parametrize("seed", range(10))
def test_the_random_models_hold_the_weights_that_are_asked_for_and_no_others(seed: int) -> None:
    rng = np.random.default_rng([7, seed])
    options = draw_options(rng)
    options["descriptor"]["exclude_types"] = options["pair_exclude_types"] = []
    options["fitting"]["use_aparam_as_mask"] = False
    config, weights = random_model(rng, **options)
    coords, types, box, pbc = random_structure(rng, len(config["type_map"]), 3, "tiny")
    parameters = random_parameters(rng, config, len(coords))
    for name in set(weights) - {"out_std", "fitting_net.default_fparam_tensor"}:
        fewer = {key: value for key, value in weights.items() if key != name}
        with pytest.raises(ModelFileError, match=re.escape(repr(name))):
            ReferenceModel(config, fewer).energy(coords, types, box, pbc, *parameters)
