"""`dpa2 phonons` against phonopy called by hand."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from dpa2 import optional
from dpa2.cli import main
from simulated import MOLECULE, write_crystal, write_molecule

pytest.importorskip("ase", reason=needs.reason("ase"))

import ase.io
from scipy.integrate import trapezoid

pytestmark = pytest.mark.filterwarnings("default::dpa2.NeighborOverflowWarning")


@pytest.fixture
def phonopy() -> Any:
    """phonopy; without it the test is skipped."""
    return needs.package("phonopy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crystal and what the command made of it."""
    needs.package("phonopy")
    needs.package("matplotlib")
    return tmp_path_factory.mktemp("phonons")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


QUICK = ["--supercell", "1", "1", "1", "--mesh", "4", "4", "4"]


@pytest.fixture
def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[dict[str, Any], str, Path]:
    """The document and the messages of the command, which runs once."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if not Path("said.json").exists():
        args = ["phonons", write_crystal(folder), *QUICK, "--plot", "bands.png", "--json"]
        assert main([*args, "--temperatures", "0", "300", "150"]) == 0
        captured = capsys.readouterr()
        Path("said.json").write_text(json.dumps([captured.out, captured.err]))
    out, err = json.loads(Path("said.json").read_text())
    return json.loads(out), err, folder


def test_is_that_of_phonopy(run: tuple[dict[str, Any], str, Path], phonopy: Any) -> None:
    from dpa2.ase import DPA2Calculator
    from phonopy.structure.atoms import PhonopyAtoms

    document, _, _ = run
    atoms = ase.io.read("crystal.xyz")
    symbols, places = atoms.get_chemical_symbols(), atoms.get_scaled_positions()
    cell = PhonopyAtoms(symbols, cell=atoms.cell.array, scaled_positions=places, masses=atoms.get_masses())
    by_hand = phonopy.Phonopy(cell, supercell_matrix=np.eye(3), primitive_matrix=np.eye(3))
    by_hand.generate_displacements(distance=0.01)
    calculator, forces = DPA2Calculator(precision="float64"), []
    for displaced in by_hand.supercells_with_displacements:
        image = ase.Atoms(displaced.symbols, positions=displaced.positions, cell=displaced.cell, pbc=True)
        image.calc = calculator
        forces.append(image.get_forces())
    by_hand.forces = np.array(forces)
    by_hand.produce_force_constants()
    by_hand.symmetrize_force_constants()
    assert document["displacements"] == len(forces)
    bands = document["bands"]
    by_hand.run_band_structure(bands["qpoints"])
    for ours, theirs in zip(bands["frequencies_THz"], by_hand.band_structure.frequencies, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    by_hand.run_mesh([4, 4, 4])
    by_hand.run_thermal_properties(temperatures=[0.0, 150.0, 300.0])
    _, free_energy, _, capacity, *_ = by_hand.thermal_properties.thermal_properties
    assert document["thermal"]["temperatures_K"] == [0.0, 150.0, 300.0]
    np.testing.assert_allclose(document["thermal"]["free_energy_kJ_mol"], free_energy, rtol=1e-6)
    np.testing.assert_allclose(document["thermal"]["heat_capacity_J_K_mol"], capacity, rtol=1e-6)
    lowest = min(np.min(part) for part in [*bands["frequencies_THz"], by_hand.mesh.frequencies])
    assert document["lowest_THz"] == pytest.approx(lowest, abs=1e-4)


def test_sum_rules(run: tuple[dict[str, Any], str, Path]) -> None:
    document, _, _ = run
    assert "G" in document["bands"]["labels"]
    gamma = [
        frequencies
        for q, band in zip(document["bands"]["qpoints"], document["bands"]["frequencies_THz"], strict=True)
        for point, frequencies in zip(q, band, strict=True)
        if not np.any(point)
    ]
    assert gamma
    for frequencies in gamma:  # three modes move the whole
        assert np.sort(np.abs(frequencies))[:3].max() < 1e-3
    dos = document["dos"]
    assert trapezoid(dos["per_THz"], dos["frequencies_THz"]) == pytest.approx(18, rel=1e-3)
    assert document["thermal"]["entropy_J_K_mol"][0] == 0.0


def test_phonopy_goes_on_from_the_files(run: tuple[dict[str, Any], str, Path], phonopy: Any) -> None:
    from phonopy.file_IO import parse_FORCE_CONSTANTS, parse_FORCE_SETS

    document, _, folder = run
    loaded = phonopy.load(folder / "phonons" / "phonopy.yaml", symmetrize_fc=True, log_level=0)
    loaded.run_band_structure(document["bands"]["qpoints"])
    for ours, theirs in zip(document["bands"]["frequencies_THz"], loaded.band_structure.frequencies, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    constants = parse_FORCE_CONSTANTS(folder / "phonons" / "FORCE_CONSTANTS")
    np.testing.assert_allclose(constants, loaded.force_constants, atol=1e-4)
    assert parse_FORCE_SETS(filename=folder / "phonons" / "FORCE_SETS")["natom"] == 6
    assert (folder / "bands.png").read_bytes().startswith(b"\x89PNG")
    for name in ("band.yaml", "total_dos.dat", "thermal_properties.yaml"):
        assert (folder / "phonons" / name).stat().st_size > 0


def test_warnings(run: tuple[dict[str, Any], str, Path]) -> None:
    document, said, _ = run
    assert document["max_force"] > 0.01
    assert "the structure is not at its minimum" in said
    assert document["lowest_THz"] < -0.05
    assert f"imaginary modes: the lowest is {-document['lowest_THz']:.4g}i THz at q = (" in said


def test_face_centred_tetragonal_lattice(here: Path, phonopy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Its even mesh does not have the symmetry of the lattice, which is phonopy's affair."""
    cell = np.array([1.4, 1.4, 2.0]) * (1 - np.eye(3))
    ase.io.write("crystal.xyz", ase.Atoms("O", positions=[[0, 0, 0]], cell=cell, pbc=True))
    assert main(["phonons", "crystal.xyz", *QUICK]) == 0
    assert "grid shift" not in capsys.readouterr().err


def test_table_path_and_folder(run: tuple[dict[str, Any], str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    args = ["phonons", "crystal.xyz", *QUICK, "--path", "GXM,ZR", "-o", "again"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("at ")] == ["G", "X", "M", "Z", "R"]
    assert "written     again" in out
    assert main(args) == 0  # over its own files
    Path("again", "notes").write_text("mine")
    assert main(args) == 2
    assert "has other files in it, such as notes" in capsys.readouterr().err
    assert Path("again", "notes").read_text() == "mine"
    shutil.rmtree("again")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["molecule.xyz"], "phonons need a cell with a volume"),
        (["crystal.xyz", "--path", "GQ"], "there is no point 'Q'; the points of this lattice are"),
        (["crystal.xyz", "--path", "G"], "two points or more"),
        (["crystal.xyz", "--temperatures", "300", "0", "10"], "the first, the last and the step"),
        (["crystal.xyz", "-o", "molecule.xyz"], "the folder to write to is a file"),
        (["crystal.xyz", "-o", "nowhere/phonons"], "the folder of the output does not exist"),
        (["copper.xyz"], "'Cu', which the model does not know"),
    ],
)
def test_wrong_input(
    args: list[str], message: str, here: Path, phonopy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_molecule(here)
    write_crystal(here)
    Path("copper.xyz").write_text(MOLECULE.replace("O", "Cu"))
    before = sorted(os.listdir())
    assert main(["phonons", *args]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert sorted(os.listdir()) == before


def test_without_phonopy(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    original = optional.import_module

    def without(name: str) -> Any:
        if name == "phonopy":
            raise ImportError(name)
        return original(name)

    monkeypatch.setattr(optional, "import_module", without)
    write_crystal(here)
    assert main(["phonons", "crystal.xyz"]) == 2
    said = capsys.readouterr().err
    assert said == "dpa2: error: dpa2 phonons needs phonopy; install it with: pip install 'dpa2[phonons]'\n"
