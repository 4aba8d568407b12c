"""What several test files need: models from golden files, and differences in the project's measure."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
from cases import Golden, System, golden_cases, load_golden
from dpa2.files import ModelData, write_safetensors

#: the device that model tests run on
DEVICE = os.environ.get("DPA2_TEST_DEVICE", "cpu")

CASES = {case.name: case for case in golden_cases()}


@cache
def golden(name: str) -> Golden:
    """The golden file of the case called `name`, read once."""
    return load_golden(CASES[name])


def case_system(name: str, system: str) -> System:
    return next(s for s in golden(name).systems if s.name == system)


def model_of(case: Golden, **options: Any) -> dpa2.Model:
    """A model from the weights of a golden file, in memory."""
    options = {"precision": "float64", "threads": 1, "device": DEVICE, "on_overflow": "ignore", **options}
    return dpa2.Model(ModelData(case.config, case.weights), **options)


def model_through_file(case: Golden, folder: Path, **options: Any) -> dpa2.Model:
    """The same through a native file: what `dpa2 convert` and `dpa2.load` do."""
    path = folder / "model.safetensors"
    write_safetensors(path, ModelData(case.config, case.weights))
    options = {"precision": "float64", "threads": 1, "device": DEVICE, "on_overflow": "ignore", **options}
    return dpa2.load(path, **options)


def evaluate(model: dpa2.Model, system: System, atomic: Any = False) -> dict[str, np.ndarray]:
    """Everything that the model computes for all frames of a system, under the names of the golden files."""
    result = model.evaluate(
        system.coord, system.atype, system.box, fparam=system.fparam, aparam=system.aparam, atomic=atomic
    )
    answers = {
        "energy": np.asarray(result.energy),
        "atom_energy": result.atom_energy,
        "force": result.forces,
        "virial": result.virial,
    }
    if result.atom_virial is not None:
        answers["atom_virial"] = result.atom_virial
    return answers


def relative(value: Any, expected: Any) -> float:
    """Largest difference, relative to max(1, largest expected magnitude); infinite if a value is not finite."""
    value, expected = np.asarray(value, dtype=float), np.asarray(expected, dtype=float)
    assert value.shape == expected.shape
    if value.size == 0:
        return 0.0
    if not np.isfinite(value).all():
        return float("inf")
    return float(np.abs(value - expected).max() / max(1.0, np.abs(expected).max()))
