"""The folded tensors of a model on a device, in the layouts of the kernels; `src/fold/folded.hpp` has their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2._native import folded

from .device import Array
from .launcher import Launcher

Config = dict[str, Any]
Real = NDArray[np.float64]
SILUT = 8  # the activation function with constants; the numbers are those of math/activation.hpp


def activation_defines(activation: Real) -> dict[str, str | int]:
    """What a source is compiled with for a folded activation function."""
    number, *constants = activation.ravel().tolist()
    defines: dict[str, str | int] = {"ACT": int(number)}
    if number == SILUT:
        defines |= dict(zip(("SILUT_THRESHOLD", "SILUT_SLOPE", "SILUT_OFFSET"), map(repr, constants), strict=True))
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
    type_term: Array | None
    type_skip: Array | None
    even: int  # widest output among layers 0, 2, ...
    odd: int
    gate: Array | None  # (combinations, width): the types' network of strip mode
    defines: Mapping[str, str | int]  # of the sources that evaluate it

    def shared(self, lane_row: int) -> int:
        """Numbers of shared memory for values, or for derivatives."""
        return (self.even + self.odd) * lane_row

    @property
    def arrays(self) -> tuple[Array | None, ...]:
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
    ln_gain: Array = None
    ln_bias: Array = None
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


class Prepared:
    """A model of one precision on one device; immutable."""

    def __init__(self, config: Config, weights: dict[str, Any], launcher: Launcher) -> None:
        self.config = config
        self.launcher = launcher
        self._host = folded(json.dumps(config), weights)
        descriptor = config["descriptor"]
        self.repinit_option, self.option = descriptor["repinit"], descriptor["repformer"]
        self.fitting_option = config["fitting_net"]
        self.ntypes = len(config["type_map"])
        self.smooth = bool(descriptor["smooth"])
        self.n1, self.n2 = int(self.option["g1_dim"]), int(self.option["g2_dim"])
        self.nlayers = int(self.option["nlayers"])
        self.concat_tebd = bool(descriptor["concat_output_tebd"])
        self.tebd = self._upload("type_embedding")
        self.descriptor_dim = self.n1 + (self.tebd.shape[1] if self.concat_tebd else 0)
        self.act = activation_defines(self._host["repformer.activation"])
        self.act_fitting = activation_defines(self._host["fitting.activation"])
        self._prepare_repinit()
        self._prepare_entry()
        self.layers = [self._prepare_layer(number) for number in range(self.nlayers)]
        self._prepare_fitting()
        del self._host

    def _upload(self, name: str) -> Array:
        """The tensor of that name on the device, None where the model does not have it."""
        value = self._host.get(name)
        return None if value is None else self.launcher.constant(value)

    def _number(self, name: str) -> float:
        return float(self._host[name])

    def _statistics(self, block: str) -> Statistics:
        numbers = (self._number(f"{block}.{name}") for name in ("rcut_smth", "inv_width", "protection"))
        return Statistics(self._upload(f"{block}.mean"), self._upload(f"{block}.inv_std"), *numbers)

    def _embedding_net(self, block: str, count: int) -> EmbeddingNet:
        host, gate = self._host, self._upload(f"{block}.gate")
        typed = int(self._number(f"{block}.typed"))
        parts: list[Real] = []
        table = host.get(f"{block}.table.coefficients")
        if table is not None:
            _, intervals, _, channels = table.shape
            parts = [host[f"{block}.table.nodes"].ravel(), table.ravel()]
            layout, even, odd = [0, channels, 0, typed, intervals], channels, 0
            return self._net(layout, parts, None, None, even, odd, gate, {"TABLE": 1})

        def place(name: str) -> int:
            if name not in host:
                return -1
            parts.append(host[name].ravel())
            return sum(part.size for part in parts[:-1])

        layout, widths = [], []
        for number in range(count):
            layer = f"{block}.layers.{number}"
            layout += [int(self._number(f"{layer}.{name}")) for name in ("in", "out", "skip")]
            widths.append(layout[-2])
            layout += [place(f"{layer}.{name}") for name in ("w", "b", "idt")]
        even, odd = max(widths[0::2]), max(widths[1::2], default=0)
        term, skip = self._upload(f"{block}.type_term"), self._upload(f"{block}.type_skip")
        defines = activation_defines(host[f"{block}.activation"])
        return self._net([count, even, odd, typed, *layout], parts, term, skip, even, odd, gate, defines)

    def _net(self, layout: list[int], parts: list[Real], *others: Any) -> EmbeddingNet:
        constant = self.launcher.constant
        return EmbeddingNet(constant(layout, np.int32), constant(np.concatenate(parts)), *others)

    def _prepare_repinit(self) -> None:
        option = self.repinit_option
        self.stats_repinit = self._statistics("repinit")
        self.one_side = bool(option["type_one_side"])
        self.net_repinit = self._embedding_net("repinit", len(option["neuron"]))
        self.ng, self.axis_repinit = int(option["neuron"][-1]), int(option["axis_neuron"])
        self.inv_nsel = self._number("repinit.inv_nsel")
        self.pad_G = self._upload("repinit.pad_embedding")
        self.pad_R = None if self.pad_G is None else self._upload("repinit.pad")
        self.use_three = "three_body.mean" in self._host
        self.n3 = 0
        if self.use_three:
            self.stats_three = self._statistics("three_body")
            self.net_three = self._embedding_net("three_body", len(option["three_body_neuron"]))
            self.n3 = int(option["three_body_neuron"][-1])
            self.inv_nsel_squared = self._number("three_body.inv_nsel_squared")
            vectors = self._host["three_body.pad"][:, 1:]
            self.pad_v = self.launcher.constant(vectors) if vectors.any() else None
        self.nd = self.ng * self.axis_repinit + self.n3

    def _prepare_entry(self) -> None:
        self.shape, self.tebd_term = self._upload("entry.shape"), self._upload("entry.type_term")
        self.stats_repformer = self._statistics("repformer")
        self.direct = self._number("repformer.inv_rcut") if self.option["direct_dist"] else 0.0
        self.g2_w, self.g2_b = self._upload("repformer.g2.w"), self._upload("repformer.g2.b")
        self.shift = self._number("repformer.attention_shift")
        self.pad_sel = int(self.option["nsel"]) if self.smooth else 0  # padded slots count where the switch is smooth

    def _residual(self, name: str, width: int) -> Residual | None:
        if f"{name}.a" not in self._host:
            return None
        members = [key.rpartition(".")[2] for key in self._host if key.startswith(f"{name}.") and key != f"{name}.a"]
        # The one number of h2 serves its three components.
        rows = {member: np.broadcast_to(self._host[f"{name}.{member}"], (1, width)) for member in members}
        return Residual(
            members, self._number(f"{name}.a"), {member: self.launcher.constant(row) for member, row in rows.items()}
        )

    def _prepare_layer(self, number: int) -> Layer:
        at, host, constant = f"layers.{number}", self._host, self.launcher.constant

        def both(name: str) -> tuple[Array, Array]:
            value = host.get(f"{at}.{name}")
            return (None, None) if value is None else (constant(value), constant(value.T))

        layer = Layer(last=f"{at}.linear2.w" not in host)
        layer.self_w, layer.self_b = self._upload(f"{at}.self.w"), self._upload(f"{at}.self.b")
        layer.P, layer.Pt = both("conv.w")
        pieces = {name: host.get(f"{at}.linear1.{name}") for name in ("g1", "conv", "grrg", "drrd")}
        present = {name: piece for name, piece in pieces.items() if piece is not None}
        for name, piece in present.items():
            layer.columns[name] = (layer.width, len(piece))
            layer.width += len(piece)
        layer.w1, layer.b1 = constant(np.concatenate(list(present.values()))), self._upload(f"{at}.linear1.b")
        layer.att_q, layer.att_o, layer.att_b = (
            self._upload(f"{at}.local_attention.{name}") for name in ("query", "value", "b")
        )
        layer.w2, layer.b2 = self._upload(f"{at}.linear2.w"), self._upload(f"{at}.linear2.b")
        layer.gg, layer.ggt = both("g1g1.w")
        layer.A, layer.At = both("pair_attention.query")
        layer.B, layer.Bt = both("pair_attention.value")
        layer.pair_bias, layer.ln_gain, layer.ln_bias, layer.h2_weight = (
            self._upload(f"{at}.pair_attention.{name}") for name in ("b", "gain", "shift", "h2")
        )
        res1 = self._residual(f"{at}.g1_residual", self.n1)
        assert res1 is not None
        layer.res1, layer.res2 = res1, self._residual(f"{at}.g2_residual", self.n2)
        layer.res_h2 = self._residual(f"{at}.h2_residual", 3)
        return layer

    def _prepare_fitting(self) -> None:
        option, host = self.fitting_option, self._host
        self.fitting_layers = []
        for number in range(len(option["neuron"])):
            at = f"fitting.layers.{number}"
            w, b, idt = (self._upload(f"{at}.{name}") for name in ("w", "b", "idt"))
            self.fitting_layers.append(FittingLayer(w, b, idt, int(self._number(f"{at}.skip"))))
        self.w_out, self.b_out = self._upload("fitting.out.w"), float(host["fitting.out.b"][0, 0])
        self.vacuum = bool(self._number("energy.vacuum"))
        self.energy_bias = self.launcher.constant(host["energy.bias"], np.float64)
        self.type_counts = self.launcher.constant(host["energy.counted"][0], np.float64)
        names = ("fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std", "case_embd")
        self._parameters = {name: host.get(f"fitting.{name}", np.zeros((1, 0)))[0] for name in names}
        nfparam, self.naparam, ncase = (
            self._parameters[name].size for name in ("fparam_avg", "aparam_avg", "case_embd")
        )
        self.aparam_at = self.descriptor_dim + nfparam
        self.fitting_width = self.aparam_at + self.naparam + ncase

    def fixed_input(self, fparam: Any) -> Array:
        """(fitting_width) the part of the fitting network's input that is the same for all atoms of a frame."""
        weights, row = self._parameters, np.zeros(self.fitting_width)
        if weights["fparam_avg"].size:
            given = np.asarray(self.fitting_option["default_fparam"] if fparam is None else fparam, dtype=np.float64)
            scaled = (given - weights["fparam_avg"]) * weights["fparam_inv_std"]
            row[self.descriptor_dim : self.aparam_at] = scaled
        row[self.aparam_at + self.naparam :] = weights["case_embd"]
        return self.launcher.constant(row)

    def atom_input(self, aparam: Any) -> Array | None:
        """(n, naparam) the normalised atomic parameters, where the network reads them."""
        if self.naparam == 0:
            return None
        weights = self._parameters
        scaled = (np.asarray(aparam) - weights["aparam_avg"]) * weights["aparam_inv_std"]
        return self.launcher.constant(scaled)
