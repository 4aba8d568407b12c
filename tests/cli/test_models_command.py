"""`dpa2 models`, and models that are found by their names in the folders of DPA2_MODELS."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import dpa2
import pytest
from api_models import BOX, COORDS, SYMBOLS, make_model, work_in
from cli_runs import run_command
from dpa2.cli import main
from dpa2.cli.models import ERRORS
from dpa2.data import write_frame
from model_files import make, write_pt
from pages import ROOT


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A structure in the working directory, models in two folders, and among them files that are none."""
    monkeypatch.delenv("DPA2_MODELS", raising=False)
    work_in(tmp_path, monkeypatch)
    (tmp_path / "mine" / "below").mkdir(parents=True)
    (tmp_path / "others").mkdir()
    shutil.move("model.safetensors", "mine/water.safetensors")
    shutil.move("params.safetensors", "mine/below/params.safetensors")
    write_pt(Path("others/tasks.pt"), {"a": make(), "b": make()})
    Path("mine/empty.pth").touch()
    Path("mine/notes.txt").write_text("no model")
    with open("one.xyz", "w") as handle:
        write_frame(handle, COORDS, SYMBOLS, BOX)
    return tmp_path


def test_list(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_command(capsys, "models", "--folder", "mine", "others")
    assert "mine: 3 model files" in out
    assert f"  water.safetensors         energy, O H C, rcut {make_model('cpu').rcut:g}, float64, " in out
    assert "  empty.pth                 not read: the file is empty" in out
    assert re.search(r"  tasks.pt  energy \(2 heads\), .* checkpoint \(PyTorch\)\n", out)
    assert "notes" not in out
    assert "AIS Square" in out
    found = json.loads(run_command(capsys, "models", "--folder", "mine", "--json"))
    assert found["embedded"]["type_map"] == ["O", "H"]
    (mine,) = found["folders"]
    facts = {entry["name"]: entry for entry in mine["models"]}
    assert sorted(facts) == ["below/params.safetensors", "empty.pth", "water.safetensors"]
    assert facts["water.safetensors"]["bytes"] == os.path.getsize("mine/water.safetensors")
    assert facts["water.safetensors"]["format"] == "safetensors"


def test_numbers_of_the_embedded_model_are_those_of_its_page() -> None:
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    numbers = re.findall(r"[\d.]+ m?eV", ERRORS)
    assert len(numbers) == 2
    assert [number for number in numbers if number not in page] == []


def test_folders(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "folders     none: name some with --folder" in run_command(capsys, "models")
    Path("bare").mkdir()
    assert "bare: no model files" in run_command(capsys, "models", "--folder", "bare")
    assert main(["models", "--folder", "none"]) == 2
    assert "there is no folder none\n" in capsys.readouterr().err
    monkeypatch.setenv("DPA2_MODELS", os.pathsep.join(["mine", "none"]))
    assert main(["models"]) == 2
    assert "there is no folder none, which DPA2_MODELS names" in capsys.readouterr().err


def test_names(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(dpa2.ModelFileError, match=r"^water: there is no such file$"):
        dpa2.load("water")
    monkeypatch.setenv("DPA2_MODELS", os.pathsep.join(["others", "mine"]))
    expected = make_model("cpu").evaluate(COORDS, SYMBOLS, BOX).energy
    for name in ("water", "water.safetensors"):
        assert dpa2.load(name).evaluate(COORDS, SYMBOLS, BOX).energy == expected
    assert f"{expected:.8f} eV" in run_command(capsys, "eval", "-m", "water", "one.xyz")
    assert "(safetensors, " in run_command(capsys, "info", "water")
    assert dpa2.load("tasks", head="a").kind == "energy"
    message = r"^ice: there is no such file; nor is there in DPA2_MODELS \(others, mine\)"
    with pytest.raises(dpa2.ModelFileError, match=message):
        dpa2.load("ice")
    with pytest.raises(dpa2.ModelFileError, match=r"there is no such file$"):
        dpa2.load("below/water")
    Path("water").touch()  # what lies here goes first
    with pytest.raises(dpa2.ModelFileError, match="the file is empty"):
        dpa2.load("water")
