"""``dpa2 select``: frames that are worth a calculation, by their descriptors or by the deviation between models."""

from __future__ import annotations

import argparse
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, WorkFailedError
from . import chosen, common, document, log, vectors
from .reading import add_reading_options, reading_options
from .slow import say_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..data.unfinished import Unfinished
    from ..model import Model

EPILOG = """\
examples:
  dpa2 select md.xyz -n 100 -o chosen.extxyz            100 frames that differ most
  dpa2 select -m model.pth -s data --min-distance 0.5 --save-deepmd DIR
  dpa2 select md.xyz -n 50 --beside train -o new.extxyz         what a training set lacks
  dpa2 select -m 1.pth 2.pth 3.pth 4.pth -s md.xyz --f-lo 0.05 --f-hi 0.15 -o new.extxyz
  dpa2 select -m 1.pth 2.pth -s md.xyz --f-lo 0.05 --f-hi 0.15 -n 20 --json > chosen.json

With one model the frames are chosen one after the other, each the farthest from all before it. The
first is the one nearest to the mean, with --seed one that is drawn, with --beside the farthest from
those frames. The distance of frames is that of the means of their descriptors over each type.

With several models a frame is a candidate if the largest deviation of a force, max_devi_f of
model-devi, is F_LO or more and below F_HI: less is accurate, more has failed. With -n,
--min-distance or --beside the candidates are thinned as above, by descriptors of the first model.

The chosen frames are written with their labels, in the order of the data; --table has the order in
which they were chosen. Status 1 says that there was none, and an older output stays. Until the
outputs are complete finished frames are kept in OUT.part, from where the same command goes on, also
with another -n, --min-distance, --beside, --f-lo or --f-hi. --restart begins anew.
"""
COLUMNS = ("rank", "index", "source", "frame", "natoms", "distance", "max_devi_f")


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "select",
        help="frames that are worth a calculation: farthest points, active learning",
        description="Choose frames that differ most by their descriptors, or on which several models differ.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("structures", metavar="STRUCTURE", nargs="*", help="the same as with -s")
    common.add_system_options(parser, inputs=True)
    common.add_frames_option(parser)
    parser.add_argument("-n", "--number", type=common.positive, metavar="N", help="choose so many frames")
    parser.add_argument(
        "--min-distance", type=common.amount, metavar="D", help="no frame nearer than this to one that is chosen"
    )
    parser.add_argument(
        "--beside", nargs="+", metavar="SYSTEM", help="frames that are there already, as a training set"
    )
    parser.add_argument("--seed", type=common.natural, metavar="N", help="draw the first frame")
    vectors.add_pooling_option(parser)
    for flag, words in (
        ("--f-lo", "from here on a frame is a candidate"),
        ("--f-hi", "from here on it has failed"),
    ):
        parser.add_argument(flag, type=common.amount, metavar="F", help=f"{words}, eV/angstrom")
    chosen.add_outputs(parser)
    parser.add_argument("--table", metavar="CSV", help="also a table of the chosen frames: .csv")
    document.add_json_option(parser)
    parser.add_argument("--restart", action="store_true", help="do not go on with an interrupted run")
    common.add_model_options(parser, several=True, needed=False)
    common.add_worker_option(parser)
    add_reading_options(parser, labels=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    with log.quiet(args.json):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    several = args.model is not None and len(args.model) > 1
    thinned = not (args.number is None and args.min_distance is None and args.beside is None)
    _check(args, several, thinned)
    paths = [*args.structures, *(common.system_paths(args) if _named(args) or not args.structures else [])]
    inputs = [*paths, *(args.beside or []), *(args.model or [])]
    outputs = chosen.outputs(args)
    common.check_output(args.output, (".extxyz", ".xyz"), inputs)
    common.check_output(args.table, (".csv",), [*inputs, *([args.output] if args.output else [])])
    if args.save_deepmd is not None:
        common.check_folder(args.save_deepmd, outputs[0])
    walk = common.Walk(paths, reading=reading_options(args), chosen=args.frames)
    _check_number(args, several, walk.total)
    models = common.load_models(args, "deviations are those of forces" if several else None)
    say_time(models[0], walk)
    job = {**common.job_of("select", models[0], walk), "pooling": args.pooling, "thinned": thinned}
    if several:
        job["models"] = [common.job_of("select", model, walk)["model"] for model in models]
    with ExitStack() as stack:
        place = outputs[0] if outputs else stack.enter_context(vectors.temporary())
        executor = common.worker_pool(args, stack)
        model = models[0] if thinned else None
        store = vectors.open_store(place, job, model, several, args.restart)
        with store.until_complete(common.say) if outputs else closing(store):
            if store.frames:
                common.tell(f"{place}: going on after {store.frames} frames")
            vectors.fill(store, walk, model, models if several else (), args.pooling, executor)
            _check_number(args, several, store.frames)
            choice = _choose(args, store, models[0], executor)
            rows = choice.rows(vectors.names_of(walk))
            if rows:
                walk.skip = 0
                chosen.write_frames(args, walk, choice.frames, models[0].type_map)
                if args.table is not None:
                    chosen.write_table(args.table, COLUMNS, rows)
    _report(args, choice, rows, outputs)
    if not rows:
        raise WorkFailedError(choice.nothing())


def _named(args: argparse.Namespace) -> bool:
    """Whether the options name data sets, and not their default alone."""
    return args.system != ["."] or any(name is not None for name in (args.datafile, args.train_data, args.valid_data))


def _check(args: argparse.Namespace, several: bool, thinned: bool) -> None:
    """Refuse options that contradict each other."""
    limits = [flag for flag, value in (("--f-lo", args.f_lo), ("--f-hi", args.f_hi)) if value is not None]
    if several and len(limits) < 2:
        raise InputError("several models choose frames by their deviation: give its limits with --f-lo and --f-hi")
    if limits and not several:
        raise InputError(f"{limits[0]} is about the deviation between models, which needs two models at least")
    if several and not args.f_lo < args.f_hi:
        raise InputError(f"--f-lo must be below --f-hi, got {args.f_lo:g} and {args.f_hi:g}")
    if not several and args.number is None and args.min_distance is None:
        raise InputError("how many frames? give their number with -n, or how far apart they are with --min-distance")
    if args.seed is not None and (args.beside or not thinned):
        raise InputError("--seed draws the first of the farthest points; there is no such choice to make here")


def _check_number(args: argparse.Namespace, several: bool, frames: int | None) -> None:
    """Refuse more frames than there are; of candidates nobody knows how many there will be."""
    if not several and args.number is not None and frames and args.number > frames:  # none is said elsewhere
        raise InputError(f"-n asks for {args.number} frames, but there {'is' if frames == 1 else 'are'} only {frames}")


@dataclass
class _Choice:
    """What was chosen.

    Attributes:
        frames: their places among all frames, in the order in which they were chosen.
        distances: of each to the nearest one before it; None where there is none.
        left: the largest distance of a frame that was not chosen to one that was; None if it was not asked for.
        deviations: (n,) of all frames; None with one model. limits: of candidates.
        store: of all frames.
    """

    frames: list[int]
    distances: list[float | None]
    left: float | None
    deviations: NDArray[Any] | None
    limits: tuple[float, float]
    facts: dict[str, NDArray[Any]]

    def counts(self) -> dict[str, int]:
        """How many frames are accurate, candidates, failed."""
        assert self.deviations is not None
        low, high = self.limits
        accurate, failed = int((self.deviations < low).sum()), int((self.deviations >= high).sum())
        return {"accurate": accurate, "candidate": len(self.deviations) - accurate - failed, "failed": failed}

    def rows(self, sources: list[str]) -> list[dict[str, Any]]:
        """The chosen frames as rows of a table."""
        facts = self.facts
        return [
            {
                "rank": rank,
                "index": k,
                "source": sources[int(facts["source"][k])],
                "frame": int(facts["frame"][k]),
                "natoms": int(facts["natoms"][k]),
                "distance": distance,
                "max_devi_f": None if self.deviations is None else float(self.deviations[k]),
            }
            for rank, (k, distance) in enumerate(zip(self.frames, self.distances, strict=True))
        ]

    def nothing(self) -> str:
        """Why no frame was chosen."""
        if self.deviations is None or self.counts()["candidate"]:
            return "no frame was chosen: none is as far from those of --beside as --min-distance asks"
        counts = self.counts()
        return (
            f"no candidates: {counts['accurate']} frames are accurate and {counts['failed']} have failed; the largest "
            f"deviations are {self.deviations.min():.4g} to {self.deviations.max():.4g} eV/angstrom"
        )


def _choose(args: argparse.Namespace, store: Unfinished, model: Model, executor: Any) -> _Choice:
    import numpy as np

    facts = {name: np.array(store.array(name)) for name in ("source", "frame", "natoms")}
    deviations = np.array(store.array("deviation")) if "deviation" in store.names else None
    limits = (args.f_lo or 0.0, args.f_hi or 0.0)
    may = np.ones(store.frames, dtype=bool)
    if deviations is not None:
        may = (deviations >= limits[0]) & (deviations < limits[1])
    if "vector" not in store.names:
        places = np.flatnonzero(may).tolist()
        return _Choice(places, [None] * len(places), None, deviations, limits, facts)
    places, distances, left = _farthest(args, store, model, executor, may)
    return _Choice(places, distances, left, deviations, limits, facts)


def _farthest(
    args: argparse.Namespace, store: Unfinished, model: Model, executor: Any, may: NDArray[Any]
) -> tuple[list[int], list[float | None], float]:
    """The farthest points among the frames that may be chosen; how far the farthest one is that was not chosen."""
    import numpy as np
    from tqdm import tqdm

    from ..similarity import farthest_points, nearest

    frames, distances, first = vectors.vectors_in(store), None, None
    if args.beside is not None and may.any():
        with ExitStack() as stack:
            reading = {name: getattr(args, name) for name in ("types", "atom_style")}  # labels do not matter
            walk = common.Walk(args.beside, reading=reading)
            others = vectors.scratch(walk, model, args.pooling, executor, stack)
            distances = nearest(frames, vectors.vectors_in(others))[1]
    if args.seed is not None and may.any():
        first = int(np.random.default_rng(args.seed).choice(np.flatnonzero(may)))
    places: list[int] = []
    found: list[float | None] = []
    points = farthest_points(frames, first, among=may, distances=distances)
    left = 0.0
    for k, distance in tqdm(points, total=args.number, unit="frame", disable=None, leave=False):
        if len(places) == args.number or distance < (args.min_distance or 0.0):
            left = distance
            break
        places.append(k)
        found.append(distance if np.isfinite(distance) else None)
    if args.number is not None and len(places) < min(args.number, int(may.sum())) and left == 0.0:
        common.say(f"only {len(places)} frames differ: all others are copies of these, or of those of --beside")
    return places, found, left


def _report(args: argparse.Namespace, choice: _Choice, rows: list[dict[str, Any]], outputs: list[str]) -> None:
    total, deviations = len(choice.facts["frame"]), choice.deviations
    if args.json:
        found: dict[str, Any] = {"frames": total}
        if deviations is not None:
            found |= {"f_lo": args.f_lo, "f_hi": args.f_hi, **choice.counts(), "largest": float(deviations.max())}
        found |= {} if choice.left is None else {"farthest_left": choice.left}
        document.dump({**found, "chosen": rows, "written": outputs if rows else []})
        return
    common.tell(f"frames      {total}")
    if deviations is not None:
        words = (f"below {args.f_lo:g}", f"from {args.f_lo:g} on", f"from {args.f_hi:g} on")
        for (name, count), limit in zip(choice.counts().items(), words, strict=True):
            common.tell(f"{name:<11} {count} ({count / total:.1%}), max_devi_f {limit} eV/angstrom")
    if not rows:
        return
    devi = "" if deviations is None else f" {'max_devi_f':>12}"
    far = "" if choice.left is None else f" {'distance':>12}"
    common.tell(f"\n{'rank':>6} {'index':>7}{far}{devi}  structure, frame")
    for row in rows:
        numbers = f"{row['rank']:6d} {row['index']:7d}"
        if far:
            numbers += f" {'-':>12}" if row["distance"] is None else f" {row['distance']:12.6g}"
        numbers += f" {row['max_devi_f']:12.6g}" if devi else ""
        common.tell(f"{numbers}  {row['source']}, {row['frame']}")
    rest = "" if choice.left is None else f"; no other is farther than {choice.left:.6g} from them"
    common.tell(f"\nchosen      {len(rows)}{rest}")
    for name in outputs:
        common.tell(f"written     {name}")
