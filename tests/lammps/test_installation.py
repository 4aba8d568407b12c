"""The plugin as users find it: by itself, from the Python module, rebuilt, and refused where it does not fit."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import needs
import pytest
from dpa2.cli import main
from dpa2.lammps import PLUGIN, discover, plugin_directory
from dpa2.lammps.build import build, command
from lammps_runs import Setup, environment, prepare, python_model, run, succeed, systems

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = next(system for system in systems() if system.name == "triclinic")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


def test_lammps_finds_the_plugin_by_itself(folder: Path) -> None:
    (entry,) = [e for e in metadata.entry_points(group="lammps.plugins") if e.name == "dpa2"]
    assert entry.load()() == plugin_directory()
    for ranks in (1, 2):
        output = succeed(folder, [*Setup("triclinic").lines(), "run 0"], ranks, by_command=True)
        assert "Loaded 1 plugins from" in output


def test_python_module_of_lammps(folder: Path) -> None:
    """LAMMPS as a library needs to be told where MPI is."""
    script = (
        "from lammps import lammps\n"
        "from dpa2.lammps import plugin_directory\n"
        "lmp = lammps(cmdargs=['-log', 'none', '-screen', 'none'])\n"
        "lmp.command(f'plugin load {plugin_directory()}/dpa2plugin.so')\n"
        "for line in open('in.module'): lmp.command(line.strip())\n"
        "print(repr(lmp.get_thermo('pe')))\n"
    )
    (folder / "in.module").write_text("\n".join([*Setup("triclinic").lines()[1:], "run 0"]), encoding="ascii")
    libraries = str(Path(sys.prefix) / "lib")
    env = {**environment(), "LD_LIBRARY_PATH": libraries}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = python_model().evaluate(SYSTEM.coords, SYSTEM.types, SYSTEM.box).energy
    assert float(done.stdout.split()[-1]) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.slow
@needs.compiler
def test_building_for_the_lammps_of_this_environment(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lammps", "build", "--output", str(folder / "plugins")]) == 0
    said = capsys.readouterr().out
    assert str(folder / "plugins" / PLUGIN) in said
    lines = [*Setup("triclinic").lines()[1:], "run 0", 'print "$(pe:%.17g)" file energy']
    lines.insert(0, f"plugin load {folder / 'plugins' / PLUGIN}")
    env = {**environment(), "LAMMPS_PLUGIN_PATH": ""}
    (folder / "in.built").write_text("\n".join(lines), encoding="ascii")
    program = Path(str(metadata.distribution("lammps").locate_file("lammps/lmp")))
    env["LD_LIBRARY_PATH"] = str(Path(sys.prefix) / "lib")
    done = subprocess.run(
        [program, "-in", "in.built", "-log", "none"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Loading plugin: DPA-2 interatomic potentials" in done.stdout
    expected = python_model().evaluate(SYSTEM.coords, SYSTEM.types, SYSTEM.box).energy
    assert float((folder / "energy").read_text()) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.slow
@needs.compiler
def test_another_build_of_lammps_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(discover.find(), build="stable_29Sep2021")
    made = build(wrong, folder / "plugins")
    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", str(made.parent))
    program = str(metadata.distribution("lammps").locate_file("lammps/lmp"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(Path(sys.prefix) / "lib"))
    (folder / "in.wrong").write_text("\n".join([*Setup("triclinic").lines(), "run 0"]), encoding="ascii")
    done = subprocess.run(
        [program, "-in", "in.wrong", "-log", "none"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert re.search(r"built for LAMMPS 'stable_29Sep2021' and does not fit this one, 'stable_\w+'", done.stderr)
    assert "dpa2 lammps build" in done.stderr
    assert "Unrecognized pair style 'dpa2'" in done.stdout + done.stderr


def test_the_path_of_the_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lammps", "path"]) == 0
    assert capsys.readouterr().out.strip() == str(Path(plugin_directory()) / PLUGIN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--headers", "nowhere"], "no LAMMPS headers (pair.h, lammps.h) in 'nowhere'"),
        (["--program", "nolmp"], "cannot run 'nolmp -h'"),
        (["--program", "true"], "does not answer as LAMMPS does"),
    ],
)
def test_building_without_a_lammps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lammps", "build", "--output", "plugins", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_building_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["lammps", "build", "--output", str(tmp_path)]) == 2
    assert "there is no C++ compiler 'no-such-compiler'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_old_strings_for_old_wheels(tmp_path: Path) -> None:
    lammps = discover.find()
    assert "-D_GLIBCXX_USE_CXX11_ABI=0" not in command(lammps, tmp_path, tmp_path / PLUGIN)
    assert "-D_GLIBCXX_USE_CXX11_ABI=0" in command(replace(lammps, old_abi=True), tmp_path, tmp_path / PLUGIN)


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_example_runs(tmp_path: Path, ranks: int) -> None:
    for path in (ROOT / "examples" / "lammps").iterdir():
        shutil.copy(path, tmp_path)
    shutil.copy(ROOT / "engine" / "dpa2" / "models" / "water.safetensors", tmp_path)
    script = (tmp_path / "in.water").read_text(encoding="ascii")
    short = re.sub(r"^run .*$", "run 5", script, flags=re.MULTILINE)
    assert short != script
    done = run(tmp_path, short.splitlines(), ranks, ["-var", "model", "water.safetensors"], by_command=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert re.search(r"^\s+5\s", done.stdout, re.MULTILINE)
