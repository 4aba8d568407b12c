"""A short slice of ``kill_moments.py``: commands that are ended leave nothing broken and lose nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import needs
import pytest
from api_models import BOX, SYMBOLS, frames, work_in
from dpa2.data import read_structures, write_frame

SCRIPT = Path(__file__).resolve().parent / "kill_moments.py"


@pytest.mark.slow
@needs.linux
@pytest.mark.parametrize("cases", [["descriptor npz", "descriptor h5", "convert"], ["eval both", "test"]])
def test_commands_that_are_ended(cases: list[str]) -> None:
    modes = ["kill", "term", "write", "large"]
    command = [sys.executable, str(SCRIPT), "--moments", "4", "--modes", *modes, "--cases", *cases]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("wrong 0") == len(modes) * len(cases)
    assert "went on" in done.stdout


KILLED_IN_CLEANUP = """
import os, signal, sys
count = 0
def hook(event, args):
    global count
    if event == "os.remove" and str(args[0]).startswith("saved.part"):
        count += 1
        if count == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from dpa2.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", [1, 2, 4])
def test_a_data_set_whose_run_was_killed_in_its_clean_up(
    moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is complete, and the same command may write it again."""
    work_in(tmp_path, monkeypatch)
    with open("three.xyz", "w") as handle:
        for coords in frames(3):
            write_frame(handle, coords, SYMBOLS, BOX)
    args = ["eval", "-m", "model.safetensors", "--device", "reference", "three.xyz", "--save-deepmd", "saved"]
    run_args = [sys.executable, "-c", KILLED_IN_CLEANUP]
    killed = subprocess.run([*run_args, str(moment), *args], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    (system,) = read_structures("saved")
    assert len(list(system)) == 3
    again = subprocess.run([*run_args, "0", *args], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    (system,) = read_structures("saved")
    assert len(list(system)) == 3
    assert [name for name in os.listdir() if "part" in name] == []
