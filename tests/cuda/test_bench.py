"""The GPU benchmarks without a GPU: the same programs on the emulated device, and refusals."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_emulator.driver import environment

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_the_bench_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The columns of the CPU's bench, and copies that agree with the small box."""
    from dpa2.data import write_frame

    monkeypatch.syspath_prepend(str(BENCH))
    gpu, scaling = importlib.import_module("gpu"), importlib.import_module("scaling")
    table, structure = tmp_path / "gpu.csv", tmp_path / "water.extxyz"
    coords = np.array([[0.0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]]) + 1.0
    with structure.open("w") as handle:
        write_frame(handle, coords, ["O", "H", "H"], np.eye(3) * 4.0)
    words = [str(structure), "--copies", "1", "2x1x1", "--steps", "1", "--csv", str(table)]
    command = [sys.executable, str(BENCH / "gpu.py"), *words]
    variables = {**os.environ, **environment()}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    found: dict[str, Any] = {"atoms": 1, "step": 1, "peak_memory": 1, "model": "", "precision": "", "isa": ""}
    found |= {"threads": 1, "step_times": [1], "first_step": 1, "energy_error": 0, "force_error": 0}
    assert header.split(",") == [*gpu.machine(), *scaling.row_of({}, found, None)]
    assert len(rows) == 2
    for row in rows:
        values = dict(zip(header.split(","), row.split(","), strict=True))
        assert float(values["energy_error"]) < 1e-6
        assert float(values["force_error"]) < 1e-4


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    common = importlib.import_module("common")
    monkeypatch.setenv("PATH", "")
    assert common.commit() == "unknown"
    assert common.machine()["commit"] == "unknown"
