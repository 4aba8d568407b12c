"""Code that stands in the pages of documentation, for the tests that run it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def code_blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language in a page, named from the root of the tree, in their order; at least one."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, f"no {language} in {page}"
    return found
