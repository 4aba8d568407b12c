"""Short fine-tuning runs, declared once: `golden/generate_finetune.py` asks deepmd-kit, the tests compare.

All begin with the checkpoint of the run "tasks" of `training_runs`, which has two models with one descriptor.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import training_cases as training
import training_runs as runs

FILE = training.TRAINING / "finetune.npz"
#: the run whose checkpoint all begin with, and under which name
START, CHECKPOINT = "tasks", "start.pt"


def write_data(folder: Path) -> None:
    """The systems of `training_runs`, and two of other types."""
    runs.write_data(folder)
    for name, types, names in (("four", 2, "O H"), ("five", 3, "O N H")):
        runs.write_system(folder / name, 4, 7, name)
        (folder / name / "type.raw").write_text("\n".join(str(k % types) for k in range(7)) + "\n")
        (folder / name / "type_map.raw").write_text(names + "\n")


def _input(system: str, **model: Any) -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(runs.RUNS["plain"])
    config["model"].update(model)
    config["training"]["training_data"] = {"systems": [system], "batch_size": 2}
    del config["training"]["validation_data"]
    config["training"].update(numb_steps=2, disp_freq=1, enable_ema=False)
    return config


def _script() -> dict[str, Any]:
    config = _input("one", finetune_head="left")
    config["model"]["descriptor"] = {"type": "dpa2", "trainable": False}
    config["model"]["fitting_net"] = {"neuron": [3]}
    return config


def _tasks() -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(runs.RUNS["tasks"])
    heads, fitting = config["model"]["model_dict"], config["model"]["model_dict"]["left"]["fitting_net"]
    heads["right"]["finetune_head"] = "right"
    heads["third"] = {**copy.deepcopy(heads["left"]), "fitting_net": {**fitting, "neuron": [7]}}
    data = config["training"]["data_dict"]
    data["third"] = copy.deepcopy(data["left"])
    config["loss_dict"]["third"] = config["loss_dict"]["left"]
    config["training"]["model_prob"] = {"left": 0.3, "right": 0.3, "third": 0.4}
    config["training"].update(numb_steps=3, disp_freq=1, enable_ema=False)
    return config


def _tasks_of_new_types() -> dict[str, Any]:
    config = _tasks()
    config["model"]["shared_dict"]["names"] = ["Cu", "N", "H", "O"]
    config["training"]["data_dict"]["third"]["training_data"]["systems"] = ["five"]
    return config


#: inputs and options by name
TUNED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "branch": (_input("one"), ["--model-branch", "right"]),
    "fewer": (_input("four", type_map=["H", "O"]), ["--model-branch", "left"]),
    "new": (_input("five", type_map=["Cu", "N", "H", "O"]), ["--model-branch", "left"]),
    "random": (_input("five", type_map=["N", "O", "H"]), []),
    "set": (_input("one", finetune_head="RANDOM"), []),
    "script": (_script(), ["--use-pretrain-script"]),
    "several": (_tasks(), []),
    "several new": (_tasks_of_new_types(), []),
}
