"""What compilers, linkers and programs see of the installed C face: headers, symbols, flags, the examples, the page."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dpa2
import needs
import numpy as np
import pytest
from c_library import HEADER, LIBRARY, STRICT, declared, output_of, package_flags
from cases import SAME
from dpa2.files import ModelData, write_safetensors
from helpers import case_system, golden, model_of, relative
from pages import ROOT, code_blocks

pytestmark = needs.library

COMPILERS = {".c": ["cc", "-std=c11"], ".cpp": ["c++", "-std=c++17"]}
EXAMPLES = {".c": ROOT / "examples" / "c" / "evaluate.c", ".cpp": ROOT / "examples" / "cpp" / "evaluate.cpp"}


def build(source: Path, folder: Path, flags: Sequence[str] | None = None) -> Path:
    program = folder / f"{source.stem}_{source.suffix[1:]}"
    given = package_flags() if flags is None else flags
    output_of([*COMPILERS[source.suffix], *STRICT, source, *given, "-o", program])
    return program


# ------------------------------------------------------------------------------------------------ headers and library


@pytest.mark.parametrize(("header", "suffix"), [("dpa2.h", ".c"), ("dpa2.h", ".cpp"), ("dpa2.hpp", ".cpp")])
def test_headers_stand_alone(header: str, suffix: str, tmp_path: Path) -> None:
    source = tmp_path / f"alone{suffix}"
    source.write_text(f'#include "{header}"\n#include "{header}"\n')
    assert output_of([*COMPILERS[suffix], *STRICT, f"-I{HEADER.parent}", "-fsyntax-only", source]) == ""


def test_the_installed_headers_are_those_of_the_tree() -> None:
    for name in ("dpa2.h", "dpa2.hpp"):
        assert (HEADER.parent / name).read_text() == (ROOT / "include" / name).read_text()


def test_exported_symbols_are_the_declared_functions() -> None:
    listing = output_of(["nm", "-D", "--defined-only", LIBRARY])
    exported = {line.split()[-1] for line in listing.splitlines()}
    assert exported == {f"dpa2_{name}" for name in declared()}
    assert len(exported) > 20


def test_every_declaration_says_since_when() -> None:
    assert [name for name, comment in declared().items() if not re.search(r"@since \d+\b", comment)] == []
    text = HEADER.read_text(encoding="utf-8")
    types = re.findall(r"(/\*(?:(?!\*/).)*\*/)\s*typedef \w+ (dpa2_\w+)", text, re.DOTALL)
    names = {f"dpa2_{name}" for name in ("status", "warning", "model", "output", "domain", "exchange", "halo")}
    assert {name for _, name in types} == names
    assert all("@since" in comment for comment, _ in types)
    # nothing is of a later version than the interface
    version = int(re.findall(r"#define DPA2_ABI_VERSION (\d+)", text)[0])
    assert max(int(n) for n in re.findall(r"@since (\d+)", text)) == version


def test_the_library_needs_no_python() -> None:
    needed = output_of(["ldd", LIBRARY])
    assert "not found" not in needed
    assert "python" not in needed.lower().replace(str(LIBRARY.parent).lower(), "")


# ------------------------------------------------------------------------------------------------ examples


def write_case(name: str, system: str, folder: Path) -> tuple[Path, Path, dpa2.Result]:
    """A model file, a structure file, and what the Python package says of them."""
    case, s = golden(name), case_system(name, system)
    model, structure = folder / f"{name}.safetensors", folder / f"{name}_{system}.extxyz"
    write_safetensors(model, ModelData(case.config, case.weights))
    box = None if s.box is None else np.asarray(s.box)[0].reshape(3, 3)
    lattice = "" if box is None else f'Lattice="{" ".join(repr(float(v)) for v in box.ravel())}" '
    lines = [str(len(s.atype)), lattice + "Properties=species:S:1:pos:R:3"]
    symbols = case.config["type_map"]
    lines += [" ".join([symbols[t], *(repr(float(v)) for v in x)]) for t, x in zip(s.atype, s.coord[0], strict=True)]
    structure.write_text("\n".join(lines) + "\n")
    return model, structure, model_of(case, device="cpu").evaluate(s.coord[0], s.atype, box)


def answers(printed: str) -> list[dict[str, np.ndarray]]:
    """What an example prints, once or twice: energy, virial, forces."""
    found: list[dict[str, list[list[float]]]] = []
    for line in printed.splitlines():
        word, *numbers = line.split()
        if word == "energy":
            found.append({"energy": [], "virial": [], "force": []})
        if word != "ghosts":
            found[-1][word].append([float(number) for number in numbers])
    return [{word: np.array(rows) for word, rows in one.items()} for one in found]


def assert_answer(answer: dict[str, np.ndarray], expected: dpa2.Result, bound: float = SAME) -> None:
    assert relative(answer["energy"][0, 0], expected.energy) <= bound
    assert relative(answer["virial"], expected.virial) <= bound
    assert relative(answer["force"], expected.forces) <= bound


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("capi_builds")


@pytest.fixture(scope="module", params=[".c", ".cpp"])
def example(request: pytest.FixtureRequest, folder: Path) -> Path:
    """An example, built as its first lines say."""
    return build(EXAMPLES[request.param], folder)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "system"), [("base", "bulk"), ("base", "open"), ("rough_strip", "tiny")])
def test_examples(name: str, system: str, example: Path, folder: Path) -> None:
    model, structure, expected = write_case(name, system, folder)
    for threads in ([], ["2"]):
        printed = output_of([example, model, structure, *threads])
        found = answers(printed)
        assert len(found) == (2 if example.name.endswith("cpp") else 1)
        for answer in found:
            assert_answer(answer, expected)
        if len(found) == 2:
            (ghosts,) = re.findall(r"^ghosts (\d+)$", printed, re.MULTILINE)
            assert (int(ghosts) > 0) == (system != "open")


def test_example_in_float32(example: Path) -> None:
    from dpa2.embedded import default_model_path

    with default_model_path() as path:
        found = answers(output_of([example, path, ROOT / "examples" / "water_192.extxyz"]))
    assert found[0]["force"].shape == (192, 3)
    if len(found) == 2:
        assert relative(found[1]["force"], found[0]["force"]) <= 1e-5


def test_examples_say_what_is_wrong(example: Path, folder: Path) -> None:
    model, structure, _ = write_case("base", "open", folder)
    strange, short, columns = (folder / f"{name}.extxyz" for name in ("strange", "short", "columns"))
    strange.write_text("1\n\nXx 0 0 0\n")
    short.write_text("2\n\nO 0 0 0\n")
    columns.write_text("1\nProperties=pos:R:3:species:S:1\n0 0 0 O\n")
    twice = folder / "twice.extxyz"
    twice.write_text("2\n\nO 0 0 0\nH 0 0 0\n")
    for words, status, part in [
        ([], 2, "usage:"),
        ([folder / "absent.safetensors", structure], 1, "cannot read"),
        ([model, folder / "absent.extxyz"], 1, "absent.extxyz"),
        ([model, strange], 1, "does not know Xx"),
        ([model, short], 1, "line 4"),
        ([model, columns], 1, "columns must start with"),
        ([model, twice], 1, "atoms 0 and 1 are at the same place"),
    ]:
        done = subprocess.run([example, *words], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert part in done.stderr
        assert done.stdout == ""


@pytest.mark.slow
@needs.pkg_config
@pytest.mark.parametrize("suffix", [".c", ".cpp"])
def test_pkg_config(suffix: str, folder: Path, tmp_path: Path) -> None:
    where = output_of([sys.executable, "-m", "dpa2", "--pkgconfigdir"]).strip()
    assert output_of(["pkg-config", "--modversion", "dpa2"], PKG_CONFIG_PATH=where).strip() == dpa2.__version__
    flags = shlex.split(output_of(["pkg-config", "--cflags", "--libs", "dpa2"], PKG_CONFIG_PATH=where))
    model, structure, expected = write_case("base", "bulk", folder)
    for answer in answers(output_of([build(EXAMPLES[suffix], tmp_path, flags), model, structure])):
        assert_answer(answer, expected)


PROGRAMS = [("c", ".c", 0), ("c", ".c", 1), ("c", ".c", 2), ("cpp", ".cpp", 0)]


@pytest.mark.parametrize(("language", "suffix", "number"), PROGRAMS)
def test_programs_of_the_page(language: str, suffix: str, number: int, tmp_path: Path) -> None:
    blocks = code_blocks("docs/c.md", language)
    assert len(blocks) == len([one for one in PROGRAMS if one[0] == language])
    code = blocks[number]
    source = tmp_path / f"program{suffix}"
    source.write_text(code)
    program = build(source, tmp_path)
    failed = subprocess.run([program], cwd=tmp_path, capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "model.safetensors" in failed.stderr
    case = golden("base")
    assert case.config["type_map"][:2] == ["O", "H"]
    write_safetensors(tmp_path / "model.safetensors", ModelData(case.config, case.weights))
    coords = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    box = None if language == "c" else 10 * np.eye(3)
    model, types = model_of(case, device="cpu"), [0, 1, 1]
    expected = model.evaluate(coords, types, box).energy
    energy, *gradient = (float(word) for word in output_of([program], tmp_path).split())
    assert energy == pytest.approx(expected, abs=1e-10)
    assert len(gradient) == (9 if number == 1 else 0)
    if gradient:
        wanted = model.vjp(coords, types, box, {"descriptor": 2.0 * model.descriptor(coords, types, box)})[0]
        assert relative(np.reshape(gradient, (3, 3)), wanted) <= 1e-10
