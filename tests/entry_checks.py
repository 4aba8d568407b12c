"""What tests of the first blocks on the emulated device check, and the options that they go through."""

from __future__ import annotations

from typing import Any

import numpy as np
from cuda_emulator import EmulatedDevice
from entry_kernels import EntryKernels, reference
from helpers import relative
from random_model import random_model

STEP = 1e-30
#: relative errors of the forward and of the gradient
BOUNDS = {"double": (1e-13, 1e-12), "float": (2e-5, 2e-4)}


def small(seed: int = 1, **options: Any) -> tuple[Any, Any]:
    """A model that has everything, unless options say otherwise."""
    options.setdefault("ntypes", 3)
    return random_model(np.random.default_rng(seed), **options)


def assert_right(
    config: Any, weights: Any, edges: Any, precision: str = "double", seed: int = 11, **form: Any
) -> EntryKernels:
    kernels = EntryKernels(config, weights, EmulatedDevice(seed), precision, **form)
    kernels.lists(edges, edges.d)
    found, want = kernels.forward(), reference(config, weights, edges, edges.d)
    forward, backward = BOUNDS[precision]
    for name in ("D", "g2", "h2", "w"):
        assert found[name].shape == want[name].shape
        assert relative(found[name], want[name]) <= forward, name
    if kernels.n3:
        assert relative(found["D"][:, -kernels.n3 :], want["D"][:, -kernels.n3 :]) <= forward, "three_body"
    rng = np.random.default_rng(5)
    for only in ("D", "three_body", "g2", "h2", "w"):  # one at a time: a large one must not hide a small one
        seeds = {name: np.zeros(value.shape) for name, value in want.items()}
        if only == "three_body":
            if not kernels.n3:
                continue
            scale = 1.0 / max(1e-30, np.abs(want["D"][:, -kernels.n3 :]).max())
            seeds["D"][:, -kernels.n3 :] = scale * rng.normal(size=(edges.centres, kernels.n3))
        else:
            seeds[only] = rng.normal(size=want[only].shape)
            if only == "D":
                seeds["D"][:, kernels.nd - kernels.n3 :] = 0
        gamma = kernels.backward(seeds)
        for _ in range(2):
            direction = rng.normal(size=edges.d.shape)
            moved = reference(config, weights, edges, edges.d + 1j * STEP * direction)
            slope = sum(float((seeds[name] * np.imag(moved[name])).sum()) / STEP for name in moved)
            scale = max(np.abs(gamma * direction).sum(), 1e-3)
            assert abs(float((gamma * direction).sum()) - slope) <= backward * scale, only
    return kernels


REPINIT: dict[str, Any] = {
    "base": {},
    "strip": {"tebd_input_mode": "strip"},
    "resnet_dt": {"resnet_dt": True, "neuron": [4, 4, 8]},
    "one_side": {"type_one_side": True, "neuron": [5]},
    "one_side_strip": {"type_one_side": True, "tebd_input_mode": "strip", "neuron": [1, 2, 4, 4]},
    "odd": {"neuron": [3, 7, 14, 13], "axis_neuron": 5, "three_body_neuron": [3]},
    "silut": {"activation_function": "silut:1.0"},
    "gelu": {"activation_function": "gelu", "three_body_neuron": [4, 4]},
    "no_three_body": {"use_three_body": False},
}
