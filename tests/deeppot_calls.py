"""The calls of `DeepPot` whose answers tests/golden/deeppot/ holds: the generator makes them, the tests repeat them.

Needs NumPy alone, like `cases`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cases import GOLDEN

ANSWERS = GOLDEN / "deeppot" / "answers.npz"

#: name -> (model file below golden/files, or the golden case whose weights it has; arguments of the constructor)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "trained": ("trained/model.pt", {}),
    "version1": ("version1/model.pt", {"auto_batch_size": 2, "nlist_backend": "native"}),
    "options": ("strip/model.pt", {"no_jit": True, "auto_batch_size": False}),
    "water": ("multitask/model.pt", {"head": "water"}),
    "alias": ("multitask/model.pt", {"head": "liquid"}),
    "upper": ("multitask/model.pt", {"head": "ICE"}),
    "first": ("multitask/model.pt", {"head": 0}),
    "float32": ("file_float32", {}),
    "mixed": ("file_mixed", {}),
}

#: methods without arguments, and properties, of every model
QUERIES = (
    "get_type_map", "get_ntypes", "get_rcut", "get_dim_fparam", "get_dim_aparam", "has_default_fparam", "get_sel_type",
    "get_ntypes_spin", "get_model_size", "get_observed_types", "has_chg_spin_ebd", "has_default_chg_spin",
    "has_efield", "has_spin", "use_spin", "has_hessian",
)  # fmt: skip

TYPES = [0, 1, 1, 0, 1]
ATOMS = np.array([[0.1, 0.0, 0.2], [1.0, 0.1, 0.0], [-0.3, 0.9, 0.3], [1.6, 1.7, 1.1], [0.2, 2.1, 3.0]])
FRAMES = ATOMS + np.random.default_rng(41).normal(scale=0.08, size=(2, 5, 3))
CELLS = np.array([np.diag([4.6, 4.9, 5.2]), [[5.1, 0.2, 0.0], [0.7, 4.8, 0.1], [-0.4, 0.5, 5.3]]])
FPARAM, APARAM = np.array([[0.3, -1.1], [0.6, -1.9]]), np.linspace(-0.7, 0.9, 10).reshape(2, 5, 1)
MIXED = np.array([[0, 1, 1, 0, 1], [1, 0, 1, 0, -1]])


@dataclass(frozen=True)
class Call:
    """One call: the model, the method, its positional and its named arguments."""

    name: str
    model: str
    method: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def _shapes() -> list[Call]:
    """Every shape that structures come in, with one model."""
    one, two = FRAMES[0], FRAMES
    inputs: dict[str, tuple[Any, ...]] = {
        "one_flat": (one.reshape(1, -1), None, TYPES),
        "one_atoms": (one, None, np.array(TYPES)),
        "one_numbers": (one.ravel(), None, TYPES),
        "one_frame": (one[None], None, TYPES),
        "lists": (one.tolist(), CELLS[0].tolist(), TYPES),
        "types_2d": (one, None, [TYPES]),
        "single": (one.astype(np.float32), None, np.array(TYPES, dtype=np.int64)),
        "two_flat": (two.reshape(2, -1), CELLS.reshape(2, 9), TYPES),
        "two_shaped": (two, CELLS, TYPES),
        "two_open": (two, None, TYPES),
        "two_types_2d": (two, None, [TYPES]),
        "fortran": (np.asfortranarray(two), np.asfortranarray(CELLS), TYPES),
    }
    calls = [Call(f"eval/{name}", "trained", "eval", args) for name, args in inputs.items()]
    calls.append(Call("atomic/one_atoms", "trained", "eval", inputs["one_atoms"], {"atomic": True}))
    calls.append(Call("atomic/positional", "trained", "eval", (*inputs["two_shaped"], True, None, None, False)))
    calls.append(Call("atomic/wrapped", "trained", "eval", (two + 9.0, CELLS, TYPES), {"atomic": True}))
    calls.append(Call("mixed", "trained", "eval", (two, CELLS, MIXED), {"mixed_type": True, "atomic": True}))
    calls.append(Call("mixed/embedding", "trained", "eval_embedding", (two, CELLS, MIXED), {"mixed_type": True}))
    return calls


def _parameters() -> list[Call]:
    """Frame and atomic parameters in every size that is allowed."""
    structure = (FRAMES, CELLS, TYPES)
    each: dict[str, dict[str, Any]] = {
        "full": {"fparam": FPARAM, "aparam": APARAM},
        "flat": {"fparam": FPARAM.ravel(), "aparam": APARAM.ravel().tolist()},
        "one_frame": {"fparam": FPARAM[1], "aparam": APARAM[1]},
        "all_atoms": {"fparam": FPARAM[0].tolist(), "aparam": [0.4]},
        "default_fparam": {"aparam": APARAM},
    }
    calls = [Call(f"parameters/{name}", "options", "eval", structure, kwargs) for name, kwargs in each.items()]
    full = each["full"]
    calls.append(Call("parameters/atomic", "options", "eval", structure, {"atomic": True, **full}))
    calls.append(Call("parameters/descriptor", "options", "eval_descriptor", structure, full))
    calls.append(Call("parameters/last", "options", "eval_fitting_last_layer", structure, full))
    calls.append(Call("parameters/embedding", "options", "eval_embedding", structure, {"dtype": "fp64", **full}))
    return calls


def _every_model() -> list[Call]:
    structure = (FRAMES, CELLS.reshape(2, 9), TYPES)
    calls = []
    for model in MODELS:
        calls.append(Call(f"{model}/typeebd", model, "eval_typeebd"))
        if model == "options":
            continue
        calls.append(Call(f"{model}/eval", model, "eval", structure, {"atomic": True}))
        for method in ("eval_descriptor", "eval_fitting_last_layer", "eval_embedding"):
            for dtype in ("native", "fp32", "fp64"):
                if dtype == "native" or model == "float32":
                    calls.append(Call(f"{model}/{method}/{dtype}", model, method, structure, {"dtype": dtype}))
    calls.append(Call("trained/default/descriptor", "trained", "eval_descriptor", structure))
    calls.append(Call("trained/default/embedding", "trained", "eval_embedding", structure))
    return calls


CALLS: tuple[Call, ...] = (*_shapes(), *_parameters(), *_every_model())


def save_answers(
    answers: Mapping[str, tuple[np.ndarray, ...]], queries: Mapping[str, Mapping[str, Any]], path: Path = ANSWERS
) -> None:
    """Write the file: all numbers in one array, which halves it, with a table of what begins where."""
    flat = [value.ravel().astype(np.float64) for values in answers.values() for value in values]
    table = {name: [[value.dtype.name, value.shape] for value in values] for name, values in answers.items()}
    np.savez_compressed(
        path,
        made_with="deepmd-kit 3.2.0",
        queries=json.dumps(queries),
        table=json.dumps(table),
        numbers=np.concatenate(flat),
    )


def load_answers(path: Path = ANSWERS) -> tuple[dict[str, tuple[np.ndarray, ...]], dict[str, dict[str, Any]]]:
    """What each call returned, as a tuple, and what each model answered to :data:`QUERIES`."""
    with np.load(path, allow_pickle=False) as data:
        table, queries, numbers = json.loads(str(data["table"])), json.loads(str(data["queries"])), data["numbers"]
    answers, start = {}, 0
    for name, entries in table.items():
        values = []
        for dtype, shape in entries:
            stop = start + int(np.prod(shape))
            values.append(numbers[start:stop].reshape(shape).astype(dtype))
            start = stop
        answers[name] = tuple(values)
    return answers, queries
