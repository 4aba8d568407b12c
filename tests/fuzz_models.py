"""Mutated model files of every format, read and evaluated: see `fuzzing`. By hand, for example,

    python tests/fuzz_models.py 10000 --seed 1 --keep /tmp/wrong

A file is changed at one of several depths: its bytes, a text or pickle inside with sizes and checksums made right
again, its options, its weights, or options together with the weights that they ask for.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import dpa2
import fuzzing
import kind_files
import model_files as mf
import numpy as np
from dpa2 import files
from dpa2.compress import compress
from dpa2.files import ModelData
from dpa2.files.config import normalise
from dpa2.files.schema import base as base_of
from dpa2.files.schema import expected_weights
from random_model import draw_options, random_model
from spin_cases import spin_golden

ALLOWED = ("dpa2.Error", "builtins.FileNotFoundError", "builtins.IsADirectoryError", "builtins.PermissionError")
GOLDEN = Path(__file__).parent / "golden"

_EXTREMES: tuple[Any, ...] = (
    -1, 0, 1, 2, 3, 7, 64, 1000, 10**4, 10**6, 10**9, 2**31, 2**63, 10**30, 0.5, -0.0, 1e-300, 1e308, float("inf"),
    float("nan"), True, False, None, "", "x", "tanh", "silut:1e300", "strip", [], {}, [0], [1, 1], [[0, 0]],
    [[[[[]]]]], [1e6] * 20, ["O", "H"], {"a": {}},
)  # fmt: skip
_ODD_ARRAYS: tuple[Callable[[np.ndarray], Any], ...] = (
    lambda a: a.T,
    lambda a: a[:-1],
    lambda a: a.ravel(),
    lambda a: a[None],
    lambda a: a * np.nan,
    lambda a: a * 1e300,
    lambda a: a * 1e-310,
    lambda a: np.zeros_like(a),
    lambda a: a.astype(np.float32),
    lambda a: a.astype(np.int32),
    lambda a: np.zeros(0),
    lambda a: np.float64(1.0),
)


@cache
def base(number: int) -> ModelData:
    """One of the models that files are made of."""
    if number % 4 == 3:
        return pick(np.random.default_rng(number), list(kind_files.KINDS.values()))()
    rng = np.random.default_rng([91, number])
    model = mf.finished(*random_model(rng, **draw_options(rng)))
    return model if number % 5 else mf.make(repinit={"tebd_input_mode": "strip"})


@cache
def compressed() -> ModelData:
    return compress(mf.make(repinit={"tebd_input_mode": "strip"}), 1e-3)[0]


@cache
def compressed_parts() -> ModelData:
    return compress(kind_files.make_zbl(), 1e-3)[0]


@cache
def with_spins() -> ModelData:
    data = spin_golden("spin")
    return ModelData(data.config, data.weights)


@cache
def golden() -> tuple[Path, ...]:
    found = [path for below in ("", "kinds/", "spin/") for path in GOLDEN.glob(f"{below}files/*/*.*")]
    found += GOLDEN.glob("compressed/*.pth")
    return tuple(sorted([*found, *GOLDEN.glob("release/*/*.*")]))


# ------------------------------------------------------------------------------------------------------- structure


def pick(rng: np.random.Generator, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def _places(node: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree whose value is no array."""
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(value, np.ndarray):
            continue
        found.append((node, key))
        if isinstance(value, (dict, list)):
            _places(value, found)
    return found


def change_tree(rng: np.random.Generator, tree: Any) -> None:
    """Other values, keys that are missing, of another name or new."""
    for _ in range(int(rng.integers(1, 4))):
        node, key = pick(rng, _places(tree, []))
        what = rng.integers(6)
        if what == 0 and isinstance(node, dict):
            del node[key]
        elif what == 1 and isinstance(node, dict):
            node[pick(rng, ("x", "", "repinit", "@version", "type", key + "_"))] = node.pop(key)
        elif what == 2:
            node[key] = [copy.deepcopy(node[key])] * int(rng.integers(1, 30))
        else:
            node[key] = copy.deepcopy(pick(rng, _EXTREMES))


def copied(model: ModelData) -> ModelData:
    return ModelData(json.loads(json.dumps(model.config)), dict(model.weights))


def change_weights(rng: np.random.Generator, model: ModelData) -> None:
    for _ in range(int(rng.integers(1, 3))):
        name = pick(rng, sorted(model.weights))
        if rng.random() < 0.2:
            del model.weights[name]
        else:
            model.weights[name] = np.asarray(pick(rng, _ODD_ARRAYS)(model.weights[name]))


def refitted(rng: np.random.Generator, model: ModelData) -> ModelData:
    """The model with other options and weights to match, as zero-stride views of one number."""
    config = json.loads(json.dumps(model.config))
    if "models" in config:
        return model
    for _ in range(int(rng.integers(1, 4))):
        section = pick(rng, (config["descriptor"]["repinit"], config["descriptor"]["repformer"], config["fitting_net"]))
        key = pick(rng, [k for k, v in section.items() if isinstance(v, (int, list)) and not isinstance(v, bool)])
        number = int(2 ** rng.uniform(0, 14))
        section[key] = [number, 2 * number] if isinstance(section[key], list) else number
    if rng.random() < 0.1:
        config["type_map"] = [f"T{k}" for k in range(int(2 ** rng.uniform(0, 12)))]
    try:
        full = normalise(config, None, None)
        expected = expected_weights(full)
    except (dpa2.Error, MemoryError):
        return model
    weights = {name: np.broadcast_to(np.float64(rng.normal()), weight.shape) for name, weight in expected.items()}
    return ModelData(full, weights)


def size(model: ModelData) -> int:
    return sum(array.size for array in model.weights.values())


# --------------------------------------------------------------------------------------------------------- writers


def write_views(path: Path, model: ModelData) -> Path:
    """A checkpoint whose tensors are zero-stride views, as they are in memory."""
    maker = mf.Pickle()
    state: dict[str, Any] = {"_extra_state": {"model_params": mf.definition(model)}}
    for name, array in model.weights.items():
        args = maker.storage("DoubleStorage", "0", 1) + maker.save(0) + maker.save(array.shape)
        args += maker.save((0,) * array.ndim) + b"\x89}t"
        rebuilt = mf.name_of("torch._utils", "_rebuild_tensor_v2") + b"(" + args + b"R"
        state[f"model.Default.atomic_model.{name}"] = mf.Raw(rebuilt)
    return mf.write_stream(path, maker.dump({"model": state}), [struct.pack("<d", 0.5)])


def write_native(path: Path, model: ModelData) -> Path:
    """A native file of whatever the model holds."""
    entries: dict[str, Any] = {
        "__metadata__": {"format": "dpa2", "format_version": "1", "config": json.dumps(model.config)}
    }
    blobs: list[bytes] = []
    for name, array in model.weights.items():
        kind = {"float32": "F32", "float64": "F64"}.get(array.dtype.name, "I32")
        begin = sum(map(len, blobs))
        blobs.append(np.ascontiguousarray(array).tobytes())
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [begin, begin + len(blobs[-1])]}
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    return path


def write_aliases(path: Path, model: ModelData) -> Path:
    """A YAML tree whose rows are aliases of each other."""
    import yaml

    def nested(array: np.ndarray) -> dict[str, Any]:
        value: Any = 0.5
        for n in reversed(array.shape):
            value = [value] * n
        return {"@class": "np.ndarray", "dtype": "float64", "value": value}

    path.write_text(yaml.safe_dump(mf.map_arrays(mf.tree(model), nested)))
    return path


def write_tree(path: Path, tree: dict[str, Any], kind: str) -> Path:
    if kind in ("dp", "hlo"):
        return mf.write_dp(path, tree)
    if kind == "yaml":
        return mf.write_yaml(path, tree)
    return mf.write_pt2(path, tree, root="model/" if kind == "pt2" else "base/")


# -------------------------------------------------------------------------------------------------------- mutations


def inner(rng: np.random.Generator, path: Path, other: bytes) -> None:
    """Mutate a text or pickle inside a file and pack it again as it should be."""
    data = path.read_bytes()
    if data[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {info.filename: archive.read(info) for info in archive.infolist()}
        name = pick(rng, [n for n in entries if n.endswith((".pkl", ".json"))] if rng.random() < 0.9 else list(entries))
        entries[name] = fuzzing.mutate(rng, entries[name], other)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
    elif data[:4] == b"\x89HDF":
        import h5py

        with h5py.File(path, "r+") as file:
            text = file.attrs["json"]
            del file.attrs["json"]
            file.attrs["json"] = fuzzing.mutate(rng, text.encode(), other).replace(b"\0", b"") or b" "
    elif data[8:9] == b"{":
        (length,) = struct.unpack("<Q", data[:8])
        text = data[8 : 8 + length]
        changed = fuzzing.mutate(rng, text, other)
        path.write_bytes(struct.pack("<Q", len(changed)) + changed + data[8 + length :])
    else:
        path.write_bytes(fuzzing.mutate(rng, data, other))


KINDS = ("pt", "multi.pt", "pth", "compressed.pth", "dp", "hlo", "yaml", "pt2", "pte", "safetensors")
DEPTHS = ("bytes", "inner", "options", "weights", "refitted")


def write(rng: np.random.Generator, path: Path, kind: str, depth: str) -> Path:
    """A file of this kind, changed at this depth unless the depth is one of its bytes."""
    model = base(int(rng.integers(40)))
    if kind == "safetensors" and rng.random() < 0.3:
        model = pick(rng, (compressed, compressed_parts, with_spins))()
    model = copied(model)
    if depth == "weights":
        change_weights(rng, model)
    if depth == "refitted":
        model = refitted(rng, model)
        if kind == "yaml" and sum(map(sum, (a.shape for a in model.weights.values()))) < 20_000:
            return write_aliases(path, model)
        if size(model) > 200_000:
            return write_views(path, model)
    params = mf.definition(model)
    if kind in ("pt", "multi.pt"):
        if depth == "options":
            change_tree(rng, params)
        if kind == "pt":
            return mf.write_pt(path, model, params=params)
        return mf.write_pt(path, {"a": model, "b": model}, params={"model_dict": {"a": params, "b": params}})
    if kind == "pth" and params.get("type") == "linear_ener":  # whose file has no definition
        if depth == "options":
            change_tree(rng, model.config)
        return kind_files.write_frozen(path, model)
    if kind == "pth":
        if depth == "options":
            change_tree(rng, params)
        return mf.write_pth(path, model, params=params)
    if kind == "safetensors":
        if depth == "options":
            change_tree(rng, model.config)
        return write_native(path, model)
    tree = mf.tree(model)
    if depth == "options":
        change_tree(rng, tree)
    return write_tree(path, tree, kind)


def make(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
    """A mutated model file; its kind is format and depth."""
    kind, depth = pick(rng, KINDS), pick(rng, DEPTHS)
    native = kind == "safetensors" and rng.random() < 0.6
    path = folder / f"{'native' if native else 'm'}.{kind}"
    flat = depth in ("bytes", "inner")
    originals = [p for p in golden() if p.name.endswith(kind.removeprefix("multi").removeprefix("."))]
    if kind == "multi.pt":
        originals = [p for p in golden() if p.parent.name == "multitask" and p.suffix == ".pt"]
    if kind == "compressed.pth":
        originals, flat = [p for p in golden() if "compressed" in str(p)], True
        depth = depth if depth in ("bytes", "inner") else "inner"
    if flat and originals and (kind == "compressed.pth" or rng.random() < 0.5):
        path.write_bytes(pick(rng, originals).read_bytes())
    else:
        while True:
            try:
                write(rng, path, kind, depth)
                break
            except (LookupError, TypeError, ValueError, OverflowError):
                pass  # what the format or its writer cannot hold
    other = pick(rng, golden()).read_bytes()
    if depth == "bytes":
        path.write_bytes(fuzzing.mutate(rng, path.read_bytes(), other))
    elif depth == "inner":
        inner(rng, path, other)
    return f"{'C++ ' if native else ''}{kind}, {depth}", str(path)


# ---------------------------------------------------------------------------------------------------------- reader


def read(name: str) -> None:
    """Load a file, and evaluate six atoms with what it holds."""
    rng = np.random.default_rng(0)
    coords, box = rng.uniform(0.0, 8.0, (6, 3)), 8.0 * np.eye(3)
    path = Path(name)
    if path.name.startswith("native"):
        from dpa2._native import NativeModel

        core = NativeModel.from_file(name)
        config = json.loads(core.config_json)
    else:
        heads = files.heads(path)
        model = dpa2.load(path, heads[0] if heads else None, threads=1)
        config = model.config
    fitting, types = base_of(config)["fitting_net"], np.arange(6) % len(config["type_map"])
    fparam, aparam = np.zeros(int(fitting["numb_fparam"])), np.zeros((6, int(fitting["numb_aparam"])))
    f, a = (x if x.size else None for x in (fparam, aparam))
    spins = 0.5 * coords if config.get("type") == "spin" else None
    if path.name.startswith("native"):
        core.evaluate(coords, types.astype(np.int32), box, (True, True, True), f, a, 1, 1, spins=spins)
    else:
        model.evaluate(coords, types, box, fparam=f, aparam=a, spin=spins)


if __name__ == "__main__":
    raise SystemExit(fuzzing.main("fuzz_models:read", make, __doc__ or ""))
