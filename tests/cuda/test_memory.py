"""Memory of a device that runs out, and evaluations that go on afterwards."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
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
        density = 14 / np.linalg.det(box)
        bytes_of = 1e9 * float(str(error).split("which take ")[1].split()[0])
        assert 0.8 < bytes_of / (model.memory_estimate(224, density) - model.memory_estimate(0)) < 1.2, error
    assert good(1) and good(8)
"""


#: what models say that an evaluation takes, and what their engines hold after one: lists that are full, and others
ESTIMATES = """
from gpu_models import full_model
from kind_models import kind_model

rng = np.random.default_rng(3)
grid = np.stack(np.meshgrid(*[np.arange(3.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)

def check(make, spacing, tolerance, copies=1, modes=(False, True, "deepmd")):
    model = make(device="cuda", on_overflow="ignore")
    spacing = spacing * model.rcut / 4.0
    coords = np.concatenate([grid + 3 * k * np.eye(3)[0] for k in range(copies)]) * spacing
    coords += rng.uniform(-0.1, 0.1, size=coords.shape) * spacing
    n, box = len(coords), 3 * spacing * np.diag([copies, 1, 1])
    given = {name: np.full((n, size) if name == "aparam" else size, 0.5) for name, size in sizes(model).items()}
    for mode in modes:
        model.evaluate(coords, rng.integers(0, len(model.type_map), n), box, atomic=mode, **given)
        held, said = model._gpu.native.bytes, model.memory_estimate(n, n / abs(np.linalg.det(box)), atomic=mode)
        assert abs(held - said) <= tolerance * (held - model.memory_estimate(0)), (mode, held, said)
        assert said == make(device="cpu").memory_estimate(n, n / abs(np.linalg.det(box)), atomic=mode, device="cuda:7")

def sizes(model):
    fitting = model.config.get("fitting_net") or {}
    names = {"fparam": "numb_fparam", "aparam": "numb_aparam"}
    return {name: fitting[key] for name, key in names.items() if fitting.get(key)}

def of(name, **options):
    return lambda **more: model_of(golden(name), **options, **more)

"""

#: buffers that share memory change no bit
SHARED = """
import pickle
from gpu_models import everything
from kind_models import kind, kind_model

found = everything(device="cuda")
system = kind("dipole").systems[0]
for mode in (False, "deepmd"):
    result = kind_model("dipole", device="cuda").evaluate(
        system.coord, system.atype, system.box, None, system.fparam, system.aparam, atomic=mode
    )
    found |= {f"dipole {name} {mode}": value for name, value in result.outputs.items()}
sys.stdout.buffer.write(pickle.dumps(found))
"""


def check_script(script: str, memory: int | None = None, separate: str = "") -> bytes:
    env = {**os.environ, **environment(memory=memory), "DPA2_GPU_SEPARATE_BUFFERS": separate}
    env |= {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", COMMON + script], env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_memory_that_runs_out() -> None:
    """Old buffers make room for new ones; where that is not enough the error says so, and smaller systems go on."""
    check_script(GROW, int(check_script(MEASURE)) + 100_000)


FULL, LIQUID = 1.15, 2.1  # spacing of a grid, in quarters of the cutoff: lists as long as they can be, and not


@pytest.mark.parametrize(
    "checks",
    [
        [f'check(of("base"), {FULL}, 0.0, modes=("deepmd",))', f'check(of("base"), {LIQUID}, 0.05, 2, modes=(False,))'],
        pytest.param(
            [f'check(of("base"), {FULL}, 0.0)',
             f'check(of("base", precision="float32"), {FULL}, 0.0)',
             f'check(of("base"), {LIQUID}, 0.05, 5, modes=(False,))',
             f'check(of("fparam_aparam"), {FULL}, 0.0, modes=(False,))',
             f'check(lambda **more: kind_model("dipole", **more), {FULL}, 0.0)',
             f'check(lambda **more: kind_model("zbl", **more), {FULL}, 0.0, modes=(False,))',
             f'check(lambda **more: kind_model("linear", **more), {FULL}, 0.0, modes=(False,))',
             'check(lambda **more: dpa2.Model(full_model(), **more), 0.6, 0.0, modes=(False,))'],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["some", "all"],
)  # fmt: skip
def test_estimates_are_what_engines_hold(checks: list[str]) -> None:
    """To the byte where the lists are as long as they can be; else as far as the density says how long they are."""
    check_script(ESTIMATES + "\n".join(checks))


@pytest.mark.slow
def test_buffers_that_share_memory_change_nothing() -> None:
    apart, together = (pickle.loads(check_script(SHARED, separate=separate)) for separate in ("1", ""))
    assert apart.keys() == together.keys()
    for name, value in apart.items():
        np.testing.assert_array_equal(together[name], value, err_msg=name)
