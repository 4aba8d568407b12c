"""A pool of processes that notices when one of them ends, whatever it was doing.

Every worker has a pipe of its own and a thread here that waits for both, the answer and the end of the process. There
is nothing that a worker could leave locked or half written for others, as there is in ``ProcessPoolExecutor``.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import queue
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, ParamSpec, TypeVar

from .errors import InputError

P = ParamSpec("P")
T = TypeVar("T")

MOST_WORKERS = 1024
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


class WorkerEnded(BrokenExecutor):
    """A worker ended before its task was done; the message says how."""


@dataclass
class _Task:
    future: Future[Any]
    payload: bytes


class WorkerPool(Executor):
    """Processes that are started afresh when there is work for them, and leave Ctrl-C and SIGTERM to their parent.

    They end with :meth:`shutdown`, with this process however it ends, and with :meth:`kill_workers`.

    Args:
        workers: how many processes at most.
        threads: of each, unless ``OMP_NUM_THREADS`` says otherwise.
    """

    def __init__(self, workers: int, threads: int = 1) -> None:
        if not 1 <= workers <= MOST_WORKERS:
            raise InputError(f"the number of workers must be from 1 to {MOST_WORKERS}, got {workers}")
        self._max_workers = workers
        self._thread_count = threads
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._closed = False
        self._ended: str | None = None
        self._threads: list[threading.Thread] = []
        self._processes: dict[int, SpawnProcess] = {}
        self._owner = os.getpid()
        _pools.add(self)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand out a task; raises :class:`WorkerEnded` when a worker has ended before."""
        payload = bytes(ForkingPickler.dumps((fn, args, kwargs)))
        with self._lock:
            if self._ended is not None:
                raise WorkerEnded(self._ended)
            if self._closed:
                raise RuntimeError("cannot hand out tasks after the shutdown")
            future: Future[T] = Future()
            self._tasks.put(_Task(future, payload))
            if self._idle > 0:
                self._idle -= 1
            elif len(self._threads) < self._max_workers:
                thread = threading.Thread(target=self._attend, daemon=True)
                self._threads.append(thread)
                thread.start()
            return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers when their tasks are done; with ``cancel_futures`` those that have not begun are dropped."""
        with self._lock:
            self._closed = True
            if cancel_futures:
                self._drop_tasks(lambda future: future.cancel())
            for _ in self._threads:
                self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def kill_workers(self) -> None:
        """End the workers at once; the futures of unfinished tasks raise."""
        with self._lock:
            self._closed = True
            self._ended = self._ended or "the workers were stopped"
            processes = list(self._processes.values())
        for process in processes:
            process.kill()
        self.shutdown()

    def _drop_tasks(self, drop: Callable[[Future[Any]], object]) -> None:
        with suppress(queue.Empty):
            while True:
                task = self._tasks.get_nowait()
                if task is not None:
                    drop(task.future)

    def _attend(self) -> None:
        """Start a worker and hand it one task after the other; the body of a thread."""
        process: SpawnProcess | None = None
        pipe: Connection | None = None
        try:
            while (task := self._tasks.get()) is not None:
                if task.future.set_running_or_notify_cancel():
                    if pipe is None:
                        try:
                            process, pipe = self._start()
                        except BaseException as error:
                            self._fail(task, f"a worker could not be started: {error}")
                            return
                    assert process is not None
                    try:
                        answer = _ask(process, pipe, task.payload)
                    except (EOFError, OSError):
                        self._fail(task, _how_it_ended(process))
                        return
                    _resolve(task.future, answer)
                del task
                with self._lock:
                    self._idle += 1
        finally:
            if pipe is not None:
                pipe.close()  # the worker takes it as the end
            if process is not None:
                process.join(5.0)
                process.kill()
                process.join()
                with self._lock:
                    self._processes.pop(process.pid or 0, None)

    def _start(self) -> tuple[SpawnProcess, Connection]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        with _starting:
            resource_tracker.ensure_running()  # which lifts the block below when it is started itself
            # A Ctrl-C must not end the worker before it can ignore it: what is blocked here is blocked there.
            if hasattr(signal, "pthread_sigmask"):
                signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            process = context.Process(target=_work, args=(theirs, self._thread_count), daemon=True)
            process.start()
        theirs.close()
        with self._lock:
            self._processes[process.pid or 0] = process
            stopped = self._ended is not None
        if stopped:
            process.kill()
        return process, ours

    def _fail(self, task: _Task, why: str) -> None:
        with self._lock:
            self._ended = why = self._ended or why
            self._drop_tasks(lambda future: _refuse(future, why))
            for _ in self._threads:
                self._tasks.put(None)
        task.future.set_exception(WorkerEnded(why))


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()
_starting = threading.Lock()


@atexit.register
def _kill_all() -> None:
    for pool in list(_pools):
        if pool._owner == os.getpid():  # and not a copy of that process
            pool.kill_workers()


def _ask(process: SpawnProcess, pipe: Connection, payload: bytes) -> bytes:
    """The answer of a worker; EOFError or OSError when it has ended."""
    pipe.send_bytes(payload)
    if pipe not in wait([pipe, process.sentinel]):
        raise EOFError
    return pipe.recv_bytes()


def _resolve(future: Future[Any], answer: bytes) -> None:
    try:
        worked, value = ForkingPickler.loads(answer)
    except Exception as error:
        worked, value = False, error
    if worked:
        future.set_result(value)
    else:
        future.set_exception(value)


def _refuse(future: Future[Any], why: str) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(WorkerEnded(why))


def _how_it_ended(process: SpawnProcess) -> str:
    process.join(5.0)
    code = process.exitcode
    if code is None:
        return "its pipe was closed"
    if code >= 0:
        return f"it ended with status {code}"
    with suppress(ValueError):
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it was ended by signal {-code}"


def _work(pipe: Connection, threads: int) -> None:
    """The body of a worker."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, OSError):  # the parent closes its end
        while True:
            pipe.send_bytes(_answer(pipe.recv_bytes()))


def _answer(payload: bytes) -> bytes:
    answer: tuple[bool, object]
    try:
        fn, args, keywords = ForkingPickler.loads(payload)
        answer = True, fn(*args, **keywords)
    except BaseException as error:
        answer = False, error
    try:
        return bytes(ForkingPickler.dumps(answer))
    except Exception as error:
        return bytes(ForkingPickler.dumps((False, RuntimeError(f"the answer of a worker cannot be sent: {error}"))))


def _end_with_parent() -> None:
    """Also a parent that is killed takes its workers with it, in the middle of a task too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
