"""What ``dpa2 relax``, ``md``, ``eos`` and ``phonons`` share: the model, the structure, what they say."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .. import optional
from ..errors import InputError
from . import common
from .reading import add_reading_options, reading_options

if TYPE_CHECKING:
    from ase import Atoms

    from ..data import Frame
    from ..model import Model
    from ..simulation.trajectories import Trajectory

#: what files of structures may be called
SUFFIXES = (".extxyz", ".xyz", ".traj")


def add_simulation_options(parser: argparse.ArgumentParser, precision: str | None = None) -> None:
    """``--json``, and the options of the model and of structure files."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document in place of the table: eV, angstrom, GPa"
    )
    common.add_model_options(parser, precision=precision)
    common.add_parameter_options(parser)
    add_reading_options(parser)


def add_structure(parser: argparse.ArgumentParser) -> None:
    """The one structure of a command."""
    parser.add_argument("structure", metavar="FILE", help=common.STRUCTURE_HELP)
    parser.add_argument(
        "--frame", type=int, metavar="N", help="which frame of a file of several: 0 is the first, -1 the last"
    )


def inputs_of(args: argparse.Namespace) -> list[str]:
    """The files that no output may overwrite."""
    paths = list(args.structures) if "structures" in args else [args.structure]
    return [*paths, *([args.model] if args.model else [])]


def walk_of(args: argparse.Namespace) -> common.Walk:
    """The frames of the structures."""
    paths = list(args.structures) if "structures" in args else [args.structure]
    return common.Walk(paths, reading=reading_options(args))


def potential_of(args: argparse.Namespace) -> Model:
    """The model, which has an energy; ``args.program`` is the command for the message that ASE is missing."""
    optional.ase("ase", f"dpa2 {args.program}")
    from ..embedded import DEFAULT_SKIN
    from ..simulation.structures import check_potential

    model = common.load_model(args, DEFAULT_SKIN)
    check_potential(model)
    return model


def atoms_for(frame: Frame, model: Model, args: argparse.Namespace) -> Atoms:
    """The atoms of a frame with the parameters that the options give."""
    from ..simulation.structures import atoms_of
    from ..streams import Parameters

    return common.attempt(frame, atoms_of, frame, model, Parameters.of(model, args.fparam, args.aparam))


def frame_of(args: argparse.Namespace) -> Frame:
    """The frame that ``--frame`` names, or the only one.

    Raises:
        InputError: there are several, or none of that number.
    """
    found: Frame | None = None
    count = 0
    last: list[Frame] = []
    frames = iter(walk_of(args))
    for count, frame in enumerate(frames, 1):
        if args.frame is None and count == 2:
            raise InputError(
                f"{args.structure}: there are several frames; choose one with --frame (0 the first, -1 the last)"
            )
        if args.frame is None or args.frame == count - 1:
            found = frame
            if args.frame is not None:
                return frame
        elif args.frame < 0:
            last = [*last, frame][args.frame :]
    if args.frame is not None and args.frame < 0 and len(last) == -args.frame:
        found = last[0]
    if found is None:
        many = f"the file has {count} frame{'' if count == 1 else 's'}, " if count else ""
        raise InputError(f"{args.structure}: {many}there is no frame {args.frame or 0}")
    return found


def structure_words(atoms: Atoms, where: str) -> str:
    """The structure for people."""
    from ..simulation.structures import is_periodic

    box = f"volume {atoms.get_volume():.3f} angstrom^3" if is_periodic(atoms) else "open"
    count = f"{len(atoms)} atom{'' if len(atoms) == 1 else 's'}"
    return f"{where}: {count}, {box}"


def model_words(args: argparse.Namespace, model: Model) -> str:
    """The model for people."""
    threads = f"{model.threads} thread{'' if model.threads == 1 else 's'}"
    return f"{common.model_name(args)}: {model.precision}, {model.device}, {threads}"


def describe(args: argparse.Namespace, model: Model, atoms: Atoms, where: str) -> None:
    """The first two lines of a command for one structure."""
    show(args, f"model       {model_words(args, model)}")
    show(args, f"structure   {structure_words(atoms, where)}")


def show(args: argparse.Namespace, line: str) -> None:
    """A line on stdout, unless that is for JSON."""
    if not args.json:
        with common.stdout_named():
            print(line, flush=True)


def picture_checked(path: str | None, inputs: list[str]) -> None:
    """Refuse ``--plot`` now where it would fail in the end."""
    if path is not None:
        from ..plots import require_matplotlib

        common.check_output(path, (".png", ".pdf", ".svg"), inputs)
        require_matplotlib()


@contextmanager
def written(path: str | None) -> Iterator[Trajectory | None]:
    """A new file of structures, which gets what there is on Ctrl-C."""
    from ..outputs import replacing
    from ..simulation.trajectories import TrajFile, XyzTrajectory

    if path is None:
        yield None
        return
    with replacing(path, keep=KeyboardInterrupt) as part:
        file = TrajFile(part) if path.endswith(".traj") else XyzTrajectory(part)
        try:
            yield file
        finally:
            file.close()
