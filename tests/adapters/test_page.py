"""The examples of docs/adapters.md run as they stand."""

from __future__ import annotations

from pathlib import Path

import needs
import numpy as np
import pytest
from pages import run_page


@pytest.mark.slow
def test_openmm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = needs.package("openmm").unit
    names = run_page("adapters.md", tmp_path, monkeypatch, "OpenMM")
    assert np.isfinite(names["energy"].value_in_unit(unit.kilojoule_per_mole))


def test_dpdata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs.package("dpdata")
    labeled = run_page("adapters.md", tmp_path, monkeypatch, "dpdata")["labeled"]
    shapes = [labeled[name].shape for name in ("energies", "forces", "virials")]
    assert shapes == [(1,), (1, 3, 3), (1, 3, 3)]


@pytest.mark.slow
def test_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs.package("sklearn")
    names = run_page("adapters.md", tmp_path, monkeypatch, "scikit-learn")
    assert names["scores"].min() > 0.5


@pytest.mark.slow
def test_phonopy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six atoms have eighteen modes, three of them of no frequency at the origin."""
    needs.package("phonopy")
    needs.package("ase")
    names = run_page("adapters.md", tmp_path, monkeypatch, "phonopy, matcalc and others through ASE")
    assert names["frequencies"].shape[1] == 18
    names["phonons"].run_qpoints([[0.0, 0.0, 0.0]])
    at_origin = np.sort(np.abs(names["phonons"].qpoints.frequencies[0]))
    assert at_origin[2] < 0.1 < 50.0 < at_origin[-1]
