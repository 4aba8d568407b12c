"""Attention among the edges of a centre, in tiles: against NumPy, for any number of edges, channels and heads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from pair_formulas import SHIFT, Attention, tiles

COUNTS = (0, 1, 31, 32, 33, 48, 49, 64, 120, 200)
CHANNELS = (6, 16, 32, 64, 128)
HEADS = (1, 2, 4, 6)
UPDATES = ("g2", "both", "h2")
SHARED = 48 * 1024
KINDS = {"float": np.float32, "double": np.float64}


class Pairs:
    """The kernels on centres with these numbers of edges."""

    def __init__(
        self, counts: Sequence[int], n2: int, heads: int, gate: bool, smooth: bool, updates: str, real: str = "double",
        nsel: int = 60, device: EmulatedDevice | None = None, blocks: int = 0,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(len(counts) + 7 * n2 + heads)
        self.device = device or EmulatedDevice(seed=11, max_shared=SHARED)
        self.real, self.n2, self.heads, self.blocks = real, n2, heads, blocks or len(counts)
        self.start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self.own = [slice(a, b) for a, b in itertools.pairwise(self.start)]
        self.edges, self.most = int(self.start[-1]), max(counts)
        g2, h2 = rng.normal(size=(self.edges, n2)), rng.normal(size=(self.edges, 3))
        h2 /= np.linalg.norm(h2, axis=1, keepdims=True)
        w = rng.uniform(0.05, 1.0, self.edges) if smooth else np.ones(self.edges)
        # Values that float32 has: both precisions and the reference start from the same.
        self.inputs = [x.astype(np.float32).astype(float) for x in (g2, h2, w)]
        A, B = (rng.normal(size=(heads, n2, n2)) * scale for scale in (2 / n2, n2**-0.5))
        parts = [A, None if updates == "h2" else B, rng.normal(size=n2), None if updates == "g2" else rng.normal(size=heads)]
        parts = [None if x is None else x.astype(np.float32).astype(float) for x in parts]
        self.attention = Attention(*parts, gate, smooth, nsel)

    def seeds(self) -> list[np.ndarray]:
        rng = np.random.default_rng(3)
        there = ((self.n2, self.attention.B), (3, self.attention.h2))
        return [
            rng.normal(size=(self.edges, width)).astype(np.float32).astype(float) for width, x in there if x is not None
        ]

    def expected(self, kind: Any = float) -> list[np.ndarray]:
        """Outputs, computed in this type."""
        inputs, of = [x.astype(kind) for x in self.inputs], self.attention.cast(kind)
        parts = [of.forward(*(x[own] for x in inputs)) for own in self.own]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def expected_gradients(self, kind: Any = float) -> list[np.ndarray]:
        inputs, seeds, of = [x.astype(kind) for x in self.inputs], [x.astype(kind) for x in self.seeds()], self.attention.cast(kind)
        parts = [of.backward(*(x[own] for x in inputs), [x[own] for x in seeds]) for own in self.own]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    # ---------------------------------------------------------------------------------------- kernels

    def up(self, value: Any) -> Any:
        return None if value is None else np.ascontiguousarray(value, KINDS[self.real])

    def empty(self, *shape: int) -> Any:
        return self.device.empty(shape, KINDS[self.real])

    def _run(self, kernel: str, struct: str, scratch: int, shared: int, values: dict[str, Any]) -> None:
        most = 4 if self.real == "float" else 2
        rounds = -(-self.heads // most)
        warps = -(-self.heads // rounds)
        size, row = np.dtype(KINDS[self.real]).itemsize, 32 + (4 if self.real == "float" else 2)
        g2, h2, w = (self.up(x) for x in self.inputs)
        common = {
            "g2": g2, "h2": h2, "w": w, "start": self.start, "h2_weight": self.up(self.attention.h2), "heads": self.heads,
            "centres": len(self.own), "n2": self.n2, "gate": int(self.attention.gate),
            "shift": SHIFT if self.attention.smooth else 0,
            "scratch": self.empty(self.blocks * warps * scratch * -(-self.n2 // 32) * 1024) if scratch else None,
            "query_t": self.up(tiles(self.attention.A.transpose(0, 2, 1))),
        }  # fmt: skip
        bytes_ = size * (32 * row * (1 + shared * warps) + (1 + shared) * 128 + warps * 160)
        self.device.start("pair_attention.cu", kernel, self.blocks, 32 * warps, struct, common | values, bytes_, {"real": self.real})

    def forward(self, keep: bool = True) -> list[np.ndarray]:
        of = self.attention
        z = None if of.B is None else self.empty(self.edges, self.n2)
        dh = None if of.h2 is None else self.empty(self.edges, 3)
        self.top, self.inv_sum = (self.empty(self.edges, self.heads) if keep else None for _ in range(2))
        one_tile = self.n2 <= 32 and self.most <= 32
        values = {
            "z": z, "dh": dh, "top": self.top, "inv_sum": self.inv_sum, "nsel": of.nsel if of.smooth else 0,
            "value": None if of.B is None else self.up(tiles(of.B)), "bias": self.up(of.bias),
        }  # fmt: skip
        self._run("pair_attention", "PairAttentionArgs", 0 if one_tile else 2, 1, values)
        return [x for x in (z, dh) if x is not None]

    def backward(self) -> list[np.ndarray]:
        """What is added to arrays of ones."""
        of, seeds = self.attention, [self.up(x) for x in self.seeds()]
        found = [np.ones_like(self.up(x)) for x in self.inputs]
        values = {
            "dg2": found[0], "dh2": found[1], "dw": found[2], "top": self.top, "inv_sum": self.inv_sum, "most": self.most,
            "dz": None if of.B is None else seeds[0], "ddh": None if of.h2 is None else seeds[-1], "query": self.up(tiles(of.A)),
            "value_t": None if of.B is None else self.up(tiles(of.B.transpose(0, 2, 1))),
        }  # fmt: skip
        one_tile = self.n2 <= 32 and self.most <= 32
        self._run("pair_attention_backward", "PairAttentionBackwardArgs", 1 if one_tile else 4, 2, values)
        return found


def assert_close(found: Sequence[Any], wanted: Sequence[Any], single: Sequence[Any], real: str) -> None:
    """float64: to rounding; float32: no worse than the formula itself in float32."""
    for got, want, rough in zip(found, wanted, single, strict=True):
        if want.size == 0:
            continue
        assert np.isfinite(got).all()
        scale = np.abs(want).max()
        error = np.abs(got - want).max()
        allowed = 1e-12 * scale if real == "double" else 3 * np.abs(rough - want).max() + 1e-6 * scale
        assert error <= allowed, f"{error:.1e} of {scale:.1e}, allowed {allowed:.1e}"


def check(pairs: Pairs) -> None:
    assert_close(pairs.forward(), pairs.expected(), pairs.expected(np.float32), pairs.real)
    wanted, single = pairs.expected_gradients(), pairs.expected_gradients(np.float32)
    found = [x.astype(float) - 1 for x in pairs.backward()]
    assert_close(found, wanted, single, pairs.real)


OPTIONS = list(itertools.product(CHANNELS, HEADS, (False, True), (False, True), UPDATES))


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize("real", KINDS)
@pytest.mark.parametrize(("n2", "heads", "gate", "smooth", "updates"), OPTIONS)
def test_every_size(n2: int, heads: int, gate: bool, smooth: bool, updates: str, real: str) -> None:
    check(Pairs(COUNTS, n2, heads, gate, smooth, updates, real))
