"""Options of a model from the modules of a frozen file, which keep what they were made with as attributes.

deepmd-kit leaves the definition of a linear model out of the file that it freezes, and says of a spin model what its
network is. TorchScript, in turn, leaves out
empty lists, and sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import schema, spin
from dpa2.files._data import column_of, to_array
from dpa2.files.kinds import SUPPORTED, shown
from dpa2.files.pickle_reader import Instance
from dpa2.files.torch_zip import LazyTensor

#: what acts is the attribute of the module: a file may come from a tree, whose definition is that of a still older file
_OWN = ("fit_diag", "shift_diag", "distinguish_types", "intensive")


def _state(module: Any, where: str) -> dict[str, Any]:
    if not isinstance(module, Instance) or not isinstance(module.state, dict):
        raise ModelFileError(f"corrupt or incomplete file: it has no definition, and no module {where}")
    return module.state


def _attributes(state: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Those of the attributes that are there, and are no modules or tensors."""
    return {key: state[key] for key in keys if key in state and not isinstance(state[key], (Instance, LazyTensor))}


def _excluded(state: Mapping[str, Any], key: str, mask: Any, where: str) -> list[Any]:
    """Types, or pairs of types, that are left out: the attribute is not there where there are none."""
    excluded = state.get(key)
    if isinstance(excluded, list):
        return excluded
    masked = isinstance(mask, Instance) and isinstance(mask.state, dict) and mask.state.get("no_exclusion") is not True
    if excluded is not None or masked:
        raise ModelFileError(f"corrupt or inconsistent file: {where} leaves types out, and does not say which ({key})")
    return []


def _class(module: Any) -> str:
    return module.cls.name if isinstance(module, Instance) else type(module).__name__


def _descriptor(module: Any, where: str) -> dict[str, Any]:
    """The options of a descriptor."""
    if _class(module) != "DescrptDPA2":
        raise UnsupportedModelError(f"{where} is a {shown(_class(module))}; {SUPPORTED}")
    state = _state(module, where)
    repinit, repformer = (_state(state.get(name), f"{where}.{name}") for name in ("repinit", "repformers"))
    out = {"type": "dpa2", **_attributes(state, schema.section("descriptor"))}
    out["exclude_types"] = _excluded(state, "exclude_types", repinit.get("emask"), where)
    out["repinit"] = {**_attributes(repinit, schema.section("repinit")), "nsel": repinit.get("nnei")}
    out["repformer"] = {**_attributes(repformer, schema.section("repformer")), "nsel": repformer.get("nnei")}
    out["repinit"]["use_three_body"] = state.get("use_three_body")
    if state.get("repinit_three_body") is not None:
        block = _state(state["repinit_three_body"], f"{where}.repinit_three_body")
        keys = {"neuron": "neuron", "rcut": "rcut", "rcut_smth": "rcut_smth", "nnei": "sel"}
        out["repinit"] |= {f"three_body_{ours}": block[theirs] for theirs, ours in keys.items() if theirs in block}
    return out


def _fitting(module: Any, where: str) -> dict[str, Any]:
    """The options of the fitting net of an energy model."""
    if _class(module) != "EnergyFittingNet":
        raise UnsupportedModelError(f"{where} is a {shown(_class(module))}, and only energies can be combined")
    state = _state(module, where)
    if state.get("remove_vaccum_contribution") is not None and state.get("atom_ener") is None:
        raise ModelFileError(f"corrupt or inconsistent file: {where} does not say its atom_ener")
    return {"neuron": [], **_attributes(state, schema.section("fitting_net")), "type": "ener"}


def linear_definition(atomic: Any) -> dict[str, Any]:
    """The definition of a linear model, from its module."""
    where = "atomic_model"
    state = _state(atomic, where)
    if "sw_rmin" in state or "weights" not in state:
        raise ModelFileError("the frozen file has no model definition (model_def_script is empty)")
    modules = _state(state.get("models"), f"{where}.models")
    places = sorted((name for name in modules if isinstance(name, str) and name.isdecimal()), key=int)
    parts = []
    for k, name in enumerate(places):
        place = f"{where}.models.{k}"
        part = _state(modules[name], place)
        if name != str(k):
            raise ModelFileError(f"corrupt file: {place} is missing")
        if part.get("atom_excl") is not None or part.get("pair_excl") is not None:
            raise UnsupportedModelError(f"{place} has excluded types of its own, which deepmd-kit gives no such model")
        own: dict[str, Any] = {"type_map": part.get("type_map")}
        if "tab_info" in part:
            own |= {"type": "pairtab", "rcut": part.get("rcut"), "sel": part.get("sel")}
        else:
            own["descriptor"] = _descriptor(part.get("descriptor"), f"{place}.descriptor")
            own["fitting_net"] = _fitting(part.get("fitting_net"), f"{place}.fitting_net")
        parts.append(own)
    return {
        "type": "linear_ener",
        "type_map": state.get("type_map"),
        "weights": state["weights"],
        "atom_exclude_types": _excluded(state, "atom_exclude_types", state.get("atom_excl"), where),
        "pair_exclude_types": _excluded(state, "pair_exclude_types", state.get("pair_excl"), where),
        "models": parts,
    }


def spin_definition(root: Mapping[str, Any], definition: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """The definition of a spin model; ``definition`` finds that of its network, which says all that spins imply."""
    network = definition(_state(root.get("backbone_model"), "backbone_model"))
    masks = []
    for name in ("spin_mask", "virtual_scale_mask"):
        mask = root.get(name)
        if not isinstance(mask, LazyTensor) or len(mask.shape) != 1 or mask.shape[0] > 10_000:
            raise ModelFileError(f"corrupt file: {name} of the spin model is missing, or has not one number per type")
        masks.append([float(number) for number in to_array(mask)])
    return spin.from_network(network, [flag != 0.0 for flag in masks[0]], masks[1])


def with_own_options(params: dict[str, Any], atomic: Any) -> dict[str, Any]:
    """A definition with the options that the modules of a frozen file have of their own."""
    state = atomic.state if isinstance(atomic, Instance) and isinstance(atomic.state, dict) else {}
    if params.get("use_srtab"):
        rest = {key: value for key, value in params.items() if key != "smin_alpha"}  # see pt.read
        return {**rest, **_attributes(state, ("sw_rmin", "sw_rmax", "smin_alpha"))}
    fitting = state.get("fitting_net")
    given = params.get("fitting_net")
    if not isinstance(fitting, Instance) or not isinstance(fitting.state, dict) or not isinstance(given, dict):
        return params
    own = _attributes(fitting.state, _OWN)
    if isinstance(fitting.state.get("scale"), LazyTensor):
        own["scale"] = column_of(fitting.state["scale"], "fitting_net.scale")
    return {**params, "fitting_net": {**given, **own}}
