"""A directive that describes a C header: its sections, comments and declarations, in their order.

A comment before a declaration belongs to it; a comment of dashes begins a section. Indented lines of a comment that begin
with the name of an argument describe that argument.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.nodes import nested_parse_with_titles

PIECE = re.compile(
    r"/\* ---- (?P<section>.*?) -+ \*/"
    r"|/\*(?P<comment>.*?)\*/"
    r"|typedef (?P<kind>enum|struct) (?P<name>\w+) (?:\{(?P<body>.*?)\n\} \w+|\w+);"
    r"|DPA2_API (?P<function>[^;]*);"
    r"|#define (?P<macro>DPA2_ABI_VERSION) (?P<value>\d+)",
    re.DOTALL,
)
ARGUMENT = re.compile(r"^ {2,3}(\S+(?:, \S+)*|\S+ +\S+) {2,}(.*)$")
MEMBER = re.compile(r"^  (?P<declared>[^/;,{}]+?(?:\([^)]*\))?(?: = \d+)?)[;,]?(?:\s*/\*(?P<comment>.*?)\*/)?$", re.DOTALL | re.MULTILINE)


def literal(text: str) -> str:
    """A line of a comment, with names of this interface and quoted words in the font of code."""
    text = re.sub(r"@since (\d+) stands for version \1", r"that is what *since version* speaks of", text)
    text = re.sub(r"@since (\d+)", r"Since version \1", text)
    text = re.sub(r"`([^`]+)`", r"``\1``", text)
    text = re.sub(r"(?<![`\w\"])(dpa2_\w+|DPA2_\w+|[a-z]\w*\[[^\s,;:]+)(?![`\w])", r"``\1``", text)
    text = re.sub(r'"([\w:.]*)"', r'``"\1"``', text)
    return text


def lines_of(comment: str) -> list[str]:
    """A comment without its frame."""
    return [re.sub(r"^ ?\*? ?", "", line, count=1).rstrip() if k else line.strip() for k, line in enumerate(comment.splitlines())]


def described(comment: str) -> list[str]:
    """reStructuredText: prose as it is, arguments as a list of definitions, the version at the end."""
    since = re.findall(r"@since (\d+)\.?\s*$", comment)
    comment = re.sub(r"\s*@since \d+\.?\s*$", "", comment)
    out: list[str] = []
    inside = False
    for line in lines_of(comment):
        if found := ARGUMENT.match(line):
            out += [""] * (not inside or out[-1] != "") + [f"``{found[1].strip('`')}``", f"   {literal(found[2])}"]
            inside = True
        elif inside and line.startswith("      "):
            out.append(f"   {literal(line.strip())}")
        else:
            out += [""] * inside + [literal(line.strip())]
            inside = False
    return [*out, ""] + ([f"Since version {since[0]} of the interface.", ""] if since and since[0] != "1" else [])


def rest(text: str) -> list[str]:
    """The header as reStructuredText."""
    out: list[str] = []
    comment = ""

    def indented(lines: list[str]) -> list[str]:
        return [f"   {line}".rstrip() for line in lines]

    for found in PIECE.finditer(text):
        if found["section"]:
            out += ["", found["section"][0].upper() + found["section"][1:], "~" * len(found["section"]), ""]
        elif found["comment"] is not None:
            if comment:
                out += described(comment)
            comment = found["comment"]
            continue
        elif found["function"]:
            declared = re.sub(r"\s+", " ", found["function"])
            out += [f".. c:function:: {declared}", "", *indented(described(comment))]
        elif found["macro"]:
            out += [f".. c:macro:: {found['macro']}", "", *indented([f"{found['value']}.", "", *described(comment)])]
        else:
            kind = "struct" if found["kind"] == "struct" else "enum"
            out += [f".. c:{kind}:: {found['name']}", "", *indented(described(comment))]
            body = re.sub(r"\n +/\*([^*]*)\*/\n", "\n", found["body"] or "")  # a comment on the next members: in the prose above
            for member in MEMBER.finditer(body):
                note = " ".join(line.strip() for line in (member["comment"] or "").split())
                name = re.sub(r" = \d+$", "", member["declared"].strip())
                role = "member" if kind == "struct" else "enumerator"
                value = re.findall(r"= (\d+)$", member["declared"])
                text_of = [f"{value[0]}. {literal(note)}".strip() if value else literal(note), ""]
                out += indented([f".. c:{role}:: {name}", "", *indented(text_of)])
        comment = ""
    return out


class Header(Directive):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        settings: Any = self.state.document.settings
        path = Path(settings.env.srcdir, self.arguments[0])
        settings.env.note_dependency(str(path))
        text = path.read_text(encoding="utf-8")
        text = text[text.index("extern \"C\" {") :]
        node = nodes.section()
        node.document = self.state.document
        nested_parse_with_titles(self.state, StringList(rest(text), source=str(path)), node)
        return node.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("c-header", Header)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
