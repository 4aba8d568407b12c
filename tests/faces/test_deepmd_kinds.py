"""The classes of `dpa2.deepmd` for models of every kind against what deepmd-kit's answered to the same calls."""

from __future__ import annotations

import copy
import inspect
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import dpa2
import dpa2.deepmd
import numpy as np
import pytest
from cases import SAME
from deepeval_calls import ANSWERS, CALLS, MODELS, OWN_QUERIES, QUERIES, TENSORS, TYPES, case_of, parameters
from deeppot_calls import CELLS, FRAMES, Call, load_answers
from dpa2.deepmd import DeepDipole, DeepEval, DeepPot, DeepPotential
from dpa2.files import ModelData, schema, write_safetensors
from dpa2.reference.common import Weights
from dpa2.reference.type_embedding import type_embedding
from helpers import relative
from kind_cases import FILES, load_kind

ANSWERED, SAID = load_answers(ANSWERS)
CLASSES = ("DeepPot", "DeepDipole", "DeepPolar", "DeepDOS", "DeepProperty", "DeepPopulation")


def path_of(name: str) -> str:
    return str(FILES / MODELS[name][0])


@cache
def opened(name: str) -> Any:
    """A :class:`DeepEval`, with the methods of what it is."""
    return DeepEval(path_of(name), head=MODELS[name][1], threads=1)


def documented(call: Call, answer: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """What deepmd-kit documents of derivatives of dipoles; its numbers lie in memory as (frame, atom, component)."""
    if call.method != "eval_full" or SAID[call.model]["class"] != "DeepDipole":
        return answer
    turned = []
    for rows in answer:
        nframes, components, natoms = (*rows.shape, 0, 0)[:3]
        atoms_first = rows.ndim == 4 and components == 3
        turned.append(rows.reshape(nframes, natoms, 3, -1).swapaxes(1, 2) if atoms_first else rows)
    return tuple(turned)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_answers_are_those_of_deepmd_kit(call: Call) -> None:
    found = getattr(opened(call.model), call.method)(*call.args, **call.kwargs)
    answer = ANSWERED[call.name]
    several = call.method in ("eval_full", "eval_embedding") or (call.method == "eval" and call.model not in TENSORS)
    assert isinstance(found, tuple) == several
    values = found if isinstance(found, tuple) else (found,)
    assert [(rows.shape, rows.dtype) for rows in values] == [(rows.shape, rows.dtype) for rows in answer]
    tolerance = case_of(call.model).tolerance
    for rows, wanted in zip(values, documented(call, answer), strict=True):
        if np.isnan(wanted).all() and wanted.size:
            assert np.isnan(rows).all()
        else:
            assert relative(rows, wanted) <= tolerance


def test_stored_answers_are_of_use() -> None:
    """No call lacks an answer; numbers are of order one; for dipoles the order of axes makes a difference."""
    assert {call.name for call in CALLS} == set(ANSWERED)
    for call in CALLS:
        if call.method == "eval":
            assert all(np.abs(rows).max() > 1e-3 for rows in ANSWERED[call.name])
    for call in CALLS:
        if call.name == "dipole/full_True":
            for k in (1, 4):
                said, right = ANSWERED[call.name][k], documented(call, ANSWERED[call.name])[k]
                assert said.shape == right.shape
                assert np.abs(said - right).max() > 0.1


#: what dpa2 and deepmd-kit say where deepmd-kit errs
DIFFERENT = {
    ("linear_table", "has_default_fparam"): (True, False),  # and it evaluates without all the same
    ("linear", "get_sel_type"): ([0, 1, 2], [0, 1, 2, 3]),  # the indices of a part, which has a type more
}


@pytest.mark.parametrize("name", MODELS)
def test_class_signatures_and_queries(name: str) -> None:
    model, said = opened(name), SAID[name]
    assert type(model).__name__ == said["class"]
    assert [c for c in CLASSES if isinstance(model, getattr(dpa2.deepmd, c))] == [said["class"]]
    assert isinstance(model, DeepEval)
    for method, parameters_of in said["signatures"].items():
        found = list(inspect.signature(getattr(type(model), method)).parameters.values())[1:]
        empty = inspect.Parameter.empty
        assert [[p.name, p.kind.name, "" if p.default is empty else p.default] for p in found] == parameters_of, method
    for what in (*QUERIES, *OWN_QUERIES.get(said["class"], ())):
        answer = getattr(model, what)
        answer = answer() if callable(answer) else answer
        if (name, what) in DIFFERENT:
            assert (answer, said[what]) == DIFFERENT[name, what]
            continue
        assert answer == said[what], what
        assert type(answer) is type(said[what]), what


def test_derivatives_of_dipoles_are_what_is_documented() -> None:
    """Minus the derivative of a component of the dipole, by central differences."""
    model, given = opened("dipole"), parameters("dipole")
    assert isinstance(model, DeepDipole)
    _, force, _ = model.eval_full(FRAMES, CELLS, TYPES, **given)
    step = 1e-5
    for component, atom, axis in ((0, 1, 2), (1, 4, 0), (2, 0, 1)):
        moved = np.zeros_like(FRAMES)
        moved[:, atom, axis] = step
        up, down = (model.eval(FRAMES + s * moved, CELLS, TYPES, atomic=False, **given) for s in (1, -1))
        slope = (up - down)[:, component] / (2 * step)
        assert np.abs(force[:, component, atom, axis] + slope).max() < 1e-6 * np.abs(force).max()


@pytest.mark.parametrize("name", CLASSES)
def test_files_of_other_kinds_are_refused(name: str) -> None:
    kind = getattr(dpa2.deepmd, name)
    for model in ("dipole", "polar", "dos", "property", "population", "zbl"):
        right = SAID[model]["class"]
        if right == name:
            assert type(kind(path_of(model))) is kind
            continue
        message = (
            rf"model\.pt is a model of kind '\w+', which {right} is for and not {name}; DeepEval takes files of every"
        )
        with pytest.raises(dpa2.InputError, match=message):
            kind(path_of(model))


def test_heads_of_other_kinds() -> None:
    path, heads = path_of("head"), {"energy": "DeepPot", "dipole": "DeepDipole", "gap": "DeepProperty"}
    for head, name in heads.items():
        assert type(DeepEval(path, head=head)).__name__ == name
        assert type(DeepPotential(path, head=head)).__name__ == name
    with pytest.raises(dpa2.InputError, match="of kind 'property', which DeepProperty is for and not DeepPot"):
        DeepPot(path, head="gap")
    with pytest.raises(dpa2.InputError, match=r"it has .*energy"):
        DeepEval(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("DeepGlobalPolar", r"TensorFlow backend.*DeepPolar\(\.\.\.\)\.eval"),
        ("DeepWFC", "TensorFlow backend.*DeepDipole"),
    ],
)
def test_classes_of_files_that_are_not_read(name: str, message: str) -> None:
    with pytest.raises(dpa2.UnsupportedModelError, match=f"^{name} is for files .*{message}"):
        getattr(dpa2.deepmd, name)(path_of("polar"))


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "message"),
    [
        ("dipole", (FRAMES[:, :4], CELLS, TYPES), {}, "coords has 24 numbers, which is no multiple of 3 x 5 atoms"),
        ("dipole", (FRAMES, CELLS[0], TYPES), {}, "cells must have 2 x 9"),
        ("dipole", (FRAMES, CELLS, TYPES), {"fparam": np.ones(3)}, r"fparam must have 2 x 2 .* but has 3"),
        ("dipole", (FRAMES, CELLS, TYPES), {"aparam": None}, "pass aparam="),
        ("dipole", (FRAMES, CELLS, TYPES), {"spin": FRAMES}, "know no spin"),
        ("dos", (FRAMES, CELLS, TYPES), {"fparam": None}, "pass fparam="),
        ("property", (FRAMES, CELLS, [0, 1, 1, 0, 3]), {}, "atom 4 has type 3, but the model has 3 types"),
        ("polar", (FRAMES * np.nan, CELLS, TYPES), {}, "is not finite"),
        ("zbl", (FRAMES, CELLS, TYPES), {"fparam": np.ones(2)}, "fparam must have 2 x 0"),
    ],
)
def test_wrong_input(name: str, args: Any, kwargs: Any, message: str) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        opened(name).eval(*args, **{**parameters(name), **kwargs})


def linear_with(type_map: list[str], folder: Path) -> DeepEval:
    """The linear model with random weights in its second part, which knows these types."""
    golden = load_kind(case_of("linear"))
    first, second = golden.config["models"]
    config = {**golden.config, "models": [first, {**second, "type_map": type_map}]}
    rng, weights = np.random.default_rng(3), dict(golden.weights)
    for name, weight in schema.expected_weights(config).items():
        if name.startswith("models.1."):
            weights[name] = rng.uniform(0.2, 0.6, size=weight.shape)
    write_safetensors(folder / "linear.safetensors", ModelData(config, weights))
    return DeepEval(folder / "linear.safetensors", threads=1)


def test_type_embeddings_of_parts(tmp_path: Path) -> None:
    model = linear_with(["H", "Cu", "O"], tmp_path)
    first, second = (part["descriptor"]["repinit"]["tebd_dim"] for part in model.get_model().config["models"])
    table = model.eval_typeebd()
    assert table.shape == (4, first + second)
    assert not table[3].any()
    data = load_kind(case_of("linear"))
    part = type_embedding(data.config["models"][0], Weights(data.weights).part("models.0."))
    assert relative(table[:3, :first], part) <= SAME
    with pytest.raises(dpa2.InputError, match="know 3 and 4 types: their embeddings make no one array"):
        linear_with(["H", "N", "O", "Cu"], tmp_path).eval_typeebd()


def test_unknown_options_are_named_with_the_class() -> None:
    with pytest.warns(UserWarning, match="^DeepPolar does not know 'foo'") as record:
        opened("polar").eval(FRAMES, CELLS, TYPES, foo=1, **parameters("polar"))
    assert record[0].filename == __file__


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_duplicates(duplicate: Any) -> None:
    for name in ("polar", "zbl"):
        other = duplicate(opened(name))
        assert type(other) is type(opened(name))
        args = (FRAMES, CELLS, TYPES)
        found, expected = (m.eval(*args, **parameters(name)) for m in (other, opened(name)))
        assert np.array_equal(found[0], expected[0])


def test_empty_structures() -> None:
    given = {name: {n: a[:0] for n, a in parameters(name).items()} for name in MODELS}
    for name, shapes in {
        "polar": [(0, 5, 9)], "dos": [(0, 7)], "property": [(0, 3)], "population": [(0, 5, 2)], "dipole": [(0, 5, 3)],
    }.items():  # fmt: skip
        found = opened(name).eval(np.zeros((0, 15)), None, TYPES, **given[name])
        assert [rows.shape for rows in (found if isinstance(found, tuple) else (found,))] == shapes
