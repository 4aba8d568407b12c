"""`dpa2 completion`: every option of every command is in it, and shells complete with it."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runs import run_command
from dpa2.cli import main, make_parser

SHELLS = ("bash", "fish", "zsh")


def parsers(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Of every command its words and its options, as its help has them."""
    yield words, [flag for action in parser._actions for flag in action.option_strings]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from parsers(below, (*words, name))


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The completion of every shell, and files to complete, in a folder."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "water.xyz").touch()
    return folder


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = folder / f"dpa2.{shell}"
    path.write_text(run_command(capsys, "completion", shell), encoding="utf-8")
    return path


@pytest.mark.parametrize("shell", SHELLS)
def test_all_options_of_all_commands(shell: str, scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, scripts, capsys).read_text(encoding="utf-8")
    found = list(parsers(make_parser()))
    assert len(found) > 15
    for words, flags in found:
        if shell == "bash":
            (line,) = [line for line in text.splitlines() if line.startswith(f'        "{"_".join(words)}") options=')]
            assert line.split('"')[3].split() == flags
        elif shell == "zsh":
            start = text.index("case $place in")
            part = text[text.index(f"        {'_'.join(words) or chr(39) * 2})\n", start) :].partition(";;")[0]
            assert [flag for flag in flags if f"'{flag}:" not in part] == []
        else:
            seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in words)
            lines = "\n".join(line for line in text.splitlines() if seen in line) + "\n"
            names = [f" -l {flag[2:]} " if flag.startswith("--") else f" -s {flag[1:]} " for flag in flags]
            assert [name for name in names if name not in lines] == []


CASES = [
    ("dpa2 sel", {"select"}),
    ("dpa2 select --f-", {"--f-lo", "--f-hi"}),
    ("dpa2 eval --precision ", {"float32", "float64"}),
    ("dpa2 lammps ", {"build", "path"}),
    ("dpa2 lammps build --h", {"--headers", "--help"}),
    ("dpa2 completion ", set(SHELLS)),
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(("line", "wanted"), CASES)
def test_bash(line: str, wanted: set[str], scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("bash", scripts, capsys)
    ask = (
        f'source "{path}"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dpa2; printf "%s\\n" "${{COMPREPLY[@]}}"; '
        "complete -p dpa2"
    )
    command = ["bash", "--norc", "-c", ask, "-", *line.split(" ")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    *found, how = run.stdout.splitlines()
    assert set(found) == wanted
    assert "-o default" in how  # files, where there is nothing else


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(("line", "wanted"), [*CASES, ("dpa2 eval wat", {"water.xyz"})])
def test_fish(line: str, wanted: set[str], scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("fish", scripts, capsys)
    ask = f"source {path}; complete -C '{line}'"
    run = subprocess.run(["fish", "--no-config", "-c", ask], capture_output=True, text=True, check=True, cwd=scripts)
    assert {text.split("\t")[0] for text in run.stdout.splitlines()} == wanted


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_takes_it(scripts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("zsh", scripts, capsys)
    ask = f"autoload -U compinit; compinit -D; source {path}; print $_comps[dpa2]"
    run = subprocess.run(["zsh", "-f", "-c", ask], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("_dpa2\n", "")


def test_another_shell(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "tcsh"])
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
