"""docs/data.md, commands.md and data-selection.md keep what they say: their examples run as they stand, in order."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import needs
import pytest
from cases import GOLDEN
from datasets import write_hdf5, write_mixed, write_standard
from dpa2.cli import main
from dpa2.data import read_structures
from pages import ROOT, code_blocks, run_page
from simulated import write_crystal, write_molecule

MODEL = GOLDEN / "files" / "trained"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages read, in the working directory."""
    write_standard(tmp_path / "data" / "standard")
    write_mixed(tmp_path / "data" / "mixed")
    write_hdf5(tmp_path / "data.hdf5", "/water", tmp_path / "data" / "standard")
    (tmp_path / "systems.txt").write_text("data/standard\ndata/mixed\n")
    for name in ("model.pth", "model_ema.pt"):
        shutil.copy(MODEL / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def run_commands(page: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run the commands of a page; what each prints."""
    printed = []
    for line in "".join(code_blocks(f"docs/{page}", "sh")).splitlines():
        program, *words = shlex.split(line)
        assert program == "dpa2"
        assert main(words) == 0, capsys.readouterr().err
        printed.append(capsys.readouterr().out)
    return printed


def test_data_selection(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = run_commands("data-selection.md", capsys)
    assert len(printed) == 6
    assert "written     chosen.csv" in printed[0]
    assert "candidate   9 (100.0%)" in printed[3]
    assert "covered     5 of 5 (100.0%)" in printed[5]
    frames = [sum(len(list(system)) for system in read_structures(name)) for name in ("chosen.extxyz", "new.extxyz")]
    assert frames == [4, 2]


def test_commands(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs.package("chemiscope")
    printed = run_commands("commands.md", capsys)
    assert len(printed) == 16
    assert printed[0].count("# number of test data") == 2
    assert "Atomic ener RMSE" in printed[2]
    for name in ("detail.s.out", "parity.png", "all.npz", "mean.h5", "oxygen.html", "map.png", "model_devi.out"):
        assert Path(name).stat().st_size > 0
    assert len(list(Path("labelled").glob("*/type.raw"))) == 5
    assert {path.parent.parent.name for path in Path("mixed").glob("*/set.000/real_atom_types.npy")} == {
        "2",
        "5",
        "6",
        "7",
    }


@pytest.mark.filterwarnings("default::dpa2.NeighborOverflowWarning")
def test_commands_that_move_atoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs.package("ase")
    needs.package("matplotlib")
    write_molecule(tmp_path)
    write_crystal(tmp_path, 3.04, 5.1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "docs" / "dynamics.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 7
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
    for name in ("relaxed.extxyz", "steps.traj", "nve.log", "nvt.png", "npt.restart.npz", "eos.png", "volumes.extxyz"):
        assert Path(name).stat().st_size > 0


def test_python(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_page("data.md", here, monkeypatch)
    assert names["accuracy"].frames == 9
    assert len(names["means"]) == 9
    assert names["means"][0].shape == (names["model"].descriptor_dim,)


def test_block_with_processes_runs_as_a_script(here: Path) -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    Path("script.py").write_text(f"{script}\n    print(len(energies))\n")
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "9\n"), done.stderr
