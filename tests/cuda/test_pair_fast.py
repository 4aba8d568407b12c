"""The pair channel of centres whose edges are one tile: against NumPy, for every number of edges."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from cuda_emulator.build import SOURCES
from cuda_emulator.sanitize import mutate, run
from pair_formulas import SHIFT, Attention, Update, tiles
from pair_kernels import KINDS

COUNTS = tuple(range(33))
CHANNELS = (6, 16, 32)
HEADS = (1, 2, 4, 6)
TERMS = ("", "U", "h", "Uh", "h only")
SHARED = 48 * 1024


def fast_sizes(heads: int, real: str) -> tuple[int, int, int, int]:
    """Warps, bytes of shared memory forward and backward, numbers of scratch per block."""
    size, most = (4, 4) if real == "float" else (8, 2)
    rounds = -(-heads // most)
    warps = -(-heads // rounds)
    tile = 1176 if size == 4 else 1104
    forward = (2 + warps) * tile + 320 + 160 * warps
    backward = ((2 if size == 4 else 1) + 2 * warps) * tile + 448
    scratch = (0 if size == 4 else tile) + (1024 if rounds > 1 else 0)
    return warps, size * forward, size * backward, scratch


class Layer:
    """The kernels on centres with these numbers of edges; ``terms``: U with g1g1, h updates h2, "h only" nothing else of
    the attention."""

    def __init__(
        self, counts: Sequence[int], n2: int, heads: int, gate: bool, smooth: bool, terms: str, real: str = "double",
        nsel: int = 40, device: EmulatedDevice | None = None, blocks: int = 0,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(len(counts) + 7 * n2 + heads)
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self.start, self.n2, self.heads, self.real = start, n2, heads, real
        self.own = [slice(a, b) for a, b in itertools.pairwise(start)]
        self.edges, self.blocks = int(start[-1]), blocks or len(counts)
        self.capacity = self.edges + 40
        self.device = device or EmulatedDevice(seed=11, max_shared=SHARED)

        def draw(*shape: int) -> Any:
            # Values that float32 has: both precisions and the reference start from the same.
            return rng.normal(size=shape).astype(np.float32).astype(float)

        g2, h2 = draw(self.edges, n2), rng.normal(size=(self.edges, 3))
        h2 /= np.linalg.norm(h2, axis=1, keepdims=True)
        w = rng.uniform(0.05, 1.0, self.edges) if smooth else np.ones(self.edges)
        self.inputs = [g2, *(x.astype(np.float32).astype(float) for x in (h2, w))]
        self.has_U, self.has_h2, self.has_z = "U" in terms, "h" in terms, "only" not in terms
        if self.has_U:
            self.inputs.append(draw(self.edges, n2))
        A, B = (draw(heads, n2, n2) * scale for scale in (2.0 ** -(n2 // 10), 0.25))
        B -= B.mean(axis=2, keepdims=True)
        bias = draw(n2)
        self.attention = Attention(
            A, B if self.has_z else None, bias - bias.mean(), draw(heads) if self.has_h2 else None, gate, smooth, nsel
        ).cast(np.float32).cast(float)
        self.update = Update(draw(n2, n2) * 0.25, draw(n2), draw(3, n2), draw(n2), draw(n2), 0.75, 0.5, 1.25, 2.0**-10)
        self.seeds = [draw(self.edges, n2), draw(self.edges, 3)]

    def up(self, value: Any) -> Any:
        """With rows that nobody may read or write."""
        if value is None:
            return None
        room = np.full((self.capacity - len(value), *value.shape[1:]), np.nan)
        return np.ascontiguousarray(np.concatenate([value, room]), KINDS[self.real])

    def constants(self) -> dict[str, Any]:
        of, update = self.attention, self.update

        def put(value: Any) -> Any:
            return None if value is None else np.ascontiguousarray(value, KINDS[self.real])

        def turned(value: Any) -> Any:
            return None if value is None else value.transpose(0, 2, 1)

        def laid(value: Any) -> Any:
            return None if value is None else put(tiles(value))

        return {
            "query": laid(of.A), "query_t": laid(turned(of.A)), "value": laid(of.B), "value_t": laid(turned(of.B)),
            "bias": put(of.bias) if self.has_z else None, "h2_weight": put(of.h2), "linear_w": laid(update.w[None]),
            "linear_wt": laid(update.w.T[None]), "linear_b": put(update.b), "linear_r": put(update.r[0]),
            "g1g1_r": put(update.r[1]) if self.has_U else None,
            "gain": put(update.gain * update.r[2]) if self.has_z else None,
            "norm_shift": put(update.shift * update.r[2]) if self.has_z else None, "n2": self.n2, "heads": self.heads,
            "gate": int(of.gate), "nsel": of.nsel if of.smooth else 0, "shift": SHIFT if of.smooth else 0,
            "a": update.a, "h2_a": update.h2_a, "h2_r": update.h2_r, "eps": update.eps,
        }  # fmt: skip

    def start_kernel(self, kernel: str, struct: str, values: dict[str, Any]) -> None:
        warps, forward, backward, _ = fast_sizes(self.heads, self.real)
        common = {
            "g2": self.up(self.inputs[0]), "h2": self.up(self.inputs[1]), "w": self.up(self.inputs[2]),
            "start": self.start, "centres": len(self.own), "most": 32, "with": self.constants(),
        }  # fmt: skip
        shared = backward if "backward" in kernel else forward
        self.device.start(
            *("pair_layer.cu", kernel, self.blocks, 32 * warps, struct, common | values, shared, {"real": self.real})
        )

    def forward(self) -> list[np.ndarray]:
        """The new g2, and the new h2 where it is updated."""
        kind = KINDS[self.real]
        out = self.device.empty((self.capacity, self.n2), kind)
        h2 = self.device.empty((self.capacity, 3), kind) if self.has_h2 else None
        values = {"out": out, "h2_out": h2, "scratch": None, "U": self.up(self.inputs[3]) if self.has_U else None}
        self.start_kernel("pair_layer", "PairLayerArgs", values)
        found = [out] if h2 is None else [out, h2]
        assert all(np.isnan(x[self.edges :]).all() for x in found)
        return [x[: self.edges] for x in found]

    def backward(self) -> list[np.ndarray]:
        """Gradients of the inputs, that of the switch added to ones."""
        dg2, dh2, dw = self.up(self.seeds[0]), self.up(self.seeds[1]), self.up(np.ones(self.edges))
        dU = self.device.empty((self.capacity, self.n2), KINDS[self.real]) if self.has_U else None
        scratch = fast_sizes(self.heads, self.real)[3]
        values = {
            "dg2": dg2, "dh2": dh2, "dw": dw, "dU": dU,
            "scratch": self.device.empty(self.blocks * scratch, KINDS[self.real]) if scratch else None,
        }  # fmt: skip
        self.start_kernel("pair_layer_backward", "PairLayerBackwardArgs", values)
        found = [dg2, dh2, dw] if dU is None else [dg2, dh2, dw, dU]
        assert all(np.isnan(x[self.edges :]).all() for x in found)
        return [x[: self.edges] for x in found]

    def expected(self, kind: Any = float) -> list[np.ndarray]:
        """Outputs, computed in this type."""
        parts = [self._forward([x[own].astype(kind) for x in self.inputs], kind) for own in self.own]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def _update(self, kind: Any) -> Update:
        f = self.update
        numbers = (kind(x) for x in (f.a, f.h2_a, f.h2_r, f.eps))
        return Update(*(x.astype(kind) for x in (f.w, f.b, f.r, f.gain, f.shift)), *numbers)

    def _forward(self, inputs: list[Any], kind: Any) -> list[Any]:
        of = self.attention.cast(kind)
        found = of.forward(*inputs[:3])
        z = found[0] if self.has_z else None
        dh = found[-1] if self.has_h2 else None
        U = inputs[3] if self.has_U else None
        out, h2 = self._update(kind).forward(inputs[0], inputs[1], U, z, dh)
        return [out, h2] if self.has_h2 else [out]

    def expected_gradients(self, kind: Any = float) -> list[np.ndarray]:
        parts = [
            self._backward([x[own].astype(kind) for x in self.inputs], [x[own].astype(kind) for x in self.seeds], kind)
            for own in self.own
        ]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def _backward(self, inputs: list[Any], seeds: list[Any], kind: Any) -> list[Any]:
        of, update = self.attention.cast(kind), self._update(kind)
        z = of.forward(*inputs[:3])[0] if self.has_z else None
        found = update.backward(inputs[0], z, *seeds)
        given = [x for x, there in ((found.get("z"), self.has_z), (found["dh"], self.has_h2)) if there]
        dg2, dh2, dw = of.backward(*inputs[:3], given)
        dh2 = dh2 + (found["h2"] if self.has_h2 else seeds[1])
        return [dg2 + found["g2"], dh2, dw + 1, *([found["U"]] if self.has_U else [])]


def compared(layer: Layer) -> int:
    """How many numbers of the outputs and gradients were right: float64 to rounding, float32 as NumPy has it."""
    checked = 0
    for found, wanted, single in (
        (layer.forward(), layer.expected(), layer.expected(np.float32)),
        (layer.backward(), layer.expected_gradients(), layer.expected_gradients(np.float32)),
    ):
        for number, (got, want, rough) in enumerate(zip(found, wanted, single, strict=True)):
            if want.size == 0:
                continue
            assert np.isfinite(got).all()
            scale = np.abs(want).max()
            error = np.abs(got - want).max()
            allowed = 1e-12 * scale if layer.real == "double" else 3 * np.abs(rough - want).max() + 1e-6 * scale
            assert error <= allowed, f"number {number}: {error:.1e} of {scale:.1e}, allowed {allowed:.1e}"
            checked += want.size
    return checked


OPTIONS = list(itertools.product(CHANNELS, HEADS, (False, True), (False, True), TERMS))


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize("real", KINDS)
@pytest.mark.parametrize(("n2", "heads", "gate", "smooth", "terms"), OPTIONS)
def test_every_size(n2: int, heads: int, gate: bool, smooth: bool, terms: str, real: str) -> None:
    assert compared(Layer(COUNTS, n2, heads, gate, smooth, terms, real)) > 0
