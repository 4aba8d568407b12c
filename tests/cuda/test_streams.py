"""Streams of callers: emulated work is done when somebody waits, in any order that streams and events allow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_emulator.driver import environment

TESTS = Path(__file__).resolve().parents[1]

COMMON = """
import ctypes, sys
import numpy as np
from types import SimpleNamespace
from cuda_emulator.driver import driver
from helpers import golden, model_of, relative

system = golden("base").systems[0]
coords, types = np.ascontiguousarray(system.coord[0]), np.ascontiguousarray(system.atype, np.int32)
box = None if system.box is None else system.box[0].reshape(3, 3)
wanted = model_of(golden("base"), device="cpu").evaluate(coords, types, box)

context = ctypes.c_void_p()
driver().call("cuInit", 0)
driver().call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)  # as every library of arrays does

def new_stream():
    stream = ctypes.c_void_p()
    with driver().current():
        driver().call("cuStreamCreate", ctypes.byref(stream), 1)
    return stream.value

def queue_copy(at, array, stream):
    driver().call("cuMemcpyHtoDAsync_v2", ctypes.c_ulonglong(at), ctypes.c_void_p(array.ctypes.data),
                  ctypes.c_size_t(array.nbytes), ctypes.c_void_p(stream))

def seen_on(at, shape, stream):
    "What work on this stream sees, when nobody waits for another one."
    with driver().current():
        return driver().get(at, shape, np.float64, stream)
"""

DLPACK = """
from dpa2._native import DeviceArray
from gpu_models import OnDevice

model, stream = model_of(golden("base"), device="cuda"), new_stream()
model.evaluate(OnDevice(coords), types, box).check()
for _ in range(3):
    result = model.evaluate(OnDevice(coords), types, box)
    taken = result.forces.__dlpack__(stream=stream)
    assert relative(seen_on(result.forces.ptr, coords.shape, stream), wanted.forces) <= 1e-11
    result.check()
"""

#: CuPy's current stream changes from call to call; coordinates are written on it, and results read
CUPY = """
import cupy_stand_in
from dpa2.cuda import gpu
from dpa2.cuda.hooks import CupyHooks

cupy = cupy_stand_in.install()
gpu.cupy_hooks = CupyHooks
model = model_of(golden("base"), device="cuda")
streams = [new_stream() for _ in range(3)]
shifts, answers = (0.0, 0.01, 0.02), []
for shift in 2 * shifts:  # buffers that are large enough for all
    model.evaluate(cupy.of_device(coords * (1 + shift)), types, box).check()
for stream, shift in zip(streams, shifts):
    cupy.cuda.get_current_stream = lambda stream=stream: SimpleNamespace(ptr=stream)
    x, now = cupy.of_device(np.full_like(coords, 1e6 if shift else 0.0)), coords * (1 + shift)
    with driver().current():
        queue_copy(x.ctypes.data, now, stream)
    answers.append((now, x, stream, model.evaluate(x, types, box)))
for now, _, stream, result in reversed(answers):
    expected = model_of(golden("base"), device="cpu").evaluate(now, types, box)
    assert relative(seen_on(result.forces.ctypes.data, coords.shape, stream), expected.forces) <= 1e-11
    result.check()
"""

#: a graph of the caller's that holds an evaluation: it follows the coordinates, and what does not fit shows as NaN
CAPTURE = """
import dpa2
import cupy_stand_in
from dpa2.cuda import gpu
from dpa2.cuda.hooks import CupyHooks

cupy = cupy_stand_in.install()
gpu.cupy_hooks = CupyHooks
model, stream = model_of(golden("base"), device="cuda"), new_stream()
cupy.cuda.get_current_stream = lambda: SimpleNamespace(ptr=stream)
x, kinds = cupy.of_device(coords), cupy.of_device(types)

def captured():
    graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
    with driver().current():
        driver().call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), 2)
        try:
            result = model.evaluate(x, kinds, box)
        finally:
            driver().call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        driver().call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    return result, executable

try:
    captured()
except dpa2.InputError as error:
    assert "evaluate the same number of atoms once before" in str(error)
else:
    raise AssertionError("nothing was refused")
for scale in (0.98, 1.02, 1.0):  # buffers that are large enough for all
    model.evaluate(cupy.of_device(coords * scale), kinds, box).check()
result, executable = captured()
before = driver().log().counts
for scale in (1.0, 0.98, 1.02, 0.01, 1.0):
    with driver().current():
        queue_copy(x.ctypes.data, now := coords * scale, stream)
        driver().call("cuGraphLaunch", executable, ctypes.c_void_p(stream))
    found = seen_on(result.forces.ctypes.data, coords.shape, stream)
    if scale < 0.5:  # all atoms are neighbours
        assert np.isnan(found).all()
        assert model.check()  # which knows nothing of graphs of others
    else:
        expected = model_of(golden("base"), device="cpu").evaluate(now, types, box)
        assert relative(found, expected.forces) <= 1e-11
assert driver().log().counts["copies_to_host"] - before["copies_to_host"] == 5  # of this test

model.evaluate(cupy.of_device(coords * 0.01), kinds, box).check()  # buffers grow, and the graph keeps its own
with driver().current():
    driver().call("cuGraphLaunch", executable, ctypes.c_void_p(stream))
assert relative(seen_on(result.forces.ctypes.data, coords.shape, stream), wanted.forces) <= 1e-11
"""


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("script", [DLPACK, CUPY, CAPTURE], ids=["dlpack", "cupy", "capture"])
def test_streams_of_callers(script: str, seed: int) -> None:
    env = {**os.environ, **environment(deferred=True, seed=seed), "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", COMMON + script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
