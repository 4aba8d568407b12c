"""Hybrid descriptors: what may stand in them, and their canonical configuration.

deepmd-kit puts the descriptors of `list` beside each other. Here at least one of them is dpa2; the others may be
se_e2_a, dpa1 without attention, and hybrid descriptors of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import config, schema
from dpa2.files.kinds import mapping, shown

#: deepmd-kit's names of what may stand in a hybrid descriptor
_NAMES = {
    "dpa2": "dpa2", "se_e2_a": "se_e2_a", "se_a": "se_e2_a", "dpa1": "dpa1", "se_atten": "dpa1", "hybrid": "hybrid",
}  # fmt: skip
_SUPPORTED = (
    "in a hybrid descriptor there can be dpa2, se_e2_a, dpa1 without attention, and hybrid descriptors of these"
)
_REFUSED = {
    "se_e2_r": "which knows distances alone and has no rotation matrix",
    "se_r": "which knows distances alone and has no rotation matrix",
}
#: keys that concern training only, or attention that is not there
_UNUSED = {
    "hybrid": {"seed", "trainable", "type_map", "ntypes"},
    "se_e2_a": {"seed", "trainable", "type_map", "ntypes", "set_davg_zero", "compress"},
    "dpa1": {
        "seed", "trainable", "type_map", "ntypes", "set_davg_zero", "compress", "attn", "attn_dotr", "attn_mask",
        "scaling_factor", "normalize", "temperature", "trainable_ln", "ln_eps", "stripped_type_embedding", "lmax",
    },
}  # fmt: skip
MAX_DESCRIPTORS, MAX_DEPTH, MAX_EXCLUSIONS = 100, 10, 100_000


class Budget:
    """How much may still stand in a hybrid descriptor: what a file refers to twice is there twice."""

    def __init__(self) -> None:
        self.descriptors, self.exclusions = MAX_DESCRIPTORS, MAX_EXCLUSIONS

    def spend(self, member: Mapping[str, Any], where: str) -> None:
        """Count a member; raises where there are too many, or too many pairs of types that they exclude."""
        self.descriptors -= 1
        excluded = member.get("exclude_types")
        self.exclusions -= len(excluded) if isinstance(excluded, (list, tuple)) else 0
        if self.descriptors < 0 or self.exclusions < 0:
            raise ModelFileError(
                f"hostile file: {where} is one of more than {MAX_DESCRIPTORS} descriptors in one, or they exclude more "
                f"than {MAX_EXCLUSIONS} pairs of types"
            )


def members(descriptor: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """What stands in a hybrid descriptor. Raises :class:`ModelFileError` if that is no list of descriptors."""
    found = descriptor.get("list")
    if not isinstance(found, (list, tuple)) or not 1 <= len(found) <= MAX_DESCRIPTORS:
        what = f"a list of {len(found)}" if isinstance(found, (list, tuple)) else shown(found)
        raise ModelFileError(
            f"the model definition is inconsistent: {where}.list is {what}, expected a list of 1 to {MAX_DESCRIPTORS} "
            "descriptors"
        )
    return [mapping(one, f"{where}.list[{k}]") for k, one in enumerate(found)]


def type_of(member: Mapping[str, Any], where: str) -> str:
    """The canonical name of what stands in a hybrid descriptor; others are refused by name."""
    kind = member.get("type", "se_e2_a")
    name = _NAMES.get(kind) if isinstance(kind, str) else None
    if name is None:
        reason = _REFUSED.get(kind) if isinstance(kind, str) else None
        raise UnsupportedModelError(f"{where} is {shown(kind)}{f', {reason}' if reason else ''}; {_SUPPORTED}")
    return name


def normalise(
    given: Mapping[str, Any], ntypes: int, where: str = "descriptor", depth: int = 0, budget: Budget | None = None
) -> dict[str, Any]:
    """The canonical configuration of a hybrid descriptor.

    Raises:
        UnsupportedModelError: something that stands in it, named by its place, is not supported.
        ModelFileError: an option is missing or of the wrong kind.
    """
    config.refuse_unknown(given, {"type", "list"} | _UNUSED["hybrid"], where)
    if depth > MAX_DEPTH:
        raise UnsupportedModelError(f"{where} is a hybrid descriptor in {MAX_DEPTH} others")
    budget = budget or Budget()
    out = []
    for k, member in enumerate(members(given, where)):
        place = f"{where}.list[{k}]"
        kind = type_of(member, place)
        budget.spend(member, place)
        if kind == "hybrid":
            out.append(normalise(member, ntypes, place, depth + 1, budget))
        elif kind == "dpa2":
            out.append(config.dpa2_descriptor(member, ntypes, place))
        else:
            out.append(_block(kind, member, ntypes, place))
    return {"type": "hybrid", "list": out}


def _block(kind: str, given: dict[str, Any], ntypes: int, where: str) -> dict[str, Any]:
    """se_e2_a or dpa1."""
    own = dict(given)
    if kind == "dpa1":
        _without_attention(own, where)
        if own.get("stripped_type_embedding") is not None:  # the name of an older version, which counts
            own["tebd_input_mode"] = "strip" if own["stripped_type_embedding"] else "concat"
        if isinstance(own.get("sel"), (list, tuple)) and all(type(n) is int for n in own["sel"]):
            own["sel"] = sum(own["sel"])
    elif type(own.get("sel")) is int:
        own["sel"] = [own["sel"]]
    config.refuse_unknown(own, {"type", *schema.section(kind)} | _UNUSED[kind], where)
    return {"type": kind, **config.section(kind, own, where, ntypes)}


def _without_attention(given: Mapping[str, Any], where: str) -> None:
    layers = given.get("attn_layer", 2)  # deepmd-kit's default
    if layers != 0 or isinstance(layers, bool):
        raise UnsupportedModelError(
            f"{where} is a dpa1 descriptor with attention (attn_layer is {shown(layers)}, and 0 is supported); "
            f"{_SUPPORTED}"
        )
    if given.get("lmax", 1) != 1:
        raise UnsupportedModelError(f"{where}.lmax is {shown(given['lmax'])}; supported is 1")
