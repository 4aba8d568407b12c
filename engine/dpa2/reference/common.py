"""What the operations share: the array type, access to weights, and lists of edges in CSR form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import ModelFileError

# Geometry and everything computed from it is float64, or complex128 in a complex-step derivative (derivatives.py).
Array = NDArray[Any]
IntArray = NDArray[np.int64]
Config = dict[str, Any]


class Weights(dict[str, Array]):
    """Weights by name, as float64; a missing one is an error in the model, not a KeyError."""

    def __init__(self, weights: dict[str, Array], prefix: str = "") -> None:
        super().__init__({name: np.asarray(value, dtype=np.float64) for name, value in weights.items()})
        self.prefix = prefix

    def __missing__(self, name: str) -> Array:
        raise ModelFileError(f"the model has no weight {self.prefix + name!r}, which its configuration asks for")

    def part(self, prefix: str) -> Weights:
        """Those of a part of the model, whose names begin with ``prefix``, without it."""
        own = {name.removeprefix(prefix): value for name, value in self.items() if name.startswith(prefix)}
        return Weights(own, self.prefix + prefix)


@dataclass(frozen=True)
class EdgeList:
    """The edges of one block: the neighbours of centre i are rows ``start[i]:start[i+1]``, nearest first."""

    start: IntArray  # (n + 1)
    i: IntArray  # (ne)     centre
    j: IntArray  # (ne)     neighbour
    d: Array  # (ne, 3)     x_j + n B - x_i, angstrom
    r: Array  # (ne)        |d|

    @property
    def natoms(self) -> int:
        return len(self.start) - 1

    @property
    def count(self) -> IntArray:
        """(n) number of edges of each centre."""
        return np.diff(self.start)

    def of(self, centre: int) -> slice:
        """The rows of one centre."""
        return slice(int(self.start[centre]), int(self.start[centre + 1]))

    def prefix(self, count: IntArray) -> EdgeList:
        """The first ``count[i]`` edges of every centre i."""
        rank = np.arange(len(self.i)) - self.start[self.i]
        keep = rank < count[self.i]
        start = np.concatenate([[0], np.cumsum(count)])
        return EdgeList(start, self.i[keep], self.j[keep], self.d[keep], self.r[keep])


def segment_sum(values: Array, start: IntArray) -> Array:
    """(n, ...) sums of the rows ``start[i]:start[i+1]`` of ``values`` (ne, ...); 0 for a centre without rows."""
    out = np.zeros((len(start) - 1, *values.shape[1:]), dtype=values.dtype)
    filled = np.diff(start) > 0
    if filled.any():
        out[filled] = np.add.reduceat(values, start[:-1][filled], axis=0)
    return out
