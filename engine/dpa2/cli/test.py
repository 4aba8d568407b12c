"""``dpa2 test``: a model against the labels of data sets, reported as ``dp test`` does."""

from __future__ import annotations

import argparse
import os
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ReadingWarning
from . import common, document, log
from .reading import add_reading_options, reading_options
from .slow import say_time

if TYPE_CHECKING:
    import numpy as np

    from ..accuracy import Accuracy
    from ..comparisons import Comparison
    from ..data import Frame
    from ..details import DetailFiles
    from ..plots import Parity

EPILOG = """\
examples:
  dpa2 test -m model.pth -s data                   every deepmd system below a folder
  dpa2 test -m model.pth -s data/water data/ice -n 100 -d detail
  dpa2 test -m multi.pt --head water -f systems.txt --plot parity.png
  dpa2 test -m model.pth -s data.hdf5#/water --workers 4
  dpa2 test -m model.pth --valid-data input.json   the validation data of a training input
  dpa2 test -m model.pth -s data -n 50 --shuffle-test -r 1     50 frames of each system, drawn

The figures are those of "dp --pt test" of deepmd-kit 3.2.0, in its words but on stdout and without
the date in front. Systems are tested in alphabetical order. --shuffle-test draws the order of the
frames of each; -r N makes that the one of "dp test -r N". -d writes its detail files:
  energies           DETAIL.e.out, .e_peratom.out, .f.out, .v.out, .v_peratom.out and, where there
                     are virials, .s.out; of spin models .fr.out in place of .f.out, and .fm.out
  dipole, polar      DETAIL.out, of the second system DETAIL.out.1
  dos                a file per frame: DETAIL.dos.out.0, of the second system DETAIL.dos.out.1.0;
                     with -a also DETAIL.ados.out.0
  property           the same with .property.out and .aproperty.out
After Ctrl-C the figures of finished systems have been printed, and the detail files end with the
last finished frames.

Labels are the arrays energy, force, virial, atom_ener; force_mag of spin models, whose spins are
in the array spin; dipole, atom_dipole; polarizability, atom_polarizability; dos, atom_dos; NAME,
atom_NAME of a property NAME. Those of atoms are compared with -a; those of dipoles and
polarizabilities then alone, and over the atoms of the types that are not in atom_exclude_types.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "test",
        help="errors of a model on data sets, as 'dp test' prints them",
        description="Compare a model with the labels of data sets: energies, forces and virials; dipoles,\n"
        "polarizabilities, densities of states or properties.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    common.add_system_options(parser, inputs=True)
    parser.add_argument(
        "-n", "--numb-test", type=common.natural, default=0, metavar="N", help="frames of each system (default: all)"
    )
    parser.add_argument(
        "--shuffle-test", action="store_true", help="the frames of a system in random order, before -n counts them"
    )
    parser.add_argument(
        "-r", "--rand-seed", type=int, metavar="N", help="the seed of that order (default: another each time)"
    )
    parser.add_argument(
        "-S", "--set-prefix", metavar="PREFIX", help="taken and not used, as by dp test: sets are set.*"
    )
    log.add_log_options(parser)
    parser.add_argument("-d", "--detail-file", metavar="DETAIL", help="prefix of files with all labels and predictions")
    parser.add_argument("-a", "--atomic", action="store_true", help="also the labels of atoms (atom_ener, ...)")
    parser.add_argument(
        "--label-key", metavar="NAME", help="the name of the dipole, polarizability, dos or property in the files"
    )
    parser.add_argument("--plot", metavar="PNG", help="predictions over labels as a picture: .png, .pdf or .svg")
    document.add_json_option(parser)
    common.add_model_options(parser)
    common.add_worker_option(parser)
    add_reading_options(parser, labels=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    paths = common.system_paths(args)
    with log.logged(args, [*paths, *([args.model] if args.model else [])]), log.quiet(args.json):
        _run(args, paths)


def _run(args: argparse.Namespace, paths: list[str]) -> None:
    from ..accuracy import Accuracy
    from ..comparisons import comparison_of
    from ..details import DetailFiles

    common.check_output(args.plot, (".png", ".pdf", ".svg"), [])
    if args.detail_file is not None and not os.path.isdir(os.path.dirname(args.detail_file) or "."):
        raise InputError(f"the folder of the detail files does not exist: {os.path.dirname(args.detail_file)}")
    if args.plot is not None:
        from ..plots import require_matplotlib

        require_matplotlib()
    walk = common.Walk(paths, args.numb_test or None, reading=reading_options(args), generator=_generator(args))
    model = common.load_model(args)
    say_time(model, walk)
    comparison = comparison_of(model, args.label_key)
    whole, tested, unlabelled = Accuracy(comparison), 0, list[str]()
    parity = None
    if args.plot is not None:
        from ..plots import Parity

        parity = Parity(comparison)
    with ExitStack() as stack:
        executor = common.worker_pool(args, stack)
        printed = stack.enter_context(document.Document({"model": common.model_name(args)}, "systems", args.json))
        details = None
        if args.detail_file is not None:
            details = stack.enter_context(DetailFiles(args.detail_file, comparison))
        for system, frames in walk.by_source():
            walk.print("# ---------------output of dp test--------------- ")
            walk.print(f"# testing system : {system}")
            if details is not None:
                details.begin(system)
            found = _test(args, model, comparison, system, frames, executor, details, parity)
            walk.print(f"# number of test data : {found.frames} ")
            for line in found.lines() or ["# no labels to test against"]:
                walk.print(line)
            walk.print("# ----------------------------------------------- ")
            if not found.labelled:
                unlabelled.append(f"{system} ({found.frames} frame{'' if found.frames == 1 else 's'})")
            whole.merge(found)
            tested += 1
            printed.add({"system": system, **_figures(found)})
        _check_labels(comparison, unlabelled, tested)
        printed.tail["all"] = _figures(whole)
    walk.print("# ----------weighted average of errors----------- ")
    walk.print(f"# number of systems : {tested}")
    for line in whole.lines():
        walk.print(line)
    walk.print("# ----------------------------------------------- ")
    if details is not None:
        walk.print(f"written     {details.written()}")
    if parity is not None:
        parity.draw(args.plot, common.model_name(args))
        walk.print(f"written     {args.plot}")


def _figures(found: Accuracy) -> dict[str, Any]:
    """Errors for programs."""
    errors = {name: {"mae": sums.mae, "rmse": sums.rmse} for name, sums in found.errors.items()}
    return {"frames": found.frames, "labelled": found.labelled, "errors": errors}


def _generator(args: argparse.Namespace) -> np.random.RandomState | None:
    """What draws the order of frames: deepmd-kit's generator, of which 32 bits of a seed count."""
    if not args.shuffle_test:
        return None
    import numpy as np

    return np.random.RandomState(None if args.rand_seed is None else args.rand_seed % 2**32)


def _check_labels(comparison: Comparison, unlabelled: list[str], tested: int) -> None:
    """Say which systems had nothing to be tested against; an error if that is all of them."""
    if not unlabelled:
        return
    message = (
        f"no labels to test against, {comparison.labels}: {', '.join(unlabelled)}; labels under other names are read "
        f"with {comparison.options}"
    )
    if len(unlabelled) == tested:
        raise InputError(message)
    warnings.warn(message, ReadingWarning, stacklevel=2)


def _test(
    args: argparse.Namespace,
    model: Any,
    comparison: Comparison,
    system: str,
    frames: Any,
    executor: Any,
    details: DetailFiles | None,
    parity: Parity | None,
) -> Accuracy:
    from ..accuracy import Accuracy
    from ..data.labels import look_alikes
    from ..streams import evaluate_frames

    found, others = Accuracy(comparison), set[str]()
    frame: Frame
    derivatives = model.kind in ("energy", "spin")  # of dipoles there are no labels
    for frame, result in evaluate_frames(model, frames, executor=executor, forces=derivatives):
        found.add(frame, result, args.atomic)
        others.update(look_alikes(frame, comparison.wanted(frame)))
        if details is not None:
            details.add(frame, result, args.atomic)
        if parity is not None:
            parity.add(frame, result)
    if others:
        said = f"{system}: not read as labels: {', '.join(sorted(others)[:12])}"
        warnings.warn(f"{said} ({comparison.options}: the names of labels)", ReadingWarning, stacklevel=2)
    return found
