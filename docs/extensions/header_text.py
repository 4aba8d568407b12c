"""A C header as reStructuredText: its comments and declarations, in their order.

A comment of dashes begins a part; a comment before a declaration belongs to it. Indented lines of a comment that begin
with the name of an argument describe that argument.
"""

from __future__ import annotations

import re

PIECE = re.compile(
    r"/\*(?P<comment>.*?)\*/"
    r"|typedef (?P<kind>enum|struct) (?P<name>\w+) (?:\{(?P<body>.*?)\n\} \w+|\w+);"
    r"|DPA2_API (?P<function>[^;]*);"
    r"|#define (?P<macro>DPA2_ABI_VERSION) (?P<value>\d+)",
    re.DOTALL,
)
ARGUMENT = re.compile(r"^ {2,3}(\S+(?:, \S+)*|\S+ +\S+) {2,}(.*)$")
MEMBER = re.compile(
    r"^  /\*(?P<before>.*?)\*/$"
    r"|^  (?P<declared>[^/;,{}]+?(?:\([^)]*\))?(?: = \d+)?)[;,]?(?:\s*/\*(?P<comment>.*?)\*/)?$",
    re.DOTALL | re.MULTILINE,
)


def literal(text: str) -> str:
    """A line of a comment, with names of this interface and quoted words in the font of code."""
    text = re.sub(r" ?@since (\d+) stands for version \1\.", "", text)
    text = re.sub(r"@since (\d+)", r"Since version \1", text)
    text = re.sub(r"`([^`]+)`", r"``\1``", text)
    text = re.sub(r"(?<![`\w\"])(dpa2_\w+|DPA2_\w+|[a-z]\w*\[[^\s,;:]+)(?![`\w])", r"``\1``", text)
    text = re.sub(r'"([\w:.]*)"', r'``"\1"``', text)
    return text


def lines_of(comment: str) -> list[str]:
    """A comment without its frame."""
    return [
        re.sub(r"^ ?\*? ?", "", line, count=1).rstrip() if k else line.strip()
        for k, line in enumerate(comment.splitlines())
    ]


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


def parts(text: str) -> dict[str, str]:
    """The header without what is for compilers: what is before the first section under "", the rest under titles."""
    text = text[text.index('extern "C" {') : text.rindex("#ifdef __cplusplus")]
    pieces = re.split(r"/\* ---- (.*?) -+ \*/", text)
    return {"": pieces[0], **dict(zip(pieces[1::2], pieces[2::2], strict=True))}


def indented(lines: list[str]) -> list[str]:
    return [f"   {line}".rstrip() for line in lines]


def members(body: str, role: str) -> list[str]:
    """Of a struct or an enumeration; a comment is behind its member, or on lines of its own before it."""
    out: list[str] = []
    before = ""
    for found in MEMBER.finditer(body):
        note = " ".join(line.strip() for line in (found["comment"] or found["before"] or "").split())
        if found["before"]:
            before = note
            continue
        declared, _, value = found["declared"].strip().partition(" = ")
        said = [f"Value {value}{': ' if note else ''}"] if value else [before] if before else []
        out += [f".. c:{role}:: {declared}", "", *indented(["".join([*said, literal(note)]), ""])]
        before = ""
    return out


def rest(text: str) -> list[str]:
    """A part of the header as reStructuredText."""
    out: list[str] = []
    comment = ""
    for found in PIECE.finditer(text):
        if found["comment"] is not None:
            out += described(comment) if comment else []
            comment = found["comment"]
            continue
        if found["function"]:
            declared = re.sub(r"\s+", " ", found["function"])
            out += [f".. c:function:: {declared}", "", *indented(described(comment))]
        elif found["macro"]:
            out += [
                f".. c:macro:: {found['macro']}",
                "",
                *indented([f"Value {found['value']}.", "", *described(comment)]),
            ]
        else:
            role = "member" if found["kind"] == "struct" else "enumerator"
            out += [f".. c:{found['kind']}:: {found['name']}", "", *indented(described(comment))]
            out += indented(members(found["body"] or "", role))
        comment = ""
    return out
