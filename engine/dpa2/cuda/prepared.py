"""The weights as the kernels want them: folded in float64 when a model is loaded, then rounded once.

The folds are exact (queries with keys, values with head maps, the types' share of an embedding net's first layer): the
score of two edges needs the product of both maps only, and nothing else reads either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import UnsupportedModelError
from dpa2.reference.activation import activation, sigmoid
from dpa2.reference.common import Config, Weights
from dpa2.reference.embedding_net import embedding_net
from dpa2.reference.env_mat import pad_row
from dpa2.reference.tabulate import nodes, tabulate
from dpa2.reference.type_embedding import type_embedding

from .device import Array
from .launcher import Launcher

Real = NDArray[np.float64]
# The numbers of math/activation.hpp.
_ACTIVATIONS = {
    "linear": 0, "none": 0, "tanh": 1, "relu": 2, "relu6": 3, "sigmoid": 4, "softplus": 5, "gelu": 6, "gelu_tf": 6,
    "silu": 7, "silut": 8, "custom_silu": 8,
}  # fmt: skip


def activation_defines(name: str) -> dict[str, str | int]:
    """What a source is compiled with for an activation function."""
    base, _, argument = name.lower().partition(":")
    number = _ACTIVATIONS.get(base)
    if number is None:
        raise UnsupportedModelError(f"unknown activation function {name!r}")
    defines: dict[str, str | int] = {"ACT": number}
    if number == 8:
        threshold = float(argument) if argument else 3.0
        s = float(sigmoid(np.float64(threshold)))
        constants = (threshold, s + threshold * s * (1.0 - s), threshold * s)
        defines |= {
            name: repr(value)
            for name, value in zip(("SILUT_THRESHOLD", "SILUT_SLOPE", "SILUT_OFFSET"), constants, strict=True)
        }
    return defines


@dataclass(frozen=True)
class Statistics:
    """Cutoff and statistics of one block: what the environment matrix takes besides the edges."""

    mean: Array  # (ntypes, 4)
    inv_std: Array  # (ntypes, 4)
    rcut_smth: float
    inv_width: float
    protection: float


@dataclass(frozen=True)
class EmbeddingNet:
    """A network of one scalar and types; see embedding_net.cuh."""

    layout: Array
    weights: Array
    type_term: Array
    type_skip: Array
    even: int  # widest output among layers 0, 2, ...
    odd: int
    gate: Array | None  # (combinations, width): the types' network of strip mode
    defines: Mapping[str, str | int]  # of the sources that evaluate it

    def shared(self, lane_row: int) -> int:
        """Numbers of shared memory for values, or for derivatives."""
        return (self.even + self.odd) * lane_row

    @property
    def arrays(self) -> tuple[Array, ...]:
        """In the order of the kernels' parameters."""
        return (self.layout, self.weights, self.type_term, self.type_skip)


@dataclass
class Residual:
    """An update u' = a u + sum_k r_k U_k: names of the members, in the order of their vectors."""

    members: list[str]
    a: float
    r: dict[str, Array]


@dataclass
class Layer:
    """One layer of the repformer; what its options leave out is None."""

    last: bool
    columns: dict[str, tuple[int, int]] = field(default_factory=dict)  # of linear1's input: first, width
    width: int = 0
    w1: Array = None
    b1: Array = None
    self_w: Array = None
    self_b: Array = None
    P: Array = None
    Pt: Array = None
    w2: Array = None
    b2: Array = None
    gg: Array = None
    ggt: Array = None
    A: Array = None
    At: Array = None
    B: Array = None
    Bt: Array = None
    pair_bias: Array = None
    ln_gamma: Array = None
    ln_beta: Array = None
    h2_weight: Array = None
    att_q: Array = None
    att_o: Array = None
    att_b: Array = None
    res1: Residual = None  # type: ignore[assignment]
    res2: Residual | None = None
    res_h2: Residual | None = None


@dataclass(frozen=True)
class FittingLayer:
    """A hidden layer of the fitting network."""

    w: Array  # (in, out)
    b: Array
    idt: Array | None
    skip: int


def _skip(inputs: int, outputs: int) -> int:
    return 1 if outputs == inputs else 2 if outputs == 2 * inputs else 0


class Prepared:
    """A model of one precision on one device; immutable."""

    def __init__(self, config: Config, weights: dict[str, Any], launcher: Launcher) -> None:
        self.config = config
        self.launcher = launcher
        self._weights = Weights(weights)
        descriptor = config["descriptor"]
        self.repinit_option, self.option = descriptor["repinit"], descriptor["repformer"]
        self.fitting_option = config["fitting_net"]
        self.ntypes = len(config["type_map"])
        self.smooth = bool(descriptor["smooth"])
        self.n1, self.n2 = int(self.option["g1_dim"]), int(self.option["g2_dim"])
        self.nlayers = int(self.option["nlayers"])
        self.tebd_host = type_embedding(config, self._weights)
        self.concat_tebd = bool(descriptor["concat_output_tebd"])
        self.tebd = launcher.constant(self.tebd_host)
        self.descriptor_dim = self.n1 + (self.tebd_host.shape[1] if self.concat_tebd else 0)
        self.act = activation_defines(self.option["activation_function"])
        self.act_fitting = activation_defines(self.fitting_option["activation_function"])
        self._prepare_repinit()
        self._prepare_entry()
        self.layers = [self._prepare_layer(number) for number in range(self.nlayers)]
        self._prepare_fitting()

    def _constant(self, value: Any) -> Array:
        return self.launcher.constant(value)

    def _has(self, name: str) -> bool:
        return name in self._weights

    def _statistics(self, block: str, rcut: float, rcut_smth: float) -> Statistics:
        mean, stddev = (self._weights[f"descriptor.{block}.{name}"] for name in ("mean", "stddev"))
        protection = float(self.config["descriptor"]["env_protection"])
        inv_width = 1.0 / (float(rcut) - float(rcut_smth))
        return Statistics(self._constant(mean), self._constant(1.0 / stddev), float(rcut_smth), inv_width, protection)

    def _grid(self, block: str) -> Any:
        """The grid of the table that a compressed model has for a block, else None."""
        tables = self.config.get("compression") or {}
        return tables.get({"repinit": "repinit", "repinit_three_body": "three_body"}[block])

    def _pairs(self, one_side: bool) -> Real:
        """(combinations, .) the type embeddings of an edge: row neighbour * ntypes + centre, or the neighbour alone."""
        tebd = self.tebd_host
        if one_side:
            return tebd
        neighbour, centre = np.repeat(tebd, self.ntypes, axis=0), np.tile(tebd, (self.ntypes, 1))
        return np.concatenate([neighbour, centre], axis=1)

    def _gate(self, block: str, nlayers: int, types: Real) -> Array | None:
        """The types' network of strip mode, on the type embeddings of every combination."""
        option = self.repinit_option
        if option["tebd_input_mode"] != "strip":
            return None
        name = f"descriptor.{block}.filter_layers_strip.networks.0"
        phi = activation(option["activation_function"])
        return self._constant(embedding_net(types, self._weights, name, nlayers, phi, option["resnet_dt"]))

    def _table(self, block: str, grid: Any, gate: Array | None) -> EmbeddingNet:
        """A table in place of a network; see embedding_net.cuh."""
        table = self._weights[f"descriptor.{block}.table"]
        curves, intervals, _, channels = table.shape
        return EmbeddingNet(
            layout=self.launcher.constant([0, channels, 0, int(curves > 1), intervals], np.int32),
            weights=self._constant(np.concatenate([nodes(grid), table.ravel()])),
            type_term=self._constant(np.zeros(1)),
            type_skip=self._constant(np.zeros(1)),
            even=channels,
            odd=0,
            gate=gate,
            defines={"TABLE": 1},
        )

    def _embedding_net(self, block: str, neuron: list[int], one_side: bool) -> EmbeddingNet:
        option, weights = self.repinit_option, self._weights
        strip = option["tebd_input_mode"] == "strip"
        name = f"descriptor.{block}.filter_layers.networks.0"
        types = self._pairs(one_side)
        gate, grid = self._gate(block, len(neuron), types), self._grid(block)
        if grid is not None:
            return self._table(block, grid, gate)
        flat: list[Real] = []
        layout: list[int] = []
        at = 0

        def place(values: Real) -> int:
            nonlocal at
            flat.append(values.ravel())
            at += values.size
            return at - values.size

        for number in range(len(neuron)):
            layer = f"{name}.layers.{number}"
            matrix = weights[f"{layer}.matrix"]
            skip = _skip(*matrix.shape)
            # The first layer's matrix is the scalar's row alone: the rest and the bias are in the table of the types.
            w = place(matrix[0] if number == 0 else matrix)
            b = place(weights[f"{layer}.bias"]) if number > 0 else -1
            idt = place(weights[f"{layer}.idt"]) if option["resnet_dt"] and skip else -1
            layout += [*matrix.shape, skip, w, b, idt]
        first, bias = weights[f"{name}.layers.0.matrix"], weights[f"{name}.layers.0.bias"]
        inputs = np.zeros((1, 0)) if strip else types
        widths = [int(width) for width in neuron]
        even, odd = max(widths[0::2]), max(widths[1::2], default=0)
        return EmbeddingNet(
            layout=self.launcher.constant([len(neuron), even, odd, int(not strip), *layout], np.int32),
            weights=self._constant(np.concatenate(flat)),
            type_term=self._constant(inputs @ first[1:] + bias),
            type_skip=self._constant(np.concatenate([np.zeros((len(inputs), 1)), inputs], axis=1)),
            even=even,
            odd=odd,
            gate=gate,
            defines=activation_defines(option["activation_function"]),
        )

    def _padded_embedding(self, s: Real) -> Real:
        """(ntypes, ntypes, ng) repinit's network on padded slots: rows by the type of atom 0 and of the centre."""
        option, name = self.repinit_option, "descriptor.repinit.filter_layers"
        arguments = (self._weights, f"{name}.networks.0", len(option["neuron"]))
        phi, resnet_dt = activation(option["activation_function"]), bool(option["resnet_dt"])
        shape, types = (self.ntypes, self.ntypes, -1), self._pairs(self.one_side)
        # Rows of `types`: with one side the first atom's type alone, which all centres share.
        pairs = np.broadcast_to(types[:, None] if self.one_side else types.reshape(shape), (*shape[:2], types.shape[1]))
        scalar = np.broadcast_to(s[None, :, None], (*shape[:2], 1))
        grid, strip = self._grid("repinit"), option["tebd_input_mode"] == "strip"
        if grid is not None:
            first = np.arange(self.ntypes)[:, None]
            curve = np.zeros((1, 1), int) if strip else first if self.one_side else first * self.ntypes + first.T
            value: Real = tabulate(scalar[..., 0], curve, grid, self._weights["descriptor.repinit.table"])
        else:
            value = embedding_net(
                scalar if strip else np.concatenate([scalar, pairs], axis=2), *arguments, phi, resnet_dt
            )
        if not strip:
            return value
        if not self.smooth:
            gate = embedding_net(pairs, arguments[0], f"{name}_strip.networks.0", arguments[2], phi, resnet_dt)
            value = value * (1.0 + gate)
        return value

    def _prepare_repinit(self) -> None:
        option, weights = self.repinit_option, self._weights
        self.stats1 = self._statistics("repinit", option["rcut"], option["rcut_smth"])
        self.one_side = bool(option["type_one_side"])
        self.net1 = self._embedding_net("repinit", option["neuron"], self.one_side)
        self.ng, self.axis1 = int(option["neuron"][-1]), int(option["axis_neuron"])
        self.inv_nsel1 = 1.0 / option["nsel"]
        rows = pad_row(weights["descriptor.repinit.mean"], weights["descriptor.repinit.stddev"])
        self.pad_R = self.pad_G = None
        if rows.any():
            self.pad_R, self.pad_G = self._constant(rows), self._constant(self._padded_embedding(rows[:, 0]))
        self.use_three = bool(option["use_three_body"])
        self.n3 = 0
        if self.use_three:
            block = "repinit_three_body"
            self.stats3 = self._statistics(block, option["three_body_rcut"], option["three_body_rcut_smth"])
            self.net3 = self._embedding_net(block, option["three_body_neuron"], False)
            self.n3 = int(option["three_body_neuron"][-1])
            self.inv_nsel3 = 1.0 / option["three_body_sel"] ** 2
            vectors = pad_row(weights[f"descriptor.{block}.mean"], weights[f"descriptor.{block}.stddev"])[:, 1:]
            self.pad_v = self._constant(vectors) if vectors.any() else None
        self.nd = self.ng * self.axis1 + self.n3

    def _prepare_entry(self) -> None:
        option, weights = self.option, self._weights
        self.shape = None
        if self.nd != self.n1:
            self.shape = self._constant(weights["descriptor.g1_shape_tranform.matrix"])
        self.tebd_term = None
        if self.config["descriptor"]["add_tebd_to_repinit_out"]:
            self.tebd_term = self._constant(self.tebd_host @ weights["descriptor.tebd_transform.matrix"])
        self.stats2 = self._statistics("repformers", option["rcut"], option["rcut_smth"])
        self.direct = 1.0 / option["rcut"] if option["direct_dist"] else 0.0
        self.g2_w = self._constant(weights["descriptor.repformers.g2_embd.matrix"])
        self.g2_b = self._constant(weights["descriptor.repformers.g2_embd.bias"])
        # Scores are shifted and padded slots count only where the switch is smooth.
        self.shift, self.pad_sel = (20.0, int(option["nsel"])) if self.smooth else (0.0, 0)

    def _residual(self, name: str, members: list[str], width: int) -> Residual:
        count, style = len(members), self.option["update_style"]
        a = 1.0 / math.sqrt(count + 1.0) if style == "res_avg" else 1.0
        scale = a if style == "res_avg" else 1.0 / math.sqrt(max(count, 1))
        vectors = [
            self._weights[f"{name}.{k}"] if style == "res_residual" else np.full(width, scale) for k in range(count)
        ]
        # The one number of h2 serves its three components.
        r = {member: self._constant(np.broadcast_to(v, width)) for member, v in zip(members, vectors, strict=True)}
        return Residual(members, a, r)

    def _prepare_layer(self, number: int) -> Layer:
        option, weights, constant = self.option, self._weights, self._constant
        n1, n2, name = self.n1, self.n2, f"descriptor.repformers.layers.{number}"
        layer = Layer(last=number == self.nlayers - 1)
        members = []
        if option["g1_out_mlp"]:
            layer.self_w = constant(weights[f"{name}.g1_self_mlp.matrix"])
            layer.self_b = constant(weights[f"{name}.g1_self_mlp.bias"])
            members.append("self")
        if option["update_g1_has_conv"]:
            layer.P = constant(weights[f"{name}.proj_g1g2.matrix"])
            layer.Pt = constant(weights[f"{name}.proj_g1g2.matrix"].T)
            if option["g1_out_conv"]:
                members.append("conv")
        axis = int(option["axis_neuron"])
        pieces = (
            ("g1", not option["g1_out_mlp"], n1),
            ("conv", option["update_g1_has_conv"] and not option["g1_out_conv"], n2),
            ("grrg", option["update_g1_has_grrg"], axis * n2),
            ("drrd", option["update_g1_has_drrd"], axis * n1),
        )
        for piece, present, width in pieces:
            if present:
                layer.columns[piece] = (layer.width, width)
                layer.width += width
        layer.w1, layer.b1 = constant(weights[f"{name}.linear1.matrix"]), constant(weights[f"{name}.linear1.bias"])
        members.append("linear1")
        if option["update_g1_has_attn"]:
            self._prepare_local_attention(layer, name)
            members.append("attention")
        layer.res1 = self._residual(f"{name}.g1_residual", members, n1)
        if layer.last:
            return layer
        members = ["linear2"]
        layer.w2, layer.b2 = constant(weights[f"{name}.linear2.matrix"]), constant(weights[f"{name}.linear2.bias"])
        if option["update_g2_has_g1g1"]:
            matrix = weights[f"{name}.proj_g1g1g2.matrix"]
            layer.gg, layer.ggt = constant(matrix), constant(matrix.T)
            members.append("g1g1")
        if option["update_g2_has_attn"] or option["update_h2"]:
            self._prepare_pair_attention(layer, name)
        if option["update_g2_has_attn"]:
            members.append("attention")
        layer.res2 = self._residual(f"{name}.g2_residual", members, n2)
        if option["update_h2"]:
            layer.res_h2 = self._residual(f"{name}.h2_residual", ["attention"], 3)
        return layer

    def _prepare_local_attention(self, layer: Layer, name: str) -> None:
        option, n1 = self.option, self.n1
        nh, nd = int(option["attn1_nhead"]), int(option["attn1_hidden"])
        q, kv = (self._weights[f"{name}.loc_attn.{part}.matrix"] for part in ("mapq", "mapkv"))
        out = self._weights[f"{name}.loc_attn.head_map.matrix"]
        keys, values = kv[:, : nd * nh], kv[:, nd * nh :]
        scale = 1.0 / math.sqrt(nd)
        queries = [q[:, h::nh] @ keys[:, h::nh].T * scale for h in range(nh)]
        layer.att_q = self._constant(np.concatenate(queries, axis=1))
        layer.att_o = self._constant(
            np.concatenate([values[:, h::nh] @ out[h * n1 : (h + 1) * n1] for h in range(nh)], axis=0)
        )
        layer.att_b = self._constant(self._weights[f"{name}.loc_attn.head_map.bias"])

    def _prepare_pair_attention(self, layer: Layer, name: str) -> None:
        option, weights, constant = self.option, self._weights, self._constant
        nh, nd = int(option["attn2_nhead"]), int(option["attn2_hidden"])
        qk = weights[f"{name}.attn2g_map.mapqk.matrix"]
        maps = [qk[:, nh + h :: 2 * nh] @ qk[:, h :: 2 * nh].T / math.sqrt(nd) for h in range(nh)]
        A = np.concatenate(maps, axis=1)
        layer.A, layer.At = constant(A), constant(A.T)
        if option["update_g2_has_attn"]:
            v, out = (weights[f"{name}.attn2_mh_apply.{part}.matrix"] for part in ("mapv", "head_map"))
            values = [v[:, h::nh] @ out[h::nh] for h in range(nh)]
            # LayerNorm's mean over the channels, and 1/sqrt(3).
            B = np.concatenate([(b - b.mean(axis=1, keepdims=True)) / math.sqrt(3.0) for b in values], axis=1)
            bias = weights[f"{name}.attn2_mh_apply.head_map.bias"]
            layer.B, layer.Bt, layer.pair_bias = constant(B), constant(B.T), constant(bias - bias.mean())
            layer.ln_gamma = constant(weights[f"{name}.attn2_lm.matrix"])
            layer.ln_beta = constant(weights[f"{name}.attn2_lm.bias"])
        if option["update_h2"]:
            layer.h2_weight = constant(weights[f"{name}.attn2_ev_apply.head_map.matrix"][:, 0] / math.sqrt(3.0))

    def _prepare_fitting(self) -> None:
        option, weights, name = self.fitting_option, self._weights, "fitting_net.filter_layers.networks.0"
        count = len(option["neuron"])
        self.fitting_layers = []
        for number in range(count):
            layer = f"{name}.layers.{number}"
            matrix = weights[f"{layer}.matrix"]
            skip = _skip(*matrix.shape)
            idt = self._constant(weights[f"{layer}.idt"]) if option["resnet_dt"] and skip else None
            self.fitting_layers.append(
                FittingLayer(self._constant(matrix), self._constant(weights[f"{layer}.bias"]), idt, skip)
            )
        self.w_out = self._constant(weights[f"{name}.layers.{count}.matrix"])
        self.b_out = float(weights[f"{name}.layers.{count}.bias"].ravel()[0])
        self.vacuum = any(value is not None for value in option["atom_ener"])
        bias = weights["fitting_net.bias_atom_e"][:, 0] + weights["out_bias"][0, :, 0]
        self.energy_bias = self.launcher.constant(bias, np.float64)
        counts = np.ones(self.ntypes)
        counts[list(self.config["atom_exclude_types"])] = 0.0
        self.type_counts = self.launcher.constant(counts, np.float64)
        self.naparam = 0 if option["use_aparam_as_mask"] else int(option["numb_aparam"])
        self.aparam_at = self.descriptor_dim + int(option["numb_fparam"])
        self.fitting_width = self.aparam_at + self.naparam + int(option["dim_case_embd"])

    def fixed_input(self, fparam: Any) -> Array:
        """(fitting_width) the part of the fitting network's input that is the same for all atoms of a frame."""
        option, weights = self.fitting_option, self._weights
        row = np.zeros(self.fitting_width)
        if option["numb_fparam"]:
            given = np.asarray(option["default_fparam"] if fparam is None else fparam, dtype=np.float64)
            scaled = (given - weights["fitting_net.fparam_avg"]) * weights["fitting_net.fparam_inv_std"]
            row[self.descriptor_dim : self.aparam_at] = scaled
        if option["dim_case_embd"]:
            row[self.aparam_at + self.naparam :] = weights["fitting_net.case_embd"]
        return self._constant(row)

    def atom_input(self, aparam: Any) -> Array | None:
        """(n, naparam) the normalised atomic parameters, where the network reads them."""
        if self.naparam == 0:
            return None
        weights = self._weights
        scaled = (np.asarray(aparam) - weights["fitting_net.aparam_avg"]) * weights["fitting_net.aparam_inv_std"]
        return self._constant(scaled)
