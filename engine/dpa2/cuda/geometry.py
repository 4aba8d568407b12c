"""Neighbour lists on the device: the master list of a frame, the lists of the blocks, and both by neighbour.

A function that makes :class:`Lists` is all that the engine knows of where they come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from dpa2.inputs import Pbc

from .device import Array, Device

Overflow: TypeAlias = list[tuple[str, int, int, int]]


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
    overflow: Overflow


#: coords (n, 3) float64, types (n) int32 on the device; box (3, 3) of the host or None
ListBuilder: TypeAlias = Callable[[Array, Array, Any, Pbc], Lists]


def host_lists(device: Device, config_json: str) -> ListBuilder:
    """Lists from the compiled core, on the host; copied to the device."""
    from dpa2 import _native

    def build(coords: Array, types: Array, box: Any, pbc: Pbc) -> Lists:
        found = _native.neighbors(device.asnumpy(coords), device.asnumpy(types), box, pbc, config_json)
        whole = ("start", "j", "n_three", "n_rep", "pad1", "pad3")
        integers = {name: device.asarray(found[name].astype(np.int32)) for name in whole}
        overflow: Any = found.get("overflow", [])
        return Lists(d=device.asarray(found["d"]), r=device.asarray(found["r"]), overflow=overflow, **integers)

    return build


@dataclass(frozen=True)
class Incoming:
    """The edges of a list by neighbour: those to atom i are ``edges[begin[i]:begin[i + 1]]``, in ascending order."""

    begin: Array  # (n + 1) int32
    edges: Array  # (ne) int32


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


@dataclass(frozen=True)
class Geometry:
    """Everything that the kernels see of a frame. Arrays of the device."""

    natoms: int
    types: Array  # (n) int32, virtual atoms as type 0
    lists: Lists
    centre: Array  # (ne) int32
    incoming: Incoming
    rep: BlockList
    rep_incoming: Incoming
    three: BlockList | None
    first_type: int  # of atom 0, which is that of padded slots

    @property
    def nedge(self) -> int:
        return int(self.lists.j.shape[0])


def _incoming(xp: Any, j: Array, natoms: int) -> Incoming:
    order = xp.argsort(j, kind="stable").astype(np.int32)
    begin = xp.searchsorted(j[order], xp.arange(natoms + 1, dtype=np.int32), side="left").astype(np.int32)
    return Incoming(begin, order)


def _block(xp: Any, lists: Lists, rank: Array, centre: Array, count: Array) -> BlockList:
    edge = xp.flatnonzero(rank < count[centre]).astype(np.int32)
    start = xp.zeros(count.shape[0] + 1, dtype=np.int32)
    start[1:] = xp.cumsum(count)
    return BlockList(start, edge, xp.ascontiguousarray(lists.j[edge]), int(count.max()))


def make_geometry(device: Device, lists: Lists, types: Array, with_three: bool) -> Geometry:
    """The lists of the blocks from the master list; types (n) >= 0, at least one atom."""
    xp, natoms = device.xp, int(types.shape[0])
    numbers = xp.arange(lists.j.shape[0], dtype=np.int32)
    centre = (xp.searchsorted(lists.start, numbers, side="right") - 1).astype(np.int32)
    rank = numbers - lists.start[centre]
    rep = _block(xp, lists, rank, centre, lists.n_rep)
    three = _block(xp, lists, rank, centre, lists.n_three) if with_three else None
    incoming = _incoming(xp, lists.j, natoms)
    return Geometry(natoms, types, lists, centre, incoming, rep, _incoming(xp, rep.j, natoms), three, int(types[0]))
