"""Many frames through a model, one after the other, or on the workers of any executor of ``concurrent.futures``.

>>> from concurrent.futures import ThreadPoolExecutor
>>> from dpa2.data import read_structures
>>> from dpa2.streams import evaluate_frames
>>> frames = itertools.chain(*read_structures("data"))              # doctest: +SKIP
>>> for frame, result in evaluate_frames(model, frames):            # doctest: +SKIP
...     print(frame.where, result.energy)

Frames are read as they are needed and come out in their order, so that a data set may be larger than the memory.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from .data import Frame
from .data.labels import spins_of
from .deviation import Deviation, deviation
from .errors import Error, EvaluationError, InputError, OutOfMemoryError, WorkFailedError
from .files.schema import parameters
from .inputs import Float
from .model import Model
from .options import Atomic
from .results import Result
from .workers import WorkerPool

T = TypeVar("T")
Pooling = Literal["none", "mean", "mean+std"]

#: A task of a worker ends with the frame that brings it to so many atoms, or to so many frames. Tasks depend on the
#: frames alone, so that results are the same bits however many workers there are.
TASK_ATOMS = 4096
TASK_FRAMES = 256
_MODELS_KEPT = 4
# How often the processes of an executor are looked at while a task is waited for, seconds, and how many looks in a row
# at one that has ended it gets to say so itself.
_LOOK_EVERY = 1.0
_LOOKS = 5


@dataclass(frozen=True)
class Parameters:
    """What a frame is evaluated with beside its structure: the fparam and aparam given here, else the frame's, and its
    spins; whatever the model takes of these."""

    fparam: ArrayLike | None
    aparam: ArrayLike | None
    takes_fparam: bool
    takes_aparam: bool
    takes_spins: bool

    @classmethod
    def of(cls, model: Model, fparam: ArrayLike | None = None, aparam: ArrayLike | None = None) -> Parameters:
        fitting = parameters(model.config)
        spins = model.kind == "spin"
        return cls(fparam, aparam, fitting["numb_fparam"] > 0, fitting["numb_aparam"] > 0, spins)

    def keywords(self, frame: Frame) -> dict[str, Any]:
        """The arguments of ``Model.evaluate``.

        Raises:
            InputError: the model needs spins, and the frame has none.
        """
        fparam = self.fparam if self.fparam is not None else frame.fparam if self.takes_fparam else None
        aparam = self.aparam if self.aparam is not None else frame.aparam if self.takes_aparam else None
        return {"fparam": fparam, "aparam": aparam, **({"spin": _spins(frame)} if self.takes_spins else {})}


def _spins(frame: Frame) -> Float:
    spins = spins_of(frame)
    if spins is None:
        raise InputError(
            f"{frame.where}: the model needs the spins of the atoms, and there are none: spin.npy in a deepmd system, "
            "a column spin:R:3 in extended XYZ"
        )
    return spins


def evaluate_frames(
    model: Model | str | os.PathLike[str],
    frames: Iterable[Frame],
    *,
    executor: Executor | None = None,
    ahead: int | None = None,
    atomic: Atomic = False,
    fparam: ArrayLike | None = None,
    aparam: ArrayLike | None = None,
    forces: bool = True,
) -> Iterator[tuple[Frame, Result]]:
    """Everything that a model computes for a stream of frames: of energy models energies, forces and virials.

    Args:
        model: a :class:`dpa2.Model`, which travels to every worker once per process; or the path of a model file
            that the workers can read, where they have a file system in common.
        frames: such as :func:`dpa2.data.read_structures` gives.
        executor: anything with the interface of ``concurrent.futures``: a pool of threads or processes, Dask's
            ``Client.get_executor()``, mpi4py's ``MPIPoolExecutor``. None: this process, with the model's threads.
        ahead: tasks that are handed out before the first result is waited for; two per worker by default, as far as
            the executor says how many it has, else two per core.
        atomic, fparam, aparam: as for :meth:`dpa2.Model.evaluate`, the same for all frames; without them the frames'
            own parameters are used if the model takes any.
        forces: as for :meth:`dpa2.Model.evaluate`: False leaves derivatives out.

    Yields:
        (frame, result) in the order of the frames; shapes and units as for :meth:`dpa2.Model.evaluate`.

    Raises:
        EvaluationError: a frame that cannot be evaluated; the message names it. Frames before it have come out.
    """
    task = partial(_evaluate_task, atomic=atomic, fparam=fparam, aparam=aparam, forces=forces)
    return _stream(model, frames, task, executor, ahead)


def descriptor_frames(
    model: Model | str | os.PathLike[str],
    frames: Iterable[Frame],
    *,
    executor: Executor | None = None,
    ahead: int | None = None,
    pooling: Pooling = "none",
) -> Iterator[tuple[Frame, Float]]:
    """Descriptors of a stream of frames.

    Args:
        model, frames, executor, ahead: as for :func:`evaluate_frames`.
        pooling: "none"; "mean" over the real atoms; "mean+std": the mean, then the standard deviation.

    Yields:
        (frame, descriptor): (natoms, descriptor_dim), or (descriptor_dim,) for "mean", (2 descriptor_dim,) for
        "mean+std"; float64, dimensionless.

    Raises:
        EvaluationError: see :func:`evaluate_frames`; also a frame without atoms to take the mean of.
    """
    if pooling not in ("none", "mean", "mean+std"):
        raise InputError(f'pooling must be "none", "mean" or "mean+std", got {pooling!r}')
    return _stream(model, frames, partial(_descriptor_task, pooling=pooling), executor, ahead)


def deviation_frames(
    models: Sequence[Model],
    frames: Iterable[Frame],
    *,
    executor: Executor | None = None,
    **options: Any,
) -> Iterator[tuple[Frame, Deviation]]:
    """How far several models are from each other on a stream of frames.

    Args:
        models: energy models. frames, executor: as for :func:`evaluate_frames`.
        options: of :func:`dpa2.deviation.deviation`.

    Yields:
        (frame, deviation) in the order of the frames.

    Raises:
        EvaluationError: see :func:`evaluate_frames`.
    """
    copies = itertools.tee(frames, len(models))
    streams = [evaluate_frames(model, copy, executor=executor) for model, copy in zip(models, copies, strict=True)]
    for found in zip(*streams, strict=True):
        frame = found[0][0]
        yield frame, deviation([result for _, result in found], frame, **options)


def process_pool(workers: int) -> WorkerPool:
    """A pool of processes for :func:`evaluate_frames`, to be used in a ``with`` statement.

    The processes are started afresh, share the cores between them unless ``OMP_NUM_THREADS`` says otherwise, and
    leave Ctrl-C and SIGTERM to their parent. One that is killed is an error, never a wait without end.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return WorkerPool(workers, max(1, cores // max(1, workers)))


# ------------------------------------------------------------------------------------------------ models on workers

_known: OrderedDict[str, Model] = OrderedDict()
_known_lock = threading.Lock()


def _remembered(key: str, make: Callable[[], Model]) -> Model:
    """The model of this process that ``key`` stands for."""
    with _known_lock:
        if key not in _known:
            _known[key] = make()
        _known.move_to_end(key)
        while len(_known) > _MODELS_KEPT:
            _known.popitem(last=False)
        return _known[key]


class _Ticket:
    """A model on its way to workers: itself within a process, bytes between them, unpacked once by each."""

    def __init__(self, source: Model | str | os.PathLike[str]) -> None:
        self.source = source if isinstance(source, Model) else os.fspath(source)
        self._reduced: tuple[Any, ...] | None = None

    @property
    def model(self) -> Model:
        return self.source if isinstance(self.source, Model) else _from_path(self.source)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reduced is None:
            if isinstance(self.source, Model):
                payload = pickle.dumps(self.source, protocol=5)
                self._reduced = _from_payload, (hashlib.sha256(payload).hexdigest(), payload)
            else:
                self._reduced = _Ticket, (self.source,)
        return self._reduced


def _from_path(path: str) -> Model:
    from .model import load

    facts = os.stat(path)
    return _remembered(f"{os.path.abspath(path)} {facts.st_size} {facts.st_mtime_ns}", lambda: load(path))


def _unpickled(payload: bytes) -> Model:
    model = pickle.loads(payload)
    assert isinstance(model, Model)
    return model


def _from_payload(digest: str, payload: bytes) -> _Ticket:
    return _Ticket(_remembered(digest, lambda: _unpickled(payload)))


# ------------------------------------------------------------------------------------------------ tasks


class TaskEnds:
    """Which frames of a stream end a task. A stream that is taken up again after such a frame has the same tasks."""

    def __init__(self) -> None:
        self._frames = self._atoms = 0

    def after(self, frame: Frame) -> bool:
        """Whether a task ends with this frame, the next of the stream."""
        self._frames += 1
        self._atoms += len(frame)
        if self._atoms < TASK_ATOMS and self._frames < TASK_FRAMES:
            return False
        self._frames = self._atoms = 0
        return True


def _tasks(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    task: list[Frame] = []
    ends = TaskEnds()
    for frame in frames:
        task.append(frame)
        if ends.after(frame):
            yield task
            task = []
    if task:
        yield task


def _stream(
    model: Model | str | os.PathLike[str],
    frames: Iterable[Frame],
    work: Callable[[_Ticket, list[Frame]], list[T]],
    executor: Executor | None,
    ahead: int | None,
) -> Iterator[tuple[Frame, T]]:
    if ahead is not None and ahead < 1:
        raise InputError(f"ahead must be a positive number of tasks, got {ahead!r}")
    ticket = _Ticket(model)
    if executor is None:
        return _here(ticket, frames, work)
    workers = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
    return _elsewhere(ticket, frames, work, executor, ahead or 2 * workers)


def _here(
    ticket: _Ticket, frames: Iterable[Frame], work: Callable[[_Ticket, list[Frame]], list[T]]
) -> Iterator[tuple[Frame, T]]:
    for task in _tasks(frames):
        yield from zip(task, work(ticket, task), strict=True)


def _elsewhere(
    ticket: _Ticket,
    frames: Iterable[Frame],
    work: Callable[[_Ticket, list[Frame]], list[T]],
    executor: Executor,
    ahead: int,
) -> Iterator[tuple[Frame, T]]:
    """As :func:`_here`, with at most ``ahead`` tasks handed out. An error comes after the results before it."""
    waiting: deque[tuple[list[Frame], Future[list[T]]]] = deque()
    tasks = _tasks(frames)
    failure: Exception | None = None
    try:
        while True:
            while failure is None and len(waiting) < ahead:
                try:
                    task = next(tasks, None)
                    if task is None:
                        break
                    waiting.append((task, executor.submit(work, ticket, task)))
                except Exception as error:
                    failure = error
            if not waiting:
                if failure is not None:
                    raise failure
                return
            done, future = waiting.popleft()
            found = _result(executor, future)
            yield from zip(done, found, strict=True)
    except BrokenExecutor as error:
        raise WorkFailedError(
            f"a worker ended while it was at work ({error}); if memory ran out, use fewer workers"
        ) from error
    finally:
        for _, future in waiting:
            future.cancel()


def _result(executor: Executor, future: Future[T]) -> T:
    """The result of a task; an executor that does not notice that one of its processes ended is not waited for."""
    looks = 0
    while True:
        try:
            return future.result(timeout=_LOOK_EVERY)
        except FutureTimeoutError:
            if future.done():
                return future.result()
        processes = list((getattr(executor, "_processes", None) or {}).values())
        looks = looks + 1 if any(process.exitcode for process in processes) else 0
        if looks == _LOOKS:
            for process in processes:
                process.kill()
            raise BrokenExecutor("its executor did not notice")


def _together(frames: Sequence[Frame], key: Callable[[Frame], object]) -> Iterator[list[Frame]]:
    """The frames in runs of equal ``key``."""
    run: list[Frame] = []
    for frame in frames:
        if run and key(run[-1]) != key(frame):
            yield run
            run = []
        run.append(frame)
    if run:
        yield run


def _by_runs(
    frames: list[Frame], compute: Callable[[list[Frame]], list[T]], single: Callable[[Frame], object]
) -> list[T]:
    """``compute`` for runs of frames that fit into one array each; errors are those of ``single`` and name a frame."""
    found: list[T] = []

    def shape_of(frame: Frame) -> object:
        return len(frame), frame.pbc, frame.box is None, _shape(frame.fparam), _shape(frame.aparam)

    for run in _together(frames, shape_of):
        try:
            found += compute(run)
        except Error:
            for frame in run:  # one of them: which?
                try:
                    single(frame)
                except Error as error:
                    text = str(error)
                    kind = OutOfMemoryError if isinstance(error, OutOfMemoryError) else EvaluationError
                    raise kind(text if text.startswith(frame.where) else f"{frame.where}: {text}") from error
                found += compute([frame])
    return found


def _shape(array: Float | None) -> tuple[int, ...] | None:
    return None if array is None else array.shape


def _arrays(model: Model, run: list[Frame]) -> dict[str, Any]:
    return {
        "coords": np.stack([frame.coords for frame in run]),
        "types": np.stack([frame.types_in(model.type_map) for frame in run]),
        "box": None if run[0].box is None else np.stack([frame.box for frame in run if frame.box is not None]),
        "pbc": run[0].pbc,
    }


def _evaluate_task(
    ticket: _Ticket,
    frames: list[Frame],
    atomic: Atomic,
    fparam: ArrayLike | None,
    aparam: ArrayLike | None,
    forces: bool,
) -> list[Result]:
    model = ticket.model
    parameters = Parameters.of(model, fparam, aparam)
    options: dict[str, Any] = {"atomic": atomic, "forces": forces, "hessian": False}

    def compute(run: list[Frame]) -> list[Result]:
        keywords = parameters.keywords(run[0])
        if fparam is None and keywords["fparam"] is not None:
            keywords["fparam"] = np.stack([np.asarray(frame.fparam) for frame in run])
        if aparam is None and keywords["aparam"] is not None:
            keywords["aparam"] = np.stack([np.asarray(frame.aparam) for frame in run])
        if "spin" in keywords:
            keywords["spin"] = np.stack([_spins(frame) for frame in run])
        found = model.evaluate(**_arrays(model, run), **keywords, **options)
        return [found.frame(f) for f in range(len(run))]

    def single(frame: Frame) -> object:
        types = frame.types_in(model.type_map)
        return model.evaluate(frame.coords, types, frame.box, frame.pbc, **parameters.keywords(frame), **options)

    return _by_runs(frames, compute, single)


def _pool(descriptor: Float, real: Any, pooling: Pooling) -> Float:
    if pooling == "none":
        return descriptor
    if not real.any():
        raise InputError("there is no atom to take the mean of")
    mean: Float = descriptor[real].mean(axis=0)
    return mean if pooling == "mean" else np.concatenate([mean, descriptor[real].std(axis=0)])


def _descriptor_task(ticket: _Ticket, frames: list[Frame], pooling: Pooling) -> list[Float]:
    model = ticket.model

    spins = model.kind == "spin"

    def compute(run: list[Frame]) -> list[Float]:
        arrays = _arrays(model, run)
        found = model.descriptor(**arrays, spin=np.stack([_spins(frame) for frame in run]) if spins else None)
        return [_pool(found[f], arrays["types"][f] >= 0, pooling) for f in range(len(run))]

    def single(frame: Frame) -> object:
        types = frame.types_in(model.type_map)
        found = model.descriptor(frame.coords, types, frame.box, frame.pbc, spin=_spins(frame) if spins else None)
        return _pool(found, types >= 0, pooling)

    return _by_runs(frames, compute, single)
