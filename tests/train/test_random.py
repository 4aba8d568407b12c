"""The random numbers of training: those of PyTorch's generator, and deepmd-kit's seeds of several integers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from cases import GOLDEN
from dpa2.errors import InputError
from dpa2.train.order import _Shuffled
from dpa2.train.random import Generator, child, mix

RECORDED = json.loads((GOLDEN / "training" / "random.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("stream", RECORDED["streams"], ids=lambda stream: str(stream["seed"]))
def test_fills_are_those_of_pytorch(stream: dict[str, Any]) -> None:
    generator = Generator(stream["seed"])
    for kind, count, first, second, dtype, expected in stream["fills"]:
        if kind == "permutation":
            assert _Shuffled(generator, count).take(count).tolist() == expected
            continue
        found = getattr(generator, kind)(count, first, second, dtype)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15 if dtype == "float64" else 4e-7)


@pytest.mark.parametrize("case", RECORDED["paths"], ids=lambda case: str(case["path"]))
def test_seeds_of_several_integers_are_those_of_deepmd(case: dict[str, Any]) -> None:
    assert mix(case["path"]) == case["mixed"]
    found = Generator(case["path"]).uniform(4, -2.0, 3.0)
    np.testing.assert_allclose(found, case["first"], rtol=0, atol=1e-15)


def test_outputs_are_those_of_the_standard() -> None:
    """The C++ standard, [rand.predef], says what the 10000th output of mt19937 is."""
    assert Generator(5489).bits32(10000)[-1] == 4123659995


def test_words_take_the_upper_half_first() -> None:
    high, low = Generator(3).bits32(2)
    assert Generator(3).bits64() == int(high) * 2**32 + int(low)
    assert Generator(3).doubles(1)[0] == (Generator(3).bits64() % 2**53) / 2**53


def test_shapes_are_filled_in_the_order_of_memory() -> None:
    for draw in ("uniform", "normal"):
        flat, square = getattr(Generator(1), draw)(42), getattr(Generator(1), draw)((6, 7))
        assert square.shape == (6, 7)
        assert np.array_equal(square.ravel(), flat)


def test_a_state_goes_on_where_it_was_taken() -> None:
    one = Generator([0, 7])
    one.normal(3)  # an odd number leaves a deviate behind
    state = one.state
    other = Generator(0)
    other.state = state
    for generator in (one, other):
        generator.doubles(700)  # beyond the outputs that are made at once
    assert np.array_equal(one.normal(5), other.normal(5))
    assert one.bits64() == other.bits64()


def test_the_state_taken_does_not_move() -> None:
    generator = Generator(0)
    state = generator.state
    generator.doubles(1000)
    assert np.array_equal(state["key"], Generator(0).state["key"])


def test_children_of_seeds() -> None:
    assert child(None, 3) is None
    assert child(5, 3) == [3, 5]
    assert child([3, 5], 0) == [0, 3, 5]


@pytest.mark.parametrize("seed", [-1, [], [0, -2]])
def test_seeds_that_are_none(seed: Any) -> None:
    with pytest.raises(InputError, match="seed"):
        Generator(seed)


def test_moments_of_many() -> None:
    numbers = Generator(11).normal(200_001)
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01
    order = _Shuffled(Generator(11), 1000).take(1000)
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert (order != np.arange(1000)).mean() > 0.95
