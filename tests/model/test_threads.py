"""Threads that cannot be had, threads of Python that outlive the interpreter, and models that many threads share."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from api_models import BOX, TYPES, frames, model_data
from dpa2 import inputs
from dpa2 import threads as limits
from dpa2.files import write_safetensors
from dpa2.model import Model

pytestmark = needs.native


def run(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", script, str(Path(__file__).parents[1]), *map(str, arguments)]
    return subprocess.run(
        command, timeout=120, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_limits_are_those_of_the_core() -> None:
    from dpa2 import _native

    assert _native.limits() == (inputs.LARGEST_LENGTH, limits.MOST_THREADS)


# ------------------------------------------------------------------------------------- threads that cannot be had

FEW = """
import resource, sys, threading
sys.path.insert(0, sys.argv[1])
from dpa2.model import Model
from api_models import lattice, model_data
model = Model(model_data(), threads=24)
coords, types, box = lattice(4)
expected = model.evaluate(coords, types, box)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[2]) * 2**20,) * 2)
def work():
    for _ in range(2):
        found = model.evaluate(coords, types, box)
        assert found.energy == expected.energy and (found.forces == expected.forces).all()
    print("the same bits")
# A thread of its own has no workers yet.
other = threading.Thread(target=work)
other.start()
other.join()
"""


@needs.linux
@pytest.mark.parametrize("megabytes", [100, 300, 900])
def test_fewer_threads_where_there_is_no_room_for_their_stacks(megabytes: int) -> None:
    """Room for none, for one, and for some of 24 threads with stacks of 64 MB: OpenMP would end the process."""
    done = run(FEW, megabytes, OMP_STACKSIZE="64M", MALLOC_ARENA_MAX="1")
    assert (done.returncode, done.stdout) == (0, "the same bits\n"), done.stderr


MANY = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from dpa2.model import Model
from api_models import lattice, model_data
model = Model(model_data(), threads=192)
coords, types, box = lattice(8)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 700 * 2**20,) * 2)
try:
    print(model.evaluate(coords, types, box).forces.shape)
except MemoryError as error:
    print(error)
print("goes on")
"""


@needs.linux
def test_many_threads_in_little_address_space_never_end_the_process() -> None:
    done = run(MANY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "goes on"


@pytest.mark.parametrize("possible", [0, 1, 2, 5])
def test_frames_side_by_side_on_the_threads_that_start(possible: int, monkeypatch: pytest.MonkeyPatch) -> None:
    coords, start, started = frames(33), threading.Thread.start, 0
    expected = Model(model_data(), threads=8).evaluate(coords, TYPES, BOX)
    lock = threading.Lock()

    def limited(thread: threading.Thread) -> None:
        nonlocal started
        with lock:
            if sum(t.name.startswith("dpa2") for t in threading.enumerate()) >= possible:
                raise RuntimeError("can't start new thread")
            started += 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    told: list[int] = []
    found = Model(model_data(), threads=8).evaluate(coords, TYPES, BOX, progress=lambda done, of: told.append(done))
    assert told == list(range(1, 34))
    assert (started > 0) == (possible > 0)
    # The last one is evaluated by itself, on all threads of OpenMP.
    np.testing.assert_array_equal(found.forces, expected.forces)
    np.testing.assert_array_equal(found.energy, expected.energy)


# ------------------------------------------------------------------------- threads that outlive the interpreter

DAEMON = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
import numpy as np
from dpa2.model import Model
from api_models import lattice, model_data
coords, types, box = lattice(12)
kind, path = sys.argv[2:4]
model = Model(model_data(), threads=2 if kind in ("two threads", "frames") else 1, skin=0.5)
if kind == "cython":
    from dpa2.cython_api import ModelHandle
    handle = ModelHandle(path)
running = threading.Event()
def work():
    while True:
        running.set()
        if kind == "descriptor":
            model.descriptor(coords, types, box)
        elif kind == "frames":
            model.evaluate(np.stack([coords[:64]] * 50), types[:64], box)
        elif kind == "cython":
            handle.evaluate(coords, types, box)
        else:
            model.evaluate(coords, types, box)
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
running.wait()
time.sleep(0.15)
print("ends")
"""


@pytest.mark.slow
@needs.library
@pytest.mark.parametrize("kind", ["evaluate", "two threads", "descriptor", "frames", "cython"])
def test_the_interpreter_ends_while_daemon_threads_evaluate(kind: str, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", model_data())
    done = run(DAEMON, kind, tmp_path / "model.safetensors")
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr
    assert "terminate" not in done.stderr


CALLBACK = """
import ctypes, sys, threading, time
sys.path.insert(0, sys.argv[1])
from api_models import BOX, COORDS, TYPES
from c_library import Parts, call, load, new_domain
model, domain = load(sys.argv[2]), new_domain()
parts = Parts(COORDS, TYPES, BOX, call("model_rcut", model.address))
def work():
    while True:
        parts.set(domain)
        parts.evaluate(domain, model)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
print("ends")
"""


@needs.library
def test_the_interpreter_ends_while_a_callback_of_an_exchange_wants_its_lock(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", model_data())
    done = run(CALLBACK, tmp_path / "model.safetensors")
    assert (done.returncode, done.stdout) == (0, "ends\n"), done.stderr


# ------------------------------------------------------------------------------------ a model that threads share


@pytest.mark.parametrize("natoms", [60, 1100])
def test_bits_with_a_skin_do_not_depend_on_who_evaluated_before(natoms: int) -> None:
    """Trajectories of the same atoms, in threads that share a model: each finds lists that others have left."""
    from api_models import lattice

    coords, types, box = lattice(11)
    coords, types = coords[:natoms], types[:natoms]
    plain, skinned = (Model(model_data(), threads=1, skin=skin) for skin in (0.0, 0.9))
    wrong: list[Any] = []

    def walk(seed: int) -> None:
        rng = np.random.default_rng(seed)
        x = coords + rng.normal(scale=0.02, size=coords.shape)
        for step in range(6 if natoms > 1000 else 30):
            x = x + rng.normal(scale=0.06, size=x.shape)
            if step % 3 == seed % 3:
                x = (x @ np.linalg.inv(box) % 1.0) @ box
            a, b = (model.evaluate(x, types, box, atomic=True) for model in (plain, skinned))
            for name in ("energy", "forces", "virial", "atom_energy", "atom_virial"):
                if not np.array_equal(getattr(a, name), getattr(b, name)):
                    wrong.append((seed, step, name))

    walkers = [threading.Thread(target=walk, args=(seed,)) for seed in range(3)]
    for walker in walkers:
        walker.start()
    for walker in walkers:
        walker.join()
    assert not wrong
