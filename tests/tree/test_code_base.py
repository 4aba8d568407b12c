"""The rules that the tree itself keeps: who may include whom, what the package may import, what is installed."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import dpa2
import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "engine" / "dpa2"
FOLDERS = ("include", "src", "engine", "tests", "examples", "bench")
LONGEST_FILE = 520
SOURCE_SUFFIXES = {".py", ".pyi", ".c", ".cpp", ".hpp", ".h", ".cu", ".cuh", ".pyx", ".pxd"}

# room of src/ -> the rooms whose headers it may include, besides the headers that lie in src/ itself
MAY_INCLUDE = {
    "math": {"math"},
    "neighbors": {"neighbors", "schema", "math"},
    "cpu": {"cpu", "math"},
    "cuda": {"cuda", "math"},
    "schema": {"schema", "math"},
    "fold": {"fold", "schema", "math"},
    "graph": {"graph", "fold", "schema", "cpu", "neighbors", "math"},
    "heads": {"heads", "graph", "fold", "schema", "neighbors", "math"},
    "gpu": {"gpu", "cuda", "fold", "schema", "neighbors", "math"},
    "model": {"model", "heads", "graph", "gpu", "fold", "schema", "cpu", "neighbors", "math"},
    "train": {"train", "model", "heads", "graph", "fold", "schema", "cpu", "neighbors", "math"},
    "python": {"python", "model", "train", "graph", "gpu", "fold", "schema", "neighbors", "math"},
    "capi": {"capi", "model", "schema"},
    "lammps": set(),
}
# the rooms that may include the public headers; LAMMPS's also compiles outside of the tree, with nothing but these
KNOW_PUBLIC_HEADERS = {"capi", "lammps"}
# what nothing but an adapter of that name may import
FRAMEWORKS = {"torch", "jax", "tensorflow", "deepmd", "paddle", "flax"}


def sources(*folders: str) -> list[Path]:
    """The source files below these folders of the tree, none of them generated."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in SOURCE_SUFFIXES]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts))


def installed_files() -> list[Path]:
    """What the installation of the package put into its folder; nothing for an editable one."""
    return [Path(path) for path in metadata.files("dpa2") or [] if path.parts[0] == "dpa2"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def includes(path: Path) -> list[tuple[str, str]]:
    """What a C++ file includes: ('"' or '<', the path)."""
    return re.findall(r'^\s*#\s*include\s*(["<])([^">]+)[">]', path.read_text(encoding="utf-8"), re.MULTILINE)


def imports(path: Path) -> set[str]:
    """The top-level names of the packages that a Python or Cython file imports anywhere in it."""
    if path.suffix in {".pyx", ".pxd"}:
        lines = re.findall(r"^\s*(?:from|c?import)\s+([A-Za-z_]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE)
        return set(lines)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            found.add(node.module.partition(".")[0])
    return found


def test_files_are_short() -> None:
    lengths = {name_of(p): len(p.read_text(encoding="utf-8").splitlines()) for p in sources(*FOLDERS)}
    assert len(lengths) > 100
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


@pytest.mark.parametrize("room", sorted(path.name for path in (ROOT / "src").iterdir() if path.is_dir()))
def test_rooms_include_one_way(room: str) -> None:
    assert room in MAY_INCLUDE, "a new room must state whom it may include"
    wrong = []
    for path in sources(f"src/{room}"):
        for kind, header in includes(path):
            target = header.partition("/")[0] if "/" in header else ""
            own = target == "" or target in MAY_INCLUDE[room]
            places = [ROOT / "src", ROOT / "src" / "lammps"] if room == "lammps" else [ROOT / "src"]
            if room in KNOW_PUBLIC_HEADERS:
                places.append(ROOT / "include")
            if kind == '"' and (not own or not any((place / header).is_file() for place in places)):
                wrong.append(f"{name_of(path)}: {header}")
    assert wrong == []


def test_headers_at_the_bottom_include_no_room() -> None:
    headers = [path for path in sources("src") if path.parent == ROOT / "src"]
    assert headers
    assert [
        path.name for path in headers if any("/" in header and kind == '"' for kind, header in includes(path))
    ] == []


def test_scalar_mathematics_needs_no_standard_library_but_for_numbers() -> None:
    allowed = {"cmath", "math.h", "limits", "type_traits"}
    found = {header for path in sources("src/math") for kind, header in includes(path) if kind == "<"}
    assert found <= allowed


def test_python_is_known_to_one_room_only() -> None:
    words = re.compile(r"pybind11|Python\.h|\bPyObject\b")
    found = {name_of(path) for path in sources("src") if words.search(path.read_text(encoding="utf-8"))}
    assert all(name.startswith("src/python/") for name in found)
    assert found


def test_package_imports_no_framework() -> None:
    found = {name_of(path): imports(path) & FRAMEWORKS for path in sources("engine")}
    assert {name: names for name, names in found.items() if names} == {
        "engine/dpa2/jax.py": {"jax"},
        "engine/dpa2/torch.py": {"torch"},
        "engine/dpa2/torchsim.py": {"torch"},
    }


def test_package_imports_what_it_declares() -> None:
    declared = {re.split(r"[^A-Za-z0-9_-]", line)[0].lower() for line in metadata.requires("dpa2") or []}
    distribution = {
        "yaml": "pyyaml",
        "cupy": "cupy-cuda13x",
        "torch_sim": "torch-sim-atomistic",
        "sklearn": "scikit-learn",
    }
    outside = set().union(*(imports(path) for path in sources("engine"))) - set(sys.stdlib_module_names) - {"dpa2"}
    assert outside
    assert {distribution.get(name, name) for name in outside} <= declared


def test_the_reference_needs_numpy_only() -> None:
    found = set().union(*(imports(path) for path in sources("engine/dpa2/reference")))
    assert found - set(sys.stdlib_module_names) == {"numpy", "dpa2"} & found


def test_the_reference_is_not_part_of_what_it_judges() -> None:
    """Outside of its folder only the choice of a device imports it."""
    package = r"(?:from|import)\s+(?:dpa2)?\.*reference\b"
    name = r"from\s+(?:dpa2|\.+)\s+import\b.*\breference\b"
    pattern = re.compile(rf"^\s*(?:{package}|{name})", re.MULTILINE)
    files = [path for path in sources("engine") if path.parent.name != "reference"]
    found = {path.relative_to(ENGINE).as_posix() for path in files if pattern.search(path.read_text(encoding="utf-8"))}
    assert found == {"engines.py"}


def test_terms_of_a_layer_are_asked_for_in_one_way() -> None:
    """Which terms a layer has follows from the options in one place: kernels' callers and folds ask for features."""
    option = re.compile(r"^(?!\s*//).*\b(update_g[12]_has_\w+|g1_out_(?:conv|mlp))\b", re.MULTILINE)
    files = sources("src", "engine/dpa2/cuda")
    found = {name_of(path) for path in files if option.search(path.read_text(encoding="utf-8"))}
    assert found == {f"src/schema/{name}" for name in ("config.hpp", "features.hpp", "options.cpp")}


def test_no_test_looks_at_the_clock() -> None:
    """How long something takes depends on what else the machine does."""
    clock = re.compile(r"\b(perf_counter|monotonic|process_time|timeit|time\.time)\b")
    files = [path for path in sources("tests") if path.name.startswith("test_") and path != Path(__file__).resolve()]
    assert [name_of(path) for path in files if clock.search(path.read_text(encoding="utf-8"))] == []


def test_version_stands_in_one_place() -> None:
    stated = re.findall(r"^\s*version: '([^']+)'", (ROOT / "meson.build").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(stated) == 1
    assert dpa2.__version__ == metadata.version("dpa2") == stated[0]
    assert f"## {stated[0]}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    literal = re.compile(rf"(?<![\d.]){re.escape(stated[0])}(?![\d.])")
    files = [*sources("src", "engine"), ROOT / "pyproject.toml", ROOT / "README.md"]
    assert [name_of(path) for path in files if literal.search(path.read_text(encoding="utf-8"))] == []


def test_nothing_is_left_open() -> None:
    words = re.compile("|".join(["TO" + "DO", "FIX" + "ME", r"\bXX" + r"X\b"]))
    files = sources(*FOLDERS)
    assert [name_of(path) for path in files if words.search(path.read_text(encoding="utf-8"))] == []


def test_every_file_of_the_package_is_installed_and_nothing_else() -> None:
    """Python files, stubs, what Cython needs, the marker of type hints, the embedded model, the compiled modules."""
    names = {path.as_posix() for path in installed_files() if "__pycache__" not in path.parts}
    if not names:
        pytest.skip("editable install")
    expected = {
        path.relative_to(ENGINE.parent).as_posix()
        for path in ENGINE.rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".pyx"}
    }
    compiled = {name for name in names if re.fullmatch(r"dpa2/(_native|cython_api)\.[^/]*\.?(so|pyd)", name)}
    assert len(compiled) == 2
    c_face = {"dpa2/lib/libdpa2.so", "dpa2/lib/pkgconfig/dpa2.pc", "dpa2/include/dpa2.h", "dpa2/include/dpa2.hpp"}
    plugin = {f"dpa2/lammps/src/{path.name}" for path in (ROOT / "src" / "lammps").glob("*.[ch]*")}
    kernels = {
        f"dpa2/cuda/src/{path.relative_to(ROOT / 'src').as_posix()}"
        for room in ("cuda", "math")
        for path in (ROOT / "src" / room).iterdir()
    }
    optional = {"dpa2/lammps/plugins/dpa2plugin.so", "dpa2/lammps/plugins/built_for"}
    assert names - compiled - optional == expected | c_face | plugin | kernels | {"dpa2/_version.py"}
    assert {"dpa2/py.typed", "dpa2/_native.pyi", "dpa2/models/water.safetensors"} <= names
    others = {path.parts[0] for path in metadata.files("dpa2") or []} - {"dpa2", ".."}
    assert all(re.fullmatch(r"dpa2-[^/]*\.dist-info", part) for part in others), others


def test_stub_declares_what_the_compiled_module_has() -> None:
    from dpa2 import _native

    tree = ast.parse((ENGINE / "_native.pyi").read_text(encoding="utf-8"))
    declared = {
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    }
    assert declared == {name for name in dir(_native) if not name.startswith("_")}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            methods = {m.name for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")}
            assert methods == {name for name in dir(getattr(_native, node.name)) if not name.startswith("_")}


def test_stub_declares_what_the_module_for_cython_has() -> None:
    from dpa2 import cython_api

    tree = ast.parse((ENGINE / "cython_api.pyi").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert sorted(classes) == cython_api.__all__
    for name, node in classes.items():
        declared = {member.name for member in node.body if isinstance(member, ast.FunctionDef)} - {"__init__"}
        assert declared == {member for member in dir(getattr(cython_api, name)) if not member.startswith("_")}
