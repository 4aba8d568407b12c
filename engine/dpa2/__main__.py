"""``python -m dpa2``: the ``dpa2`` command, and with ``--cflags``, ``--libs`` what compilers want to know."""

from __future__ import annotations

import shlex
import sys


def print_flags(words: list[str]) -> bool:
    """Print the flags that are asked for; False where other words stand among them."""
    if not words or not set(words) <= {"--cflags", "--libs", "--pkgconfigdir"}:
        return False
    from . import installation

    flags: list[str] = []
    for word in words:
        if word == "--cflags":
            flags += installation.compile_flags()
        elif word == "--libs":
            flags += installation.link_flags()
        else:
            flags.append(str(installation.library_directory() / "pkgconfig"))
    print(shlex.join(flags))
    return True


if __name__ == "__main__":
    if print_flags(sys.argv[1:]):
        sys.exit(0)
    from .cli import main

    sys.exit(main())
