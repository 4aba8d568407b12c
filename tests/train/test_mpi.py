"""Training by processes that mpirun starts: one curve, one voice, one end."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
import training_checks as checks
import training_runs as runs
from cli_runs import ordinary_signals
from dpa2.train import checkpoint

#: what a few steps make of sums in another order
STEPS = 1e-11

#: a process that says which one it is, and is the command then
COMMAND = """
import os, sys
from dpa2.cli import main
from dpa2.train.processes import launched
with open(f"process.{launched()[0]}", "w") as file:
    file.write(str(os.getpid()))
sys.exit(main(sys.argv[1:]))
"""

#: where there is no space for a checkpoint
FULL = """
from dpa2.files import torch_writer
write = torch_writer.write
def full(handle, value, root):
    if root.endswith("-8"):
        raise OSError(28, "No space left on device")
    write(handle, value, root)
torch_writer.write = full
"""


@pytest.fixture(autouse=True)
def command(run_folder: Path) -> None:
    """The command as a file of the folder."""
    if why := needs.no_mpi():
        pytest.skip(why)
    Path("command.py").write_text(COMMAND)


def start(
    count: int, *options: str, program: tuple[str, ...] = ("-m", "dpa2"), **changes: Any
) -> subprocess.Popen[str]:
    config = copy.deepcopy(runs.RUNS["plain"])
    config["training"]["training_data"]["batch_size"] = 1
    config["training"].update(changes)
    Path("input.json").write_text(json.dumps(config))
    command = ["mpirun", "-n", str(count), sys.executable, *program, "train", "input.json", "--threads", "1"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = needs.mpi_environment()
    return subprocess.Popen([*command, *options], env=environment, preexec_fn=ordinary_signals, **pipes)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The status of processes that must not hang, and what they said."""
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def check_one_process_with_larger_batch(count: int) -> None:
    found, curve = checks.content(), Path("lcurve.out").read_text()
    assert checks.train(runs.RUNS["plain"], training_data={"systems": ["one", "two"], "batch_size": count}) == 0
    assert Path("lcurve.out").read_text() == curve
    arrays, wanted = runs.summary(found)[0], runs.summary(checks.content())[0]
    assert arrays.keys() == wanted.keys()
    for name, value in wanted.items():
        if value.dtype.kind == "f" and value.size:
            assert np.abs(arrays[name] - value).max() <= STEPS * max(1.0, float(np.abs(value).max())), name
        else:
            np.testing.assert_array_equal(arrays[name], value, err_msg=name)


def test_larger_batch(run_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The files of one process with the larger batch, the lines of one process, and the same bits again."""
    status, out, err = ended(start(2, "--skip-neighbor-stat"))
    assert (status, err) == (0, "")
    bits = Path("model.ckpt-9.pt").read_bytes()
    made = sorted(path.name for path in run_folder.iterdir())
    check_one_process_with_larger_batch(2)
    assert sorted(path.name for path in run_folder.iterdir()) == made
    alone = capfd.readouterr().out
    assert [line for line in out.splitlines() if "time" not in line] == [
        line for line in alone.splitlines() if "time" not in line
    ]
    for path in run_folder.glob("model*"):
        path.unlink()
    assert ended(start(2, "--skip-neighbor-stat", program=("-m", "mpi4py", "-m", "dpa2")))[0] == 0
    assert Path("model.ckpt-9.pt").read_bytes() == bits


@pytest.mark.parametrize("count", needs.mostly_slow([3, 4], {3}))
def test_more_processes(count: int) -> None:
    assert ended(start(count, "--skip-neighbor-stat"))[0] == 0
    check_one_process_with_larger_batch(count)


@pytest.mark.slow
def test_restart() -> None:
    """Stopped and restarted, it ends in the same bits."""
    assert ended(start(2))[0] == 0
    bits = Path("model.ckpt-9.pt").read_bytes()
    assert ended(start(2, "--restart", "model.ckpt-4.pt"))[0] == 0
    assert Path("model.ckpt-9.pt").read_bytes() == bits


@pytest.mark.parametrize(
    "program", [("-m", "dpa2"), pytest.param(("-m", "mpi4py", "-m", "dpa2"), marks=pytest.mark.slow)]
)
def test_frame_that_one_process_cannot_read(program: tuple[str, ...]) -> None:
    """Everybody ends with its message, which is said once, and the steps before are kept."""
    changes: dict[str, Any] = {"stat_file": "statistics", "save_freq": 1000, "disp_training": False}
    data = {"systems": ["one", "two"], "batch_size": 1, "auto_prob": "prob_sys_size;0:1:0.9;1:2:0.1"}
    assert checks.train(runs.RUNS["plain"], numb_steps=0, training_data=data, **changes) == 0
    force = np.load("two/set.000/force.npy")
    force[:, 3] = np.nan
    np.save("two/set.000/force.npy", force)
    process = start(2, "--skip-neighbor-stat", program=program, numb_steps=50, training_data=data, **changes)
    status, _, err = ended(process)
    assert status == 2
    assert err.count("dpa2: error: two/set.000/force.npy, row") == 1
    assert len(err.splitlines()) == 1 or "mpi4py" in program  # which says that it ends them
    assert checkpoint.Checkpoint("model.ckpt.pt").step > 0


def long_run() -> subprocess.Popen[str]:
    """A long run, of which the first checkpoint is there."""
    process = start(2, "--skip-neighbor-stat", program=("command.py",), numb_steps=100_000, disp_freq=1, save_freq=5)
    for _ in range(600):
        if os.path.exists("model_ema.ckpt.pt") or process.poll() is not None:
            break
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(("whom", "number", "status", "message"), [
    ("process.1", signal.SIGTERM, 143, "ended by SIGTERM"),
    pytest.param("mpirun", signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
    pytest.param("process.0", signal.SIGTERM, 143, "ended by SIGTERM", marks=pytest.mark.slow),
    pytest.param("mpirun", signal.SIGTERM, 143, "ended by SIGTERM", marks=pytest.mark.slow),
])  # fmt: skip
def test_signals(whom: str, number: int, status: int, message: str) -> None:
    """All end after the same step, with a checkpoint of it, whoever got the signal."""
    process = long_run()
    os.kill(process.pid if whom == "mpirun" else int(Path(whom).read_text()), number)
    found, _, err = ended(process)
    assert err.count(message) == 1
    assert found == status
    last = int(Path("lcurve.out").read_text().splitlines()[-1].split()[0])
    assert os.readlink("model.ckpt.pt") == f"model.ckpt-{last}.pt"
    assert checkpoint.Checkpoint("model.ckpt.pt").step == last


@pytest.mark.slow
def test_killed() -> None:
    """A process that is killed takes the others with it; the newest checkpoint is whole."""
    process = long_run()
    os.kill(int(Path("process.1").read_text()), signal.SIGKILL)
    assert ended(process)[0] != 0
    assert checkpoint.Checkpoint("model.ckpt.pt").step >= 5


@pytest.mark.slow
def test_full_disk(run_folder: Path) -> None:
    """A checkpoint that the first process cannot write ends all."""
    Path("command.py").write_text(FULL + COMMAND)
    status, _, err = ended(start(2, program=("command.py",)))
    assert status == 2
    assert err.count("No space left on device") == 1
    assert os.readlink("model.ckpt.pt") == "model.ckpt-4.pt"
    assert not list(run_folder.glob("*.part"))


@pytest.mark.slow
def test_start() -> None:
    """A fine-tuning, from an input and an option that are refused first."""
    assert checks.train(runs.RUNS["plain"], numb_steps=1, enable_ema=False) == 0
    shutil.copy("model.ckpt-1.pt", "start.pt")
    status, _, err = ended(start(2, "--finetune", "none.pt"))
    assert (status, err) == (2, "dpa2: error: none.pt: there is no such file\n")
    assert ended(start(2, "--finetune", "start.pt", "--skip-neighbor-stat", numb_steps=2, enable_ema=False))[0] == 0
    found = checks.content()
    data = {"systems": ["one", "two"], "batch_size": 2}
    options = ("--finetune", "start.pt")
    assert checks.train(runs.RUNS["plain"], *options, numb_steps=2, enable_ema=False, training_data=data) == 0
    for name, value in checks.content()["model"].items():
        if name != "_extra_state":
            np.testing.assert_allclose(found["model"][name], value, rtol=0, atol=STEPS, err_msg=name)
