"""Processes that train together as threads of this one, with the part of mpi4py's communicator that they use."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from dpa2.train.processes import Processes

#: seconds after which a test says that somebody was not there
_PATIENCE = 60


class _Room:
    """Where all put what they have, and look at it together."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size)
        self.slots: list[Any] = [None] * size
        self.aborted: int | None = None


class Communicator:
    """That of one thread."""

    def __init__(self, room: _Room, rank: int) -> None:
        self._room, self._rank = room, rank
        self.calls = 0

    def Get_rank(self) -> int:
        return self._rank

    def Get_size(self) -> int:
        return self._room.size

    def _all(self, value: Any) -> list[Any]:
        self.calls += 1
        self._room.slots[self._rank] = value
        self._room.barrier.wait(_PATIENCE)
        found = list(self._room.slots)
        self._room.barrier.wait(_PATIENCE)
        return found

    def allgather(self, value: Any) -> list[Any]:
        return [pickle.loads(text) for text in self._all(pickle.dumps(value))]

    def Alltoall(self, mine: np.ndarray, others: np.ndarray) -> None:
        for row, sent in zip(others, self._all(mine.copy()), strict=True):
            row[...] = sent[self._rank]

    def Gather(self, mine: np.ndarray, all_of_them: np.ndarray | None) -> None:
        found = self._all(mine.copy())
        assert (all_of_them is not None) == (self._rank == 0)
        if all_of_them is not None:
            all_of_them[...] = np.stack(found).reshape(all_of_them.shape)

    def Bcast(self, array: np.ndarray) -> None:
        array[...] = self._all(array.copy())[0]

    def Abort(self, status: int) -> None:
        if self._room.aborted is None:
            self._room.aborted = status
        self._room.barrier.abort()


def together(count: int, function: Callable[[Processes], Any]) -> list[Any]:
    """What the function returns in each of so many processes, or the exception that it ends with; and with what they
    were aborted, if they were."""
    room = _Room(count)
    found: list[Any] = [None] * count

    def run(rank: int) -> None:
        try:
            found[rank] = function(Processes(Communicator(room, rank)))
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if room.aborted is not None:
        found.append(room.aborted)
    return found


def results(count: int, function: Callable[[Processes], Any]) -> list[Any]:
    """The same of what must go well."""
    found = together(count, function)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found
