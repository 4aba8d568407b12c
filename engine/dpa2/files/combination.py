"""Combinations of models: their canonical configuration from definitions, and from tables of pairs.

deepmd-kit has three. ``linear_ener`` adds the energies of its `models`, each with a factor. A model with ``use_srtab``,
here of the type "zbl", goes over to the energies of a table where atoms are close. One with ``spin``, here of the type
"spin", has one part (`spin`). Parts are energy models and tables; of a part's definition deepmd-kit looks at
descriptor, fitting net and types alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import config, network, schema, spin
from dpa2.files._data import to_array
from dpa2.files.kinds import check_part, mapping, shown

_PART = ("type_map", "descriptor", "fitting_net", "compression")
_SHARED = ("type_map", "descriptor", "fitting_net")
#: parts, and pairs that they exclude in all: the same list may stand for many
_MAX_MODELS, _MAX_EXCLUSIONS = 100, 100_000


def resolve_shared(params: Mapping[str, Any], shared: Any) -> dict[str, Any]:
    """Replace names of shared parts by the parts (`name` or `name:level`)."""
    out = dict(params)
    for key in _SHARED:
        if isinstance(out.get(key), str):
            name = out[key].partition(":")[0]
            if not isinstance(shared, Mapping) or name not in shared:
                raise ModelFileError(f"corrupt file: the shared part {name[:60]!r} is not defined")
            out[key] = shared[name]
    return out


def normalise(
    params: Mapping[str, Any], tensors: Mapping[str, Any], infer: bool, distance: float | None, head: str | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The canonical configuration of a combination, and weights that were made from others.

    Args:
        params: a definition of deepmd-kit with ``linear_ener``, ``use_srtab`` or ``spin``, or of the type "zbl" or
            "spin" with `models`.
        tensors: by canonical name. ``models.<k>.tab_info`` (4): begin, step, pieces and types of the table of part k,
            where its definition does not say them.
        infer, distance, head: as for :func:`dpa2.files.network.completed`.
    """
    given = _with_parts(params)
    definitions = _parts(given)
    _refuse_expansion(definitions)
    given.setdefault("type_map", _common_types(definitions))
    given.pop("hessian_mode", None)  # deepmd-kit's builders do not look at it
    out = config.top(given, distance, head)
    # a set, which not every format keeps in order
    pairs = {(min(pair), max(pair)) for pair in out["pair_exclude_types"]}
    out["pair_exclude_types"] = [list(pair) for pair in sorted(pairs)]
    out["type"] = given["type"]
    parts: list[dict[str, Any]] = []
    made: dict[str, Any] = {}
    single = True
    for k, definition in enumerate(definitions):
        prefix, where = f"models.{k}.", f"models[{k}]"
        definition.setdefault("type_map", out["type_map"])
        check_part(definition, where)
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if "descriptor" not in definition:
            parts.append(_table(definition, own, where, parts[0] if parts and given["type"] == "zbl" else None))
            continue
        try:
            given_part = {key: definition[key] for key in _PART if key in definition}
            whole, tables = network.completed(given_part, own, infer)
        except ModelFileError as err:
            raise type(err)(f"{where}: {err}") from None
        for one in schema.descriptors(whole):
            for block in ("repinit", "repformer") if one["type"] == "dpa2" else ():
                one[block] = config.without_unused(block, one[block])
        single = single and whole["precision"] == "float32"
        parts.append({key: whole[key] for key in _PART if key in whole})
        made |= {prefix + name: table for name, table in tables.items()}
    out["precision"] = "float32" if single else "float64"
    if given["type"] == "linear_ener":
        given["weights"] = _factors(given.get("weights", "mean"), len(parts))
    out |= config.section(given["type"], given, "", len(out["type_map"]))
    return {**out, "models": parts}, made


def _with_parts(params: Mapping[str, Any]) -> dict[str, Any]:
    """A definition in the form of one with `models`."""
    if params.get("type") == "linear_ener" or "models" in params:
        return dict(params)
    return _with_table(params) if params.get("spin") is None else spin.as_parts(params)


def _with_table(params: Mapping[str, Any]) -> dict[str, Any]:
    """A definition with ``use_srtab`` in the form of one with `models`."""
    out = {key: value for key, value in params.items() if key not in ("descriptor", "fitting_net", "use_srtab")}
    part = {key: params[key] for key in ("type_map", "descriptor", "fitting_net") if key in params}
    return {**out, "type": "zbl", "models": [part, {"type": "pairtab"}]}


def _parts(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = params.get("models")
    if not isinstance(parts, list) or not 1 <= len(parts) <= _MAX_MODELS:
        found = f"a list of {len(parts)}" if isinstance(parts, list) else shown(parts)
        raise ModelFileError(
            f"the model definition is inconsistent: models is {found}, expected a list of 1 to {_MAX_MODELS} models"
        )
    return [resolve_shared(mapping(part, f"models[{k}]"), params.get("shared_dict")) for k, part in enumerate(parts)]


def _refuse_expansion(parts: list[dict[str, Any]]) -> None:
    """Before they are copied."""
    descriptors = [part["descriptor"] for part in parts if isinstance(part.get("descriptor"), Mapping)]
    lists = [descriptor.get("exclude_types") for descriptor in descriptors]
    count = sum(len(pairs) for pairs in lists if isinstance(pairs, list))
    if count > _MAX_EXCLUSIONS:
        raise ModelFileError(f"hostile file: its models exclude {count} pairs of types; at most {_MAX_EXCLUSIONS}")


def _common_types(parts: list[dict[str, Any]]) -> Any:
    """The types of a combination that does not say them: those of its parts, if they have the same."""
    first = parts[0].get("type_map")
    return first if all(part.get("type_map") == first for part in parts) else None


def _factors(value: Any, count: int) -> list[float]:
    """The factor of each part's energies."""
    if value in ("sum", "mean"):
        return [1.0 if value == "sum" else 1.0 / count] * count
    if not isinstance(value, list) or len(value) != count:
        found = f"a list of {len(value)}" if isinstance(value, list) else shown(value)
        raise ModelFileError(
            f"the model definition is inconsistent: weights is {found}, expected 'sum', 'mean' or a list of {count} "
            "numbers, one per model"
        )
    return value


def _table(
    given: dict[str, Any], tensors: Mapping[str, Any], where: str, network_: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The configuration of a part that is a table of pairs; in a zbl model it has the list of the network."""
    types = config.types_of(given["type_map"], f"{where}.type_map")
    out = dict(given)
    if network_ is not None:
        if schema.is_hybrid(network_):
            raise UnsupportedModelError("a ZBL table (use_srtab) beside a hybrid descriptor is not supported")
        repinit = network_["descriptor"]["repinit"]
        out = {"rcut": repinit["rcut"], "sel": repinit["nsel"], **out}
    sel = out.get("sel")
    if isinstance(sel, list) and all(type(n) is int for n in sel):
        out["sel"] = sum(sel)
    info = tensors.get("tab_info")
    if info is not None:
        out |= _grid(info, len(types), where)
    elif "step" not in out:
        raise ModelFileError(f"corrupt or incomplete file: the table of {where} is missing (tab_info)")
    options = config.section("pairtab", out, where)
    _check_length(tensors.get("tab_data"), len(types), options["nspline"], where)
    return {"type": "pairtab", "type_map": types, **options}


def _grid(tensor: Any, ntypes: int, where: str) -> dict[str, Any]:
    """Begin, step and number of pieces of a table, from what deepmd-kit keeps of it."""
    info = to_array(tensor) if tuple(tensor.shape) == (4,) else np.empty(0)
    if info.shape != (4,) or info.dtype not in (np.float32, np.float64):
        raise ModelFileError(f"corrupt file: tab_info of {where} has shape {tuple(tensor.shape)}, expected 4 numbers")
    begin, step, pieces, types = (float(value) for value in info)
    stated = f"tab_info of {where} is [{begin:g}, {step:g}, {pieces:g}, {types:g}]"
    if not all(math.isfinite(value) for value in (begin, step, pieces, types)) or step <= 0 or begin < 0:
        raise ModelFileError(f"corrupt file: {stated}, expected a begin, a positive step, pieces and types")
    if not (pieces.is_integer() and 1 <= pieces <= 1e6):
        raise ModelFileError(f"corrupt file: {stated}, expected 1 to 1000000 pieces")
    if types != ntypes:
        raise ModelFileError(f"corrupt or inconsistent file: {stated}, its table of {types:g} types is one of {ntypes}")
    return {"rmin": begin, "step": step, "nspline": int(pieces)}


def _check_length(tensor: Any, ntypes: int, pieces: int, where: str) -> None:
    """Raise :class:`ModelFileError` if a table has not the numbers that its grid asks for."""
    if tensor is None:
        raise ModelFileError(f"corrupt or incomplete file: the table of {where} is missing (tab_data)")
    found, wanted = math.prod(int(n) for n in tensor.shape), ntypes * ntypes * pieces * 4
    if found != wanted:
        what = "ends short" if found < wanted else "is too long"
        raise ModelFileError(
            f"corrupt or inconsistent file: the table of {where} {what}: {pieces} pieces for the pairs of {ntypes} "
            f"types are {wanted} numbers, tab_data has {found}"
        )
