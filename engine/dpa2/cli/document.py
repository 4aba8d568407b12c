"""What ``--json`` prints: one document on stdout, and nothing else there."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any

from . import common


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")


def plain(value: Any) -> Any:
    """A value of numbers, arrays, lists and dicts as JSON knows them; null for what is not finite."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dump(value: Any) -> None:
    """Print a whole document."""
    _print(json.dumps(plain(value), indent=2) + "\n")


def _print(text: str) -> None:
    with common.stdout_named():
        print(text, end="", flush=True)


class Document:
    """An object on stdout with a list in it that is printed as it grows, so that it may be longer than the memory.

    Used in a ``with`` statement, whose end is that of the object. Where an error ends it, what was printed is complete
    and has an entry ``error``; nothing is printed if the error comes before the first entry of the list.

    Args:
        head: what stands in front of the list.
        name: of the list.
        wanted: False prints nothing.

    Attributes:
        tail: what stands behind the list.
    """

    def __init__(self, head: Mapping[str, Any], name: str, wanted: bool = True) -> None:
        self.head = dict(head)
        self.name = name
        self.wanted = wanted
        self.tail: dict[str, Any] = {}
        self._entries = 0
        self._open = False

    def __enter__(self) -> Document:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self.wanted or isinstance(error, OSError) or not (self._open or error is None):
            return
        self._begin()
        tail = self.tail if error is None else {**self.tail, "error": common.words_of(error)}
        pairs = "".join(f",\n{json.dumps(key)}: {json.dumps(plain(value))}" for key, value in tail.items())
        _print(f"\n]{pairs}}}\n")

    def _begin(self) -> None:
        if not self._open:
            pairs = "".join(f"{json.dumps(key)}: {json.dumps(plain(value))},\n" for key, value in self.head.items())
            _print(f"{{{pairs}{json.dumps(self.name)}: [")
            self._open = True

    def add(self, entry: Mapping[str, Any]) -> None:
        """One entry more of the list."""
        if self.wanted:
            self._begin()
            _print((",\n" if self._entries else "\n") + json.dumps(plain(entry)))
            self._entries += 1
