"""One layer of the repformer, forward and backward: products by the device's library, everything else by kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .device import Array
from .entry import EntryState
from .geometry import Geometry
from .launcher import Launcher, lead
from .prepared import Layer, Prepared, Residual


@dataclass
class LayerState:
    """What the forward of a layer leaves for its backward; the input of the layer and products before activation."""

    g1: Array
    g2: Array
    h2: Array
    self_z: Array = None
    linear_z: Array = None
    grrg: Array = None  # (n, 3, n2) moments
    drrd: Array = None  # (n, 3, n1)
    pair_z: Array = None  # linear2
    attention_z: Array = None  # before LayerNorm


Terms = dict[str, tuple[Array, Array | None, bool]]  # member -> (product, bias, activated)


class Repformer:
    """The layers of a model on the edges of one frame."""

    def __init__(self, model: Prepared, run: Launcher, geometry: Geometry, entry: EntryState) -> None:
        self.model, self.run, self.geometry, self.entry = model, run, geometry, entry
        self.n, self.n1, self.n2 = geometry.natoms, model.n1, model.n2
        self.rep, self.edges = geometry.rep, geometry.rep.count
        option = model.option
        self.heads1, self.heads2 = int(option["attn1_nhead"]), int(option["attn2_nhead"])
        self.axis, self.gate = int(option["axis_neuron"]), int(option["attn2_has_gate"])
        self.ln_eps = float(option["ln_eps"])
        self.ld, self.vd = lead(self.rep.most), lead(self.n2)
        # Gradients that are passed from layer to layer in place; dw is that of all layers.
        self.dg2: Array = None
        self.dh2: Array = None
        self.dw: Array = None

    # ------------------------------------------------------------------------------------------- pieces

    def _residual(self, residual: Residual, out: Array, u: Array, terms: Terms) -> None:
        given: list[Any] = []
        for member in residual.members:
            product, bias, activated = terms[member]
            given += [product, residual.r[member], bias, int(activated)]
        given += [None, None, None, 0] * (4 - len(residual.members))
        self.run.each(
            *("residual_update.cu", "residual_update", int(u.size), int(u.shape[1]), out, u, residual.a, *given),
            defines=self.model.act,
        )

    def _residual_backward(
        self, residual: Residual, du: Array, dout: Array, terms: Terms, gradients: dict[str, Array]
    ) -> None:
        given: list[Any] = []
        for member in residual.members:
            product, bias, activated = terms[member]
            given += [gradients[member], product, residual.r[member], bias, int(activated)]
        given += [None, None, None, None, 0] * (4 - len(residual.members))
        self.run.each(
            *("residual_update.cu", "residual_update_backward", int(du.size), int(du.shape[1]), du, dout, residual.a),
            *given,
            defines=self.model.act,
        )

    def _moments(self, nc: int, C: Array, gram: Array | None, width: int, X: Array, index: Any, h2: Array) -> None:
        entry = self.entry
        self.run.run(
            *("symmetrization.cu", "symmetrization", self.n, nc, self.axis, width, C, gram, X, index, h2, entry.w),
            *(entry.kappa_h, self.rep.start),
            shared=self.run.numbers(3 * nc),
        )

    def _moments_backward(
        self, nc: int, accumulate: bool, dX: Array, dgram: Array, width: int, C: Array, X: Array, index: Any, h2: Array
    ) -> None:
        entry = self.entry
        self.run.run(
            *("symmetrization.cu", "symmetrization_backward", self.n, nc, self.axis, width, int(accumulate), dX),
            *(self.dh2, self.dw, dgram, C, X, index, h2, entry.w, entry.kappa_h, self.rep.start),
            shared=self.run.numbers(3 * nc),
        )

    def _columns(self, layer: Layer, cat: Array, piece: str) -> Array:
        """The array that begins at a piece of the input of linear1; its rows are as far apart as those of the whole."""
        return cat.reshape(-1)[layer.columns[piece][0] :]

    def _node_terms(self, layer: Layer, state: LayerState, conv: Array = None, attention: Array = None) -> Terms:
        return {
            "self": (state.self_z, layer.self_b, True),
            "conv": (conv, None, False),
            "linear1": (state.linear_z, layer.b1, True),
            "attention": (attention, layer.att_b, False),
        }

    def _pair_terms(self, layer: Layer, state: LayerState, g1g1: Array = None, attention: Array = None) -> Terms:
        return {
            "linear2": (state.pair_z, layer.b2, True),
            "g1g1": (g1g1, None, False),
            "attention": (attention, None, False),
        }

    # ------------------------------------------------------------------------------------------- forward

    def forward(self, number: int, g1: Array, g2: Array, h2: Array, gradient: bool) -> tuple[LayerState, Array]:
        """The output g1 (n, n1) of layer `number`, and its state. Without a gradient, buffers are used in turns."""
        run, model, layer, n, n1, n2 = self.run, self.model, self.model.layers[number], self.n, self.n1, self.n2
        entry, rep = self.entry, self.rep
        kept = f"_{number}" if gradient else ""
        state = LayerState(g1, g2, h2)
        cat = run.array("cat", n, layer.width)
        conv = attention = None
        if layer.self_w is not None:
            state.self_z = run.array(f"self_z{kept}", n, n1)
            run.gemm(g1, layer.self_w, state.self_z)
        if "g1" in layer.columns:
            run.each(
                *("linear.cu", "copy_columns", n * n1, n1, 0, self._columns(layer, cat, "g1"), layer.width, g1, n1),
                defines=model.act,
            )
        if layer.P is not None and "conv" not in layer.columns:
            conv = run.array("conv", n, n1)
            run.run(
                *("conv.cu", "conv", n, n1, n2, conv, g1, g2, layer.P, entry.w, entry.kappa_n, rep.start, rep.j),
                shared=run.numbers(32 * n2),
            )
        elif layer.P is not None:
            node = self._node(layer, g1)
            run.run(
                *("conv.cu", "conv_node", n, n2, layer.width, self._columns(layer, cat, "conv"), g2, node, entry.w),
                *(entry.kappa_n, rep.start, rep.j),
            )
        if "grrg" in layer.columns:
            state.grrg = run.array(f"grrg{kept}", n, 3, n2)
            self._moments(n2, state.grrg, self._columns(layer, cat, "grrg"), layer.width, g2, None, h2)
        if "drrd" in layer.columns:
            state.drrd = run.array(f"drrd{kept}", n, 3, n1)
            self._moments(n1, state.drrd, self._columns(layer, cat, "drrd"), layer.width, g1, rep.j, h2)
        state.linear_z = run.array(f"linear_z{kept}", n, n1)
        run.gemm(cat, layer.w1, state.linear_z)
        if layer.att_q is not None:
            tq, o = self._queries(layer, g1), run.array("att_o", n, self.heads1 * n1)
            run.run(
                *("local_attention.cu", "local_attention", n, n1, self.heads1, model.shift, model.pad_sel, o, tq, g1),
                *(entry.w, rep.start, rep.j),
                shared=run.numbers(2 * self.heads1 * rep.most),
            )
            attention = run.array("attention", n, n1)
            run.gemm(o, layer.att_o, attention)
        out = run.array(f"g1_{number + 1}" if gradient else f"g1_{'ab'[number % 2]}", n, n1)
        self._residual(layer.res1, out, g1, self._node_terms(layer, state, conv, attention))
        return state, out

    def forward_pairs(self, number: int, state: LayerState, gradient: bool) -> tuple[Array, Array]:
        """g2 and h2 after layer `number`, which is not the last."""
        run, model, layer, n2, edges = self.run, self.model, self.model.layers[number], self.n2, self.edges
        entry, rep = self.entry, self.rep
        kept = f"_{number}" if gradient else ""
        turn = f"{number + 1}" if gradient else "ab"[number % 2]
        state.pair_z = run.array(f"pair_z{kept}", edges, n2)
        run.gemm(state.g2, layer.w2, state.pair_z)
        U = out = dh = None
        if layer.gg is not None:
            U = run.array("g1g1", edges, n2)
            run.run(
                *("g1g1.cu", "g1g1", self.n, self.n1, n2, U, state.g1, layer.gg, entry.w, rep.start, rep.j),
                shared=run.numbers(16 * self.n1),
            )
        if layer.A is not None:
            if layer.B is not None:
                state.attention_z = run.array(f"attention_z{kept}", edges, n2)
            if layer.h2_weight is not None:
                dh = run.array("dh", edges, 3)
            run.run(
                *("pair_attention.cu", "pair_attention", self.n, n2, self.heads2, self.gate, model.shift),
                *(model.pad_sel, rep.most, self.ld, self.vd, state.attention_z, dh, state.g2, state.h2, entry.w),
                *(rep.start, layer.A, layer.B, layer.pair_bias, layer.h2_weight),
                shared=run.numbers(2 * n2 * self.ld + rep.most * (2 * self.vd + self.ld) + 7 * self.ld),
            )
            if layer.B is not None:
                out = run.array("attention_out", edges, n2)
                run.warps(
                    *("layer_norm.cu", "layer_norm", edges, n2, self.ln_eps, out, state.attention_z),
                    *(layer.ln_gain, layer.ln_bias),
                )
        g2 = run.array(f"g2_{turn}", edges, n2)
        assert layer.res2 is not None
        self._residual(layer.res2, g2, state.g2, self._pair_terms(layer, state, U, out))
        h2 = state.h2
        if layer.res_h2 is not None:
            h2 = run.array(f"h2_{turn}", edges, 3)
            self._residual(layer.res_h2, h2, state.h2, {"attention": (dh, None, False)})
        return g2, h2

    def _node(self, layer: Layer, g1: Array) -> Array:
        node = self.run.array("node", self.n, self.n2)
        self.run.gemm(g1, layer.P, node)
        return node

    def _queries(self, layer: Layer, g1: Array) -> Array:
        queries = self.run.array("att_tq", self.n, self.heads1 * self.n1)
        self.run.gemm(g1, layer.att_q, queries)
        return queries

    def rotation(self, g2: Array, h2: Array) -> Array:
        """(n, n2, 3) the vector moments of g2."""
        C = self.run.array("rotation", self.n, 3, self.n2)
        self._moments(self.n2, C, None, 0, g2, None, h2)
        return self.run.device.xp.ascontiguousarray(C.transpose(0, 2, 1))

    # ------------------------------------------------------------------------------------------- backward

    def begin_backward(self) -> None:
        """Nothing has flowed into g2, h2 and w yet."""
        self.dg2 = self.run.zeros("dg2", self.edges, self.n2)
        self.dh2 = self.run.zeros("dh2", self.edges, 3)
        self.dw = self.run.zeros("dw", self.edges)

    def backward(self, number: int, state: LayerState, dnext: Array) -> Array:
        """(n, n1) the gradient of the layer's input g1, given that of its output; dg2, dh2 and dw go along."""
        run, layer, n, n1, n2 = self.run, self.model.layers[number], self.n, self.n1, self.n2
        rep, entry, model = self.rep, self.entry, self.model
        members = layer.res1.members
        gradients = {member: run.array(f"d_{member}", n, n1) for member in members}
        dg1 = run.array(f"dg1_{'ab'[number % 2]}", n, n1)
        self._residual_backward(layer.res1, dg1, dnext, self._node_terms(layer, state), gradients)
        if "self" in gradients:
            run.gemm(gradients["self"], layer.self_w, dg1, transpose_b=True, accumulate=True)
        dcat = run.array("dcat", n, layer.width)
        run.gemm(gradients["linear1"], layer.w1, dcat, transpose_b=True)
        if "g1" in layer.columns:
            run.each(
                *("linear.cu", "copy_columns", n * n1, n1, 1, dg1, n1, self._columns(layer, dcat, "g1"), layer.width),
                defines=model.act,
            )
        dU = None if layer.last else self._backward_pairs(layer, state)

        # Rows of edges for their neighbours; the first kernel to write them need not add.
        dedge = run.array("dg1_edge", self.edges, n1)
        written = False
        if "conv" in gradients:
            run.run(
                *("conv.cu", "conv_backward", n, n1, n2, dedge, self.dg2, self.dw, gradients["conv"], state.g1),
                *(state.g2, layer.P, layer.Pt, entry.w, entry.kappa_n, rep.start, rep.j),
                shared=run.numbers(32 * (2 * n2 + n1)),
            )
            written = True
        elif layer.P is not None:
            self._backward_conv_node(layer, state, dcat, dg1)
        if "grrg" in layer.columns:
            dgram = self._columns(layer, dcat, "grrg")
            self._moments_backward(n2, True, self.dg2, dgram, layer.width, state.grrg, state.g2, None, state.h2)
        if "drrd" in layer.columns:
            dgram = self._columns(layer, dcat, "drrd")
            self._moments_backward(n1, written, dedge, dgram, layer.width, state.drrd, state.g1, rep.j, state.h2)
            written = True
        if not written:
            dedge.fill(0)
        if "attention" in gradients:
            written = True
            self._backward_attention(layer, state, gradients["attention"], dedge, dg1)
        if dU is not None:
            written = True
            run.run(
                *("g1g1.cu", "g1g1_backward", n, n1, n2, dg1, dedge, self.dw, dU, state.g1, layer.ggt, entry.w),
                *(rep.start, rep.j),
                shared=run.numbers(16 * (n1 + n2)),
            )
        if written:
            self._sum_incoming(n1, True, dg1, dedge)
        return dg1

    def _sum_incoming(self, width: int, accumulate: bool, out: Array, rows: Array) -> None:
        incoming = self.geometry.rep_incoming
        self.run.run(
            *("linear.cu", "sum_incoming", self.n, width, int(accumulate), out, rows, incoming.begin, incoming.edges),
            defines=self.model.act,
        )

    def _backward_conv_node(self, layer: Layer, state: LayerState, dcat: Array, dg1: Array) -> None:
        run, n2, rep, entry = self.run, self.n2, self.rep, self.entry
        node = self._node(layer, state.g1)
        rows, dnode = run.array("dnode_edge", self.edges, n2), run.array("dnode", self.n, n2)
        run.run(
            *("conv.cu", "conv_node_backward", self.n, n2, layer.width, rows, self.dg2, self.dw),
            *(self._columns(layer, dcat, "conv"), state.g2, node, entry.w, entry.kappa_n, rep.start, rep.j),
        )
        self._sum_incoming(n2, False, dnode, rows)
        run.gemm(dnode, layer.P, dg1, transpose_b=True, accumulate=True)

    def _backward_attention(self, layer: Layer, state: LayerState, dattention: Array, dedge: Array, dg1: Array) -> None:
        run, model, n, n1, heads, rep = self.run, self.model, self.n, self.n1, self.heads1, self.rep
        tq, dtq = self._queries(layer, state.g1), run.array("att_dtq", n, heads * n1)
        dout = run.array("att_do", n, heads * n1)
        run.gemm(dattention, layer.att_o, dout, transpose_b=True)
        run.run(
            *("local_attention.cu", "local_attention_backward", n, n1, heads, model.shift, model.pad_sel, dtq, dedge),
            *(self.dw, dout, tq, state.g1, self.entry.w, rep.start, rep.j),
            shared=run.numbers(3 * heads * rep.most),
        )
        run.gemm(dtq, layer.att_q, dg1, transpose_b=True, accumulate=True)

    def _backward_pairs(self, layer: Layer, state: LayerState) -> Array | None:
        """dg2 and dh2 of the next layer become those of this one. Returns the gradient of the g1g1 update."""
        run, model, n2, edges, rep = self.run, self.model, self.n2, self.edges, self.rep
        assert layer.res2 is not None
        names = {"linear2": "d_linear2", "g1g1": "d_g1g1", "attention": "d_pair_attention"}
        gradients = {member: run.array(names[member], edges, n2) for member in layer.res2.members}
        self._residual_backward(layer.res2, self.dg2, self.dg2, self._pair_terms(layer, state), gradients)
        run.gemm(gradients["linear2"], layer.w2, self.dg2, transpose_b=True, accumulate=True)
        if layer.A is not None:
            dz = ddh = None
            if layer.B is not None:
                dz = gradients["attention"]
                run.warps(
                    *("layer_norm.cu", "layer_norm_backward", edges, n2, self.ln_eps, dz, dz, state.attention_z),
                    layer.ln_gain,
                )
            if layer.res_h2 is not None:
                ddh = run.array("ddh", edges, 3)
                terms: Terms = {"attention": (None, None, False)}
                self._residual_backward(layer.res_h2, self.dh2, self.dh2, terms, {"attention": ddh})
            run.run(
                *("pair_attention.cu", "pair_attention_backward", self.n, n2, self.heads2, self.gate, model.shift),
                *(model.pad_sel, rep.most, self.ld, self.vd, self.dg2, self.dh2, self.dw, dz, ddh, state.g2, state.h2),
                *(self.entry.w, rep.start, layer.A, layer.At, layer.B, layer.Bt, layer.h2_weight),
                shared=run.numbers(4 * n2 * self.ld + rep.most * (self.vd + 4 * self.ld) + 11 * self.ld),
            )
        return gradients.get("g1g1")
