"""`dpa2.deepmd.DeepPot` against what deepmd-kit's class of that name answered to the same calls."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from api_models import model_data
from cases import GOLDEN, TOLERANCE
from deeppot_calls import APARAM, CALLS, CELLS, FPARAM, FRAMES, MODELS, QUERIES, TYPES, Call, load_answers
from dpa2.deepmd import DeepPot
from dpa2.files import ModelData, write_safetensors
from helpers import golden, relative

ANSWERS, ANSWERED = load_answers()

POSITIONAL, NAMED = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
ALL_POSITIONAL, ALL_NAMED = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
NONE = inspect.Parameter.empty

Parameters = list[tuple[str, Any, Any]]
STRUCTURE: Parameters = [("coords", POSITIONAL, NONE), ("cells", POSITIONAL, NONE), ("atom_types", POSITIONAL, NONE)]
REST: Parameters = [
    ("fparam", POSITIONAL, None),
    ("aparam", POSITIONAL, None),
    ("mixed_type", POSITIONAL, False),
]
KWARGS: Parameters = [("kwargs", ALL_NAMED, NONE)]

#: the parameters of deepmd-kit 3.2.0: name, kind, default
SIGNATURES: dict[str, Parameters] = {
    "eval": [*STRUCTURE, ("atomic", POSITIONAL, False), *REST, *KWARGS],
    "eval_descriptor": [*STRUCTURE, *REST, ("dtype", POSITIONAL, "native"), *KWARGS],
    "eval_fitting_last_layer": [*STRUCTURE, *REST, ("dtype", POSITIONAL, "native"), *KWARGS],
    "eval_embedding": [*STRUCTURE, *REST, ("dtype", POSITIONAL, "fp32"), *KWARGS],
    **{
        name: []
        for name in (*QUERIES, "eval_typeebd", "get_model", "get_model_def_script", "close")
        if name.startswith(("get_", "eval_", "close")) or name in ("has_default_fparam", "has_chg_spin_ebd")
    },
}
CONSTRUCTOR: Parameters = [
    ("model_file", POSITIONAL, NONE),
    ("args", ALL_POSITIONAL, NONE),
    ("auto_batch_size", NAMED, True),
    ("neighbor_list", NAMED, None),
    ("head", NAMED, None),
    ("no_jit", NAMED, False),
    ("nlist_backend", NAMED, "auto"),
]


def parameters_of(function: Any) -> Parameters:
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind, p.default) for p in found if p.name != "self"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DeepPot]:
    """The models of the calls; those that are no files here are written as native files first."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, (source, options) in MODELS.items():
        path = GOLDEN / "files" / source
        if "/" not in source:
            path = folder / f"{source}.safetensors"
            write_safetensors(path, ModelData(golden(source).config, golden(source).weights))
        found[name] = DeepPot(str(path), threads=1, **options)
    return found


@pytest.fixture(scope="module")
def trained(models: dict[str, DeepPot]) -> DeepPot:
    return models["trained"]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_answers_are_those_of_deepmd_kit(call: Call, models: dict[str, DeepPot]) -> None:
    found = getattr(models[call.model], call.method)(*call.args, **call.kwargs)
    expected = ANSWERS[call.name]
    values = found if isinstance(found, tuple) else (found,)
    assert isinstance(found, tuple) == (len(expected) > 1)
    assert [(value.shape, value.dtype) for value in values] == [(value.shape, value.dtype) for value in expected]
    tolerance = TOLERANCE["float32" if call.model in ("float32", "mixed") else "float64"]
    for value, wanted in zip(values, expected, strict=True):
        assert relative(value, wanted) < max(tolerance, 2e-6 if wanted.dtype == np.float32 else 0.0)


def test_stored_answers_are_of_use() -> None:
    """Energies differ between calls, forces are not zero, and no call lacks an answer."""
    assert {call.name for call in CALLS} == set(ANSWERS)
    assert all(np.abs(ANSWERS[f"{name}/eval"][1]).max() > 0.05 for name in MODELS if name != "options")
    energies = {name: ANSWERS[name][0].ravel() for name in ANSWERS if name.startswith("parameters/") and "/a" in name}
    assert len({energy.tobytes() for energy in energies.values()}) == len(energies)


@pytest.mark.parametrize("name", QUERIES)
def test_queries(name: str, models: dict[str, DeepPot]) -> None:
    for model, answers in ANSWERED.items():
        found = getattr(models[model], name)
        found = found() if callable(found) else found
        assert found == answers[name]
        assert type(found) is type(answers[name])


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_signatures(name: str) -> None:
    assert parameters_of(getattr(DeepPot, name)) == SIGNATURES[name]


def test_signature_of_the_constructor() -> None:
    found = parameters_of(DeepPot)
    assert found[: len(CONSTRUCTOR)] == CONSTRUCTOR
    assert found[-1:] == KWARGS
    assert all(kind == NAMED for _, kind, _ in found[len(CONSTRUCTOR) : -1])


def test_same_as_the_model(trained: DeepPot) -> None:
    expected = trained.get_model().evaluate(FRAMES, TYPES, CELLS, atomic="deepmd")
    energy, force, virial, atom_energy, atom_virial = trained.eval(FRAMES, CELLS, TYPES, atomic=True)
    np.testing.assert_array_equal(energy[:, 0], expected.energy)
    np.testing.assert_array_equal(force, expected.forces)
    np.testing.assert_array_equal(virial, expected.virial.reshape(2, 9))
    np.testing.assert_array_equal(atom_energy[:, :, 0], expected.atom_energy)
    np.testing.assert_array_equal(atom_virial, expected.atom_virial.reshape(2, 5, 9))


def test_last_layer_leads_to_the_energy(models: dict[str, DeepPot]) -> None:
    """What the output layer makes of the last hidden one, with the biases, is the energy of the atoms."""
    model = models["mixed"]
    weights = model.get_model()._data.weights
    layer = "fitting_net.filter_layers.networks.0.layers.2"
    feature = model.eval_fitting_last_layer(FRAMES, None, TYPES)
    bias = weights["fitting_net.bias_atom_e"][:, 0] + weights["out_bias"][0, :, 0]
    energy = (feature @ weights[f"{layer}.matrix"] + weights[f"{layer}.bias"])[:, :, 0] + bias[TYPES]
    assert relative(energy, model.eval(FRAMES, None, TYPES, atomic=True)[3][:, :, 0]) < 1e-12


def test_definition_builds_the_same_model(models: dict[str, DeepPot]) -> None:
    """The definition is complete: with the weights it makes the model again."""
    model = models["options"]
    script = model.get_model_def_script()
    assert script["descriptor"]["type"] == "dpa2"
    assert script["fitting_net"]["numb_fparam"] == 2
    config = {**model.get_model().config, **script}
    again = dpa2.Model(ModelData(config, model.get_model()._data.weights), threads=1)
    kwargs = {"fparam": FPARAM, "aparam": APARAM}
    energy = model.eval(FRAMES, CELLS, TYPES, **kwargs)[0][:, 0]
    np.testing.assert_array_equal(again.evaluate(FRAMES, TYPES, CELLS, **kwargs).energy, energy)


def test_empty_structures(trained: DeepPot) -> None:
    energy, force, virial = trained.eval(np.zeros((1, 0)), None, [])
    assert (energy.shape, force.shape, virial.shape) == ((1, 1), (1, 0, 3), (1, 9))
    assert not energy.any()
    assert [value.shape for value in trained.eval(np.zeros((0, 15)), None, TYPES)] == [(0, 1), (0, 5, 3), (0, 9)]


def test_closes(trained: DeepPot) -> None:
    with DeepPot(trained.model_file, None, 1) as opened:
        assert opened.get_type_map() == ["O", "H"]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((np.zeros((1, 7)), None, [0, 1]), {}, "coords has 7 numbers, which is no multiple of 3 x 2 atoms"),
        ((np.zeros((1, 3)), None, []), {}, "coords has 3 numbers, which is no multiple of 3 x 0 atoms"),
        ((FRAMES, CELLS[0, :2], TYPES), {}, r"cells must have 2 x 9 \(nframes x 9\) numbers, but has 6"),
        ((FRAMES, CELLS[0], TYPES), {}, "cells must have 2 x 9"),
        ((FRAMES, None, ["O", "H", "H", "O", "H"]), {}, "atom_types must be indices into the type map"),
        ((FRAMES, None, [0, 1, 1, 0, 2]), {}, "atom 4 has type 2, but the model has 2 types"),
        ((FRAMES, None, TYPES), {"mixed_type": True}, r"atom_types must have shape \(nframes, natoms\), got \(5,\)"),
        ((FRAMES, None, np.zeros((1, 1, 5), int)), {}, r"atom_types must have shape \(natoms,\)"),
        ((FRAMES * np.nan, None, TYPES), {}, "is not finite"),
        ((FRAMES, None, TYPES), {"fparam": [1.0]}, "fparam must have 2 x 0 .* numbers, but has 1"),
        ((FRAMES, None, TYPES), {"aparam": [1.0]}, "aparam must have 2 x 5 x 0"),
        ((FRAMES, None, TYPES), {"spin": np.zeros((2, 5, 3))}, "know no spin"),
        ((FRAMES, None, TYPES), {"charge_spin": [0, 1]}, "know no charge_spin"),
    ],
)
def test_wrong_input(args: tuple[Any, ...], kwargs: dict[str, Any], message: str, trained: DeepPot) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        trained.eval(*args, **kwargs)


def test_missing_parameters(models: dict[str, DeepPot]) -> None:
    with pytest.raises(dpa2.InputError, match="pass aparam="):
        models["options"].eval(FRAMES, None, TYPES)
    with pytest.raises(dpa2.InputError, match=r"fparam must have 2 x 2 .* or 2 \(dim_fparam\) numbers, but has 3"):
        models["options"].eval(FRAMES, None, TYPES, fparam=[1, 2, 3], aparam=[1])


def test_wrong_dtype(trained: DeepPot) -> None:
    with pytest.raises(dpa2.InputError, match="dtype must be"):
        trained.eval_descriptor(FRAMES, None, TYPES, dtype="float32")  # type: ignore[arg-type]


def test_empty_parameters_are_none(trained: DeepPot) -> None:
    plain = trained.eval(FRAMES, None, TYPES)
    with_empty = trained.eval(FRAMES, None, TYPES, fparam=np.zeros((2, 0)), aparam=[])
    np.testing.assert_array_equal(plain[0], with_empty[0])


def test_unknown_options_are_named_in_a_warning(trained: DeepPot) -> None:
    with pytest.warns(UserWarning, match="does not know 'input_map' and ignores it"):
        DeepPot(trained.model_file, input_map={})
    with pytest.warns(UserWarning, match="does not know 'foo'"):
        trained.eval_descriptor(FRAMES, None, TYPES, foo=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained.eval(FRAMES, None, TYPES, charge_spin=None, spin=None)


@pytest.mark.parametrize(
    ("head", "message"),
    [(None, "it has water .*ice"), ("steam", "no head 'steam'"), (1, "0 for the first model of the file, got 1")],
)
def test_wrong_head(head: Any, message: str) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        DeepPot(GOLDEN / "files" / "multitask" / "model.pt", head=head)


def test_head_of_a_file_with_one_model(tmp_path: Path, trained: DeepPot) -> None:
    """Ignored, as deepmd-kit does, unless the file says that its model is another one."""
    for head in ("anything", 0):
        assert DeepPot(trained.model_file, head=head).get_ntypes() == 2
    config = {**model_data().config, "head": "water"}
    path = tmp_path / "water.safetensors"
    write_safetensors(path, ModelData(config, model_data().weights))
    assert DeepPot(path, head="water").get_ntypes() == 3
    with pytest.raises(dpa2.InputError, match=r"'ice' was asked for, but .* holds the head 'water' alone"):
        DeepPot(path, head="ice")


def test_missing_file() -> None:
    with pytest.raises(dpa2.ModelFileError, match="no such file"):
        DeepPot("nowhere.pth")
