"""Molecular dynamics and large systems: the skin of the neighbour lists, and memory."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, TYPES, lattice, model_data
from dpa2.model import Model

pytestmark = needs.native


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [None, "into the cell", "anywhere"])
def test_skin_changes_nothing_along_a_walk(wrap: str | None) -> None:
    plain, skinned = (Model(model_data(), threads=2, skin=skin) for skin in (0.0, 0.8))
    assert (plain.skin, skinned.skin) == (0.0, 0.8)
    rng = np.random.default_rng(5)
    coords = COORDS.copy()
    for step in range(25):
        coords = coords + rng.normal(scale=0.05, size=coords.shape)
        if wrap == "into the cell":
            coords = (coords @ np.linalg.inv(BOX) % 1.0) @ BOX
        elif wrap == "anywhere":
            coords = coords + rng.integers(-2, 3, size=coords.shape) @ BOX
        box = BOX * (1.02 if step == 20 else 1.0)
        types = TYPES[::-1] if step == 10 else TYPES
        a, b = (model.evaluate(coords, types, box, atomic=True) for model in (plain, skinned))
        for name in ("energy", "forces", "virial", "atom_energy", "atom_virial"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        np.testing.assert_array_equal(plain.descriptor(coords, types, box), skinned.descriptor(coords, types, box))
    assert pickle.loads(pickle.dumps(skinned)).skin == 0.8


@pytest.mark.parametrize("skin", [-0.1, 1e3, float("nan"), "thin", True, None])
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_skin_is_checked(device: str, skin: Any) -> None:
    with pytest.raises(dpa2.InputError, match="skin must be a length between 0 and the cutoff"):
        Model(model_data(), device=device, skin=skin)


def test_load_takes_a_skin(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    Model(model_data()).save(path)
    assert dpa2.load(path, skin=1.5).skin == 1.5


def test_estimate_grows_with_everything() -> None:
    model = Model(model_data(), threads=1)
    base = model.memory_estimate(1000)
    assert base == model.memory_estimate(1000, density=0.1)
    assert base == pytest.approx(model.memory_estimate(1000, neighbors=0.1 * 4 / 3 * np.pi * model.rcut**3), rel=1e-6)
    assert model.memory_estimate(2000) > 1.8 * base
    assert model.memory_estimate(1000, density=0.2) > base
    assert model.memory_estimate(1000, atomic=True) > base
    assert model.memory_estimate(1000, atomic="deepmd") > model.memory_estimate(1000, atomic=True)
    assert Model(model_data(), precision="float32", threads=1).memory_estimate(1000) < base
    assert Model(model_data(), threads=1, skin=1.0).memory_estimate(1000) > base
    assert model.memory_estimate(0) < 10**7


@pytest.mark.parametrize(
    "arguments",
    [
        {"natoms": -1},
        {"natoms": 1.5},
        {"natoms": 10, "density": 0.1, "neighbors": 3},
        {"natoms": 10, "density": -1.0},
        {"natoms": 10, "neighbors": float("nan")},
        {"natoms": 10, "atomic": "edges"},
        {"natoms": 2**63},
        {"natoms": np.uint64(2**63)},
        {"natoms": "10"},
        {"natoms": True},
        {"natoms": 10, "density": "x"},
        {"natoms": 10, "density": True},
        {"natoms": 10, "density": 1j},
        {"natoms": 10, "density": [0.1]},
        {"natoms": 10, "density": float("inf")},
        {"natoms": 10, "density": 1.7e308},
        {"natoms": 10, "density": 10**400},
        {"natoms": 10, "neighbors": "x"},
        {"natoms": 10, "neighbors": 10**400},
    ],
)
def test_estimate_checks_its_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(dpa2.InputError, match=r"natoms|density|neighbors|atomic"):
        Model(model_data()).memory_estimate(**arguments)


@pytest.mark.parametrize("options", [{}, {"atomic": "deepmd"}, {"neighbors": 1e300}, {"density": 1e300}])
@pytest.mark.parametrize("threads", [1, 4096])
def test_estimates_beyond_all_numbers(options: dict[str, Any], threads: int) -> None:
    model = Model(model_data(), threads=threads, skin=1.0)
    last = 0
    for n in [10**k for k in range(9, 19)] + [2**62, 2**63 - 1]:
        estimate = model.memory_estimate(n, **options)
        assert last <= estimate <= 2**63 - 1
        assert estimate >= n
        last = estimate
    assert last == 2**63 - 1
    plain = Model(model_data(), threads=1)
    # In proportion, but for the images at the faces of the cell.
    assert plain.memory_estimate(10**14) == pytest.approx(100 * plain.memory_estimate(10**12), rel=1e-3)


def test_reference_has_no_estimate() -> None:
    with pytest.raises(dpa2.InputError, match='device="cpu"'):
        Model(model_data(), device="reference").memory_estimate(10)


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any look for a driver or a compiler fails."""
    for name in ("DPA2_CUDA_DRIVER", "DPA2_NVRTC"):
        monkeypatch.setenv(name, "/nowhere/lib.so")


def test_estimate_of_a_gpu(no_cuda: None) -> None:
    """Whatever the model is loaded on: it grows with everything, and is in proportion to the atoms of large systems."""
    model = Model(model_data(), threads=1)
    estimate = partial(model.memory_estimate, device="cuda")
    base, constants = estimate(10**5), estimate(0)
    assert constants < 10**7
    assert base == estimate(10**5, density=0.1) == model.memory_estimate(10**5, device="cuda:3")
    assert base == Model(model_data(), device="reference").memory_estimate(10**5, device="cuda")
    assert estimate(5 * 10**6) - constants == pytest.approx(5 * (estimate(10**6) - constants), rel=3e-3)
    assert estimate(10**5, density=0.2) > base
    assert estimate(10**5, neighbors=0.0) < base
    assert estimate(10**5, atomic=True) > base
    assert estimate(10**5, atomic="deepmd") > estimate(10**5, atomic=True)
    single = Model(model_data(), precision="float32").memory_estimate(10**5, device="cuda")
    assert 0.4 * base < single < 0.7 * base
    sizes = [estimate(n) for n in (1, 2, 3, 10, 100, 1000, 10**4)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"natoms": 10**9}, "1000000000 atoms with up to [0-9]+ neighbours are more than one device can number"),
        ({"natoms": 2**63 - 1}, "more than one device can number"),
        ({"natoms": -1}, "natoms"),
        ({"natoms": 10, "density": -1.0}, "density"),
        ({"natoms": 10, "atomic": "both"}, "atomic"),
        ({"natoms": 10, "device": "gpu"}, "device must be one of"),
        ({"natoms": 10, "device": "reference"}, 'load it with device="cpu"'),
        ({"natoms": 10, "device": None, "density": 1e300, "neighbors": 1.0}, "not both"),
    ],
)
def test_estimate_of_a_gpu_checks_its_arguments(no_cuda: None, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(dpa2.InputError, match=words):
        Model(model_data()).memory_estimate(**{"device": "cuda", **arguments})


MEASURE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from dpa2.model import Model
from api_models import lattice, model_data
model = Model(model_data(), threads=int(sys.argv[3]), precision=sys.argv[2])
# Not ru_maxrss: a process starts with its parent's, which may be the larger one.
peak = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
coords, types, box = lattice(4)
model.evaluate(coords, types, box)
del model
model = Model(model_data(), threads=int(sys.argv[3]), precision=sys.argv[2])
coords, types, box = lattice(22)
resident = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
model.evaluate(coords, types, box)
print(peak() - resident, model.memory_estimate(len(coords), density=0.1))
"""


@needs.linux
@pytest.mark.parametrize(("precision", "threads"), [("float64", 1), ("float32", 2)])
def test_estimate_is_what_an_evaluation_takes(precision: str, threads: int) -> None:
    here = str(Path(__file__).parents[1])
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, here, precision, str(threads)]
    grown, estimate = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert 0.75 * grown < estimate < 1.35 * grown, (grown, estimate)


SHORT = """
import hashlib, os, resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from dpa2.model import Model
from api_models import lattice, model_data
coords, types, box = lattice(30)
model = Model(model_data(), threads=1)
status = lambda key: int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) * 1024
model.evaluate(*lattice(3))  # the pages of the code, and scratch, are no part of the estimate
resident, estimate = status("VmRSS"), model.memory_estimate(len(coords), density=0.1)
if float(sys.argv[2]) > 0:
    os.environ["DPA2_MEMORY_LIMIT"] = str(resident + int(float(sys.argv[2]) * estimate))
model.evaluate(coords, types, box)
result = model.evaluate(coords, types, box)  # in the memory that the first one left
arrays = (result.forces, result.virial, result.atom_energy)
print(status("VmHWM") - resident, hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest())
"""


@pytest.mark.slow
@needs.linux
def test_short_memory_is_made_up_for_and_changes_no_bit() -> None:
    """Pair features that do not fit are computed again in the backward."""

    def run(fraction: float) -> tuple[int, str]:
        command = [sys.executable, "-W", "ignore", "-c", SHORT, str(Path(__file__).parents[1]), str(fraction)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, (fraction, done.stderr)
        grown, digest = done.stdout.split()
        return int(grown), digest

    plenty, expected = run(0)
    for fraction in (0.95, 0.8, 0.65):
        short, found = run(fraction)
        assert found == expected
        assert short < min(fraction + 0.05, 0.9) * plenty, (fraction, short, plenty)


STEPS = """
import os, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from dpa2.files import ModelData
from dpa2.model import Model
from random_model import random_model
from api_models import lattice
repformer = {
    "nlayers": 6, "g1_dim": 128, "g2_dim": 4, "nsel": 40, "axis_neuron": 2, "g1_out_mlp": True, "update_h2": False,
    "update_g1_has_attn": False, "update_g2_has_attn": False, "update_g2_has_g1g1": False}
repinit = {"neuron": [3, 6], "nsel": 80, "three_body_sel": 40}
rng = np.random.default_rng(3)
data = ModelData(*random_model(rng, ntypes=3, repinit=repinit, repformer=repformer, fitting={"neuron": [5]}))
coords, types, box = lattice(16)
model = Model(data, threads=1)
estimate = model.memory_estimate(len(coords), density=0.1)
resident = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) * 1024
os.environ["DPA2_MEMORY_LIMIT"] = str(resident() + int(0.8 * estimate))
model.evaluate(coords, types, box)
os.environ["DPA2_MEMORY_LIMIT"] = str(resident())
model.evaluate(coords, types, box)
try:
    model.evaluate(*lattice(20))
except MemoryError:
    print("a larger system does not fit")
"""


@needs.linux
def test_a_second_step_asks_for_no_more_than_the_first() -> None:
    """A workspace that was made small at the first step holds all that the next one needs."""
    command = [sys.executable, "-W", "ignore", "-c", STEPS, str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "a larger system does not fit\n", done.stderr


@pytest.mark.parametrize("call", [lambda m, *a: m.evaluate(*a), lambda m, *a: m.evaluate(*a, atomic=True)])
def test_too_little_memory_is_a_memory_error(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(model_data(), threads=2)
    coords, types, box = lattice(25)
    monkeypatch.setenv("DPA2_MEMORY_LIMIT", "50M")
    pattern = r"evaluating 15625 atoms needs .* more memory .* DPA2_MEMORY_LIMIT leaves 0 MiB: evaluate fewer atoms"
    with pytest.raises(MemoryError, match=pattern) as caught:
        call(model, coords, types, box)
    assert isinstance(caught.value, dpa2.OutOfMemoryError)
    with pytest.raises(dpa2.OutOfMemoryError, match=r"^frame 0: "):
        call(model, coords[None], types, box)
    # A small structure passes, and so does the large one where there is memory.
    call(model, COORDS, TYPES, BOX)
    monkeypatch.delenv("DPA2_MEMORY_LIMIT")
    assert np.isfinite(model.evaluate(coords[:300], types[:300], box).forces).all()


def test_limit_must_be_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(model_data())
    monkeypatch.setenv("DPA2_MEMORY_LIMIT", "plenty")
    coords, types, box = lattice(25)
    with pytest.raises(dpa2.InputError, match="DPA2_MEMORY_LIMIT is 'plenty'"):
        model.evaluate(coords, types, box)


@pytest.mark.parametrize(
    ("name", "value"),
    [("DPA2_MEMORY_LIMIT", "plenty"), ("DPA2_MEMORY_LIMIT", "-1"), ("DPA2_SERIES", "maybe"), ("DPA2_SERIES", "0")],
)
def test_senseless_variables_are_found_when_a_model_is_loaded(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Model(model_data()).save(tmp_path / "model.safetensors")
    monkeypatch.setenv(name, value)
    with pytest.raises(dpa2.InputError, match=f"{name} is '{value}'"):
        dpa2.load(tmp_path / "model.safetensors")
    for sensible in ("", "8G" if name == "DPA2_MEMORY_LIMIT" else "off"):
        monkeypatch.setenv(name, sensible)
        dpa2.load(tmp_path / "model.safetensors")


RLIMIT = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from dpa2.model import Model
from api_models import lattice, model_data
model = Model(model_data(), threads=1)
coords, types, box = lattice(40)
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[2]) * 2**20,) * 2)
try:
    model.evaluate(coords, types, box)
except MemoryError as error:
    print(error)
"""


@needs.linux
@pytest.mark.parametrize("megabytes", [20, 80, 160])
def test_address_space_that_ends_anywhere_is_a_memory_error(megabytes: int) -> None:
    """Before the lists, in them, or after them."""
    command = [sys.executable, "-W", "ignore", "-c", RLIMIT, str(Path(__file__).parents[1]), str(megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "memory" in done.stdout
