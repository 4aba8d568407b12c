"""Neighbour lists on the device: the master list of a frame, the lists of the blocks, and both by neighbour.

The engine knows of their origin what :class:`ListSource` says: a search on the device, or tests' lists from the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from dpa2.inputs import Pbc
from dpa2.remarks import Remarks

from .device import Array


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
    n_repformer: Array  # (n) int32     edges in the list of the repformer
    pad_repinit: Array  # (n) int32      padded slots of the repinit list
    pad_three: Array  # (n) int32      padded slots of the three-body list
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
    rep, rep_incoming = source.block(lists, lists.n_repformer)
    three = source.block(lists, lists.n_three)[0] if with_three else None
    return Geometry(types, lists, rep, rep_incoming, three)
