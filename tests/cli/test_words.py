"""What commands say of wrong arguments: in the words of the command line, with what was meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from api_models import BOX, COORDS, SYMBOLS, TYPES, make_model, work_in
from cli_runs import run_command
from data_cases import LMDB
from dpa2.cli import main, slow
from dpa2.cli.words import of_commands
from dpa2.data import read_structures, write_frame
from model_files import make, write_pt


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models and a structure, as the working directory."""
    work_in(tmp_path, monkeypatch)
    with open("one.xyz", "w") as handle:
        write_frame(handle, COORDS, SYMBOLS, BOX)
    return tmp_path


def test_no_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    out = run_command(capsys)
    assert out.startswith("usage: dpa2 ")
    assert "examples:\n  dpa2 info model.pth" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["eval", "-m", "params.safetensors", "one.xyz"], "has no default: give 2 numbers with --fparam\n"),
        (["eval", "-m", "params.safetensors", "--fparam", "1,2", "one.xyz"], ": give 1 number with --aparam\n"),
        (
            ["test", "-m", "params.safetensors", "-s", "one.xyz"],
            'give 2 numbers with the structures, in fparam.npy of a deepmd system or as fparam="..." of a frame in',
        ),
        (["eval", "model.safetensors"], "model.safetensors: this looks like a model, and structures are expected"),
        (["descriptor", "two.pt", "-o", "out.npz"], "two.pt: this looks like a model, and structures are expected: a"),
        (["test", "-s", "two.pt"], "a model is given with -m (in Python: dpa2.load)"),
        (["eval", "-m", "two.pt", "one.xyz"], "two.pt: this file holds several models: choose one with --head NAME;"),
        (["info", "input.json"], "this is a training input, which has no weights; 'dpa2 train' makes a model of it"),
        (["convert", "run", "out.safetensors"], "run: this is a directory, no model file; the newest checkpoint of"),
        (["convert", "run/checkpoint", "out.safetensors"], "is run/two.pt: give that file"),
        (["eval", "-m", "two", "one.xyz"], "two: there is no such file; there is two.pt: give that"),
    ],
)
def test_messages(args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pt(Path("two.pt"), {"a": make(), "b": make()})
    Path("input.json").write_text(json.dumps({"model": {}, "training": {}}))
    Path("run").mkdir()
    shutil.copy("two.pt", "run")
    Path("run/checkpoint").write_text("two.pt")
    assert main(args) == 2
    assert message in capsys.readouterr().err


def test_other_words() -> None:
    assert of_commands('no GPU; load the model with device="cpu"', ()) == "no GPU; give --device cpu"
    assert of_commands("unset it, or pass threads=", ()) == "unset it, or give --threads"
    assert of_commands("pass spin= or box=", {"spin"}) == "pass spin= or box="


def test_descriptors_that_are_not_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["eval", "-m", "model.safetensors", "one.xyz", "--descriptor"]
    assert main([*args, "-o", "out.extxyz"]) == 0
    assert "the descriptors are printed and not written to out.extxyz: only an .npz" in capsys.readouterr().err
    assert "descriptor" not in Path("out.extxyz").read_text()
    run_command(capsys, *args, "-o", "out.npz")
    run_command(capsys, *args)


def test_the_time_of_the_reference(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["eval", "-m", "params.safetensors", "--fparam", "1,2", "--aparam", "1", "--device"]
    run_command(capsys, *args, "reference", "one.xyz")  # it is short: nothing is said
    monkeypatch.setattr(slow, "LONG", 1e-4)
    with open("two.xyz", "w") as handle:
        for _ in range(2):
            write_frame(handle, COORDS, SYMBOLS, BOX)
    assert 0.0 < slow._measured(dpa2.load("params.safetensors", device="reference")) < 1e3
    monkeypatch.setattr(slow, "_measured", lambda model: 64.0)
    assert main([*args, "reference", "two.xyz"]) == 0
    said = capsys.readouterr().err  # 64 seconds for 8 atoms
    assert said == "dpa2: a frame of 5 atoms takes about 25 seconds, 2 of them 50 seconds with the reference\n"
    run_command(capsys, *args, "cpu", "one.xyz")


def test_no_hidden_layers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pt(Path("linear.pt"), make(fitting={"neuron": []}))
    assert "fitting        linear: no hidden layers\n" in run_command(capsys, "info", "linear.pt")


def test_the_file_in_an_lmdb_data_set(here: Path) -> None:
    (folder,), (file,) = read_structures(LMDB), read_structures(LMDB / "data.mdb")
    assert file.count() == folder.count() == 21
    for one, other in zip(folder, file, strict=True):
        np.testing.assert_array_equal(one.coords, other.coords)


@pytest.mark.parametrize("natoms", [1, 3])
def test_one_frame_without_the_axis_of_frames(natoms: int, tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "coord": np.arange(3.0 * natoms),
        "box": (9.0 * np.eye(3)).ravel(),
        "energy": np.float64(-1.5),
        "force": np.arange(3.0 * natoms) / 7.0,
        "virial": np.arange(9.0),
        "atom_ener": np.arange(float(natoms)),
        "fparam": np.array([0.5, 0.25]),
    }
    (tmp_path / "set.000").mkdir()
    (tmp_path / "type.raw").write_text("0\n" * natoms)
    for name, array in arrays.items():
        np.save(tmp_path / "set.000" / f"{name}.npy", array)
    (source,) = read_structures(tmp_path)
    (frame,) = source
    assert (source.count(), frame.energy) == (1, -1.5)
    np.testing.assert_array_equal(frame.coords.ravel(), arrays["coord"])
    np.testing.assert_array_equal(frame.forces.ravel(), arrays["force"])
    np.testing.assert_array_equal(frame.virial.ravel(), arrays["virial"])
    np.testing.assert_array_equal(frame.labels["atom_ener"], arrays["atom_ener"])
    np.testing.assert_array_equal(frame.fparam, arrays["fparam"])


# ------------------------------------------------------------------------------------------------ in Python


class Atoms:
    """As ASE's in what matters here, which is that an evaluation does not take them."""

    def get_positions(self) -> np.ndarray:
        return COORDS


def test_arguments_of_evaluations() -> None:
    model = make_model("reference")
    with pytest.raises(dpa2.InputError, match=r"atoms.positions, .* atoms.calc = dpa2.ase.DPA2Calculator"):
        model.evaluate(Atoms())
    for function in (model.evaluate, model.descriptor):
        with pytest.raises(dpa2.InputError, match=r"types must have shape \(5,\): pass element symbols"):
            function(COORDS)
        with pytest.raises(dpa2.InputError, match=r"a list with a name for each atom, as \['O', 'H', 'H', 'C', 'O'\]"):
            function(COORDS, "OHHCO", BOX)
        with pytest.raises(dpa2.InputError, match=r"got one string, 'water': pass a list .* each atom$"):
            function(COORDS, "water", BOX)
    assert model.evaluate(COORDS, TYPES, BOX).energy == model.evaluate(COORDS, SYMBOLS, BOX).energy
