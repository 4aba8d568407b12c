"""The README keeps what it says: its commands run, its example runs, its numbers are those that come out."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import dpa2
import pytest
from cases import load_golden
from dpa2.cli import main

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")


def commands() -> list[str]:
    return re.findall(r"^    (python .*)$", README, re.MULTILINE)


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return str(found)


def test_main_command_prints_what_the_readme_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install, words = commands()[0].split(" && dpa2 ")
    assert install == "python -m pip install ."
    monkeypatch.chdir(ROOT)
    assert main([*words.split(), "--threads", "1"]) == 0
    printed, shown = capsys.readouterr().out, block("")
    plain = re.compile(r"\d+ threads?")
    words_of = [NUMBER.sub("#", plain.sub("threads", text)).split() for text in (printed, shown)]
    assert words_of[0] == words_of[1]
    # the model is float32: rounding differs from processor to processor
    for ours, theirs in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        assert float(ours) == pytest.approx(float(theirs), rel=1e-4, abs=2e-3)


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "tests" / "golden" / "files" / "trained" / "model.pth", tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block("python"), "README.md", "exec"), names)
    assert names["descriptor"].shape == (3, 72)
    assert names["result"].forces.shape == (3, 3)
    assert (tmp_path / "model.safetensors").is_file()


def test_the_number_of_cases_is_stated_once() -> None:
    """The golden files themselves are counted."""
    paths = sorted((ROOT / "tests" / "golden").glob("*.npz"))
    frames = sum(len(system.coord) for path in paths for system in load_golden(path).systems)
    assert re.findall(r"(\d+) model cases in `tests/golden`.* (\d+) frames", README) == [(str(len(paths)), str(frames))]
    assert len(re.findall(r"\d+ (?:model |golden )?cases", README)) == 1


def test_continuous_integration_runs_the_same_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in commands():
        for part in command.split(" && "):
            assert part in script or part == "python -m pip install ."


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_and_public_name_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    names = re.findall(r"^    ([a-z-]+)\b", capsys.readouterr().out, re.MULTILINE)
    assert {"info", "eval", "descriptor", "convert"} <= set(names)
    described = re.findall(r"^\| `dpa2 ([a-z-]+) ", README, re.MULTILINE)
    assert sorted(described) == sorted(names)
    for name in ("load", "compute_descriptor", "InputError", "ModelFileError", "Error"):
        assert hasattr(dpa2, name)
        assert name in README
