"""Parity plots and the page of `--map`: the figures and the colours in them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, SYMBOLS, TYPES, frames, make_model, work_in
from cli_runs import run_command
from dpa2.data import Frame, write_frame
from dpa2.maps import _energies
from dpa2.plots import Agreement, Parity, crowding


def test_agreement_of_parts_is_that_of_the_whole() -> None:
    """Also far from zero, where sums of squares lose their digits."""
    rng = np.random.default_rng(5)
    labels = rng.normal(size=900) - 4.0e7
    predictions = labels + rng.normal(scale=0.3, size=900)
    found = Agreement()
    for part in np.split(np.arange(900), [0, 10, 500]):
        found.add(labels[part], predictions[part])
    away = predictions - labels
    assert found.count == 900
    assert found.mae == pytest.approx(np.abs(away).mean(), rel=1e-12)
    assert found.rmse == pytest.approx(np.sqrt(np.mean(away**2)), rel=1e-12)
    assert found.r2 == pytest.approx(1.0 - np.sum(away**2) / np.sum((labels - labels.mean()) ** 2), rel=1e-9)
    lines = found.lines("eV/Å").split("\n")
    assert lines[0] == "N 900"
    assert [line.split()[0] for line in lines] == ["N", "MAE", "RMSE", "R²"]
    assert lines[1].endswith(" eV/Å")


def test_agreement_without_a_spread() -> None:
    found = Agreement()
    found.add(np.ones(1), np.full(1, 3.0))
    assert found.lines("eV") == "N 1\nMAE 2 eV\nRMSE 2 eV"


def test_crowding_counts_neighbours() -> None:
    points = np.array([[0.0, 0.0], [0.01, 0.0], [0.5, 0.5], [1.0, 1.0], [0.0, 0.01]])
    assert crowding(points, (0.0, 1.0)).tolist() == [3.0, 3.0, 1.0, 1.0, 3.0]


@pytest.mark.parametrize(("natoms", "coloured"), [(20, False), (400, True)])
def test_many_points_show_their_density(natoms: int, coloured: bool, tmp_path: Path) -> None:
    """A bar of colours stands beside the forces; the figures count all numbers."""
    image = needs.package("matplotlib.image")
    rng = np.random.default_rng(1)
    parity = Parity()
    for _ in range(2):
        forces = rng.normal(size=(natoms, 3))
        frame = Frame(np.zeros((natoms, 3)), np.zeros(natoms, dtype=np.int32), None, forces=forces)
        result: Any = SimpleNamespace(forces=forces + 0.3 * rng.normal(size=forces.shape))
        parity.add(frame, result)
    assert parity._agreement["force"].count == 6 * natoms
    parity.draw(str(tmp_path / "parity.png"), "model")
    picture = image.imread(tmp_path / "parity.png")[:, :, :3]
    yellow = (picture[:, :, 0] > 0.9) & (picture[:, :, 1] > 0.8) & (picture[:, :, 2] < 0.3)
    assert yellow.any() == coloured


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work_in(tmp_path, monkeypatch)
    with open("md.xyz", "w") as handle:
        for coords in frames(3):
            write_frame(handle, coords, SYMBOLS, BOX)
    return tmp_path


def test_colours_are_energies(here: Path) -> None:
    """Of atoms, less the mean of their type; of structures, per real atom."""
    model = make_model("reference")
    structures = [Frame(coords, TYPES.astype(np.int32), None, BOX, (True,) * 3) for coords in frames(3)]
    exact = model.evaluate(frames(3), TYPES, BOX)
    found = _energies(structures, model, pooled=False)
    assert found is not None
    for kind in range(3):
        wanted = exact.atom_energy[:, kind == TYPES] - exact.atom_energy[:, kind == TYPES].mean()
        np.testing.assert_allclose(np.array(found)[:, kind == TYPES], wanted, rtol=0, atol=1e-12)
    pooled = _energies(structures, model, pooled=True)
    np.testing.assert_allclose(np.ravel(pooled), exact.energy / 5, rtol=1e-12)
    assert _energies(structures, make_model("reference", nf=2, na=1), pooled=True) is None  # there are no parameters


def test_the_page_has_a_title_and_colours(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs.package("chemiscope")
    base = ["descriptor", "-m", "model.safetensors", "md.xyz", "-o", "out.npz", "--map", "map.html"]
    run_command(capsys, *base)
    text = Path("map.html").read_text()
    assert "<h1>model.safetensors: md.xyz</h1>" in text
    assert "has_metadata: false" in text.split('id="source"')[0] + text.split("</script>")[-2]
    (found,) = re.findall(r'<script type="application/json" id="dataset">(.*?)</script>', text)
    data = json.loads(found)
    colour = data["settings"]["map"]["color"]["property"]
    assert colour == "energy of the atom, less the mean of its type"
    values = np.array(data["properties"][colour]["values"]).reshape(3, 5)
    energies = dpa2.load("model.safetensors").evaluate(frames(3), TYPES, BOX).atom_energy
    np.testing.assert_allclose(values[:, 3], energies[:, 3] - energies[:, 3].mean(), rtol=0, atol=1e-6)
    assert data["properties"]["frame"]["values"] == [k for k in range(3) for _ in COORDS]
