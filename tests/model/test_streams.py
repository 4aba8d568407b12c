"""Frames through executors: the same results from every one of them, in order, with errors that name the frame."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, TYPES, frames, make_model, model_data, work_in
from dpa2 import streams
from dpa2.data import Frame
from dpa2.streams import descriptor_frames, evaluate_frames, process_pool
from dpa2.workers import WorkerEnded

DEVICE = "cpu" if needs.HAS_NATIVE else "reference"
MODEL = make_model(DEVICE)


def stream(count: int = 9) -> Iterator[Frame]:
    """Frames of two kinds in turn, open and periodic."""
    for k, coords in enumerate(frames(count)):
        if k % 3 == 2:
            yield Frame(coords[:3], TYPES[:3], MODEL.type_map, where=f"memory, frame {k}")
        else:
            yield Frame(coords, TYPES, MODEL.type_map, BOX, (True, True, True), where=f"memory, frame {k}")


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "TASK_ATOMS", 10)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def threads() -> Executor:
    return ThreadPoolExecutor(2)


def processes() -> Executor:
    return process_pool(2)


class Immediate(Executor):
    """The least that an executor is: `submit` and futures. Everything goes through pickle, as to another machine."""

    def __init__(self) -> None:
        self.waiting = self.most = 0

    def submit(self, fn: Callable[..., object], /, *args: object, **keywords: object) -> Future[object]:
        future: Future[object] = Future()
        fn, args, keywords = pickle.loads(pickle.dumps((fn, args, keywords)))
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        result = future.result

        def taken(timeout: float | None = None) -> object:
            self.waiting -= 1
            return result(timeout)

        future.result = taken  # type: ignore[method-assign]
        try:
            future.set_result(fn(*args, **keywords))
        except BaseException as error:
            future.set_exception(error)
        return future


def dask() -> Executor:
    distributed = needs.package("distributed")
    client = distributed.Client(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, set_as_default=False
    )
    executor: Executor = client.get_executor()
    return executor


@pytest.mark.parametrize("make", [lambda: None, threads, processes, Immediate])
def test_every_executor_finds_the_same(make: Callable[[], Executor | None]) -> None:
    executor = make()
    context: AbstractContextManager[object] = executor if executor is not None else nullcontext()
    with context:
        results = list(evaluate_frames(MODEL, stream(), executor=executor, atomic=True))
        descriptors = list(descriptor_frames(MODEL, stream(), executor=executor))
    assert [frame.where for frame, _ in results] == [f"memory, frame {k}" for k in range(9)]
    for (frame, result), (_, descriptor) in zip(results, descriptors, strict=True):
        expected = MODEL.evaluate(frame.coords, frame.types, frame.box, atomic=True)
        assert result.energy == pytest.approx(expected.energy, rel=1e-13)
        for name in ("forces", "virial", "atom_energy", "atom_virial"):
            np.testing.assert_allclose(getattr(result, name), getattr(expected, name), rtol=0, atol=1e-13)
        np.testing.assert_allclose(descriptor, MODEL.descriptor(frame.coords, frame.types, frame.box), atol=1e-13)


@pytest.mark.filterwarnings("ignore")
def test_values_without_derivatives() -> None:
    found = [result for _, result in evaluate_frames(MODEL, stream(), forces=False)]
    assert all(result.forces is None and result.virial is None for result in found)
    assert [result.energy for result in found] == [result.energy for _, result in evaluate_frames(MODEL, stream())]


def test_executor_of_dask() -> None:
    executor = dask()
    try:
        found = [result.energy for _, result in evaluate_frames(MODEL, stream(), executor=executor)]
    finally:
        executor.shutdown()
        executor._client.close()  # type: ignore[attr-defined]
    assert found == [result.energy for _, result in evaluate_frames(MODEL, stream())]


def test_interface_of_mpi4py() -> None:
    """What MPIPoolExecutor is made of; without several MPI processes it runs its tasks in this one."""
    needs.package("mpi4py")
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from mpi4py.futures import MPICommExecutor
from mpi4py import MPI
from model.test_streams import MODEL, stream
from dpa2.streams import evaluate_frames
with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
    print(sum(result.energy for _, result in evaluate_frames(MODEL, stream(), executor=executor)))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=False)
    if "MPI_Init" in done.stderr or "cannot load MPI" in done.stderr:
        pytest.skip("mpi4py finds no MPI library")
    assert done.returncode == 0, done.stderr
    expected = sum(float(result.energy) for _, result in evaluate_frames(MODEL, stream()))
    assert float(done.stdout) == pytest.approx(expected, rel=1e-13)


def test_no_more_tasks_are_handed_out_than_allowed() -> None:
    executor = Immediate()
    assert len(list(evaluate_frames(MODEL, stream(20), executor=executor, ahead=3))) == 20
    assert executor.most == 3
    taken = []

    def watched() -> Iterator[Frame]:
        for frame in stream(40):
            taken.append(frame)
            yield frame

    found = evaluate_frames(MODEL, watched(), executor=Immediate(), ahead=2)
    next(found)
    assert len(taken) < 12
    with pytest.raises(dpa2.InputError, match="ahead must be a positive number of tasks, got 0"):
        evaluate_frames(MODEL, stream(), executor=executor, ahead=0)


def test_model_travels_once_and_is_unpacked_once() -> None:
    ticket = streams._Ticket(MODEL)
    assert ticket.model is MODEL
    payload = pickle.dumps(ticket)
    first, second = pickle.loads(payload), pickle.loads(payload)
    assert first.model is second.model is not MODEL
    assert first.model.config == MODEL.config


def test_path_in_place_of_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_in(tmp_path, monkeypatch)
    executor = Immediate()
    found = [result.energy for _, result in evaluate_frames("model.safetensors", stream(), executor=executor)]
    own = [result.energy for _, result in evaluate_frames(dpa2.load("model.safetensors"), stream())]
    assert found == own
    assert len(pickle.dumps(streams._Ticket("model.safetensors"))) < 200


@pytest.mark.parametrize("make", [lambda: None, threads, Immediate])
def test_errors_name_the_frame(make: Callable[[], Executor | None]) -> None:
    def spoilt() -> Iterator[Frame]:
        for k, frame in enumerate(stream()):
            if k == 4:
                frame.coords[1, 2] = np.inf
            yield frame

    found = []
    executor = make()
    context: AbstractContextManager[object] = executor if executor is not None else nullcontext()
    with (
        context,
        pytest.raises(dpa2.EvaluationError, match=r"^memory, frame 4: coords of atom 1: z = inf is not finite"),
    ):
        found.extend(evaluate_frames(MODEL, spoilt(), executor=executor))
    assert len(found) <= 4


def test_worker_that_dies_is_an_error() -> None:
    with process_pool(1) as executor:
        assert executor.submit(abs, -1).result() == 1
        for process in executor._processes.values():
            process.kill()
        with pytest.raises(dpa2.EvaluationError, match="a worker ended while it was at work"):
            list(evaluate_frames(MODEL, stream(), executor=executor))


def test_results_before_a_dead_worker_come_out() -> None:
    """Also where the next task cannot be handed out any more."""

    class Dies(Immediate):
        def submit(self, fn: Callable[..., object], /, *args: object, **keywords: object) -> Future[object]:
            if self.most == 3:
                raise BrokenExecutor("gone")
            return super().submit(fn, *args, **keywords)

    found = []
    with pytest.raises(dpa2.EvaluationError, match=r"a worker ended while it was at work \(gone\)"):
        found.extend(evaluate_frames(MODEL, stream(20), executor=Dies(), ahead=8))
    assert len(found) >= 6


def test_executor_that_does_not_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_LOOK_EVERY", 0.01)
    killed = []

    class Dead:
        exitcode = -9

        def kill(self) -> None:
            killed.append(self)

    class Unaware(Executor):
        _processes: ClassVar = {1: Dead()}

        def submit(self, fn: Callable[..., object], /, *args: object, **keywords: object) -> Future[object]:
            return Future()

    with pytest.raises(dpa2.EvaluationError, match="its executor did not notice"):
        list(evaluate_frames(MODEL, stream(), executor=Unaware()))
    assert killed


def test_pool_reports_what_tasks_raise_and_how_workers_end() -> None:
    with process_pool(1) as pool:
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
        with pytest.raises(WorkerEnded, match="it ended with status 3"):
            pool.submit(os._exit, 3).result()
        with pytest.raises(WorkerEnded, match="it ended with status 3"):
            pool.submit(abs, 1)
    with pytest.raises(dpa2.InputError, match="the number of workers must be from 1 to 1024, got 9999"):
        process_pool(9999)


def test_pool_that_nobody_ends_does_not_keep_the_interpreter() -> None:
    script = "import time\nfrom dpa2.streams import process_pool\nprocess_pool(1).submit(time.sleep, 1000)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_parameters_are_the_frames_own_or_given() -> None:
    model = make_model(DEVICE, nf=2, na=1)

    def with_parameters() -> Iterator[Frame]:
        for k, coords in enumerate(frames(4)):
            fparam, aparam = np.array([0.1 * k, 1.0]), np.full((5, 1), 0.2 * k)
            yield Frame(coords, TYPES, model.type_map, BOX, (True,) * 3, fparam=fparam, aparam=aparam, where=f"f {k}")

    for frame, result in evaluate_frames(model, with_parameters()):
        own = model.evaluate(frame.coords, TYPES, BOX, fparam=frame.fparam, aparam=frame.aparam)
        assert result.energy == own.energy
    given = [result.energy for _, result in evaluate_frames(model, with_parameters(), fparam=[1, 2], aparam=[0.5])]
    assert given == model.evaluate(frames(4), TYPES, BOX, fparam=[1, 2], aparam=[0.5]).energy.tolist()
    plain = [result.energy for _, result in evaluate_frames(MODEL, with_parameters())]  # takes none
    assert plain == MODEL.evaluate(frames(4), TYPES, BOX).energy.tolist()


def test_pooling() -> None:
    types = np.array([0, 1, -1, 2, 0])
    frame = Frame(COORDS, types, MODEL.type_map, where="memory, frame 0")
    descriptor = MODEL.descriptor(COORDS, types)[types >= 0]
    ((_, mean),) = descriptor_frames(MODEL, [frame], pooling="mean")
    ((_, both),) = descriptor_frames(MODEL, [frame], pooling="mean+std")
    np.testing.assert_allclose(mean, descriptor.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(both, np.concatenate([descriptor.mean(axis=0), descriptor.std(axis=0)]), rtol=1e-14)
    nothing = Frame(COORDS, np.full(5, -1, dtype=np.int32), MODEL.type_map, where="memory, frame 7")
    with pytest.raises(dpa2.EvaluationError, match="memory, frame 7: there is no atom to take the mean of"):
        list(descriptor_frames(MODEL, [nothing], pooling="mean"))
    with pytest.raises(dpa2.InputError, match='pooling must be "none", "mean" or'):
        descriptor_frames(MODEL, [frame], pooling="sum")  # type: ignore[arg-type]


def test_models_are_picklable() -> None:
    again = pickle.loads(pickle.dumps(dpa2.Model(model_data(), threads=1, device=DEVICE)))
    assert again.threads == 1
    assert again.evaluate(COORDS, TYPES, BOX).energy == MODEL.evaluate(COORDS, TYPES, BOX).energy
