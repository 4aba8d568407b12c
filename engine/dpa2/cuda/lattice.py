"""The lattice of a frame as the search for neighbours wants it: reduced, divided into bins, in two small arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import InputError
from dpa2.reference.neighbors import check_box, face_distances

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

MARGIN = 1.0 + 1e-9  # a tie is no improvement: guarantees an end of the reduction
LARGEST_MULTIPLE = 1e5
# Images of a cell that a search walks over, for each atom and beside: as in the CPU's search
MOST_IMAGES, SPARE_IMAGES = 1000.0, 100000.0


@dataclass(frozen=True)
class Lattice:
    """Reduced cell vectors ``rows`` (3, 3), angstrom, = ``transform`` (3, 3, integers) times the vectors of the box.

    Open directions have unit vectors orthogonal to the others, in which the fractional coordinate is a length.
    """

    rows: Array
    transform: IntArray
    periodic: tuple[bool, bool, bool]

    @property
    def inverse(self) -> Array:
        inverse: Array = np.asarray(np.linalg.inv(self.rows), dtype=np.float64)
        return inverse


def reduced(box: Array | None, pbc: Sequence[bool]) -> Lattice:
    """The lattice with short, nearly orthogonal vectors: a skewed cell then needs as few images as an upright one.

    Raises InputError for a box that is singular, not finite or too skewed, and for a periodic direction without a box.
    """
    periodic = (bool(pbc[0]), bool(pbc[1]), bool(pbc[2]))
    given = check_box(box, periodic)
    transform = np.eye(3, dtype=np.int64)
    rows = given.copy()
    for _ in range(200):
        if not (_shorten_pairs(rows, transform, given, periodic) or _shorten_longest(rows, transform, given, periodic)):
            break
    if np.abs(transform).max() > LARGEST_MULTIPLE:
        raise InputError("the box is too skewed")
    for a in range(3):
        if not periodic[a]:
            rows[a] = 0.0
    return Lattice(check_box(rows, periodic) if any(periodic) else np.eye(3), transform, periodic)


def _add(rows: Array, transform: IntArray, given: Array, a: int, b: int, times: float) -> None:
    """Vector a += times vector b, in exact integers; from the given box, so that rounding does not pile up."""
    if abs(times) > LARGEST_MULTIPLE:
        raise InputError("the box is too skewed")
    transform[a] += int(times) * transform[b]
    rows[a] = transform[a] @ given


def _shorten_pairs(rows: Array, transform: IntArray, given: Array, periodic: Sequence[bool]) -> bool:
    changed = False
    for a in range(3):
        for b in range(3):
            if a == b or not (periodic[a] and periodic[b]):
                continue
            along, square = float(rows[a] @ rows[b]), float(rows[b] @ rows[b])
            if 2.0 * abs(along) > MARGIN * square:
                _add(rows, transform, given, a, b, -float(np.round(along / square)))
                changed = True
    return changed


def _shorten_longest(rows: Array, transform: IntArray, given: Array, periodic: Sequence[bool]) -> bool:
    """Vectors that are short in pairs can still be nearly flat: try the sums of all three in place of the longest."""
    if not all(periodic):
        return False
    a = int(np.argmax((rows**2).sum(axis=1)))
    b, c = (a + 1) % 3, (a + 2) % 3
    for sb in (-1.0, 1.0):
        for sc in (-1.0, 1.0):
            w = rows[a] + sb * rows[b] + sc * rows[c]
            if MARGIN * float(w @ w) < float(rows[a] @ rows[a]):
                _add(rows, transform, given, a, b, sb)
                _add(rows, transform, given, a, c, sc)
                return True
    return False


@dataclass(frozen=True)
class Bins:
    """The arrays that the kernels get: see ``Lattice`` in neighbors.cu."""

    geometry: Array  # (24)
    layout: NDArray[np.int32]  # (18)

    @property
    def number(self) -> int:
        return int(np.prod(self.layout[:3], dtype=np.int64))


def bins_of(lattice: Lattice, low: Array, high: Array, radius: float, natoms: int) -> Bins:
    """Bins of half the radius or more; low, high (3): fractional coordinates of the atoms in the open directions.

    Raises InputError for a cell so small that too many images would be needed.
    """
    heights = face_distances(lattice.rows)
    width = np.where(lattice.periodic, radius / heights, 0.0)
    images = float(np.prod(1.0 + 2.0 * width))
    if not (images * natoms <= MOST_IMAGES * natoms + SPARE_IMAGES and width.max() < LARGEST_MULTIPLE):
        raise InputError(
            f"the periodic cell (volume {abs(np.linalg.det(lattice.rows)):.6g} angstrom^3) is too small for {natoms} "
            f"atoms: about {images:.0f} images of each atom would be needed within {radius:.6g} angstrom"
        )
    low = np.where(lattice.periodic, 0.0, low)
    extent = np.where(lattice.periodic, 1.0, np.maximum(high - low, 1e-3))
    lengths = extent * heights
    # A little more than half the radius: rounding never puts a neighbour one bin too far.
    edge = 0.5 * radius * (1.0 + 1e-6)
    number = [max(1.0, math.floor(length / edge)) for length in lengths]
    # An atom that is far away must not cost memory: bins may be larger, then there are more atoms to look at.
    while math.prod(number) > 4.0 * natoms + 1000.0:
        number[number.index(max(number))] = max(1.0, math.floor(max(number) / 2))
    count = np.array(number)
    reach = np.floor(radius * (1.0 + 1e-7) / (lengths / count)).astype(np.int64) + 1
    reach = np.where(lattice.periodic, reach, np.minimum(reach, count - 1)).astype(np.int64)
    geometry = np.concatenate([lattice.rows.ravel(), lattice.inverse.ravel(), low, count / extent])
    layout = np.concatenate([count.astype(np.int64), reach, np.array(lattice.periodic), lattice.transform.ravel()])
    return Bins(geometry, layout.astype(np.int32))
