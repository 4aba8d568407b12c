"""Memory of a device that runs out, and evaluations that go on afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cuda_emulator.driver import environment

TESTS = Path(__file__).resolve().parents[1]

COMMON = """
import dpa2, sys
import numpy as np
from helpers import golden, model_of, relative

system = golden("base").systems[0]
box = system.box[0].reshape(3, 3)
model, cpu = model_of(golden("base"), device="cuda"), model_of(golden("base"), device="cpu")

def frame(copies):
    coords = np.concatenate([system.coord[0] + k * box[0] for k in range(copies)])
    return coords, np.tile(system.atype, copies), np.diag([copies, 1, 1]) @ box

def good(copies):
    return relative(model.evaluate(*frame(copies)).forces, cpu.evaluate(*frame(copies)).forces) <= 1e-11

"""

MEASURE = """
assert good(8)
print(model._gpu.native.bytes)
"""

#: room for the buffers of eight copies, but not for those of four beside them
GROW = """
assert all(good(copies) for copies in (1, 4, 8, 1))
for _ in range(2):
    try:
        model.evaluate(*frame(16))
        raise AssertionError("there was room for it")
    except dpa2.OutOfMemoryError as error:
        assert "the device has no memory for 224 atoms" in str(error), error
    assert good(1) and good(8)
"""


def run(script: str, memory: int | None = None) -> str:
    env = {**os.environ, **environment(memory=memory), "DPA2_GPU_SEPARATE_BUFFERS": ""}
    env |= {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", COMMON + script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_memory_that_runs_out() -> None:
    """Old buffers make room for new ones; where that is not enough the error says so, and smaller systems go on."""
    run(GROW, int(run(MEASURE)) + 100_000)
