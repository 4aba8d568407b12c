"""Runs of the command in the current folder, and their checkpoints against deepmd-kit's."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import training_cases as training
import training_runs as runs
from cli_runs import ordinary_signals
from dpa2.cli import main
from dpa2.train import checkpoint

#: deepmd-kit rounds prefactors of losses to float32, which moves weights by 1e-7 of what a run changes; a model in
#: single precision has its own roundings
WEIGHTS, MOMENTS, SINGLE = 1e-9, 1e-6, 2e-4
#: the processes of a test, which end with it at the latest
started: list[subprocess.Popen[bytes]] = []


def train(config: dict[str, Any], *options: str, **changes: Any) -> int:
    """Run an input with other values in its training section."""
    config = copy.deepcopy(config)
    config["training"].update(changes)
    Path("input.json").write_text(json.dumps(config))
    return main(["train", "input.json", "--skip-neighbor-stat", "--threads", "1", *options])


def start(config: dict[str, Any], *options: str, **changes: Any) -> subprocess.Popen[bytes]:
    """The same in a process of its own, which has the signals of an ordinary one."""
    config = copy.deepcopy(config)
    config["training"].update(changes)
    Path("input.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "dpa2", "train", "input.json", "--skip-neighbor-stat", *options]
    started.append(
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=ordinary_signals)
    )
    return started[-1]


def content(path: str = "model.ckpt.pt") -> dict[str, Any]:
    """What a checkpoint holds."""
    return checkpoint.Checkpoint(path).content


def check_checkpoint(expected: dict[str, Any], single: bool = False) -> None:
    """The newest checkpoint is that of :func:`training_runs.expected`, but for what dpa2 adds."""
    found = content()
    del found["dpa2"]
    arrays, stated = runs.summary(found)
    assert json.loads(json.dumps(stated)) == expected["stated"]["content"]
    for tensor, (norm, product) in expected["tensors"].items():
        moment = tensor.startswith("/optimizer") and not tensor.endswith("/step")
        tolerance = SINGLE if single else MOMENTS if moment else WEIGHTS
        size = norm if moment or single else max(norm, 1.0)
        error = training.fingerprint(tensor, arrays[tensor])
        assert error == pytest.approx((norm, product), rel=0, abs=tolerance * max(size, 1e-30)), tensor
