"""The canonical configuration of a single network: its definition as deepmd-kit writes it, checked and completed.

Here is what deepmd-kit says in other words: names of other versions, options of training. Which options there are, what
they may be and their defaults is asked of `schema`; whether they agree with each other is seen to by the core, when it
is asked for the weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import schema
from dpa2.files.compression import BLOCKS
from dpa2.files.kinds import check_kind, mapping, shown
from dpa2.files.schema import Option

#: other names of precisions
_PRECISIONS = {"default": "float64", "double": "float64", "single": "float32", "half": "float16"}
#: options for which null means the default
_NULL_IS_DEFAULT = {"ln_eps", "exclude_types", "pair_exclude_types", "atom_exclude_types", "atom_ener"}
# Keys that concern training only.
_TRAINING = {
    "descriptor": {"seed", "trainable", "type_map", "ntypes", "repinit", "repformer", "compress"},
    "repinit": {"set_davg_zero"},
    "repformer": {"set_davg_zero", "update_residual", "update_residual_init", "trainable_ln"},
}


def _fail(where: str, value: Any, want: str) -> ModelFileError:
    return ModelFileError(f"the model definition is inconsistent: {where} is {shown(value)}, expected {want}")


def _integer(option: Option, value: Any, where: str, ntypes: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    low, high = (0, ntypes - 1) if option.types else (option.lowest or 0, option.highest or 0)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _fail(where, value, f"an integer from {low:.0f} to {high:.0f}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300 or value != value:
        raise _fail(where, value, "a finite number")
    return float(value)


def _list(value: Any, where: str, fewest: int, most: int) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise _fail(where, value, "a list")
    if not fewest <= len(value) <= most:
        wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        raise ModelFileError(
            f"the model definition is inconsistent: {where} has {len(value)} entries, expected {wanted}"
        )
    return list(value)


def _activation(value: Any, where: str) -> str:
    """The canonical (lower-case) name of an activation function; a threshold stays behind its colon."""
    name = "none" if value is None else value
    if not isinstance(name, str):
        raise _fail(where, value, "the name of an activation function")
    name = name.lower()
    base, colon, threshold = name.partition(":")
    known = schema.activations()
    if base not in known or (colon and not known[base]):
        raise UnsupportedModelError(f"{where} is {name[:60]!r}; supported are {', '.join(known)}")
    if colon:
        try:
            ok = math.isfinite(float(threshold))
        except ValueError:
            ok = False
        if not ok:
            raise _fail(where, name, "a number behind the colon")
    return name


def _choice(value: Any, where: str, choices: list[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise _fail(where, value, "one of " + ", ".join(choices))
    return value


def _checked_number(option: Option, value: Any, where: str) -> float:
    number = _number(value, where)
    if option.positive and number <= 0:
        raise _fail(where, value, "a positive number")
    if option.lowest is not None and number < option.lowest:
        raise _fail(where, value, f"at least {option.lowest:g}")
    if option.highest is not None and number > option.highest:
        raise _fail(where, value, f"at most {option.highest:g}")
    return number


def _scalar(value: Any) -> Any:
    for _ in range(8):  # a list may hold itself
        if isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
    return value


def _check_list(option: Option, value: Any, where: str, ntypes: int) -> list[Any]:
    entries = _list(value, where, option.fewest, option.most)
    if option.kind == "texts":
        if not all(isinstance(t, str) and 0 < len(t) < 100 for t in entries):
            raise _fail(where, value, "a list of names")
        return entries
    places = [(entry, f"{where}[{k}]") for k, entry in enumerate(entries)]
    if option.kind == "numbers":
        return [_number(v, place) for v, place in places]
    if option.kind == "holes":  # energies of single atoms; null where none is given
        holes = [None if v is None else _number(_scalar(v), place) for v, place in places]
        return [] if all(v is None for v in holes) else holes
    if option.kind == "integers":
        return [_integer(option, v, place, ntypes) for v, place in places]
    return [[_integer(option, v, place, ntypes) for v in _list(pair, place, 2, 2)] for pair, place in places]


def _check(option: Option, value: Any, where: str, ntypes: int) -> Any:
    """The value in canonical form, if the option may have it."""
    if value is None and option.null:
        return None
    if option.kind == "boolean":
        if not isinstance(value, bool):
            raise _fail(where, value, "true or false")
        return value
    if option.kind == "integer":
        return _integer(option, value, where, ntypes)
    if option.kind == "number":
        return _checked_number(option, value, where)
    if option.kind == "activation":
        return _activation(value, where)
    if option.kind == "choice":
        if option.key == "precision" and isinstance(value, str):
            value = _PRECISIONS.get(value, value)
        return _choice(value, where, option.choices)
    if option.kind == "text":
        if not isinstance(value, str):
            raise _fail(where, value, "a text")
        return value
    return _check_list(option, value, where, ntypes)


def _unused(options: Mapping[str, Option], given: Mapping[str, Any]) -> tuple[str, ...]:
    """Beginnings of the names of options that the others switch off: nobody looks at their values."""

    def off(*keys: str) -> bool:
        return all(key in options and given.get(key, options[key].default) is False for key in keys)

    switches = {
        "three_body_": ("use_three_body",),
        "attn1_": ("update_g1_has_attn",),
        "attn2_": ("update_g2_has_attn", "update_h2"),
    }
    return tuple(beginning for beginning, keys in switches.items() if off(*keys))


def section(name: str, given: Mapping[str, Any], where: str, ntypes: int = 0) -> dict[str, Any]:
    """The options of a section in canonical form: checked, each by itself, and with defaults for those not given."""
    out: dict[str, Any] = {}
    options = schema.section(name)
    unused = _unused(options, given)
    for key, option in options.items():
        if option.presence == "optional" and not option.null and given.get(key) is None:
            continue
        place = f"{where}.{key}" if where else key
        if option.presence == "required" and key not in given:
            raise ModelFileError(f"the model definition is incomplete: {place} is missing")
        value = given.get(key, option.default)
        if value is None and key in _NULL_IS_DEFAULT:
            value = option.default
        try:
            out[key] = _check(option, value, place, ntypes)
        except ModelFileError:
            if not key.startswith(unused):
                raise
            out[key] = copy.deepcopy(option.default)
    return out


def without_unused(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a section with the defaults of those that others switch off, which not every format knows."""
    unused = _unused(schema.section(name), options)
    defaults = {key: option.default for key, option in schema.section(name).items() if key.startswith(unused)}
    return options | copy.deepcopy(defaults)


def refuse_unknown(given: Mapping[str, Any], known: set[str], where: str) -> None:
    for key, value in given.items():
        if key not in known and value is not None and not key.startswith("_"):
            name = repr(key[:60])[1:-1]  # control characters would reach the user's terminal
            raise UnsupportedModelError(f"the option {where}.{name} is unknown; the model cannot be evaluated safely")


def types_of(value: Any, where: str) -> list[str]:
    """The names of types."""
    names: list[str] = _check(schema.section("model")["type_map"], value, where, 0)
    return names


def top(params: Mapping[str, Any], min_nbor_dist: float | None, head: str | None) -> dict[str, Any]:
    """What every model has: version, types, exclusions. Its precision is for those to say who know the networks."""
    given = {key: value for key, value in params.items() if key in schema.section("model")}
    if given.get("hessian_mode") is False:  # nor does a model without it say so
        del given["hessian_mode"]
    given["min_nbor_dist"] = None if min_nbor_dist is None or min_nbor_dist <= 0 else min_nbor_dist
    given["head"] = head
    given["precision"] = "float64"
    ntypes = len(types_of(given.setdefault("type_map", None), "type_map"))
    return {"format_version": schema.format_version(), **section("model", given, "", ntypes)}


def normalise(params: Mapping[str, Any], min_nbor_dist: float | None, head: str | None) -> dict[str, Any]:
    """The canonical configuration of a model definition.

    Args:
        params: as ``model_params`` of a checkpoint: type_map, descriptor, fitting_net, exclusions.
        min_nbor_dist: in angstrom; None, or not positive, if unknown.
        head: the branch of a multi-task file.

    Raises:
        UnsupportedModelError: it is of a kind that is not supported, or has an unknown option.
        ModelFileError: an option is missing or of the wrong kind. Options that contradict each other are found by
            :func:`dpa2.files.schema.expected_weights`.
    """
    from dpa2.files import hybrid

    check_kind(params)
    given = mapping(params["descriptor"], "descriptor")
    config = top(params, min_nbor_dist, head)
    ntypes = len(config["type_map"])
    complete = hybrid.normalise if given.get("type") == "hybrid" else dpa2_descriptor
    config["descriptor"] = complete(given, ntypes)
    config["fitting_net"] = _fitting(params, ntypes)
    precisions = [one["precision"] for one in (*schema.descriptors(config), config["fitting_net"])]
    config["precision"] = "float64" if "float64" in precisions else "float32"
    if params.get("compression") is not None:
        config["compression"] = _compression(params["compression"])
    return config


def dpa2_descriptor(given: dict[str, Any], ntypes: int, where: str = "descriptor") -> dict[str, Any]:
    """The canonical configuration of a descriptor that is no hybrid one."""
    given = dict(given)
    if "repformer_add_type_ebd_to_seq" in given:
        given.setdefault("add_tebd_to_repinit_out", given["repformer_add_type_ebd_to_seq"])
        del given["repformer_add_type_ebd_to_seq"]
    blocks = {
        name: mapping(given.get(name, given.get(f"{name}_args", {})), f"{where}.{name}")
        for name in ("repinit", "repformer")
    }
    given.pop("repinit_args", None)
    given.pop("repformer_args", None)
    for name, block in blocks.items():
        refuse_unknown(block, set(schema.section(name)) | _TRAINING[name], f"{where}.{name}")
    refuse_unknown(given, set(schema.section("descriptor")) | _TRAINING["descriptor"], where)
    out = section("descriptor", given, where, ntypes)
    for name, block in blocks.items():
        out[name] = section(name, block, f"{where}.{name}")
    return out


def _fitting(params: Mapping[str, Any], ntypes: int) -> dict[str, Any]:
    """The options of a fitting net, those that all have and those of its type."""
    given = mapping(params.get("fitting_net", {}), "fitting_net")
    if "n_neuron" in given:
        given.setdefault("neuron", given["n_neuron"])
    kind = given.get("type", "ener")
    if kind in ("dipole", "polar", "dos"):  # deepmd-kit does not look at it
        given.pop("atom_ener", None)
    if kind == "polar":
        given["scale"] = _scale(given.get("scale"), ntypes)
    name = given.get("property_name")
    if kind == "property" and isinstance(name, str) and not (0 < len(name) <= 100 and name.isprintable()):
        raise _fail("fitting_net.property_name", name, "a name of 1 to 100 printable characters")
    return {
        key: value
        for name in schema.fitting_sections(kind)
        for key, value in section(name, given, "fitting_net").items()
    }


def _scale(value: Any, ntypes: int) -> list[Any]:
    """The factor of each type's polarizability: one for all, a list, or none; an integer is what deepmd-kit refuses."""
    if value is None:
        return [1.0] * ntypes
    if isinstance(value, float):
        return [value] * ntypes
    if not isinstance(value, list) or len(value) != ntypes:
        found = f"a list of {len(value)}" if isinstance(value, list) else shown(value)
        raise ModelFileError(
            f"the model definition is inconsistent: fitting_net.scale is {found}, expected a list of {ntypes} numbers, "
            "one per type, or one number with a decimal point"
        )
    return value


def _compression(value: Any) -> dict[str, Any]:
    """The entry of a compressed model."""
    given = mapping(value, "compression")
    refuse_unknown(given, {*schema.section("compression"), *BLOCKS}, "compression")
    out = section("compression", given, "compression")
    for name in BLOCKS:
        if given.get(name) is not None:
            grid = mapping(given[name], f"compression.{name}")
            refuse_unknown(grid, set(schema.section("table")), f"compression.{name}")
            out[name] = section("table", grid, f"compression.{name}")
    return out
