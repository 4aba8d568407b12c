"""How alike structures are by their descriptors: vectors of frames, nearest frames, farthest points.

The vector of a frame is the mean descriptor of each type in it. The distance of two frames is the Euclidean one of
these means side by side, with zeros in the place of a type that a frame lacks. Only the means that are there are
stored and compared, so that a model of many elements costs no more than the elements of the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .inputs import Float, Int

FramePooling = Literal["types", "mean"]

# Rows that are taken at a time: of all frames against one, and of many against many.
_ROWS, _PAIRS = 2048, 1024


def frame_vector(descriptor: Float, types: Int, pooling: FramePooling = "types") -> tuple[Float, Int]:
    """The vector of a frame.

    Args:
        descriptor: (natoms, dim). types: (natoms,), negative ones are virtual atoms and do not count.
        pooling: "types": a mean over the atoms of each type; "mean": one over all atoms.

    Returns:
        the means (k, dim), and the types (k,) that they are of, in ascending order; one of type 0 for "mean".

    Raises:
        InputError: there are no atoms.
    """
    real = types >= 0
    if not real.any():
        raise InputError("there are no atoms, and so no descriptor: remove this frame")
    if pooling == "mean":
        return descriptor[real].mean(axis=0)[None], np.zeros(1, dtype=np.int32)
    kinds = np.unique(types[real])
    return np.stack([descriptor[types == kind].mean(axis=0) for kind in kinds]), kinds


class FrameVectors:
    """The vectors of many frames.

    Args:
        rows: (m, dim) the means of all frames, one frame after the other; they may be mapped into memory.
        kinds: (m,) the types that they are of, in ascending order within a frame.
        counts: (n,) how many rows a frame has, 1 at least.
    """

    def __init__(self, rows: NDArray[Any], kinds: NDArray[Any], counts: NDArray[Any]) -> None:
        self.rows, self.kinds = rows, np.asarray(kinds)
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._types = int(self.kinds.max()) + 1 if len(self.kinds) else 0
        self._lacks = np.ones((len(self), self._types), dtype=bool)
        self._lacks[np.repeat(np.arange(len(self)), counts), self.kinds] = False

    def __len__(self) -> int:
        return len(self.starts) - 1

    def vector(self, frame: int) -> tuple[Float, Int]:
        """The rows of a frame, and their types."""
        part = slice(self.starts[frame], self.starts[frame + 1])
        return np.asarray(self.rows[part], dtype=np.float64), self.kinds[part]

    def _blocks(self, most: int) -> Iterator[tuple[int, int, Float, Int]]:
        """Frames from ... to, with their rows and types, about so many rows at a time."""
        begin = 0
        while begin < len(self):
            end = int(np.searchsorted(self.starts, self.starts[begin] + most, side="right")) - 1
            end = min(max(end, begin + 1), len(self))
            part = slice(self.starts[begin], self.starts[end])
            yield begin, end, np.asarray(self.rows[part], dtype=np.float64), self.kinds[part]
            begin = end

    def distances_to(self, rows: Float, kinds: Int) -> Float:
        """(n,) of every frame to one frame, given as :meth:`vector` gives it."""
        types = max(self._types, int(kinds.max()) + 1)
        other = np.zeros((types, rows.shape[1]))
        other[kinds] = rows
        squares = np.einsum("ij,ij->i", other, other)
        found = np.empty(len(self))
        for begin, end, block, of in self._blocks(_ROWS):
            away = block - other[of]
            sums = np.add.reduceat(np.einsum("ij,ij->i", away, away), self.starts[begin:end] - self.starts[begin])
            found[begin:end] = sums + self._lacks[begin:end] @ squares[: self._types]
        distances: Float = np.sqrt(found + squares[self._types :].sum())
        return distances

    def center(self, chosen: NDArray[np.bool_] | None = None) -> tuple[Float, Int]:
        """The mean of the vectors of all frames, or of the ``chosen`` (n,)."""
        sums = np.zeros((self._types, self.rows.shape[1]))
        for begin, end, block, of in self._blocks(_ROWS):
            weights = np.ones(end - begin) if chosen is None else chosen[begin:end].astype(np.float64)
            of_rows = np.repeat(weights, np.diff(self.starts[begin : end + 1]))
            for kind in np.unique(of):
                sums[kind] += of_rows[of == kind] @ block[of == kind]
        return sums / max(1, len(self) if chosen is None else int(chosen.sum())), np.arange(self._types, dtype=np.int32)


def nearest(frames: FrameVectors, others: FrameVectors, *, but_itself: bool = False) -> tuple[NDArray[np.int64], Float]:
    """The nearest of ``others`` to each of ``frames``.

    Args:
        frames, others: of the same model.
        but_itself: both are the same, and no frame is its own nearest one.

    Returns:
        (n,) the indices, and (n,) the distances; -1 and infinity where there is no other frame.
    """
    best, index = np.full(len(frames), np.inf), np.full(len(frames), -1, dtype=np.int64)
    for begin, end, rows, kinds in frames._blocks(_PAIRS):
        place = np.repeat(np.arange(end - begin), np.diff(frames.starts[begin : end + 1]))
        squares = np.bincount(place, np.einsum("ij,ij->i", rows, rows), end - begin)
        for first, last, other_rows, other_kinds in others._blocks(_PAIRS):
            other_place = np.repeat(np.arange(last - first), np.diff(others.starts[first : last + 1]))
            other_squares = np.bincount(other_place, np.einsum("ij,ij->i", other_rows, other_rows), last - first)
            found = squares[:, None] + other_squares
            for kind in np.intersect1d(kinds, other_kinds):
                one, two = kinds == kind, other_kinds == kind
                products = 2.0 * rows[one] @ other_rows[two].T
                if products.shape == found.shape:  # all have atoms of this type
                    found -= products
                else:
                    found[np.ix_(place[one], other_place[two])] -= products
            if but_itself:
                same = np.arange(max(begin, first), min(end, last))
                found[same - begin, same - first] = np.inf
            least = found.argmin(axis=1)
            values = found[np.arange(end - begin), least]
            closer = values < best[begin:end]
            best[begin:end][closer], index[begin:end][closer] = values[closer], least[closer] + first
    # Squares that cancel leave few digits of small distances: those of the pairs that were found are computed anew.
    pairs = zip(range(len(frames)), index.tolist(), strict=True)
    exact = [np.inf if k < 0 else _distance(frames.vector(f), others.vector(k)) for f, k in pairs]
    return index, np.array(exact)


def _distance(one: tuple[Float, Int], two: tuple[Float, Int]) -> float:
    return float(FrameVectors(one[0], one[1], np.array([len(one[1])])).distances_to(*two)[0])


def farthest_points(
    frames: FrameVectors,
    first: int | None = None,
    *,
    among: NDArray[np.bool_] | None = None,
    distances: Float | None = None,
) -> Iterator[tuple[int, float]]:
    """Frames, each the farthest one from all before it; copies of these are left out.

    Args:
        frames: to choose from.
        first: the frame to begin with; by default, and without ``distances``, the one nearest to the mean.
        among: (n,) which frames may be chosen; all by default.
        distances: (n,) of each frame to what has been chosen before, as by :func:`nearest`; they are changed.

    Yields:
        the index of a frame, and its distance to the nearest one before it, infinity where there was none.
    """
    if among is not None and not among.any():
        return
    may = np.ones(len(frames), dtype=bool) if among is None else among
    left = np.full(len(frames), np.inf) if distances is None else distances
    left[~may] = -np.inf
    if first is None and distances is None:
        away = frames.distances_to(*frames.center(may))
        first = int(np.where(may, away, np.inf).argmin())
    index = int(left.argmax()) if first is None else first
    while left[index] > 0.0:
        yield index, float(left[index])
        np.minimum(left, frames.distances_to(*frames.vector(index)), out=left)
        left[index] = -np.inf
        index = int(left.argmax())
