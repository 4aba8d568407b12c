"""The edges that the operations run on: four atoms, one without neighbours, and what several operations share."""

from __future__ import annotations

from typing import Any

import numpy as np
from dpa2.reference.common import EdgeList
from dpa2.reference.g2_embed import RepformerEdges
from ops.backends import Cuda

N, COUNT, NSEL = 4, (3, 0, 7, 2), 9
EDGES = sum(COUNT)
START = np.concatenate([[0], np.cumsum(COUNT)])
CENTRE = np.repeat(np.arange(N), COUNT)
J = np.random.default_rng(5).integers(0, N, EDGES)
TYPES = np.array([0, 2, 1, 0])
KAPPA = 1 / (1e-4 + np.array(COUNT))
#: members of the CUDA kernels that make these factors
NORMALISED = {"nsel": NSEL, "smooth": 0, "root": 0}
OWN = [slice(int(START[i]), int(START[i + 1])) for i in range(N)]


def draw(seed: int, **shapes: Any) -> dict[str, np.ndarray]:
    """Random numbers that float32 has exactly, so that both precisions start from the same."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32).astype(np.float64) for name, shape in shapes.items()}


def switches(seed: int) -> np.ndarray:
    """A weight between 0 and 1 for every edge."""
    return np.random.default_rng(seed).uniform(0.05, 0.95, EDGES).astype(np.float32).astype(np.float64)


def geometry(w: Any) -> RepformerEdges:
    """What the reference sees; ``w``: the weights of the edges."""
    empty = np.zeros((EDGES, 3))
    edges = EdgeList(START, CENTRE, J, empty, empty[:, 0])
    return RepformerEdges(edges, w, w, KAPPA, KAPPA, NSEL - np.array(COUNT))


def edges_of(run: Cuda) -> dict[str, Any]:
    """The edges as members of arguments."""
    return {"start": run.integers(START), "j": run.integers(J)}


def neighbours(i: int) -> list[int]:
    """Rows of the neighbours of a centre, behind the number of all rows."""
    return [N, *J[OWN[i]]]


def incoming(run: Cuda) -> dict[str, Any]:
    """The edges by the atoms where they end, as members of arguments."""
    order = np.argsort(J, kind="stable")
    return {"begin": run.integers(np.searchsorted(J[order], np.arange(N + 1))), "edges": run.integers(order),
            "centre": run.integers(CENTRE)}  # fmt: skip


def gathered(run: Cuda, n1: int, n2: int, **terms: Any) -> np.ndarray:
    """What products over edges bring to the g1 of the atoms where they end."""
    dg1, lists = run.filled(N, n1), incoming(run) | {"start": run.integers(START)}
    run.start("gather.cu", "gather", "GatherArgs", N, **lists, **NORMALISED | terms, n1=n1, n2=n2, dg1=dg1, added=N)
    return run.added(dg1)
