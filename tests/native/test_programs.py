"""The native test programs: built from the source tree, each one a test, which ctest runs."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from native_programs import PATH, run, start
from pages import ROOT

PROGRAMS = sorted(path.stem for path in (ROOT / "tests" / "native").glob("test_*.cpp"))
pytestmark = pytest.mark.slow  # a build of minutes


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


def test_every_program_is_registered(native_build: Path) -> None:
    assert {source_of(test) for test in registered(native_build)} == set(PROGRAMS)


def ctest() -> str:
    found = shutil.which("ctest", path=PATH)
    assert found is not None, "ctest comes with CMake: pip install cmake, or the test extra of this project"
    return found


@pytest.mark.parametrize("source", PROGRAMS)
def test_program(native_build: Path, tmp_path: Path, source: str) -> None:
    # ctest keeps a log beside the list that it reads: several at a time need a folder each.
    (tmp_path / "CTestTestfile.cmake").write_text(f'subdirs("{native_build.resolve()}")\n')
    passed = 0
    for test in registered(native_build):
        if source_of(test) == source:
            words = ["--test-dir", tmp_path, "--verbose", "--tests-regex", f"^{re.escape(test['name'])}$"]
            status, output = start([ctest(), *words], **test["env"])
            assert status == 0, f"{test['name']} failed:\n{output}"
            assert re.search(r"^100% tests passed.* out of 1$", output, re.MULTILINE), output
            if re.search(r"^1/1 Test .*\*\*\*Skipped", output, re.MULTILINE):  # for processors of another kind
                continue
            assert re.search(r"^\d+: [1-9]\d* checks, 0 failures$", output, re.MULTILINE), output
            passed += 1
    assert passed > 0


def test_no_level_lends_its_functions(native_build: Path) -> None:
    """What the linker may merge carries its level in its name, or an old processor would get code for a new one."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("there is no nm: NOTHING WAS CHECKED")
    libraries = sorted((native_build / "src" / "cpu").glob("libdpa2_kernels_*.a"))
    assert libraries
    for library in libraries:
        level = library.stem.removeprefix("libdpa2_kernels_")
        lines = [line.split() for line in run([nm, "--format=posix", library]).splitlines()]
        functions = {words[0] for words in lines if len(words) > 1 and words[1] in ("T", "W", "i", "u")}
        own = tuple(f"{len(room)}{room}{len(level)}{level}" for room in ("isa", "simd"))
        assert len(functions) > 50
        assert {name for name in functions if not any(tag in name for tag in own)} == set()


def test_ctest_runs_the_same_tests(native_build: Path) -> None:
    """That they pass is what :func:`test_program` sees."""
    listing = json.loads(run([ctest(), "--test-dir", native_build, "--show-only=json-v1"]))
    commands = {test["name"]: test["command"] for test in listing["tests"]}
    assert len(commands) == len(listing["tests"])
    assert commands == {test["name"]: test["cmd"] for test in registered(native_build)}
