"""Small structures for the commands that move atoms: a molecule of water, and a crystal of two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_runs import run_command

MOLECULE = """3
a molecule of water
O 0.0 0.0 0.0
H 0.9572 0.0 0.0
H -0.24 0.9266 0.0
"""
CRYSTAL = """6
Lattice="{a} 0 0 0 {a} 0 0 0 {c}" Properties=species:S:1:pos:R:3 pbc="T T T"
O 0.0 0.0 0.0
H 0.76 0.0 0.59
H -0.76 0.0 0.59
O {half} {half} {middle}
H {half} {above} {upper}
H {half} {below} {upper}
"""


def write_molecule(folder: Path, name: str = "molecule.xyz") -> str:
    """The name of a file with a molecule."""
    (folder / name).write_text(MOLECULE)
    return name


def write_crystal(folder: Path, a: float = 3.2, c: float = 5.4) -> str:
    """The name of a file with a tetragonal crystal of molecules."""
    half, middle = a / 2, c / 2
    numbers = {"a": a, "c": c, "half": half, "middle": middle, "above": half + 0.76, "below": half - 0.76}
    (folder / "crystal.xyz").write_text(CRYSTAL.format(**numbers, upper=middle + 0.59))
    return "crystal.xyz"


def run_json(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    """The document of a command that must succeed and say nothing on stderr."""
    document: dict[str, Any] = json.loads(run_command(capsys, *args, "--json"))
    return document
