"""Which kinds of models there are here, and which are refused, by name and with the reason.

What there is follows the core's options (`schema`). A definition says its kind in deepmd-kit's words: `type`, `spin`,
`use_srtab`, and the types of descriptor and fitting net.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import schema

SUPPORTED = (
    "supported are the descriptor 'dpa2', or a 'hybrid' one with it, with a fitting net 'ener', 'dipole', 'polar', "
    "'dos', 'property' or 'population', energy models with spins (spin) or a ZBL table (use_srtab), and combinations "
    "of energy models and pair tables (linear_ener)"
)

_NO_MODEL = "a name that deepmd-kit itself makes no model of"
_TENSORFLOW = "which only models of deepmd-kit's TensorFlow backend have"
_REFUSED_FITTINGS = {
    "direct_force_ener": "whose forces are no derivatives of its energy, and which deepmd-kit itself cannot freeze",
    "direct_force": _NO_MODEL,
    "denoise": _NO_MODEL,
    "invar": _NO_MODEL,
    "type_predict": _NO_MODEL,
    "global_polar": _TENSORFLOW,
    "wfc": _TENSORFLOW,
}
_REFUSED_PARTS = {
    "frozen": "a model in a file of its own, which deepmd-kit's PyTorch backend cannot combine either",
    "inner_potential": "an analytic potential at short distances, which deepmd-kit has for DPA-4 only",
    "linear_ener": "a combination inside of a combination",
    "zbl": "a combination inside of a combination",
}


def shown(value: Any) -> str:
    """A value for a message. Of containers the kind alone: they may repeat each other without end."""
    return repr(value)[:60] if isinstance(value, (str, int, float, type(None))) else type(value).__name__


def _reason(reasons: Mapping[str, str], kind: Any) -> str:
    reason = reasons.get(kind) if isinstance(kind, str) else None
    return f", {reason}" if reason else ""


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A dictionary of options, or an error."""
    if not isinstance(value, Mapping) or len(value) > 10_000 or not all(isinstance(k, str) for k in value):
        raise ModelFileError(
            f"the model definition is inconsistent: {where} is {shown(value)}, expected a dictionary of options"
        )
    return dict(value)


def is_combination(params: Mapping[str, Any]) -> bool:
    """Whether a definition is that of a model that is made of others."""
    made = params.get("type") in ("linear_ener", "zbl", "spin")
    return made or bool(params.get("use_srtab")) or params.get("spin") is not None


def check_kind(params: Mapping[str, Any]) -> None:
    """Raise :class:`UnsupportedModelError` unless ``params`` define a model of a kind that there is here.

    Of a linear combination only what stands at the top is looked at: :func:`check_part` is for its parts.
    """
    kind = params.get("type", "standard")
    if params.get("modifier"):
        raise UnsupportedModelError(f"this model has a data modifier; {SUPPORTED}")
    _refuse_bridging(params)
    if kind == "linear_ener" or (kind in ("zbl", "spin") and "models" in params):
        return  # a key `spin` beside them is one that deepmd-kit does not look at
    if kind not in ("standard", "ener", "energy"):
        raise UnsupportedModelError(f"this is a model of type {shown(kind)}; {SUPPORTED}")
    fitting = _check_network(params)
    if params.get("spin") is not None:  # then a table, use_srtab, is one that deepmd-kit does not look at
        if fitting != "ener":
            raise UnsupportedModelError(
                f"a spin model has the fitting net {fitting!r}, and only energies can depend on spins"
            )
    elif params.get("use_srtab") and fitting != "ener":
        raise UnsupportedModelError(
            f"a ZBL table (use_srtab) is combined with the fitting net {fitting!r}, and only energies can be combined"
        )


def check_part(params: Mapping[str, Any], where: str) -> None:
    """Raise :class:`UnsupportedModelError` unless ``params`` define an energy model or table of a combination."""
    _refuse_bridging(params)
    if "descriptor" not in params:
        kind = params.get("type")
        if kind != "pairtab":
            reason = _reason(_REFUSED_PARTS, kind)
            raise UnsupportedModelError(f"{where} is a model of type {shown(kind)}{reason}; {SUPPORTED}")
    elif (fitting := _check_network(params)) != "ener":
        raise UnsupportedModelError(f"{where} has the fitting net {fitting!r}, and only energies can be combined")


def _refuse_bridging(params: Mapping[str, Any]) -> None:
    method = params.get("bridging_method")
    if method is not None and str(method).lower() not in ("none", ""):
        raise UnsupportedModelError(
            f"this model has the bridging_method {shown(method)}, which deepmd-kit has for DPA-4 only; {SUPPORTED}"
        )


def _check_network(params: Mapping[str, Any]) -> Any:
    """The type of the fitting net; raises unless it and the descriptor are such as there are here."""
    descriptor = mapping(params.get("descriptor", {}), "descriptor")
    kind = descriptor.get("type", "se_e2_a")
    if kind != "hybrid" and kind not in schema.section("descriptor")["type"].choices:
        raise UnsupportedModelError(f"the descriptor is {shown(kind)}; {SUPPORTED}")
    if "repinit_rcut" in descriptor or "repinit_nsel" in descriptor:
        raise UnsupportedModelError(
            f"this file is of a 3.0.0 alpha of deepmd-kit (flat keys as repinit_rcut), another design; {SUPPORTED}"
        )
    fitting = mapping(params.get("fitting_net", {}), "fitting_net")
    kind = fitting.get("type", "ener")
    if kind not in schema.section("fitting_net")["type"].choices:
        reason = _reason(_REFUSED_FITTINGS, kind)
        raise UnsupportedModelError(f"the fitting net is of type {shown(kind)}{reason}; {SUPPORTED}")
    return kind
