"""Neighbour lists on the device: the master list of a frame, the lists of the blocks, and both by neighbour.

The engine knows of their origin what :class:`ListSource` says: the search on the device, or one on the host.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dpa2.inputs import Pbc
from dpa2.remarks import Remarks

from .device import Array, Device


@dataclass(frozen=True)
class Incoming:
    """The edges of a list by neighbour: those to atom i are ``edges[begin[i]:begin[i + 1]]``, in ascending order."""

    begin: Array  # (n + 1) int32
    edges: Array  # (ne) int32


@dataclass(frozen=True)
class Lists:
    """The neighbours of every centre in CSR form, nearest first; the blocks' lists are prefixes. On the device."""

    start: Array  # (n + 1) int32
    j: Array  # (ne) int32
    d: Array  # (ne, 3) float64   x_j + n B - x_i, angstrom
    r: Array  # (ne) float64
    n_three: Array  # (n) int32   edges in the list of the three-body block
    n_rep: Array  # (n) int32     edges in the list of the repformer
    pad1: Array  # (n) int32      padded slots of the repinit list
    pad3: Array  # (n) int32      padded slots of the three-body list
    remarks: Remarks
    centre: Array  # (ne) int32
    incoming: Incoming


@dataclass(frozen=True)
class BlockList:
    """The edges of one block, numbered through: a prefix of every centre's master list."""

    start: Array  # (n + 1) int32
    edge: Array  # (ne) int32    number in the master list
    j: Array  # (ne) int32
    most: int  # edges of any centre

    @property
    def count(self) -> int:
        return int(self.edge.shape[0])


class ListSource(Protocol):
    """Makes the neighbour lists of a frame."""

    def build(self, coords: Array, types: Array, box: Any, pbc: Pbc) -> Lists:
        """coords (n, 3) float64 and types (n) int32 of the device, n > 0; box (3, 3) of the host or None."""

    def block(self, lists: Any, count: Array) -> tuple[BlockList, Incoming]:
        """The list of the first count[i] edges of every centre i, and the same by neighbour."""


class HostLists:
    """Lists from the compiled core, on the host; copied to the device. For comparison: remarks are not made."""

    def __init__(self, device: Device, config: dict[str, Any]) -> None:
        self._device, self._config_json = device, json.dumps(config)

    def build(self, coords: Array, types: Array, box: Any, pbc: Pbc) -> Lists:
        from dpa2 import _native

        device, natoms = self._device, len(types)
        found = _native.neighbors(device.asnumpy(coords), device.asnumpy(types), box, pbc, self._config_json)
        whole = ("start", "j", "n_three", "n_rep", "pad1", "pad3")
        lists = {name: device.asarray(found[name].astype(np.int32)) for name in whole}
        lists |= {name: device.asarray(found[name]) for name in ("d", "r")}
        centre = np.repeat(np.arange(natoms, dtype=np.int32), np.diff(found["start"]))
        incoming = _incoming(device.xp, lists["j"], natoms)
        return Lists(**lists, remarks=Remarks(), centre=device.asarray(centre), incoming=incoming)

    def block(self, lists: Lists, count: Array) -> tuple[BlockList, Incoming]:
        xp = self._device.xp
        rank = xp.arange(lists.j.shape[0], dtype=np.int32) - lists.start[lists.centre]
        edge = xp.flatnonzero(rank < count[lists.centre]).astype(np.int32)
        start = xp.zeros(count.shape[0] + 1, dtype=np.int32)
        start[1:] = xp.cumsum(count)
        j = xp.ascontiguousarray(lists.j[edge])
        return BlockList(start, edge, j, int(count.max())), _incoming(xp, j, count.shape[0])


def _incoming(xp: Any, j: Array, natoms: int) -> Incoming:
    order = xp.argsort(j, kind="stable").astype(np.int32)
    begin = xp.searchsorted(j[order], xp.arange(natoms + 1, dtype=np.int32), side="left").astype(np.int32)
    return Incoming(begin, order)


@dataclass(frozen=True)
class Geometry:
    """Everything that the kernels see of a frame. Arrays of the device."""

    types: Array  # (n) int32, virtual atoms as type 0
    lists: Lists
    rep: BlockList
    rep_incoming: Incoming
    three: BlockList | None

    @property
    def natoms(self) -> int:
        return int(self.types.shape[0])

    @property
    def nedge(self) -> int:
        return int(self.lists.j.shape[0])


def make_geometry(source: ListSource, lists: Lists, types: Array, with_three: bool) -> Geometry:
    """The lists of the blocks from the master list; types (n) >= 0, at least one atom."""
    rep, rep_incoming = source.block(lists, lists.n_rep)
    three = source.block(lists, lists.n_three)[0] if with_three else None
    return Geometry(types, lists, rep, rep_incoming, three)
