"""The README and the pages that have its details keep what they say: commands and examples run, numbers are those that
come out, or those of the page that states them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import dpa2
import pytest
from cases import load_golden
from dpa2.cli import main, make_parser
from pages import ROOT, code_blocks, run_page

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = ROOT / "docs"
NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")


def commands() -> list[str]:
    return re.findall(r"^    (python .*)$", README, re.MULTILINE)


def table(page: str, column: str) -> list[list[str]]:
    """The rows of the first table of a page with a column of this name."""
    for found in re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in found.splitlines()]
        if column in head:
            return rows
    raise AssertionError(f"no table with {column} in {page}")


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def test_the_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 120] == []


def test_main_command_prints_what_the_page_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install, words = commands()[0].split(" && dpa2 ")
    assert install == "python -m pip install ."
    monkeypatch.chdir(ROOT)
    assert main([*words.split(), "--threads", "1"]) == 0
    assert f"    dpa2 {words}\n" in (DOCS / "getting-started.md").read_text(encoding="utf-8")
    printed, shown = capsys.readouterr().out, code_blocks("docs/getting-started.md", "text")[0]
    plain = re.compile(r"\d+ threads?")
    words_of = [NUMBER.sub("#", plain.sub("threads", text)).split() for text in (printed, shown)]
    assert words_of[0] == words_of[1]
    # the model is float32: rounding differs from processor to processor
    for ours, theirs in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        assert float(ours) == pytest.approx(float(theirs), rel=1e-4, abs=2e-3)


def test_python_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the folder where people are after the installation."""
    monkeypatch.chdir(ROOT)
    (example,) = code_blocks("README.md", "python")
    assert len(example.splitlines()) <= 10
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["result"].forces.shape == (3, 3)
    assert "eV/angstrom" in capsys.readouterr().out


def test_page_about_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_page("python.md", tmp_path, monkeypatch)
    assert names["descriptor"].shape == (3, names["model"].descriptor_dim)
    assert names["result"].forces.shape == (3, 3)
    assert (tmp_path / "model.safetensors").is_file()


def test_lines_for_lammps_and_training_are_understood() -> None:
    (lines,) = code_blocks("README.md", "lammps")
    assert [line.split()[0] for line in lines.splitlines()] == ["pair_style", "pair_coeff"]
    (commands,) = code_blocks("README.md", "sh")
    assert [make_parser().parse_args(shlex.split(line)[1:]) for line in commands.splitlines()]


def test_ratios_are_those_of_the_pages() -> None:
    """From the least to the largest ratio of the rows that a row speaks of, rounded; GPU numbers are of one run."""
    speed = table("docs/speed.md", "ratio")
    small = [row for row in speed if row[1] == "192"]
    large = [row for row in speed if row[1] == "1,536"]
    training = table("docs/training.md", "peak memory, MB")
    cuda = (DOCS / "cuda.md").read_text(encoding="utf-8")
    (per_atom,) = {numbers(row[3])[0] for row in table("docs/cuda.md", "float32, kB per atom") if row[0] == "12,288"}
    ((peer_gb,),) = [numbers(found) for found in re.findall(r"per atom and (\d+) GB for 12,288 atoms", cuda)]
    (times,) = re.findall(r"That is (\d+) times as long", cuda)

    def ratios(rows: list[list[str]]) -> list[float]:
        return [number for row in rows for number in numbers(row[-2])]

    less = {
        "small": [numbers(row[-1])[0] / numbers(row[-1])[1] for row in small],
        "large": [numbers(row[-1])[0] / numbers(row[-1])[1] for row in large],
        "training": [numbers(row[-1])[1] / numbers(row[-1])[0] for row in training],
    }
    expected = [
        (ratios(small), less["small"]),
        (ratios(large), less["large"]),
        (ratios(training), less["training"]),
        ([float(times)], [peer_gb * 1e6 / (per_atom * 12288)]),
    ]
    stated = [(row[1], row[2]) for row in table("README.md", "times as fast")]
    for (times_stated, memory_stated), (fast, saved) in zip(stated, expected, strict=True):
        assert numbers(times_stated) == [round(each) for each in sorted({min(fast), max(fast)})]
        denominators = numbers(memory_stated.replace("1/", " "))
        assert denominators == pytest.approx(sorted({min(saved), max(saved)}), abs=0.5)


def test_the_number_of_cases_is_stated_once() -> None:
    """The golden files themselves are counted."""
    paths = sorted((ROOT / "tests" / "golden").glob("*.npz"))
    frames = sum(len(system.coord) for path in paths for system in load_golden(path).systems)
    page = (DOCS / "accuracy.md").read_text(encoding="utf-8")
    assert re.findall(r"(\d+) model cases in `tests/golden`.* (\d+) frames", page) == [(str(len(paths)), str(frames))]
    pages = [README, *(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))]
    assert sum(len(re.findall(r"\d+ (?:model|golden) cases", each)) for each in pages) == 1


def test_continuous_integration_runs_the_same_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in commands():
        for part in command.split(" && "):
            assert part in script or part == "python -m pip install ."


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_and_public_name_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    names = re.findall(r"^    ([a-z-]+)\b", capsys.readouterr().out, re.MULTILINE)
    assert {"info", "eval", "descriptor", "convert"} <= set(names)
    commands, page = ((DOCS / name).read_text(encoding="utf-8") for name in ("commands.md", "python.md"))
    described = re.findall(r"^\| `dpa2 ([a-z-]+) ", commands, re.MULTILINE)
    assert sorted(described) == sorted(names)
    for name in ("load", "compute_descriptor", "InputError", "ModelFileError", "Error"):
        assert hasattr(dpa2, name)
        assert name in page
