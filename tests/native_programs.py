"""Builds of the native tests, and programs that are run."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pages import ROOT

LONGEST = 600  # seconds that a program may take
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def start(command: Sequence[str | Path], timeout: float = LONGEST, **environment: str) -> tuple[int, str]:
    """Exit status and output of a command; programs of Python's own environment come first in its PATH."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "PATH": PATH, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
    )
    return done.returncode, done.stdout[-8000:] if done.returncode else done.stdout


def run(command: Sequence[str | Path], timeout: float = LONGEST) -> str:
    """The output of a command that must succeed."""
    status, output = start(command, timeout)
    assert status == 0, f"{command[0]} failed with {status}:\n{output}"
    return output


def build(folder: Path) -> Path:
    """The native tests in a folder, made or brought up to date."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "build.ninja").exists():
            run(["meson", "setup", folder, ROOT, "-Dnative_tests=true", "-Dpython=false", "-Dbuildtype=release"])
        run(["ninja", "-C", folder], timeout=1800)
    return folder
