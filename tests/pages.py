"""Code that stands in the pages of documentation, for the tests that run it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def code_blocks(page: str, language: str, section: str | None = None) -> list[str]:
    """The fenced blocks of a language in a page, named from the root of the tree, in their order; at least one.

    With a section those between its heading, of the second level, and the next."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if section is not None:
        (text,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, f"no {language} in {page}"
    return found


def run_page(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, section: str | None = None) -> dict[str, Any]:
    """Run the Python blocks of a page, or of one of its sections, where the files lie that they read; returns what they
    leave behind."""
    shutil.copy(ROOT / "examples" / "water_192.extxyz", folder)
    shutil.copy(ROOT / "tests" / "golden" / "files" / "trained" / "model.pth", folder)
    for path in (ROOT / "examples" / "spectra" / "models").iterdir():
        shutil.copy(path, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names: dict[str, Any] = {}
    for block in code_blocks(f"docs/{name}", "python", section):
        exec(compile(block, name, "exec"), names)
    return names
