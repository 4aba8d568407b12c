"""Random edges for kernels over edges, with ghosts and room behind the last edge; what is asked of such a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cuda_emulator import EmulatedDevice

STEP = 1e-30
ROOM = 5  # rows of edges that no edge has
NSEL = 256
COUNTS = (0, 1, 31, 32, 33, 48, 120, 200)
Arrays = dict[str, np.ndarray]


class Graph:
    """The edges of centres with so many neighbours each, which may be ghosts; the last ghost is nobody's neighbour."""

    def __init__(self, counts: Sequence[int], ghosts: int = 3, seed: int = 5) -> None:
        self.counts, self.centres = np.array(counts), len(counts)
        self.atoms = self.centres + ghosts
        self.start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self.edges = int(self.start[-1])
        self.capacity = self.edges + ROOM
        rng = np.random.default_rng(seed)
        self.neighbour = rng.integers(0, self.atoms - (ghosts > 0), self.edges)
        self.centre = np.repeat(np.arange(self.centres), counts)
        self.j = np.concatenate([self.neighbour, np.full(ROOM, -1)]).astype(np.int32)
        self.order = np.argsort(self.neighbour, kind="stable").astype(np.int32)
        self.centres_of_edges = np.concatenate([self.centre, np.full(ROOM, -1)]).astype(np.int32)
        self.begin = np.searchsorted(self.neighbour[self.order], np.arange(self.atoms + 1)).astype(np.int32)

    def draw(self, seed: int, precision: str, **shapes: Any) -> Arrays:
        """Random numbers; "edges" in a shape is the number of edges, "atoms" and "centres" likewise."""
        rng = np.random.default_rng(seed)
        sizes = {"edges": self.edges, "atoms": self.atoms, "centres": self.centres}
        drawn = {name: rng.normal(size=[sizes.get(n, n) for n in shape]) for name, shape in shapes.items()}
        return {name: value.astype(precision).astype(np.float64) for name, value in drawn.items()}

    def sum(self, rows: Any) -> Any:
        """Rows of edges added up at their centres."""
        out = np.zeros((self.centres, *rows.shape[1:]), rows.dtype)
        np.add.at(out, self.centre, rows)
        return out

    def kappa(self, smooth: bool, root: bool) -> tuple[Any, Any]:
        """Theory 8: of the convolution and of the moments."""
        if smooth:
            return np.full(self.centres, 1 / NSEL), np.full(self.centres, NSEL**-0.5 if root else 1 / NSEL)
        return 1 / (1e-4 + self.counts), 1 / (1e-4 + (np.sqrt(self.counts) if root else self.counts))


class Run:
    """Kernels in one precision, with arrays of edges as large as the capacity."""

    def __init__(
        self, graph: Graph, precision: str, seed: int | None = None, sanitizer: str = "", sources: Path | None = None
    ) -> None:
        self.graph, self.real = graph, np.dtype(precision)
        self.device = EmulatedDevice(seed, sanitizer, sources, max_shared=48 * 1024)
        self.defines = {"real": "float" if precision == "float32" else "double"}

    def up(self, value: Any) -> Any:
        return None if value is None else np.ascontiguousarray(value, dtype=self.real)

    def edges(self, value: Any) -> Any:
        """Rows of edges, and behind them room that must not be read."""
        room = np.full((ROOM, *np.shape(value)[1:]), np.nan)
        return self.up(np.concatenate([value, room]))

    def empty(self, *shape: int) -> Any:
        """NaN, and a row more, so that it is seen whether too much is written."""
        return self.device.empty(shape, self.real)

    def taken(self, array: Any) -> Any:
        """The rows of edges of an array, after a look at the room behind them."""
        assert np.isnan(array[self.graph.edges :]).all()
        return array[: self.graph.edges].astype(np.float64)

    def start(
        self, source: str, kernel: str, struct: str, grid: int, values: Mapping[str, Any], group: int | None = None
    ) -> None:
        """``group``: the kernel is compiled for edges with 4 times as many numbers."""
        defines = self.defines | ({} if group is None else {"GROUP": str(group)})
        self.device.start(source, kernel, grid, 128, struct, values, 0, defines)

    def gather(self, values: Mapping[str, Any], group: int | None = None) -> Any:
        """What comes to the g1 of every atom, ghosts among them: centres have something already, ghosts nothing.
        Members that are not given are null or 0."""
        graph = self.graph
        pointers = ("g2", "h2", "w", "P", "r", "rows", "vectors", "node_rows", "dnode", "room", "queries", "given")
        numbers = ("node_stride", "nh", "nsel", "smooth", "root")
        nothing = dict.fromkeys(pointers) | dict.fromkeys(numbers, 0)
        dg1 = self.empty(graph.atoms, values["n1"])
        dg1[: graph.centres] = 1.0
        lists = {"begin": graph.begin, "edges": graph.order, "centre": graph.centres_of_edges, "start": graph.start}
        given = {**nothing, **values, **lists, "dg1": dg1, "added": graph.centres}
        self.start("gather.cu", "gather", "GatherArgs", graph.atoms, given, group)
        found = dg1.astype(np.float64)
        found[: graph.centres] -= 1.0
        return found


def strips(matrix: Any) -> Any:
    """A matrix as tiles of edges are multiplied with it: strips of 32 columns, each with whole tiles of rows."""
    rows, columns = (-(-n // 32) * 32 for n in matrix.shape)
    out = np.zeros((rows, columns))
    out[: matrix.shape[0], : matrix.shape[1]] = matrix
    return np.ascontiguousarray(out.reshape(rows, -1, 32).swapaxes(0, 1))


def assert_close(found: Any, wanted: Any, bound: float, what: str) -> None:
    assert found.shape == wanted.shape, what
    if wanted.size:
        error = np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max())
        assert error <= bound, f"{what}: {error:.1e}"


def assert_gradient(
    forward: Callable[..., Arrays], inputs: Arrays, seeds: Arrays, gradients: Arrays, bound: float
) -> None:
    """The gradient of every input along random directions, against a complex step of the forward."""
    rng = np.random.default_rng(78)
    assert gradients.keys() == inputs.keys()
    for name, value in inputs.items():
        gradient = gradients[name]
        assert gradient.shape == value.shape, name
        assert np.isfinite(gradient).all(), name
        for _ in range(2):
            direction = rng.normal(size=value.shape)
            moved = forward(**inputs | {name: value + 1j * STEP * direction})
            terms = [(seeds[key] * out.imag / STEP).ravel() for key, out in moved.items()]
            products = [np.concatenate(terms), (gradient * direction).ravel()]
            scale = max(1e-3, *(np.abs(product).sum() for product in products))
            error = abs(products[0].sum() - products[1].sum()) / scale
            assert error <= bound, f"{name}: {error:.1e}"
