"""Neighbour lists: every pair of atoms and lattice images within the cutoff, found by plain enumeration (theory 1).

Per centre i of type >= 0 (atoms of type < 0 have no neighbours and are nobody's neighbour):

1. candidates: all (j, n in Z^3 along the periodic directions) with |d| <= repinit.rcut, d = x_j + n B - x_i, but not
   (i, 0);
2. order: ascending r = |d|; distances equal up to rounding are ordered by j, then by n, and are on the same side of
   every cutoff (inclusive);
3. the master list is the first repinit.nsel. With the pairs (rcut, nsel) of the blocks in ascending order, the list of
   block X is L_X(i) = { k in master list: k < nsel_Y and r_k <= rcut_Y for every pair Y >= X }, a prefix of it;
4. pairs excluded by the model or by the descriptor are then removed from storage; they have used up slots in step 3.

What remains of the padded slots are counts: pad_repinit = repinit.nsel minus the edges of the master list that the
MODEL does not exclude (those that the descriptor excludes are no pads there), pad_three the same for the three-body
list.

A combination of models has a list of this kind for each of them, and one of a pair (rcut, sel) for a pair table. The
pairs (rcut, nsel) of the master lists of all are in the order of step 3 too: each list is cut by those that are not
before it. Of atoms beyond the largest nsel none is in any list.

The handedness of the box does not matter; atoms may lie anywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import InputError
from dpa2.inputs import LARGEST_LENGTH
from dpa2.remarks import Remarks

from .common import Array, EdgeList, IntArray
from .lattice import face_distances, reduced

DISTANCE_TOLERANCE = 1e-10  # angstrom: distances closer than this are equal up to rounding


@dataclass(frozen=True)
class Edges:
    """The neighbour lists of a frame in CSR form, nearest neighbours first."""

    start: IntArray  # (n + 1)   rows of centre i: start[i]:start[i+1]
    j: IntArray  # (ne)          neighbour
    d: Array  # (ne, 3)          x_j + n B - x_i, angstrom
    r: Array  # (ne)             |d|
    image: IntArray  # (ne, 3)   n, relative to the coordinates as given
    n_three: IntArray  # (n)     stored edges of the three-body list: the first so many of the centre
    n_repformer: IntArray  # (n)       stored edges of the repformer list
    pad_repinit: IntArray  # (n)        padded slots of the repinit list
    pad_three: IntArray  # (n)        padded slots of the three-body list (0 without three-body block)
    remarks: Remarks  #          the worst atom of each block whose list was cut, and the closest pair of all

    @property
    def centre(self) -> IntArray:
        """(ne) the centre of each edge."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    def edge_list(self, d: Array | None = None) -> EdgeList:
        """The repinit list; with other displacements ``d`` (ne, 3) for the same edges when given."""
        if d is None:
            return EdgeList(self.start, self.centre, self.j, self.d, self.r)
        squared = (d**2).sum(axis=1)
        r = np.sqrt(np.where(self.r > 0.0, squared, 1.0)) * (self.r > 0.0)  # dr/dd is taken as 0 at r = 0
        return EdgeList(self.start, self.centre, self.j, d, r)


def build(
    coords: Array,
    types: IntArray,
    box: Array | None,
    pbc: tuple[bool, bool, bool],
    config: dict[str, Any],
    others: Sequence[tuple[float, int]] = (),
) -> Edges:
    """The neighbour lists of one frame.

    coords (n, 3) angstrom, types (n), box (3, 3) with the cell vectors as rows or None, pbc one flag per cell vector,
    config the canonical configuration of the model, others the pairs (rcut, nsel) of all models of a combination.
    Raises InputError for wrong shapes, values that are not finite,
    unknown types, a singular box, and coinciding neighbours where the model cannot take them.
    """
    coords, types, ntypes = np.asarray(coords, dtype=np.float64), np.asarray(types), len(config["type_map"])
    check_atoms(coords, types, ntypes)
    option = config["descriptor"]
    repinit, repformer = option["repinit"], option["repformer"]
    blocks = {"repinit": (repinit["rcut"], repinit["nsel"])}
    if repinit["use_three_body"]:
        blocks["three_body"] = (repinit["three_body_rcut"], repinit["three_body_sel"])
    blocks["repformer"] = (repformer["rcut"], repformer["nsel"])
    by_model = exclusion_mask(config["pair_exclude_types"], ntypes)
    by_descriptor = exclusion_mask(option["exclude_types"], ntypes)

    centre, j, image, d, r, shell = candidates(coords, types, box, pbc, repinit["rcut"])
    n = len(coords)
    first = np.searchsorted(centre, np.arange(n + 1))
    rank = np.arange(len(centre)) - first[centre]
    allowed = not_cut(blocks["repinit"], others, rank, shell)
    member = {name: in_list(name, blocks, rank, shell) & allowed for name in blocks}
    overflow = []
    for name, (rcut, nsel) in blocks.items():
        within = np.bincount(centre[shell <= rcut + DISTANCE_TOLERANCE], minlength=n)
        if n and within.max() > nsel:
            worst = int(within.argmax())
            overflow.append((name, worst, int(within[worst]), int(nsel)))

    model_excludes = by_model[types[centre], types[j]]
    stored = member["repinit"] & ~model_excludes & ~by_descriptor[types[centre], types[j]]

    def number(mask: NDArray[np.bool_]) -> IntArray:
        return np.bincount(centre[mask], minlength=n)

    pad_repinit = repinit["nsel"] - number(member["repinit"] & ~model_excludes)
    n_three = pad_three = np.zeros(n, dtype=np.int64)
    if "three_body" in blocks:
        n_three = number(member["three_body"] & stored)
        pad_three = repinit["three_body_sel"] - number(member["three_body"] & ~model_excludes)
    coinciding = stored & (r <= DISTANCE_TOLERANCE)
    atom = types < config.get("first_virtual", ntypes)  # the virtual atoms of spins stand beside atoms on purpose
    noted = stored & atom[centre] & atom[j]
    if option["env_protection"] == 0.0 and coinciding.any():
        pair = int(np.argmax(coinciding))
        raise InputError(
            f"atoms {centre[pair]} and {j[pair]} (image {tuple(int(k) for k in image[pair])}) are at the same position"
        )
    return Edges(
        start=np.concatenate([[0], np.cumsum(number(stored))]),
        j=j[stored],
        d=d[stored],
        r=r[stored],
        image=image[stored],
        n_three=n_three,
        n_repformer=number(member["repformer"] & stored),
        pad_repinit=pad_repinit,
        pad_three=pad_three,
        remarks=Remarks(overflow, closest(centre[noted], j[noted], r[noted])),
    )


def build_table(
    coords: Array,
    types: IntArray,
    box: Array | None,
    pbc: tuple[bool, bool, bool],
    config: dict[str, Any],
    others: Sequence[tuple[float, int]] = (),
) -> Edges:
    """The list of a pair table, as that of the first block of a model; config: rcut, sel, pair_exclude_types."""
    own = (config["rcut"], config["sel"])
    centre, j, image, d, r, shell = candidates(coords, types, box, pbc, own[0])
    n = len(coords)
    rank = np.arange(len(centre)) - np.searchsorted(centre, np.arange(n + 1))[centre]
    stored = (rank < own[1]) & (shell <= own[0] + DISTANCE_TOLERANCE) & not_cut(own, others, rank, shell)
    stored &= ~exclusion_mask(config["pair_exclude_types"], len(config["type_map"]))[types[centre], types[j]]
    count = np.bincount(centre, minlength=n)
    overflow = [("table", int(count.argmax()), int(count.max()), int(own[1]))] if n and count.max() > own[1] else []
    none = np.zeros(n, dtype=np.int64)
    return Edges(
        start=np.concatenate([[0], np.cumsum(np.bincount(centre[stored], minlength=n))]),
        j=j[stored],
        d=d[stored],
        r=r[stored],
        image=image[stored],
        n_three=none,
        n_repformer=none,
        pad_repinit=none,
        pad_three=none,
        remarks=Remarks(overflow, closest(centre[stored], j[stored], r[stored])),
    )


def closest(centre: IntArray, j: IntArray, r: Array) -> tuple[int, int, float] | None:
    if not len(r):
        return None
    pair = int(np.argmin(r))  # of equal ones the first: edges are sorted by their centres
    return int(centre[pair]), int(j[pair]), float(r[pair])


def candidates(
    coords: Array, types: IntArray, box: Array | None, pbc: tuple[bool, bool, bool], rcut: float
) -> tuple[IntArray, IntArray, IntArray, Array, Array, Array]:
    """All pairs within rcut in the final order: centre, neighbour, image (., 3), displacement (., 3), distance, shell.

    The shell is the smallest of the distances that are equal to this one up to rounding. Images are counted in vectors
    of the box, and looked for in those of the reduced lattice: a skewed cell has no more of them than an upright one.
    """
    lattice = reduced(box, pbc)
    rows, periodic = lattice.rows, np.asarray(pbc, dtype=bool)
    wrap = np.floor(coords @ np.linalg.inv(rows)).astype(np.int64) * periodic  # the cell that each atom lies in
    # Between wrapped atoms an image shift m reaches at least (|m_a| - 1) face distances along direction a.
    reach = np.where(periodic, np.ceil(rcut / face_distances(rows)), 0).astype(np.int64)
    relative = wrap[:, None, :] - wrap[None, :, :]  # n = m + wrap_i - wrap_j
    difference = coords[None, :, :] - coords[:, None, :]
    possible = (types[:, None] >= 0) & (types[None, :] >= 0)
    found: list[tuple[Array, ...]] = []
    for m in itertools.product(*[range(-k, k + 1) for k in reach]):
        image = relative + np.asarray(m)
        d = difference + image @ rows
        squared = np.einsum("ijx,ijx->ij", d, d)
        close = possible & (squared <= (rcut + 1e-6) ** 2)
        if not any(m):
            np.fill_diagonal(close, False)
        i, j = np.nonzero(close)
        r = np.sqrt((d[i, j] ** 2).sum(axis=1))
        keep = r <= rcut + DISTANCE_TOLERANCE
        found.append((i[keep], j[keep], image[i, j][keep] @ lattice.transform, d[i, j][keep], r[keep]))
    centre, j, image, d, r = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((r, centre))
    # Runs of distances that follow each other within the tolerance are one shell, in which (j, image) decides.
    begins = (np.diff(r[order], prepend=0.0) > DISTANCE_TOLERANCE) | (np.diff(centre[order], prepend=-1) != 0)
    group, shell = np.empty(len(r), dtype=np.int64), np.empty(len(r))
    group[order] = np.cumsum(begins) - 1
    shell[order] = r[order][begins][group[order]]
    order = np.lexsort((image[:, 2], image[:, 1], image[:, 0], j, group))
    return centre[order], j[order], image[order], d[order], r[order], shell[order]


def in_list(name: str, blocks: dict[str, tuple[float, int]], rank: IntArray, shell: Array) -> NDArray[np.bool_]:
    """Which candidates (rank in the sorted list of their centre, shell) belong to the list of a block."""
    mask = rank < blocks["repinit"][1]
    for other in blocks.values():
        if other >= blocks[name]:
            mask = mask & (rank < other[1]) & (shell <= other[0] + DISTANCE_TOLERANCE)
    return mask


def not_cut(
    own: tuple[float, int], others: Sequence[tuple[float, int]], rank: IntArray, shell: Array
) -> NDArray[np.bool_]:
    """Which candidates the lists of the other models of a combination leave to one with the pair ``own``."""
    mask = np.ones(len(rank), dtype=bool)
    for rcut, nsel in others:
        if (rcut, nsel) >= own:
            mask &= (rank < nsel) & (shell <= rcut + DISTANCE_TOLERANCE)
    if others:
        mask &= rank < max(nsel for _, nsel in others)
    return mask


def exclusion_mask(pairs: list[list[int]], ntypes: int) -> NDArray[np.bool_]:
    """(ntypes, ntypes) True for the excluded pairs of types, in both orders."""
    mask = np.zeros((ntypes, ntypes), dtype=bool)
    for a, b in pairs:
        mask[a, b] = mask[b, a] = True
    return mask


def check_atoms(coords: Array, types: IntArray, ntypes: int) -> None:
    """Raises InputError unless coords (n, 3) are finite, not too large, and types (n) are integers below ntypes."""
    if coords.ndim != 2 or coords.shape[1] != 3:
        raise InputError(f"coords has the shape {coords.shape}; wanted is (natoms, 3)")
    if types.shape != (len(coords),) or not np.issubdtype(types.dtype, np.integer):
        raise InputError(f"types has the shape {types.shape} and type {types.dtype}; wanted are {len(coords)} integers")
    if not (np.abs(coords) <= LARGEST_LENGTH).all():
        atom = int(np.argmin((np.abs(coords) <= LARGEST_LENGTH).all(axis=1)))
        what = "are too large, in angstrom" if np.isfinite(coords[atom]).all() else "are not finite"
        raise InputError(f"coords of atom {atom} {what}: {coords[atom].tolist()}")
    if (types >= ntypes).any():
        atom = int(np.argmax(types >= ntypes))
        raise InputError(f"type {types[atom]} of atom {atom} is unknown: the model has {ntypes} types")


def block_list(edges: Edges, block: str, d: Array | None = None) -> EdgeList:
    """The list of ``"repinit"``, ``"three_body"`` or ``"repformer"``, optionally with other displacements."""
    whole = edges.edge_list(d)
    if block == "repinit":
        return whole
    return whole.prefix(edges.n_three if block == "three_body" else edges.n_repformer)
