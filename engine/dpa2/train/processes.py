"""Processes that train together: what they tell each other, how they end together, and how MPI's are found.

All of them do the same, each with its share of the frames of a batch. The first one has the optimizer, and is alone in
writing files. Whatever one tells the others goes through one kind of exchange, in which everybody says whether it goes
on: a process that fails says so at its next turn, and all of them end with its error.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import Error, InputError
from ..inputs import Float

T = TypeVar("T")
#: the rank and the number of processes in the environment of Open MPI, of MPICH and its kin (Intel, Cray, Slurm's
#: PMI-2), of MVAPICH; Slurm's PMIx has both in Slurm's own names
_LAUNCHERS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
)
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
#: what a process may end with and the others understand
_TOLD = (Error, OSError, MemoryError, ImportError)


class Alone:
    """One process, which has nobody to tell anything."""

    rank, size = 0, 1
    #: whether all have agreed to end: nothing is exchanged any more
    over = False

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """What each process says, in order."""
        return [value]

    def once(self, function: Callable[[], T]) -> T:
        """Let the first process do something; what it returns."""
        return function()

    def sum(self, values: Float) -> Float:
        """The sum of the arrays of all, in the order of the processes, for the first one; the others get no numbers."""
        return values

    def copied(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array of the first process, which may be written over here."""
        return array

    def mine(self, count: int) -> slice:
        """Which of so many frames are those of this process."""
        base, more = divmod(count, self.size)
        begin = self.rank * base + min(self.rank, more)
        return slice(begin, begin + base + (self.rank < more))

    def threads(self, threads: int | None) -> int | None:
        """How many threads this process takes, asked for so many."""
        return threads

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell the others of an error, who raise it at their next exchange."""
        yield

    @contextmanager
    def together(self) -> Iterator[None]:
        """The same, and wait for all at the end. Nothing may be exchanged outside."""
        yield

    def end(self) -> None:
        """All have agreed to end: what happens now is told to nobody."""

    def wait(self) -> None:
        """Wait until all have come here."""


class Processes(Alone):
    """Those of an MPI communicator.

    Args:
        communicator: of mpi4py, or what has its ``allgather``, ``Alltoall``, ``Gather``, ``Bcast``, ``Barrier``
            and ``Abort``.
        sharing: how many of the processes may use each of the cores that this one may use; it takes its part of them.
    """

    def __init__(self, communicator: Any, sharing: Sequence[int] = ()) -> None:
        self._communicator = communicator
        self.rank, self.size = int(communicator.Get_rank()), int(communicator.Get_size())
        self._sharing = list(sharing)
        self.over = False

    def gather(self, value: T) -> list[T]:
        return self._exchange(value, None)

    def once(self, function: Callable[[], T]) -> T:
        if self.over:
            return function() if self.is_first else None  # type: ignore[return-value]
        found = None
        if self.is_first:
            with self.telling():
                found = function()
        return self._exchange(found, None)[0]  # type: ignore[return-value]

    def sum(self, values: Float) -> Float:
        # a reduction of MPI may add in any order
        size = -(-values.size // self.size)
        padded = np.zeros((self.size, size))
        padded.reshape(-1)[: values.size] = values.ravel()
        parts = np.empty_like(padded)
        self._check_alike(values)
        self._communicator.Alltoall(padded, parts)
        total = parts[0]
        for part in parts[1:]:
            total += part
        self._communicator.Gather(total, padded if self.is_first else None)
        return padded.reshape(-1)[: values.size].reshape(values.shape) if self.is_first else np.empty(0)

    def copied(self, array: NDArray[Any]) -> NDArray[Any]:
        if not (array.flags.c_contiguous and array.flags.writeable):
            array = np.array(array, order="C")
        self._check_alike(array)
        self._communicator.Bcast(array)
        return array

    def threads(self, threads: int | None) -> int | None:
        if threads is not None or os.environ.get("OMP_NUM_THREADS") or not self._sharing:
            return threads
        return max(1, int(sum(1 / number for number in self._sharing) + 1e-6))

    @contextmanager
    def telling(self) -> Iterator[None]:
        try:
            yield
        except _TOLD as error:
            if not self.over:
                self._exchange(None, error)
            raise
        except BaseException as error:
            if not self.over:
                self._abort(error)
            raise

    @contextmanager
    def together(self) -> Iterator[None]:
        with self.telling():
            yield
        if not self.over:
            self._exchange(None, None)

    def end(self) -> None:
        self.over = True

    def wait(self) -> None:
        self._communicator.Barrier()

    def _check_alike(self, array: NDArray[Any]) -> None:
        """Whether all have come here, with arrays that fit together."""
        mine = array.shape, array.dtype.str
        if any(other != mine for other in self._exchange(mine, None)):
            raise InputError(
                "the processes have different models: the input, the data or the version of dpa2 that they see differ"
            )

    def _exchange(self, value: T, error: BaseException | None) -> list[T]:
        """What each says, or the first error of any."""
        found = self._communicator.allgather((value, _portable(error)))
        for rank, (_, other) in enumerate(found):
            if other is not None:
                self.over = True
                raise (error if error is not None and rank == self.rank else other) from None
        return [value for value, _ in found]

    def _abort(self, error: BaseException) -> None:
        """End all at once: this process cannot wait for the others to listen."""
        status = 1
        if isinstance(error, KeyboardInterrupt):
            status = 128 + int(getattr(error, "number", 2))
            print("dpa2: interrupted", file=sys.stderr, flush=True)
        else:
            traceback.print_exception(error)
        self.over = True
        self._communicator.Abort(status)


def _portable(error: BaseException | None) -> BaseException | None:
    """An error that every process can have: those of other libraries keep their message and their kind alone."""
    if error is None or type(error).__module__ in ("builtins", Error.__module__):
        return error
    kinds = (OSError, MemoryError, ImportError)
    return next((kind for kind in kinds if isinstance(error, kind)), InputError)(str(error))


def launched() -> tuple[int, int] | None:
    """The rank of this process and how many a launcher of MPI has started, by the environment; None: there is none."""
    pairs = [*_LAUNCHERS, _SLURM] if "PMIX_RANK" in os.environ else _LAUNCHERS
    for rank, size in pairs:
        words = os.environ.get(rank, ""), os.environ.get(size, "")
        if all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
            return int(words[0]), int(words[1])
    return None


def join(mpi: bool | None = None) -> Alone:
    """The processes that train with this one.

    Args:
        mpi: whether there are others. None: if a launcher of MPI has started several.

    Raises:
        ImportError: mpi4py is missing. InputError: MPI knows nothing of the others.
    """
    place = launched()
    if mpi is False or (mpi is None and (place is None or place[1] < 2)):
        return Alone()
    several = f"{place[1]} processes of MPI" if place is not None else "processes of MPI"
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter: it finds no library of MPI
        why = "mpi4py is missing" if isinstance(error, ModuleNotFoundError) else f"mpi4py cannot be used ({error})"
        raise ImportError(
            f"{why}, with which {several} train together: pip install 'dpa2[mpi]', or train with one process"
        ) from None
    communicator = MPI.COMM_WORLD
    if place is not None and communicator.Get_size() != place[1]:
        library = MPI.Get_library_version().partition("\n")[0].strip("\0 ")
        raise InputError(
            f"there are {several}, but mpi4py sees {communicator.Get_size()}: it uses another MPI ({library}) than the "
            "command that started them; take the mpirun of that one, or install mpi4py for this one"
        )
    if communicator.Get_size() == 1 and place is None:
        raise InputError("there are no other processes of MPI: start them with mpirun -n N, or leave --mpi out")
    if communicator.Get_size() == 1:
        return Alone()
    return Processes(communicator, _sharing(MPI, communicator))


def _sharing(mpi: Any, communicator: Any) -> list[int]:
    """Of each core that this process may use, how many of the processes on this machine may use it."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    here = communicator.Split_type(mpi.COMM_TYPE_SHARED)
    cores = here.allgather(sorted(os.sched_getaffinity(0)))
    here.Free()
    return [sum(core in others for others in cores) for core in os.sched_getaffinity(0)]
