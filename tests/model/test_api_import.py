"""``import dpa2`` gives the public names at once and loads nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys

import dpa2
import pytest

HEAVY = [
    "numpy",
    "h5py",
    "yaml",
    "safetensors",
    "tqdm",
    "ase",
    "dpa2._native",
    "dpa2.model",
    "dpa2.files",
    "importlib.metadata",
]


def test_nothing_heavy_is_imported() -> None:
    code = f"import sys, dpa2; dir(dpa2); print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_only_the_standard_library_is_imported() -> None:
    code = "import sys; before = set(sys.modules); import dpa2; print(*(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    packages = {name.partition(".")[0] for name in found.split()} - set(sys.stdlib_module_names)
    assert packages == {"dpa2"}


def test_evaluation_needs_numpy_only() -> None:
    names = ["h5py", "yaml", "tqdm", "ase", "dpa2.cli", "dpa2.data"]
    code = f"import sys, dpa2; dpa2.load; dpa2.compute_descriptor; print([n for n in {names} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"


def test_public_names() -> None:
    for name in dpa2.__all__:
        assert getattr(dpa2, name) is not None
    assert set(dpa2.__all__) <= set(dir(dpa2))
    assert dpa2.load.__module__ == "dpa2.model"
    assert re.match(r"\d", dpa2.__version__)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'evaluator'"):
        dpa2.evaluator  # noqa: B018
