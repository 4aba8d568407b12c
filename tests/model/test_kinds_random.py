"""Models of every kind with options drawn at random: the compiled core says what the reference says."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from cases import Golden
from helpers import DEVICE, model_of, relative
from kind_models import frames, kind, outputs
from random_model import SYMBOLS, draw_options, random_model, random_parameters, random_structure, random_weights

FITTINGS: tuple[dict[str, Any], ...] = (
    {"type": "dipole"},
    {"type": "polar", "fit_diag": True},
    {"type": "polar", "fit_diag": False, "shift_diag": False},
    {"type": "dos", "numb_dos": 11},
    {"type": "property", "task_dim": 2, "intensive": True},
    {"type": "property", "task_dim": 1, "intensive": False, "distinguish_types": False},
    {"type": "population"},
)
COMBINATIONS = ("zbl", "linear_ener")
SEEDS = tuple(range(36))
TYPES = 3


def drawn(rng: np.random.Generator) -> dict[str, Any]:
    """Options with the number of types that all parts have."""
    options = draw_options(rng)
    options["ntypes"] = TYPES
    options["descriptor"]["exclude_types"] = [[0, 1]] if rng.random() < 0.3 else []
    options["pair_exclude_types"] = [[1, 2]] if rng.random() < 0.3 else []
    options["atom_exclude_types"] = [int(rng.integers(TYPES))] if rng.random() < 0.3 else []
    options["fitting"]["atom_ener"] = []
    return options


def network(rng: np.random.Generator, seed: int) -> dict[str, Any]:
    """The configuration of a model of one network that is none of energies."""
    options = drawn(rng)
    options["fitting"] |= FITTINGS[seed % (len(FITTINGS) + len(COMBINATIONS))]
    if options["fitting"]["type"] == "property" and rng.random() < 0.5:
        options["fitting"]["atom_ener"] = [0.5, None, -1.0]
    config, _ = random_model(rng, **options)
    return config


def table(type_map: list[str], rcut: float, sel: int) -> dict[str, Any]:
    return {
        "type": "pairtab", "type_map": type_map, "rcut": rcut, "sel": sel, "rmin": 0.125, "step": 0.25, "nspline": 14,
    }  # fmt: skip


def combination(rng: np.random.Generator, kind: str) -> dict[str, Any]:
    """The configuration of a combination, whose parts may have types of their own."""
    wholes = []
    for _ in range(2):
        options = drawn(rng)
        options["fitting"] |= {"numb_fparam": 1, "numb_aparam": 2, "default_fparam": None}
        wholes.append(random_model(rng, **options)[0])
    parts = [{key: whole[key] for key in ("type_map", "descriptor", "fitting_net")} for whole in wholes]
    top = {key: value for key, value in wholes[0].items() if key not in ("descriptor", "fitting_net")}
    if kind == "zbl":
        reach = parts[0]["descriptor"]["repinit"]
        models = [parts[0], table(SYMBOLS[:TYPES], reach["rcut"], reach["nsel"])]
        return {**top, "type": "zbl", "sw_rmin": 0.9, "sw_rmax": 2.6, "smin_alpha": 0.1, "models": models}
    parts[1]["type_map"] = SYMBOLS[:TYPES][::-1]
    models = [parts[0], table([*SYMBOLS[1:TYPES], SYMBOLS[0]], 3.2, 60), parts[1]]
    return {**top, "type": "linear_ener", "weights": [float(w) for w in rng.normal(size=3)], "models": models}


@pytest.mark.parametrize("seed", needs.mostly_slow(SEEDS, set(SEEDS[:9]), int))
def test_random_models(seed: int) -> None:
    rng = np.random.default_rng([31, seed])
    number = seed % (len(FITTINGS) + len(COMBINATIONS))
    config = network(rng, seed) if number < len(FITTINGS) else combination(rng, COMBINATIONS[number - len(FITTINGS)])
    davg = float(rng.choice([0.0, 0.3]))
    data = Golden(config, random_weights(rng, config, davg, davg_vector=True), (), {})
    model, reference = (model_of(data, device=device) for device in (DEVICE, "reference"))
    coords, types, box, pbc = random_structure(rng, TYPES, 6, virtual=bool(rng.random() < 0.3))
    parameters = random_parameters(rng, config.get("models", [config])[0], len(types))
    given: dict[str, Any] = {"pbc": pbc, "fparam": parameters[0], "aparam": parameters[1]}
    atomic = "deepmd" if len(types) <= 3 else False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dpa2.ClosePairWarning)
        found, expected = (m.evaluate(coords, types, box, atomic=atomic, **given).outputs for m in (model, reference))
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert np.array_equal(np.isnan(value), np.isnan(expected[name])), name
            assert relative(np.nan_to_num(value), np.nan_to_num(expected[name])) <= 1e-10, name
        per_atom = [o for o in model.outputs if o.per_atom and o.of == "" and o.name != "rot_mat"]
        weights = {o.name: rng.normal(size=(len(types), *o.shape)) for o in per_atom}
        gradients = [m.vjp(coords, types, box, weights, **given) for m in (model, reference)]
        for gradient, wanted in zip(*gradients, strict=True):
            assert relative(gradient, wanted) <= 1e-10


def test_a_list_is_cut_out_of_a_shorter_one_with_a_larger_cutoff() -> None:
    """deepmd-kit fails there; the core and the reference follow the rule."""
    data = kind("linear_three")
    config = copy.deepcopy(data.config)
    config["models"][0]["sel"] = 5
    models = [model_of(Golden(config, data.weights, (), {}), device=device) for device in (DEVICE, "reference")]
    found, expected = (outputs(model, frames(data.systems[0])[0], forces=False) for model in models)
    assert relative(found["atom_energy"], expected["atom_energy"]) <= 1e-10
    assert relative(found["energy"], data.systems[0].expected["energy"][0]) > 1e-4
