"""Many small frames: side by side on the threads of the model, with the results of one after the other."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import dpa2
import numpy as np
import pytest
from api_models import BOX, DEVICES, TYPES, frames, model_data
from dpa2 import batch
from dpa2.model import Model

COUNT = 11


def model(threads: int, device: str = "cpu", **options: Any) -> Model:
    return Model(model_data(), threads=threads, device=device, **options)


@pytest.mark.parametrize("device", [DEVICES[0], pytest.param("reference", marks=pytest.mark.slow)])
def test_results_are_those_of_one_frame_after_the_other(device: str) -> None:
    coords = frames(COUNT)
    coords[3] += 0.3  # frames differ
    together = model(3, device).evaluate(coords, TYPES, BOX, atomic="deepmd")
    alone = model(1, device)
    rows = model(3, device).descriptor(coords, TYPES, BOX)
    for f in range(COUNT):
        single = alone.evaluate(coords[f], TYPES, BOX, atomic="deepmd")
        tolerance = 0.0 if f < batch.frames_side_by_side(COUNT, len(TYPES), 3) else 1e-10
        for name in ("energy", "forces", "virial", "atom_energy", "atom_virial"):
            np.testing.assert_allclose(getattr(together, name)[f], getattr(single, name), rtol=0, atol=tolerance)
        np.testing.assert_allclose(rows[f], alone.descriptor(coords[f], TYPES, BOX), rtol=0, atol=tolerance)


def test_repeats_bit_by_bit() -> None:
    many = model(2)
    first, second = (many.evaluate(frames(COUNT), TYPES, BOX).forces for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize("device", DEVICES)
def test_progress_is_told_in_order_and_in_the_thread_of_the_caller(device: str) -> None:
    told: list[tuple[int, int, int]] = []
    model(2, device).evaluate(
        frames(COUNT), TYPES, BOX, progress=lambda done, of: told.append((done, of, threading.get_ident()))
    )
    assert told == [(f + 1, COUNT, threading.get_ident()) for f in range(COUNT)]


def test_an_error_names_the_first_bad_frame() -> None:
    coords = frames(COUNT)
    coords[4, 1] = coords[4, 0]
    coords[7, 2] = coords[7, 0]
    done: list[int] = []
    with pytest.raises(dpa2.InputError, match=r"^frame 4: atoms 0 and 1 are at the same place"):
        model(2).evaluate(coords, TYPES, BOX, progress=lambda f, of: done.append(f))
    assert done == [1, 2, 3, 4]
    with pytest.raises(dpa2.InputError, match=r"^frame 4: "):
        model(2).descriptor(coords, TYPES, BOX)


def test_overflow_is_reported_for_the_first_frame_and_where_the_caller_stands() -> None:
    few = Model(model_data(nsel=6), threads=2)
    with pytest.warns(dpa2.NeighborOverflowWarning, match="of frame 0") as record:
        few.evaluate(frames(4), TYPES, BOX)
    assert len(record) == 1
    assert record[0].filename == __file__
    few = Model(model_data(nsel=6), threads=2)
    with pytest.warns(dpa2.NeighborOverflowWarning) as record:
        few.descriptor(frames(4), TYPES, BOX)
    assert record[0].filename == __file__


@pytest.mark.parametrize(
    ("nframes", "natoms", "threads", "expected"),
    [(10, 5, 1, 0), (1, 5, 2, 0), (2, 5, 2, 2), (11, 5, 2, 10), (11, 5, 16, 0), (11, 10**6, 2, 0), (0, 5, 2, 0)],
)
def test_rule(nframes: int, natoms: int, threads: int, expected: int) -> None:
    assert batch.frames_side_by_side(nframes, natoms, threads) == expected


def test_frames_overlap_and_are_not_handed_out_far_ahead() -> None:
    barrier = threading.Barrier(2, timeout=30)
    started: list[int] = []
    ahead: list[int] = []

    def evaluate(frame: int, threads: int) -> int:
        assert threads == 1
        started.append(frame)
        barrier.wait()  # passes only with two frames at work
        return frame

    def finish(frame: int, result: int) -> None:
        assert frame == result
        ahead.append(len(started) - frame)

    batch.run_frames(evaluate, finish, 40, 5, 2)
    assert sorted(started) == list(range(40))
    assert max(ahead) <= batch.AHEAD * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_runs_any_more_when_an_exception_leaves(error: type[BaseException]) -> None:
    running = set()

    def evaluate(frame: int, _threads: int) -> None:
        running.add(frame)
        time.sleep(0.01)
        running.discard(frame)

    def finish(frame: int, _result: None) -> None:
        if frame == 3:
            raise error

    with pytest.raises(error):
        batch.run_frames(evaluate, finish, 1000, 5, 2)
    assert running == set()


def test_interrupt() -> None:
    # In the background of a script it is ignored from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt_in_the_middle()
    finally:
        signal.signal(signal.SIGINT, before)


def interrupt_in_the_middle() -> None:
    many = np.concatenate([frames(COUNT)] * 2000)
    told: list[int] = []

    def progress(done: int, _of: int) -> None:
        told.append(done)
        if done == 5:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        model(2).evaluate(many, TYPES, BOX, progress=progress)
    assert 5 <= len(told) < len(many)


# ------------------------------------------------------------------------------------------------ batches of a device


def batches(nframes: int, natoms: int, fits: int = 10**9, bad: tuple[int, ...] = ()) -> tuple[list[Any], list[int]]:
    """What is evaluated together where so many frames fit into memory, and which frames are finished."""
    calls: list[tuple[int, int]] = []
    done: list[int] = []

    def evaluate(first: int, last: int) -> list[int]:
        calls.append((first, last))
        if last - first > fits:
            raise dpa2.OutOfMemoryError(f"{last - first} frames")
        if wrong := [f for f in range(first, last) if f in bad]:
            raise dpa2.InputError(f"frame {wrong[0]} of {last - first}")
        return list(range(first, last))

    def finish(frame: int, value: int) -> None:
        assert frame == value
        done.append(frame)

    try:
        batch.run_batches(evaluate, finish, nframes, natoms)
    except dpa2.Error as error:
        calls.append((str(error), 0))  # type: ignore[arg-type]
    return calls, done


def test_frames_of_a_device_go_together_up_to_a_number_of_atoms() -> None:
    most = batch.ATOMS_AT_ONCE
    assert batches(5, 1) == ([(0, 5)], [0, 1, 2, 3, 4])
    assert batches(3, most)[0] == batches(3, 10 * most)[0] == [(0, 1), (1, 2), (2, 3)]
    assert batches(3, most // 2)[0] == [(0, 2), (2, 3)]
    assert batches(0, 7) == ([], [])
    assert batches(2, 0)[0] == [(0, 2)]


def test_batches_that_do_not_fit_are_halved() -> None:
    assert batches(7, 1, fits=2) == ([(0, 7), (0, 3), (0, 1), *((f, f + 1) for f in range(1, 7))], list(range(7)))
    assert batches(8, 1, fits=4)[0] == [(0, 8), (0, 4), (4, 8)]
    assert batches(2, 1, fits=0) == ([(0, 2), (0, 1), ("1 frames", 0)], [])


def test_the_first_bad_frame_of_a_batch_is_the_error() -> None:
    calls, done = batches(6, batch.ATOMS_AT_ONCE // 3, bad=(4, 5))
    assert calls == [(0, 3), (3, 6), (3, 4), (4, 5), ("frame 4 of 1", 0)]
    assert done == [0, 1, 2, 3]
