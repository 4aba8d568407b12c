"""Small models and structures for the tests of the Python API, and the devices that they run on."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from dpa2.files import ModelData, write_safetensors
from dpa2.model import Model
from random_model import random_model

DEVICES = [
    pytest.param("cpu", marks=needs.native),
    "reference",
]
TYPES = np.array([0, 1, 1, 2, 0])
SYMBOLS = ["O", "H", "H", "C", "O"]
COORDS = np.array([[0.1, 0.0, 0.2], [1.0, 0.1, 0.0], [-0.3, 0.9, 0.3], [1.6, 1.7, 1.1], [0.2, 2.1, 3.0]])
BOX = np.array([[4.4, 0.0, 0.0], [0.5, 4.8, 0.0], [-0.3, 0.6, 5.1]])


@functools.cache
def model_data(nf: int = 0, na: int = 0, default: tuple[float, ...] | None = None, nsel: int = 80) -> ModelData:
    """A model of O, H and C that takes ``nf`` frame and ``na`` atomic parameters."""
    config, weights = random_model(
        np.random.default_rng(7),
        repinit={"neuron": [3, 6], "nsel": nsel, "three_body_sel": min(40, nsel - 1)},
        repformer={"nlayers": 2, "g1_dim": 6, "g2_dim": 4, "nsel": min(40, nsel - 1)},
        fitting={
            "neuron": [5, 5],
            "numb_fparam": nf,
            "numb_aparam": na,
            "default_fparam": None if default is None else list(default),
        },
    )
    return ModelData(config, weights)


@functools.cache
def make_model(device: str, **options: Any) -> Model:
    """The model of :func:`model_data` on a device; shared between tests, because models are immutable."""
    return Model(model_data(**options), threads=1, device=device)


def work_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder, where ``model.safetensors`` and, with parameters, ``params.safetensors`` lie; one thread."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_safetensors("model.safetensors", model_data())
    write_safetensors("params.safetensors", model_data(nf=2, na=1))


def frames(count: int, seed: int = 3) -> np.ndarray:
    """(count, 5, 3) distorted copies of ``COORDS``."""
    return COORDS + 0.1 * np.random.default_rng(seed).normal(size=(count, *COORDS.shape))


def lattice(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n^3 atoms on a distorted simple cubic lattice: 0.1 per cubic angstrom."""
    a = 0.1 ** (-1 / 3)
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    coords = a * grid + np.random.default_rng(1).normal(scale=0.1, size=grid.shape)
    return coords, np.arange(len(grid)) % 2, np.eye(3) * n * a
