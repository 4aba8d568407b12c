"""A short slice of ``kill_moments.py``: commands that are ended leave nothing broken and lose nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent / "kill_moments.py"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="copies of processes, signals and limits of Linux")
@pytest.mark.parametrize("cases", [["descriptor npz", "descriptor h5", "convert"], ["eval both", "test"]])
def test_commands_that_are_ended(cases: list[str]) -> None:
    modes = ["kill", "term", "write", "large"]
    command = [sys.executable, str(SCRIPT), "--moments", "4", "--modes", *modes, "--cases", *cases]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("wrong 0") == len(modes) * len(cases)
    assert "went on" in done.stdout
