"""Options of `dpa2 test` and `model-devi` that deepmd-kit has: data of inputs, orders, logs, other names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from cases import GOLDEN
from cli_runs import figures_and_files, run_command
from data_cases import LMDB
from datasets import write_all
from dpa2.cli import main
from dpa2.data import read_structures
from dpa2.data.shuffled import Shuffled

ANSWERS = GOLDEN / "dp_test"
FILES = GOLDEN / "files"
MODEL = str(FILES / "trained" / "model.pt")


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("systems")
    write_all(folder)
    return folder


@pytest.fixture
def here(systems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, with the data sets in another folder, `data`."""
    (tmp_path / "data").symlink_to(systems)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def averages(text: str) -> list[str]:
    """The figures of all systems together."""
    lines = text.splitlines()
    return lines[lines.index("# ----------weighted average of errors----------- ") :]


def test_data_of_a_training_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths in it begin in its folder; patterns choose folders."""
    sections = {
        "training_data": {"systems": "./", "rglob_patterns": ["mix*", "standard", "open"]},
        "validation_data": {"systems": ["./standard"]},
    }
    Path("data/input.json").write_text(json.dumps({"model": {}, "training": sections}))
    out = run_command(capsys, "test", "-m", MODEL, "--train-data", "data/input.json")
    wanted = (ANSWERS / "all.txt").read_text(encoding="utf-8")
    assert averages(out) == averages(wanted)
    assert "# testing system : data/mixed\n" in out
    out = run_command(capsys, "test", "-m", MODEL, "--valid-data", "data/input.json", "-a")
    assert averages(out) == averages((ANSWERS / "atomic.txt").read_text(encoding="utf-8"))
    shutil.copytree(LMDB, "set.lmdb")
    Path("lmdb.json").write_text(json.dumps({"training": {"validation_data": {"systems": "set.lmdb"}}}))
    out = run_command(capsys, "test", "-m", MODEL, "--valid-data", "lmdb.json")
    assert "# testing system : set.lmdb\n# number of test data : 21 \n" in out


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "input.json: no training.training_data.systems in this input"),
        ({"training": {"training_data": {"systems": []}}}, "no training.training_data.systems in this input"),
        ({"training": {"training_data": 3}}, "no training.training_data.systems in this input"),
        ({"training": {"data_dict": {}}}, "it is for several tasks: give the systems of one with -s or -f"),
        ({"training": {"training_data": {"systems": ["no"]}}}, "training.training_data.systems[0]: there is no folder"),
        ({"training": {"training_data": {"systems": 3}}}, "must be the path of a folder, or a list of paths, got 3"),
    ],
)
def test_inputs_without_data(section: object, message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("input.json").write_text(json.dumps(section))
    assert main(["test", "-m", MODEL, "--train-data", "input.json"]) == 2
    assert message in capsys.readouterr().err


def test_one_source_of_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["test", "-s", "data", "--valid-data", "input.json"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_orders_of_frames(here: Path) -> None:
    """Those of NumPy's older generator, which deepmd-kit uses: one for all systems, and the same frames as before."""
    generator, wanted = np.random.RandomState(3), np.random.RandomState(3)
    for name in ("mixed", "standard"):
        (source,) = read_structures(f"data/{name}")
        plain = [frame.coords for frame in source]
        order = np.arange(len(plain))
        wanted.shuffle(order)
        shuffled = Shuffled(source, generator, most=3)
        assert shuffled.count() == 3
        for k, frame in zip(order[:3], list(shuffled), strict=True):
            np.testing.assert_array_equal(frame.coords, plain[k])
            assert frame.where == f"data/{name}, frame {k}"


def test_an_order_of_all_frames_changes_no_figure(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a seed; sums in another order may end in another last digit, which is not printed here."""
    args = ["test", "-m", MODEL, "-s", "data/open"]
    plain, shuffled = run_command(capsys, *args), run_command(capsys, *args, "--shuffle-test", "-S", "set")
    assert [line.split(":")[0] for line in shuffled.splitlines()] == [line.split(":")[0] for line in plain.splitlines()]
    numbers = [[float(line.split(":")[1].split()[0]) for line in averages(out)[2:-1]] for out in (plain, shuffled)]
    np.testing.assert_allclose(numbers[1], numbers[0], rtol=2e-6)


def test_logs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["test", "-m", MODEL, "-s", "data/open"]
    out = run_command(capsys, *base, "-l", "logs/new/test.log")
    assert Path("logs/new/test.log").read_text(encoding="utf-8") == out
    for level in ("WARNING", "1", "error", "0"):
        assert run_command(capsys, *base, "-v", level, "-l", "quiet.log") == ""
        assert Path("quiet.log").read_text() == ""
    assert run_command(capsys, *base, "-v", "DEBUG") == run_command(capsys, *base, "-v", "2") == out
    assert main([*base, "-a", "-l", "failed.log", "-v", "0"]) == 2
    said = capsys.readouterr().err
    assert "there are no energies of atoms" in said
    assert said == f"dpa2: {Path('failed.log').read_text()}"
    devi = ["model-devi", "-m", MODEL, MODEL, "-s", "data/open", "-o", "devi.out", "-S", "set"]
    assert run_command(capsys, *devi, "-l", "devi.log") == Path("devi.log").read_text()
    with pytest.raises(SystemExit):
        main([*base, "-v", "4"])
    assert "invalid level of messages value: '4'" in capsys.readouterr().err


@pytest.mark.filterwarnings("default::dpa2.ReadingWarning")
def test_warnings_have_a_level(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("data/open", "bare")
    for name in ("energy", "force"):
        for path in Path("bare").glob(f"set.*/{name}.npy"):
            path.unlink()
    base = ["test", "-m", MODEL, "-s", "bare", "data/open"]
    assert main([*base, "-v", "1", "-l", "log"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("dpa2: warning: no labels to test against")
    assert said == f"dpa2: {Path('log').read_text()}"
    assert main([*base, "-v", "0", "-l", "log"]) == 0
    assert capsys.readouterr().err == Path("log").read_text() == ""


def test_a_log_is_no_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(MODEL, "model.pt")
    before = Path("model.pt").read_bytes()
    for name, message in (("model.pt", "would overwrite the input model.pt"), ("data", "the output is a folder")):
        assert main(["test", "-m", "model.pt", "-s", "data/open", "-l", name]) == 2
        assert message in capsys.readouterr().err
    assert Path("model.pt").read_bytes() == before


def test_branches(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--model-branch is --head."""
    base = ["test", "-m", str(FILES / "multitask" / "model.pt"), "-s", "data/open", "-n", "1"]
    found = {run_command(capsys, *base, option, "ice") for option in ("--head", "--model-branch")}
    assert len(found) == 1
    assert run_command(capsys, *base, "--model-branch", "water") not in found
    assert main(base) == 2
    assert "choose one with --head NAME; it has water" in capsys.readouterr().err


def test_files_that_were_written_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_command(capsys, "test", "-m", MODEL, "-s", "data/standard", "-d", "detail")
    figures, files = figures_and_files(out)
    assert figures == run_command(capsys, "test", "-m", MODEL, "-s", "data/standard")
    assert files == sorted(name for name in os.listdir() if name.startswith("detail"))
    assert len(files) == 6
