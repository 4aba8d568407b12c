"""How much a command prints, and the file that gets it as well: ``-v`` and ``-l``, as ``dp`` has them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

#: deepmd-kit's levels, the more the more is said
ERROR, WARNING, INFO, DEBUG = range(4)
_NAMES = {"ERROR": ERROR, "WARNING": WARNING, "INFO": INFO, "DEBUG": DEBUG}


class _State:
    level = INFO
    file: IO[str] | None = None


def level(text: str) -> int:
    """A level by its name or number."""
    found = _NAMES.get(text.upper())
    if found is None and text in {str(number) for number in _NAMES.values()}:
        found = int(text)
    if found is None:
        raise ValueError
    return found


level.__name__ = "level of messages"  # argparse names it


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """``-v`` and ``-l``."""
    parser.add_argument(
        "-v",
        "--log-level",
        type=level,
        default=INFO,
        metavar="LEVEL",
        help="0 or ERROR: only errors are printed; 1 or WARNING: warnings too; 2 or INFO, 3 or DEBUG: everything\n"
        "(default: INFO)",
    )
    parser.add_argument("-l", "--log-path", metavar="LOG", help="write what is printed to this file as well")


@contextmanager
def logged(args: argparse.Namespace, inputs: Sequence[str]) -> Iterator[None]:
    """What these options ask for, as long as the context lasts; an error that ends it is in the file, too.

    Args:
        args: with these options.
        inputs: files that must not be written to.

    Raises:
        InputError: the file is an input, or a folder. OSError: it cannot be written.
    """
    from . import common

    if args.log_path is not None:
        os.makedirs(os.path.dirname(args.log_path) or ".", exist_ok=True)
        common.check_output(args.log_path, ("",), inputs)
    _State.level = args.log_level
    try:
        if args.log_path is None:
            yield
            return
        with open(args.log_path, "w", encoding="utf-8") as _State.file:
            try:
                yield
            except common.EXPECTED as error:
                keep(common.words_of(error, vars(args)))
                raise
    finally:
        _State.level, _State.file = INFO, None


@contextmanager
def quiet(wanted: bool = True) -> Iterator[None]:
    """No lines on stdout as long as the context lasts, for what is printed there alone; warnings are said."""
    before = _State.level
    _State.level = min(before, WARNING) if wanted else before
    try:
        yield
    finally:
        _State.level = before


def shown(at: int) -> bool:
    """Whether what is of this level is printed."""
    return at <= _State.level


def keep(text: str) -> None:
    """Put a line into the file, if there is one."""
    if _State.file is not None:
        print(text, file=_State.file, flush=True)
