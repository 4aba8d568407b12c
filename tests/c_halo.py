"""Halos of parts of a system through the C interface: lists, and callbacks that carry packed rows between threads."""

from __future__ import annotations

import ctypes
import threading
from ctypes import c_int, c_void_p
from typing import Any

import numpy as np
from c_library import Handle, call
from c_ranks import Rank, World

CARRIER = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_int)


class HaloTable(ctypes.Structure):
    """dpa2_halo"""

    _fields_ = (
        ("nsend", c_int),
        ("send", c_void_p),
        ("nreceive", c_int),
        ("receive", c_void_p),
        ("nimages", c_int),
        ("images", c_void_p),
        ("owners", c_void_p),
        ("on_device", c_int),
        ("context", c_void_p),
        ("forward", CARRIER),
        ("reverse", CARRIER),
    )


def integers(rows: Any) -> np.ndarray:
    return np.array(rows, dtype=np.intc)


class Halo:
    """The halo of a rank: what it gets and gives, peer by peer; others order their rows the same way."""

    def __init__(self, rank: Rank, on_device: bool = False) -> None:
        self.rank, self.calls, self.fail, world = rank, [], 0, rank.world
        self.lists: dict[str, np.ndarray] = {}
        ghosts, mine = np.arange(rank.nlocal, rank.nall), np.isin(rank.owner[rank.nlocal :], rank.local)
        self.lists["images"] = integers(ghosts[mine])
        self.lists["owners"] = integers([rank.local.tolist().index(rank.owner[row]) for row in ghosts[mine]])
        self.received, self.sent = [], []  # (rank, rows)
        for other in world.ranks:
            if other is rank:
                continue
            own, of_other = rank.local.tolist(), ghosts[np.isin(rank.owner[ghosts], other.local)]
            to_other = [own.index(atom) for atom in other.owner[other.nlocal :] if atom in own]
            if len(of_other):
                self.received.append((other.number, of_other))
            if to_other:
                self.sent.append((other.number, to_other))
        self.lists["receive"] = integers([row for _, rows in self.received for row in rows])
        self.lists["send"] = integers([row for _, rows in self.sent for row in rows])
        self.table = HaloTable()
        self.table.nsend, self.table.nreceive = len(self.lists["send"]), len(self.lists["receive"])
        self.table.nimages, self.table.on_device = len(self.lists["images"]), int(on_device)
        self.table.forward, self.table.reverse = CARRIER(self._forward), CARRIER(self._reverse)
        self.point()
        self.barrier: Any = None  # of all that have something to carry

    def point(self) -> None:
        """The table has the lists as they are now."""
        for name, rows in self.lists.items():
            setattr(self.table, name, rows.ctypes.data)

    def set(self, domain: Handle) -> int:
        return int(call("domain_set_halo", domain.address, ctypes.addressof(self.table)))

    def _carry(self, name: str, to: Any, given: int, received: Any, place: int, width: int, size: int) -> int:
        self.calls.append((name, width, size))
        kind = {4: ctypes.c_float, 8: ctypes.c_double}[size]

        def rows(address: int, peers: Any) -> np.ndarray:
            shape = (sum(len(part) for _, part in peers), width)
            return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(kind)), shape=shape)

        world, start, packed = self.rank.world, 0, rows(given, to)
        for other, part in to:
            world.table[self.rank.number, other] = packed[start : start + len(part)].copy()
            start += len(part)
        self.barrier.wait()
        start, places = 0, rows(place, received)
        for other, part in received:
            places[start : start + len(part)] = world.table[other, self.rank.number]
            start += len(part)
        self.barrier.wait()
        return self.fail

    def _forward(self, _: int, sent: int, received: int, width: int, size: int) -> int:
        return self._carry("forward", self.sent, sent, self.received, received, width, size)

    def _reverse(self, _: int, sent: int, received: int, width: int, size: int) -> int:
        return self._carry("reverse", self.received, sent, self.sent, received, width, size)


def halos(world: World, on_device: bool = False) -> list[Halo]:
    """Those of all ranks."""
    found = [Halo(rank, on_device) for rank in world.ranks]
    barrier = threading.Barrier(sum(halo.table.nsend + halo.table.nreceive > 0 for halo in found) or 1, timeout=120)
    for halo in found:
        halo.barrier = barrier
    return found
