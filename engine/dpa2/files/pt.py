"""Training checkpoints of deepmd-kit (``.pt``): single-task, multi-task, with or without exponential average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dpa2.errors import InputError, ModelFileError
from dpa2.files._data import RawModel, number_of
from dpa2.files.combination import resolve_shared
from dpa2.files.kinds import check_kind
from dpa2.files.torch_zip import LazyTensor, TorchArchive

DEFAULT_BRANCH = "Default"
MAX_HEADS, MAX_NAME = 10_000, 1000


def choose_head(head: str | None, available: Mapping[str, list[str]]) -> str:
    """The name of the branch that ``head`` means, by name or alias.

    Args:
        head: what the caller asked for.
        available: branch name -> its aliases.
    """
    listing = ", ".join(n + (f" (alias {', '.join(a)})" if a else "") for n, a in available.items())
    listing = listing if len(listing) <= 4000 else f"{listing[:4000]} ..."
    if head is None:
        raise InputError(f"this file holds several models: choose one with head=...; it has {listing}")
    if head in available:
        return head
    matches = [name for name, aliases in available.items() if head in aliases]
    if len(matches) != 1:
        raise InputError(f"the file has no head {head!r}; it has {listing}")
    return matches[0]


def refuse_head(head: str | None, own: str | None) -> None:
    """Raise :class:`InputError` if a head is asked for that a single-task file does not have."""
    if head is not None and head != own:
        name = f"the head {own!r}" if own else "a single model"
        raise InputError(f"head {head!r} was asked for, but the file holds {name}")


def _definition(state: Mapping[Any, Any]) -> dict[str, Any]:
    extra = state.get("_extra_state")
    params = extra.get("model_params") if isinstance(extra, Mapping) else None
    if not isinstance(params, dict):
        raise ModelFileError("the checkpoint has no model definition (model._extra_state.model_params)")
    return params


def _branches(params: Mapping[str, Any]) -> dict[str, list[str]]:
    """Branch name -> aliases of a multi-task definition; empty for a single task."""
    branches = params.get("model_dict")
    if branches is None:
        return {}
    if not isinstance(branches, Mapping) or not branches:
        raise ModelFileError("corrupt file: model_dict is not a dictionary of models")
    out: dict[str, list[str]] = {}
    total = 0
    for name, branch in branches.items():
        alias = branch.get("model_branch_alias", []) if isinstance(branch, Mapping) else None
        if not isinstance(name, str) or not isinstance(alias, (list, tuple)):
            raise ModelFileError("corrupt file: a malformed entry of model_dict")
        total += 1 + len(alias)
        if total > MAX_HEADS or any(isinstance(a, str) and len(a) > MAX_NAME for a in (name, *alias)):
            raise ModelFileError("hostile file: the heads of model_dict are too many, or their names too long")
        out[name] = [a for a in alias if isinstance(a, str)]
    return out


def _state(checkpoint: Any) -> dict[Any, Any]:
    if not isinstance(checkpoint, dict):
        raise ModelFileError("the file is a PyTorch archive, but no checkpoint of deepmd-kit")
    state = checkpoint.get("model", checkpoint)
    if not isinstance(state, dict):
        raise ModelFileError("the checkpoint has no model state")
    return state


def heads(archive: TorchArchive) -> list[str]:
    """The names of the branches of a multi-task checkpoint."""
    return list(_branches(_definition(_state(archive.unpickle()))))


def read(archive: TorchArchive, head: str | None) -> RawModel:
    """The model of a checkpoint, or its branch ``head``."""
    return model_of(archive.unpickle(), head, archive.size)


def model_of(checkpoint: Any, head: str | None, size: int) -> RawModel:
    """The model, or a branch, of a checkpoint that was unpickled: with tensors on demand, or arrays in their place.

    Args:
        checkpoint: what the file holds. head: the branch. size: of the file, bytes.
    """
    state = _state(checkpoint)
    params = _definition(state)
    branches = _branches(params)
    if branches:
        branch = choose_head(head, branches)
        shared, params = params, params["model_dict"][branch]
        if not isinstance(params, dict):
            raise ModelFileError(f"corrupt file: the definition of head {branch!r} is not a dictionary")
        params = resolve_shared(params, shared.get("shared_dict"))
        own: str | None = branch
    else:
        branch, own = DEFAULT_BRANCH, None
        refuse_head(head, own if head != branch else branch)
    check_kind(params)
    prefix = f"model.{branch}."
    tensors = {
        name[len(prefix) :]: tensor
        for name, tensor in state.items()
        if isinstance(name, str) and name.startswith(prefix) and isinstance(tensor, (LazyTensor, np.ndarray))
    }
    if not tensors:
        raise ModelFileError(f"corrupt file: there are no weights under {prefix!r}")
    named = canonical_names(tensors)
    distance = number_of(named.get("min_nbor_dist"), "min_nbor_dist")
    params = {key: value for key, value in params.items() if key != "smin_alpha"}  # deepmd-kit's builder ignores it
    return RawModel(params, named, distance, own, size, infer=True)


def canonical_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors by canonical name: prefixes and repetitions removed, the other naming of the pt_expt backend mapped."""
    out = {}
    for name, tensor in tensors.items():
        if "._networks." in name:
            continue  # repeats `networks` or `_module_networks`
        short = name.removeprefix("model.").removeprefix("atomic_model.")
        own = short.removeprefix("backbone_model.")  # of a spin model
        if own != short and not own.endswith("min_nbor_dist"):
            own = "models.0." + own.removeprefix("atomic_model.")
        out[_from_pt_expt(own)] = tensor
    return out


_RENAMED = (
    (".embeddings_strip.", ".filter_layers_strip."),
    (".embeddings.", ".filter_layers."),
    ("fitting_net.nets.", "fitting_net.filter_layers."),
    ("._module_networks.", ".networks."),
    ("descriptor.type_embedding.embedding_net.", "descriptor.type_embedding.embedding.embedding_net."),
)


def _from_pt_expt(name: str) -> str:
    for theirs, ours in _RENAMED:
        name = name.replace(theirs, ours)
    if name.endswith(".w"):
        return name[:-1] + "matrix"
    if name.endswith(".b"):
        return name[:-1] + "bias"
    return "min_nbor_dist" if name == "_min_nbor_dist" else name
