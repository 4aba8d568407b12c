"""Calls of the classes that `DeepEval` makes of files of all kinds: as `deeppot_calls`, whose structures they have."""

from __future__ import annotations

from typing import Any

import numpy as np
from deeppot_calls import CELLS, FRAMES, Call
from kind_cases import KIND_CASES, KINDS, KindCase

ANSWERS = KINDS / "deepeval.npz"

#: name -> (model file below golden/kinds/files, its head)
MODELS: dict[str, tuple[str, str | None]] = {
    "dipole": ("dipole/model.pt", None),
    "dipole_excluded": ("dipole_excluded/model.pt", None),
    "polar": ("polar/model.pt", None),
    "dos": ("dos/model.pt", None),
    "property": ("property/model.pt", None),
    "population": ("population/model.pt", None),
    "zbl": ("zbl/model.pt", None),
    "linear": ("linear/model.pt", None),
    "linear_table": ("linear_table/model.pt", None),
    "head": ("multitask/model.pt", "dipole"),
}
TENSORS = ("dipole", "dipole_excluded", "polar", "head")

#: of every class, methods without arguments and properties; and what single classes have besides
QUERIES = (
    "get_type_map", "get_ntypes", "get_rcut", "get_dim_fparam", "get_dim_aparam", "has_default_fparam", "get_sel_type",
    "get_ntypes_spin", "get_model_size", "get_observed_types", "has_chg_spin_ebd", "has_default_chg_spin",
    "has_efield", "has_spin", "use_spin", "has_hessian",
)  # fmt: skip
OWN_QUERIES = {
    "DeepDipole": ("output_tensor_name",),
    "DeepPolar": ("output_tensor_name",),
    "DeepDOS": ("numb_dos", "get_numb_dos"),
    "DeepProperty": ("task_dim", "get_task_dim", "get_intensive", "get_var_name"),
}
METHODS = ("eval_descriptor", "eval_fitting_last_layer", "eval_embedding")

#: types that models of two and of three types know, in two frames of their own, some of them virtual
TYPES = [0, 1, 1, 0, 1]
MIXED = np.array([[0, 1, 1, 0, 1], [1, -1, 0, 0, 1]])


def case_of(model: str) -> KindCase:
    name = {"head": "multitask_dipole"}.get(model, model)
    return next(case for case in KIND_CASES if case.name == name)


def parameters(model: str) -> dict[str, Any]:
    """fparam and aparam for two frames of five atoms, where the model takes any."""
    config = case_of(model).config
    nets = [child["fitting_net"] for child in config.get("models", [config]) if "fitting_net" in child]
    found = {}
    if nf := max(net["numb_fparam"] for net in nets):
        found["fparam"] = np.linspace(-0.8, 0.7, 2 * nf).reshape(2, nf)
    if na := max(net["numb_aparam"] for net in nets):
        found["aparam"] = np.linspace(0.6, -0.9, 10 * na).reshape(2, 5, na)
    return found


def _calls() -> list[Call]:
    calls = []
    periodic, alone = (FRAMES, CELLS.reshape(2, 9), TYPES), (FRAMES, None, TYPES)
    for model in MODELS:
        given = parameters(model)

        def add(name: str, method: str, args: Any = (), given: Any = given, model: str = model, **kwargs: Any) -> None:
            calls.append(Call(f"{model}/{name}", model, method, args, {**given, **kwargs}))

        add("eval", "eval", periodic)
        add("eval_open", "eval", alone)
        add("eval_mixed", "eval", (FRAMES, CELLS, MIXED), mixed_type=True, atomic=True)
        for atomic in (True, False):
            add(f"eval_{atomic}", "eval", periodic, atomic=atomic)
            if model in TENSORS:
                add(f"full_{atomic}", "eval_full", periodic, atomic=atomic)
        for method in METHODS:
            add(method, method, periodic, dtype="fp64")
        if model != "linear":  # whose parts know different numbers of types: deepmd-kit fails
            add("eval_typeebd", "eval_typeebd", given={})
    return calls


CALLS: tuple[Call, ...] = tuple(_calls())
