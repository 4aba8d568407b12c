"""The product of both ends' features as an update of g2: against NumPy and its complex steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edge_graph import COUNTS, Arrays, Graph, Run, assert_close, assert_gradient, strips

FORWARD = {"float64": 1e-14, "float32": 5e-6}
BACKWARD = {"float64": 1e-13, "float32": 2e-5}


class G1G1:
    def __init__(self, graph: Graph, n1: int, n2: int, precision: str) -> None:
        self.graph, self.n1, self.n2, self.precision = graph, n1, n2, precision
        self.inputs = graph.draw(1, precision, g1=("atoms", n1), w=("edges",))
        self.W = graph.draw(2, precision, W=(n1, n2))["W"]

    def forward(self, g1: Any, w: Any) -> Arrays:
        return {"U": (w[:, None] * g1[self.graph.centre] * g1[self.graph.neighbour]) @ self.W}

    def common(self, run: Run) -> dict[str, Any]:
        return {"start": self.graph.start, "j": self.graph.j, "g1": run.up(self.inputs["g1"]),
                "w": run.edges(self.inputs["w"]), "n1": self.n1, "n2": self.n2}  # fmt: skip

    def launch(self, run: Run) -> Arrays:
        U = run.empty(self.graph.capacity, self.n2)
        values = self.common(run) | {"W": run.up(strips(self.W)), "U": U}
        run.start("g1g1.cu", "g1g1", "G1G1Args", self.graph.centres, values)
        return {"U": run.taken(U)}

    def backward(self, run: Run, seeds: Arrays) -> Arrays:
        graph, common = self.graph, self.common(run)
        out = {"dg1": run.up(np.ones((graph.atoms, self.n1))), "dw": run.edges(np.ones(graph.edges))}
        given = {"dU": run.edges(seeds["U"]), "Wt": run.up(strips(self.W.T))}
        run.start("g1g1.cu", "g1g1_backward", "G1G1BackwardArgs", graph.centres, common | out | given)
        assert (out["dg1"][graph.centres :] == 1.0).all()
        terms = {
            "g2": given["dU"],
            "w": common["w"],
            "P": given["Wt"],
            "rows": common["g1"],
            "n1": self.n1,
            "n2": self.n2,
        }
        g1 = run.gather(terms | {"nsel": 1, "smooth": 1}, 4 if self.n2 <= 16 else 8) + out["dg1"] - 1.0
        return {"g1": g1, "w": run.taken(out["dw"]) - 1.0}


def compared(graph: Graph, n1: int, n2: int, precision: str, seed: int | None = None) -> set[str]:
    """The outputs and the gradients that were right."""
    op, run = G1G1(graph, n1, n2, precision), Run(graph, precision, seed)
    wanted = op.forward(**op.inputs)["U"]
    assert_close(op.launch(run)["U"], wanted, FORWARD[precision], "U")
    seeds = {"U": np.random.default_rng(77).normal(size=wanted.shape)}
    assert_gradient(op.forward, op.inputs, seeds, op.backward(run, seeds), BACKWARD[precision])
    return {*seeds, *op.inputs}


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(("n1", "n2"), [(1, 1), (9, 5), (33, 31), (128, 32), (132, 132), (260, 256), (2049, 9)])
def test_widths(n1: int, n2: int, precision: str) -> None:
    assert compared(Graph(COUNTS), n1, n2, precision) > {"U"}


def test_same_bits_whatever_the_schedule() -> None:
    op, bits = G1G1(Graph((40, 3)), 133, 33, "float32"), set()
    seeds = {"U": np.random.default_rng(77).normal(size=(43, 33))}
    for seed in (None, 1, 2, 3):
        run = Run(op.graph, op.precision, seed)
        found = [*op.launch(run).values(), *op.backward(run, seeds).values()]
        bits.add(b"".join(value.tobytes() for value in found))
    assert len(bits) == 1
