"""Frames as they were read, with their labels, into extended XYZ or deepmd systems; and tables about them."""

from __future__ import annotations

import argparse
import csv
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..errors import ReadingWarning
from . import common
from .eval_sinks import DeepmdSink, StructureSink, XyzSink

if TYPE_CHECKING:
    from ..data import Frame
    from .eval_values import Values


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """``-o``, ``--save-deepmd`` and ``--mixed-type``."""
    parser.add_argument("-o", "--output", metavar="OUT", help="write the chosen frames: .extxyz or .xyz")
    parser.add_argument("--save-deepmd", metavar="DIR", help="write them as deepmd/npy systems below this new folder")
    parser.add_argument("--mixed-type", action="store_true", help="let these be of mixed type")


def outputs(args: argparse.Namespace) -> list[str]:
    """The names of what the options want written."""
    return [name for name in (args.output, args.save_deepmd, args.table) if name is not None]


def write_frames(args: argparse.Namespace, walk: Iterable[Frame], chosen: Sequence[int], names: Sequence[str]) -> None:
    """Write frames where the options of :func:`add_outputs` want them, in the order of the data.

    Args:
        args: these options.
        walk: all frames. chosen: the places of those that are wanted.
        names: the type names of deepmd systems.
    """
    from ..outputs import replacing, replacing_folder

    sinks: list[tuple[StructureSink, bool]] = []
    with ExitStack() as stack:
        if args.output is not None:
            path = stack.enter_context(replacing(args.output))
            sinks.append((stack.enter_context(XyzSink(path, (), tuple(names))), False))
        if args.save_deepmd is not None:
            folder = stack.enter_context(replacing_folder(args.save_deepmd))
            sinks.append((stack.enter_context(DeepmdSink(folder, (), tuple(names), args.mixed_type)), True))
        if not sinks:
            return
        wanted, dropped = set(chosen), set[str]()
        for k, frame in enumerate(walk):
            if k not in wanted:
                continue
            types = frame.types_in(names)
            for sink, deepmd in sinks:
                common.attempt(frame, sink.write, frame, types, *_labels(frame, deepmd))
            dropped |= set(frame.unread) - {name for name in frame.unread if name.lower() in _POSITIONS}
            wanted.remove(k)
            if not wanted:
                break
    if dropped:
        words = ", ".join(sorted(dropped)[:12])
        warnings.warn(f"not in the output, because they are not read: {words}", ReadingWarning, stacklevel=2)


# columns that are the structure
_POSITIONS = {"species", "pos", "positions", "numbers", "z"}
# arrays of ASE with a row for every atom
_OF_ATOMS = {"charges", "initial_charges", "tags", "masses", "momenta", "energies", "stresses"}


def _labels(frame: Frame, deepmd: bool) -> tuple[Values, Values]:
    """The labels of a frame and those of its atoms, under the names that the format has for them."""
    import numpy as np

    from ..data.labels import is_of_atoms

    labels = {"energy": frame.energy, "virial": frame.virial}
    of_frame = {name: np.asarray(value) for name, value in labels.items() if value is not None}
    of_atoms = {} if frame.forces is None else {"force" if deepmd else "forces": frame.forces}
    if frame.aparam is not None and not deepmd:
        of_atoms["aparam"] = frame.aparam
    for name, values in frame.labels.items():
        if (is_of_atoms(name) or name in _OF_ATOMS) and len(frame) and np.size(values) % len(frame) == 0:
            of_atoms[name] = np.reshape(values, (len(frame), -1))
        else:
            of_frame[name] = np.asarray(values)
    return of_frame, of_atoms


def write_table(path: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table of comma-separated values."""
    from ..outputs import Blocks, replacing

    with replacing(path) as part, Blocks(part) as blocks:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: "" if row[name] is None else row[name] for name in columns})
            blocks.add(text.getvalue())
            text.seek(0)
            text.truncate()
