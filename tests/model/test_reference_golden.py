"""The reference against the recorded answers of deepmd-kit."""

from __future__ import annotations

from typing import Any

import needs
import numpy as np
import pytest
from cases import ModelCase, System, golden_cases, load_golden
from dpa2.reference import ReferenceModel

CASES = golden_cases()
#: the derivatives of these alone are looked at in a quick run
RANDOM = {case.name for case in CASES if case.name.startswith("random_")}


def assert_same_result(got: Any, expected: Any, tolerance: float) -> None:
    expected = np.asarray(expected).reshape(np.shape(got))
    assert np.abs(got - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


def frames(system: System) -> list[tuple[int, tuple[Any, ...], tuple[Any, ...]]]:
    out = []
    for f, coords in enumerate(system.coord):
        box = None if system.box is None else system.box[f]
        parameters = tuple(None if value is None else value[f] for value in (system.fparam, system.aparam))
        out.append((f, (coords, system.atype, box, (box is not None,) * 3), parameters))
    return out


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_descriptor_and_energy(case: ModelCase) -> None:
    golden = load_golden(case)
    model = ReferenceModel(golden.config, golden.weights)
    for system in golden.systems:
        for f, structure, parameters in frames(system):
            descriptor, rotation, _ = model.descriptor(*structure, rot_mat=True)
            assert descriptor.shape[1] == model.descriptor_dim
            energy = model.energy(*structure, *parameters)
            assert_same_result(descriptor, system.expected["descriptor"][f], case.tolerance)
            assert_same_result(rotation, system.expected["rot_mat"][f], case.tolerance)
            assert_same_result(energy, system.expected["atom_energy"][f], case.tolerance)
            assert_same_result(energy.sum(), system.expected["energy"][f], case.tolerance)


@pytest.mark.parametrize(
    "case", needs.mostly_slow(CASES, RANDOM, lambda case: case.name), ids=[case.name for case in CASES]
)
def test_forces_and_virials_of_the_smallest_system(case: ModelCase) -> None:
    golden = load_golden(case)
    model = ReferenceModel(golden.config, golden.weights)
    system = min(golden.systems, key=lambda entry: len(entry.atype))
    f, structure, parameters = frames(system)[0]
    result = model.evaluate(*structure, *parameters, atomic=2 if len(system.atype) <= 3 else 0)
    assert_same_result(result["force"], system.expected["force"][f], case.tolerance)
    assert_same_result(result["virial"], system.expected["virial"][f], case.tolerance)
    if "atom_virial" in result:
        assert_same_result(result["atom_virial"], system.expected["atom_virial"][f], case.tolerance)
