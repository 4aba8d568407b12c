"""The periodic lattice of a frame: checked, and reduced to short vectors (theory 1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpa2.errors import InputError

from .common import Array, IntArray

MARGIN = 1.0 + 1e-9  # a tie is no improvement: guarantees an end of the reduction
LARGEST_MULTIPLE = 1e5
TOO_SKEWED = (
    "the box is too skewed: its vectors are sums of shorter ones that repeat the same atoms, with factors beyond "
    f"{LARGEST_MULTIPLE:.0f}; pass those"
)


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
        raise InputError(TOO_SKEWED)
    for a in range(3):
        if not periodic[a]:
            rows[a] = 0.0
    return Lattice(check_box(rows, periodic) if any(periodic) else np.eye(3), transform, periodic)


def _add(rows: Array, transform: IntArray, given: Array, a: int, b: int, times: float) -> None:
    """Vector a += times vector b, in exact integers; from the given box, so that rounding does not pile up."""
    if abs(times) > LARGEST_MULTIPLE:
        raise InputError(TOO_SKEWED)
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


def face_distances(rows: Array) -> Array:
    """(3) distances between opposite faces of the cell, angstrom."""
    out: Array = 1.0 / np.linalg.norm(np.linalg.inv(rows), axis=0)
    return out


def check_box(box: Array | None, pbc: tuple[bool, bool, bool]) -> Array:
    """(3, 3) regular cell vectors; those that an open direction leaves out are replaced by orthogonal unit vectors."""
    if box is None:
        if any(pbc):
            raise InputError("a periodic direction needs a box")
        return np.eye(3)
    rows = np.array(box, dtype=np.float64)
    if rows.shape != (3, 3):
        raise InputError(f"box has the shape {rows.shape}; wanted is (3, 3)")
    if not np.isfinite(rows).all():
        raise InputError("box has entries that are not finite")
    for a in range(3):
        if not pbc[a] and not rows[a].any():
            rows[a] = np.linalg.svd(rows)[2][-1]  # orthogonal to all rows: one of them is zero
    lengths = np.linalg.norm(rows, axis=1)
    if not lengths.all() or abs(np.linalg.det(rows / lengths[:, None])) < 1e-10:
        raise InputError(f"box is singular: {rows.tolist()}")
    return rows
