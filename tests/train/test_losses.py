"""Losses of predictions: deepmd-kit's values, parts and derivatives; what a section may say; missing labels."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
import training_cases as training
from cases import BASE
from dpa2 import _native
from dpa2.errors import InputError, UnsupportedModelError

GOLDEN: dict[str, Any] = json.loads((training.TRAINING / "losses.json").read_text())
#: of doubles, in units of the largest number
ROUNDING = 1e-13
OWN = {
    "polar": {"fit_diag": True, "shift_diag": True, "scale": [1.0] * 3},
    "property": {"distinguish_types": False},
}


def config(model: str) -> dict[str, Any]:
    """A model with the fitting net of `training.KINDS`."""
    fitting = training.KINDS[model]
    return {**BASE, "fitting_net": {**BASE["fitting_net"], **fitting, **OWN.get(fitting["type"], {})}}


def width(model: str) -> int:
    return training.width_of(training.KINDS[model])


def call(model: str, section: dict[str, Any], **changes: Any) -> tuple[float, dict[str, float], dict[str, np.ndarray]]:
    """The loss of the made-up predictions; `changes`: counted, predicted, labels, lr."""
    kind = training.KINDS[model]["type"]
    counted = changes.get("counted", training.COUNTED)
    labels = training.labels({"fitting_net": training.KINDS[model]}, *counted.shape)
    predicted = training.predictions(kind, width(model), *counted.shape)
    section = {"starter_learning_rate": training.STARTER, **section}
    lr = changes.get("lr", training.RATE)
    return _native.loss(
        json.dumps(config(model)), training.STATISTICS, json.dumps(section), lr, counted,
        changes.get("predicted", predicted), changes.get("labels", labels),
    )  # fmt: skip


def section_of(name: str) -> tuple[str, dict[str, Any]]:
    model, _, loss = name.partition("/")
    return model, training.LOSSES[training.KINDS[model]["type"]][loss]


@pytest.mark.parametrize("name", GOLDEN)
def test_deepmd(name: str) -> None:
    """Value, parts and the derivatives of PyTorch's autograd."""
    expected = GOLDEN[name]
    value, parts, seeds = call(*section_of(name))
    assert abs(value - expected["value"]) <= ROUNDING * max(1.0, abs(value))
    assert parts.keys() == expected["parts"].keys()
    for part, number in expected["parts"].items():
        assert abs(parts[part] - number) <= ROUNDING * max(1.0, abs(number)), part
    for key in ("atoms", "force", "virial"):
        if key not in expected:
            assert not np.any(seeds.get(key, 0.0)), f"there is no derivative to {key}"
            continue
        difference = np.abs(seeds[key].ravel() - expected[key]).max()
        assert difference <= ROUNDING * max(1.0, np.abs(expected[key]).max()), key


def test_every_loss_is_known() -> None:
    kinds = {(model, loss) for model, fitting in training.KINDS.items() for loss in training.LOSSES[fitting["type"]]}
    assert {tuple(name.split("/")) for name in GOLDEN} == kinds


def test_seeds_are_slopes() -> None:
    """Of every loss along a random direction: central differences of fourth order of its value."""
    step = 1e-5
    for name in GOLDEN:
        model, section = section_of(name)
        kind = training.KINDS[model]["type"]
        base = training.predictions(kind, width(model), *training.COUNTED.shape)
        base = {key: array + 0.013 * training.wave("away from kinks", array.shape) for key, array in base.items()}
        along = {key: training.wave(f"direction {key}", array.shape) for key, array in base.items()}

        def value(t: float, base: Any = base, along: Any = along, model: str = model, section: Any = section) -> float:
            return call(model, section, predicted={key: base[key] + t * along[key] for key in base})[0]

        ones = [value(step) - value(-step), value(2 * step) - value(-2 * step)]
        slope = (8.0 * ones[0] - ones[1]) / (12.0 * step)
        seeds = call(model, section, predicted=base)[2]
        found = sum(float(np.vdot(seed, along[key])) for key, seed in seeds.items())
        assert found == pytest.approx(slope, rel=1e-8, abs=1e-9), name


def test_prefactors_follow_the_learning_rate() -> None:
    def of(lr: float) -> float:
        return call("ener", training.ENERGY_LOSSES["energy"] | {"start_pref_e": 5.0, "limit_pref_e": 2.0}, lr=lr)[0]

    one = call("ener", training.ENERGY_LOSSES["energy"])[0]
    assert of(training.STARTER) == pytest.approx(5.0 * one, rel=1e-14)
    assert of(0.0) == pytest.approx(2.0 * one, rel=1e-14)
    assert of(0.25 * training.STARTER) == pytest.approx((2.0 + 3.0 * 0.25) * one, rel=1e-14)


@pytest.mark.parametrize(("label", "missing"), [
    ("energy", {"rmse_e"}), ("force", {"rmse_f", "rmse_pf", "rmse_gf"}), ("virial", {"rmse_v"}),
    ("atom_ener", {"rmse_ae"}), ("atom_pref", {"rmse_pf"}), ("drdq", {"rmse_gf"}), ("atom_ener_coeff", set()),
])  # fmt: skip
def test_missing_labels(label: str, missing: set[str]) -> None:
    """A term without its label is left out, and shown as not a number; without coefficients all are one."""
    section = training.ENERGY_LOSSES["generalized"] | {f"{end}_pref_{term}": 1.0 for end in ("start", "limit")
                                                       for term in ("ae", "pf")}  # fmt: skip
    labels = training.labels({"fitting_net": {"type": "ener"}}, *training.COUNTED.shape)
    rest = {name: array for name, array in labels.items() if name != label}
    _, parts, seeds = call("ener", section | {"enable_atom_ener_coeff": label == "atom_ener_coeff"}, labels=rest)
    whole = call("ener", section)[1]
    assert {name for name, value in parts.items() if math.isnan(value)} == missing
    for name in parts.keys() - missing - {"rmse"}:
        assert parts[name] == pytest.approx(whole[name], rel=1e-13)
    wanted = {name: bool({f"rmse_{t}" for t in terms} - missing)
              for name, terms in (("force", ("f", "pf", "gf")), ("virial", "v"))}  # fmt: skip
    assert {name: name in seeds for name in wanted} == wanted  # what need not be computed is not asked for


def test_required_labels() -> None:
    for model in ("gap", "population"):
        name = "smooth_mae"
        with pytest.raises(InputError, match="the batch has no"):
            call(model, training.LOSSES[training.KINDS[model]["type"]][name], labels={})


def test_default_weights_of_forces() -> None:
    """With use_default_pf they are one where the batch has none, and those of the batch where it has."""
    section = training.ENERGY_LOSSES["pref"] | {"use_default_pf": True}
    labels = training.labels({"fitting_net": {"type": "ener"}}, *training.COUNTED.shape)
    given = call("ener", section)
    assert given[0] == call("ener", training.ENERGY_LOSSES["pref"])[0]
    del labels["atom_pref"]
    _, parts, _ = call("ener", section, labels=labels)
    assert parts["rmse_pf"] == pytest.approx(parts["rmse_f"], rel=1e-14)


def test_frames_without_atoms() -> None:
    counted = training.COUNTED.copy()
    counted[1] = False
    with pytest.raises(InputError, match="frame 1 has no atom that counts: there is no energy per atom"):
        call("ener", training.ENERGY_LOSSES["energy"], counted=counted)
    value, _, seeds = call("ener", training.ENERGY_LOSSES["force"], counted=counted)
    alone = call("ener", training.ENERGY_LOSSES["force"], counted=counted[:1],
                 labels={"force": training.labels({"fitting_net": {"type": "ener"}}, 2, 6)["force"][:1]},
                 predicted={key: a[:1] for key, a in training.predictions("ener", 1, 2, 6).items()})  # fmt: skip
    assert value == pytest.approx(alone[0], rel=1e-14)  # per-atom terms take the atoms of a batch together
    assert not np.any(seeds["force"][1])
    counted[0] = False
    assert call("ener", training.ENERGY_LOSSES["force"], counted=counted)[0] == 0.0


def test_perfect_predictions() -> None:
    """No deviation has no slope, whatever the loss."""
    labels = training.labels({"fitting_net": training.KINDS["gap"]}, 1, 3)
    counted = np.ones((1, 3), bool)
    predicted = {"atoms": np.repeat(labels["gap"][:, None], 3, axis=1)}
    for section in training.LOSSES["property"].values():
        value, parts, seeds = call("gap", section, counted=counted, labels=labels, predicted=predicted)
        assert value == pytest.approx(0.0, abs=1e-15)
        assert np.abs(seeds["atoms"]).max() <= (1e-15 if section["loss_func"] in ("mse", "smooth_mae") else 2.0)
        assert all(abs(part) <= 1e-15 for part in parts.values())
    population = training.labels({"fitting_net": {"type": "population"}}, 1, 3)
    for section in training.LOSSES["population"].values():
        value, _, seeds = call("population", section, counted=counted, labels=population,
                               predicted={"atoms": population["atom_population"]})  # fmt: skip
        assert value == 0.0
        assert not np.any(seeds["atoms"])


@pytest.mark.parametrize(("section", "message"), [
    ({"start_prev_e": 1.0}, "loss.start_prev_e is not a key of this type of loss"),
    ({"start_pref_e": "1"}, "loss.start_pref_e is '1', expected a number"),
    ({"start_pref_e": None}, "loss.start_pref_e is null, expected a number"),
    ({"start_pref_e": True}, "loss.start_pref_e is true, expected a number"),
    ({"loss_func": "rmse"}, "loss.loss_func is 'rmse', expected 'mse' or 'mae'"),
    ({"use_huber": 1}, "loss.use_huber is 1, expected true or false"),
    ({"huber_delta": [0.1, 0.2]}, "loss.huber_delta is a list of 2, expected a number that is not negative, or a list"),
    ({"huber_delta": [0.1, 0.2, -1.0]}, "loss.huber_delta is -1.0"),
    ({"huber_delta": "x"}, "loss.huber_delta is 'x'"),
    ({"f_use_norm": True}, "f_use_norm needs use_huber"),
    ({"use_huber": True, "relative_f": 1.0}, "use_huber does not go with"),
    ({"use_huber": True, "start_pref_pf": 1.0, "limit_pref_pf": 1.0}, "use_huber does not go with"),
    ({"start_pref_gf": 1.0, "limit_pref_gf": 1.0}, "loss.numb_generalized_coord is 0"),
    ({"numb_generalized_coord": 1.5}, "loss.numb_generalized_coord is 1.5, expected an integer"),
    ({"relative_f": "no"}, "loss.relative_f is 'no', expected a number or null"),
    ({"starter_learning_rate": 0.0}, "loss.starter_learning_rate is 0"),
    ({"type": "dos"}, "a loss of type 'dos' is for densities of states"),
    ({"type": "tensor", "pref": 1.0}, "a loss of type 'tensor' is for dipoles"),
    ({"type": "energy"}, "loss.type is 'energy', expected 'ener'"),
    ({"type": 3}, "loss.type is 3"),
])  # fmt: skip
def test_bad_sections(section: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        call("ener", section)
    assert message in str(caught.value)


@pytest.mark.parametrize(("model", "section", "message"), [
    ("dipole", {}, "a loss of type 'ener' is for energies"),
    ("dipole", {"type": "tensor", "pref": 0.0, "pref_atomic": 0.0}, "both zero"),
    ("dipole", {"type": "tensor", "pref": -1.0}, "loss.pref is -1.0, expected a number that is not negative"),
    ("dos", {"type": "dos", "start_pref_ados": 0.0}, "every term of the loss has a prefactor of zero"),
    ("dos", {"type": "dos", "start_pref_cdf": -0.1}, "loss.start_pref_cdf is -0.1"),
    ("gap", {"type": "property", "loss_func": "huber"}, "loss.loss_func is 'huber'"),
    ("gap", {"type": "property", "metric": "mae"}, "loss.metric is 'mae', expected a list of names"),
    ("gap", {"type": "property", "beta": -1}, "loss.beta is -1"),
    ("population", {"type": "population", "loss_func": "mse"}, "loss.loss_func is 'mse'"),
    ("population", {"type": "population", "start_pref_pop": -2.0}, "loss.start_pref_pop is -2.0"),
])  # fmt: skip
def test_bad_sections_of_other_kinds(model: str, section: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        call(model, section)
    assert message in str(caught.value)


@pytest.mark.parametrize(("section", "message"), [
    ({"start_pref_h": 1.0}, "Hessians"), ({"type": "ener_spin"}, "'ener_spin'"), ({"type": "denoise"}, "'denoise'"),
    ({"type": "dens"}, "'dens'"),
])  # fmt: skip
def test_not_supported(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        call("ener", section)


def test_what_is_accepted() -> None:
    """Comments, integers for numbers, the other name of the type, null where nothing is given."""
    plain = call("ener", {})
    assert (
        call("ener", {"_comment": "text", "type": "ener_hess", "relative_f": None, "start_pref_f": 1000})[0] == plain[0]
    )
    assert set(plain[1]) == {"rmse", "rmse_e", "rmse_f"}  # deepmd-kit's defaults have no virials


def test_relative_forces_of_zero_labels() -> None:
    labels = copy.deepcopy(training.labels({"fitting_net": {"type": "ener"}}, *training.COUNTED.shape))
    labels["force"][1, 2] = 0.0
    section = training.ENERGY_LOSSES["force"] | {"relative_f": 0.0}
    with pytest.raises(InputError, match="frame 1, atom 2: the label of the force and relative_f add up to zero"):
        call("ener", section, labels=labels)


def test_wrong_sizes() -> None:
    with pytest.raises(InputError, match="the label energy has the wrong size"):
        call("ener", {}, labels={"energy": np.zeros(3)})
    with pytest.raises(InputError, match="the loss needs the predicted 'force'"):
        call("ener", {}, predicted={"atoms": np.zeros((2, 6, 1))})
    with pytest.raises(InputError, match="the learning rate is -1"):
        call("ener", {}, lr=-1.0)
