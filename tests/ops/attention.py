"""Attention: of a centre to its neighbours, and among the pairs of a centre.

The reference has query, key, value and head map as they stand in a file. CUDA takes them folded, and so does the CPU in
the attention to neighbours: they are folded here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from dpa2.reference.common import Weights
from dpa2.reference.local_attention import local_attention
from dpa2.reference.pair_attention import SHIFT, attention_map, equivariant_apply
from ops.backends import Arrays, Cpu, Cuda
from ops.declared import Bounds, Operation
from ops.graph import EDGES, NSEL, OWN, START, N, draw, edges_of, gathered, geometry, neighbours, switches
from pair_formulas import Attention, PairLayer, attention_alone
from pair_kernels import PairKernels

Seeds = tuple[np.ndarray, ...] | None


class LocalAttention(Operation):
    name = "local_attention"
    forward = Bounds(2e-13, 1e-4)
    gradient = Bounds(1e-12, 5e-4)
    n1, nh, nd = 9, 3, 4

    def __init__(self, smooth: bool) -> None:
        inputs = draw(30, g1=(N, self.n1)) | ({"w": switches(31)} if smooth else {})
        super().__init__("smooth" if smooth else "", inputs)
        self.smooth = smooth
        n1, nh, nd = self.n1, self.nh, self.nd
        drawn = draw(32, mapq=(n1, nd * nh), mapkv=(n1, (nd + n1) * nh), head=(nh * n1, n1), bias=(n1,))
        self.weights = Weights({
            "l.loc_attn.mapq.matrix": 0.3 * drawn["mapq"],
            "l.loc_attn.mapkv.matrix": drawn["mapkv"],
            "l.loc_attn.head_map.matrix": drawn["head"],
            "l.loc_attn.head_map.bias": drawn["bias"],
        })  # fmt: skip
        q = self.weights["l.loc_attn.mapq.matrix"].reshape(n1, nd, nh)
        kv = drawn["mapkv"].reshape(n1, nd + n1, nh)
        self.A = np.einsum("adh,bdh->ahb", q, kv[:, :nd]).reshape(n1, nh * n1) / np.sqrt(nd)
        self.B = np.einsum("ach,hcb->hab", kv[:, nd:], drawn["head"].reshape(nh, n1, n1)).reshape(nh * n1, n1)

    def reference(self, g1: Any, w: Any = None) -> tuple[Any, ...]:
        config = {"smooth": self.smooth, "repformer": {"attn1_nhead": self.nh, "attn1_hidden": self.nd}}
        edges = geometry(np.ones(EDGES) if w is None else w)
        return (local_attention(g1, edges, config, self.weights, "l"),)

    def out(self, o: np.ndarray) -> np.ndarray:
        return o @ self.B + self.weights["l.loc_attn.head_map.bias"]

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        o, w = np.zeros((N, self.nh * self.n1)), x.get("w", np.zeros(EDGES))
        dg1, dw, tq = np.zeros_like(x["g1"]), np.zeros(EDGES), x["g1"] @ self.A
        for i, own in enumerate(OWN):
            n = own.stop - own.start
            ints = [n, self.n1, self.nh, int(self.smooth), *neighbours(i)]
            blocks = [tq[i], x["g1"], w[own], [NSEL - n]]
            found = run(self.name, ints, blocks, None if seeds is None else [seeds[0][i] @ self.B.T])
            if seeds is None:
                o[i] = found[0]
                continue
            dg1[i] += self.A @ found[0]
            dg1 += found[1].reshape(N, self.n1)
            if self.smooth:
                dw[own] = found[2]
        return [self.out(o)] if seeds is None else [dg1, dw][: len(x)]

    def cuda(self, run: Cuda, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        width = self.nh * self.n1
        common = edges_of(run) | {"g1": run.up(x["g1"]), "tq": run.up(x["g1"] @ self.A), "n1": self.n1, "nh": self.nh,
            "w": run.up(x.get("w", np.ones(EDGES))), "shift": SHIFT if self.smooth else 0.0}  # fmt: skip
        kept = {name: run.empty(N, self.nh) for name in ("largest", "inverse")}
        o, logit = run.empty(N, width), run.empty(EDGES, self.nh)
        run.start("local_attention.cu", "local_attention", "LocalAttentionArgs", N, **common, **kept, o=o, logit=logit,
                  nsel=NSEL if self.smooth else 0)  # fmt: skip
        if seeds is None:
            return [self.out(run.down(o))]
        dtq, dw = run.empty(N, width), run.filled(EDGES)
        given = {"dout": run.up(seeds[0] @ self.B.T), "room": run.empty(EDGES, 2 * self.nh)}
        run.start("local_attention.cu", "local_attention_backward", "LocalAttentionBackwardArgs", N, **common, **kept,
                  **given, dtq=dtq, dw=dw)  # fmt: skip
        terms = {"room": given["room"], "queries": common["tq"], "given": given["dout"], "nh": self.nh}
        dg1 = run.down(dtq) @ self.A.T + gathered(run, self.n1, 0, **terms)
        return [dg1, run.added(dw)][: len(x)]


class PairAttention(Operation):
    """The updates of g2, before LayerNorm and without their mean, and of h2."""

    name = "pair_attention"
    forward = Bounds(2e-13, 1e-4)
    gradient = Bounds(1e-12, 5e-4)
    n2, nh, nd = 5, 2, 3

    def __init__(self, updates: str, gate: bool, smooth: bool) -> None:
        label = f"{updates}{' gate' if gate else ''}{' smooth' if smooth else ''}"
        super().__init__(label, draw(33, g2=(EDGES, self.n2), h2=(EDGES, 3)) | ({"w": switches(34)} if smooth else {}))
        self.gate, self.smooth, self.has_g2, self.has_h2 = gate, smooth, updates != "h2", updates != "g2"
        n2, nh, nd = self.n2, self.nh, self.nd
        shapes = {"qk": (n2, 2 * nd * nh), "v": (n2, n2 * nh), "head": (n2 * nh, n2), "bias": (n2,), "ev": (nh, 1)}
        self.raw = draw(35, **shapes)
        self.raw["qk"] *= 0.5
        weights = {
            "l.attn2g_map.mapqk.matrix": self.raw["qk"],
            "l.attn2_mh_apply.mapv.matrix": self.raw["v"],
            "l.attn2_mh_apply.head_map.matrix": self.raw["head"],
            "l.attn2_mh_apply.head_map.bias": self.raw["bias"],
            "l.attn2_ev_apply.head_map.matrix": self.raw["ev"],
        }
        self.weights = Weights(weights)

    def reference(self, g2: Any, h2: Any, w: Any = None) -> tuple[Any, ...]:
        sw = np.ones(EDGES) if w is None else w
        option = {"attn2_nhead": self.nh, "attn2_hidden": self.nd, "attn2_has_gate": self.gate}
        z = np.zeros((EDGES, self.n2), dtype=np.result_type(g2, h2, sw))
        dh = np.zeros((EDGES, 3), dtype=z.dtype)
        for own in OWN:
            m = own.stop - own.start
            if m == 0:
                continue
            rt = attention_map(g2[own], h2[own], sw[own], NSEL - m, self.smooth, option, self.weights, "l")
            v = (g2[own] @ self.raw["v"]).reshape(m, self.n2, self.nh).transpose(2, 0, 1)
            z[own] = (rt @ v).transpose(1, 2, 0).reshape(m, -1) @ self.raw["head"] + self.raw["bias"]
            dh[own] = equivariant_apply(rt, h2[own], self.weights, "l")
        z = z - z.mean(axis=1, keepdims=True)
        return tuple(part for part, wanted in ((z, self.has_g2), (dh, self.has_h2)) if wanted)

    def cpu(self, run: Cpu, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        w, outputs = x.get("w", np.zeros(EDGES)), self.reference(**x)
        out = [np.zeros_like(part) for part in outputs]
        gradients = [np.zeros_like(part) for part in x.values()]
        for own in OWN:
            n = own.stop - own.start
            flags = [int(flag) for flag in (self.gate, self.smooth, self.has_g2, self.has_h2)]
            blocks = [x["g2"][own], x["h2"][own], w[own], *self.raw.values(), [NSEL - n]]
            given = None if seeds is None else [seed[own] for seed in seeds]
            found = run(self.name, [n, self.n2, self.nh, self.nd, *flags], blocks, given)
            for part, block in zip(out if seeds is None else gradients, found, strict=True):
                part[own] = block.reshape(part[own].shape)
        return out if seeds is None else gradients

    def folded(self) -> Attention:
        """A and B by heads, and the bias without its mean."""
        n2, nh, nd = self.n2, self.nh, self.nd
        qk = self.raw["qk"].reshape(n2, nd, 2 * nh)
        A = np.einsum("adh,bdh->hab", qk[:, :, nh:], qk[:, :, :nh]) / np.sqrt(nd)
        head = self.raw["head"] - self.raw["head"].mean(axis=1, keepdims=True)
        B = np.einsum("ach,chb->hab", self.raw["v"].reshape(n2, n2, nh), head.reshape(n2, nh, n2)) / np.sqrt(3.0)
        h2 = self.raw["ev"][:, 0] / np.sqrt(3.0)
        bias = self.raw["bias"] - self.raw["bias"].mean()
        return Attention(
            *(A, B if self.has_g2 else None, bias, h2 if self.has_h2 else None), self.gate, self.smooth, NSEL
        )

    def cuda(self, run: Cuda, x: Arrays, seeds: Seeds) -> list[np.ndarray]:
        """The pair channel of a layer that does nothing else."""
        given = [x["g2"], x["h2"], x.get("w", np.ones(EDGES))]
        layer = PairLayer(self.folded(), attention_alone(self.n2))
        kernels = PairKernels(run.device, run.defines["real"], START, layer, given)
        if seeds is None:
            found = kernels.forward()
            return [run.down(found[name]) for name, wanted in (("out", self.has_g2), ("h2", self.has_h2)) if wanted]
        nothing = {"out": np.zeros((EDGES, self.n2)), "h2": np.zeros((EDGES, 3))}
        back = kernels.backward(nothing | dict(zip((["out"] * self.has_g2) + ["h2"] * self.has_h2, seeds, strict=True)))
        return [run.down(back["g2"]), run.down(back["h2"]), run.added(back["w"])][: len(x)]


OPERATIONS: list[Operation] = [
    *(LocalAttention(smooth) for smooth in (True, False)),
    *(
        PairAttention(updates, gate, smooth)
        for updates in ("g2", "h2", "both")
        for gate in (False, True)
        for smooth in (True, False)
    ),
]
