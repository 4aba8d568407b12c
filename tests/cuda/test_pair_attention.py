"""Attention among the edges of a centre, in tiles: against NumPy, for any number of edges, channels and heads."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from cuda_emulator.build import SOURCES
from cuda_emulator.sanitize import run
from pair_formulas import Attention
from pair_kernels import KINDS, PairKernels

COUNTS = (0, 1, 31, 32, 33, 48, 49, 64, 120, 200)
CHANNELS = (6, 16, 32, 64, 128)
HEADS = (1, 2, 4, 6)
UPDATES = ("g2", "both", "h2")
SHARED = 48 * 1024


class Pairs(PairKernels):
    """The kernels on centres with these numbers of edges."""

    def __init__(
        self, counts: Sequence[int], n2: int, heads: int, gate: bool, smooth: bool, updates: str, real: str = "double",
        nsel: int = 60, device: EmulatedDevice | None = None, blocks: int = 0,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(len(counts) + 7 * n2 + heads)
        start = np.concatenate([[0], np.cumsum(counts)])
        self.own = [slice(a, b) for a, b in itertools.pairwise(start)]
        self.edges = int(start[-1])
        g2, h2 = rng.normal(size=(self.edges, n2)), rng.normal(size=(self.edges, 3))
        h2 /= np.linalg.norm(h2, axis=1, keepdims=True)
        w = rng.uniform(0.05, 1.0, self.edges) if smooth else np.ones(self.edges)
        # Values that float32 has: both precisions and the reference start from the same.
        inputs = [x.astype(np.float32).astype(float) for x in (g2, h2, w)]
        A, B = (rng.normal(size=(heads, n2, n2)) * scale for scale in (2 / n2, n2**-0.5))
        bias, weight = rng.normal(size=n2), rng.normal(size=heads)
        has_g2, has_h2 = updates != "h2", updates != "g2"
        of = Attention(A, B if has_g2 else None, bias, weight if has_h2 else None, gate, smooth, nsel)
        device = device or EmulatedDevice(seed=11, max_shared=SHARED)
        super().__init__(device, real, start, of.cast(np.float32).cast(float), inputs, blocks)

    def seeds(self) -> list[np.ndarray]:
        rng = np.random.default_rng(3)
        there = ((self.n2, self.attention.B), (3, self.attention.h2))
        return [
            rng.normal(size=(self.edges, width)).astype(np.float32).astype(float) for width, x in there if x is not None
        ]

    def gradients(self) -> list[np.ndarray]:
        """What has been added to numbers of the size of the gradients, so that float32 rounds neither away."""
        begin = [2.0 ** np.floor(np.log2(np.abs(x).max(initial=1e-30))) for x in self.expected_gradients()]
        found = self.backward(self.seeds(), begin)
        return [x.astype(float) - number for x, number in zip(found, begin, strict=True)]

    def expected(self, kind: Any = float) -> list[np.ndarray]:
        """Outputs, computed in this type."""
        inputs, of = [x.astype(kind) for x in self.inputs], self.attention.cast(kind)
        parts = [of.forward(*(x[own] for x in inputs)) for own in self.own]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def expected_gradients(self, kind: Any = float) -> list[np.ndarray]:
        inputs, of = [x.astype(kind) for x in self.inputs], self.attention.cast(kind)
        seeds = [x.astype(kind) for x in self.seeds()]
        parts = []
        for own in self.own:
            g2, h2, w = (x[own] for x in inputs)
            parts.append(of.backward(g2, h2, w, [x[own] for x in seeds]))
        return [np.concatenate(part) for part in zip(*parts, strict=True)]


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


def compared(pairs: Pairs) -> int:
    """How many numbers of the outputs and gradients were right."""
    assert_close(pairs.forward(), pairs.expected(), pairs.expected(np.float32), pairs.real)
    wanted, single = pairs.expected_gradients(), pairs.expected_gradients(np.float32)
    assert_close(pairs.gradients(), wanted, single, pairs.real)
    return sum(value.size for value in wanted)


OPTIONS = list(itertools.product(CHANNELS, HEADS, (False, True), (False, True), UPDATES))


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize("real", KINDS)
@pytest.mark.parametrize(("n2", "heads", "gate", "smooth", "updates"), OPTIONS)
def test_every_size(n2: int, heads: int, gate: bool, smooth: bool, updates: str, real: str) -> None:
    assert compared(Pairs(COUNTS, n2, heads, gate, smooth, updates, real)) > 0


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


QUICK = covering([(*row, real) for row in OPTIONS for real in KINDS])


@pytest.mark.cuda
@pytest.mark.parametrize(("n2", "heads", "gate", "smooth", "updates", "real"), QUICK)
def test_sizes(n2: int, heads: int, gate: bool, smooth: bool, updates: str, real: str) -> None:
    assert (
        compared(
            Pairs((0, 1, 31, 32, 33, 49, 120) if n2 < 128 else (1, 32, 33), n2, heads, gate, smooth, updates, real)
        )
        > 0
    )


@pytest.mark.cuda
@pytest.mark.parametrize("real", KINDS)
@pytest.mark.parametrize(
    ("counts", "n2", "heads"), [((5, 0, 32, 1), 32, 4), ((3, 20), 12, 12), ((40, 2), 32, 5), ((6,), 256, 3)]
)
def test_uneven_sizes(counts: tuple[int, ...], n2: int, heads: int, real: str) -> None:
    """One tile without scratch, more heads than warps, warps without a head, and as many channels as any model has."""
    assert compared(Pairs(counts, n2, heads, True, True, "both", real)) > 0


@pytest.mark.cuda
@pytest.mark.parametrize("smooth", [False, True])
def test_blocks_take_centres_in_turns(smooth: bool) -> None:
    counts = (3, 33, 0, 5, 40, 1, 32, 2)
    pairs = [Pairs(counts, 40, 2, False, smooth, "both", blocks=blocks) for blocks in (0, 3)]
    found = [[*p.forward(), *p.gradients()] for p in pairs]
    assert [x.tobytes() for x in found[0]] == [x.tobytes() for x in found[1]]


@pytest.mark.cuda
def test_without_a_gradient_nothing_is_kept() -> None:
    pairs = Pairs((3, 33), 16, 2, True, True, "both")
    kept = pairs.forward()
    assert [x.tobytes() for x in pairs.forward(keep=False)] == [x.tobytes() for x in kept]


@pytest.mark.cuda
@pytest.mark.parametrize("nsel", [0, 4, 7, 2000])
def test_padded_slots(nsel: int) -> None:
    """More edges than slots (a list that was cut elsewhere) have no padding."""
    assert compared(Pairs((1, 5, 7), 8, 2, False, True, "both", nsel=nsel)) > 0


@pytest.mark.cuda
@pytest.mark.parametrize("real", KINDS)
@pytest.mark.parametrize("gate", [False, True])
def test_scores_beyond_the_exponential(gate: bool, real: str) -> None:
    """The largest logit moves from tile to tile, and others are far below it."""
    pairs = Pairs((70, 5), 16, 2, gate, False, "both", real)
    pairs.inputs[0] *= np.linspace(1, 16, 75)[:, None].astype(np.float32)
    z, *_ = pairs.forward()
    assert np.isfinite(z).all()
    if real == "double":
        assert compared(pairs) > 0


@pytest.mark.cuda
@pytest.mark.parametrize(("counts", "n2"), [((3, 20), 8), ((34, 2), 40)])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
def test_gradients_are_those_of_the_forward(smooth: bool, gate: bool, counts: tuple[int, ...], n2: int) -> None:
    """Central differences of fourth order of the kernel itself: the shift of the logits bends sharply."""
    pairs = Pairs(counts, n2, 2, gate, smooth, "both")
    rng, seeds, step = np.random.default_rng(77), pairs.seeds(), 1e-4
    pairs.forward()
    found = pairs.gradients()
    for number in range(3 if smooth else 2):
        value = pairs.inputs[number]
        direction = rng.normal(size=value.shape)
        difference = 0.0
        for steps, factor in ((1, 2 / 3), (2, -1 / 12)):
            for sign in (1, -1):
                pairs.inputs[number] = value + sign * steps * step * direction
                moved = sum(float((seed * out).sum()) for seed, out in zip(seeds, pairs.forward(), strict=True))
                difference += sign * factor * moved / step
        pairs.inputs[number] = value
        assert (found[number] * direction).sum() == pytest.approx(difference, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("gate", [False, True])
def test_formulas(gate: bool, smooth: bool) -> None:
    """The backward in NumPy against complex steps of its forward."""
    pairs = Pairs((7,), 6, 2, gate, smooth, "both")
    found, rng = pairs.expected_gradients(), np.random.default_rng(8)
    for number, value in enumerate(pairs.inputs):
        direction = rng.normal(size=value.shape)
        moved = [x + 1e-30j * direction if k == number else x for k, x in enumerate(pairs.inputs)]
        out = pairs.attention.forward(*moved)
        wanted = sum((seed * x.imag).sum() / 1e-30 for seed, x in zip(pairs.seeds(), out, strict=True))
        assert (found[number] * direction).sum() == pytest.approx(wanted, rel=1e-11)


@pytest.mark.cuda
@pytest.mark.parametrize("real", KINDS)
def test_same_bits_whatever_the_schedule(real: str) -> None:
    seen = set()
    for seed in (None, 1, 2, 3):
        device = EmulatedDevice(seed=seed, max_shared=SHARED)
        pairs = Pairs((0, 3, 33, 70), 40, 5, True, True, "both", real, device=device)
        seen.add(b"".join(x.tobytes() for x in [*pairs.forward(), *pairs.gradients()]))
    assert len(seen) == 1


# ------------------------------------------------------------------------------------------- sanitizers

CODE = """
import sys
sys.path.insert(0, "cuda")
from pathlib import Path
from cuda_emulator import EmulatedDevice
from test_pair_attention import Pairs
from test_pair_update import Rows

sources = Path({sources!r})
for real in ("float", "double"):
    for counts, n2, heads in (((3, 0, 32), 7, 2), ((33, 2), 32, 4), ((5, 40), 40, 3)):
        device = EmulatedDevice({seed}, {sanitizer!r}, sources)
        pairs = Pairs(counts, n2, heads, True, True, "both", real, device=device)
        pairs.forward()
        pairs.gradients()
        rows = Rows(40, n2, "Uzh", real)
        rows.device = EmulatedDevice({seed}, {sanitizer!r}, sources)
        rows.forward()
        rows.backward()
"""


def sanitized(sanitizer: str, sources: Path) -> Any:
    needs.sanitizer(sanitizer)
    return run(CODE.format(sources=str(sources), sanitizer=sanitizer, seed=None), sanitizer)


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_nothing_is_found(sanitizer: str) -> None:
    done = sanitized(sanitizer, SOURCES / "cuda")
    assert done.returncode == 0, done.stderr[-6000:]


def mutated(folder: Path, source: str, old: str, new: str, occurrence: int) -> Path:
    """A copy of the kernels in which one place of a file is another."""
    shutil.copytree(SOURCES / "cuda", folder / "cuda")
    path = folder / "cuda" / source
    parts = path.read_text(encoding="utf-8").split(old)
    assert len(parts) > occurrence + 1, f"{source} has changed: {old!r} is not there"
    path.write_text(old.join(parts[: occurrence + 1]) + new + old.join(parts[occurrence + 1 :]), encoding="utf-8")
    return folder / "cuda"


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize(
    ("barrier", "occurrence"),
    [
        ("__syncthreads();", 1),
        ("__syncthreads();", 3),
        ("__syncthreads();", 8),
        ("__syncwarp();", 7),
        ("__syncwarp();", 14),
    ],
)
def test_a_removed_barrier_is_a_race(tmp_path: Path, barrier: str, occurrence: int) -> None:
    done = sanitized("thread", mutated(tmp_path, "pair_attention.cu", barrier, "", occurrence))
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.cuda
def test_a_write_out_of_bounds_is_found(tmp_path: Path) -> None:
    done = sanitized(
        "address", mutated(tmp_path, "pair_attention.cu", "sums + 4 * (lane_column() + 8 * s)", "sums + 400", 0)
    )
    assert "ERROR: AddressSanitizer" in done.stderr, done.stderr[-3000:]  # beyond the block, or beyond its memory
    assert "pair_attention.cu:" in done.stderr
