"""Layers of the pair channel with random numbers, and what their kernels find against NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cuda_emulator import EmulatedDevice
from pair_formulas import Attention, PairLayer, Update
from pair_kernels import GENERAL, PairKernels

UPDATES = ("g2", "both", "h2")
SHARED = 48 * 1024


class Pairs(PairKernels):
    """The kernels on centres with these numbers of edges; ``general``: by the path for any number of them."""

    def __init__(
        self, counts: Sequence[int], n2: int, heads: int, gate: bool, smooth: bool, updates: str, real: str = "double",
        general: bool = False, nsel: int = 60, device: EmulatedDevice | None = None, blocks: int = 0, g1g1: bool = True,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(len(counts) + 7 * n2 + heads)
        start = np.concatenate([[0], np.cumsum(counts)])
        self.own = [slice(a, b) for a, b in itertools.pairwise(start)]
        self.edges = int(start[-1])
        g2, h2, U = (rng.normal(size=(self.edges, width)) for width in (n2, 3, n2))
        h2 /= np.linalg.norm(h2, axis=1, keepdims=True)
        w = rng.uniform(0.05, 1.0, self.edges) if smooth else np.ones(self.edges)
        # Values that float32 has: both precisions and the reference start from the same.
        inputs = [x.astype(np.float32).astype(float) for x in (g2, h2, w, U)]
        A, B = (rng.normal(size=(heads, n2, n2)) * scale for scale in (2 / n2, n2**-0.5))
        bias, weight = rng.normal(size=n2), rng.normal(size=heads)
        has_g2, has_h2 = updates != "h2", updates != "g2"
        of = Attention(A, B if has_g2 else None, bias, weight if has_h2 else None, gate, smooth, nsel)
        w, b, r, gain, shift = (rng.normal(size=shape) for shape in ((n2, n2), n2, (3, n2), n2, n2))
        update = Update(w * n2**-0.5, b, r, gain, shift, 0.75, 0.5, 1.25, 2.0**-10)
        layer = PairLayer(of, update).cast(np.float32).cast(float)
        device = device or EmulatedDevice(seed=11, max_shared=SHARED)
        super().__init__(
            *(device, real, start, layer, inputs[:3], inputs[3] if g1g1 else None, blocks),
            defines=GENERAL if general and real == "float" else None,  # in double there is no other path
        )

    def seeds(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(3)
        return {
            name: rng.normal(size=(self.edges, width)).astype(np.float32).astype(float)
            for name, width in (("out", self.n2), ("h2", 3))
        }

    def gradients(self) -> dict[str, np.ndarray]:
        """That of w has been added to a number of its size, so that float32 rounds neither away."""
        begin = float(2.0 ** np.floor(np.log2(np.abs(self.expected_gradients()["w"]).max(initial=1e-30))))
        found = {name: x.astype(float) for name, x in self.backward(self.seeds(), begin).items()}
        found["w"] -= begin
        return found

    def _each(self, kind: Any, of: Any) -> dict[str, np.ndarray]:
        """of(the layer, the edges of a centre and their g2, h2, w and U), of all centres, in this type."""
        layer = self.layer.cast(kind)
        inputs = [None if x is None else x.astype(kind) for x in (*self.inputs, self.U)]
        parts = [of(layer, own, [None if x is None else x[own] for x in inputs]) for own in self.own]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def expected(self, kind: Any = float) -> dict[str, np.ndarray]:
        """Outputs, computed in this type."""
        return self._each(kind, lambda layer, own, x: layer.forward(*x))

    def expected_gradients(self, kind: Any = float) -> dict[str, np.ndarray]:
        seeds = {name: x.astype(kind) for name, x in self.seeds().items()}

        def of(layer: PairLayer, own: slice, x: list[Any]) -> dict[str, Any]:
            return layer.backward(*x[:3], {name: seed[own] for name, seed in seeds.items()})

        return self._each(kind, of)


def assert_close(found: Mapping[str, Any], wanted: Mapping[str, Any], single: Mapping[str, Any], real: str) -> None:
    """float64: to rounding; float32: no worse than the formula itself in float32."""
    for name, got in found.items():
        want, rough = wanted[name], single[name]
        if want.size == 0:
            continue
        assert np.isfinite(got).all(), name
        scale = np.abs(want).max()
        error = np.abs(got - want).max()
        allowed = 1e-12 * scale if real == "double" else 3 * np.abs(rough - want).max() + 1e-6 * scale
        assert error <= allowed, f"{name}: {error:.1e} of {scale:.1e}, allowed {allowed:.1e}"


def compared(pairs: Pairs) -> int:
    """How many numbers of the outputs and gradients were right."""
    assert_close(pairs.forward(), pairs.expected(), pairs.expected(np.float32), pairs.real)
    found, wanted = pairs.gradients(), pairs.expected_gradients()
    assert_close(found, wanted, pairs.expected_gradients(np.float32), pairs.real)
    return sum(value.size for value in found.values())


def bits(*found: Mapping[str, np.ndarray]) -> list[bytes]:
    return [x.tobytes() for each in found for x in each.values()]


def covering(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Some of the rows, such that any two values of any two columns that occur together do so in one of them."""

    def pairs(row: tuple[Any, ...]) -> set[Any]:
        return set(itertools.combinations(enumerate(row), 2))

    missing, chosen = set().union(*map(pairs, rows)), []
    while missing:
        # of equals the smallest: sizes are in ascending order
        best = max(rows, key=lambda row: len(pairs(row) & missing))
        missing -= pairs(best)
        chosen.append(best)
    return chosen


class Rows(PairKernels):
    """The kernels on rows of ``edges`` edges, in arrays that have room for some more."""

    def __init__(
        self, edges: int, n2: int, g1g1: bool, real: str, seed: int | None = 11, device: EmulatedDevice | None = None
    ) -> None:
        device = device or EmulatedDevice(seed=seed, max_shared=48 * 1024)
        rng = np.random.default_rng(100 * edges + n2)

        def draw(*shape: int) -> Any:
            return rng.normal(size=shape).astype(np.float32).astype(float)

        update = Update(draw(n2, n2) * 0.25, draw(n2), draw(3, n2), draw(n2), draw(n2), 0.75, 0.5, 1.25, 2.0**-10)
        inputs, U = [draw(edges, n2), draw(edges, 3), draw(edges)], draw(edges, n2)
        self.seeds = {"out": draw(edges, n2), "h2": draw(edges, 3)}
        super().__init__(
            *(device, real, [0, edges // 3, edges], PairLayer(None, update), inputs, U if g1g1 else None), room=70
        )
