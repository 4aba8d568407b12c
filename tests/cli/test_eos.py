"""`dpa2 eos` against ASE's equation of state called by hand."""

from __future__ import annotations

import json
from pathlib import Path

import needs
import numpy as np
import pytest
from dpa2.cli import main
from dpa2.errors import WorkFailedError
from simulated import write_crystal, write_molecule

pytest.importorskip("ase", reason=needs.reason("ase"))

import ase.io
from ase.eos import EquationOfState, birchmurnaghan
from dpa2.ase import DPA2Calculator
from dpa2.simulation.equation_of_state import fit

pytestmark = pytest.mark.filterwarnings("default::dpa2.NeighborOverflowWarning")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def test_is_that_of_ase(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs.package("matplotlib")
    name = write_crystal(here, 3.04, 5.1)
    args = ["eos", name, "--strain", "0.08", "--points", "7", "--plot", "eos.png", "-o", "all.extxyz", "--json"]
    assert main(args) == 0
    document = json.loads(capsys.readouterr().out)
    atoms = ase.io.read(name)
    atoms.calc = DPA2Calculator(precision="float64")
    cell, volumes, energies = atoms.cell.array.copy(), [], []
    for scale in np.linspace(0.92, 1.08, 7):
        atoms.set_cell(cell * scale, scale_atoms=True)
        volumes.append(atoms.get_volume())
        energies.append(atoms.get_potential_energy())
    np.testing.assert_allclose(document["volumes"], volumes, rtol=1e-12)
    np.testing.assert_allclose(document["energies"], energies, rtol=1e-12)
    v0, e0, modulus = EquationOfState(volumes, np.array(energies) - min(energies), eos="birchmurnaghan").fit()
    found = document["fit"]
    assert found["V0"] == pytest.approx(v0, rel=1e-6)
    assert found["E0"] == pytest.approx(e0 + min(energies), rel=1e-9)
    assert found["B_GPa"] == pytest.approx(modulus * 160.2176634, rel=1e-6)
    assert [image.get_volume() for image in ase.io.read("all.extxyz", ":")] == pytest.approx(volumes)
    assert Path("eos.png").read_bytes().startswith(b"\x89PNG")


def test_relaxed_atoms_have_less_energy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = write_crystal(here, 3.04, 5.1)
    args = ["eos", name, "--strain", "0.08", "--points", "5", "--json", "--precision", "float32"]
    found = []
    for options in ([], ["--relax", "--fmax", "0.2"], ["--relax", "--steps", "1"]):
        main([*args, *options])
        captured = capsys.readouterr()
        found.append(np.array(json.loads(captured.out)["energies"]))
    assert (found[1] < found[0]).all()
    assert "the atoms have not converged at 5 of 5 volumes" in captured.err


VOLUMES = np.linspace(90.0, 110.0, 9)


def test_fit_of_an_exact_equation() -> None:
    found = fit(VOLUMES, birchmurnaghan(VOLUMES, -5.0, 0.5, 4.5, 101.0))
    assert found.volume == pytest.approx(101.0, rel=1e-6)
    assert found.energy == pytest.approx(-5.0, abs=1e-7)
    assert found.bulk_modulus == pytest.approx(0.5 * 160.2176634, rel=1e-5)
    assert found.derivative == pytest.approx(4.5, rel=1e-3)
    assert found.residual < 1e-8
    assert found.doubts == ()


def test_bad_fits_are_named() -> None:
    with pytest.raises(WorkFailedError, match="do not enclose the minimum, which the fit has at 13"):
        fit(VOLUMES, birchmurnaghan(VOLUMES, -5.0, 0.5, 4.0, 130.0))
    with pytest.raises(WorkFailedError, match=r"bent downwards|do not enclose|no equation of state fits"):
        fit(VOLUMES, -0.01 * (VOLUMES - 100.0) ** 2)
    with pytest.raises(WorkFailedError):
        fit(VOLUMES, np.zeros(9))
    noisy = birchmurnaghan(VOLUMES, -5.0, 0.5, 4.0, 100.0) + 0.05 * np.array([0, 1, 0, 1, 0, 1, 0, 1, 0])
    (doubt, *_) = fit(VOLUMES, noisy).doubts
    assert "the fit misses the energies by" in doubt
    four = VOLUMES[::2][:4]
    assert "4 points for 4 parameters" in fit(four, birchmurnaghan(four, -5.0, 0.5, 4.0, 97.0)).doubts[0]


def test_no_minimum_is_an_error_with_the_energies(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["eos", write_crystal(here, 3.6, 6.0), "--points", "4", "--strain", "0.01", "--json"]
    assert main(args) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["fit"] is None
    assert len(document["energies"]) == 4
    assert "dpa2 relax --cell" in captured.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["molecule.xyz"], "an equation of state needs a cell with a volume"),
        (["crystal.xyz", "--points", "3"], "--points must be 4 or more"),
        (["crystal.xyz", "--strain", "0.6"], "lattice vectors change by less than half"),
        (["crystal.xyz", "-o", "crystal.xyz"], "would overwrite the input"),
        (["crystal.xyz", "--plot", "nowhere/eos.png"], "the folder of the output does not exist"),
    ],
)
def test_wrong_input(args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_molecule(here)
    write_crystal(here)
    assert main(["eos", *args]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
