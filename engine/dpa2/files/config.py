"""The canonical configuration: a model definition as deepmd-kit writes it, checked, with every default filled in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import compression

FORMAT_VERSION = 1
SUPPORTED = "supported are energy models (fitting net 'ener') with the descriptor 'dpa2'"

_ACTIVATIONS = (
    "tanh", "relu", "relu6", "sigmoid", "softplus", "gelu", "gelu_tf", "silu", "silut", "custom_silu", "linear", "none",
)  # fmt: skip
_PRECISIONS = {
    "default": "float64", "float64": "float64", "double": "float64", "float32": "float32", "single": "float32",
    "float16": "float16", "half": "float16", "bfloat16": "bfloat16",
}  # fmt: skip

_REQUIRED: Any = object()
_Spec = tuple[str, Any]

# name -> (kind, default)
_REPINIT: dict[str, _Spec] = {
    "rcut": ("length", _REQUIRED),
    "rcut_smth": ("number", _REQUIRED),
    "nsel": ("size", _REQUIRED),
    "neuron": ("sizes", [25, 50, 100]),
    "axis_neuron": ("size", 16),
    "tebd_dim": ("size", 8),
    "tebd_input_mode": ("concat|strip", "concat"),
    "activation_function": ("activation", "tanh"),
    "resnet_dt": ("bool", False),
    "type_one_side": ("bool", False),
    "use_three_body": ("bool", False),
    "three_body_neuron": ("sizes", [2, 4, 8]),
    "three_body_rcut": ("length", 4.0),
    "three_body_rcut_smth": ("number", 0.5),
    "three_body_sel": ("size", 40),
}
_REPFORMER: dict[str, _Spec] = {
    "rcut": ("length", _REQUIRED),
    "rcut_smth": ("number", _REQUIRED),
    "nsel": ("size", _REQUIRED),
    "nlayers": ("size", 3),
    "g1_dim": ("size", 128),
    "g2_dim": ("size", 16),
    "axis_neuron": ("size", 4),
    "direct_dist": ("bool", False),
    "update_g1_has_conv": ("bool", True),
    "update_g1_has_drrd": ("bool", True),
    "update_g1_has_grrg": ("bool", True),
    "update_g1_has_attn": ("bool", True),
    "update_g2_has_g1g1": ("bool", True),
    "update_g2_has_attn": ("bool", True),
    "update_h2": ("bool", False),
    "attn1_hidden": ("size", 64),
    "attn1_nhead": ("size", 4),
    "attn2_hidden": ("size", 16),
    "attn2_nhead": ("size", 4),
    "attn2_has_gate": ("bool", False),
    "activation_function": ("activation", "tanh"),
    "update_style": ("res_avg|res_incr|res_residual", "res_avg"),
    "use_sqrt_nnei": ("bool", True),
    "g1_out_conv": ("bool", True),
    "g1_out_mlp": ("bool", True),
    "ln_eps": ("positive", 1e-5),
}
_DESCRIPTOR: dict[str, _Spec] = {
    "precision": ("precision", "float64"),
    "smooth": ("bool", True),
    "exclude_types": ("pairs", []),
    "env_protection": ("number", 0.0),
    "concat_output_tebd": ("bool", True),
    "add_tebd_to_repinit_out": ("bool", False),
    "use_econf_tebd": ("bool", False),
    "use_tebd_bias": ("bool", False),
}
_FITTING: dict[str, _Spec] = {
    "neuron": ("sizes?", [120, 120, 120]),
    "activation_function": ("activation", "tanh"),
    "resnet_dt": ("bool", True),
    "numb_fparam": ("count", 0),
    "numb_aparam": ("count", 0),
    "default_fparam": ("numbers?", None),
    "dim_case_embd": ("count", 0),
    "use_aparam_as_mask": ("bool", False),
    "atom_ener": ("holes", []),
    "precision": ("precision", "float64"),
}
# Keys that concern training only.
_TRAINING = {
    "descriptor": {"type", "seed", "trainable", "type_map", "ntypes", "repinit", "repformer", "compress"},
    "repinit": {"set_davg_zero"},
    "repformer": {"set_davg_zero", "update_residual", "update_residual_init", "trainable_ln"},
}
_MAX_SIZE = 1_000_000
_MAX_FOLDED = 2**24
"""Numbers of a table that is computed at load, from a file that may be small."""


def _shown(value: Any) -> str:
    """A value for a message. Of containers the kind alone: they may repeat each other without end."""
    return repr(value)[:60] if isinstance(value, (str, int, float, type(None))) else type(value).__name__


def _fail(where: str, value: Any, want: str) -> ModelFileError:
    return ModelFileError(f"the model definition is inconsistent: {where} is {_shown(value)}, expected {want}")


def _integer(value: Any, where: str, low: int, high: int = _MAX_SIZE) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _fail(where, value, f"an integer from {low} to {high}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300 or value != value:
        raise _fail(where, value, "a finite number")
    return float(value)


def _list(value: Any, where: str, longest: int = 10_000) -> list[Any]:
    if not isinstance(value, (list, tuple)) or len(value) > longest:
        raise _fail(where, value, "a list")
    return list(value)


def activation(value: Any, where: str) -> str:
    """The canonical (lower-case) name of an activation function; a threshold stays behind its colon."""
    name = "none" if value is None else value
    if not isinstance(name, str):
        raise _fail(where, value, "the name of an activation function")
    name = name.lower()
    base, colon, threshold = name.partition(":")
    if base not in _ACTIVATIONS or (colon and base not in ("silut", "custom_silu")):
        raise UnsupportedModelError(f"{where} is {name[:60]!r}; supported are {', '.join(_ACTIVATIONS)}")
    if colon:
        try:
            ok = math.isfinite(float(threshold))
        except ValueError:
            ok = False
        if not ok:
            raise _fail(where, name, "a number behind the colon")
    return name


def _pairs(value: Any, where: str, ntypes: int) -> list[list[int]]:
    out = []
    for pair in _list(value, where, ntypes * ntypes + 10_000):
        items = _list(pair, where, 2)
        if len(items) != 2:
            raise _fail(where, pair, "pairs of types")
        out.append([_integer(t, where, 0, ntypes - 1) for t in items])
    return out


def _check(kind: str, value: Any, where: str, ntypes: int) -> Any:
    if kind == "bool":
        if not isinstance(value, bool):
            raise _fail(where, value, "true or false")
        return value
    if kind in ("size", "count"):
        return _integer(value, where, 1 if kind == "size" else 0)
    if kind in ("number", "length", "positive"):
        number = _number(value, where)
        if kind != "number" and number <= 0:
            raise _fail(where, value, "a positive number")
        return number
    if kind in ("sizes", "sizes?"):
        sizes = [_integer(v, where, 1) for v in _list(value, where, 100)]
        if not sizes and kind == "sizes":  # a fitting net without hidden layers is linear in its input
            raise _fail(where, "[]", "a list of widths")
        return sizes
    if kind == "activation":
        return activation(value, where)
    if kind == "precision":
        if not isinstance(value, str) or value not in _PRECISIONS:
            raise _fail(where, value, "one of " + ", ".join(_PRECISIONS))
        return _PRECISIONS[value]
    if kind == "pairs":
        return _pairs(value, where, ntypes)
    if kind == "numbers?":
        return None if value is None else [_number(v, where) for v in _list(value, where)]
    if kind == "holes":  # energies of single atoms; null where none is given
        if value is None:
            return []
        holes = [None if v is None else _number(_scalar(v), where) for v in _list(value, where)]
        return [] if all(v is None for v in holes) else holes
    if not isinstance(value, str) or value not in kind.split("|"):
        raise _fail(where, value, "one of " + ", ".join(kind.split("|")))
    return value


def _scalar(value: Any) -> Any:
    for _ in range(8):  # a list may hold itself
        if isinstance(value, (list, tuple)) and len(value) == 1:
            value = value[0]
    return value


def _unused(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Beginnings of the names of options that the others switch off: nobody looks at their values."""
    out: list[str] = []
    if given.get("use_three_body", False) is False:
        out.append("three_body_")
    if given.get("update_g1_has_attn", True) is False:
        out.append("attn1_")
    if given.get("update_g2_has_attn", True) is False and given.get("update_h2", False) is False:
        out.append("attn2_")
    return tuple(out)


def _section(spec: Mapping[str, _Spec], given: Mapping[str, Any], where: str, ntypes: int) -> dict[str, Any]:
    out: dict[str, Any] = {}
    unused = _unused(given)
    for key, (kind, default) in spec.items():
        value = given.get(key, default)
        if value is _REQUIRED:
            raise ModelFileError(f"the model definition is incomplete: {where}.{key} is missing")
        if value is None and key in ("ln_eps", "exclude_types"):
            value = default
        try:
            out[key] = _check(kind, value, f"{where}.{key}", ntypes)
        except ModelFileError:
            if not key.startswith(unused):
                raise
            out[key] = default
    return out


def _refuse_unknown(given: Mapping[str, Any], known: set[str], where: str) -> None:
    for key, value in given.items():
        if key not in known and value is not None and not key.startswith("_"):
            raise UnsupportedModelError(
                f"the option {where}.{key[:60]} is unknown; the model cannot be evaluated safely"
            )


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        raise _fail(where, value, "a dictionary of options")
    return dict(value)


def check_kind(params: Mapping[str, Any]) -> None:
    """Raise :class:`UnsupportedModelError` unless ``params`` define an energy model with the descriptor dpa2."""
    if params.get("spin"):
        raise UnsupportedModelError(f"this is a spin model; {SUPPORTED}")
    if params.get("use_srtab"):
        raise UnsupportedModelError(f"this model is combined with a ZBL table (use_srtab); {SUPPORTED}")
    if params.get("modifier"):
        raise UnsupportedModelError(f"this model has a data modifier; {SUPPORTED}")
    kind = params.get("type", "standard")
    if kind not in ("standard", "ener", "energy"):
        raise UnsupportedModelError(f"this is a model of type {_shown(kind)}; {SUPPORTED}")
    descriptor = _mapping(params.get("descriptor", {}), "descriptor")
    kind = descriptor.get("type", "se_e2_a")
    if kind != "dpa2":
        raise UnsupportedModelError(f"the descriptor is {_shown(kind)}; {SUPPORTED}")
    if "repinit_rcut" in descriptor or "repinit_nsel" in descriptor:
        raise UnsupportedModelError(
            f"this file is of a 3.0.0 alpha of deepmd-kit (flat keys as repinit_rcut), another design; {SUPPORTED}"
        )
    fitting = _mapping(params.get("fitting_net", {}), "fitting_net")
    kind = fitting.get("type", "ener")
    if kind != "ener":
        raise UnsupportedModelError(f"the fitting net is of type {_shown(kind)}; {SUPPORTED}")


def normalise(params: Mapping[str, Any], min_nbor_dist: float | None, head: str | None) -> dict[str, Any]:
    """The canonical configuration of a model definition.

    Args:
        params: as ``model_params`` of a checkpoint: type_map, descriptor, fitting_net, exclusions.
        min_nbor_dist: in angstrom; None, or not positive, if unknown.
        head: the branch of a multi-task file.

    Raises:
        UnsupportedModelError: it is no dpa2 energy model, or has an unknown option.
        ModelFileError: an option is missing, of the wrong kind or contradicts another.
    """
    check_kind(params)
    type_map = _list(params.get("type_map"), "type_map", 10_000)
    if not type_map or not all(isinstance(t, str) and 0 < len(t) < 100 for t in type_map):
        raise _fail("type_map", type_map, "a list of type names")
    if len(set(type_map)) != len(type_map):
        raise ModelFileError("the model definition is inconsistent: a type occurs twice in type_map")
    ntypes = len(type_map)

    given = _mapping(params["descriptor"], "descriptor")
    if "repformer_add_type_ebd_to_seq" in given:
        given.setdefault("add_tebd_to_repinit_out", given["repformer_add_type_ebd_to_seq"])
        del given["repformer_add_type_ebd_to_seq"]
    repinit = _mapping(given.get("repinit", given.get("repinit_args", {})), "descriptor.repinit")
    repformer = _mapping(given.get("repformer", given.get("repformer_args", {})), "descriptor.repformer")
    given.pop("repinit_args", None)
    given.pop("repformer_args", None)
    for section, spec, where in ((repinit, _REPINIT, "repinit"), (repformer, _REPFORMER, "repformer")):
        _refuse_unknown(section, set(spec) | _TRAINING[where], f"descriptor.{where}")
    _refuse_unknown(given, set(_DESCRIPTOR) | _TRAINING["descriptor"], "descriptor")
    descriptor = {"type": "dpa2", **_section(_DESCRIPTOR, given, "descriptor", ntypes)}
    descriptor["repinit"] = _section(_REPINIT, repinit, "descriptor.repinit", ntypes)
    descriptor["repformer"] = _section(_REPFORMER, repformer, "descriptor.repformer", ntypes)

    given = _mapping(params.get("fitting_net", {}), "fitting_net")
    if "n_neuron" in given:
        given.setdefault("neuron", given["n_neuron"])
    fitting = {"type": "ener", **_section(_FITTING, given, "fitting_net", ntypes)}

    atoms = _list(params.get("atom_exclude_types") or [], "atom_exclude_types")
    config = {
        "format_version": FORMAT_VERSION,
        "type_map": type_map,
        "precision": "float64" if "float64" in (descriptor["precision"], fitting["precision"]) else "float32",
        "descriptor": descriptor,
        "fitting_net": fitting,
        "pair_exclude_types": _pairs(params.get("pair_exclude_types") or [], "pair_exclude_types", ntypes),
        "atom_exclude_types": [_integer(t, "atom_exclude_types", 0, ntypes - 1) for t in atoms],
        "min_nbor_dist": _distance(min_nbor_dist),
        "head": head,
    }
    _check_geometry(descriptor)
    _check_sizes(config)
    if params.get("compression") is not None:
        config["compression"] = compression.normalise(params["compression"], config)
    return config


def _distance(value: float | None) -> float | None:
    if value is None or value <= 0:
        return None
    return _number(value, "min_nbor_dist")


def _check_geometry(descriptor: Mapping[str, Any]) -> None:
    ri, rf = descriptor["repinit"], descriptor["repformer"]
    blocks = [
        ("repformer", rf["rcut"], rf["rcut_smth"], rf["nsel"]),
        ("repinit", ri["rcut"], ri["rcut_smth"], ri["nsel"]),
    ]
    if ri["use_three_body"]:
        radii = ri["three_body_rcut"], ri["three_body_rcut_smth"], ri["three_body_sel"]
        blocks.append(("repinit.three_body", *radii))
    for name, rcut, smth, _ in blocks:
        if not 0 <= smth < rcut:
            raise ModelFileError(f"the model definition is inconsistent: {name} has rcut_smth {smth} and rcut {rcut}")
    if rf["rcut"] >= ri["rcut"] or rf["nsel"] >= ri["nsel"]:
        raise ModelFileError("the model definition is inconsistent: repformer's rcut and nsel must be below repinit's")
    sels = [nsel for _, _, nsel in sorted((rcut, nsel, nsel) for _, rcut, _, nsel in blocks)]
    if sels != sorted(sels):
        raise ModelFileError("the model definition is inconsistent: a block with a larger rcut has a smaller nsel")
    if ri["axis_neuron"] > ri["neuron"][-1]:
        raise ModelFileError("the model definition is inconsistent: repinit.axis_neuron is above the last neuron")
    if not (rf["update_g1_has_grrg"] or rf["update_g1_has_drrd"] or not rf["g1_out_mlp"]) and not (
        rf["update_g1_has_conv"] and not rf["g1_out_conv"]
    ):
        raise ModelFileError("the model definition is inconsistent: nothing enters linear1 of the repformer")


def _check_sizes(config: Mapping[str, Any]) -> None:
    fit, rf, ntypes = config["fitting_net"], config["descriptor"]["repformer"], len(config["type_map"])
    ri = config["descriptor"]["repinit"]
    widest = max(2 * ri["tebd_dim"] + 1, *ri["neuron"], *(ri["three_body_neuron"] if ri["use_three_body"] else ()))
    heads = rf["attn2_nhead"] if rf["update_g2_has_attn"] or rf["update_h2"] else 0
    for what, size in (
        (f"the table of pairs of {ntypes} types with up to {widest} numbers each", ntypes**2 * widest),
        (f"the map of the pair attention, g2_dim squared times {heads} heads,", rf["g2_dim"] ** 2 * heads),
    ):
        if size > _MAX_FOLDED:
            raise ModelFileError(f"the model definition is inconsistent: {what} is unreasonably large")
    if rf["nlayers"] > 1000:
        raise _fail("descriptor.repformer.nlayers", rf["nlayers"], "at most 1000")
    if rf["axis_neuron"] > min(rf["g1_dim"], rf["g2_dim"]):
        raise ModelFileError("the model definition is inconsistent: repformer.axis_neuron is above g1_dim or g2_dim")
    default = fit["default_fparam"]
    if default is not None and len(default) != fit["numb_fparam"]:
        raise ModelFileError("the model definition is inconsistent: default_fparam has not numb_fparam entries")
    if fit["atom_ener"] and len(fit["atom_ener"]) > ntypes:
        raise ModelFileError("the model definition is inconsistent: atom_ener has more entries than there are types")
