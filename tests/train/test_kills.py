"""A run that is killed again and again ends in the bits of one that nobody has disturbed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
import training_checks as checks
import training_runs as runs
from dpa2.files import read
from dpa2.train import checkpoint
from dpa2.train.display import read_curve
from dpa2.train.store import Store

KILLS, SEED = 20, 20261128
#: far more steps than a run does until it is killed: at most eight, and those of a few milliseconds
STEPS, SAVED_EVERY = 800, 2
CHANGES: dict[str, Any] = {"numb_steps": STEPS, "save_freq": SAVED_EVERY, "disp_freq": 50}


def newest() -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    try:
        return int(os.readlink("model.ckpt.pt").removeprefix("model.ckpt-").removesuffix(".pt"))
    except FileNotFoundError:
        return 0


def unfinished() -> list[str]:
    """Files that are being written, or were when a run was killed."""
    return [name for name in os.listdir() if name.endswith(".part") and not os.path.islink(name)]


def wait(process: Any, moment: str, draws: random.Random) -> None:
    """Until the moment to kill at."""
    before, looks = newest(), draws.randrange(3000)
    steps, after = SAVED_EVERY * draws.randrange(1, 5), 0.01 * draws.random()
    left = set(unfinished())
    for look in range(120_000):
        if process.poll() is not None:
            return
        if moment == "before it has saved" and (newest() > before or look > looks):
            return
        if moment == "while it saves" and newest() > before and set(unfinished()) - left:
            return
        if moment == "at work" and newest() >= before + steps:
            time.sleep(after)
            return
        time.sleep(0.001)


def check_whole() -> None:
    """Every checkpoint and every native model that is there can be read, and the link leads to the newest."""
    for path in Path().glob("model*ckpt-*.pt"):
        assert checkpoint.Checkpoint(path).content["model"]
    for path in Path().glob("model*ckpt-*.safetensors"):
        assert read(str(path)).weights
    if newest():
        assert checkpoint.Checkpoint("model.ckpt.pt").step == newest()


def found_in(name: str) -> Any:
    """The bytes of a checkpoint; of a native model, whose header may be in any order, what it holds."""
    if name.endswith(".pt"):
        return Path(name).read_bytes()
    data = read(name)
    return data.config, {name: (value.dtype, value.shape, value.tobytes()) for name, value in data.weights.items()}


def run(threads: int, restart: bool = False) -> Any:
    options = ["--threads", str(threads), *(["--restart", "model.ckpt.pt"] if restart else [])]
    return checks.start(runs.RUNS["plain"], *options, **CHANGES)


@needs.linux
def test_what_killed_runs_have_left(run_folder: Path) -> None:
    """Is taken away when a run begins; what is of other names stays, and what another process is writing."""
    import fcntl

    left, native, other, written = (
        f".{name}.0123456789abcdef.part"
        for name in ("model.ckpt-8.pt", "model.ckpt-12.one.safetensors", "other.ckpt-8.pt", "model.ckpt-9.pt")
    )
    for name in (left, native, other, written):
        Path(name).touch()
    with open(written, "wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        Store("model.ckpt").prepare()
    assert sorted(unfinished()) == sorted([other, written])


@pytest.mark.minutes
@pytest.mark.parametrize("threads", [1, 2])
def test_killed_many_times(threads: int, run_folder: Path) -> None:
    whole = run(threads)
    assert whole.communicate(timeout=600)[1] == b""
    assert whole.returncode == 0
    results = {path.name: found_in(path.name) for path in run_folder.glob(f"model*ckpt-{STEPS}.*")}
    assert len(results) == 4  # of parameters and of averages, each with a native model
    curve = read_curve(Path("lcurve.out"))
    for path in (*run_folder.glob("model*"), Path("lcurve.out")):
        path.unlink()
    draws, said, caught = random.Random(SEED + threads), [], 0
    for number in range(KILLS):
        moment = ("before it has saved", "while it saves", "at work")[number % 3]
        process = run(threads, restart=newest() > 0)
        wait(process, moment, draws)
        process.kill()
        err = process.communicate(timeout=60)[1]
        assert process.returncode == -signal.SIGKILL, err
        caught += bool(unfinished())
        said.append(f"{moment}: step {newest()}, unfinished {len(unfinished())}")
        check_whole()
    print(f"seed {SEED + threads}", *said, sep="\n")
    assert newest() < STEPS - SAVED_EVERY
    assert caught > 0
    last = run(threads, restart=True)
    assert last.communicate(timeout=600)[1] == b""
    assert last.returncode == 0
    for name, expected in results.items():
        assert found_in(name) == expected, name
    found = read_curve(Path("lcurve.out"))
    assert found.keys() == curve.keys()
    for name, column in curve.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name)
    assert not unfinished()
