"""The same numbers on any number of ranks, however space is divided, as from the Python engine."""

from __future__ import annotations

from pathlib import Path

import needs
import numpy as np
import pytest
from lammps_runs import (
    DIVISIONS,
    Answer,
    answer,
    assert_python_engine,
    difference,
    divided,
    measure,
    prepare,
    succeed,
    systems,
    systems_of,
)


def measured(folder: Path, division: str) -> dict[str, Answer]:
    """Every system of a division, in one run of LAMMPS."""
    prepare(folder)
    lines = []
    for system in systems_of(division):
        lines += divided(division, system).lines() + measure(system)
    succeed(folder, lines, DIVISIONS[division][0])
    return {system: answer(folder, system) for system in systems_of(division)}


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    return measured(tmp_path_factory.mktemp("one"), "1 rank")


def assert_one_rank(found: Answer, one: Answer) -> None:
    assert difference(found.energy, one.energy) < 1e-12
    assert difference(found.forces, one.forces) < 1e-12
    assert difference(found.pressure, one.pressure) < 1e-12
    assert difference(found.centroid, one.centroid) < 1e-12


def assert_sums(found: Answer) -> None:
    assert difference(found.atom_energy.sum(), found.energy) < 1e-12
    whole = -found.pressure * found.volume
    scale = max(1.0, np.abs(found.stress).sum())
    assert np.abs(found.stress.sum(axis=0) - whole).max() <= 1e-12 * scale
    assert np.abs(found.centroid[:, :6].sum(axis=0) - whole).max() <= 1e-12 * scale
    assert np.abs(found.forces.sum(axis=0)).max() <= 1e-12 * max(1.0, np.abs(found.forces).sum())


@pytest.mark.parametrize("division", needs.mostly_slow(DIVISIONS, {"2 ranks"}))
def test_division_of_space(tmp_path: Path, one_rank: dict[str, Answer], division: str) -> None:
    """Against the Python engine (1e-10), one rank (1e-12), and the sums over atoms (1e-12)."""
    answers = measured(tmp_path, division)
    assert len(answers) >= len(systems()) - 1
    for system, found in answers.items():
        assert_python_engine(found, system)
        assert_one_rank(found, one_rank[system])
        assert_sums(found)
