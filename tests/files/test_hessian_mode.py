"""Models of deepmd-kit's hessian_mode: as files, in evaluations, and what `DeepPot.eval` returns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from cases import GOLDEN, TOLERANCE
from cli_runs import run_command
from dpa2._native import NativeModel
from dpa2.deepmd import DeepEval, DeepPot
from dpa2.files import read, write_safetensors
from helpers import relative
from hessian_cases import CALLS, CELLS, FRAMES, HESSIANS, TYPES, answers_of
from kind_files import KINDS
from model_files import definition, make, write_pt, write_pth

TRAINED = HESSIANS / "trained.pt"
FRAME = (FRAMES[0], TYPES, CELLS[0])


def load(path: Path, **options: Any) -> dpa2.Model:
    return dpa2.load(path, threads=1, on_overflow="ignore", **options)


@pytest.mark.parametrize("call", CALLS)
def test_what_deeppot_returns(call: str) -> None:
    file, structure, options = CALLS[call]
    model = DeepPot(HESSIANS / f"{file}.pt", threads=1, on_overflow="ignore")
    found, expected = model.eval(*structure, **options), answers_of(call)
    assert model.has_hessian
    assert len(found) == len(expected) == (6 if options.get("atomic") else 4)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert relative(one, other) <= TOLERANCE["float64"]


def test_results_have_it() -> None:
    model = load(TRAINED)
    assert model.has_hessian
    assert model.config["hessian_mode"] is True
    found = model.evaluate(*FRAME).outputs["hessian"]
    assert found.shape == (15, 15)
    assert np.array_equal(found, model.hessian(*FRAME))
    for options in ({"forces": False}, {"hessian": False}):
        assert "hessian" not in model.evaluate(*FRAME, **options).outputs
    both = model.evaluate(FRAMES, TYPES, CELLS).outputs["hessian"]
    assert np.array_equal(both[0], found)
    assert not load(TRAINED, device="reference").has_hessian
    with pytest.warns(UserWarning, match="atoms came no closer than"):
        compressed = load(TRAINED, compress=1e-4)
    assert not compressed.has_hessian
    assert "hessian" not in compressed.evaluate(*FRAME).outputs


def test_frozen_files_have_lost_it() -> None:
    """deepmd-kit freezes such a model as one without; the numbers are the same all the same."""
    frozen, trained = load(HESSIANS / "frozen.pth"), load(TRAINED)
    assert not frozen.has_hessian
    assert "hessian_mode" not in frozen.config
    assert not DeepEval(HESSIANS / "frozen.pth").has_hessian
    assert np.array_equal(frozen.hessian(*FRAME), trained.hessian(*FRAME))


def test_native_files_keep_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    load(TRAINED).save(path)
    assert load(path).has_hessian
    assert np.array_equal(load(path).hessian(*FRAME), load(TRAINED).hessian(*FRAME))
    assert '"hessian_mode": true' in NativeModel.from_file(str(path)).config_json
    assert "hessian        3 natoms x 3 natoms eV/angstrom^2, on the CPU\n" in run_command(capsys, "info", str(path))
    assert "natoms" not in run_command(capsys, "info", str(HESSIANS / "frozen.pth"))


def test_commands_do_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would cost far more than all the rest, and nothing of it is written."""
    monkeypatch.setattr(dpa2.Model, "_hessians", lambda *_: pytest.fail("a Hessian was computed"))
    structure = tmp_path / "one.xyz"
    rows = "".join(f"{'OH'[t]} {x} {y} {z}\n" for t, (x, y, z) in zip(TYPES, FRAMES[0], strict=True))
    structure.write_text(f"5\n\n{rows}")
    run_command(capsys, "eval", str(structure), "-m", str(TRAINED), "-o", str(tmp_path / "out.npz"))
    assert "hessian" not in np.load(tmp_path / "out.npz").files


@pytest.mark.parametrize("write", [write_pt, write_pth])
def test_definitions_that_say_so(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "model"
    for value, says in ((True, True), (False, False), (None, False)):
        write(path, make(), params={"hessian_mode": value})
        config = read(path).config
        assert config.get("hessian_mode", False) is says
        assert ("hessian_mode" in config) is says
    write(path, make(), params={"hessian_mode": "yes"})
    with pytest.raises(dpa2.ModelFileError, match="hessian_mode is 'yes', expected true or false"):
        read(path)


def test_trees_that_say_so(tmp_path: Path) -> None:
    text = (GOLDEN / "files/trained/model.yaml").read_text()
    path = tmp_path / "model.yaml"
    path.write_text(text.replace("model_def_script:\n", "model_def_script:\n  hessian_mode: true\n"))
    assert load(path).has_hessian
    assert not load(GOLDEN / "files/trained/model.yaml").has_hessian


def test_one_head_of_several(tmp_path: Path) -> None:
    branches = {"plain": make(), "second": make()}
    definitions = {name: definition(model) for name, model in branches.items()}
    definitions["second"]["hessian_mode"] = True
    write_pt(tmp_path / "m.pt", branches, params={"model_dict": definitions})
    assert load(tmp_path / "m.pt", head="second").has_hessian
    assert not load(tmp_path / "m.pt", head="plain").has_hessian


def test_other_kinds_have_none(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_pt(path, KINDS["dipole"](), params={"hessian_mode": True})
    with pytest.raises(dpa2.ModelFileError, match="hessian_mode is set, and only models of energies, made of one netw"):
        read(path)
    write_pt(path, KINDS["zbl"](), params={"hessian_mode": True})  # nor does deepmd-kit look at it there
    assert "hessian_mode" not in read(path).config
    data = KINDS["zbl"]()
    with pytest.raises(dpa2.ModelFileError, match="hessian_mode is set"):
        dpa2.Model(replace(data, config=data.config | {"hessian_mode": True}))
    write_safetensors(tmp_path / "m.safetensors", replace(data, config=data.config | {"hessian_mode": True}))
    assert "hessian_mode" not in read(tmp_path / "m.safetensors").config
