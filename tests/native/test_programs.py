"""The native test programs: built from the source tree, each one a test; and all of them again by ctest."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(path.stem for path in (SOURCE / "tests" / "native").glob("test_*.cpp"))
LONGEST = 600  # seconds that a program may take
SKIPPED = 77  # exit status of a program for processors of another kind
pytestmark = pytest.mark.slow  # a build of minutes
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def start(command: Sequence[str | Path], timeout: float = LONGEST, **environment: str) -> tuple[int, str]:
    """Exit status and output of a command; programs of Python's own environment come first in its PATH."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, "PATH": PATH, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
    )
    return done.returncode, done.stdout[-8000:] if done.returncode else done.stdout


def run(command: Sequence[str | Path], timeout: float = LONGEST) -> str:
    """The output of a command that must succeed."""
    status, output = start(command, timeout)
    assert status == 0, f"{command[0]} failed with {status}:\n{output}"
    return output


@cache
def registered(build: Path) -> list[dict[str, Any]]:
    """What meson says of the tests of a build."""
    listing: list[dict[str, Any]] = json.loads(run(["meson", "introspect", "--tests", build]))
    return listing


def source_of(test: dict[str, Any]) -> str:
    """The program's source: one may be built several times, under its name with something added."""
    program = Path(test["cmd"][0]).stem
    return max(
        (name for name in PROGRAMS if program == name or program.startswith(f"{name}_")), key=len, default=program
    )


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the native tests; ``DPA2_NATIVE_BUILD`` names an existing one, which is brought up to date."""
    if "DPA2_NATIVE_BUILD" in os.environ:
        folder = Path(os.environ["DPA2_NATIVE_BUILD"])
    elif "PYTEST_XDIST_WORKER" in os.environ:  # one build for all workers
        folder = tmp_path_factory.getbasetemp().parent / "native"
    else:
        folder = tmp_path_factory.mktemp("native")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "build.ninja").exists():
            run(["meson", "setup", folder, SOURCE, "-Dnative_tests=true", "-Dpython=false", "-Dbuildtype=release"])
        run(["ninja", "-C", folder], timeout=1800)
    return folder


def test_every_program_is_registered(build: Path) -> None:
    assert {source_of(test) for test in registered(build)} == set(PROGRAMS)


@pytest.mark.parametrize("source", PROGRAMS)
def test_program(build: Path, source: str) -> None:
    passed = 0
    for test in registered(build):
        if source_of(test) == source:
            status, output = start(test["cmd"], **test["env"])
            if status == SKIPPED:
                continue
            assert status == 0, f"{test['name']} failed with {status}:\n{output}"
            assert re.search(r"^[1-9]\d* checks, 0 failures$", output, re.MULTILINE), output
            passed += 1
    assert passed > 0


def test_no_level_lends_its_functions(build: Path) -> None:
    """What the linker may merge carries its level in its name, or an old processor would get code for a new one."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("there is no nm: NOTHING WAS CHECKED")
    libraries = sorted((build / "src" / "cpu").glob("libdpa2_kernels_*.a"))
    assert libraries
    for library in libraries:
        level = library.stem.removeprefix("libdpa2_kernels_")
        lines = [line.split() for line in run([nm, "--format=posix", library]).splitlines()]
        functions = {words[0] for words in lines if len(words) > 1 and words[1] in ("T", "W", "i", "u")}
        own = tuple(f"{len(room)}{room}{len(level)}{level}" for room in ("isa", "simd"))
        assert len(functions) > 50
        assert {name for name in functions if not any(tag in name for tag in own)} == set()


def test_ctest_runs_the_same_tests(build: Path) -> None:
    ctest = shutil.which("ctest", path=PATH)
    assert ctest is not None, "ctest comes with CMake: pip install cmake, or the test extra of this project"
    listing = json.loads(run([ctest, "--test-dir", build, "--show-only=json-v1"]))
    assert sorted(test["name"] for test in listing["tests"]) == sorted(test["name"] for test in registered(build))
    assert "100% tests passed" in run([ctest, "--test-dir", build, "--output-on-failure"])
