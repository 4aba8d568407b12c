"""A whole model under the sanitizers, and mistakes in its kernels that must be found.

The sanitizers see each kernel in more sizes beside its other tests.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from cuda_emulator.build import SOURCES
from cuda_emulator.driver import driver
from cuda_emulator.sanitize import mutate, run
from gpu_models import emulate, everything

CODE = """
from pathlib import Path
from cuda_emulator.driver import use_here
use_here(sanitizer={sanitizer!r}, sources=Path({sources!r}))
from gpu_models import everything
everything(device="cuda")
"""


def sanitized(sanitizer: str, sources: Path) -> Any:
    """``sources``: the folder above the kernels."""
    needs.sanitizer(sanitizer)
    return run(CODE.format(sanitizer=sanitizer, sources=str(sources)), sanitizer, timeout=1200.0)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_nothing_is_found(sanitizer: str) -> None:
    done = sanitized(sanitizer, SOURCES)
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.mark.filterwarnings("ignore::dpa2.ClosePairWarning")
def test_one_answer_whatever_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and threads in any order, bit by bit the same: races between blocks show in nothing else."""
    emulate(monkeypatch)
    wanted, answers = everything(device="cpu"), []
    try:
        for seed in (None, 1, 2, 3):
            driver().set_seed(seed)
            answers.append(everything(device="cuda"))
    finally:
        driver().set_seed(None)
    for name, value in wanted.items():
        np.testing.assert_allclose(answers[0][name], value, rtol=1e-9, atol=1e-9, err_msg=name)
        assert len({answer[name].tobytes() for answer in answers}) == 1, name


BLOCK, WARP = "__syncthreads();", "__syncwarp(FULL_MASK);"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "barrier", "occurrence"),
    [
        ("messages.cu", BLOCK, 0),
        ("g1g1.cu", BLOCK, 5),
        ("local_attention.cu", BLOCK, 3),
        ("pair_general.cuh", BLOCK, 2),
        ("repinit_series.cu", WARP, 2),
        ("three_body_pairs.cuh", WARP, 5),
        ("prefix_sums.cu", BLOCK, 0),
        ("product.cuh", BLOCK, 0),
    ],
)
def test_a_removed_barrier_is_a_race(tmp_path: Path, source: str, barrier: str, occurrence: int) -> None:
    done = sanitized("thread", mutate(tmp_path, source, barrier, "", occurrence).parent)
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stderr[-3000:]
    assert f"{source}:" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        ("local_attention.cu", "probability[TILE * warp + lane] = p;", "probability[129 + lane] = p;"),
    ],
)
def test_a_write_out_of_bounds_is_found(tmp_path: Path, source: str, old: str, new: str) -> None:
    done = sanitized("address", mutate(tmp_path, source, old, new).parent)
    assert re.search(r"AddressSanitizer|runtime error: index \d+ out of bounds", done.stderr), done.stderr[-3000:]
    assert f"{source}:" in done.stderr


def test_a_wrong_mask_is_a_deadlock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a warp waits for all of it: the model's evaluation says which kernel, and where."""
    emulate(monkeypatch)
    old = "for (int step = 16; step > 0; step /= 2) v +="
    folder = mutate(tmp_path, "block.cuh", old, f"if (threadIdx.x % 32 < 16) {old}", 1)
    monkeypatch.setenv("DPA2_CUDA_SOURCES", str(folder.parent))
    try:
        with pytest.raises(dpa2.Error, match=r"deadlock in block (.|\n)*__shfl_xor_sync \(mask 0xffffffff\)"):
            everything(device="cuda")
    finally:
        driver().repair()
