"""The first blocks on the emulated device: environment, repinit, three-body block and the repformer's edges, and back.

Forward against the reference, the gradient of every edge vector against the reference's exact derivative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from dpa2.compress import chosen
from dpa2.files import ModelData
from entry_checks import REPINIT, assert_right, small
from entry_kernels import EntryKernels, draw_edges, reference
from helpers import golden, relative

slow = pytest.mark.slow
COUNTS = [[3, 0, 7, 36]]  # one centre has more neighbours than any tile
QUICK = ("base", "strip", "odd", "one_side_strip")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=slow) for n in REPINIT])
def test_options_of_repinit(name: str) -> None:
    assert_right(*small(repinit=REPINIT[name]), draw_edges(2, COUNTS), narrow=name == "odd")


@pytest.mark.parametrize(
    "options",
    [
        {"descriptor": {"smooth": False}, "repinit": {"tebd_input_mode": "strip"}},
        {"descriptor": {"env_protection": 0.1}, "davg": 0.3},
        {"descriptor": {"smooth": False}, "davg": 0.3, "davg_vector": True, "repinit": {"tebd_input_mode": "strip"}},
        {"davg": 0.3, "davg_vector": True, "repinit": {"type_one_side": True}},
        {"repformer": {"direct_dist": True, "g2_dim": 37, "activation_function": "silu"}},
        {"repformer": {"direct_dist": True}, "descriptor": {"smooth": False}},
    ],
    ids=["rough", "protection", "rough_padded", "padded_one_side", "direct", "direct_rough"],
)
def test_options_of_the_environment(options: Any) -> None:
    assert_right(*small(**options), draw_edges(3, COUNTS))


@pytest.mark.parametrize("mode", ["concat", "strip"])
def test_frames(mode: str) -> None:
    """Several systems: padded slots have the type of each one's first atom."""
    config, weights = small(davg=0.3, davg_vector=True, repinit={"tebd_input_mode": mode})
    edges = draw_edges(4, [[3, 5], [0, 34], [1, 0]])
    edges.types[::2] = [0, 2, 1]
    assert_right(config, weights, edges)


def test_ghosts() -> None:
    """Neighbours that are no centres."""
    assert_right(*small(davg=0.3), draw_edges(5, [[9, 4, 0]], ghosts=40))


def test_no_edges() -> None:
    assert_right(*small(davg=0.3), draw_edges(6, [[0, 0]]))


@pytest.mark.parametrize(
    ("lanes", "precision"),
    [(4, "double"), pytest.param(8, "double", marks=slow), pytest.param(32, "double", marks=slow),
     pytest.param(64, "double", marks=slow),
     pytest.param(4, "float", marks=slow), pytest.param(8, "float", marks=slow), pytest.param(16, "float", marks=slow),
     pytest.param(32, "float", marks=slow), pytest.param(64, "float", marks=slow), (128, "float")],
)  # fmt: skip
def test_lanes(lanes: int, precision: str) -> None:
    """However many scalars a block takes at a time."""
    options: Any = {"repinit": {"tebd_input_mode": "strip"}} if lanes in (8, 32) else {}
    assert_right(*small(**options), draw_edges(7, COUNTS), precision, lanes=lanes, narrow=lanes in (8, 64, 128))


@pytest.mark.parametrize("precision", ["double", pytest.param("float", marks=slow)])
def test_work_in_global_memory(precision: str) -> None:
    """Fewer blocks than centres."""
    assert_right(
        *small(davg=0.3), draw_edges(8, COUNTS), precision, lanes=128 // (8 if precision == "double" else 4), scratch=3
    )


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 31, 32, 33, 64, 65, 120])
@pytest.mark.parametrize("padded", [False, True])
def test_tiles_of_neighbours(n: int, padded: bool) -> None:
    options = {"davg": 0.3, "davg_vector": True} if padded else {}
    assert_right(*small(repinit={"three_body_neuron": [3]}, **options), draw_edges(n, [[n, 2]]), lanes=32)


@pytest.mark.parametrize(
    ("width", "precision", "lanes"),
    [pytest.param(100, "double", {8, 16}, marks=slow), pytest.param(120, "float", {16, 32}, marks=slow),
     pytest.param(240, "double", {4, 8}, marks=slow),
     pytest.param(800, "float", {4, 32}, marks=slow), pytest.param(900, "double", {16}, marks=slow)],
)  # fmt: skip
def test_wide_networks(width: int, precision: str, lanes: set[int]) -> None:
    """What fits into shared memory is taken, and where nothing does, the channels are in global memory."""
    config, weights = small(repinit={"neuron": [width // 2, width], "three_body_neuron": [width, width // 2]})
    kernels = assert_right(config, weights, draw_edges(9, [[5, 2]]), precision)
    assert {form[1] for form in kernels.forms} == lanes
    assert any(form[2] for form in kernels.forms) == (width >= 800)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("base", marks=slow),
        pytest.param("strip", marks=slow),
        "davg_strip",
        pytest.param("one_side_strip", marks=slow),
        pytest.param("first_layer_skip", marks=slow),
        pytest.param("three_body_skip_strip", marks=slow),
    ],
)
def test_models_of_deepmd_kit(name: str) -> None:
    case = golden(name)
    assert_right(case.config, case.weights, draw_edges(10, COUNTS, len(case.config["type_map"])))


@pytest.mark.filterwarnings("ignore:the file does not say how close")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("base", marks=slow),
        "davg_strip",
        pytest.param("davg_rough", marks=slow),
        pytest.param("one_side", marks=slow),
    ],
)
def test_compressed_models(name: str) -> None:
    """Against the reference, which reads the same tables."""
    case = golden(name)
    data = chosen(ModelData(case.config, case.weights), 1e-3)
    edges = draw_edges(10, COUNTS, len(case.config["type_map"]))
    assert_right(data.config, data.weights, edges)
    exact = reference(case.config, case.weights, edges, edges.d)["D"]
    assert relative(reference(data.config, data.weights, edges, edges.d)["D"], exact) > 1e-9, "the tables were not read"


@slow
def test_one_answer_whatever_the_schedule() -> None:
    """Blocks and threads in any order, bit by bit the same."""
    config, weights = small(davg=0.3, davg_vector=True, repinit={"tebd_input_mode": "strip"})
    edges = draw_edges(12, COUNTS)
    seen = set()
    for seed in (None, 1, 2, 3):
        for scratch in (0, 2):
            kernels = EntryKernels(config, weights, EmulatedDevice(seed), "float", lanes=32, scratch=scratch)
            kernels.lists(edges, edges.d)
            out = kernels.forward()
            seeds = {name: np.sin(np.arange(value.size)).reshape(value.shape) for name, value in out.items()}
            seen.add(b"".join(value.tobytes() for value in [*out.values(), kernels.backward(seeds)]))
    assert len(seen) == 1
