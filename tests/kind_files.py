"""Random models of every kind, and the frozen file of a linear one, which has no definition: for tests of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dpa2 import files
from dpa2.files import ModelData
from model_files import WRITERS, Module, definition, finished, make, state, write_pth, write_zip
from random_model import random_weights

#: the options of fitting nets other than energies'
FITTINGS: dict[str, dict[str, Any]] = {
    "dipole": {"type": "dipole"},
    "polar": {"type": "polar", "fit_diag": True, "shift_diag": True, "scale": [0.7, 1.3, -0.4]},
    "polar_full": {"type": "polar", "fit_diag": False, "shift_diag": False, "scale": [1.0, 1.0, 1.0]},
    "dos": {"type": "dos", "numb_dos": 5},
    "property": {
        "type": "property", "property_name": "gap", "task_dim": 2, "intensive": True, "distinguish_types": True,
    },
    # a property stays one, whatever its name; all types have the bias of the first
    "property_energy": {
        "type": "property", "property_name": "energy", "task_dim": 1, "intensive": False, "distinguish_types": False,
    },
    "population": {"type": "population"},
}  # fmt: skip


def make_fitting(name: str, seed: int = 0, **options: Any) -> ModelData:
    """A small model with one of `FITTINGS`."""
    config = make(seed, **options).config
    config["fitting_net"] |= FITTINGS[name]
    return ModelData(config, random_weights(np.random.default_rng(seed), config))


def _network(seed: int, type_map: list[str] | None = None, **options: Any) -> dict[str, Any]:
    config = make(seed, **options).config
    config["type_map"] = type_map or config["type_map"]
    return {key: config[key] for key in ("type_map", "descriptor", "fitting_net")}


def _table(type_map: list[str], rcut: float, sel: int) -> dict[str, Any]:
    return {
        "type": "pairtab", "type_map": type_map, "rcut": rcut, "sel": sel, "rmin": 0.25, "step": 0.125, "nspline": 7,
    }  # fmt: skip


def combined(config: dict[str, Any], seed: int = 0, **top: Any) -> ModelData:
    """A combination with random weights."""
    whole = {
        "format_version": 1, "type_map": ["O", "H", "C"], "precision": "float64", "pair_exclude_types": [],
        "atom_exclude_types": [], "head": None, "min_nbor_dist": 0.75, **config, **top,
    }  # fmt: skip
    model = ModelData(whole, random_weights(np.random.default_rng(seed), whole))
    return finished(model.config, model.weights)


def make_zbl(seed: int = 0, **top: Any) -> ModelData:
    """An energy model that goes over to a table."""
    network = _network(seed)
    repinit = network["descriptor"]["repinit"]
    table = _table(network["type_map"], repinit["rcut"], repinit["nsel"])
    config = {"type": "zbl", "sw_rmin": 0.5, "sw_rmax": 1.25, "smin_alpha": 0.1, "models": [network, table]}
    return combined(config, seed, type_map=network["type_map"], **top)


def make_linear(seed: int = 0, **top: Any) -> ModelData:
    """Two energy models of other types, in another order, and a table."""
    common = make(seed).config["type_map"]
    off = {"use_three_body": False, "three_body_neuron": [2, 4, 8], "three_body_rcut": 4.0}
    models = [
        _network(seed, [*common[::-1], "Fe"], repinit=off, fitting={"atom_ener": [None, 0.5]}),
        _table([common[1], common[2], common[0]], 3.5, 30),
        _network(seed, repinit={"tebd_input_mode": "strip", "rcut": 3.75}, descriptor={"exclude_types": [[1, 0]]}),
    ]
    return combined(
        {"type": "linear_ener", "weights": [0.75, 1.0, -0.5], "models": models}, seed, type_map=common, **top
    )


KINDS: dict[str, Callable[[], ModelData]] = {
    **{name: (lambda name=name: make_fitting(name)) for name in FITTINGS},
    "zbl": make_zbl,
    "linear": make_linear,
    "linear_excluded": lambda: make_linear(1, pair_exclude_types=[[0, 2], [1, 1]], atom_exclude_types=[1]),
}


def changed(path: Path, model: ModelData, change: dict[str, Any]) -> Path:
    """A checkpoint with another definition; a dotted key leads into the models of a combination."""
    params = definition(model)
    for key, value in change.items():
        *way, last = key.split(".")
        node = params
        for part in way:
            node = node[int(part) if part.isdecimal() else part]
        if value is KeyError:
            del node[last]
        else:
            node[int(last) if last.isdecimal() else last] = value
    return write_zip(
        path, {"model": {"_extra_state": {"model_params": params}, **state(model, "model.Default.atomic_model.")}}
    )


# ------------------------------------------------------------------------------------------------- frozen files


def _descriptor(options: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a descriptor's module; TorchScript leaves out empty lists."""
    repinit, repformer = options["repinit"], options["repformer"]
    shared = {"exclude_types": options["exclude_types"]} if options["exclude_types"] else {}
    out: dict[str, Any] = {k: v for k, v in options.items() if k not in ("type", "repinit", "repformer")} | shared
    out["use_three_body"] = repinit["use_three_body"]
    mask = {"emask": Module({"no_exclusion": not shared})}
    out["repinit"] = {**{k: v for k, v in repinit.items() if "three_body" not in k and k != "nsel"}, **mask}
    out["repinit"]["nnei"] = repinit["nsel"]
    out["repformers"] = {k: v for k, v in repformer.items() if k != "nsel"} | {"nnei": repformer["nsel"], **mask}
    out["repinit_three_body"] = None
    if repinit["use_three_body"]:
        names = {"neuron": "neuron", "rcut": "rcut", "rcut_smth": "rcut_smth", "sel": "nnei"}
        out["repinit_three_body"] = {theirs: repinit[f"three_body_{ours}"] for ours, theirs in names.items()}
    return {k: v for k, v in out.items() if v != []}


def _put(node: dict[str, Any], attributes: dict[str, Any]) -> None:
    for key, value in attributes.items():
        if isinstance(value, dict):
            _put(node.setdefault(key, {}), value)
        else:
            node[key] = value


def linear_modules(model: ModelData) -> Module:
    """The object graph of a frozen linear model: every option is an attribute, and there is no definition."""
    root: dict[str, Any] = {"model_def_script": ""}
    for name, array in state(model).items():
        *path, last = name.split(".")
        node = root
        for part in path:
            node = node.setdefault(part, {})
        node[last] = array
    config = model.config
    atomic = root["atomic_model"]
    atomic |= {"type_map": config["type_map"], "weights": config["weights"], "atom_excl": None, "pair_excl": None}
    for key, mask in (("atom_exclude_types", "atom_excl"), ("pair_exclude_types", "pair_excl")):
        if config[key]:
            atomic |= {key: config[key], mask: Module({"no_exclusion": False})}
    for k, child in enumerate(config["models"]):
        part = atomic["models"][str(k)]
        part |= {"type_map": child["type_map"], "atom_excl": None, "pair_excl": None}
        if "descriptor" not in child:
            part |= {"rcut": child["rcut"], "sel": child["sel"], "tab_file": "table.txt"}
            continue
        fitting = child["fitting_net"]
        removed = [e is not None for e in fitting["atom_ener"]] or None
        own = {**fitting, "atom_ener": fitting["atom_ener"] or None, "remove_vaccum_contribution": removed}
        _put(
            part,
            {"descriptor": _descriptor(child["descriptor"]), "fitting_net": {k: v for k, v in own.items() if v != []}},
        )
    classes = {"descriptor": "__torch__.DescrptDPA2", "fitting_net": "__torch__.EnergyFittingNet"}

    def module(node: dict[str, Any], name: str) -> Module:
        content = {k: module(v, k) if isinstance(v, dict) else v for k, v in node.items()}
        return Module(content, classes.get(name, "__torch__.Module"))

    return module(root, "")


def write_frozen(path: Path, model: ModelData) -> Path:
    """A frozen file as deepmd-kit writes it of this kind."""
    if model.config.get("type") == "linear_ener":
        return write_zip(path, linear_modules(model), {"constants.pkl": b"\x80\x02)."})
    return write_pth(path, model)


def read_again(model: ModelData, folder: Path) -> ModelData:
    """The model as a native file keeps it."""
    path = folder / "again.safetensors"
    files.write_safetensors(path, model)
    return files.read(path)


KIND_WRITERS: dict[str, Callable[[Path, ModelData], Path]] = {**WRITERS, "pth": write_frozen}
