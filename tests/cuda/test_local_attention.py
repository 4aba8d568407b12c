"""Attention to the neighbours in tiles with a running maximum: against NumPy and its complex steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edge_graph import COUNTS, NSEL, Arrays, Graph, Run, assert_close, assert_gradient

SHIFT = 20.0
FORWARD = {"float64": 1e-13, "float32": 5e-5}
BACKWARD = {"float64": 1e-12, "float32": 5e-4}


class Attention:
    def __init__(self, graph: Graph, n1: int, nh: int, smooth: bool, precision: str, sel: int = NSEL) -> None:
        self.graph, self.n1, self.nh, self.smooth, self.precision, self.sel = graph, n1, nh, smooth, precision, sel
        self.inputs = graph.draw(1, precision, g1=("atoms", n1), tq=("centres", nh * n1))
        self.inputs["tq"] *= 0.5 ** round(np.log2(n1) / 2)  # scores of about one
        self.w = np.ones(graph.edges)
        if smooth:
            w = np.random.default_rng(3).uniform(0, 1, graph.edges)
            w[::5] = 0.0
            self.inputs["w"] = w.astype(precision).astype(np.float64)

    def forward(self, g1: Any, tq: Any, w: Any = None) -> Arrays:
        w = self.w if w is None else w
        out = np.zeros((self.graph.centres, self.nh, self.n1), np.result_type(g1, tq, w))
        for i in range(self.graph.centres):
            own = slice(self.graph.start[i], self.graph.start[i + 1])
            rows, n = g1[self.graph.neighbour[own]], int(self.graph.counts[i])
            score = tq[i].reshape(self.nh, self.n1) @ rows.T
            pad = 0
            if self.smooth:
                score, pad = (score + SHIFT) * w[own], self.sel - n
            if n == 0:
                continue
            top = score.real.max(axis=1, keepdims=True)
            weights = np.exp(score - top)
            out[i] = weights / (weights.sum(axis=1, keepdims=True) + pad * np.exp(-top)) * w[own] @ rows
        return {"o": out.reshape(self.graph.centres, -1)}

    def common(self, run: Run) -> dict[str, Any]:
        x = self.inputs
        return {"start": self.graph.start, "j": self.graph.j, "g1": run.up(x["g1"]), "tq": run.up(x["tq"]),
                "w": run.edges(x.get("w", self.w)), "n1": self.n1, "nh": self.nh,
                "shift": SHIFT if self.smooth else 0.0}  # fmt: skip

    def launch(self, run: Run) -> Arrays:
        n, nh = self.graph.centres, self.nh
        self.kept = {"largest": run.empty(n, nh), "inverse": run.empty(n, nh)}
        out, logit = run.empty(n, nh * self.n1), run.empty(self.graph.capacity, nh)
        values = self.common(run) | self.kept | {"o": out, "logit": logit, "nsel": self.sel if self.smooth else 0}
        run.start("local_attention.cu", "local_attention", "LocalAttentionArgs", n, values)
        run.taken(logit)
        return {"o": out.astype(np.float64)}

    def backward(self, run: Run, seeds: Arrays) -> Arrays:
        graph, n = self.graph, self.graph.centres
        out = {"dtq": run.empty(n, self.nh * self.n1), "dw": run.edges(np.ones(graph.edges)),
               "room": run.empty(graph.capacity, 2 * self.nh)}  # fmt: skip
        given = {"dout": run.up(seeds["o"])}
        values = self.common(run) | self.kept | out | given
        run.start("local_attention.cu", "local_attention_backward", "LocalAttentionBackwardArgs", n, values)
        run.taken(out["room"])
        terms = {name: values[name] for name in ("room", "n1", "nh")}
        g1 = run.gather(terms | {"queries": values["tq"], "given": values["dout"], "n2": 0})
        gradients = {"g1": g1, "tq": out["dtq"].astype(np.float64)}
        if self.smooth:
            gradients["w"] = run.taken(out["dw"]) - 1.0
        return gradients


def compared(
    graph: Graph, n1: int, nh: int, smooth: bool, precision: str, seed: int | None = None, sel: int = NSEL
) -> set[str]:
    """The outputs and the gradients that were right."""
    op, run = Attention(graph, n1, nh, smooth, precision, sel), Run(graph, precision, seed)
    wanted = op.forward(**op.inputs)
    assert_close(op.launch(run)["o"], wanted["o"], FORWARD[precision], "o")
    seeds = {"o": np.random.default_rng(77).normal(size=wanted["o"].shape)}
    assert_gradient(op.forward, op.inputs, seeds, op.backward(run, seeds), BACKWARD[precision])
    return {*seeds, *op.inputs}


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("nh", [1, 3, 6])
def test_options(nh: int, smooth: bool, precision: str) -> None:
    assert compared(Graph((3, 0, 37, 2)), 9, nh, smooth, precision, seed=11) > {"o"}


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize(("n1", "nh"), [(1, 2), (128, 4), (133, 5), (300, 1), (2049, 2)])
def test_widths(n1: int, nh: int, smooth: bool, precision: str) -> None:
    assert compared(Graph(COUNTS), n1, nh, smooth, precision) > {"o"}


def test_a_full_list_has_no_padded_slots() -> None:
    assert compared(Graph((40, 3)), 9, 2, True, "float64", sel=40) > {"o"}


def test_large_scores_do_not_overflow() -> None:
    """Logits that grow from tile to tile: the sum so far is scaled down, and its exponentials never overflow."""
    graph = Graph((100,))
    op, run = Attention(graph, 5, 2, False, "float32"), Run(graph, "float32")
    op.inputs["tq"] = op.inputs["tq"] * 0 + 40.0
    op.inputs["g1"] = np.sort(np.abs(op.inputs["g1"]), axis=0)
    order = np.arange(100) % graph.atoms
    graph.neighbour = np.sort(order)
    graph.j[:100] = graph.neighbour
    wanted = op.forward(**op.inputs)["o"]
    assert_close(op.launch(run)["o"], wanted, 1e-4, "o")


def test_same_bits_whatever_the_schedule() -> None:
    op, bits = Attention(Graph((40, 3)), 133, 6, True, "float32"), set()
    seeds = {"o": np.random.default_rng(77).normal(size=(2, 6 * 133))}
    for seed in (None, 1, 2, 3):
        run = Run(op.graph, op.precision, seed)
        found = [*op.launch(run).values(), *op.kept.values(), *op.backward(run, seeds).values()]
        bits.add(b"".join(value.tobytes() for value in found))
    assert len(bits) == 1
