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

    Used in a ``with`` statement. Where an error ends it, what was printed is complete and has an entry ``error``;
    nothing is printed if the error comes before the first entry of the list.

    Args:
        head: what stands in front of the list.
        name: of the list.
    """

    def __init__(self, head: Mapping[str, Any], name: str) -> None:
        self.head = dict(head)
        self.name = name
        self.entries = 0
        self._open = False

    def __enter__(self) -> Document:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._open and not isinstance(error, OSError):
            self.finish(error=None if error is None else common.words_of(error))

    def _begin(self) -> None:
        if not self._open:
            pairs = "".join(f"{json.dumps(key)}: {json.dumps(plain(value))},\n" for key, value in self.head.items())
            _print(f"{{{pairs}{json.dumps(self.name)}: [")
            self._open = True

    def add(self, entry: Mapping[str, Any]) -> None:
        """One entry more of the list."""
        self._begin()
        _print((",\n" if self.entries else "\n") + json.dumps(plain(entry)))
        self.entries += 1

    def finish(self, **tail: Any) -> None:
        """The end, with what stands behind the list; entries that are None are left out."""
        self._begin()
        pairs = "".join(
            f",\n{json.dumps(key)}: {json.dumps(plain(value))}" for key, value in tail.items() if value is not None
        )
        _print(f"\n]{pairs}}}\n")
        self._open = False
