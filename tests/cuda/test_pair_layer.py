"""The pair channel of a layer, by both paths: against NumPy, for any number of edges, channels and heads."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from cuda_emulator.build import SOURCES
from cuda_emulator.sanitize import run
from pair_cases import SHARED, UPDATES, Pairs, bits, compared, covering
from pair_kernels import KINDS

COUNTS = (0, 1, 31, 32, 33, 48, 49, 64, 120, 200)
CHANNELS = (6, 16, 32, 64, 128)
HEADS = (1, 2, 4, 6)


OPTIONS = list(itertools.product(CHANNELS, HEADS, (False, True), (False, True), UPDATES))


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("real", KINDS)
@pytest.mark.parametrize(("n2", "heads", "gate", "smooth", "updates"), OPTIONS)
def test_every_size(n2: int, heads: int, gate: bool, smooth: bool, updates: str, real: str, general: bool) -> None:
    assert compared(Pairs(COUNTS, n2, heads, gate, smooth, updates, real, general)) > 0


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
@pytest.mark.parametrize(("n2", "real"), [(20, "float"), (40, "float"), (20, "double")])
def test_it_does_not_matter_who_takes_a_centre(n2: int, real: str, smooth: bool) -> None:
    """With a block per centre, with fewer that take one or four at once, and in other orders."""
    counts = (3, 33, 0, 5, 40, 1, 32, 2, 0, 34, 4, 0, 6, 1, 2, 35, 36, 3, 0, 7, 1, 2, 3, 1, 1, 33)
    found = []
    for blocks, seed in ((0, None), (20, 1), (3, None), (3, 2), (3, 3), (1, None)):
        device = EmulatedDevice(seed=seed, max_shared=SHARED)
        pairs = Pairs(counts, n2, 2, False, smooth, "both", real, blocks=blocks, device=device)
        found.append(bits(pairs.forward(), pairs.gradients()))
    assert all(other == found[0] for other in found)
    assert compared(Pairs(counts, n2, 2, False, smooth, "both", real, blocks=3)) > 0


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
def test_gradients_are_those_of_the_forward(
    smooth: bool, gate: bool, counts: tuple[int, ...], n2: int, general: bool
) -> None:
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
from pathlib import Path
from cuda_emulator import EmulatedDevice
from pair_cases import Pairs, Rows

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
        ("pair_general_backward.cuh", BLOCK, 0),
        ("pair_general_backward.cuh", BLOCK, 1),
        ("pair_general_backward.cuh", WARP, 7),
        ("pair_rows.cuh", WARP, 0),
        ("pair_centres.cuh", BLOCK, 0),
        ("pair_centres.cuh", BLOCK, 2),
    ],
)
def test_a_removed_barrier_is_a_race(tmp_path: Path, source: str, barrier: str, occurrence: int) -> None:
    done = sanitized("thread", mutated(tmp_path, source, barrier, "", occurrence))
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.cuda
def test_a_write_out_of_bounds_is_found(tmp_path: Path) -> None:
    old = "sums[to] = of_queries()[to]"
    done = sanitized("address", mutated(tmp_path, "pair_general_backward.cuh", old, "sums[4000] = of_queries()[to]", 0))
    assert "ERROR: AddressSanitizer" in done.stderr, done.stderr[-3000:]  # beyond the block, or beyond its memory
    assert "pair_general_backward.cuh:" in done.stderr
