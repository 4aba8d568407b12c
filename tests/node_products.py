"""The products over atoms as the host of the GPU launches them, emulated: product.cu, g1_update.cu, fitting.cu."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
Folded = Mapping[str, Array]

THREADS, COLUMNS, DEPTH = 128, 64, 16
SILUT = 8  # the activation function with constants; the numbers are those of math/activation.hpp
TANH: dict[str, str | int] = {"ACT": 1}


def packed(m: Array) -> Array:
    """A constant matrix in tiles of 64 columns, with zeros beyond the edges (src/cuda/product.hpp)."""
    k, n = m.shape
    full = np.zeros((-(-k // DEPTH) * DEPTH, -(-n // COLUMNS) * COLUMNS))
    full[:k, :n] = m
    return np.concatenate([full[:, c : c + COLUMNS].ravel() for c in range(0, full.shape[1], COLUMNS)])


def activation_defines(activation: Array) -> dict[str, str | int]:
    """What a source is compiled with for a folded activation function."""
    number, *constants = activation.ravel().tolist()
    defines: dict[str, str | int] = {"ACT": int(number)}
    if number == SILUT:
        defines |= dict(zip(("SILUT_THRESHOLD", "SILUT_SLOPE", "SILUT_OFFSET"), map(repr, constants), strict=True))
    return defines


@dataclass
class Nodes:
    """Launches in one precision. ``each``: rows of a thread, None as in large systems; ``tensor``: by tensor cores."""

    device: Any
    precision: str
    each: int | None = None
    tensor: bool = False

    @property
    def real(self) -> Any:
        return np.float32 if self.precision == "float32" else np.float64

    def up(self, value: Any, kind: Any = None) -> Any:
        return None if value is None else np.ascontiguousarray(value, kind or self.real)

    def matrix(self, m: Array | None) -> Any:
        return None if m is None else self.up(packed(m))

    def empty(self, *shape: int) -> Array:
        return self.device.empty(shape, self.real)

    def start(
        self, source: str, kernel: str, rows: int, widths: list[int], struct: str, values: Any, act: Mapping[str, Any]
    ) -> None:
        each = self.each or (8 if self.precision == "float32" else 4)
        grid = -(-rows // (8 * each)) * sum(-(-width // COLUMNS) for width in widths)
        defines = {"real": "float" if self.precision == "float32" else "double", **act}
        defines |= {"TENSOR": 1} if self.tensor else {}
        defines |= {"ROWS": each}
        self.device.start(source, kernel, grid, THREADS, struct, values, 0, defines)

    def product(
        self,
        a: Array,
        b: Array | None,
        factor: Array | None = None,
        type_term: Array | None = None,
        types: Array | None = None,
        active: bool = False,
        onto: Array | None = None,
        act: Mapping[str, Any] = TANH,
    ) -> tuple[Array, Array]:
        """out and slope; ``onto``: what out is added to."""
        rows, k = a.shape
        n = k if b is None else b.shape[1]
        out, slope = self.empty(rows, n) if onto is None else self.up(onto).copy(), self.empty(rows, n)
        values = {
            "out": out,
            "slope": slope,
            "a": self.up(a),
            "factor": self.up(factor),
            "b": self.matrix(b),
            "type_term": self.up(type_term),
            "types": self.up(types, np.int32),
            "rows": rows,
            "n": n,
            "k": k,
            "active": int(active),
            "accumulate": int(onto is not None),
        }
        self.start("product.cu", "product", rows, [n], "ProductArgs", values, act)
        return out, slope


class G1Update:
    """src/gpu/g1_update.cpp for a layer of a folded model."""

    def __init__(self, run: Nodes, host: Folded, layer: str) -> None:
        self.run = run

        def get(name: str) -> Array | None:
            return host.get(f"{layer}.{name}")

        self.act = activation_defines(host["repformer.activation"])
        self.a = float(host[f"{layer}.g1_residual.a"].ravel()[0])
        r = {name: get(f"g1_residual.{name}") for name in ("self", "conv", "linear1", "attention")}
        self.n1 = host[f"{layer}.linear1.b"].shape[1]
        pieces = [get(f"linear1.{name}") for name in ("conv", "grrg", "drrd")]
        present = [piece for piece in pieces if piece is not None]
        self.cat_w = np.concatenate(present) if present else None
        self.width = 0 if self.cat_w is None else len(self.cat_w)
        self.self_w, self.g1_w, value, b = (
            get("self.w"),
            get("linear1.g1"),
            get("local_attention.value"),
            get("local_attention.b"),
        )
        self.heads = 0 if value is None else len(value) // self.n1
        self.attention_w = None if value is None else value * r["attention"]
        up = run.up
        self.constants = {
            "self_w": run.matrix(self.self_w),
            "self_b": up(get("self.b")),
            "self_r": up(r["self"]),
            "linear_g1": run.matrix(self.g1_w),
            "linear_cat": run.matrix(self.cat_w),
            "linear_b": up(get("linear1.b")),
            "linear_r": up(r["linear1"]),
            "attention_w": run.matrix(self.attention_w),
            "conv_r": up(r["conv"]),
            "attention_b": None if b is None else up(b * r["attention"]),
        }
        self.sizes = {"a": self.a, "n1": self.n1, "width": self.width, "heads": self.heads}

    def forward(
        self, g1: Array, cat: Array | None, conv: Array | None, o: Array | None, keep: bool = True
    ) -> tuple[Array, Any, Any]:
        """out and what is kept."""
        run, n = self.run, len(g1)
        out = run.empty(n, self.n1)
        kept = [run.empty(n, self.n1) if keep else None for _ in range(2)]
        if self.self_w is None:
            kept[0] = None
        values = {
            "out": out,
            "self_slope": kept[0],
            "linear_slope": kept[1],
            "g1": run.up(g1),
            "cat": run.up(cat),
            "conv": run.up(conv),
            "o": run.up(o),
            "n": n,
            **self.constants,
            **self.sizes,
        }
        run.start("g1_update.cu", "g1_update", n, [self.n1], "G1UpdateArgs", values, self.act)
        return out, *kept

    def backward(self, dout: Array, self_slope: Any, linear_slope: Any) -> tuple[Array, Array, Array | None]:
        """dg1, dcat and d_o."""
        run, n = self.run, len(dout)

        def turned(m: Array | None) -> Any:
            return None if m is None else run.matrix(m.T)

        dg1, dcat = run.empty(n, self.n1), run.empty(n, self.width)
        d_o = run.empty(n, self.heads * self.n1) if self.heads else None
        values = {
            "dg1": dg1,
            "dcat": dcat,
            "d_o": d_o,
            "dout": run.up(dout),
            "self_slope": self_slope,
            "linear_slope": linear_slope,
            "self_wt": turned(self.self_w),
            "linear_g1t": turned(self.g1_w),
            "linear_catt": turned(self.cat_w),
            "attention_wt": turned(self.attention_w),
            "n": n,
            **self.sizes,
        }
        widths = [self.n1, self.width, self.heads * self.n1]
        run.start("g1_update.cu", "g1_update_backward", n, widths, "G1UpdateBackwardArgs", values, self.act)
        return dg1, dcat, d_o


class Fitting:
    """src/gpu/fitting.cpp for a folded model, on frames side by side."""

    def __init__(self, run: Nodes, host: Folded, option: Mapping[str, Any], concat_tebd: bool, n1: int) -> None:
        self.run, self.option, self.n1 = run, option, n1
        self.act = activation_defines(host["fitting.activation"])
        self.hidden = [
            {name: host.get(f"fitting.layers.{number}.{name}") for name in ("w", "b", "idt", "skip")}
            for number in range(len(option["neuron"]))
        ]
        self.tebd = host["type_embedding"] if concat_tebd else None
        self.parameters = {
            name: host.get(f"fitting.{name}")
            for name in ("fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std")
        }
        self.case = host.get("fitting.case_embd")
        self.out_w, self.out_b = host["fitting.out.w"], float(host["fitting.out.b"].ravel()[0])
        self.bias, self.counted = host["head.bias"], host["head.counted"].ravel()
        self.vacuum = bool(host["head.vacuum"].ravel()[0])
        sizes = [0 if m is None else m.shape[1] for m in (self.tebd, self.parameters["fparam_avg"],
                                                          self.parameters["aparam_avg"], self.case)]  # fmt: skip
        self.ntebd, self.nf, self.na, ncase = sizes
        self.width = self.ntebd + self.nf + self.na + ncase

    def _extra(
        self, types: Array, frames: int, fparam: Array | None, aparam: Array | None, width: int
    ) -> dict[str, Any]:
        run = self.run
        given = self.option["default_fparam"] if fparam is None else fparam
        return {
            "tebd": run.up(self.tebd),
            "types": run.up(np.maximum(types, 0), np.int32),
            **{name: run.up(value, np.float64) for name, value in self.parameters.items()},
            "fparam": run.up(given, np.float64),
            "aparam": run.up(aparam, np.float64),
            "case_embd": run.up(self.case),
            "width": width,
            "ntebd": self.ntebd,
            "nfparam": self.nf,
            "naparam": self.na,
            "centres": len(types),
            "fparam_row": 0 if fparam is None else self.nf,
            "per_frame": len(types) // frames,
        }

    def forward(
        self,
        g1: Array,
        types: Array,
        fparam: Array | None = None,
        aparam: Array | None = None,
        frames: int = 1,
        failed: int = 0,
    ) -> tuple[Array, list[Array]]:
        """Energies and slopes; fparam (frames, .)."""
        run, n = self.run, len(g1)
        rows = n + (0 if not self.vacuum else n if self.na else frames)
        x, given, width, slopes = run.up(g1), n, self.width, []
        for layer in self.hidden:
            w, columns = layer["w"], x.shape[1]
            assert w is not None
            out = w.shape[1]
            y, slope = run.empty(rows, out), run.empty(rows, out)
            values = {
                "y": y,
                "slope": slope,
                "x": x,
                "w": run.matrix(w[:columns]),
                "b": run.up(layer["b"]),
                "extra_w": run.matrix(w[columns:]) if width else None,
                "idt": run.up(layer["idt"]),
                "rows": rows,
                "extra": self._extra(types, frames, fparam, aparam, width),
                "given": given,
                "in": columns,
                "out": out,
                "skip": int(layer["skip"]),  # type: ignore[arg-type]
            }
            run.start("fitting.cu", "fitting_hidden", rows, [out], "FittingHiddenArgs", values, self.act)
            slopes.append(slope)
            x, given, width = y, rows, 0
        energy = run.device.empty(n, np.float64)
        values = {
            "energy": energy,
            "y": x,
            "w_out": run.up(self.out_w),
            "bias": run.up(self.bias, np.float64),
            "counted": run.up(self.counted, np.int32),
            "given_types": run.up(types, np.int32),
            "failed": run.up([failed], np.int32),
            "extra": self._extra(types, frames, fparam, aparam, width),
            "given": given,
            "in": x.shape[1],
            "vacuum": int(self.vacuum),
            "b_out": self.out_b,
        }
        defines = {"real": "float" if run.precision == "float32" else "double", **self.act}
        run.device.start("fitting.cu", "fitting_energy", -(-n // 4), 128, "FittingEnergyArgs", values, 0, defines)
        return energy, slopes

    def backward(self, types: Array, slopes: list[Array], seed: Array | None = None) -> Array:
        """dg1"""
        run, n, dy = self.run, len(types), None
        common = {
            "w_out": run.up(self.out_w),
            "seed": run.up(seed, np.float64),
            "rows": n,
            "given_types": run.up(types, np.int32),
            "types": run.up(np.maximum(types, 0), np.int32),
            "counted": run.up(self.counted, np.int32),
        }

        def start(columns: int, **values: Any) -> Array:
            dx = run.empty(n, columns)
            struct = {"dx": dx, "wanted": columns, **common, **values}
            run.start("fitting.cu", "fitting_hidden_backward", n, [columns], "FittingBackwardArgs", struct, self.act)
            return dx

        if not self.hidden:
            return start(self.n1, dy=None, slope=None, wt=None, out=self.n1, skip=1, **{"in": self.n1})
        for number, layer in reversed(list(enumerate(self.hidden))):
            w = layer["w"]
            assert w is not None
            columns = len(w) if number else self.n1
            sizes = {"in": len(w), "out": w.shape[1], "skip": int(layer["skip"])}  # type: ignore[arg-type]
            dy = start(columns, dy=dy, slope=slopes[number], wt=run.matrix(w[:columns].T), **sizes)
        assert dy is not None
        return dy
