"""Runs Python code with a sanitizer's library in the process, which kernels that are compiled for it need."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .build import SOURCES, compiler, sanitizer_library

TESTS = Path(__file__).resolve().parent.parent
OPTIONS = {
    # the interpreter keeps memory until it ends
    "address": {"ASAN_OPTIONS": "detect_leaks=0:exitcode=67", "UBSAN_OPTIONS": "print_stacktrace=1"},
    "thread": {"TSAN_OPTIONS": "exitcode=66:report_signal_unsafe=0:halt_on_error=0"},
}


@functools.cache
def command_prefix(sanitizer: str) -> tuple[str, ...]:
    """What the command begins with: the thread sanitizer may need addresses that are not random."""
    setarch = shutil.which("setarch")
    return (setarch, "-R") if sanitizer == "thread" and setarch and _starts(sanitizer, (setarch, "-R")) else ()


def _environment(sanitizer: str) -> dict[str, str]:
    library = sanitizer_library(sanitizer)
    if library is None:
        raise RuntimeError(f"{' '.join(compiler())} has no {sanitizer} sanitizer")
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    # OpenBLAS's threads are not watched, and would be taken for races
    quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return {**os.environ, **quiet, **OPTIONS[sanitizer], "LD_PRELOAD": library}


def _starts(sanitizer: str, prefix: tuple[str, ...]) -> bool:
    command = [*prefix, sys.executable, "-c", "pass"]
    return subprocess.run(command, env=_environment(sanitizer), capture_output=True, check=False).returncode == 0


@functools.cache
def available(sanitizer: str) -> bool:
    """Whether Python runs with this sanitizer ("address" or "thread") here."""
    return sanitizer_library(sanitizer) is not None and _starts(sanitizer, command_prefix(sanitizer))


def run(code: str, sanitizer: str, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
    """Run Python code, which makes its devices with ``EmulatedDevice(sanitizer=...)``; reports are in stderr."""
    command = [*command_prefix(sanitizer), sys.executable, "-c", code]
    environment = _environment(sanitizer)
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=timeout, cwd=TESTS
    )


def mutate(folder: Path, source: str, old: str, new: str, occurrence: int = 0) -> Path:
    """A copy of the kernels, ``folder``/cuda, in which one place of a file is another; beside it what they include."""
    target = folder / "cuda"
    for name in ("cuda", "math"):
        shutil.copytree(SOURCES / name, folder / name)
    parts = (target / source).read_text(encoding="utf-8").split(old)
    assert len(parts) > occurrence + 1, f"{source} has changed: {old!r} is not there"
    text = old.join(parts[: occurrence + 1]) + new + old.join(parts[occurrence + 1 :])
    (target / source).write_text(text, encoding="utf-8")
    return target
