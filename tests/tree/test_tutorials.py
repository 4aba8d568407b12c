"""The tutorials run as they stand: all shortened, those of training at full length with the errors of the page."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dpa2.cli import main
from dpa2.data import read_structures
from dpa2.train.display import read_curve
from pages import ROOT, code_blocks

PAGE = ROOT / "docs" / "tutorials.md"
EXAMPLES = ROOT / "examples" / "training"
INPUTS = ("small", "multitask", "finetune", "compressible")


def parts() -> dict[str, list[str]]:
    """The commands of every tutorial, by its heading."""
    found = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        found[section.splitlines()[0]] = [line for block in blocks for line in block.splitlines()]
    return found


def shorten(folder: Path) -> None:
    """Two steps in every input."""
    for name in INPUTS:
        path = folder / f"{name}.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["training"].update(numb_steps=2, disp_freq=1, save_freq=2)
        path.write_text(json.dumps(config), encoding="utf-8")


def run(line: str, short: bool) -> None:
    """A command of the page in the working directory."""
    words = shlex.split(line)
    if words[0] != "dpa2":
        if short and words[:2] == ["python", "make_data.py"]:
            words += ["--frames", "2", "--every", "1", "--before", "1"]
        words[0] = {"python": sys.executable}.get(words[0], words[0])
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return
    if short and words[1] == "bench":
        words += ["--steps", "1"]
    assert main(words[1:]) == 0, line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page begins with: a folder with the files of the examples."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    first, second, enter = parts()["The folder"]
    for line in (first, second):
        run(line, short=False)
    assert enter == "cd tutorial"
    os.chdir("tutorial")
    return tmp_path / "tutorial"


def test_tutorials_in_short(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All commands run one after the other, and leave what the next ones need."""
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shorten(folder)
    for name, lines in parts().items():
        if name != "The folder":
            for line in lines:
                run(line, short=True)
    capsys.readouterr()
    assert [frame.pbc for frame in read_structures("data/molecule")[0]] == [(False,) * 3] * 2
    dense, plain = (next(iter(read_structures(f"data/{name}")[0])) for name in ("dense", "train"))
    assert dense.volume == pytest.approx(0.96**3 * plain.volume, rel=1e-12)
    assert abs(dense.energy - plain.energy - 16 * (432 + 2 * 13.6)) < 20.0  # eV, of which the zero is 7347
    for path in ("curve.png", "tuned.safetensors", "student_c.safetensors"):
        assert (folder / path).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.minutes
def test_tutorials(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Minutes: the errors are those that the page states, as far as rounding lets runs be the same."""
    errors: list[tuple[float, float]] = []
    for name, lines in parts().items():
        if name != "The folder":
            for line in lines:
                run(line, short=False)
                if line.startswith("dpa2 test"):
                    printed = capsys.readouterr().out
                    found = [re.findall(rf"{what} *RMSE *: (\S+) eV", printed)[-1] for what in ("Energy", "Force")]
                    errors.append((float(found[0]) / 48, float(found[1])))
    rows = re.findall(r"^\| .* \| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    stated = [(float(energy) / 1000, float(force)) for energy, force in rows]  # the page has meV
    assert len(errors) == len(stated) > 4
    for (_, ours), (_, theirs) in zip(errors, stated, strict=True):
        assert ours == pytest.approx(theirs, rel=0.3)  # rounding grows in a training
    branch, shifted, tuned = errors[1:4]
    assert branch[0] > 100.0  # eV per atom: another zero
    assert branch[1] == pytest.approx(shifted[1], rel=1e-6)
    assert tuned[1] < 0.9 * branch[1]
    assert errors[4] == pytest.approx(errors[5], rel=1e-4)  # networks and tables
    for name in ("lcurve.out", "tuned.out", "student.out"):
        curve = read_curve(folder / name)
        assert curve["rmse_f_val"][-1] < 0.7 * curve["rmse_f_val"][0]


@pytest.mark.slow
def test_dynamics_of_water_in_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same commands with twenty steps, of which every one is kept."""
    pytest.importorskip("ase")
    pytest.importorskip("matplotlib")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    first, second, last = code_blocks("docs/water.md", "sh")
    (python,) = code_blocks("docs/water.md", "python")
    for line in (first + second).splitlines():
        for long, short in (
            ("--time 0.5", "--time 0.005"),
            ("--time 1 ", "--time 0.01 "),
            ("--interval 40", "--interval 1"),
        ):
            line = line.replace(long, short)
        run(line, short=True)
    names: dict[str, Any] = {}
    exec(compile(python, "water.md", "exec"), names)
    assert len(names["frames"]) == 11
    assert 2.6 < names["peak"] < 3.0
    run(last.strip(), short=True)
    assert all(Path(name).stat().st_size > 0 for name in ("water.png", "map.png", "water.npz"))
