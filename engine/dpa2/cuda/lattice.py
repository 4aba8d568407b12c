"""The lattice of a frame as the search for neighbours wants it: divided into bins, in two small arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import InputError

Array = NDArray[np.float64]

# Images of a cell that a search walks over, for each atom and beside: as in the CPU's search
MOST_IMAGES, SPARE_IMAGES = 1000.0, 100000.0
LARGEST_MULTIPLE = 1e5  # of a vector, in one image


@dataclass(frozen=True)
class Lattice:
    """Reduced cell vectors ``rows`` (3, 3), angstrom, = ``transform`` (3, 3, integers) times the vectors of the box.

    Open directions have unit vectors orthogonal to the others, in which the fractional coordinate is a length.
    """

    rows: Array
    inverse: Array  # (3, 3)
    heights: Array  # (3) between opposite faces, angstrom
    transform: NDArray[np.int64]
    periodic: tuple[bool, bool, bool]


def reduced(box: Array | None, pbc: Sequence[bool]) -> Lattice:
    """The lattice of a box with short, nearly orthogonal vectors, from the compiled core.

    Raises InputError for a box that is singular, not finite or too skewed, and for a periodic direction without a box.
    """
    from dpa2 import _native

    periodic = (bool(pbc[0]), bool(pbc[1]), bool(pbc[2]))
    return Lattice(*_native.reduced_lattice(box, periodic), periodic)


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
    heights = lattice.heights
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
