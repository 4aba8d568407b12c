"""How many threads an evaluation has."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .errors import InputError

# More than machines have processors; the compiled core has the same limit.
MOST_THREADS = 4096


def checked_threads(threads: Any) -> int:
    """``threads`` as a user gave them; for None ``OMP_NUM_THREADS``, else the cores that this process may use.

    Raises:
        InputError: they are no number of threads; the message says where it comes from.
    """
    if threads is None:
        return _of_environment() or _cores()
    integer = isinstance(threads, (int, np.integer)) and not isinstance(threads, bool)
    if not (integer and 1 <= threads <= MOST_THREADS):
        raise InputError(f"threads must be a positive integer up to {MOST_THREADS}, or None, got {threads!r}")
    return int(threads)


def _of_environment() -> int | None:
    """The first number of ``OMP_NUM_THREADS``, which may be a list with one for each level of nesting.

    What is no positive number is ignored, as OpenMP does.
    """
    text = os.environ.get("OMP_NUM_THREADS", "")
    first = text.split(",")[0].strip()
    if not first.isdigit():
        return None
    # Also digits of other kinds than 0 to 9; and Python refuses to read some thousands of them.
    digits = first.lstrip("0") if first.isascii() else "x"
    if not digits:
        return None
    if len(digits) > 9 or not digits.isdigit() or int(digits) > MOST_THREADS:
        shown = first if len(first) <= 40 else f"{first[:40]}..."
        raise InputError(
            f"OMP_NUM_THREADS is {shown!r}, not a number of threads up to {MOST_THREADS}; set it to one, unset it, or "
            "pass threads="
        )
    return int(digits)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, min(MOST_THREADS, len(os.sched_getaffinity(0))))
    return os.cpu_count() or 1
