"""What commands print for programs (`--json`), which frames they take (`--frames`, `--numb`), `--workers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from api_models import BOX, SYMBOLS, frames, work_in
from cli_runs import interrupt, run_command
from datasets import write_all
from dpa2.cli import main
from dpa2.data import read_structures, write_frame

EVAL = ["eval", "-m", "model.safetensors", "long.xyz"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, data sets, and 12 frames in an XYZ file, in the working directory."""
    work_in(tmp_path, monkeypatch)
    write_all(tmp_path / "data")
    with open("long.xyz", "w") as handle:
        for coords in frames(12):
            write_frame(handle, coords, SYMBOLS, BOX)
    return tmp_path


def document(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    """The one JSON document that a command prints."""
    return json.loads(run_command(capsys, *args, "--json"), parse_constant=pytest.fail)


def test_eval(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, *EVAL, "-o", "out.npz", "--descriptor", "--atomic", "edge")
    assert found["model"]["type_map"] == ["O", "H", "C"]
    assert found["written"] == ["out.npz"]
    assert [(entry["structure"], entry["frame"]) for entry in found["frames"]] == [("long.xyz", k) for k in range(12)]
    with np.load("out.npz") as npz:
        for name in ("energy", "forces", "virial", "atom_energy", "atom_virial", "descriptor"):
            np.testing.assert_array_equal([entry[name] for entry in found["frames"]], npz[name], err_msg=name)
    assert document(capsys, *EVAL, "-f", "0")["frames"][0]["volume"] == pytest.approx(abs(np.linalg.det(BOX)))


def test_eval_that_ends_early(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with open("long.xyz", "a") as handle:
        handle.write("1\nProperties=species:S:1:pos:R:3\nN 0 0 0\n")
    assert main([*EVAL, "--json"]) == 2
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert len(found["frames"]) == 12
    assert found["error"].startswith("error: long.xyz, frame 12: atom 0 is 'N'")
    assert main(["eval", "-m", "model.safetensors", "none.xyz", "--json"]) == 2
    assert capsys.readouterr().out == ""
    with monkeypatch.context() as patch:
        interrupt(patch, "evaluate", 3)
        assert main([*EVAL, "--json"]) == 130
    found = json.loads(capsys.readouterr().out)
    assert (len(found["frames"]), found["error"]) == (2, "interrupted")


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        (["-f", "3"], [3]),
        (["-f", "-1"], [11]),
        (["-f", "::5"], [0, 5, 10]),
        (["--frames", "2:9:3"], [2, 5, 8]),
        (["-f-3:"], [9, 10, 11]),
        (["--frames=:-9"], [0, 1, 2]),
        (["-f", "::2", "-n", "3"], [0, 2, 4]),
        (["-n", "2"], [0, 1]),
        (["-n", "99"], list(range(12))),
    ],
)
def test_frames(args: list[str], kept: list[int], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [entry["frame"] for entry in document(capsys, *EVAL, *args)["frames"]] == kept
    out = run_command(capsys, *EVAL, *args, "-o", "out.npz")
    with np.load("out.npz") as npz:
        assert len(npz["energy"]) == len(kept)
    if len(kept) > 1:
        assert [int(line.split()[0]) for line in out.splitlines()[3:] if line[:6].strip().isdigit()] == kept


@pytest.mark.parametrize("choice", ["", "x", "1:2:3:4", "::0", "::-1", "1.5"])
def test_frames_that_are_none(choice: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*EVAL, "-f", choice])
    assert ended.value.code == 2
    assert "invalid index or slice with a positive step value" in capsys.readouterr().err


def test_frames_that_are_not_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for choice in ("12", "-13"):
        assert main([*EVAL, "-f", choice]) == 2
        assert f"long.xyz: there is no frame {choice}, but 12 frames" in capsys.readouterr().err
    assert main([*EVAL, "-f", "20:"]) == 2
    assert "there are no frames" in capsys.readouterr().err


def test_frames_of_every_system(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = [sum(1 for _ in system) for system in read_structures("data")]
    found = document(capsys, "eval", "-m", "model.safetensors", "data", "--frames", "::2")["frames"]
    assert [entry["frame"] for entry in found] == [k for count in counts for k in range(0, count, 2)]


@pytest.mark.slow
def test_workers_of_eval_write_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["eval", "-m", "model.safetensors", "long.xyz", "data", "--descriptor"]
    one = run_command(capsys, *args, "-o", "one.npz", "--save-deepmd", "one")
    two = run_command(capsys, *args, "-o", "two.npz", "--save-deepmd", "two", "--workers", "2")
    assert one.replace("one", "two") == two
    assert Path("one.npz").read_bytes() == Path("two.npz").read_bytes()
    assert main(["eval", "-m", "model.safetensors", "long.xyz", "--workers", "2", "-f", "0", "--fparam", "1"]) == 2
    assert "long.xyz, frame 0: fparam was given, but the model takes no frame" in capsys.readouterr().err


def test_test(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["test", "-m", "model.safetensors", "-s", "data/standard", "data/open"]
    found = document(capsys, *args)
    assert [entry["system"] for entry in found["systems"]] == ["data/standard", "data/open"]
    assert [entry["frames"] for entry in found["systems"]] == [5, 3]
    model, errors = dpa2.load("model.safetensors"), []
    for frame in read_structures("data/standard")[0]:
        errors.append(model.evaluate(frame.coords, frame.types_in(model.type_map), frame.box).forces - frame.forces)
    force = found["systems"][0]["errors"]["force"]
    assert force["rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert force["mae"] == pytest.approx(np.mean(np.abs(errors)))
    assert f"Force  RMSE        : {found['all']['errors']['force']['rmse']:e} eV/Å" in run_command(capsys, *args)


def test_model_devi(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["model-devi", "-m", "model.safetensors", "model.safetensors", "-s", "data/standard", "long.xyz"]
    found = document(capsys, *args, "-o", "devi.out")
    assert [entry["frames"] for entry in found["systems"]] == [5, 12]
    assert found["columns"][:2] == ["step", "max_devi_v"]
    rows = [row for entry in found["systems"] for row in entry["rows"]]
    np.testing.assert_allclose(rows, np.loadtxt("devi.out"), rtol=1e-6, atol=1e-12)
    assert found["written"] == ["devi.out"]
