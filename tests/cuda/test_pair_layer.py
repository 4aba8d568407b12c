"""The pair channel of a layer, by both paths: against NumPy, for any number of edges, channels and heads."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from cuda_emulator.build import SOURCES
from cuda_emulator.sanitize import run
from pair_formulas import Attention, PairLayer, Update
from pair_kernels import GENERAL, KINDS, PairKernels

COUNTS = (0, 1, 31, 32, 33, 48, 49, 64, 120, 200)
CHANNELS = (6, 16, 32, 64, 128)
HEADS = (1, 2, 4, 6)
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
            defines=GENERAL if general else None,
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


OPTIONS = list(itertools.product(CHANNELS, HEADS, (False, True), (False, True), UPDATES))


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("real", KINDS)
@pytest.mark.parametrize(("n2", "heads", "gate", "smooth", "updates"), OPTIONS)
def test_every_size(
    n2: int, heads: int, gate: bool, smooth: bool, updates: str, real: str, general: bool
) -> None:
    assert compared(Pairs(COUNTS, n2, heads, gate, smooth, updates, real, general)) > 0


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


QUICK = covering([(*row, real, general) for row in OPTIONS for real in KINDS for general in (False, True)])


@pytest.mark.cuda
@pytest.mark.parametrize(("n2", "heads", "gate", "smooth", "updates", "real", "general"), QUICK)
def test_sizes(n2: int, heads: int, gate: bool, smooth: bool, updates: str, real: str, general: bool) -> None:
    counts = (0, 1, 31, 32, 33, 49, 120) if n2 < 128 else (1, 32, 33)
    assert compared(Pairs(counts, n2, heads, gate, smooth, updates, real, general)) > 0


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
    found = [bits(p.forward(), p.gradients()) for p in pairs]
    assert found[0] == found[1]


@pytest.mark.cuda
@pytest.mark.parametrize("real", KINDS)
def test_without_g1g1(real: str) -> None:
    assert compared(Pairs((3, 33), 16, 2, True, True, "both", real, g1g1=False)) > 0


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
    assert np.isfinite(pairs.forward()["out"]).all()
    if real == "double":
        assert compared(pairs) > 0


@pytest.mark.cuda
@pytest.mark.parametrize(("counts", "n2", "general"), [((3, 20), 8, False), ((3, 20), 8, True), ((34, 2), 40, True)])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("smooth", [False, True])
def test_gradients_are_those_of_the_forward(smooth: bool, gate: bool, counts: tuple[int, ...], n2: int, general: bool) -> None:
    """Central differences of fourth order of the kernel itself: the shift of the logits bends sharply."""
    pairs = Pairs(counts, n2, 2, gate, smooth, "both", general=general)
    rng, seeds, step = np.random.default_rng(77), pairs.seeds(), 1e-4
    found = pairs.gradients()
    places: dict[str, Any] = dict(zip(("g2", "h2", "w", "U"), (*pairs.inputs, pairs.U), strict=True))
    if not smooth:
        del places["w"]
    for name, value in places.items():
        direction, kept = rng.normal(size=value.shape), value.copy()
        difference = 0.0
        for steps, factor in ((1, 2 / 3), (2, -1 / 12)):
            for sign in (1, -1):
                value += sign * steps * step * direction
                moved = sum(float((seeds[which] * out).sum()) for which, out in pairs.forward().items())
                difference += sign * factor * moved / step
                value[...] = kept
        assert (found[name] * direction).sum() == pytest.approx(difference, rel=1e-7, abs=1e-7), name


@pytest.mark.parametrize("updates", UPDATES)
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("gate", [False, True])
def test_formulas(gate: bool, smooth: bool, updates: str) -> None:
    """The backward in NumPy against complex steps of its forward."""
    pairs = Pairs((7,), 6, 2, gate, smooth, updates)
    found, seeds, rng = pairs.expected_gradients(), pairs.seeds(), np.random.default_rng(8)
    inputs = dict(zip(("g2", "h2", "w", "U"), (*pairs.inputs, pairs.U), strict=True))
    for name, value in inputs.items():
        direction = rng.normal(size=value.shape)
        out = pairs.layer.forward(*(inputs | {name: value + 1e-30j * direction}).values())
        wanted = sum((seeds[which] * x.imag).sum() / 1e-30 for which, x in out.items())
        assert (found[name] * direction).sum() == pytest.approx(wanted, rel=1e-11), name


@pytest.mark.cuda
@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("real", KINDS)
def test_same_bits_whatever_the_schedule(real: str, general: bool) -> None:
    seen = set()
    for seed in (None, 1, 2, 3):
        device = EmulatedDevice(seed=seed, max_shared=SHARED)
        pairs = Pairs((0, 3, 33, 70), 40 if general else 20, 5, True, True, "both", real, general, device=device)
        seen.add(b"".join(bits(pairs.forward(), pairs.gradients())))
    assert len(seen) == 1


# ------------------------------------------------------------------------------------------- sanitizers

CODE = """
import sys
sys.path.insert(0, "cuda")
from pathlib import Path
from cuda_emulator import EmulatedDevice
from test_pair_layer import Pairs
from test_pair_update import Rows

sources = Path({sources!r})
for real in ("float", "double"):
    device = EmulatedDevice({seed}, {sanitizer!r}, sources)
    for counts, n2, heads in (((3, 0, 32), 7, 2), ((33, 2), 32, 4), ((5, 40), 40, 3)):
        for general in (False, True):
            pairs = Pairs(counts, n2, heads, True, True, "both", real, general, device=device)
            pairs.forward()
            pairs.gradients()
        rows = Rows(40, n2, True, real, device=device)
        rows.forward()
        rows.backward(rows.seeds)
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


BLOCK, WARP = "__syncthreads();", "__syncwarp();"


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize(
    ("source", "barrier", "occurrence"),
    [
        ("pair_general.cuh", BLOCK, 1),
        ("pair_general.cuh", BLOCK, 3),
        ("pair_general.cuh", WARP, 3),
        ("pair_general_backward.cuh", BLOCK, 1),
        ("pair_general_backward.cuh", BLOCK, 4),
        ("pair_general_backward.cuh", WARP, 7),
        ("pair_rows.cuh", WARP, 0),
    ],
)
def test_a_removed_barrier_is_a_race(tmp_path: Path, source: str, barrier: str, occurrence: int) -> None:
    done = sanitized("thread", mutated(tmp_path, source, barrier, "", occurrence))
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.cuda
def test_a_write_out_of_bounds_is_found(tmp_path: Path) -> None:
    old = "sums[4 * (lane_column() + 8 * s) + lane_row()] = own[s]"
    done = sanitized("address", mutated(tmp_path, "pair_general_backward.cuh", old, "sums[4000] = own[s]", 0))
    assert "ERROR: AddressSanitizer" in done.stderr, done.stderr[-3000:]  # beyond the block, or beyond its memory
    assert "pair_general_backward.cuh:" in done.stderr
