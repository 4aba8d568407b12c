"""The order of training data against deepmd-kit's, and where it goes on from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dpa2
import numpy as np
import pytest
from data_cases import ORDERS, TYPE_MAP, expected
from dpa2.train.dataset import DataSet
from dpa2.train.loading import Loader
from dpa2.train.order import Order, Passes, workers
from dpa2.train.random import Generator


def loader(folder: Path, section: dict[str, Any], generator: Generator, case: dict[str, Any]) -> Loader:
    systems = [str(folder / name) for name in section["systems"]]
    data = DataSet(section | {"systems": systems}, TYPE_MAP, [])
    return Loader(data, Order(data, generator, case["seed"], case["workers"]))


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("ahead", [False, True])
def test_order_is_that_of_deepmd_kit(folder: Path, name: str, ahead: bool) -> None:
    """Also where batches are read ahead: whatever else draws comes before."""
    case, generator = ORDERS[name], Generator(0)
    training = loader(folder, case["training"], generator, case)
    validation = case["validation"] and loader(folder, case["validation"], generator, case)
    assert sum(1 for _ in training.sample(case["sample"])) == sum(
        min(case["sample"], length) for length in training.data.lengths
    )
    found = []
    for which, following in zip(case["asked"], case["asked"][1:] + "v", strict=True):
        source = training if which == "t" else validation
        batch = source.next()
        found.append([which, batch["system"], batch["frames"].tolist()])
        if ahead and which == following == "t":
            training.ahead()
    assert found == expected()["orders"][name]
    training.close()


def order(frames: list[int], sizes: list[int], streams: int, seed: int | None = 7) -> tuple[Order, Generator]:
    generator = Generator(1)
    lengths = np.ceil(np.array(frames) / sizes)
    data = SimpleNamespace(frames=frames, sizes=sizes, probabilities=lengths / lengths.sum())
    return Order(data, generator, seed, streams), generator


def drawn(source: Order, count: int) -> list[tuple[int, list[int]]]:
    return [(draw.system, draw.frames.tolist()) for draw in (source.next() for _ in range(count))]


def test_every_frame_once_in_a_pass() -> None:
    source, _ = order([10, 3], [4, 1], 0)
    seen: list[list[int]] = [[], []]
    for system, frames in drawn(source, 300):
        seen[system] += frames
    for numbers, count in zip(seen, (10, 3), strict=True):
        whole = len(numbers) // count * count
        passes = np.array(numbers[:whole]).reshape(-1, count)
        assert len(passes) > 10
        assert (np.sort(passes, axis=1) == np.arange(count)).all()
        assert len({tuple(row) for row in passes.tolist()}) > 3  # in another order


def test_systems_are_drawn_by_their_probabilities() -> None:
    generator = Generator(5)
    data = SimpleNamespace(frames=[5, 5, 5], sizes=[1, 1, 1], probabilities=np.array([0.0, 0.75, 0.25]))
    counts = Counter(system for system, _ in drawn(Order(data, generator, 3, 4), 4000))
    assert counts[0] == 0
    assert counts[1] == pytest.approx(3000, abs=150)


@pytest.mark.parametrize("streams", [0, 3])
@pytest.mark.parametrize("before", [0, 1, 17, 61])
def test_order_goes_on_where_it_stood(streams: int, before: int) -> None:
    """From its state and that of the generator, beyond the end of passes and of the systems that were drawn."""
    whole, generator = order([10, 3], [4, 1], streams)
    drawn(whole, before)
    kept, bits = whole.state, generator.state
    rest = drawn(whole, 80)
    again, other = order([10, 3], [4, 1], streams)
    again.state, other.state = kept, bits
    assert drawn(again, 80) == rest


def test_state_of_other_data_is_refused() -> None:
    source, _ = order([10, 3], [4, 1], 2)
    source.next()
    for frames, sizes, streams in (([10, 3, 1], [4, 1, 1], 2), ([10, 3], [4, 1], 3), ([2, 3], [1, 1], 2)):
        with pytest.raises(dpa2.InputError, match=r"data have changed|NUM_WORKERS have changed"):
            order(frames, sizes, streams)[0].state = source.state


def test_number_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUM_WORKERS", raising=False)
    assert workers() == 4
    monkeypatch.setenv("NUM_WORKERS", "0")
    assert workers() == 0
    for wrong in ("-1", "two", "1.5", "99999"):
        monkeypatch.setenv("NUM_WORKERS", wrong)
        with pytest.raises(dpa2.InputError, match="NUM_WORKERS must be a whole number"):
            workers()


def test_without_a_seed_the_generator_decides() -> None:
    one, other = order([10], [1], 4, None)[0], order([10], [1], 4, None)[0]
    assert drawn(one, 20) == drawn(other, 20)
    assert drawn(order([10], [1], 4, 8)[0], 20) != drawn(order([10], [1], 4, 9)[0], 20)


@pytest.mark.parametrize("n", [1, 2, 1024, 1025, 1026, 5000])
def test_shuffles_are_permutations_of_the_generator(n: int) -> None:
    """By Fisher and Yates from the front, whatever pieces they are taken in."""
    passes = Passes(n, 7, Generator(3))
    found = [passes.next()]
    while sum(map(len, found)) < n:
        found.append(passes.next())
    generator = Generator(3)
    generator.bits64()
    steps = Generator(generator.bits64() & (2**63 - 1))
    wanted = list(range(n))
    for i in range(n - 1):
        k = i + int(steps.bits32(1)[0]) % (n - i)
        wanted[i], wanted[k] = wanted[k], wanted[i]
    np.testing.assert_array_equal(np.concatenate(found), wanted)


def test_draws_of_many_systems_at_once_are_those_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn(order([10, 3], [1, 1], 4)[0], 60)
    monkeypatch.setattr("dpa2.train.order._CHUNK", 5)
    assert drawn(order([10, 3], [1, 1], 4)[0], 60) == whole
