"""What only a real device can show, through Python. What can also runs on the emulated one, so that it is a test.

Without a GPU the half on the device is skipped, and says so: python -m pytest -m requires_gpu -rs
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from gpu_models import OnDevice, emulate, full_model, host
from helpers import CASES, golden, model_of, relative
from random_model import STRUCTURES, random_structure

FIELDS = {"energy": "energy", "atom_energy": "atom_energy", "force": "forces", "virial": "virial"}


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.requires_gpu)])
def real(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether there is a GPU below device="cuda"."""
    if request.param == "emulated":
        emulate(monkeypatch)
    return bool(request.param == "gpu")


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", needs.mostly_slow(["base", "published_medium", "rough_strip"], {"rough_strip"}))
def test_golden_models(real: bool, name: str, precision: str) -> None:
    data, model = golden(name), model_of(golden(name), device="cuda", precision=precision)
    bound = CASES[name].tolerance if precision == "float64" else 2e-4
    for system in data.systems[: 9 if real else 1]:
        frames = slice(0, None if real else 1)
        box = None if system.box is None else system.box[frames]
        parameters = {
            key: None if rows is None else rows[frames]
            for key, rows in (("fparam", system.fparam), ("aparam", system.aparam))
        }
        result = model.evaluate(system.coord[frames], system.atype, box, **parameters)
        for theirs, mine in FIELDS.items():
            wanted = np.asarray(system.expected[theirs][frames])
            scale = max(1.0, float(np.abs(wanted).max()))
            found = np.reshape(getattr(result, mine), wanted.shape)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=bound * scale, err_msg=theirs)


def base_frame() -> tuple[Any, Any, Any]:
    system = golden("base").systems[0]
    return system.coord[0], system.atype.astype(np.int32), None if system.box is None else system.box[0]


def test_every_run_is_the_same(real: bool) -> None:
    """Bit by bit: nothing is summed in the order in which threads happen to come; plain launches and graphs."""
    answers = set()
    for _ in range(5 if real else 2):
        model = model_of(golden("base"), device="cuda", precision="float32")
        for _ in range(4):
            result = model.evaluate(*base_frame(), atomic=True)
            answers.add(b"".join(np.asarray(getattr(result, name)).tobytes() for name in FIELDS.values()))
    assert len(answers) == 1


def test_arrays_of_the_device(real: bool) -> None:
    coords, types, box = base_frame()
    model = model_of(golden("base"), device="cuda")
    wanted = model.evaluate(coords, types, box)
    result = model.evaluate(OnDevice(coords), OnDevice(types), box).check()
    for name in FIELDS.values():
        np.testing.assert_array_equal(host(getattr(result, name)), getattr(wanted, name))


def test_random_structures(real: bool) -> None:
    """Boxes of every kind, in any order, as on the CPU: capacities grow with what comes."""
    rng = np.random.default_rng(5)
    cpu, gpu = (dpa2.Model(full_model(), "float64", device=device, on_overflow="ignore") for device in ("cpu", "cuda"))
    for number in range(300 if real else 6):
        natoms, kind = int(rng.integers(1, 9)), STRUCTURES[number % len(STRUCTURES)]
        structure = random_structure(rng, 2, natoms, kind, bool(rng.integers(2)))
        wanted, found = (model.evaluate(*structure, atomic=True) for model in (cpu, gpu))
        for name in (*FIELDS.values(), "atom_virial"):
            assert relative(getattr(found, name), getattr(wanted, name)) <= 1e-10, (number, kind, name)


def test_threads_take_turns(real: bool) -> None:
    coords, types, box = base_frame()
    model = model_of(golden("base"), device="cuda")
    inputs = [coords * (1 + 0.01 * k) for k in range(4)]
    wanted = [model.evaluate(x, types, box).forces for x in inputs]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(50 if real else 2):
            if not np.array_equal(host(model.evaluate(OnDevice(inputs[k]), types, box).check().forces), wanted[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.requires_gpu
@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_streams_of_libraries(library: str) -> None:
    """Coordinates that are still being made on a side stream, and forces that are used on it at once."""
    xp: Any = pytest.importorskip(library, reason=f"{library} is not installed: NOTHING WAS CHECKED")
    coords, types, box = base_frame()
    model = model_of(golden("base"), device="cuda")
    shifted = model.evaluate(coords + 0.25, types, box).forces
    if library == "torch":
        x, stream = xp.tensor(coords, device="cuda"), xp.cuda.Stream()
        xp.cuda.synchronize()
        for _ in range(20):
            with xp.cuda.stream(stream):
                late = xp.ones((4096, 4096), device="cuda")
                for _ in range(10):
                    late = late @ late * 0.0 + 1.0
                result = model.evaluate(x + 0.25 * late[0, 0].double(), types, box)
                found = xp.from_dlpack(result.forces) * 1.0
            stream.synchronize()
            np.testing.assert_allclose(found.cpu().numpy(), shifted, rtol=0, atol=1e-10)
        return
    x = xp.asarray(coords)
    xp.cuda.Device().synchronize()
    for _ in range(20):
        with xp.cuda.Stream(non_blocking=True) as stream:
            late = xp.ones((4096, 4096), xp.float32)
            for _ in range(10):
                late = late @ late * xp.float32(0) + xp.float32(1)
            result = model.evaluate(x + 0.25 * late[0, 0], types, box)
            found = result.forces * 1.0
        stream.synchronize()
        np.testing.assert_allclose(xp.asnumpy(found), shifted, rtol=0, atol=1e-10)


@pytest.mark.requires_gpu
def test_captured_by_the_caller() -> None:
    """A graph of CuPy's that holds an evaluation follows its coordinates."""
    xp: Any = pytest.importorskip("cupy", reason="cupy is not installed: NOTHING WAS CHECKED")
    importlib.import_module("cupy.cuda")
    coords, types, box = base_frame()
    model = model_of(golden("base"), device="cuda")
    x, kinds = xp.asarray(coords), xp.asarray(types)
    with xp.cuda.Stream(non_blocking=True) as stream:
        model.evaluate(x, kinds, box).check()
        stream.begin_capture()
        result = model.evaluate(x, kinds, box)
        graph = stream.end_capture()
        for shift in (0.0, 0.1, 0.2):
            x[...] = xp.asarray(coords * (1 + 0.1 * shift))
            graph.launch(stream)
            stream.synchronize()
            wanted = model_of(golden("base"), device="cpu").evaluate(coords * (1 + 0.1 * shift), types, box)
            np.testing.assert_allclose(xp.asnumpy(result.forces), wanted.forces, rtol=0, atol=1e-9)
