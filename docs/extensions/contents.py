"""The contents of the site, from the list of pages that people read: sections and links of docs/index.md."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]


def sections(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titles of sections, and of the pages in their lists with the paths of these."""
    found = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        pages = re.findall(r"^- \[([^\]]+)\]\(([^)#]+)\.md\)", section, re.MULTILINE)
        if pages:
            found.append((section.splitlines()[0], pages))
    return found


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """The page in front gets what Sphinx makes its menu of."""
    if page != app.config.root_doc:
        return
    folder = os.path.dirname(page)
    for title, pages in sections(source[0]):
        listed = "\n".join(f"{name} </{os.path.normpath(os.path.join(folder, path))}>" for name, path in pages)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{listed}\n```\n"


def add_start(app: Sphinx, error: Exception | None) -> None:
    """The address of the site itself leads to the page in front."""
    if error is None and app.builder.format == "html":
        lead = f'<meta http-equiv="refresh" content="0; url={app.config.root_doc}.html">'
        page = f'<!doctype html><meta charset="utf-8"><title>dpa2</title>{lead}\n'
        Path(app.outdir, "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_start)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
