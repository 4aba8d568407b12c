"""Options that say what structure files leave open: elements of type numbers, names of labels."""

from __future__ import annotations

import argparse
from typing import Any

_LABELS = ("energy", "forces", "virial", "stress")


def add_reading_options(parser: argparse.ArgumentParser, labels: bool = False) -> None:
    """``--types``, ``--atom-style``; with ``labels`` also ``--energy-key`` and so on."""
    group = parser.add_argument_group("structure files")
    group.add_argument(
        "--types", nargs="+", metavar="ELEMENT", help="elements of types 1, 2, ... in files without elements (LAMMPS)"
    )
    group.add_argument("--atom-style", metavar="STYLE", help="of a LAMMPS data file that does not say it")
    if labels:
        for name in _LABELS:
            group.add_argument(f"--{name}-key", metavar="NAME", help=f"the name of the {name} in the files")


def reading_options(args: argparse.Namespace) -> dict[str, Any]:
    """These options as keywords of :func:`dpa2.data.read_structures`."""
    names = ["types", "atom_style", *(f"{name}_key" for name in _LABELS)]
    return {name: getattr(args, name, None) for name in names}
