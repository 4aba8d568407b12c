"""``dpa2 model-devi``: how far several models are from each other on data sets, as ``dp model-devi`` writes it."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..errors import Error, InputError, ReadingWarning
from . import common, document, log
from .reading import add_reading_options, reading_options

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ..model import Model

EPILOG = """\
examples:
  dpa2 model-devi -m 1.pth 2.pth 3.pth 4.pth -s data -o model_devi.out
  dpa2 model-devi -m 1.pth 2.pth -s data --atomic      the force deviation of every atom as well
  dpa2 model-devi -m 1.pth 2.pth -s data --real_error  the error to the labels in its place

The columns are those of "dp model-devi" of deepmd-kit 3.2.0: step, max_devi_v, min_devi_v,
avg_devi_v (virial per atom, eV), max_devi_f, min_devi_f, avg_devi_f (eV/angstrom), devi_e (energy
per atom, eV).
The file is there when all frames are finished. After Ctrl-C, SIGTERM or a frame that cannot be
evaluated it ends with the last finished frame; a full disk leaves an older file as it was.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "model-devi",
        help="deviation between several energy models, as 'dp model-devi' writes it",
        description="Write the deviation between several energy models on data sets.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    common.add_system_options(parser, short_list=False)
    parser.add_argument("-o", "--output", metavar="OUT", default="model_devi.out", help="(default: model_devi.out)")
    parser.add_argument("-S", "--set-prefix", metavar="PREFIX", help="taken and not used, as by dp: sets are set.*")
    log.add_log_options(parser)
    parser.add_argument(
        "-f", "--frequency", type=common.positive, default=1, metavar="N", help="steps between frames (default: 1)"
    )
    parser.add_argument(
        "--real_error", "--real-error", action="store_true", help="errors to the labels; nan where there is none"
    )
    parser.add_argument("--atomic", action="store_true", help="also the force deviation of every atom")
    parser.add_argument(
        "--relative", type=float, metavar="LEVEL", help="forces: divided by their size plus this, eV/angstrom"
    )
    parser.add_argument(
        "--relative_v", "--relative-v", type=float, metavar="LEVEL", help="virials per atom: divided likewise, eV"
    )
    document.add_json_option(parser)
    common.add_model_options(parser, several=True)
    common.add_worker_option(parser)
    add_reading_options(parser, labels=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    paths = common.system_paths(args)
    with log.logged(args, [*paths, *args.model]), log.quiet(args.json):
        _run(args, paths)


def _run(args: argparse.Namespace, paths: list[str]) -> None:
    from ..deviation import COLUMNS, header
    from ..outputs import Blocks, replacing

    if len(args.model) < 2 and not args.real_error:
        raise InputError("a deviation needs two models at least; one is enough with --real_error")
    common.check_output(args.output, ("",), [*paths, *args.model])
    walk = common.Walk(paths, reading=reading_options(args))
    models = common.load_models(args, "model-devi compares energies, forces and virials")
    head = {"models": args.model, "columns": ["step", *COLUMNS]}
    with ExitStack() as stack:
        printed = stack.enter_context(document.Document(head, "systems", args.json))
        executor = common.worker_pool(args, stack)
        part = stack.enter_context(replacing(args.output, keep=(KeyboardInterrupt, Error)))
        blocks = stack.enter_context(Blocks(part))
        for system, frames in walk.by_source():
            blocks.add(header(system, args.atomic))
            largest, count, missing, rows = 0.0, 0, set[str](), []
            for text, row, force, lacks in _rows(args, models, frames, executor):
                blocks.add(text)
                largest, count, missing = max(largest, force), count + 1, missing | lacks
                if args.json:  # or they would pile up
                    rows.append(row)
            if args.real_error and missing:
                _say_missing(system, sorted(missing))
            walk.print(f"{system}: {count} frames, largest max_devi_f {largest:.6e}")
            printed.add({"system": system, "frames": count, "largest": largest, "rows": rows})
        printed.tail["written"] = [args.output]
    walk.print(f"written     {args.output}")


def _rows(args: argparse.Namespace, models: list[Model], frames: Any, executor: Executor | None) -> Any:
    """Of each frame: its line, the same as numbers, its largest deviation of a force, the labels that it lacks."""
    from ..deviation import line
    from ..streams import deviation_frames

    options = {name: getattr(args, name) for name in ("real_error", "relative", "relative_v")}
    for k, (frame, devi) in enumerate(deviation_frames(models, frames, executor=executor, **options)):
        lacks = {name for name in ("energy", "forces", "virial") if getattr(frame, name) is None}
        step = k * args.frequency
        yield line(step, devi, args.atomic), [step, *devi.row()], float(devi.forces.max(initial=0.0)), lacks


def _say_missing(system: str, missing: list[str]) -> None:
    import warnings

    words = " and no ".join(missing)
    message = f"{system}: some frames have no {words} to compare with: the columns of it are nan there"
    warnings.warn(message, ReadingWarning, stacklevel=2)
