"""Frozen models of deepmd-kit (``.pth``): the inert object graph of a TorchScript archive; its code is never used."""

from __future__ import annotations

from typing import Any

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import modules
from dpa2.files._data import RawModel, number_of
from dpa2.files.nested import load_json
from dpa2.files.pickle_reader import Instance
from dpa2.files.pt import canonical_names, refuse_head
from dpa2.files.torch_zip import LazyTensor, TorchArchive

MAX_DEPTH = 60
MAX_OBJECTS = 500_000
MAX_NAME = 1000


def _tensors(root: Instance) -> dict[str, LazyTensor]:
    """All tensors below the root, by the path of attribute names that leads to them."""
    found: dict[str, LazyTensor] = {}
    todo: list[tuple[str, Instance, int]] = [("", root, 0)]
    seen = 0
    while todo:
        prefix, node, depth = todo.pop()
        if not isinstance(node.state, dict):
            continue
        for name, value in node.state.items():
            if not isinstance(name, str):
                continue
            seen += 1
            if seen > MAX_OBJECTS or depth > MAX_DEPTH or len(prefix) + len(name) > MAX_NAME:
                raise ModelFileError("hostile file: its object graph has cycles or is unreasonably large")
            if isinstance(value, LazyTensor):
                found[prefix + name] = value
            elif isinstance(value, Instance):
                todo.append((f"{prefix}{name}.", value, depth + 1))
    return found


def read(archive: TorchArchive, head: str | None) -> RawModel:
    """The model of a frozen TorchScript file."""
    for name in archive.names():
        if name.endswith("extra/data_modifier.pth") and archive.entry_size(name) > 0:
            raise UnsupportedModelError("this frozen model contains a data modifier, which is not supported")
    root = archive.unpickle(inert=lambda module: module == "__torch__" or module.startswith("__torch__."))
    if not isinstance(root, Instance) or not isinstance(root.state, dict):
        raise ModelFileError("the TorchScript archive does not hold a module")
    refuse_head(head, None)
    tensors: dict[str, Any] = dict(_tensors(root))
    params = _definition(root.state)
    named = canonical_names(tensors)
    distance = number_of(named.get("min_nbor_dist"), "min_nbor_dist")
    return RawModel(params, named, distance, None, archive.size, infer=True)


def _definition_of_network(root: dict[Any, Any]) -> dict[str, Any]:
    """The definition of the network of a spin model, which older versions of deepmd-kit left out."""
    if not isinstance(root.get("model_def_script"), str):
        raise UnsupportedModelError(
            "this is a spin model whose network has no definition (backbone_model.model_def_script), as old versions "
            "of deepmd-kit froze them: freeze its checkpoint again with deepmd-kit 3.2, or give the checkpoint (.pt)"
        )
    return _definition(root)


def _definition(root: dict[Any, Any]) -> dict[str, Any]:
    """The definition of the model: as it was written, or from the options that its modules keep."""
    if "backbone_model" in root:
        return modules.spin_definition(root, _definition_of_network)
    text = root.get("model_def_script")
    if not isinstance(text, str):
        raise ModelFileError("the frozen file has no model definition (model_def_script)")
    if text.strip() in ("", "{}"):  # deepmd-kit forgets that of linear models
        return modules.linear_definition(root.get("atomic_model"))
    return modules.with_own_options(load_json(text, "model_def_script"), root.get("atomic_model"))
