"""``dpa2 compare``: whether one set of structures covers another, by descriptors."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from . import chosen, common, document, log, vectors
from .reading import add_reading_options, reading_options
from .slow import say_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

EPILOG = """\
examples:
  dpa2 compare md.xyz train                 are the frames of a run like those of the training?
  dpa2 compare -m model.pth new.extxyz old.extxyz --table nearest.csv
  dpa2 compare md.xyz train --within 0.5 --json

For every frame of A the nearest one of B is looked for. The distance is that of the means of their
descriptors over each type; it means nothing between different models. A frame is covered if the
nearest one is within D. Without --within D is taken from B: so far that 95 of 100 of its frames are
within D of another of its frames. The more frames A has that are not covered, the more it has to
tell; "dpa2 select --beside B" chooses among them.
"""
COLUMNS = ("source", "frame", "distance", "nearest_source", "nearest_frame", "covered")
SHOWN = 10  # of the farthest frames
OWN = 0.95  # of the frames of B that are within the distance that is taken from it


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "compare",
        help="does one set of structures cover another? nearest frames by descriptors",
        description="Find the nearest frame of B to every frame of A, and say how much of A is covered by B.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("a", metavar="A", help=common.STRUCTURE_HELP)
    parser.add_argument("b", metavar="B", help="the same, to compare with")
    common.add_frames_option(parser, "-f")
    vectors.add_pooling_option(parser)
    parser.add_argument(
        "--within", type=common.amount, metavar="D", help="frames so near are covered (default: from B)"
    )
    parser.add_argument("--table", metavar="CSV", help="also a table with the nearest frame of each: .csv")
    document.add_json_option(parser)
    common.add_model_options(parser)
    common.add_worker_option(parser)
    add_reading_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    with log.quiet(args.json):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    import numpy as np

    from ..similarity import nearest

    common.check_output(args.table, (".csv",), [args.a, args.b, *([args.model] if args.model else [])])
    walks = [common.Walk([path], reading=reading_options(args), chosen=args.frames) for path in (args.a, args.b)]
    model = common.load_model(args)
    say_time(model, walks[0])
    with ExitStack() as stack:
        executor = common.worker_pool(args, stack)
        stores = [vectors.scratch(walk, model, args.pooling, executor, stack) for walk in walks]
        one, two = (vectors.vectors_in(store) for store in stores)
        index, distances = nearest(one, two)
        within = args.within
        if within is None and len(two) > 1:
            within = float(np.quantile(nearest(two, two, but_itself=True)[1], OWN))
        facts = [{name: np.array(store.array(name)) for name in ("source", "frame")} for store in stores]
    rows = _rows(facts, [vectors.names_of(walk) for walk in walks], index, distances, within)
    if args.table is not None:
        chosen.write_table(args.table, COLUMNS, rows)
    summary: dict[str, Any] = {
        "frames": [len(one), len(two)],
        "within": within,
        "covered": None if within is None else int((distances <= within).sum()),
        "mean": float(distances.mean()),
        "median": float(np.median(distances)),
        "largest": float(distances.max()),
    }
    if args.json:
        document.dump({"model": common.model_name(args), **summary, "nearest": rows})
    else:
        _report(args, summary, rows)


def _rows(
    facts: list[dict[str, NDArray[Any]]],
    names: list[list[str]],
    index: NDArray[Any],
    distances: NDArray[Any],
    within: float | None,
) -> list[dict[str, Any]]:
    return [
        {
            "source": names[0][int(facts[0]["source"][k])],
            "frame": int(facts[0]["frame"][k]),
            "distance": distance,
            "nearest_source": names[1][int(facts[1]["source"][near])],
            "nearest_frame": int(facts[1]["frame"][near]),
            "covered": None if within is None else distance <= within,
        }
        for k, (near, distance) in enumerate(zip(index.tolist(), distances.tolist(), strict=True))
    ]


def _report(args: argparse.Namespace, summary: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    count, others = summary["frames"]
    common.tell(f"model       {common.model_name(args)}")
    common.tell(f"A           {args.a}: {count} frame{'' if count == 1 else 's'}")
    common.tell(f"B           {args.b}: {others} frame{'' if others == 1 else 's'}")
    common.tell(
        f"distance    mean {summary['mean']:.6g}, median {summary['median']:.6g}, largest {summary['largest']:.6g}"
    )
    if summary["within"] is None:
        common.tell("covered     B is a single frame: say with --within what is near")
    else:
        why = "" if args.within is not None else f", as {OWN:.0%} of B are of each other"
        common.tell(
            f"covered     {summary['covered']} of {count} ({summary['covered'] / count:.1%}): within "
            f"{summary['within']:.6g} of a frame of B{why}"
        )
    farthest = sorted(rows, key=lambda row: -row["distance"])[:SHOWN]
    common.tell(f"\n{'distance':>12}  frame of A -> nearest of B" + (" (the farthest)" if len(rows) > SHOWN else ""))
    for row in farthest:
        near = f"{row['nearest_source']}, {row['nearest_frame']}"
        common.tell(f"{row['distance']:12.6g}  {row['source']}, {row['frame']} -> {near}")
    if args.table is not None:
        common.tell(f"\nwritten     {args.table}")
