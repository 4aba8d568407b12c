"""Vectors of frames, and deviations between models on them, for the commands that compare frames."""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import common

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ..data.unfinished import Unfinished
    from ..model import Model
    from ..similarity import FrameVectors

POOLING_HELP = "the descriptors of a frame as their mean over each type, or over all atoms (default: types)"


def add_pooling_option(parser: argparse.ArgumentParser) -> None:
    """``--pooling``."""
    parser.add_argument("--pooling", choices=("types", "mean"), default="types", help=POOLING_HELP)


def open_store(
    output: str, job: Mapping[str, Any], model: Model | None, deviations: bool, restart: bool = False
) -> Unfinished:
    """A store for :func:`fill`: vectors if there is a model, deviations if they are wanted."""
    from ..data.unfinished import Unfinished

    arrays: dict[str, Any] = {"source": ("int32", ()), "frame": ("int64", ()), "natoms": ("int64", ())}
    if model is not None:
        arrays |= {"vector": ("float64", (model.descriptor_dim,)), "kind": ("int32", ()), "count": ("int32", ())}
    if deviations:
        arrays["deviation"] = ("float64", ())
    return Unfinished(output, job, arrays, restart)


def fill(
    store: Unfinished, walk: common.Walk, model: Model | None, models: Sequence[Model], pooling: Any, executor: Any
) -> None:
    """Put all frames into the store that are not in it yet.

    Args:
        store: of :func:`open_store`.
        walk: the frames.
        model: whose descriptors are wanted. models: between which the deviation of the forces is.
        pooling: as of :func:`dpa2.similarity.frame_vector`. executor: as of :mod:`dpa2.streams`.

    Raises:
        InputError: there are no frames, or one without atoms.
    """
    import numpy as np

    from ..similarity import frame_vector
    from ..streams import TaskEnds

    index = {source.path: k for k, source in enumerate(walk.sources)}
    walk.skip = store.frames
    ends = TaskEnds()
    for frame, descriptor, devi in _streams(walk, model, models, executor):
        path, number = common.place_of(frame)
        rows: dict[str, Any] = {"source": index[path], "frame": number, "natoms": len(frame), "deviation": devi}
        rows = {name: np.array([value]) for name, value in rows.items() if value is not None}
        if model is not None:
            types = frame.types_in(model.type_map)
            rows["vector"], rows["kind"] = common.attempt(frame, frame_vector, descriptor, types, pooling)
            rows["count"] = np.array([len(rows["kind"])])
        store.add(rows)
        if ends.after(frame):
            store.commit()
    store.commit()
    if store.frames == 0:
        raise InputError("there are no frames in these structures")


def _streams(
    walk: common.Walk, model: Model | None, models: Sequence[Model], executor: Executor | None
) -> Iterator[Any]:
    """Frames with their descriptors and the largest deviation of a force, None for what is not wanted."""
    from ..streams import descriptor_frames, deviation_frames

    frames: Any = walk
    if model is not None and models:
        frames, copy = itertools.tee(walk)
        both = zip(
            descriptor_frames(model, frames, executor=executor),
            deviation_frames(models, copy, executor=executor),
            strict=True,
        )
        for (frame, descriptor), (_, devi) in both:
            yield frame, descriptor, devi.forces.max(initial=0.0)
    elif models:
        for frame, devi in deviation_frames(models, frames, executor=executor):
            yield frame, None, devi.forces.max(initial=0.0)
    elif model is not None:
        for frame, descriptor in descriptor_frames(model, frames, executor=executor):
            yield frame, descriptor, None


def vectors_in(store: Unfinished) -> FrameVectors:
    """The vectors of the frames in a store."""
    from ..similarity import FrameVectors

    return FrameVectors(store.array("vector"), store.array("kind"), store.array("count"))


@contextmanager
def temporary() -> Iterator[str]:
    """A place for a store whose rows nobody needs afterwards; it is where the system keeps such files (TMPDIR)."""
    with tempfile.TemporaryDirectory(prefix="dpa2.") as folder:
        yield os.path.join(folder, "rows")


def scratch(walk: common.Walk, model: Model, pooling: str, executor: Any, stack: ExitStack) -> Unfinished:
    """A filled store of vectors that vanishes with the stack."""
    store = open_store(stack.enter_context(temporary()), {}, model, deviations=False)
    stack.callback(store.close)
    fill(store, walk, model, (), pooling, executor)
    return store


def names_of(walk: common.Walk) -> list[str]:
    """The files and systems for people."""
    return [common.source_name(source.path) for source in walk.sources]
