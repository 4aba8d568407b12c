"""The first blocks and the assembly under the sanitizers, and mistakes in them that must be found."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import needs
import pytest
from cuda_emulator.sanitize import run

SOURCES = Path(__file__).resolve().parents[2] / "src" / "cuda"
EVALUATION = """
from pathlib import Path
import sys
import numpy as np
sys.path.insert(0, "cuda")
from cuda_emulator import EmulatedDevice
from entry_kernels import EntryKernels, draw_edges
from random_model import random_model
from test_assemble import CASES, Case

def evaluate(sanitizer, folder, **form):
    repinit = dict(neuron=[4, 9], axis_neuron=3, tebd_input_mode="strip", three_body_neuron=[3, 5])
    model = random_model(np.random.default_rng(1), ntypes=2, repinit=repinit, davg=0.3, davg_vector=True)
    edges = draw_edges(3, [[38, 0, 5]], ntypes=2, ghosts=2)
    edges.d[edges.start[2]] *= 0.1 / np.sqrt((edges.d[edges.start[2]] ** 2).sum())  # series leave it to the networks
    kernels = EntryKernels(*model, EmulatedDevice(None, sanitizer, sources=Path(folder)), **form)
    kernels.lists(edges, edges.d)
    out = kernels.forward()
    gamma = kernels.backward({name: np.ones(value.shape) for name, value in out.items()})
    assert all(np.isfinite(value).all() for value in [*out.values(), gamma])

def assemble(sanitizer, folder):
    for name in CASES:
        case = Case(CASES[name], "double")
        case.device = EmulatedDevice(None, sanitizer, sources=Path(folder))
        case.totals(case.assemble()[1])
"""
FORMS: dict[str, Any] = {
    "wide": {"lanes": 16},
    "narrow": {"lanes": 64, "narrow": True},
    "global": {"lanes": 16, "scratch": 2},
    "series": {"warps": 2},
}


def sanitized(sanitizer: str, folder: Path, call: str) -> Any:
    needs.sanitizer(sanitizer)
    return run(f"{EVALUATION}\n{call.format(repr(sanitizer), repr(str(folder)))}", sanitizer)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("form", [*FORMS, "assemble"])
def test_nothing_is_found(sanitizer: str, form: str) -> None:
    call = (
        "assemble({}, {})"
        if form == "assemble"
        else "evaluate({}, {}, **" + repr(FORMS[form]).replace("{", "{{").replace("}", "}}") + ")"
    )
    done = sanitized(sanitizer, SOURCES, call)
    assert done.returncode == 0, done.stderr[-6000:]


def mutate(folder: Path, source: str, old: str, new: str, occurrence: int = 0) -> Path:
    """A copy of the kernels in which one place of a file is another."""
    target = folder / "cuda"
    shutil.copytree(SOURCES, target)
    parts = (target / source).read_text(encoding="utf-8").split(old)
    assert len(parts) > occurrence + 1, f"{source} has changed: {old!r} is not there"
    text = old.join(parts[: occurrence + 1]) + new + old.join(parts[occurrence + 1 :])
    (target / source).write_text(text, encoding="utf-8")
    return target


def of_mistake(source: str) -> str:
    """The evaluation that comes to a kernel."""
    of_networks = ("repinit.cu", "three_body.cu", "embedding_net.cuh")
    return "evaluate({}, {}, scratch=1)" if source in of_networks else "evaluate({}, {}, warps=2)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "barrier", "occurrence"),
    [
        ("repinit.cu", "__syncthreads();", 0),
        ("repinit.cu", "__syncthreads();", 4),
        ("three_body.cu", "__syncthreads();", 1),
        ("three_body.cu", "__syncthreads();", 4),
        ("embedding_net.cuh", "__syncthreads();", 3),
        ("embedding_net.cuh", "__syncthreads();", 5),
        ("repinit_tile.cuh", "__syncwarp(FULL_MASK);", 2),
        ("repinit_series.cu", "__syncwarp(FULL_MASK);", 2),
        ("three_body_pairs.cuh", "__syncwarp(FULL_MASK);", 2),
        ("three_body_pairs.cuh", "__syncwarp(FULL_MASK);", 5),
        ("embedding_warp.cuh", "__syncwarp(FULL_MASK);", 0),
        ("embedding_warp.cuh", "__syncwarp(FULL_MASK);", 1),
    ],
)
def test_a_removed_barrier_is_a_race(tmp_path: Path, source: str, barrier: str, occurrence: int) -> None:
    done = sanitized("thread", mutate(tmp_path, source, barrier, "", occurrence), of_mistake(source))
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        ("repinit.cu", "sw[e] = weight;", "sw[e + 9000] = weight;"),
        ("three_body.cu", "const int place = j * PAIR_ROW + k;", "const int place = j * PAIR_ROW + k + 9000;"),
        ("repinit_tile.cuh", "edge[at[q]] = lane", "edge[at[q] + 9000] = lane"),
        ("three_body_series.cu", "de[p - first] = of_e;", "de[p - first + 9000] = of_e;"),
    ],
)
def test_a_write_out_of_bounds_is_found(tmp_path: Path, source: str, old: str, new: str) -> None:
    done = sanitized("address", mutate(tmp_path, source, old, new), of_mistake(source))
    assert "AddressSanitizer" in done.stderr, done.stderr[-3000:]
    assert f"{source}:" in done.stderr
