"""Neighbour lists on the device: the launches of neighbors.cu.

The lists are those of the CPU, edge for edge; what is not is the last bit of a displacement where the device fuses a
multiplication and an addition. Everything stays on the device but a few numbers: how many candidates and edges there
are, and whether something is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2._native import check_atoms, distance_tolerance
from dpa2.errors import InputError
from dpa2.remarks import Remarks, least_distance

from .device import Array, Device
from .geometry import BlockList, Incoming, Lists
from .lattice import Bins, Lattice, bins_of, reduced

SOURCE = "neighbors.cu"
DEFINES = {"real": "double"}  # nothing here is of the model's precision
WARPS = 4  # centres of a block
THREADS = 32 * WARPS
SCAN_THREADS = 1024
NONE = np.iinfo(np.int32).max
NO_PAIR = 2**64 - 1
DISTANCE_TOLERANCE = distance_tolerance()  # angstrom: distances closer than this are equal up to rounding
BLOCKS = ("repinit", "three_body", "repformer")


@dataclass(frozen=True)
class DeviceLists(Lists):
    """The neighbour lists of a frame, with images where they were asked for."""

    image: Array | None = None  # (ne, 3) int32   n of d


def _blocks(n: int, each: int) -> int:
    return -(-n // each)


def _exclusion_mask(pairs: list[list[int]], ntypes: int) -> NDArray[np.bool_]:
    """(ntypes, ntypes) True for the excluded pairs of types, in both orders."""
    mask = np.zeros((ntypes, ntypes), dtype=bool)
    for a, b in pairs:
        mask[a, b] = mask[b, a] = True
    return mask


def _int(value: int) -> Any:
    return np.int32(value)


class NeighborSearch:
    """Builds the lists of a model's blocks on a device. ``config``: the canonical configuration of the model."""

    def __init__(self, device: Device, config: dict[str, Any]) -> None:
        option = config["descriptor"]
        repinit, repformer = option["repinit"], option["repformer"]
        self.device = device
        self.ntypes = len(config["type_map"])
        self.use_three = bool(repinit["use_three_body"])
        self.rcut, self.nsel = float(repinit["rcut"]), int(repinit["nsel"])
        self.rep = (float(repformer["rcut"]), int(repformer["nsel"]))
        three = (repinit["three_body_rcut"], repinit["three_body_sel"]) if self.use_three else (0.0, 0)
        self.three = (float(three[0]), int(three[1]))
        self.least = least_distance(config)[0]
        self.coincide = float(option["env_protection"]) == 0.0
        by_model = _exclusion_mask(config["pair_exclude_types"], self.ntypes)
        by_descriptor = _exclusion_mask(option["exclude_types"], self.ntypes)
        excluded = by_model.astype(np.int8) + 2 * by_descriptor.astype(np.int8)
        self.excluded = device.asarray(excluded) if excluded.any() else None
        self._box_key: tuple[Any, ...] | None = None
        self._lattice: Lattice | None = None
        self._bins_key: tuple[bytes, bytes] | None = None
        self._bins_arrays: tuple[Array, Array] | None = None

    def build(
        self,
        coords: Array,
        types: Array,
        box: NDArray[np.float64] | None = None,
        pbc: Sequence[bool] = (False, False, False),
        images: bool = False,
    ) -> DeviceLists:
        """The lists of a frame: coords (n, 3) float64 in angstrom and types (n) int32 on the device, box on the host.

        ``images``: also which image of the neighbour each edge leads to. Raises InputError as the CPU does: coordinates
        that are not finite, unknown types, a box that cannot be used, atoms at the same place.
        """
        device, n = self.device, len(coords)
        lattice = self._reduced(box, pbc)
        if n == 0:
            return self._empty(images)
        radius = self.rcut + DISTANCE_TOLERANCE
        low, high = self._extent(coords, types, lattice)
        bins = bins_of(lattice, low, high, radius, n)
        frame = self._upload(bins)

        wrapped, shift = device.empty((n, 3), np.float64), device.empty((n, 3), np.int32)
        bin_of, count = device.empty(n, np.int32), device.zeros(bins.number, np.int32)
        status = device.asarray(np.full(4, NONE, dtype=np.int32))
        args: tuple[Any, ...] = (wrapped, shift, bin_of, count, status, coords, types, _int(self.ntypes), *frame)
        self._launch("wrap_atoms", _blocks(n, THREADS), THREADS, (_int(n), *args))
        first, _ = self._sums(count)
        atoms = device.empty(n, np.int32)
        self._launch("fill_rows", _blocks(n, THREADS), THREADS, (_int(n), atoms, count, bin_of, first))

        found = device.empty(n, np.int32)
        args = (found, np.float64(radius), wrapped, bin_of, first, atoms, *frame)
        self._launch("count_neighbors", _blocks(n, WARPS), THREADS, (_int(n), *args))
        begin, totals = self._sums(found)
        total, most = self._checked_totals(totals, status, coords, types)

        scratch_j, code = device.empty(total, np.int32), device.empty(total, np.int64)
        order = device.empty(total, np.int32)
        stored, n_three, n_repformer, pad_repinit, pad_three = (device.empty(n, np.int32) for _ in range(5))
        worst = device.asarray(np.array([0, 0, 0, NO_PAIR], dtype=np.uint64))
        places = (wrapped, shift, bin_of, first, atoms, begin)
        self._sort(
            n,
            most,
            (stored, n_three, n_repformer, pad_repinit, pad_three, worst, status[3:]),
            (scratch_j, code, order),
            types,
            places,
            frame,
        )
        start, totals = self._sums(stored)
        nedge = int(device.asnumpy(totals)[0])

        centre, j = device.empty(nedge, np.int32), device.empty(nedge, np.int32)
        d, r = device.empty((nedge, 3), np.float64), device.empty(nedge, np.float64)
        image = device.empty((nedge, 3), np.int32) if images else None
        incoming = device.zeros(n, np.int32)
        args = (centre, j, d, r, image, incoming, start, begin, scratch_j, code, order, wrapped, shift, *frame)
        self._launch("store_edges", _blocks(n, WARPS), THREADS, (_int(n), *args))
        self._check_coincidence(status, start, j)
        rows = self._transposed(incoming, j, nedge)
        remarks = self._remarks(worst, start, j, r)
        return DeviceLists(start, j, d, r, n_three, n_repformer, pad_repinit, pad_three, remarks, centre, rows, image)

    def block(self, lists: Lists, count: Array) -> tuple[BlockList, Incoming]:
        """The first count[i] (n) int32 edges of each centre as a list: ``lists.n_repformer`` or ``lists.n_three``."""
        device, n = self.device, len(count)
        start, totals = self._sums(count)
        nedge, most = (int(value) for value in device.asnumpy(totals))
        edge, j = device.empty(nedge, np.int32), device.empty(nedge, np.int32)
        incoming = device.zeros(n, np.int32)
        args = (_int(n), edge, j, incoming, start, lists.start, lists.j)
        self._launch("store_prefixes", _blocks(n, WARPS), THREADS, args)
        return BlockList(start, edge, j, most), self._transposed(incoming, j, nedge)

    def _launch(self, kernel: str, grid: int, block: int, args: tuple[Any, ...], shared: int = 0) -> None:
        self.device.launch(SOURCE, kernel, grid, block, args, shared, DEFINES)

    def _reduced(self, box: NDArray[np.float64] | None, pbc: Sequence[bool]) -> Lattice:
        """The reduced lattice, kept as long as the box stays the same."""
        key = (None if box is None else np.asarray(box, dtype=np.float64).tobytes(), tuple(pbc))
        if self._lattice is None or key != self._box_key:
            self._lattice, self._box_key = reduced(box, pbc), key
        return self._lattice

    def _upload(self, bins: Bins) -> tuple[Array, Array]:
        key = (bins.geometry.tobytes(), bins.layout.tobytes())
        if self._bins_arrays is None or key != self._bins_key:
            self._bins_arrays = (self.device.asarray(bins.geometry), self.device.asarray(bins.layout))
            self._bins_key = key
        return self._bins_arrays

    def _extent(self, coords: Array, types: Array, lattice: Lattice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Fractional coordinates that the atoms lie between, in the open directions only."""
        low, high = np.zeros(3), np.zeros(3)
        xp, device = self.device.xp, self.device
        inverse = lattice.inverse
        for a in range(3):
            if lattice.periodic[a]:
                continue
            f = coords @ device.asarray(np.ascontiguousarray(inverse[:, a]))
            present = types >= 0
            least, most = xp.where(present, f, np.inf).min(), xp.where(present, f, -np.inf).max()
            low[a], high[a] = float(least), float(most)
            if not (np.isfinite(low[a]) and np.isfinite(high[a])):  # no atom, or one that is not finite: found later
                low[a] = high[a] = 0.0
        return low, high

    def _sums(self, count: Array) -> tuple[Array, Array]:
        """(n + 1) sums before each entry of ``count`` (n), and on the device (2) the total and the largest entry."""
        n = len(count)
        start, totals = self.device.empty(n + 1, np.int32), self.device.empty(2, np.int64)
        self._launch("prefix_sums", 1, SCAN_THREADS, (_int(n), start, totals, count))
        return start, totals

    def _checked_totals(self, totals: Array, status: Array, coords: Array, types: Array) -> tuple[int, int]:
        """Candidates of all centres and of the worst one; raises for atoms that cannot be used."""
        device = self.device
        wrong = device.asnumpy(status)[:3]
        if (wrong != NONE).any():
            check_atoms(device.asnumpy(coords), device.asnumpy(types), self.ntypes)
            raise InputError(f"atom {int(wrong[2])} is too far from the periodic cell")
        total, most = (int(value) for value in device.asnumpy(totals))
        if total > NONE:
            raise InputError(f"{total} neighbours within {self.rcut} angstrom are more than one device can number")
        return total, most

    def _sort(
        self,
        n: int,
        most: int,
        results: tuple[Array, ...],
        scratch: tuple[Array, ...],
        types: Array,
        places: tuple[Array, ...],
        frame: tuple[Array, Array],
    ) -> None:
        device = self.device
        scratch_j, code, order = scratch
        # Distances stay in shared memory where they fit; a crowded frame goes the slow way through the device's memory.
        shared = 16 * WARPS * most
        fits = shared <= min(device.max_shared, 48 * 1024)
        r, spare = (None, None) if fits else (device.empty(len(order), np.float64) for _ in range(2))
        ranks = device.empty(len(order), np.int32)
        lists: tuple[Any, ...] = (
            np.float64(self.rcut + DISTANCE_TOLERANCE),
            np.float64(DISTANCE_TOLERANCE),
            _int(self.nsel),
        )
        lists += (np.float64(self.rep[0]), _int(self.rep[1]), np.float64(self.three[0]), _int(self.three[1]))
        lists += (_int(self.use_three), _int(self.coincide), self.excluded, _int(self.ntypes), types)
        args = (_int(most if fits else 0), *results, scratch_j, code, r, spare, ranks, order, *lists, *places, *frame)
        self._launch("sort_neighbors", _blocks(n, WARPS), THREADS, (_int(n), *args), shared if fits else 0)

    def _transposed(self, incoming: Array, j: Array, nedge: int) -> Incoming:
        """The edges that end at each atom; incoming (natoms): how many, is used up."""
        device, n = self.device, len(incoming)
        first, _ = self._sums(incoming)
        items, ordered = device.empty(nedge, np.int32), device.empty(nedge, np.int32)
        self._launch("fill_rows", _blocks(nedge, THREADS), THREADS, (_int(nedge), items, incoming, j, first))
        self._launch("sort_rows", _blocks(n, WARPS), THREADS, (_int(n), ordered, items, first))
        return Incoming(first, ordered)

    def _check_coincidence(self, status: Array, start: Array, j: Array) -> None:
        atom = int(self.device.asnumpy(status[3:])[0])
        if atom == NONE:
            return
        other = int(self.device.asnumpy(j)[int(self.device.asnumpy(start)[atom])])
        raise InputError(f"atoms {atom} and {other} are at the same place: the model is not defined at distance 0")

    def _remarks(self, worst: Array, start: Array, j: Array, r: Array) -> Remarks:
        """The atom with the most neighbours beyond each block's sel; the closest pair, if it is too close."""
        device, found = self.device, []
        sel = (self.nsel, self.three[1], self.rep[1])
        *counts, nearest = (int(code) for code in device.asnumpy(worst))
        for name, code, limit in zip(BLOCKS, counts, sel, strict=True):
            if code != 0:
                found.append((name, 0xFFFFFFFF - (code & 0xFFFFFFFF), code >> 32, limit))
        distance, atom = np.array([nearest >> 32], dtype=np.uint32).view(np.float32)[0], nearest & 0xFFFFFFFF
        if nearest == NO_PAIR or not distance < self.least * (1.0 + 1e-6):
            return Remarks(found)
        edge = int(device.asnumpy(start[atom : atom + 1])[0])
        other, exact = device.asnumpy(j[edge : edge + 1])[0], device.asnumpy(r[edge : edge + 1])[0]
        return Remarks(found, (atom, int(other), float(exact)))

    def _empty(self, images: bool) -> DeviceLists:
        device = self.device
        none, start = device.zeros(0, np.int32), device.zeros(1, np.int32)
        d, r = device.zeros((0, 3), np.float64), device.zeros(0, np.float64)
        image = device.zeros((0, 3), np.int32) if images else None
        return DeviceLists(start, none, d, r, none, none, none, none, Remarks(), none, Incoming(start, none), image)
