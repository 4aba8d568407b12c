"""``dpa2 neighbor-stat``: how many neighbours atoms of data sets have, and whether a model's ``sel`` is enough."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import InputError
from . import common
from .reading import add_reading_options, reading_options

EPILOG = """\
examples:
  dpa2 neighbor-stat -m model.pth -s data          is the sel of every block enough for these data?
  dpa2 neighbor-stat -r 6 4 -s data                what sel a new model with these cutoffs needs
  dpa2 neighbor-stat -r 6 -t O H -f systems.txt

"max_nbor_size" is the largest number of neighbours of any kind within the cutoff, what deepmd-kit
prints with --mixed-type. Virtual atoms are not counted.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "neighbor-stat",
        help="neighbours within the cutoffs, smallest distance; is sel enough?",
        description="Count neighbours in data sets.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    common.add_system_options(parser)
    parser.add_argument(
        "-r", "--rcut", type=_length, nargs="+", metavar="RCUT", help="cutoffs, angstrom (default: the model's)"
    )
    parser.add_argument(
        "-t", "--type-map", nargs="+", metavar="NAME", help="type names (default: the model's or data's)"
    )
    parser.add_argument(
        "-m", "--model", metavar="MODEL", help="model file (default: the embedded model of water: O, H)"
    )
    parser.add_argument("--head", help="which model of a multi-task file")
    add_reading_options(parser)
    parser.set_defaults(run=run)


def _length(text: str) -> float:
    number = float(text)
    if not 0.0 < number < 1e4:
        raise ValueError
    return number


_length.__name__ = "positive length"


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from ..neighbors import NeighborStatistics, cutoffs

    walk = common.Walk(common.system_paths(args), reading=reading_options(args))
    blocks: list[tuple[str, float, int | None]] = []
    left = ""
    type_map = args.type_map
    if args.rcut is None or args.model is not None:
        args.precision, args.threads, args.device = None, 1, "cpu"
        model = common.load_model(args)
        type_map = type_map or model.type_map
        if args.rcut is None:
            blocks = [(name, rcut, sel) for name, (rcut, sel) in cutoffs(model).items()]
            left = " for atoms, beside as many virtual ones" if model.kind == "spin" else ""
    if args.rcut is not None:
        blocks = [("", rcut, None) for rcut in args.rcut]
    type_map = type_map or _names(walk)
    statistics = NeighborStatistics(type_map, [rcut for _, rcut, _ in blocks])
    for frame in walk:
        common.attempt(frame, statistics.add, frame)
    if statistics.frames == 0:
        raise InputError("there are no frames in these structures")
    print(f"frames         {statistics.frames}, of types {' '.join(type_map)}")
    if statistics.closest == 0.0:
        print(f"min_nbor_dist: 0.000000 ({statistics.closest_where} are at the same place: remove such frames)")
    else:
        where = f" ({statistics.closest_where})" if statistics.closest_where else " (nobody has a neighbour)"
        print(f"min_nbor_dist: {statistics.closest:f}{where}")
    for c, (name, rcut, sel) in enumerate(blocks):
        of_type = ", ".join(f"{kind} {count}" for kind, count in zip(type_map, statistics.most_of[c], strict=True))
        print(f"\n{name or 'cutoff':<14} rcut {rcut:g} angstrom" + ("" if sel is None else f", sel {sel}{left}"))
        print(f"max_nbor_size: [{statistics.most[c]}]" + (f" ({statistics.where[c]})" if statistics.where[c] else ""))
        print(f"of each type   {of_type}; on average {statistics.mean[c]:.1f} neighbours in all")
        if sel is not None:
            enough = statistics.most[c] <= sel
            verdict = "enough" if enough else f"NOT enough: the farthest {statistics.most[c] - sel} are dropped"
            print(f"sel            {verdict}")


def _names(walk: common.Walk) -> list[str]:
    """The type names of the data, where no model and no option says them."""
    names: dict[str, None] = {}
    for source in walk.sources:
        found = getattr(source, "names", None)
        if found is None:
            raise InputError(f"{source.path} does not name its types at its head: give their names with -t, or a model")
        names.update(dict.fromkeys(found))
    return list(names)
