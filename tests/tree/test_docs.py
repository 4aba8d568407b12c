"""The pages of docs/ about Python keep what they say: their examples run as they stand, one after the other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import needs
import numpy as np
import pytest

pytest.importorskip("ase", reason=needs.reason("ase"))

from dpa2 import deepmd
from dpa2.ase import DPA2Calculator
from dpa2.files.kinds import _REFUSED_FITTINGS, _REFUSED_PARTS
from dpa2.files.schema import section
from pages import ROOT, run_page


def test_ase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_page("ase.md", tmp_path, monkeypatch)
    assert len(names["vibrations"].get_frequencies()) == 9
    assert {image.calc.model for image in names["images"]} == {names["model"]}
    text = (ROOT / "docs" / "ase.md").read_text(encoding="utf-8")
    for name in DPA2Calculator.implemented_properties:
        assert f"`{name}`" in text


def test_deepmd_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_page("deepmd-python.md", tmp_path, monkeypatch)
    assert [names[name].shape for name in ("energy", "force", "virial")] == [(1, 1), (1, 3, 3), (1, 9)]
    assert names["descriptor"].shape[:2] == (1, 3)
    text = (ROOT / "docs" / "deepmd-python.md").read_text(encoding="utf-8")
    kinds = [getattr(deepmd, name) for name in deepmd.__all__]
    public = {name for kind in kinds for name in dir(kind) if not name.startswith("_")}
    public -= set(dir(DPA2Calculator)) - set(dir(deepmd.DeepPot))  # of the calculator what it adds
    assert "get_observed_types" in public
    assert [name for name in [*deepmd.__all__, *sorted(public - {"close"})] if f"`{name}`" not in text] == []


def test_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "tests" / "golden" / "spin" / "files" / "spin" / "model.pt", tmp_path / "magnetic.pt")
    names = run_page("kinds.md", tmp_path, monkeypatch)
    assert names["magnetic"].magnetic_forces.any(axis=1).tolist() == [True, False, False]
    assert names["magnetic"].mask_mag.tolist() == [True, False, False]
    assert names["result"].energy is None
    assert {name: array.shape for name, array in names["result"].outputs.items()} == {
        "global_dipole": (3,),
        "dipole": (3, 3),
        "force": (3, 3, 3),
        "virial": (3, 9),
        "mask": (3,),
    }
    text = (ROOT / "docs" / "kinds.md").read_text(encoding="utf-8")
    kinds = section("fitting_net")["type"].choices
    described = re.findall(r"^\| `\w+` \| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(described) == sorted(kinds)
    for name in (*_REFUSED_FITTINGS, *_REFUSED_PARTS):
        assert f"`{name}`" in text


def test_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_page("training.md", tmp_path, monkeypatch)
    assert names["found"]["gradient"][names["name"]].ndim == 2
    assert set(names["found"]["parts"]) == {"rmse", "rmse_e", "rmse_f"}
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for word in ("e", "f", "v", "ae", "pf", "gf", "dos", "cdf", "ados", "acdf"):
        assert f"`{word}`" in text


@pytest.mark.slow
def test_example_of_dynamics(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "ase_md.py"), "--steps", "10", "--relax", "3"]
    printed = subprocess.run([*command, "--output", "md.extxyz"], cwd=tmp_path, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    lines = np.array([line.split() for line in printed.stdout.splitlines()[1:]], dtype=float)
    assert lines[:, 0].tolist() == [0.0, 5.0]
    assert np.abs(lines[:, 2] / 192 + 155.97).max() < 0.03
    assert (tmp_path / "md.extxyz").read_text().count("Lattice=") == 2
