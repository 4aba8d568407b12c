"""`.yaml` files: a tree from the events of a YAML parser, without recursion, tags, merging or cyclic aliases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpa2 import optional
from dpa2.errors import ModelFileError

MAX_DEPTH = 100
_INT = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_DIRECTIVE = re.compile(rb"(?:[\r\n]|\xc2\x85|\xe2\x80[\xa8\xa9])%")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    ".inf": float("inf"),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}
_MISSING = object()


def _plain(text: str) -> Any:
    """The value of an unquoted scalar. Words such as `no` stay text: they are chemical symbols here."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if len(text) < 400 and _FLOAT.fullmatch(text):
        return float(text)
    return text


def _refuse_directives(path: Path) -> None:
    """No model has them, and the parser compares each with all others: a small file could keep it busy for hours."""
    with path.open("rb") as stream:
        tail = b"\n"
        while block := stream.read(2**20):
            if _DIRECTIVE.search(tail + block.removeprefix(b"\xef\xbb\xbf")):
                raise ModelFileError("hostile file: a line of the YAML begins with %")
            tail = block[-3:]


def _events(path: Path) -> Iterator[Any]:
    yaml = optional.yaml()
    _refuse_directives(path)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with path.open("rb") as stream:
        try:
            yield from yaml.parse(stream, Loader=loader)
        except (yaml.YAMLError, UnicodeError, ValueError) as err:
            detail = " ".join(str(err).split())[:200]
            raise ModelFileError(f"this is no model file, or the YAML is damaged ({detail})") from None


class _Frame:
    """A list or mapping under construction."""

    __slots__ = ("anchor", "key", "target")

    def __init__(self, target: list[Any] | dict[str, Any], anchor: str | None) -> None:
        self.target, self.anchor = target, anchor
        self.key: Any = _MISSING

    def add(self, value: Any) -> None:
        if isinstance(self.target, list):
            self.target.append(value)
        elif self.key is _MISSING:
            if not isinstance(value, str) or value == "<<":
                raise ModelFileError("corrupt file: a key in the YAML is not a plain name")
            if value in self.target:
                raise ModelFileError(f"corrupt file: the key {value[:60]!r} occurs twice in the YAML")
            self.key = value
        else:
            self.target[self.key] = value
            self.key = _MISSING


def load(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds."""
    yaml = optional.yaml()
    stack: list[_Frame] = []
    anchors: dict[str, Any] = {}
    root: Any = _MISSING

    def deliver(value: Any, anchor: str | None) -> None:
        nonlocal root
        if anchor is not None:
            anchors[anchor] = value
        if stack:
            stack[-1].add(value)
        elif root is _MISSING:
            root = value
        else:
            raise ModelFileError("corrupt file: the YAML has several documents")

    for event in _events(path):
        kind = type(event)
        if kind is yaml.ScalarEvent:
            if event.tag is not None and not event.tag.startswith("tag:yaml.org,2002:str"):
                raise ModelFileError(f"hostile file: the YAML has the tag {event.tag[:60]!r}")
            plain = event.implicit[0] and event.tag is None
            deliver(_plain(event.value) if plain else event.value, event.anchor)
        elif kind in (yaml.SequenceStartEvent, yaml.MappingStartEvent):
            if event.tag is not None:
                raise ModelFileError(f"hostile file: the YAML has the tag {event.tag[:60]!r}")
            if len(stack) >= MAX_DEPTH:
                raise ModelFileError("hostile file: the YAML nests too deeply")
            stack.append(_Frame([] if kind is yaml.SequenceStartEvent else {}, event.anchor))
        elif kind in (yaml.SequenceEndEvent, yaml.MappingEndEvent):
            frame = stack.pop()
            deliver(frame.target, frame.anchor)
        elif kind is yaml.AliasEvent:
            if event.anchor not in anchors:
                raise ModelFileError("hostile file: the YAML has an alias to something unknown or to itself")
            deliver(anchors[event.anchor], None)
    if not isinstance(root, dict):
        raise ModelFileError("this is no model file: the text is not a YAML mapping")
    return root
