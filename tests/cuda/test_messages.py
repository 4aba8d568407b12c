"""Convolution and symmetrisation of a layer, and back to edges and neighbours: against NumPy and its complex steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from edge_graph import COUNTS, NSEL, Arrays, Graph, Run, assert_close, assert_gradient, strips

FORWARD = {"float64": 1e-14, "float32": 2e-6}
BACKWARD = {"float64": 1e-13, "float32": 2e-5}


@dataclass(frozen=True)
class Terms:
    """What a layer has."""

    conv: str = "out"  # "out": P acts on g2; "node": on g1; ""
    grrg: bool = True
    drrd: bool = True
    smooth: bool = True
    root: bool = True
    seed: bool = False  # something flows into the moments of g2 themselves
    fresh: bool = False

    def __str__(self) -> str:
        return "-".join(str(value) for value in (self.conv, self.grrg, self.drrd, self.smooth, self.root, self.seed))


class Messages:
    """The kernels of one size, and the same in NumPy."""

    def __init__(self, graph: Graph, n1: int, n2: int, axis: int, terms: Terms, precision: str) -> None:
        self.graph, self.n1, self.n2, self.axis, self.terms, self.precision = graph, n1, n2, axis, terms, precision
        shapes: dict[str, tuple[Any, ...]] = {"g2": ("edges", n2), "h2": ("edges", 3), "w": ("edges",)}
        if terms.conv == "out" or terms.drrd:
            shapes["g1"] = ("atoms", n1)
        if terms.conv == "node":
            shapes["node"] = ("atoms", n2)
        self.inputs = graph.draw(1, precision, **shapes)
        constants = graph.draw(2, precision, P=(n2, n1), r_conv=(n1,))
        self.P, self.r_conv = constants["P"], constants["r_conv"]
        self.width = 3  # columns that are not ours
        self.at = {}
        pieces = (("conv", terms.conv == "node", n2), ("grrg", terms.grrg, axis * n2), ("drrd", terms.drrd, axis * n1))
        for name, wanted, size in pieces:
            self.at[name] = self.width if wanted else -1
            self.width += size if wanted else 0
        self.kappa = graph.kappa(terms.smooth, terms.root)
        self.group = 4 if n2 <= 16 else 8

    def moments(self, X: Any, h2: Any, w: Any) -> Any:
        return self.kappa[1][:, None, None] * self.graph.sum((w[:, None] * h2)[:, :, None] * X[:, None, :])

    def gram(self, C: Any) -> Any:
        return np.einsum("ixa,ixc->iac", C[:, :, : self.axis], C).reshape(len(C), -1) / 3

    def forward(self, g2: Any, h2: Any, w: Any, g1: Any = None, node: Any = None) -> Arrays:
        graph, out = self.graph, {}
        j, weight = graph.neighbour, self.kappa[0][graph.centre] * w
        if self.terms.conv == "out":
            out["conv"] = graph.sum(weight[:, None] * (g2 @ self.P) * g1[j])
        if self.terms.conv == "node":
            out["cat_conv"] = graph.sum(weight[:, None] * g2 * node[j])
        if self.terms.grrg:
            out["cat_grrg"] = self.gram(self.moments(g2, h2, w))
        if self.terms.drrd:
            out["cat_drrd"] = self.gram(self.moments(g1[j], h2, w))
        if self.terms.seed:
            out["moments"] = self.moments(g2, h2, w)
        return out

    def common(self, run: Run) -> dict[str, Any]:
        x, t = self.inputs, self.terms
        return {
            "start": self.graph.start, "j": self.graph.j, "g1": run.up(x.get("g1")), "g2": run.edges(x["g2"]),
            "h2": run.edges(x["h2"]), "w": run.edges(x["w"]),
            "node": run.up(x["node"]) if t.conv == "node" else None, "n1": self.n1, "n2": self.n2, "axis": self.axis,
            "cat_width": self.width, "cat_conv": self.at["conv"], "cat_grrg": self.at["grrg"],
            "cat_drrd": self.at["drrd"], "nsel": NSEL, "smooth": int(t.smooth), "root": int(t.root),
        }  # fmt: skip

    def launch(self, run: Run) -> Arrays:
        """Outputs by the names of `forward`; what is kept for the backward goes to self."""
        n, t = self.graph.centres, self.terms
        out = {"conv": run.empty(n, self.n1) if t.conv == "out" else None, "cat": run.empty(n, self.width),
               "grrg": run.empty(n, 3, self.n2) if t.grrg or t.seed else None,
               "drrd": run.empty(n, 3, self.n1) if t.drrd else None}  # fmt: skip
        P = run.up(strips(self.P)) if t.conv == "out" else None
        run.start("messages.cu", "messages", "MessagesArgs", n, self.common(run) | out | {"P": P}, self.group)
        self.kept = out
        found = {"conv": out["conv"]} if t.conv == "out" else {}
        cat, sizes = out["cat"], {"conv": self.n2, "grrg": self.axis * self.n2, "drrd": self.axis * self.n1}
        ours = np.zeros(self.width, bool)
        for name, at in self.at.items():
            if at >= 0:
                found[f"cat_{name}"] = cat[:, at : at + sizes[name]]
                ours[at : at + sizes[name]] = True
        if t.grrg or t.seed:  # without Gram products of its own the seed's layer still has none written
            assert np.isnan(cat[:, ~ours]).all()
        if t.seed:
            found["moments"] = out["grrg"]
        return {name: value.astype(np.float64) for name, value in found.items()}

    def backward(self, run: Run, seeds: Arrays) -> Arrays:
        graph, t, x = self.graph, self.terms, self.inputs
        dcat = np.full((graph.centres, self.width), np.nan)
        for name, at in self.at.items():
            if at >= 0:
                given = seeds[f"cat_{name}"]
                dcat[:, at : at + given.shape[1]] = given
        before = {name: np.full(x[name].shape, np.nan if t.fresh else 1.0) for name in ("g2", "h2", "w")}
        out = {f"d{name}": run.edges(value) for name, value in before.items()}
        given = {
            "Pt": run.up(strips(self.P.T)) if t.conv == "out" else None, "r_conv": run.up(self.r_conv),
            "dout": run.up(seeds["conv"] / self.r_conv) if t.conv == "out" else None, "dcat": run.up(dcat),
            "seed": run.up(seeds["moments"]) if t.seed else None, "grrg": self.kept["grrg"] if t.grrg else None,
            "drrd": self.kept["drrd"], "dgrrg": run.empty(graph.centres, 3, self.n2) if t.grrg or t.seed else None,
            "ddrrd": run.empty(graph.centres, 3, self.n1) if t.drrd else None, "fresh": int(t.fresh),
        }  # fmt: skip
        common = self.common(run)
        values = common | out | given
        run.start("messages.cu", "messages_backward", "MessagesBackwardArgs", graph.centres, values, self.group)
        gradients = {name: run.taken(out[f"d{name}"]) - (0.0 if t.fresh else 1.0) for name in before}
        if not t.conv and not t.drrd:
            return gradients
        terms = {name: common[name] for name in ("g2", "w", "n1", "n2", "nsel", "smooth", "root")}
        if t.conv == "out":
            terms |= {"P": run.up(strips(self.P)), "r": given["r_conv"], "rows": given["dout"]}
        if t.drrd:
            terms |= {"h2": common["h2"], "vectors": given["ddrrd"]}
        if t.conv == "node":
            terms["dnode"] = run.empty(graph.atoms, self.n2)
            terms |= {"node_rows": given["dcat"].reshape(-1)[self.at["conv"] :], "node_stride": self.width}
        to_g1 = run.gather(terms, self.group)
        if t.conv == "out" or t.drrd:
            gradients["g1"] = to_g1
        else:
            assert np.isnan(to_g1[graph.centres :]).all()
        if t.conv == "node":
            gradients["node"] = terms["dnode"].astype(np.float64)
        return gradients


def compared(
    graph: Graph, n1: int, n2: int, axis: int, terms: Terms, precision: str, seed: int | None = None
) -> set[str]:
    """The outputs and the gradients that were right."""
    op, run = Messages(graph, n1, n2, axis, terms, precision), Run(graph, precision, seed)
    found, wanted = op.launch(run), op.forward(**op.inputs)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(found[name], value, FORWARD[precision], name)
    seeds = {name: np.random.default_rng(77).normal(size=value.shape) for name, value in wanted.items()}
    assert_gradient(op.forward, op.inputs, seeds, op.backward(run, seeds), BACKWARD[precision])
    return {*seeds, *op.inputs}


OPTIONS = [
    Terms(),
    Terms(smooth=False),
    Terms(smooth=False, root=False, fresh=True),
    Terms(root=False, seed=True),
    Terms("node"),
    Terms("node", grrg=False, drrd=False, fresh=True),
    Terms("out", grrg=False, drrd=False),
    Terms("out", drrd=False, seed=True, fresh=True),
    Terms("", drrd=False),
    Terms("", grrg=False, fresh=True),
    Terms("", grrg=False),
    Terms("", grrg=False, drrd=False, seed=True, fresh=True),
]


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("terms", OPTIONS, ids=str)
def test_options(terms: Terms, precision: str) -> None:
    assert len(compared(Graph((3, 0, 37, 2)), 9, 5, 2, terms, precision, seed=11)) > 1


@pytest.mark.parametrize(("n1", "n2", "axis"), [(128, 32, 4), (141, 70, 3), (20, 16, 2)])
def test_lists_of_all_lengths(n1: int, n2: int, axis: int) -> None:
    assert len(compared(Graph((0, 1, 31, 32, 33, 48)), n1, n2, axis, Terms(smooth=False), "float64")) > 1


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(
    "terms", [Terms(), Terms("node", fresh=True), Terms(smooth=False, seed=True, fresh=True)], ids=str
)
@pytest.mark.parametrize(
    ("n1", "n2", "axis"),
    [(1, 1, 1), (6, 4, 2), (33, 31, 4), (128, 48, 4), (160, 64, 6), (20, 6, 3), (260, 256, 16), (2049, 17, 3)],
)
def test_widths(n1: int, n2: int, axis: int, terms: Terms, precision: str) -> None:
    assert len(compared(Graph(COUNTS), n1, n2, axis, terms, precision)) > 1


def test_same_bits_whatever_the_schedule() -> None:
    """Blocks and threads in any order."""
    op, bits = Messages(Graph((40, 3)), 133, 33, 3, Terms(), "float32"), set()
    seeds = {name: np.random.default_rng(77).normal(size=v.shape) for name, v in op.forward(**op.inputs).items()}
    for seed in (None, 1, 2, 3):
        run = Run(op.graph, op.precision, seed)
        forward = op.launch(run)
        gradients = op.backward(run, seeds)
        bits.add(b"".join(value.tobytes() for value in [*forward.values(), *gradients.values()]))
    assert len(bits) == 1
