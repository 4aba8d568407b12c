"""Models of other kinds from golden files, and what they compute; as `helpers` for those of energies."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import dpa2
import numpy as np
from cases import Golden, System
from helpers import model_of
from hybrid_cases import HYBRID_CASES
from kind_cases import KIND_CASES, KindCase, load_kind

CASES = {case.name: case for case in KIND_CASES}
#: models of hybrid descriptors, which are in no list of the others
HYBRIDS = {case.name: case for case in HYBRID_CASES}
#: those with derivatives
WITH_FORCES = tuple(case.name for case in KIND_CASES if "force" in case.answers)
COMBINATIONS = tuple(case.name for case in KIND_CASES if case.children)

__all__ = [
    "CASES",
    "COMBINATIONS",
    "HYBRIDS",
    "WITH_FORCES",
    "KindCase",
    "frames",
    "kind",
    "kind_model",
    "outputs",
    "system_of",
]


@cache
def kind(name: str) -> Golden:
    """The golden file of the case called `name`, read once."""
    return load_kind(HYBRIDS[name] if name in HYBRIDS else CASES[name])


def kind_model(name: str, isotropic: bool = False, **options: Any) -> dpa2.Model:
    """The model of a case, in memory; `isotropic`: with statistics that know no direction, as those of real models."""
    data = kind(name)
    return model_of(without_directions(data) if isotropic else data, **options)


def without_directions(data: Golden) -> Golden:
    """One dstd for the three components of vectors, and no davg for them."""
    weights = {key: value.copy() for key, value in data.weights.items()}
    for key, value in weights.items():
        if "descriptor." in key and key.endswith(".stddev"):
            value[:, 2:] = value[:, 1:2]
        elif "descriptor." in key and key.endswith(".mean"):
            value[:, 1:] = 0.0
    return replace(data, weights=weights)


def system_of(name: str, system: str) -> System:
    return next(s for s in kind(name).systems if s.name == system)


def frames(system: System) -> list[dict[str, Any]]:
    """The frames of a system one by one, as arguments of `Model.evaluate`."""
    given = {"box": system.box, "fparam": system.fparam, "aparam": system.aparam}
    return [
        {"coords": coords, "types": system.atype, **{key: v[f] for key, v in given.items() if v is not None}}
        for f, coords in enumerate(system.coord)
    ]


def outputs(model: dpa2.Model, frame: dict[str, Any], atomic: Any = False, **changes: Any) -> dict[str, np.ndarray]:
    """What a model says of a frame, by deepmd-kit's names."""
    found = model.evaluate(**{**frame, **changes}, atomic=atomic).outputs
    return {name: np.asarray(value) for name, value in found.items()}
