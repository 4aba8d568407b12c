"""Processes of a parallel program as threads that exchange rows through the C interface."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from c_library import Parts


class Rank(Parts):
    """The atoms of one process, and as ghosts all atoms of others and all images that they may see."""

    def __init__(self, world: World, number: int) -> None:
        whole, mine = world.whole, world.rank_of == number
        near = np.zeros(whole.nall, dtype=bool)
        local = np.flatnonzero(mine)
        if len(local):
            distance = np.linalg.norm(whole.coords[:, None] - whole.coords[None, local], axis=2)
            near = (distance <= world.reach).any(axis=1)
        near &= ~mine
        rows = np.concatenate([local, np.flatnonzero(near)])
        super().__init__(whole.coords[local], whole.types[local], None, world.reach)
        self.world, self.number, self.local = world, number, local
        self.coords, self.types = whole.coords[rows].reshape(-1, 3), whole.types[rows]
        self.owner = whole.owner[rows]  # the numbers in the whole system
        self.nall = len(rows)
        distance = np.linalg.norm(self.coords[: self.nlocal, None] - self.coords[None], axis=2)
        np.fill_diagonal(distance, np.inf)
        self.lists = [np.flatnonzero(row <= world.reach).astype(np.intc) for row in distance]
        self.numneigh = np.array([len(one) for one in self.lists], dtype=np.intc)
        self.firstneigh = np.array([one.ctypes.data for one in self.lists], dtype=np.uintp)

    def _forward(self, _: int, rows: int, width: int, size: int) -> int:
        self.calls.append(("forward", width, size))
        table, everything = self._table(rows, width, size), self.world.table
        everything[self.number] = table[: self.nlocal]
        self.world.barrier.wait()
        for other in self.world.ranks:
            for ghost in np.flatnonzero(np.isin(self.owner[self.nlocal :], other.local)) + self.nlocal:
                table[ghost] = everything[other.number][np.flatnonzero(other.local == self.owner[ghost])[0]]
        self.world.barrier.wait()
        return self.fail

    def _reverse(self, _: int, rows: int, width: int, size: int) -> int:
        self.calls.append(("reverse", width, size))
        table, everything = self._table(rows, width, size), self.world.table
        everything[self.number] = table.copy()
        self.world.barrier.wait()
        for other in self.world.ranks:
            for ghost in np.flatnonzero(np.isin(other.owner[other.nlocal :], self.local)) + other.nlocal:
                table[np.flatnonzero(self.local == other.owner[ghost])[0]] += everything[other.number][ghost]
        self.world.barrier.wait()
        return self.fail

    def _table(self, rows: int, width: int, size: int) -> np.ndarray:
        return self._rows(rows, width, size) if self.nall else np.zeros((0, width))


class World:
    """A system and the ranks that share it: `rank_of` has the rank of every atom."""

    def __init__(self, coords: Any, types: Any, box: Any, rank_of: Any, ranks: int, reach: float) -> None:
        self.whole, self.reach, self.rank_of = Parts(coords, types, box, reach), reach, np.full(0, -1)
        self.rank_of = np.concatenate([rank_of, np.full(self.whole.nall - self.whole.nlocal, -1)])
        self.table: dict[int, np.ndarray] = {}
        self.barrier = threading.Barrier(ranks, timeout=120)
        self.ranks = [Rank(self, number) for number in range(ranks)]

    def each(self, work: Any) -> None:
        """work(rank) in a thread of each."""
        errors: list[Exception] = []

        def run(rank: Rank) -> None:
            try:
                work(rank)
            except (AssertionError, threading.BrokenBarrierError) as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=run, args=(rank,)) for rank in self.ranks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def sum(self, rows: list[np.ndarray]) -> np.ndarray:
        """What all ranks add to the atoms of the whole."""
        total = np.zeros((self.whole.nlocal, *rows[0].shape[1:]))
        for rank, part in zip(self.ranks, rows, strict=True):
            np.add.at(total, rank.owner, part)
        return total
