"""The pair channel of centres whose edges are one tile: every number of edges, and what sanitizers see."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import needs
import pytest
from cuda_emulator import EmulatedDevice
from cuda_emulator.build import SOURCES
from cuda_emulator.sanitize import mutate, run
from pair_cases import SHARED, UPDATES, Pairs, bits, compared, covering
from pair_kernels import KINDS

COUNTS = tuple(range(33))
CHANNELS = (6, 12, 16, 32)
HEADS = (1, 2, 4, 6)
TERMS = list(itertools.product((False, True), (False, True), UPDATES, (False, True)))
OPTIONS = list(itertools.product(CHANNELS, HEADS, TERMS, KINDS))


def layer(
    counts: Sequence[int], n2: int, heads: int, terms: tuple[Any, ...], real: str, seed: int | None = 11, **more: Any
) -> Pairs:
    """``terms``: with the gate, smooth, what is updated, with g1g1."""
    gate, smooth, updates, g1g1 = terms
    device = EmulatedDevice(seed=seed, max_shared=SHARED)
    return Pairs(counts, n2, heads, gate, smooth, updates, real, nsel=30, device=device, g1g1=g1g1, **more)


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize(("n2", "heads", "terms", "real"), OPTIONS)
def test_every_number_of_edges(n2: int, heads: int, terms: tuple[Any, ...], real: str) -> None:
    assert compared(layer(COUNTS, n2, heads, terms, real)) > 0


QUICK = covering([(n2, heads, *terms, real) for n2, heads, terms, real in OPTIONS])


@pytest.mark.cuda
@pytest.mark.parametrize("row", QUICK)
def test_numbers_of_edges(row: tuple[Any, ...]) -> None:
    """Of all numbers of groups of four rows, with and without a last group that is not full."""
    n2, heads, *terms, real = row
    assert compared(layer((0, 1, 5, 24, 25, 28, 31, 32), n2, heads, tuple(terms), real)) > 0


@pytest.mark.cuda
@pytest.mark.parametrize("heads", [3, 4])
def test_same_bits_whatever_the_schedule(heads: int) -> None:
    seen = set()
    for seed, blocks in ((None, 0), (1, 0), (2, 2), (3, 1)):
        one = layer((0, 3, 32, 27), 32, heads, (True, True, "both", True), "float", seed, blocks=blocks)
        seen.add(b"".join(bits(one.forward(), one.gradients())))
    assert len(seen) == 1


# ------------------------------------------------------------------------------------------- sanitizers

CODE = """
import sys
sys.path.insert(0, "cuda")
from pathlib import Path
from cuda_emulator import EmulatedDevice
from pair_cases import Pairs

for real, heads, updates in {cases!r}:
    device = EmulatedDevice(None, {sanitizer!r}, Path({sources!r}))
    pairs = Pairs((27, 3, 32), 32, heads, True, True, updates, real, device=device)
    pairs.forward()
    pairs.gradients()
"""
ONCE = [("float", 4, "both")]
EVERY = [*ONCE, ("float", 6, "both"), ("float", 4, "g2"), ("float", 1, "both"), ("float", 2, "h2")]


def sanitized(sanitizer: str, sources: Path, cases: list[tuple[str, int, str]]) -> Any:
    needs.sanitizer(sanitizer)
    return run(CODE.format(sources=str(sources), sanitizer=sanitizer, cases=cases), sanitizer, timeout=1200.0)


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_nothing_is_found(sanitizer: str) -> None:
    done = sanitized(sanitizer, SOURCES / "cuda", EVERY)
    assert done.returncode == 0, done.stderr[-6000:]


BLOCK, WARP = "__syncthreads();", "__syncwarp();"


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize(
    ("source", "barrier", "occurrence"),
    [
        *(("pair_fast.cuh", BLOCK, number) for number in (0, 1, 2)),
        *(("pair_fast.cuh", WARP, number) for number in (0, 1, 2)),
        *(("pair_fast_backward.cuh", BLOCK, number) for number in (2, 3)),
        *(("pair_fast_backward.cuh", WARP, number) for number in (9, 11, 13, 17, 20, 22)),
    ],
)
def test_a_removed_barrier_is_a_race(tmp_path: Path, source: str, barrier: str, occurrence: int) -> None:
    done = sanitized("thread", mutate(tmp_path, source, barrier, "", occurrence), ONCE)
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.cuda
def test_a_write_out_of_bounds_is_found(tmp_path: Path) -> None:
    old, new = "g2 + place(t / vectors)", "g2 + 20000 + place(t / vectors)"
    folder = mutate(tmp_path, "pair_fast.cuh", old, new)
    done = sanitized("address", folder, ONCE)
    assert "ERROR: AddressSanitizer" in done.stderr, done.stderr[-3000:]
