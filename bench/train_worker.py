"""One side of bench/train.py: loads a checkpoint, then takes the gradient of a loss twice per line that it reads.

    python train_worker.py deepmd|dpa2 CHECKPOINT.pt BATCH.npz LOSS.json PRECISION THREADS

A step is what training does between two changes of the weights: forward, forces, loss, gradient of every parameter;
no optimizer. Of a turn's two steps the second counts (worker.py says why). Positions move a little from step to step.

Needs NumPy and either deepmd-kit or dpa2, nothing of the source tree: it runs in the other program's environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from worker import peak_memory

SHIFT = 0.01  # angstrom
RATE = 1e-3
Step = Callable[[Any], tuple[float, dict[str, Any]]]


def make_deepmd(checkpoint: str, batch: dict[str, Any], loss: dict[str, Any], precision: str, threads: int) -> Step:
    """deepmd-kit's own model, loss and double backward."""
    import torch

    torch.set_num_threads(threads)
    from deepmd.pt.loss import EnergyStdLoss
    from deepmd.pt.model.model import get_model
    from deepmd.pt.train.wrapper import ModelWrapper

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    state = state.get("model", state)
    params = state["_extra_state"]["model_params"]
    for section in ("descriptor", "fitting_net"):
        params[section]["precision"] = precision
    options = {key: value for key, value in loss.items() if key not in ("type", "starter_learning_rate")}
    model = get_model(params)
    wrapper = ModelWrapper(model, EnergyStdLoss(starter_learning_rate=RATE, **options), model_params=params)
    wrapper.load_state_dict(state)  # in the precision of the model
    frames, natoms = batch["atype"].shape
    labels = {key: torch.tensor(batch[key]) for key in ("energy", "force", "virial") if key in batch}
    labels["energy"] = labels["energy"].reshape(frames, 1)
    labels |= {f"find_{key}": 1.0 for key in list(labels)}
    types = torch.tensor(batch["atype"], dtype=torch.long)
    box = torch.tensor(batch["box"]).reshape(frames, 9)

    def step(coords: Any) -> tuple[float, dict[str, Any]]:
        wrapper.zero_grad(set_to_none=True)
        inputs = {"coord": torch.tensor(coords).reshape(frames, natoms, 3), "atype": types, "box": box}
        _, value, _ = wrapper(**inputs, cur_lr=RATE, label=labels, task_key="Default")
        value.backward()
        own = {name.removeprefix("model.Default."): p.grad for name, p in wrapper.named_parameters()}
        found = {name: grad.numpy() for name, grad in own.items() if grad is not None}
        return float(value), found

    return step


def make_dpa2(checkpoint: str, batch: dict[str, Any], loss: dict[str, Any], precision: str, threads: int) -> Step:
    """The same by dpa2. It takes all parameters anew before each step, as it does while one trains."""
    from dpa2.train import GradientEngine

    engine = GradientEngine(checkpoint, precision=precision, threads=threads)
    parameters = engine.parameters

    def step(coords: Any) -> tuple[float, dict[str, Any]]:
        engine.assign(parameters)
        found = engine.gradient({**batch, "coord": coords}, loss, RATE)
        return float(found["value"]), found["gradient"]

    return step


def main() -> None:
    """Say that the model is loaded; then an answer per line."""
    kind, checkpoint, path, loss_file, precision, threads = sys.argv[1:7]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get in between
    with np.load(path) as z:
        batch = {key: z[key] for key in z.files}
    loss = json.loads(Path(loss_file).read_text())
    make = make_deepmd if kind == "deepmd" else make_dpa2
    step = make(checkpoint, batch, loss, precision, int(threads))
    value, gradient = step(batch["coord"])
    np.savez(path.removesuffix(".npz") + f".{kind}.npz", **gradient)
    print(json.dumps({"value": value}), file=replies, flush=True)
    rng = np.random.default_rng(0)
    for _ in sys.stdin:
        seconds = []
        for _ in range(2):
            moved = batch["coord"] + rng.normal(size=batch["coord"].shape) * SHIFT
            start = time.perf_counter()
            value, _ = step(moved)
            seconds.append(time.perf_counter() - start)
        answer = {"cold": seconds[0], "seconds": seconds[1], "value": value, "memory": peak_memory()}
        print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    main()
