"""What evaluates the frames of a call: one after the other, side by side or in batches; and looks at what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .batch import run_batches, run_frames
from .errors import InputError, OutOfMemoryError
from .gradients import Weights
from .inputs import Batch, Float
from .remarks import Remarks, Reporter

if TYPE_CHECKING:
    from .cuda.gpu import GpuModel

Progress: TypeAlias = Callable[[int, int], None]


@contextmanager
def _naming_frame(batch: Batch, frame: int) -> Iterator[None]:
    """Says in the core's messages which frame they are about, if there are frames."""
    try:
        yield
    except (InputError, OutOfMemoryError) as error:
        if not batch.has_frame_axis:
            raise
        raise type(error)(f"frame {frame}: {error}") from error


def _refuse_overflown_numbers(values: float | Float, what: str, large: str = "parameters") -> None:
    if not np.isfinite(values).all():
        raise InputError(
            f"{what} is not a finite number: atoms are so close to each other, or {large} so large, that the model "
            "leaves the range of its numbers"
        )


class Runner:
    """Of one model: on a GPU, or with an engine that evaluates frames one by one on so many threads."""

    def __init__(self, gpu: GpuModel | None, reporter: Reporter, threads: int) -> None:
        self._gpu, self._reporter, self._threads = gpu, reporter, threads

    def run(
        self,
        batch: Batch,
        of_frame: Callable[[int, int], Any],
        results: dict[str, Float],
        checked: dict[str, str],
        progress: Progress | None,
        *,
        atomic: int = 0,
        weights: Weights | None = None,
        large: str = "parameters",
        per_frame: int = 1,
    ) -> None:
        """Fills ``results``: with ``of_frame(frame, threads)``, which returns remarks, or on a GPU by their names.

        ``checked``: which of them must be finite, and what a number of them is called. ``per_frame``: results of a
        frame, not on a GPU; ``of_frame`` is called with the number of a result, which counts through all frames.
        """
        nframes, natoms = batch.types.shape

        def check(rows: slice) -> None:
            for name, what in checked.items():
                if name in results:
                    _refuse_overflown_numbers(results[name][rows], what, large)

        def one(k: int, threads: int) -> Remarks:
            with _naming_frame(batch, k // per_frame):
                remarks = Remarks(*of_frame(k, threads))
                check(slice(k, k + 1))
            return remarks

        def together(gpu: GpuModel, first: int, last: int) -> list[Remarks]:
            frames = slice(first, last)
            with _naming_frame(batch, first):  # of a batch that fails the frames are evaluated one by one
                rows = {name: array[frames] for name, array in results.items()}
                remarks = gpu.run(batch, frames, rows, atomic, weights)
                check(frames)
            return remarks

        def finish(k: int, remarks: Remarks) -> None:
            self._reporter.report(remarks, batch, k // per_frame)
            if progress is not None:
                progress(k + 1, nframes * per_frame)

        gpu = self._gpu
        if gpu is not None:
            run_batches(lambda first, last: together(gpu, first, last), finish, nframes, natoms)
        else:
            run_frames(one, finish, nframes * per_frame, natoms, self._threads)
