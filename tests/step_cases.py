"""Learning rates, optimizers and layouts of checkpoints, declared once: deepmd-kit is asked, the tests compare."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import numpy as np
import training_cases as training

FILE = training.TRAINING / "steps.json"


def _schedules() -> list[tuple[dict[str, Any], int]]:
    """Sections and numbers of steps, of every kind and option."""
    exp: list[dict[str, Any]] = [
        {"type": "exp", "decay_steps": interval, "smooth": smooth, **rate}
        for interval, smooth, rate in itertools.product((1, 7, 5000), (False, True), ({}, {"decay_rate": 0.93}))
    ]
    wsd: list[dict[str, Any]] = [
        {"type": "wsd", "decay_type": form, "decay_phase_ratio": ratio}
        for form, ratio in itertools.product(("inverse_linear", "cosine", "linear"), (0.001, 0.3, 1.0))
    ]
    stops: list[dict[str, Any]] = [{"stop_lr": 3e-6}, {"stop_lr_ratio": 0.07}]
    warmups: list[dict[str, Any]] = [{}, {"warmup_steps": 3, "warmup_start_factor": 0.1}, {"warmup_ratio": 0.4}]
    kinds = [*exp, {"type": "cosine"}, *wsd]
    combined = [
        ({"start_lr": 0.0013, **kind, **stop, **warmup}, total)
        for kind, stop, warmup, total in itertools.product(kinds, stops, warmups, (9, 1700))
    ]
    published = {"start_lr": 0.001, "stop_lr": 3.51e-8, "type": "exp", "decay_steps": 5000, "warmup_steps": 0}
    return [*combined, (published, 1_000_000)]


SCHEDULES = _schedules()


def moments(total: int) -> list[int]:
    """Steps at which a schedule is looked at."""
    return sorted({0, 1, 3, total // 3, 3 * total // 5, total - 1, total})


#: type, precision, weight decay and bound of the norm, by name
OPTIMIZERS: dict[str, tuple[str, str, float, float]] = {
    f"{kind} {dtype} {decay:g} {bound:g}": (kind, dtype, decay, bound)
    for kind, dtype, decay, bound in itertools.product(
        ("Adam", "AdamW"), ("float64", "float32"), (0.0, 0.02), (0.0, 3.0)
    )
}
STEPS = 12
#: of the averages
FADING = 0.8
_SHAPES = {"a": (30, 41), "b": (3,), "c": (5, 5), "d": (181, 190)}


def first(dtype: str) -> dict[str, np.ndarray]:
    """Parameters before the first step."""
    return {name: training.wave(f"first {name}", shape).astype(dtype) for name, shape in _SHAPES.items()}


def gradient(step: int, dtype: str) -> dict[str, np.ndarray]:
    """The gradient of a step; a parameter has none in some of them."""
    size = 4.0 / (1 + step)
    return {
        name: (size * training.wave(f"gradient {name} {step}", shape)).astype(dtype)
        for name, shape in _SHAPES.items()
        if name != "b" or step % 3
    }


def rate(step: int) -> float:
    """The learning rate of a step."""
    return 0.01 * 0.9**step


def compact(tensors: list[tuple[str, list[int], str, bool]]) -> list[int]:
    """How many tensors a state has, how many of them are parameters, and a number that all names and facts decide."""
    text = "\n".join(f"{name} {shape} {dtype} {parameter}" for name, shape, dtype, parameter in tensors)
    return [len(tensors), sum(parameter for *_, parameter in tensors), zlib.crc32(text.encode())]
