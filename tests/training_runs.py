"""Short training runs and their data, declared once: `golden/generate_runs.py` asks deepmd-kit, the tests compare.

Structures are those of a golden file, moved a little from frame to frame; labels follow from their names by a formula.
A file holds the learning curves as written, and of every tensor of the last checkpoint its norm and its product with a
vector that its name draws.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import training_cases as training
from cases import BASE, golden_cases, load_golden

FILE = training.TRAINING / "runs.npz"

#: streams of the order of data
STREAMS = 2


def write_system(folder: Path, nframes: int, natoms: int, name: str) -> None:
    """A system of the first atoms of a golden structure."""
    golden = load_golden(next(case for case in golden_cases() if case.name == "base"))
    bulk = golden.systems[0]
    types = bulk.atype[:natoms]
    coord = bulk.coord[0, :natoms] + 0.1 * training.wave(f"{name} coord", (nframes, natoms, 3))
    arrays = {
        "coord": coord.reshape(nframes, -1),
        "box": np.tile(bulk.box[0].reshape(9), (nframes, 1)),
        "energy": -3.0 * natoms + training.wave(f"{name} energy", (nframes,)),
        "force": training.wave(f"{name} force", (nframes, 3 * natoms)),
    }
    if name == "one":
        arrays["virial"] = training.wave(f"{name} virial", (nframes, 9))
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("\n".join(map(str, types)) + "\n")
    (folder / "type_map.raw").write_text("\n".join(BASE["type_map"]) + "\n")
    for key, array in arrays.items():
        np.save(folder / "set.000" / f"{key}.npy", array)


def write_data(folder: Path) -> None:
    """The systems that the inputs name."""
    write_system(folder / "one", 5, 8, "one")
    write_system(folder / "two", 3, 6, "two")
    write_system(folder / "three", 4, 7, "three")


def _model(**repformer: Any) -> dict[str, Any]:
    """A model section without seeds, so that all weights are drawn from that of the training."""
    descriptor = copy.deepcopy(BASE["descriptor"])
    descriptor["repinit"].update(nsel=40, three_body_sel=20, set_davg_zero=False)
    descriptor["repformer"].update(nsel=20, nlayers=2, **repformer)
    return {
        "type_map": BASE["type_map"],
        "descriptor": descriptor,
        "fitting_net": {"neuron": [12, 12], "resnet_dt": True},
    }


_LOSS = {
    "start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 100, "limit_pref_f": 1,
    "start_pref_v": 0.02, "limit_pref_v": 1,
}  # fmt: skip
_PLAIN: dict[str, Any] = {
    "model": _model(),
    "learning_rate": {"type": "exp", "decay_steps": 3, "start_lr": 0.002, "stop_lr": 1e-5},
    "loss": _LOSS,
    "training": {
        "training_data": {"systems": ["one", "two"], "batch_size": [2, 1]},
        "validation_data": {"systems": ["three"], "batch_size": 3, "numb_btch": 2},
        "numb_steps": 9,
        "seed": 7,
        "disp_freq": 2,
        "save_freq": 4,
        "gradient_max_norm": 3.0,
        "enable_ema": True,
        "ema_decay": 0.6,
    },
}


def _tasks() -> dict[str, Any]:
    model = _model()
    heads = {
        name: {"type_map": "names", "descriptor": "shared", "fitting_net": model["fitting_net"]}
        for name in ("left", "right")
    }
    data = {
        "left": {"training_data": {"systems": ["one"], "batch_size": 2}},
        "right": {
            "training_data": {"systems": ["two"], "batch_size": 1},
            "validation_data": {"systems": ["three"], "batch_size": 2},
        },
    }
    shared = {"names": model["type_map"], "shared": model["descriptor"]}
    return {
        "model": {"shared_dict": shared, "model_dict": heads},
        "learning_rate": {"type": "wsd", "start_lr": 0.002, "stop_lr": 1e-4, "decay_phase_ratio": 0.4},
        "loss_dict": {"left": _LOSS, "right": {**_LOSS, "loss_func": "mae"}},
        "training": {
            "data_dict": data,
            "model_prob": {"left": 0.3, "right": 0.7},
            "numb_steps": 6,
            "seed": 11,
            "disp_freq": 2,
            "enable_ema": True,
            "ema_decay": 0.6,
        },
    }


def _averaged() -> dict[str, Any]:
    config = copy.deepcopy(_PLAIN)
    config["learning_rate"] = {
        "type": "cosine", "start_lr": 0.002, "stop_lr_ratio": 0.01, "warmup_steps": 2, "warmup_start_factor": 0.1,
    }  # fmt: skip
    config["optimizer"] = {"type": "AdamW", "weight_decay": 0.01, "adam_beta2": 0.99}
    config["training"].update(disp_avg=True, disp_freq=3, numb_steps=8, enable_ema=False, gradient_max_norm=0.0)
    config["training"]["change_bias_after_training"] = True
    config["training"]["training_data"]["auto_prob"] = "prob_uniform"
    config["model"]["fitting_net"]["seed"] = 5
    config["loss"]["use_huber"] = True
    return config


def _single() -> dict[str, Any]:
    config = copy.deepcopy(_PLAIN)
    for part in ("descriptor", "fitting_net"):
        config["model"][part]["precision"] = "float32"
    del config["training"]["validation_data"]
    config["training"].update(numb_steps=5, disp_freq=1)
    return config


#: inputs by name; paths of systems are relative to where they run
RUNS: dict[str, dict[str, Any]] = {
    "plain": _PLAIN,
    "averaged": _averaged(),
    "tasks": _tasks(),
    "single": _single(),
}


@cache
def expected(name: str, file: Path = FILE) -> dict[str, Any]:
    """Of a run: ``curve``; ``tensors``: by name norm and product; ``stated``: everything else of the checkpoint."""
    with np.load(file, allow_pickle=False) as data:
        stated = json.loads(data[f"{name} stated"].tobytes())
        numbers = data[f"{name} numbers"].tolist()
    return {
        "curve": stated.pop("curve"),
        "tensors": dict(zip(stated.pop("tensors"), numbers, strict=True)),
        "stated": stated,
    }


def summary(content: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a checkpoint by a name of their own, and what else it says, as JSON has it."""
    arrays: dict[str, np.ndarray] = {}

    def plain(value: Any, where: str) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(entry, f"{where}/{key}") for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(entry, f"{where}/{k}") for k, entry in enumerate(value)]
        if isinstance(value, np.ndarray):
            arrays[where] = value
            return f"{value.dtype} {list(value.shape)}"
        return value

    return arrays, plain(content, "")
