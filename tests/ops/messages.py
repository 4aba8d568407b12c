"""Operations that gather from the neighbours and scatter to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from dpa2.reference.common import Weights
from dpa2.reference.conv import conv
from dpa2.reference.linear import linear
from dpa2.reference.symmetrization import symmetrization
from edge_graph import strips
from ops.backends import Arrays, Cpu, Cuda
from ops.declared import Operation
from ops.graph import (
    CENTRE,
    EDGES,
    KAPPA,
    NORMALISED,
    OWN,
    J,
    N,
    draw,
    edges_of,
    gathered,
    geometry,
    neighbours,
)

Seeds = tuple[np.ndarray, ...] | None


class Symmetrization(Operation):
    """Of rows of edges (grrg) or of the neighbours' rows (drrd)."""

    name = "symmetrization"
    nc, axis = 37, 3

    def __init__(self, indexed: bool) -> None:
        rows = N if indexed else EDGES
        super().__init__("drrd" if indexed else "grrg", draw(20, X=(rows, self.nc), h2=(EDGES, 3), w=(EDGES,)))
        self.indexed = indexed

    def reference(self, X: Any, h2: Any, w: Any) -> tuple[Any, ...]:
        return (symmetrization(X[J] if self.indexed else X, h2, geometry(w), self.axis),)

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        gram = np.zeros((N, self.axis * self.nc))
        dX, dh2, dw = (np.zeros_like(x[name]) for name in ("X", "h2", "w"))
        for i, own in enumerate(OWN):
            n, f = own.stop - own.start, KAPPA[i] * x["w"][own, None] * x["h2"][own]
            rows = slice(None) if self.indexed else own
            ints = [n, self.nc, self.axis, *(neighbours(i) if self.indexed else [0])]
            found = run(self.name, ints, [f, x["X"][rows]], None if seeds is None else [seeds[0][i]])
            if seeds is None:
                gram[i] = found[0]
                continue
            df = KAPPA[i] * found[0].reshape(n, 3)
            dh2[own], dw[own] = x["w"][own, None] * df, (x["h2"][own] * df).sum(axis=1)
            dX[rows] += found[1].reshape(-1, self.nc)
        return [gram] if seeds is None else [dX, dh2, dw]

    def cuda(self, run: Cuda, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        own = "drrd" if self.indexed else "grrg"
        width, C = self.axis * self.nc + 9, run.empty(N, 3, self.nc)
        X = run.up(x["X"])
        common = edges_of(run) | NORMALISED | {"h2": run.up(x["h2"]), "w": run.up(x["w"]), "axis": self.axis, own: C}
        common |= {"g1": X, "n1": self.nc, "n2": 1} if self.indexed else {"g2": X, "n1": 1, "n2": self.nc}
        common |= {"cat_width": width, "cat_conv": -1, "cat_grrg": -1, "cat_drrd": -1, f"cat_{own}": 4}
        cat = run.empty(N, width)
        run.start("messages.cu", "messages", "MessagesArgs", N, **common, cat=cat)
        if seeds is None:
            return [run.down(cat)[:, 4:-5]]
        dcat = np.full((N, width), np.nan)
        dcat[:, 4:-5] = seeds[0]
        dX, dh2, dw = run.filled(EDGES, self.nc), run.filled(EDGES, 3), run.filled(EDGES)
        to, room = {} if self.indexed else {"dg2": dX}, run.empty(N, 3, self.nc)
        run.start("messages.cu", "messages_backward", "MessagesBackwardArgs", N, **common, **to, **{f"d{own}": room},
                  dh2=dh2, dw=dw, dcat=run.up(dcat))  # fmt: skip
        terms = {"h2": common["h2"], "w": common["w"], "vectors": room}
        dX = gathered(run, self.nc, 1, **terms) if self.indexed else run.added(dX)
        return [dX, run.added(dh2), run.added(dw)]


class Conv(Operation):
    """With g1_out_conv g2 goes through the projection, without it g1 does."""

    name = "conv"
    n2 = 5

    def __init__(self, out_conv: bool, n1: int) -> None:
        super().__init__(f"{'out' if out_conv else 'node'} {n1}", draw(21, g1=(N, n1), g2=(EDGES, self.n2), w=(EDGES,)))
        self.out_conv, self.n1 = out_conv, n1
        self.P = draw(22, P=(self.n2, n1) if out_conv else (n1, self.n2))["P"]

    def reference(self, g1: Any, g2: Any, w: Any) -> tuple[Any, ...]:
        weights = Weights({"l.proj_g1g2.matrix": self.P})
        return (conv(g1, g2, geometry(w), self.out_conv, weights, "l"),)

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        out = np.zeros((N, self.P.shape[1]))
        dg1, dg2, dw = (np.zeros_like(x[name]) for name in ("g1", "g2", "w"))
        for i, own in enumerate(OWN):
            n, places = own.stop - own.start, [[0], neighbours(i)]
            rows = [x["g2"][own], x["g1"]]
            if not self.out_conv:
                places, rows = places[::-1], rows[::-1]
            ints = [n, *self.P.shape, *places[0], *places[1]]
            blocks = [*rows, KAPPA[i] * x["w"][own], self.P]
            found = run(self.name, ints, blocks, None if seeds is None else [seeds[0][i]])
            if seeds is None:
                out[i] = found[0]
                continue
            edge, node = (0, 1) if self.out_conv else (1, 0)
            dg2[own] = found[edge].reshape(n, self.n2)
            dg1 += found[node].reshape(N, self.n1)
            dw[own] = KAPPA[i] * found[2]
        return [out] if seeds is None else [dg1, dg2, dw]

    def cuda(self, run: Cuda, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        empty = run.up(np.zeros((EDGES, 3)))
        common = edges_of(run) | NORMALISED | {"g2": run.up(x["g2"]), "h2": empty, "w": run.up(x["w"]), "n2": self.n2}
        common |= {"cat_width": self.n2, "cat_grrg": -1, "cat_drrd": -1}
        P = {"P": run.up(strips(self.P))} if self.out_conv else {}
        common |= {"g1": run.up(x["g1"]), "n1": self.n1} if self.out_conv else {"node": run.up(x["g1"] @ self.P)}
        if seeds is None:
            out = run.empty(N, self.P.shape[1])
            name = "conv" if self.out_conv else "cat"
            run.start("messages.cu", "messages", "MessagesArgs", N, **common, **P, **{name: out})
            return [run.down(out)]
        dg2, dh2, dw = run.filled(EDGES, self.n2), run.filled(EDGES, 3), run.filled(EDGES)
        given, dnode = run.up(seeds[0]), run.empty(N, self.n2)
        ones = run.up(np.ones(self.n1))
        own = {"Pt": run.up(strips(self.P.T)), "dout": given, "r_conv": ones} if self.out_conv else {"dcat": given}
        run.start("messages.cu", "messages_backward", "MessagesBackwardArgs", N, **common, **own, dg2=dg2, dh2=dh2,
                  dw=dw)  # fmt: skip
        terms = {"g2": common["g2"], "w": common["w"]}
        if self.out_conv:
            dg1 = gathered(run, self.n1, self.n2, **terms, **P, rows=given)
        else:
            gathered(run, self.n1, self.n2, **terms, node_rows=given, node_stride=self.n2, dnode=dnode)
            dg1 = run.down(dnode) @ self.P.T
        return [dg1, run.added(dg2), run.added(dw)]


class G1G1(Operation):
    name = "g1g1"
    n1, n2 = 9, 5

    def __init__(self) -> None:
        super().__init__("", draw(23, g1=(N, self.n1), w=(EDGES,)))
        self.W = draw(24, W=(self.n1, self.n2))["W"]

    def reference(self, g1: Any, w: Any) -> tuple[Any, ...]:
        return (linear(w[:, None] * g1[CENTRE] * g1[J], Weights({"l.matrix": self.W}), "l", bias=False),)

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        U, dg1, dw = np.zeros((EDGES, self.n2)), np.zeros_like(x["g1"]), np.zeros(EDGES)
        for i, own in enumerate(OWN):
            ints = [own.stop - own.start, self.n1, self.n2, *neighbours(i)]
            blocks = [x["g1"][i], x["g1"], x["w"][own], self.W]
            found = run(self.name, ints, blocks, None if seeds is None else [seeds[0][own]])
            if seeds is None:
                U[own] = found[0].reshape(-1, self.n2)
                continue
            dg1[i] += found[0]
            dg1 += found[1].reshape(N, self.n1)
            dw[own] = found[2]
        return [U] if seeds is None else [dg1, dw]

    def cuda(self, run: Cuda, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        common = edges_of(run) | {"g1": run.up(x["g1"]), "w": run.up(x["w"]), "n1": self.n1, "n2": self.n2}
        if seeds is None:
            U = run.empty(EDGES, self.n2)
            run.start("g1g1.cu", "g1g1", "G1G1Args", N, **common, W=run.up(strips(self.W)), U=U)
            return [run.down(U)]
        dg1, dw, dU, Wt = run.filled(N, self.n1), run.filled(EDGES), run.up(seeds[0]), run.up(strips(self.W.T))
        run.start("g1g1.cu", "g1g1_backward", "G1G1BackwardArgs", N, **common, Wt=Wt, dU=dU, dg1=dg1, dw=dw)
        terms = {"g2": dU, "w": common["w"], "P": Wt, "rows": common["g1"], "nsel": 1, "smooth": 1}
        return [run.added(dg1) + gathered(run, self.n1, self.n2, **terms), run.added(dw)]


OPERATIONS: list[Operation] = [
    *(Symmetrization(indexed) for indexed in (False, True)),
    *(Conv(out_conv, n1) for out_conv in (True, False) for n1 in (9, 140)),
    G1G1(),
]
