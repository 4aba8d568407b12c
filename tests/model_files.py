"""Writers of deepmd-kit's file formats for tests: small and independent of the readers and of PyTorch.

``Pickle`` emits pickle opcodes one by one, so that hostile streams can be written as easily as sound ones.
"""

from __future__ import annotations

import json
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpa2 import files
from dpa2.errors import ModelFileError
from dpa2.files import ModelData, econf
from random_model import random_model

STORAGES = {"f8": "DoubleStorage", "f4": "FloatStorage", "f2": "HalfStorage", "i4": "IntStorage", "i8": "LongStorage"}
SHARED_FILE = "archive"


class Raw(bytes):
    """Opcodes to be inserted as they are."""


class Module:
    """An object of a TorchScript archive: its attributes."""

    def __init__(self, attributes: dict[str, Any], name: str = "__torch__.Module") -> None:
        self.attributes, self.name = attributes, name


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name_of(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


class Pickle:
    """A protocol-2 stream and the storages that it refers to."""

    def __init__(self, byteorder: str = "<", bfloat16: bool = False, parameters: bool = False) -> None:
        self.storages: list[bytes] = []
        self.keys: dict[int, tuple[int, np.ndarray]] = {}
        self.byteorder, self.bfloat16, self.parameters = byteorder, bfloat16, parameters

    def dump(self, value: Any) -> bytes:
        return b"\x80\x02" + self.save(value) + b"."

    def save(self, value: Any) -> bytes:
        if isinstance(value, Raw):
            return bytes(value)
        if value is None or isinstance(value, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        if isinstance(value, int):
            size = max(8, value.bit_length() // 8 + 1)
            return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        if isinstance(value, str):
            return text(value)
        if isinstance(value, tuple):
            return b"(" + b"".join(map(self.save, value)) + b"t"
        if isinstance(value, list):
            return b"](" + b"".join(map(self.save, value)) + b"e"
        if isinstance(value, dict):
            return b"}(" + b"".join(self.save(k) + self.save(v) for k, v in value.items()) + b"u"
        if isinstance(value, Module):
            module, _, cls = value.name.rpartition(".")
            return name_of(module, cls) + b")\x81" + self.save(value.attributes) + b"b"
        return self.tensor(np.asarray(value))

    def storage(self, kind: str, key: str, numel: int) -> bytes:
        return b"(" + text("storage") + name_of("torch", kind) + text(key) + text("cpu") + self.save(numel) + b"tQ"

    def tensor(self, array: np.ndarray) -> bytes:
        array = np.asarray(array, order="C")
        if id(array) not in self.keys:
            data = array.astype(array.dtype.newbyteorder(self.byteorder)).tobytes()
            if self.bfloat16 and array.dtype.kind == "f":
                bits = array.astype("<f4").view("<u4") >> 16
                data = bits.astype(self.byteorder + "u2").tobytes()
            self.keys[id(array)] = (len(self.storages), array)
            self.storages.append(data)
        key = str(self.keys[id(array)][0])
        kind = STORAGES[array.dtype.str[1:]]
        if self.bfloat16 and array.dtype.kind == "f":
            kind = "BFloat16Storage"
        stride = tuple(s // array.itemsize for s in array.strides)
        args = self.storage(kind, key, array.size) + self.save(0) + self.save(array.shape) + self.save(stride)
        empty = name_of("collections", "OrderedDict") + b")R"
        out = name_of("torch._utils", "_rebuild_tensor_v2") + b"(" + args + b"\x89" + empty + b"tR"
        if self.parameters:
            out = name_of("torch._utils", "_rebuild_parameter") + b"(" + out + b"\x88" + empty + b"tR"
        return out


def write_zip(path: Path, value: Any, extra: dict[str, bytes] | None = None, **options: Any) -> Path:
    """An archive as ``torch.save`` makes it; ``extra`` are further entries."""
    pickle = Pickle(**options)
    stream = pickle.dump(value) if not isinstance(value, bytes) or isinstance(value, Raw) else value
    return write_stream(path, stream, pickle.storages, extra, pickle.byteorder)


def write_stream(
    path: Path,
    stream: bytes,
    storages: list[bytes] | None = None,
    extra: dict[str, bytes] | None = None,
    byteorder: str = "<",
) -> Path:
    """An archive around a ready pickle stream."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{SHARED_FILE}/data.pkl", stream)
        archive.writestr(f"{SHARED_FILE}/byteorder", "big" if byteorder == ">" else "little")
        for key, data in enumerate(storages or []):
            archive.writestr(f"{SHARED_FILE}/data/{key}", data)
        for name, data in (extra or {}).items():
            archive.writestr(f"{SHARED_FILE}/{name}", data)
    return path


def definition(model: ModelData) -> dict[str, Any]:
    """The model definition that deepmd-kit keeps: the options without what only dpa2 has."""
    config = json.loads(json.dumps(model.config))
    keys = ("type_map", "descriptor", "fitting_net", "pair_exclude_types", "atom_exclude_types")
    out = {key: config[key] for key in keys if key in config}
    if config.get("type") == "zbl":
        network = config["models"][0]
        more = {"sw_rmin": config["sw_rmin"], "sw_rmax": config["sw_rmax"], "smin_alpha": 0.2}
        return {**out, **network, **more, "use_srtab": "table.txt"}
    if config.get("type") == "linear_ener":
        children = [
            child if "descriptor" in child else {key: child[key] for key in ("type", "type_map", "rcut", "sel")}
            for child in config["models"]
        ]
        return {**out, "type": "linear_ener", "weights": config["weights"], "models": children}
    return out


def table_info(child: dict[str, Any]) -> np.ndarray:
    """What deepmd-kit keeps beside a table of pairs: begin, step, pieces, types."""
    return np.array([child["rmin"], child["step"], child["nspline"], len(child["type_map"])])


def state(model: ModelData, prefix: str = "atomic_model.", slots: int = 3) -> dict[str, Any]:
    """The tensors of a model under the names of a state dict, with the repetitions and extras of the real ones."""
    out: dict[str, Any] = {}
    for name, array in model.weights.items():
        if name.endswith("descriptor.econf_tebd"):
            continue
        if name.endswith((".mean", ".stddev")):
            array = np.repeat(array[:, None], slots, axis=1)
        out[prefix + name] = array
        if ".networks." in name:
            out[prefix + name.replace(".networks.", "._networks.")] = array
    for k, child in enumerate(model.config.get("models", [model.config])):
        part = prefix + (f"models.{k}." if "models" in model.config else "")
        if "descriptor" in child:
            out[part + "descriptor.repinit.compress_info.0"] = np.zeros(0)
            out[part + "descriptor.repinit.compress_data.0"] = np.zeros(0)
        else:
            out[part + "tab_info"] = table_info(child)
    distance = model.config["min_nbor_dist"]
    out[prefix.removesuffix("atomic_model.") + "min_nbor_dist"] = np.array(-1.0 if distance is None else distance)
    return out


def write_pt(path: Path, model: ModelData | dict[str, ModelData], **options: Any) -> Path:
    """A training checkpoint of one model, or of several by name."""
    branches = {"Default": model} if isinstance(model, ModelData) else model
    tensors = {k: v for name, m in branches.items() for k, v in state(m, f"model.{name}.atomic_model.").items()}
    params: dict[str, Any]
    if isinstance(model, ModelData):
        params = definition(model)
    else:
        params = {"model_dict": {name: definition(m) for name, m in branches.items()}}
    aliases = options.pop("aliases", {})
    for name, alias in aliases.items():
        params["model_dict"][name]["model_branch_alias"] = alias
    params.update(options.pop("params", {}))
    content = {"_extra_state": {"model_params": params, "train_infos": {"lr": 0.1, "step": 7}}, **tensors}
    return write_zip(path, {"model": content, "optimizer": {"state": {0: {"step": 1.5}}}}, **options)


def module_tree(tensors: dict[str, Any]) -> Module:
    """The object graph of a frozen model."""
    root: dict[str, Any] = {}
    for name, array in tensors.items():
        *path, last = name.split(".")
        node = root
        for part in path:
            node = node.setdefault(part, {})
        node[last] = array

    def module(node: dict[str, Any]) -> Module:
        return Module({k: module(v) if isinstance(v, dict) else v for k, v in node.items()})

    return module(root)


def write_pth(path: Path, model: ModelData, modifier: bytes = b"", params: dict[str, Any] | None = None) -> Path:
    """A frozen TorchScript file (without its code)."""
    root = module_tree(state(model))
    root.attributes["model_def_script"] = json.dumps({**definition(model), **(params or {})})
    return write_zip(path, root, {"constants.pkl": b"\x80\x02).", "extra/data_modifier.pth": modifier})


def _layer(weights: dict[str, Any], name: str) -> dict[str, Any]:
    keys = {"w": "matrix", "b": "bias", "idt": "idt"}
    variables = {short: weights.get(f"{name}.{long}") for short, long in keys.items()}
    return {"@class": "Layer", "@version": 2, "@variables": variables}


def _net(weights: dict[str, Any], name: str) -> dict[str, Any]:
    count = len({n.split(".layers.")[1].split(".")[0] for n in weights if n.startswith(f"{name}.layers.")})
    return {
        "@class": "EmbeddingNetwork",
        "@version": 2,
        "layers": [_layer(weights, f"{name}.layers.{k}") for k in range(count)],
    }


def _collection(weights: dict[str, Any], name: str) -> dict[str, Any]:
    nets = [_net(weights, f"{name}.networks.0")]
    return {"@class": "NetworkCollection", "@version": 1, "ndim": 0, "networks": nets}


def _statistics(weights: dict[str, Any], block: str) -> dict[str, Any]:
    return {
        k: np.repeat(weights[f"{block}.{n}"][:, None], 2, axis=1) for k, n in (("davg", "mean"), ("dstd", "stddev"))
    }


def _repformer_layer(weights: dict[str, Any], name: str) -> dict[str, Any]:
    node: dict[str, Any] = {"@class": "RepformerLayer", "@version": 2}
    for key in ("linear1", "linear2", "g1_self_mlp", "proj_g1g2", "proj_g1g1g2"):
        if f"{name}.{key}.matrix" in weights:
            node[key] = _layer(weights, f"{name}.{key}")
    if f"{name}.attn2_lm.matrix" in weights:
        node["attn2_lm"] = {**_layer(weights, f"{name}.attn2_lm"), "@class": "LayerNorm", "@version": 1}
    parts = {
        "attn2g_map": ("Atten2Map", ["mapqk"]),
        "attn2_mh_apply": ("Atten2MultiHeadApply", ["mapv", "head_map"]),
        "attn2_ev_apply": ("Atten2EquiVarApply", ["head_map"]),
        "loc_attn": ("LocalAtten", ["mapq", "mapkv", "head_map"]),
    }
    for part, (kind, layers) in parts.items():
        if f"{name}.{part}.{layers[0]}.matrix" in weights:
            node[part] = {"@class": kind, "@version": 1}
            node[part].update({layer: _layer(weights, f"{name}.{part}.{layer}") for layer in layers})
    node["@variables"] = {
        which: [weights[n] for n in sorted(weights) if n.startswith(f"{name}.{which}.")]
        for which in ("g1_residual", "g2_residual", "h2_residual")
    }
    return node


def _network(config: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
    """The node of a model with descriptor and fitting net."""
    d, block = config["descriptor"], "descriptor.repformers"
    node: dict[str, Any] = {k: v for k, v in d.items() if k not in ("repinit", "repformer")}
    node.update({"@class": "Descriptor", "@version": 3, "ntypes": len(config["type_map"])})
    node["repinit_args"] = {**d["repinit"], "set_davg_zero": True}
    node["repformer_args"] = {**d["repformer"], "update_residual": 0.01, "trainable_ln": True}
    embedding = _net(weights, "descriptor.type_embedding.embedding.embedding_net")
    node["type_embedding"] = {"@class": "TypeEmbedNet", "@version": 2, "embedding": embedding}
    for key in ("g1_shape_tranform", "tebd_transform"):
        present = f"descriptor.{key}.matrix" in weights
        node[key] = _layer(weights, f"descriptor.{key}") if present else {"@class": "Identity", "@version": 1}
    for part in ("repinit", "repinit_three_body"):
        if f"descriptor.{part}.mean" in weights:
            nets = f"descriptor.{part}.filter_layers"
            sub: dict[str, Any] = {"@variables": _statistics(weights, f"descriptor.{part}")}
            sub["embeddings"] = _collection(weights, nets)
            if f"{nets}_strip.networks.0.layers.0.matrix" in weights:
                sub["embeddings_strip"] = _collection(weights, f"{nets}_strip")
            node[f"{part}_variable"] = sub
    node["repformers_variable"] = {
        "@variables": _statistics(weights, block),
        "g2_embd": _layer(weights, f"{block}.g2_embd"),
        "repformer_layers": [
            _repformer_layer(weights, f"{block}.layers.{k}") for k in range(d["repformer"]["nlayers"])
        ],
    }
    fitting = _fitting(config["fitting_net"])
    names = ("bias_atom_e", "case_embd", "fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std")
    fitting["@variables"] = {name: weights.get(f"fitting_net.{name}") for name in names}
    if (scale := fitting.pop("scale", None)) is not None:
        fitting["@variables"]["scale"] = np.array(scale)[:, None]
    fitting["nets"] = _collection(weights, "fitting_net.filter_layers")
    node = {"@class": "Model", "@version": 2, "type": "standard", "descriptor": node, "fitting": fitting}
    return {**node, **_top(config, weights)}


def _fitting(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a fitting net under the names of its node."""
    kind = options["type"]
    out = {**options, "@class": "Fitting", "@version": {"polar": 5, "property": 6}.get(kind, 4), "mixed_types": True}
    names = {"dos": ("numb_dos", "dim_out"), "property": ("property_name", "var_name")}
    if kind in names:
        theirs, ours = names[kind]
        out[ours] = out.pop(theirs)
    return out


def _top(config: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
    return {
        "type_map": config["type_map"],
        "pair_exclude_types": config.get("pair_exclude_types", []),
        "atom_exclude_types": config.get("atom_exclude_types", []),
        "@variables": {"out_bias": weights["out_bias"], "out_std": weights["out_std"]},
    }


def _pair_table(config: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
    """The node of a table of pairs, whose numbers are flat there."""
    variables = {"tab_info": table_info(config), "tab_data": weights["tab_data"].ravel(), "vdata": np.zeros((2, 4))}
    tab = {"@class": "PairTab", "@version": 1, "nspline": config["nspline"], "@variables": variables}
    node = {"@class": "Model", "@version": 2, "type": "pairtab", "tab": tab, "rcut": config["rcut"]}
    return {**node, "sel": config["sel"], **_top(config, weights)}


def tree(model: ModelData) -> dict[str, Any]:
    """The serialized tree of a model, arrays as arrays."""
    weights, config = model.weights, json.loads(json.dumps(model.config))
    if "models" in config:
        parts = []
        for k, child in enumerate(config["models"]):
            prefix = f"models.{k}."
            own = {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}
            parts.append((_network if "descriptor" in child else _pair_table)(child, own))
        linear = config["type"] == "linear_ener"
        keys = ("weights",) if linear else ("sw_rmin", "sw_rmax", "smin_alpha")
        node = {"@class": "Model", "@version": 3 if linear else 2, "type": "linear" if linear else "zbl"}
        top = {**node, "models": parts, **{key: config[key] for key in keys}, **_top(config, weights)}
    else:
        top = _network(config, weights)
    distance = config["min_nbor_dist"]
    return {
        "software": "deepmd-kit",
        "backend": "PyTorch",
        "model": top,
        "@variables": {} if distance is None else {"min_nbor_dist": np.array(distance)},
    }


def map_arrays(value: Any, change: Any) -> Any:
    """A tree with every array replaced."""
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, dict):
        return {k: map_arrays(v, change) for k, v in value.items()}
    if isinstance(value, list):
        return [map_arrays(v, change) for v in value]
    return value


def _written_out(array: np.ndarray) -> dict[str, Any]:
    return {"@class": "np.ndarray", "@is_variable": True, "dtype": array.dtype.name, "value": array.tolist()}


def write_yaml(path: Path, content: dict[str, Any]) -> Path:
    import yaml

    path.write_text(yaml.safe_dump(map_arrays(content, _written_out)))
    return path


def write_pt2(path: Path, content: dict[str, Any], root: str = "model/") -> Path:
    content = dict(content)
    script = content.pop("model_def_script", {})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}extra/model.json", json.dumps(map_arrays(content, _written_out)))
        archive.writestr(f"{root}extra/model_def_script.json", json.dumps(script))
        archive.writestr("data/weights/weight_0", b"compiled code that no reader needs")
    return path


def write_dp(path: Path, content: dict[str, Any], bfloat16: bool = False) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        count = 0

        def store(array: np.ndarray) -> str:
            nonlocal count
            name = f"/variable_{count:04d}"
            if bfloat16 and array.dtype == np.float32:
                array = (array.view("<u4") >> 16).astype("<u2").view("V2")
            file.create_dataset(name, data=array)
            count += 1
            return name

        file.attrs["json"] = json.dumps(map_arrays(content, store))
    return path


PLAIN: dict[str, Any] = {
    "repinit": {"neuron": [2, 4], "axis_neuron": 2, "tebd_dim": 3, "three_body_neuron": [2]},
    "repformer": {"nlayers": 2, "g1_dim": 4, "g2_dim": 3, "axis_neuron": 2},
    "fitting": {"neuron": [4, 4]},
}


def make(seed: int = 0, distance: float | None = 0.75, **options: Any) -> ModelData:
    """A small model with the default options, or the given ones."""
    merged = {k: {**PLAIN.get(k, {}), **options.get(k, {})} for k in ("repinit", "repformer", "fitting")}
    rest = {k: v for k, v in options.items() if k not in merged}
    config, weights = random_model(np.random.default_rng(seed), **merged, **rest)
    return finished(config, weights, distance)


def finished(config: dict[str, Any], weights: dict[str, Any], distance: float | None = 0.75) -> ModelData:
    if "descriptor.econf_tebd" in weights:
        weights["descriptor.econf_tebd"] = econf.table(config["type_map"])
    return ModelData({**config, "min_nbor_dist": distance}, weights)


def assert_same(found: ModelData, expected: ModelData, head: str | None = None) -> None:
    assert found.config == {**expected.config, "head": head}
    assert set(found.weights) == set(expected.weights)
    for name, array in expected.weights.items():
        assert found.weights[name].dtype == array.dtype, name
        assert found.weights[name].flags.c_contiguous, name
        np.testing.assert_array_equal(found.weights[name], array, err_msg=name)


def write_native(path: Path, model: ModelData) -> Path:
    files.write_safetensors(path, model)
    return path


WRITERS: dict[str, Callable[[Path, ModelData], Path]] = {
    "pt": write_pt,
    "pth": write_pth,
    "dp": lambda path, model: write_dp(path, tree(model)),
    "hlo": lambda path, model: write_dp(path, {**tree(model), "constants": {"stablehlo": 1}}),
    "yaml": lambda path, model: write_yaml(path, tree(model)),
    "pt2": lambda path, model: write_pt2(path, tree(model)),
    "pte": lambda path, model: write_pt2(path, tree(model), root="base/"),
    "old.pt2": lambda path, model: write_pt2(path, tree(model), root=""),
    "safetensors": write_native,
}


def peak_growth(action: Callable[[], None]) -> float:
    """Growth of the peak memory of this process, in MiB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    action()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def assert_refused(path: Path, message: str = ".") -> None:
    with pytest.raises(ModelFileError, match=message):
        files.read(path)
