"""`dpa2 relax` against ASE's optimizers called by hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import needs
import numpy as np
import pytest
from cases import GOLDEN
from cli_runs import interrupt, run_command
from dpa2 import optional
from dpa2.cli import main
from dpa2.data import read_structures
from simulated import MOLECULE, run_json, write_crystal, write_molecule

pytest.importorskip("ase", reason=needs.reason("ase"))

import ase.io
import ase.optimize
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from dpa2.ase import DPA2Calculator

pytestmark = pytest.mark.filterwarnings("default::dpa2.NeighborOverflowWarning")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_molecule(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


@pytest.mark.parametrize("optimizer", ["BFGS", "LBFGS", "FIRE"])
def test_takes_the_steps_of_ase(optimizer: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["relax", "molecule.xyz", "--optimizer", optimizer.lower(), "--precision", "float64", "-o", "out.extxyz"]
    document = run_json(capsys, *args, "--trajectory", "all.traj")
    atoms = ase.io.read("molecule.xyz")
    atoms.calc = DPA2Calculator(precision="float64")
    with getattr(ase.optimize, optimizer)(atoms, logfile=None) as by_hand:
        by_hand.run(fmax=0.01)
    (frame,) = document["frames"]
    assert document["converged"]
    assert frame["steps"] == by_hand.nsteps
    np.testing.assert_allclose(frame["positions"], atoms.positions, atol=1e-9)
    assert frame["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    assert frame["max_force"] < 0.01
    written = next(iter(read_structures("out.extxyz")[0]))
    np.testing.assert_array_equal(written.coords, frame["positions"])
    np.testing.assert_array_equal(written.forces, frame["forces"])
    assert len(ase.io.read("all.traj", ":")) == frame["steps"] + 1


def test_cell_under_pressure(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = write_crystal(here)
    args = [name, "--cell", "--pressure", "-1", "--fmax", "0.4", "--precision", "float64"]
    assert main(["relax", *args, "--json"]) == 0
    (frame,) = json.loads(capsys.readouterr().out)["frames"]
    atoms = ase.io.read(name)
    atoms.calc = DPA2Calculator(precision="float64")
    with ase.optimize.BFGS(FrechetCellFilter(atoms, scalar_pressure=-1.0 / 160.2176634), logfile=None) as by_hand:
        by_hand.run(fmax=0.4)
    np.testing.assert_allclose(frame["cell"], atoms.cell.array, atol=1e-8)
    assert frame["volume"] == pytest.approx(atoms.get_volume())
    stress = atoms.get_stress()
    assert frame["pressure_GPa"] == pytest.approx(-stress[:3].sum() / 3 * 160.2176634, abs=1e-6)


def test_every_frame_and_what_has_not_converged(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("two.xyz").write_text(MOLECULE + MOLECULE.replace("0.9572", "1.05"))
    out = run_command(capsys, "relax", "two.xyz", "-o", "two.traj")
    assert "all 2 structures have converged" in out
    assert len(ase.io.read("two.traj", ":")) == 2
    assert main(["relax", "two.xyz", "-o", "two.traj", "--steps", "1"]) == 1
    captured = capsys.readouterr()
    assert "2 of 2 structures have not converged after 1 step (the first is two.xyz, frame 0)" in captured.err
    assert captured.out.count("not converged") == 2
    assert len(ase.io.read("two.traj", ":")) == 2
    assert main(["relax", "molecule.xyz", "--steps", "0", "--json"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert not document["converged"]
    assert document["frames"][0]["steps"] == 0
    assert "not converged after 0 steps" in captured.err


def test_fixed_atoms_stay(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("some.xyz").write_text(
        '3\nProperties=species:S:1:pos:R:3:move_mask:L:3 pbc="F F F"\n'
        "O 0 0 0 F F F\nH 1.05 0 0 F F T\nH -0.24 0.9266 0 T T T\n"
    )
    (frame,) = run_json(capsys, "relax", "some.xyz", "-o", "out.extxyz")["frames"]
    positions = np.array(frame["positions"])
    assert positions[0].tolist() == [0.0, 0.0, 0.0]
    assert positions[1, :2].tolist() == [1.05, 0.0]
    assert np.abs(positions[2] - [-0.24, 0.9266, 0.0]).max() > 1e-3
    assert frame["max_force"] < 0.01 < np.abs(frame["forces"]).max()
    assert "move_mask:L:3" in Path("out.extxyz").read_text()
    (before,), (after,) = (list(read_structures(name)[0]) for name in ("some.xyz", "out.extxyz"))
    assert before.constraints == after.constraints
    assert [constraint["name"] for constraint in after.constraints] == ["FixAtoms", "FixCartesian"]

    atoms = ase.io.read("molecule.xyz")
    atoms.set_cell([8, 8, 8])
    atoms.pbc = True
    atoms.set_constraint(FixAtoms([0, 1]))
    ase.io.write("POSCAR", atoms)
    positions = np.array(run_json(capsys, "relax", "POSCAR", "--fmax", "0.02")["frames"][0]["positions"])
    written = ase.io.read("POSCAR")
    np.testing.assert_allclose(positions[:2], written.positions[:2], atol=1e-12)
    assert np.abs(positions[2] - written.positions[2]).max() > 1e-4


def test_fixed_atoms_keep_their_place_in_a_cell_that_relaxes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    atoms = ase.io.read(write_crystal(here))
    atoms.set_constraint(FixAtoms([0, 3]))
    ase.io.write("fixed.traj", atoms)
    assert main(["relax", "fixed.traj", "--cell", "--fmax", "0.3", "--json"]) == 0
    (frame,) = json.loads(capsys.readouterr().out)["frames"]
    reduced = np.array(frame["positions"]) @ np.linalg.inv(np.array(frame["cell"]))
    np.testing.assert_allclose(reduced[[0, 3]], [[0, 0, 0], [0.5, 0.5, 0.5]], atol=1e-9)
    assert abs(frame["volume"] - atoms.get_volume()) > 1e-3


def test_interrupt_leaves_what_was_reached(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, "evaluate", 3)
    assert main(["relax", "molecule.xyz", "-o", "out.extxyz", "--trajectory", "all.traj"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert len(ase.io.read("out.extxyz", ":")) == 1
    assert len(ase.io.read("all.traj", ":")) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["molecule.xyz", "--cell"], "a cell relaxes where all three directions are periodic"),
        (["molecule.xyz", "--pressure", "1"], "give --cell as well"),
        (["molecule.xyz", "-o", "out.cif"], "the output's name must end in .extxyz or .xyz or .traj"),
        (["molecule.xyz", "-o", "molecule.xyz"], "the output would overwrite the input"),
        (["molecule.xyz", "-o", "nowhere/out.xyz"], "the folder of the output does not exist"),
        (["molecule.xyz", "-o", "a.xyz", "--trajectory", "a.xyz"], "name the same file"),
        (["copper.xyz"], "copper.xyz, frame 0: atom 0 is 'Cu', which the model does not know"),
        (["mask.xyz"], "the column move_mask must be one or three of T and F"),
        (["empty.xyz"], "no atoms"),
        (["nowhere.xyz"], "nowhere.xyz"),
        (["molecule.xyz", "-m", str(GOLDEN / "kinds" / "files" / "dipole" / "model.pth")], "of kind 'dipole'"),
    ],
)
def test_wrong_input(args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("copper.xyz").write_text("1\n\nCu 0 0 0\n")
    Path("mask.xyz").write_text("1\nProperties=species:S:1:pos:R:3:move_mask:S:1\nO 0 0 0 maybe\n")
    Path("empty.xyz").write_text("0\n\n")
    before = sorted(os.listdir())
    assert main(["relax", *args]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("option", [["--fmax", "0"], ["--fmax", "nan"], ["--steps", "-1"], ["--optimizer", "newton"]])
def test_wrong_options(option: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["relax", "molecule.xyz", *option])
    assert ended.value.code == 2
    assert option[0] in capsys.readouterr().err


@pytest.mark.parametrize("command", ["relax", "md", "eos"])
def test_without_ase(
    command: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(optional, "import_module", missing)
    options = ["--ensemble", "nve", "--temperature", "300", "--timestep", "1", "--steps", "1"]
    assert main([command, "molecule.xyz", *(options if command == "md" else [])]) == 2
    said = capsys.readouterr().err
    assert said == f"dpa2: error: dpa2 {command} needs ASE; install it with: pip install 'dpa2[ase]'\n"
