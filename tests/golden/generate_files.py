"""Make the golden model files: tiny DPA-2 models in every format that deepmd-kit 3.2.0 writes.

Run by hand in an environment that has deepmd-kit, and JAX for `.hlo`:

    python tests/golden/generate_files.py

`files/trained` comes from a real training run of one step, with a moving average of the weights; `files/multitask` from
one with two heads; the others are built like the cases of generate.py and saved. The `code/` entries of TorchScript
files are taken out: they hold another project's code, and no reader needs them. In `.pt2` and `.pte` files only the
entries with the model stay, for the same reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import generate
import h5py
import numpy as np
import torch
from cases import FILE_MODELS, GOLDEN, ModelCase
from deepmd.dpmodel.utils.serialization import load_dp_model, save_dp_model
from deepmd.pt.model.model import get_model
from deepmd.pt.model.model.model import BaseModel
from deepmd.pt.train.wrapper import ModelWrapper

FILES = GOLDEN / "files"
DP = [sys.executable, "-m", "deepmd"]


def dp(*arguments: Any, cwd: Path | None = None) -> bool:
    """Run a deepmd-kit command; False if it failed, with its last words printed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DP_COMPILE_INFER": "0"}
    done = subprocess.run([*DP, *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        print("failed: dp", *arguments, "\n   ", *done.stderr.strip().splitlines()[-3:])
    return done.returncode == 0


def strip_zip(path: Path, keep: Any) -> None:
    """Rewrite a zip file with the entries for which `keep(name)` holds, stored, aligned as PyTorch aligns them."""
    with zipfile.ZipFile(path) as source:
        entries = [(name, source.read(name)) for name in source.namelist() if keep(name)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            start = target.fp.tell() + 30 + len(name.encode())  # type: ignore[union-attr]
            pad = -(start + 4) % 64
            info.extra = b"FB" + pad.to_bytes(2, "little") + b"Z" * pad
            target.writestr(info, content)


def without_code(path: Path) -> None:
    strip_zip(path, lambda name: "/code/" not in name and not name.endswith(".debug_pkl"))


def canonical(model: torch.nn.Module, case: ModelCase) -> dict[str, Any]:
    """The content of a golden file for a model that deepmd-kit has in memory."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    systems = {"open": small_system(case, rng)}
    answers = {name: generate.evaluate(model, system) for name, system in systems.items()}
    config = case.config
    distance = model.get_min_nbor_dist()
    config["min_nbor_dist"] = None if distance is None else float(distance)
    return generate.content(config, generate.canonical_weights(model), systems, answers, {})


def small_system(case: ModelCase, rng: np.random.Generator) -> dict[str, np.ndarray]:
    fitting = case.config["fitting_net"]
    system = {"atype": np.array([0, 1, 1, 0, 1]), "coord": generate.packed(rng, np.eye(3) * 2.6, 5, False, 1.1)[None]}
    if fitting["numb_aparam"]:
        system["aparam"] = rng.normal(size=(1, 5, fitting["numb_aparam"]))
    return system


def convert(folder: Path, exported: bool) -> None:
    """The frozen file in every other format; the exported ones take minutes, and one model of them is enough."""
    dp("convert-backend", folder / "model.pth", folder / "model.dp")
    dp("convert-backend", folder / "model.pth", folder / "model.yaml")
    if not exported:
        return
    dp("convert-backend", folder / "model.dp", folder / "model.hlo")
    without_graphs(folder / "model.hlo")
    dp("convert-backend", folder / "model.dp", folder / "model.pte")
    strip_zip(folder / "model.pte", lambda name: "extra/" in name or name.endswith("version"))
    # the export to .pt2 needs deepmd-kit's compiled operators; it writes the same entries, in old versions at the root
    with zipfile.ZipFile(folder / "model.pte") as source, zipfile.ZipFile(folder / "model.pt2", "w") as target:
        for name in source.namelist():
            if "extra/" in name:
                target.writestr(name.replace("model/extra/", "extra/"), source.read(name))
            else:
                target.writestr(name, source.read(name))


def without_graphs(path: Path) -> None:
    """Cut the compiled graphs out of an `.hlo` file: the only data sets of raw bytes, most of its size."""
    with h5py.File(path) as source:
        attribute = source.attrs["json"]
        arrays = {name: data[()] for name, data in source.items()}
    with h5py.File(path, "w") as target:
        target.attrs["json"] = attribute
        for name, value in arrays.items():
            target[name] = value[:0] if value.dtype.kind == "V" and value.dtype.itemsize == 1 else value


def save_checkpoint(model: torch.nn.Module, case: ModelCase, path: Path) -> None:
    wrapper = ModelWrapper(model, model_params=generate.deepmd_input(case.config))
    torch.save({"model": wrapper.state_dict()}, path)


def load_checkpoint(path: Path, head: str = "Default") -> torch.nn.Module:
    state = torch.load(path, map_location="cpu", weights_only=True)["model"]
    params = state["_extra_state"]["model_params"]
    model = get_model(params if head == "Default" else params["model_dict"][head]).eval()
    prefix = f"model.{head}."
    model.load_state_dict({key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)})
    return model


def build_case(case: ModelCase) -> None:
    """A model with random weights: checkpoint, frozen, converted."""
    folder = FILES / case.name
    folder.mkdir(parents=True)
    model = generate.build(case, np.random.default_rng(zlib.crc32(case.name.encode())))
    model.min_nbor_dist = torch.tensor(0.75, dtype=torch.float64)
    if case.name == "version1":  # as files without these two are read
        model.atomic_model.out_bias.zero_()
        model.atomic_model.out_std.fill_(1.0)
    save_checkpoint(model, case, folder / "model.pt")
    dp("--pt", "freeze", "-c", folder / "model.pt", "-o", folder / "model.pth")
    convert(folder, exported=case.name == "strip")
    np.savez_compressed(folder.with_suffix(".npz"), **canonical(model, case))
    if case.name == "strip":
        # few intervals, to keep the file small: the reader takes the networks, which stay complete
        model.enable_compression(5, 0.5, 2.0, -1)
        model.model_def_script = json.dumps(generate.deepmd_input(case.config))
        torch.jit.save(torch.jit.script(model), str(folder / "compressed.pth"))
    for path in folder.glob("*.pth"):
        without_code(path)
    if case.name == "version1":
        make_older(folder / "model.dp", folder / "older.dp", model, case)


def make_older(source: Path, target: Path, model: torch.nn.Module, case: ModelCase) -> None:
    """Write a file as the first versions of the serialized classes had it, and let deepmd-kit confirm it."""
    data = load_dp_model(str(source))
    top, descriptor = data["model"], data["model"]["descriptor"]
    top["@version"], descriptor["@version"] = 1, 1
    del top["@variables"]
    descriptor["type_embedding"]["@version"] = 1
    del descriptor["use_tebd_bias"], descriptor["type_embedding"]["use_tebd_bias"]
    for key in ("use_sqrt_nnei", "g1_out_conv", "g1_out_mlp", "trainable_ln", "ln_eps"):
        del descriptor["repformer_args"][key]
    for key in [key for key in descriptor["repinit_args"] if "three_body" in key]:
        del descriptor["repinit_args"][key]
    for layer in descriptor["repformers_variable"]["repformer_layers"]:
        layer["@version"] = 1
    fitting = top["fitting"]
    fitting["@version"] = 1
    for key in ("type_map", "dim_case_embd", "default_fparam"):
        del fitting[key]
    fitting["@variables"].pop("case_embd", None)
    save_dp_model(str(target), data)
    system = small_system(case, np.random.default_rng(0))
    read = BaseModel.deserialize(load_dp_model(str(target))["model"]).eval()
    energies = [generate.evaluate(each, system)["energy"] for each in (model, read)]
    assert np.array_equal(*energies)


# ------------------------------------------------------------------------------------------------- training


def write_data(folder: Path, rng: np.random.Generator) -> None:
    """A data set of two frames with random labels."""
    (folder / "set.000").mkdir(parents=True)
    np.savetxt(folder / "type.raw", [0, 1, 1, 0, 1], fmt="%d")
    (folder / "type_map.raw").write_text("O\nH\n")
    coord = np.array([generate.packed(rng, np.eye(3) * 3.4, 5, True, 1.1) for _ in range(2)])
    arrays = {
        "coord": coord.reshape(2, -1),
        "box": np.tile((np.eye(3) * 3.4).ravel(), (2, 1)),
        "energy": rng.normal(size=(2, 1)),
        "force": rng.normal(size=(2, 15)),
    }
    for name, value in arrays.items():
        np.save(folder / "set.000" / f"{name}.npy", value)


def training_input(model: dict[str, Any], data: str, heads: tuple[str, ...] = ()) -> dict[str, Any]:
    loss = {"type": "ener", "start_pref_e": 1, "limit_pref_e": 1, "start_pref_f": 1, "limit_pref_f": 1}
    loss |= {"start_pref_v": 0, "limit_pref_v": 0}
    training: dict[str, Any] = {
        "numb_steps": 1, "save_freq": 1, "disp_freq": 1, "seed": 1, "save_ckpt": "model",
        "enable_ema": True, "ema_decay": 0.5,
    }  # fmt: skip
    one = {"training_data": {"systems": [data], "batch_size": 1}}
    jdata: dict[str, Any] = {
        "model": model,
        "learning_rate": {"type": "exp", "start_lr": 0.01, "stop_lr": 0.001, "decay_steps": 1},
        "training": training,
    }
    if heads:
        jdata["loss_dict"] = {head: dict(loss) for head in heads}
        training["data_dict"] = {head: dict(one) for head in heads}
        training["model_prob"] = dict.fromkeys(heads, 0.5)
    else:
        jdata["loss"] = loss
        training |= one
    return jdata


def train(jdata: dict[str, Any], folder: Path) -> Path:
    """Train for one step in a temporary folder, and return that folder."""
    work = Path(tempfile.mkdtemp())
    write_data(work / "data", np.random.default_rng(5))
    (work / "input.json").write_text(json.dumps(jdata))
    assert dp("--pt", "train", "input.json", cwd=work)
    folder.mkdir(parents=True)
    shutil.copy(work / "model-1.pt", folder / "model.pt")
    shutil.copy(next(work.glob("*ema-1.pt")), folder / "model_ema.pt")
    return work


def train_single(case: ModelCase) -> None:
    folder = FILES / case.name
    work = train(training_input(generate.deepmd_input(case.config), "data"), folder)
    dp("--pt", "freeze", "-c", folder / "model.pt", "-o", folder / "model.pth")
    convert(folder, exported=False)
    for name in ("model", "model_ema"):
        content = canonical(load_checkpoint(folder / f"{name}.pt"), case)
        np.savez_compressed(FILES / f"{case.name}{name[5:]}.npz", **content)
    without_code(folder / "model.pth")
    shutil.rmtree(work)


def train_heads(case: ModelCase) -> None:
    folder = FILES / "multitask"
    model = generate.deepmd_input(case.config)
    heads = {}
    for number, head in enumerate(("water", "ice")):
        fitting = {**model["fitting_net"], "seed": 10 + number, "dim_case_embd": 2}
        heads[head] = {"type_map": "types", "descriptor": "shared", "fitting_net": fitting}
    heads["water"]["model_branch_alias"] = ["liquid"]
    shared = {"types": model["type_map"], "shared": model["descriptor"]}
    jdata = training_input({"shared_dict": shared, "model_dict": heads}, "data", tuple(heads))
    work = train(jdata, folder)
    for head in heads:
        dp("--pt", "freeze", "-c", folder / "model.pt", "-o", folder / f"{head}.pth", "--head", head)
        without_code(folder / f"{head}.pth")
        headed = ModelCase("multitask", {**case.options, "fitting.dim_case_embd": 2})
        content = canonical(load_checkpoint(folder / "model.pt", head), headed)
        np.savez_compressed(FILES / f"multitask_{head}.npz", **content)
    shutil.rmtree(work)


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(FILES, ignore_errors=True)
    cases = {case.name: case for case in FILE_MODELS}
    for case in FILE_MODELS:
        if case.name != "trained":
            build_case(case)
    train_single(cases["trained"])
    train_heads(cases["trained"])
    for path in sorted(FILES.rglob("*.*")):
        print(f"{path.stat().st_size / 1024:8.1f} kB  {path.relative_to(FILES)}")


if __name__ == "__main__":
    main()
