"""A single network, descriptor and fitting net: what a reader found, completed from its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpa2.files import compression, config, hybrid, schema

Tensors = Mapping[str, Any]


def completed(
    params: Mapping[str, Any], tensors: Tensors, infer: bool, distance: float | None = None, head: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The canonical configuration, and weights that were made from others: tables that deepmd-kit compressed.

    Args:
        params, distance, head: as for :func:`dpa2.files.config.normalise`.
        tensors: the network's by their names without a prefix.
        infer: whether options that the definition omits are to be inferred from the tensors.
    """
    if infer:
        params = _inferred(params, tensors)
    out = config.normalise(params, distance, head)
    made: dict[str, Any] = {}
    if schema.is_hybrid(out):
        compression.refuse_in_hybrid(tensors)
    elif "compression" not in out and (found := compression.from_deepmd(tensors, out)) is not None:
        out["compression"], made["descriptor.repinit.table"] = found
    return out, made


def _inferred(params: Mapping[str, Any], tensors: Tensors) -> dict[str, Any]:
    """Fill options whose defaults changed between versions, from what the weights show."""
    budget = hybrid.Budget()
    return {**params, "descriptor": _inferred_descriptor(params["descriptor"], tensors, "descriptor", budget)}


def _inferred_descriptor(
    given: Mapping[str, Any], tensors: Tensors, prefix: str, budget: hybrid.Budget
) -> dict[str, Any]:
    """Those of a descriptor, whose weights have the prefix, and of what stands in a hybrid one."""
    descriptor = dict(given)
    if descriptor.get("type") == "hybrid":
        own = []
        for k, member in enumerate(hybrid.members(descriptor, prefix)):
            budget.spend(member, prefix)
            own.append(_inferred_descriptor(member, tensors, f"{prefix}.descrpt_list.{k}", budget))
        return {**descriptor, "list": own}
    repformer = descriptor.get("repformer")
    switches = ("use_sqrt_nnei", "g1_out_conv", "g1_out_mlp")
    if isinstance(repformer, Mapping) and not any(key in repformer for key in switches):
        new = f"{prefix}.repformers.layers.0.g1_self_mlp.matrix" in tensors
        descriptor["repformer"] = {**repformer, **dict.fromkeys(switches, new)}
    if "use_tebd_bias" not in descriptor and descriptor.get("type") in ("dpa2", "dpa1", "se_atten"):
        name = f"{prefix}.type_embedding.embedding.embedding_net.layers.0.bias"
        descriptor["use_tebd_bias"] = name in tensors
    return descriptor
