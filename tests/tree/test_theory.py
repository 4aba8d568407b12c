"""docs/theory.md and the code: what is cited exists, the numbers are right, the glossary speaks of this code."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from cases import golden_cases, load_golden
from dpa2.reference.env_mat import env_mat, switch
from dpa2.reference.pair_attention import SHIFT, softmax
from kind_cases import KIND_CASES, load_kind

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", TEXT, re.MULTILINE)
RULES = re.findall(r"^\| ([PQS]\d+) \|", TEXT, re.MULTILINE)

SECTION, RULE = r"\d{1,2}(?:\.\d{1,2})?", r"[PQS]\d{1,2}"
ITEM = rf"(?:{SECTION}(?:-{SECTION})?|{RULE}(?:-{RULE})?)"
CITATION = re.compile(rf"\(theory ({ITEM}(?:, {ITEM})*)\)")
SUFFIXES = {".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".cpp", ".hpp", ".cu", ".cuh"}


def sources() -> list[Path]:
    """The source files of the tree, but for this one."""
    found = [p for room in ("include", "src", "engine", "tests", "bench", "examples") for p in (ROOT / room).rglob("*")]
    return sorted(path for path in found if path.suffix in SUFFIXES and path != Path(__file__).resolve())


def numbered_lines(pattern: str) -> list[tuple[str, str]]:
    """Lines of code where a pattern occurs: (file:line, the line)."""
    return [
        (f"{path.relative_to(ROOT).as_posix()}:{number}", line)
        for path in sources()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]


def missing(cited: str) -> list[str]:
    """The sections and rules of a list such as "8.5-8.7, S1" that the page does not have."""
    ends = re.split(r", |-", cited)
    return [end for end in ends if end not in SECTIONS and end not in RULES]


def test_sections_and_rules_are_numbered_through() -> None:
    chapters = [int(number) for number in SECTIONS if "." not in number]
    assert chapters == list(range(17))
    for chapter in chapters:
        within = [int(number.partition(".")[2]) for number in SECTIONS if number.startswith(f"{chapter}.")]
        assert within == list(range(1, len(within) + 1))
    for letter, first in (("P", 1), ("Q", 1), ("S", 0)):
        numbers = [int(rule[1:]) for rule in RULES if rule[0] == letter]
        assert len(numbers) >= 8
        assert numbers == list(range(first, first + len(numbers)))


def test_what_the_code_cites_exists() -> None:
    found = numbered_lines(r"\(theory\b")
    assert len(found) > 60
    assert [where for where, line in found if "(theory" in CITATION.sub("", line)] == []
    wrong = [(where, absent) for where, line in found for cited in CITATION.findall(line) if (absent := missing(cited))]
    assert wrong == []


def test_every_operation_is_cited() -> None:
    cited = {
        end
        for _, line in numbered_lines(r"\(theory\b")
        for several in CITATION.findall(line)
        for one in several.split(", ")
        for end in ends_between(one)
    }
    operations = [number for number in SECTIONS if number.startswith(("8.", "12."))]
    left_out = {
        "8.1",
        "8.2",
        "12.1",
        "12.4",
        "12.16",
        "12.17",
    }  # activations and products, which have no kernel of their own
    assert [number for number in operations if number not in cited | left_out] == []


def ends_between(item: str) -> list[str]:
    """All sections or rules of "8.5-8.7"."""
    first, _, last = item.partition("-")
    if not last:
        return [first]
    names = SECTIONS if first[0].isdigit() else RULES
    return names[names.index(first) : names.index(last) + 1]


def test_no_citation_of_another_form() -> None:
    assert numbered_lines(r"\((?:specification|design)\b|specification,|\b[Ss]ections? \d|\([PQS]\d{1,2}[,)-]") == []


def test_the_page_refers_to_itself_rightly() -> None:
    references = re.findall(rf"(?<!\])\(({ITEM}(?:, {ITEM})*)\)", TEXT)
    assert len(references) > 60
    assert [cited for cited in references if missing(cited)] == []
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    assert [anchor for anchor in re.findall(r"\]\(#([^)]+)\)", TEXT) if anchor not in anchors] == []


def test_formulas_are_such_that_markdown_leaves_them_alone() -> None:
    prose = re.sub(r"^```math\n.*?^```\n", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    formulas = re.findall(r"\$([^$\n]*)\$", prose)
    assert len(formulas) > 300
    assert [line for line in prose.splitlines() if line.count("$") % 2] == []
    assert [formula for formula in formulas if formula != formula.strip() or re.search(r"\\[,;:!|{}_]", formula)] == []


def numbers(pattern: str) -> list[float]:
    """The groups of a pattern that the page contains once."""
    flat = re.sub(r"\s+", " ", TEXT)
    found = re.findall(pattern, flat)
    assert len(found) == 1, pattern
    return [float(value) for value in found[0]]


def test_the_example_of_an_environment_row() -> None:
    decimal = r"(\d+\.?\d*)"
    pattern = rf"\$r_s = {decimal}\$, \$r_c = {decimal}\$, \$d = \((\d), (\d), (\d)\)\$ without protection gives "
    pattern += (
        rf"\$u = {decimal}\$, \$\\mathrm{{sw}} = {decimal}\$ and \$\\mathcal{{E}} = \({', '.join([decimal] * 4)}\)\$"
    )
    rcut_smth, rcut, *rest = numbers(pattern)
    d, (u, sw), row = np.array(rest[:3]), rest[3:5], rest[5:]
    r = np.array([np.linalg.norm(d)])
    statistics = np.zeros((1, 4)), np.ones((1, 4))
    got, weight = env_mat(d[None], r, np.zeros(1, int), *statistics, rcut_smth, rcut, 0.0)
    assert (r[0] - rcut_smth) / (rcut - rcut_smth) == pytest.approx(u, abs=6e-9)
    assert switch(r, rcut_smth, rcut)[0] == weight[0] == pytest.approx(sw, abs=6e-9)
    assert got[0] == pytest.approx(row, abs=6e-9)


def test_the_example_of_padded_slots_in_a_softmax() -> None:
    pattern = r"\$S = 0\$, \$\\mathrm\{sw\} = 1\$ and (\d+) padded slots has \$\\Pi = (0\.\d+)\$; with "
    pattern += r"\$\\mathrm\{sw\} = (0\.\d+)\$ and no gate it has \$b = (\d+)\$ and \$\\Pi = (0\.\d+)\$"
    pads, near, weight, logit, far = numbers(pattern)
    assert softmax(np.array([SHIFT]), int(pads))[0] == pytest.approx(near, abs=6e-9)
    assert SHIFT * weight**2 == logit
    assert softmax(np.array([logit]), int(pads))[0] == pytest.approx(far, abs=6e-9)


def expanded(pattern: str) -> list[str]:
    """All names of "a.{b,c}.{l}": alternatives one by one, {l} and {k} left."""
    pieces = [
        piece[1:-1].split(",") if piece.startswith("{") else [piece] for piece in re.split(r"(\{[^}]*\})", pattern)
    ]
    return [
        "".join(f"{{{part}}}" if part in ("l", "k") else part for part in parts) for parts in itertools.product(*pieces)
    ]


def test_every_weight_is_in_the_table() -> None:
    table = TEXT[TEXT.index("### 0.2 ") : TEXT.index("## 1. ")]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = {name for cell in cells for pattern in re.findall(r"`([^`]+)`", cell) for name in expanded(pattern)}
    used = set()
    names = [name for case in golden_cases() for name in load_golden(case).weights]
    names += [re.sub(r"^models\.\d+\.", "", name) for case in KIND_CASES for name in load_kind(case).weights]
    for name in names:
        general = re.sub(r"(?<=\.layers\.)\d+", "{l}", name)
        general = general.replace("embedding_net.layers.{l}", "embedding_net.layers.0")
        used.add(re.sub(r"(?<=_residual\.)\d+", "{k}", general))
    assert len(used) > 40
    assert used - listed == set()
    tables = {f"descriptor.{block}.table" for block in ("repinit", "repinit_three_body")}  # of compressed models
    assert listed - used - tables == set()


def words_of(*patterns: str) -> str:
    """The text of the source files that patterns name."""
    paths = sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.suffix in SUFFIXES)
    assert paths
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def test_the_glossary_speaks_of_this_code() -> None:
    others = {"cuda", "python", "capi", "lammps"}
    native = [f"src/{path.name}/*" for path in (ROOT / "src").iterdir() if path.is_dir() and path.name not in others]
    rooms = {
        "model files": words_of("src/schema/*", "engine/dpa2/files/*"),
        "C++": words_of(*native),
        "CUDA": words_of("src/cuda/*"),
        "Python": words_of("engine/dpa2/reference/*", "engine/dpa2/cuda/*"),
    }
    page = TEXT[TEXT.index("## 14. ") : TEXT.index("## 15. ")]
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    head = [cell.strip() for cell in rows[0]]
    assert head[2:] == list(rooms)
    assert len(rows) > 40
    absent = [
        (row[0].strip(), room, word)
        for row in rows[2:]
        for room, cell in zip(head[2:], row[2:], strict=True)
        for word in re.findall(r"`([^`]+)`", cell)
        if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", rooms[room])
    ]
    assert absent == []
