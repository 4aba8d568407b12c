"""The pair channel of centres whose edges are several tiles, in float: part-filled tiles, and what sanitizers see."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import needs
import pytest
from cuda_emulator import EmulatedDevice
from cuda_emulator.build import SOURCES
from cuda_emulator.sanitize import mutate, run
from pair_cases import SHARED, UPDATES, Pairs, bits, compared, covering

#: last tiles of one to eight groups of four rows, whose last is full or not; and more tiles than two
COUNTS = (33, 34, 36, 37, 40, 41, 45, 48, 51, 56, 60, 63, 64, 65, 72, 73, 96, 97, 100, 130)
FEW = (33, 36, 48, 64, 65, 100)
CHANNELS = (4, 12, 16, 20, 28, 32)
HEADS = (1, 2, 3, 4, 5)
OPTIONS = list(itertools.product(CHANNELS, HEADS, (False, True), (False, True), UPDATES, (False, True)))


def layer(counts: tuple[int, ...], row: tuple[Any, ...], seed: int | None = 11, **more: Any) -> Pairs:
    """``row``: channels, heads, with the gate, smooth, what is updated, with g1g1."""
    device = EmulatedDevice(seed=seed, max_shared=SHARED)
    return Pairs(counts, *row[:5], "float", device=device, g1g1=row[5], **more)


@pytest.mark.slow
@pytest.mark.cuda
@pytest.mark.parametrize("row", OPTIONS)
def test_every_number_of_edges(row: tuple[Any, ...]) -> None:
    assert compared(layer(COUNTS, row)) > 0


@pytest.mark.cuda
@pytest.mark.parametrize("row", covering(OPTIONS))
def test_numbers_of_edges(row: tuple[Any, ...]) -> None:
    assert compared(layer(FEW, row)) > 0


@pytest.mark.cuda
@pytest.mark.parametrize("nsel", [0, 33, 34, 40, 2000])
def test_padded_slots(nsel: int) -> None:
    """Slots that no edge has take part in the softmax; with more edges than slots there are none."""
    assert compared(layer((33, 38), (8, 2, False, True, "both", True), nsel=nsel)) > 0


@pytest.mark.cuda
@pytest.mark.parametrize("most", [33, 64, 65, 250])
def test_scratch_is_made_for_the_largest(most: int) -> None:
    """Centres of one tile beside centres of many, in blocks that take both."""
    assert compared(layer((5, most, 32, 0, 33, 1), (12, 3, True, True, "both", True), blocks=2)) > 0


@pytest.mark.cuda
@pytest.mark.parametrize("heads", [3, 4, 5])
def test_same_bits_whatever_the_schedule(heads: int) -> None:
    seen = set()
    for seed, blocks in ((None, 0), (1, 0), (2, 2), (3, 1)):
        one = layer((33, 3, 70, 64, 36), (32, heads, True, True, "both", True), seed, blocks=blocks)
        seen.add(b"".join(bits(one.forward(), one.gradients())))
    assert len(seen) == 1


# ------------------------------------------------------------------------------------------- sanitizers

CODE = """
import sys
sys.path.insert(0, "cuda")
from pathlib import Path
from cuda_emulator import EmulatedDevice
from pair_cases import Pairs

for n2, heads, updates in {cases!r}:
    device = EmulatedDevice(None, {sanitizer!r}, Path({sources!r}))
    pairs = Pairs((36, 3, 70), n2, heads, True, True, updates, "float", device=device, blocks=2)
    pairs.forward()
    pairs.gradients()
"""
ONCE = [(32, 4, "both")]
EVERY = [*ONCE, (16, 5, "both"), (12, 4, "g2"), (32, 1, "both"), (4, 2, "h2")]


def sanitized(sanitizer: str, sources: Path, cases: list[tuple[int, int, str]]) -> Any:
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
        *(("pair_tiled.cuh", BLOCK, number) for number in (1, 2, 3, 4, 5)),
        *(("pair_tiled.cuh", WARP, number) for number in (1, 3, 4)),
        *(("pair_tiled_backward.cuh", BLOCK, number) for number in (0, 1, 2, 3, 4)),
    ],
)
def test_a_removed_barrier_is_a_race(tmp_path: Path, source: str, barrier: str, occurrence: int) -> None:
    done = sanitized("thread", mutate(tmp_path, source, barrier, "", occurrence), ONCE)
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.cuda
def test_a_write_out_of_bounds_is_found(tmp_path: Path) -> None:
    old = "scratch.sums() + y * 32"
    done = sanitized("address", mutate(tmp_path, "pair_tiled_backward.cuh", old, f"{old} - 64"), ONCE)
    assert "ERROR: AddressSanitizer" in done.stderr, done.stderr[-3000:]
