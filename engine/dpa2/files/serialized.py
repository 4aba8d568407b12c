"""The tree of `.dp`, `.hlo`, `.yaml`, `.pt2` and `.pte` files, mapped to canonical names.

Every node carries a version; newer ones than those known here are refused, older ones get the defaults of their time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import hybrid, spin
from dpa2.files._data import ModelData, RawModel, column_of, number_of
from dpa2.files.assembly import assemble
from dpa2.files.kinds import SUPPORTED, check_kind, check_part, shown
from dpa2.files.nested import Budget, NestedTensor, load_json
from dpa2.files.pt import refuse_head

_VERSIONS = {
    "Model": 2, "Descriptor": 4, "TypeEmbedNet": 2, "Layer": 2, "EmbeddingNetwork": 2, "NetworkCollection": 1,
    "FittingNetwork": 1, "RepformerLayer": 2, "Atten2Map": 1, "Atten2MultiHeadApply": 1, "Atten2EquiVarApply": 1,
    "LocalAtten": 1, "LayerNorm": 1, "Fitting": 4, "PairTab": 1,
}  # fmt: skip
#: of nodes whose type makes a difference
_VERSIONS_OF_TYPE = {("Model", "linear"): 3, ("Fitting", "polar"): 5, ("Fitting", "property"): 6}
#: numbers per atom that out_bias has; of the other types the options say it
_WIDTHS = {"ener": 1, "dipole": 3, "polar": 9, "population": 2}
_TEXT_LIMIT = 2**31
_NOT_OPTIONS = re.compile(r"@.*|type_embedding|.*_variable|.*transform|.*tranform")
#: what a node of se_e2_a or dpa1 has beside its options
_NOT_OF_BLOCKS = {"embeddings", "embeddings_strip", "attention_layers", "env_mat", "compress"}

Resolve = Callable[[Any, str], Any]
"""Turns a reference to an array, as the format writes it, into a lazy array."""


def _node(parent: Mapping[str, Any], key: str) -> dict[str, Any]:
    node = parent.get(key)
    if not isinstance(node, dict):
        raise ModelFileError(f"corrupt or incomplete file: the part {key!r} is missing")
    return _versioned(node, key)


def _versioned(node: dict[str, Any], where: str) -> dict[str, Any]:
    kind, version = node.get("@class"), node.get("@version", 1)
    known = None
    if isinstance(kind, str):
        type_ = node.get("type")
        own = _VERSIONS_OF_TYPE.get((kind, type_)) if isinstance(type_, str) else None
        known = own or _VERSIONS.get(kind)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ModelFileError(f"corrupt file: the version of {where[:100]!r} is not a number")
    if known is not None and version > known:
        raise UnsupportedModelError(
            f"{where[:100]!r} has version {version}, which is newer than the {known} that this dpa2 knows"
        )
    return node


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > 10_000:
        raise ModelFileError(f"corrupt file: {where[:100]!r} is not a list")
    return value


class _Mapper:
    """Collects the tensors of a tree under canonical names, those of a part of a combination behind its prefix."""

    def __init__(self, resolve: Resolve, prefix: str = "", tensors: dict[str, Any] | None = None) -> None:
        self.tensors: dict[str, Any] = {} if tensors is None else tensors
        self._resolve, self._prefix = resolve, prefix

    def part(self, prefix: str) -> _Mapper:
        """The same for a part."""
        return _Mapper(self._resolve, prefix, self.tensors)

    def variables(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """The `@variables` of a node that are not null."""
        found = node.get("@variables")
        return {k: v for k, v in found.items() if v is not None} if isinstance(found, dict) else {}

    def put(self, name: str, value: Any) -> None:
        """Store the array that `value` refers to."""
        self.tensors[self._prefix + name] = self._resolve(value, self._prefix + name)

    def resolved(self, value: Any, name: str) -> Any:
        """The array that `value` refers to, which is an option and no weight."""
        return self._resolve(value, self._prefix + name)

    def fill(self, name: str, array: Any) -> None:
        """Store an array that the tree leaves out."""
        self.tensors[self._prefix + name] = array

    def layer(self, name: str, parent: Mapping[str, Any], key: str) -> None:
        """A dense layer or a layer norm, if the parent has it."""
        if not isinstance(parent.get(key), dict) or "@variables" not in parent[key]:
            return
        self._layer(name, _node(parent, key))

    def _layer(self, name: str, node: Mapping[str, Any]) -> None:
        for key, value in self.variables(node).items():
            if key in ("w", "b", "idt"):
                self.put(f"{name}.{ {'w': 'matrix', 'b': 'bias', 'idt': 'idt'}[key] }", value)

    def net(self, name: str, node: Mapping[str, Any]) -> None:
        """A multi-layer network."""
        for k, layer in enumerate(_list(node.get("layers"), name)):
            self._layer(f"{name}.layers.{k}", _versioned(layer if isinstance(layer, dict) else {}, "Layer"))

    def collection(self, name: str, parent: Mapping[str, Any], key: str, dimensions: int = 0) -> None:
        """A collection that holds one network for all types, or one per type or pair of types."""
        node = _node(parent, key)
        networks = _list(node.get("networks"), key)
        if node.get("ndim", 0) != dimensions or (dimensions == 0 and len(networks) != 1):
            raise UnsupportedModelError(f"{key!r} holds networks per type, which dpa2 models never have")
        for k, network in enumerate(networks):
            self.net(f"{name}.networks.{k}", _versioned(network if isinstance(network, dict) else {}, key))

    def statistics(self, name: str, node: Mapping[str, Any]) -> None:
        """Mean and standard deviation of an environment matrix."""
        for key, value in self.variables(node).items():
            if key in ("davg", "dstd"):
                self.put(f"{name}.{'mean' if key == 'davg' else 'stddev'}", value)

    def type_embedding(self, name: str, node: dict[str, Any]) -> None:
        """The layer that makes vectors of types."""
        self.net(f"{name}.type_embedding.embedding.embedding_net", _node(_node(node, "type_embedding"), "embedding"))

    def block(self, name: str, part: dict[str, Any], dimensions: int = 0) -> None:
        """Statistics and embedding networks of a block."""
        self.statistics(name, part)
        self.collection(f"{name}.filter_layers", part, "embeddings", dimensions)
        if part.get("embeddings_strip") is not None:
            self.collection(f"{name}.filter_layers_strip", part, "embeddings_strip")
        if isinstance(part.get("compress"), dict):
            self.compression(name, part["compress"])

    def hybrid(self, name: str, node: dict[str, Any], where: str, budget: hybrid.Budget) -> None:
        """All weights of a hybrid descriptor."""
        for k, member in enumerate(hybrid.members(node, where)):
            own, place = f"{name}.descrpt_list.{k}", f"{where}.list[{k}]"
            budget.spend(member, place)
            kind = hybrid.type_of(member, place)
            _versioned(member, place)
            if kind == "hybrid":
                self.hybrid(own, member, place, budget)
            elif kind == "dpa2":
                self.descriptor(member, own)
            elif kind == "dpa1":
                self.type_embedding(own, member)
                self.block(f"{own}.se_atten", member)
            else:
                self.block(f"{own}.sea", member, 1 if member.get("type_one_side") else 2)

    def descriptor(self, node: dict[str, Any], name: str = "descriptor") -> None:
        """All weights of a descriptor that is no hybrid one."""
        self.type_embedding(name, node)
        for key in ("g1_shape_tranform", "tebd_transform"):
            self.layer(f"{name}.{key}", node, key)
        for block in ("repinit", "repinit_three_body"):
            if node.get(f"{block}_variable") is not None:
                self.block(f"{name}.{block}", _node(node, f"{block}_variable"))
        part = _node(node, "repformers_variable")
        self.statistics(f"{name}.repformers", part)
        self.layer(f"{name}.repformers.g2_embd", part, "g2_embd")
        for k, layer in enumerate(_list(part.get("repformer_layers"), "repformer_layers")):
            self.repformer(f"{name}.repformers.layers.{k}", layer if isinstance(layer, dict) else {})

    def compression(self, name: str, node: Mapping[str, Any]) -> None:
        """The table of a compressed model, where it has one."""
        variables = self.variables(node) if node.get("geo_compress") else {}
        for key in ("compress_data", "compress_info"):
            for k, value in enumerate(_list(variables.get(key, []), key)):
                self.put(f"{name}.{key}.{k}", value)

    def repformer(self, name: str, node: dict[str, Any]) -> None:
        """One repformer layer."""
        _versioned(node, name)
        for key in ("linear1", "linear2", "g1_self_mlp", "proj_g1g2", "proj_g1g1g2", "attn2_lm"):
            self.layer(f"{name}.{key}", node, key)
        parts = {
            "attn2g_map": ("mapqk",),
            "attn2_mh_apply": ("mapv", "head_map"),
            "attn2_ev_apply": ("head_map",),
            "loc_attn": ("mapq", "mapkv", "head_map"),
        }
        for part, layers in parts.items():
            if node.get(part) is not None:
                sub = _node(node, part)
                for layer in layers:
                    self.layer(f"{name}.{part}.{layer}", sub, layer)
        variables = self.variables(node)
        for which in ("g1_residual", "g2_residual", "h2_residual"):
            # version 1 keeps them beside the options
            for k, value in enumerate(_list(variables.get(which, node.get(which) or []), which)):
                self.put(f"{name}.{which}.{k}", value)

    def fitting(self, node: dict[str, Any]) -> None:
        """All weights of the fitting net."""
        for key, value in self.variables(node).items():
            if key in ("bias_atom_e", "fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std", "case_embd"):
                self.put(f"fitting_net.{key}", value)
        self.collection("fitting_net.filter_layers", node, "nets")


def _descriptor_options(node: dict[str, Any]) -> dict[str, Any]:
    """The options of a descriptor in the form of a model definition, with the defaults of the node's version."""
    options = {key: value for key, value in node.items() if not _NOT_OPTIONS.fullmatch(key)}
    if node.get("type") == "hybrid":
        return {**options, "list": [_descriptor_options(member) for member in options["list"]]}
    if node.get("type") != "dpa2":
        return {key: value for key, value in options.items() if key not in _NOT_OF_BLOCKS}
    for which in ("repinit", "repformer"):
        section = options.pop(f"{which}_args", options.get(which))
        if not isinstance(section, dict):
            raise ModelFileError(f"corrupt file: the options of {which} are missing")
        options[which] = dict(section)
    if node.get("@version", 1) < 3:
        options["repformer"].update(use_sqrt_nnei=False, g1_out_conv=False, g1_out_mlp=False)
    options.setdefault("use_tebd_bias", True)
    return options


def _output_statistics(mapper: _Mapper, model: Mapping[str, Any], width: Any = 1) -> None:
    """Bias and scale of the output; files of version 1, or without variables, mean 0 and 1."""
    variables = mapper.variables(model)
    types = model.get("type_map")
    small = isinstance(types, list) and len(types) <= 10_000 and type(width) is int and 0 < width <= 10_000
    for key, default in (("out_bias", 0.0), ("out_std", 1.0)):
        if key in variables:
            mapper.put(key, variables[key])
        elif (model.get("@version", 1) == 1 or not variables) and small and isinstance(types, list):
            mapper.fill(key, np.full((1, len(types), width), default))


def _fitting_options(mapper: _Mapper, node: dict[str, Any]) -> dict[str, Any]:
    """The options of a fitting net in the form of a model definition."""
    options = {key: value for key, value in node.items() if not key.startswith("@") and key != "nets"}
    kind = options.get("type", "ener")
    if kind == "dos":
        options["numb_dos"] = options.get("dim_out")
    elif kind == "property":
        options["property_name"] = options.get("var_name")
        options.setdefault("distinguish_types", False)  # before version 6
    elif kind == "polar" and (scale := mapper.variables(node).get("scale")) is not None:
        options["scale"] = column_of(mapper.resolved(scale, "fitting_net.scale"), "fitting_net.scale")
    return options


def _kind(model: Mapping[str, Any]) -> dict[str, Any]:
    """What says of which kind the model of a node is, in the form of a model definition."""
    descriptor, fitting = model.get("descriptor"), model.get("fitting")
    kind = model.get("type", "standard")
    out = {"type": kind, "modifier": model.get("modifier")}
    if kind == "pairtab":
        return out
    return {
        **out,
        "descriptor": {"type": descriptor.get("type") if isinstance(descriptor, dict) else None},
        "fitting_net": {"type": fitting.get("type", "ener") if isinstance(fitting, dict) else None},
    }


def _network(model: Mapping[str, Any], mapper: _Mapper) -> dict[str, Any]:
    """The definition of a node with descriptor and fitting net; their weights go to the mapper."""
    descriptor, fitting = _node(model, "descriptor"), _node(model, "fitting")
    if fitting.get("mixed_types", True) is not True or fitting.get("tot_ener_zero"):
        raise UnsupportedModelError("the fitting net is not one for all types, or shifts the total energy to zero")
    if descriptor.get("type") == "hybrid":
        mapper.hybrid("descriptor", descriptor, "descriptor", hybrid.Budget())
    else:
        mapper.descriptor(descriptor)
    mapper.fitting(fitting)
    options = _fitting_options(mapper, fitting)
    kind = options.get("type", "ener")
    width = options.get("numb_dos" if kind == "dos" else "task_dim", 1)
    _output_statistics(mapper, model, _WIDTHS.get(kind, width))
    return {
        "type_map": model.get("type_map"),
        "pair_exclude_types": model.get("pair_exclude_types"),
        "atom_exclude_types": model.get("atom_exclude_types"),
        "descriptor": _descriptor_options(descriptor),
        "fitting_net": options,
    }


def _pair_table(model: Mapping[str, Any], mapper: _Mapper) -> dict[str, Any]:
    """The definition of a node that is a table of pairs."""
    variables = mapper.variables(_node(model, "tab"))
    for key in ("tab_info", "tab_data"):
        if key in variables:
            mapper.put(key, variables[key])
    _output_statistics(mapper, model)
    return {"type": "pairtab", **{key: model.get(key) for key in ("type_map", "rcut", "sel")}}


def _combination(model: Mapping[str, Any], mapper: _Mapper) -> dict[str, Any]:
    """The definition of a node that puts several models together."""
    parts = []
    for k, node in enumerate(_list(model.get("models"), "models")):
        where = f"models[{k}]"
        part = _versioned(node if isinstance(node, dict) else {}, where)
        if part.get("type") not in ("standard", "pairtab"):
            raise UnsupportedModelError(f"{where} is a model of type {shown(part.get('type'))}; {SUPPORTED}")
        check_part(_kind(part), where)
        if part.get("pair_exclude_types") or part.get("atom_exclude_types"):
            raise UnsupportedModelError(
                f"{where} has excluded types of its own, which no builder of deepmd-kit gives it"
            )
        own = mapper.part(f"models.{k}.")
        parts.append(_pair_table(part, own) if part["type"] == "pairtab" else _network(part, own))
    _output_statistics(mapper, model)
    keys = ("type_map", "pair_exclude_types", "atom_exclude_types", "weights", "sw_rmin", "sw_rmax", "smin_alpha")
    options = {key: model[key] for key in keys if key in model}
    return {**options, "type": "linear_ener" if model.get("type") == "linear" else "zbl", "models": parts}


def _spin_model(model: Mapping[str, Any], mapper: _Mapper) -> dict[str, Any]:
    """The definition of a node with spins, whose network says all that they imply."""
    network = _node(model, "backbone_model")
    if network.get("type") != "standard":
        raise UnsupportedModelError(f"this is a spin model on one of type {shown(network.get('type'))}; {SUPPORTED}")
    check_part(_kind(network), "backbone_model")
    section = _node(model, "spin")
    use_spin, scales = (_list(section.get(key), f"spin.{key}") for key in ("use_spin", "virtual_scale"))
    if not all(isinstance(flag, bool) for flag in use_spin):
        raise ModelFileError("corrupt file: spin.use_spin is no list of booleans")
    return spin.from_network(_network(network, mapper.part("models.0.")), use_spin, scales)


def raw_model(root: Mapping[str, Any], resolve: Resolve, nbytes: int) -> RawModel:
    """The model of a serialized tree from a file of ``nbytes``."""
    model = root.get("model")
    if not isinstance(model, dict):
        raise ModelFileError("this file holds no model: it has no entry 'model'")
    definition = root.get("model_def_script")
    modifier = definition.get("modifier") if isinstance(definition, dict) else None
    mapper = _Mapper(resolve)
    if model.get("type") == "spin_ener":
        check_kind({"modifier": modifier or model.get("modifier")} | {"type": "spin", "models": []})
        params = _spin_model(model, mapper)
    elif model.get("type") in ("linear", "zbl"):
        check_kind({"modifier": modifier or model.get("modifier")} | {"type": "zbl", "models": []})
        _versioned(model, "model")
        params = _combination(model, mapper)
    else:
        kind = _kind(model)
        if model.get("spin"):
            raise UnsupportedModelError(f"this is a model of type {shown(kind['type'])} with spins; {SUPPORTED}")
        check_kind({**kind, "modifier": modifier or kind["modifier"]})
        _versioned(model, "model")
        params = _network(model, mapper)
        if isinstance(definition, dict) and "hessian_mode" in definition:
            params["hessian_mode"] = definition["hessian_mode"]
    distance = mapper.variables(root).get("min_nbor_dist", root.get("min_nbor_dist"))
    if distance is not None and not isinstance(distance, (int, float)):
        distance = resolve(distance, "min_nbor_dist")
    return RawModel(params, mapper.tensors, number_of(distance, "min_nbor_dist"), None, nbytes)


def resolve_nested(budget: Budget) -> Resolve:
    """How `.yaml` and `.pt2` write arrays: {"@class": "np.ndarray", "dtype": ..., "value": nested lists}."""

    def resolve(value: Any, name: str) -> NestedTensor:
        if isinstance(value, dict) and value.get("@class") == "np.ndarray":
            return NestedTensor(value.get("value"), value.get("dtype", "float64"), budget, name)
        if isinstance(value, list):
            return NestedTensor(value, "float64", budget, name)
        raise ModelFileError(f"corrupt file: {name!r} is not an array")

    return resolve


def read(path: Path, kind: str, head: str | None) -> ModelData:
    """The model of a `.dp`/`.hlo` (kind 'hdf5'), `.yaml` ('yaml') or `.pt2`/`.pte` ('pt2') file."""
    if kind == "hdf5":
        from dpa2.files import hdf5

        with hdf5.TreeFile(path) as file:
            raw = raw_model(file.tree(), file.resolve, file.size)
            refuse_head(head, None)
            return assemble(raw)
    size = path.stat().st_size
    if size > _TEXT_LIMIT:
        raise ModelFileError(f"the file has {size} bytes; at most {_TEXT_LIMIT} are accepted in this format")
    if kind == "yaml":
        from dpa2.files import yaml_tree

        root = yaml_tree.load(path)
    else:
        root = _read_archive(path)
    raw = raw_model(root, resolve_nested(Budget(size)), size)
    refuse_head(head, None)
    return assemble(raw)


def _read_archive(path: Path) -> dict[str, Any]:
    from dpa2.files.torch_zip import TorchArchive

    with TorchArchive(path) as archive:
        found = [name for name in archive.names() if name.endswith("extra/model.json")]
        root = load_json(archive.read(found[0]), found[0])
        script = found[0][: -len("model.json")] + "model_def_script.json"
        if "model_def_script" not in root and archive.has(script):
            text = archive.read(script)
            root["model_def_script"] = load_json(text, script) if text.strip() else {}
    return root
