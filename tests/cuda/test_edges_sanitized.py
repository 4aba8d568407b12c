"""Kernels over edges under the sanitizers, and mistakes in them that must be found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import needs
import pytest
from cuda_emulator.sanitize import mutate, run

SOURCES = Path(__file__).resolve().parents[2] / "src" / "cuda"
# Widths that no tile divides, several rounds of channels, two tiles of edges.
PARTS = """
import sys
from pathlib import Path
import numpy as np
sys.path.append("cuda")
from edge_graph import Graph, Run

graph = Graph((0, 37, 2))
def messages(run):
    from test_messages import Messages, Terms
    sizes = ((133, 70, Terms(fresh=True)), (9, 5, Terms("node", seed=True)), (140, 3, Terms("", root=False)),
             (128, 32, Terms()))
    for n1, n2, terms in sizes:
        yield Messages(graph, n1, n2, 3, terms, "float32")
def attention(run):
    from test_local_attention import Attention
    for n1, nh in ((133, 6), (8, 1)):
        yield Attention(graph, n1, nh, True, "float32")
def products(run):
    from test_g1g1 import G1G1
    for n1, n2 in ((133, 70), (8, 4)):
        yield G1G1(graph, n1, n2, "float32")

def main(part, sanitizer, folder):
    run = Run(graph, "float32", None, sanitizer, Path(folder))
    for op in globals()[part](run):
        seeds = {name: np.ones(value.shape) for name, value in op.forward(**op.inputs).items()}
        found = [*op.launch(run).values(), *op.backward(run, seeds).values()]
        assert all(np.isfinite(value).all() for value in found)
"""


def sanitized(part: str, sanitizer: str, folder: Path) -> Any:
    needs.sanitizer(sanitizer)
    return run(f"{PARTS}\nmain({part!r}, {sanitizer!r}, {str(folder)!r})", sanitizer)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("part", ["messages", "attention", "products"])
def test_nothing_is_found(part: str, sanitizer: str) -> None:
    done = sanitized(part, sanitizer, SOURCES)
    assert done.returncode == 0, done.stderr[-6000:]


BLOCK, WARP = "__syncthreads();", "__syncwarp();"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "source", "barrier", "occurrence"),
    [
        ("messages", "messages.cu", BLOCK, 0),
        ("messages", "messages.cu", BLOCK, 1),
        ("messages", "messages.cu", BLOCK, 2),
        ("messages", "messages.cu", BLOCK, 3),
        ("messages", "messages.cu", BLOCK, 6),
        ("messages", "messages.cu", WARP, 1),
        ("messages", "edge_sums.cuh", BLOCK, 0),
        ("messages", "edge_sums.cuh", BLOCK, 1),
        ("messages", "edge_sums.cuh", BLOCK, 2),
        ("messages", "edge_sums.cuh", BLOCK, 4),
        ("attention", "local_attention.cu", BLOCK, 3),
        ("attention", "local_attention.cu", WARP, 2),
        ("attention", "local_attention.cu", BLOCK, 6),
        ("attention", "local_attention.cu", BLOCK, 7),
        ("attention", "local_attention.cu", BLOCK, 8),
        ("attention", "local_attention.cu", BLOCK, 9),
        ("products", "g1g1.cu", BLOCK, 3),
        ("products", "g1g1.cu", BLOCK, 5),
    ],
)
def test_a_removed_barrier_is_a_race(tmp_path: Path, part: str, source: str, barrier: str, occurrence: int) -> None:
    done = sanitized(part, "thread", mutate(tmp_path, source, barrier, "", occurrence))
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "source", "old", "new"),
    [
        ("messages", "messages.cu", "store_tile<M>(slab, acc)", "store_tile<M>(slab + TILE * ROW, acc)"),
        ("messages", "messages.cu", "real number[AT_ONCE * FACTORS]", "real number[30 * FACTORS]"),
        ("attention", "local_attention.cu", "probability[TILE * warp + lane] = p;", "probability[129 + lane] = p;"),
        ("products", "g1g1.cu", "weight[TILE]", "weight[8]"),
    ],
)
def test_a_write_out_of_bounds_is_found(tmp_path: Path, part: str, source: str, old: str, new: str) -> None:
    done = sanitized(part, "address", mutate(tmp_path, source, old, new, 0))
    assert re.search(r"AddressSanitizer|runtime error: index \d+ out of bounds", done.stderr), done.stderr[-3000:]
    assert f"{source}:" in done.stderr
