"""The pages of the site: all are found from the first one, and messages that they explain are those of the program."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from pages import ROOT

DOCS = ROOT / "docs"
PAGES = ("*.md", "docs/**/*.md", "bench/**/*.md", "examples/**/*.md", "tests/golden/README.md")  # as in docs/conf.py


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_listed_once() -> None:
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): ", text, re.MULTILINE)
    found = {path for pattern in PAGES for path in ROOT.glob(pattern)} - {DOCS / "index.md"}
    assert sorted((DOCS / name).resolve() for name in listed) == sorted(found)


def test_anchors_are_headings() -> None:
    """As GitHub and MyST make them of headings."""
    pages = {path.resolve(): path.read_text(encoding="utf-8") for pattern in PAGES for path in ROOT.glob(pattern)}
    for path, text in pages.items():
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", text):
            headings = re.findall(
                r"^#+ (.*)$", pages[(path.parent / target).resolve() if target else path], re.MULTILINE
            )
            slugs = {re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", h)).lower() for h in headings}
            assert anchor in {slug.replace(" ", "-") for slug in slugs}, f"{path.name}: {target}#{anchor}"


def literals() -> str:
    """What the program may say: all its sources, pieces of a literal joined, and what is put into them left out."""
    paths = [*(ROOT / "engine" / "dpa2").rglob("*.py"), *(ROOT / "src").rglob("*.[ch]pp")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    joined = re.sub(r'"\s*\n?\s*f?"', "", text)
    return joined + re.sub(r"\{[^{}]*\}", "", joined)


def test_messages_that_are_explained_exist() -> None:
    known = literals()
    text = (DOCS / "faq.md").read_text(encoding="utf-8")
    explained = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert len(explained) > 30
    messages = {message for heading in explained for message in re.findall(r"`([^`]+)`", heading)}
    messages.remove("Unrecognized pair style 'dpa2'")  # LAMMPS's own
    pieces = {piece.strip(" ,;:") for message in messages for piece in message.split("...")} - {""}
    assert sorted(piece for piece in pieces if piece not in known) == []


def test_the_glossary_is_in_order() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| ([^|]+?) \|", text, re.MULTILINE)[1:]
    assert len(words) > 30
    assert words == sorted(words, key=str.lower)


def test_the_picture_has_the_numbers_of_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    picture = load(ROOT / "bench" / "picture.py")
    head, *rows = picture.rows("speed.md", "deepmd-kit, ms per atom")
    assert [len(row) for row in rows] == [len(head)] * 6
    for row in rows:
        least, *_, most = (float(number) for number in re.findall(r"\d+", row[5]))
        assert 0.8 * least < float(row[3]) / float(row[4]) < 1.25 * most
    assert float(max(picture.rows("accuracy.md", "forces")[1], key=float)) < picture.BOUND


def test_the_reference_of_c_has_every_function() -> None:
    header = (ROOT / "include" / "dpa2.h").read_text(encoding="utf-8")
    text = load(DOCS / "extensions" / "header_text.py")
    page = (DOCS / "reference" / "c.md").read_text(encoding="utf-8")
    shown = ["", *re.findall(r"^   :part: (.*)$", page, re.MULTILINE)]
    assert shown == list(text.parts(header))
    found = "\n".join(line for part in text.parts(header).values() for line in text.rest(part))
    names = re.findall(r"^DPA2_API [^;]*?\b(dpa2_\w+)\(", header, re.MULTILINE)
    assert len(names) > 40
    assert [name for name in names if not re.search(rf"^\.\. c:function:: .*\b{name}\(", found, re.MULTILINE)] == []
