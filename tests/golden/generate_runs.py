"""Make `training/runs.npz` and `training/steps.json`: short training runs of deepmd-kit, and what they are made of.

Run by hand in an environment that has deepmd-kit, after generate.py:

    python tests/golden/generate_runs.py            # into tests/golden/training
    python tests/golden/generate_runs.py OUTDIR     # into another folder

`runs.npz` holds the runs of `training_runs`: learning curves and last checkpoints. `steps.json` holds learning rates of
schedules, steps of PyTorch's optimizers, and the layout of the state of every model of `cases`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepmd.dpmodel.utils.learning_rate import BaseLR
from deepmd.pt.model.model import get_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import step_cases as steps
import training_cases as training
import training_runs as runs
from cases import golden_cases
from generate import deepmd_input


def arrays_of(value: Any) -> Any:
    """The object with arrays in place of tensors."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: arrays_of(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [arrays_of(entry) for entry in value]
    return value


def run(config: dict[str, Any]) -> dict[str, Any]:
    """The learning curve and the last checkpoint of an input."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs.write_data(folder)
        (folder / "input.json").write_text(json.dumps(config))
        command = [str(Path(sys.executable).with_name("dp")), "--pt", "train", "input.json", "--skip-neighbor-stat"]
        environment = os.environ | {"NUM_WORKERS": str(runs.STREAMS), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        content = arrays_of(torch.load(folder / "model.ckpt.pt", weights_only=True))
        arrays, stated = runs.summary(content)
        numbers = {name: training.fingerprint(name, array) for name, array in arrays.items()}
        files = sorted(path.name for path in folder.iterdir() if ".ckpt" in path.name or path.name == "checkpoint")
        return {"curve": (folder / "lcurve.out").read_text(), "numbers": numbers, "content": stated, "files": files}


def all_runs(folder: Path) -> None:
    """`runs.npz`."""
    out: dict[str, np.ndarray] = {}
    for name, config in runs.RUNS.items():
        found = run(config)
        numbers = found.pop("numbers")
        found["tensors"] = list(numbers)
        out[f"{name} stated"] = np.frombuffer(json.dumps(found).encode(), np.uint8)
        out[f"{name} numbers"] = np.array(list(numbers.values()))
        print(name, found["files"], found["curve"], sep="\n")
    np.savez_compressed(folder / "runs.npz", **out)


def rates() -> list[list[float]]:
    """Learning rates as deepmd-kit's trainer gets them: by way of the ratio to the first."""
    out = []
    for section, total in steps.SCHEDULES:
        schedule = BaseLR(num_steps=total, **section)
        out.append([float(schedule.value(t)) / schedule.start_lr * schedule.start_lr for t in steps.moments(total)])
    return out


def optimizers() -> dict[str, list[list[float]]]:
    """Norm and product of each parameter, of the average, and of the moments after the steps."""
    out = {}
    for name, (kind, dtype, decay, bound) in steps.OPTIMIZERS.items():
        values = {key: torch.nn.Parameter(torch.tensor(value)) for key, value in steps.first(dtype).items()}
        shadows = {key: value.detach().clone() for key, value in values.items()}
        optimizer = getattr(torch.optim, kind)(values.values(), lr=1.0, weight_decay=decay)
        for step in range(steps.STEPS):
            gradient = steps.gradient(step, dtype)
            for key, value in values.items():
                value.grad = torch.tensor(gradient[key]) if key in gradient else None
            if bound:
                torch.nn.utils.clip_grad_norm_(values.values(), bound)
            optimizer.param_groups[0]["lr"] = steps.rate(step)
            optimizer.step()
            for key, value in values.items():
                shadows[key].lerp_(value.detach(), 1.0 - steps.FADING)
        out[name] = [
            list(training.fingerprint(key, array.detach().numpy()))
            for key, value in values.items()
            for array in (value, shadows[key], *(optimizer.state[value][k] for k in ("exp_avg", "exp_avg_sq")))
        ]
    return out


def layouts() -> dict[str, Any]:
    """Of every case the tensors of its state: name, shape, precision, whether it is a parameter."""
    out = {}
    for case in golden_cases():
        model = get_model(deepmd_input(case.config))
        parameters = dict(model.named_parameters())
        out[case.name] = steps.compact(
            [
                (name, list(tensor.shape), str(tensor.dtype).removeprefix("torch."), name in parameters)
                for name, tensor in model.state_dict().items()
                if isinstance(tensor, torch.Tensor)
            ]
        )
    return out


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else training.TRAINING
    stated = {"rates": rates(), "optimizers": optimizers(), "layouts": layouts()}
    (folder / "steps.json").write_text(json.dumps(stated, separators=(",", ":")) + "\n")
    all_runs(folder)


if __name__ == "__main__":
    main()
