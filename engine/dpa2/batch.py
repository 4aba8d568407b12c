"""Many frames: on the threads of a CPU small ones side by side, large ones one after the other; on a GPU in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .errors import InputError, OutOfMemoryError

R = TypeVar("R")

# Up to this many atoms frames are evaluated side by side. A frame on one thread needs no barriers and shares no sums,
# which wins at any size; but every thread then holds the memory of a whole frame, and an interrupt waits for a frame.
LARGEST_SMALL_FRAME = 1024
# Frames that are handed out ahead of the one that is waited for, per thread: results are kept until their turn comes.
AHEAD = 4
# Frames of a GPU are evaluated together up to so many atoms: enough to keep one busy, in a few gigabytes.
ATOMS_AT_ONCE = 16384


def frames_side_by_side(nframes: int, natoms: int, threads: int) -> int:
    """How many of the frames, from the first, to evaluate side by side: as many as keep all threads busy, or none."""
    if threads < 2 or natoms > LARGEST_SMALL_FRAME:
        return 0
    return nframes // threads * threads


def run_frames(
    evaluate: Callable[[int, int], R],
    finish: Callable[[int, R], None],
    nframes: int,
    natoms: int,
    threads: int,
) -> None:
    """``finish(frame, evaluate(frame, threads of the frame))`` for every frame.

    ``evaluate`` may run in other threads, several at once; it should release the interpreter's lock. ``finish`` is
    called in the caller's thread and in the order of the frames. The first exception in that order ends everything;
    when one leaves this function, also ``KeyboardInterrupt``, no other thread is at work any more.
    """
    together, done, workers = frames_side_by_side(nframes, natoms, threads), 0, threads
    while done < together and workers > 1:
        done, workers = _side_by_side(evaluate, finish, done, together, workers)
    for frame in range(done, nframes):
        finish(frame, evaluate(frame, 1 if frame < together else threads))


def _side_by_side(
    evaluate: Callable[[int, int], R], finish: Callable[[int, R], None], begin: int, end: int, workers: int
) -> tuple[int, int]:
    """The frame up to which all are done, and with how many threads to go on.

    Those are fewer where the system has no more (memory for their stacks, a limit on processes): half of what there
    were, for whatever the last of them would lack.
    """
    waiting: deque[Future[R]] = deque()
    submitted = begin
    with ThreadPoolExecutor(workers, thread_name_prefix="dpa2") as pool:
        try:
            for frame in range(begin, end):
                while submitted < min(end, frame + AHEAD * workers):
                    try:
                        waiting.append(pool.submit(evaluate, submitted, 1))
                    except RuntimeError:  # a thread cannot be started: what was submitted is done by those before it
                        end, workers = submitted, min(workers, submitted - begin) // 2
                        break
                    submitted += 1
                if frame == end:
                    break
                finish(frame, waiting.popleft().result())
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
    return end, workers


def run_batches(
    evaluate: Callable[[int, int], list[R]], finish: Callable[[int, R], None], nframes: int, natoms: int
) -> None:
    """``finish(frame, one of evaluate(first, last))`` for every frame, in order; frames of one size as batches.

    A batch that does not fit into memory is made smaller. Where one of its frames cannot be evaluated, its frames are
    evaluated one by one, so that the error is that frame's.
    """
    done, at_once, one_by_one = 0, max(1, ATOMS_AT_ONCE // max(1, natoms)), 0
    while done < nframes:
        last = min(nframes, done + (1 if done < one_by_one else at_once))
        try:
            found = evaluate(done, last)
        except OutOfMemoryError:
            if last - done == 1:
                raise
            at_once = (last - done) // 2
            continue
        except InputError:
            if last - done == 1:
                raise
            one_by_one = last
            continue
        for frame, one in enumerate(found, done):
            finish(frame, one)
        done = last
