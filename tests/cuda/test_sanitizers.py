"""All kernels of the model under the sanitizers, and mistakes in them that must be found.

Two atoms in a box so small that a centre has more neighbours than any kernel takes at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import needs
import pytest
from cuda_emulator.sanitize import mutate, run

SOURCES = Path(__file__).resolve().parents[2] / "src" / "cuda"
# `only` a source is launched, or all: what the others would have computed is then not a number, and nothing needs it.
EVALUATION = """
from pathlib import Path
import numpy as np
from cuda_emulator import EmulatedDevice
from dpa2.cuda.engine import CudaEngine
from dpa2.files import ModelData
from host_lists import HostLists
from random_model import random_model

class Device(EmulatedDevice):
    only = ""
    def launch(self, source, *args, **options):
        if self.only in ("", source):
            super().launch(source, *args, **options)

def evaluate(sanitizer, folder, only, seed=None, check=False):
    rng = np.random.default_rng(0)
    sizes = dict(
        repinit=dict(neuron=[4, 8], axis_neuron=2), repformer=dict(nlayers=2, g1_dim=6, g2_dim=4, update_h2=True)
    )
    data = ModelData(*random_model(rng, ntypes=2, **sizes))
    coords, types, box = rng.normal(size=(2, 3)), np.array([0, 1], np.int32), np.eye(3) * 1.8 + 0.1
    device = Device(seed, sanitizer, sources=Path(folder))
    device.only = only
    engine = CudaEngine(data, "float64", device, HostLists(device, data.config))
    with np.errstate(all="ignore"):
        found = engine.evaluate_arrays(coords, types, box, (True, True, True))
    if check:
        assert all(np.isfinite(found[name]).all() for name in ("energy", "forces", "virial"))
    return b"".join(found[name].tobytes() for name in ("energy", "forces", "virial"))
"""


def sanitized(sanitizer: str, folder: Path, only: str = "", check: bool = False) -> Any:
    needs.sanitizer(sanitizer)
    return run(f"{EVALUATION}\nevaluate({sanitizer!r}, {str(folder)!r}, {only!r}, check={check})", sanitizer)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_nothing_is_found(sanitizer: str) -> None:
    done = sanitized(sanitizer, SOURCES, check=True)
    assert done.returncode == 0, done.stderr[-6000:]


def test_one_answer_whatever_the_schedule() -> None:
    """Blocks and threads in any order, bit by bit the same: races between blocks show in nothing else."""
    scope: dict[str, Any] = {}
    exec(EVALUATION, scope)
    assert len({scope["evaluate"]("", str(SOURCES), "", seed, True) for seed in (None, 1, 2, 3, 4)}) == 1


BARRIER = "__syncthreads();"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "occurrence"),
    [("conv.cu", 0), ("g1g1.cu", 0), ("local_attention.cu", 1), ("pair_attention.cu", 3)],
)
def test_a_removed_barrier_is_a_race(tmp_path: Path, source: str, occurrence: int) -> None:
    done = sanitized("thread", mutate(tmp_path, source, BARRIER, "", occurrence), source)
    assert "WARNING: ThreadSanitizer: data race" in done.stderr, done.stderr[-3000:]
    assert f"{source}:" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        ("pair_attention.cu", "S[k * ld + j] = value;", "S[k * ld + j + 1000] = value;"),
    ],
)
def test_a_write_out_of_bounds_is_found(tmp_path: Path, source: str, old: str, new: str) -> None:
    done = sanitized("address", mutate(tmp_path, source, old, new), source)
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr, done.stderr[-3000:]
    assert f"{source}:" in done.stderr


def test_a_wrong_mask_is_a_deadlock(tmp_path: Path) -> None:
    old = "for (int step = 16; step > 0; step /= 2) v +="
    folder = mutate(tmp_path, "block.cuh", old, f"if (threadIdx.x % 32 < 16) {old}")
    scope: dict[str, Any] = {}
    exec(EVALUATION, scope)
    with pytest.raises(RuntimeError, match=r"deadlock in block (.|\n)*__shfl_xor_sync \(mask 0xffffffff\)"):
        scope["evaluate"]("", str(folder), "layer_norm.cu")
