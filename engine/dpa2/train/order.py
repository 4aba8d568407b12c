"""The order of training data: which frames make the next batch, as deepmd-kit draws them from the same seed.

A pass over a system takes its frames in random order, cut into batches; systems are drawn with replacement. The
processes that load data in deepmd-kit each have copies of these passes and serve the batches in turn, so that the
order depends on how many they are. Here they are only streams of random numbers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .random import Generator

_WORKERS = "NUM_WORKERS"
#: what deepmd-kit has at most; fewer on a machine of fewer cores, on which the order here does not depend
_MOST_WORKERS = 4
#: systems are drawn so many at once, and steps of a shuffle
_CHUNK, _STEPS = 2**20, 2**10


class Draw(NamedTuple):
    """What a batch is made of: frames of a system, by their numbers."""

    system: int
    frames: NDArray[np.int64]


class Sizes(Protocol):
    """What an order knows of its data."""

    @property
    def frames(self) -> Sequence[int]:
        """Of each system."""
        ...

    @property
    def sizes(self) -> Sequence[int]:
        """Frames of a batch of each system."""
        ...

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Of each system: (nsystems,)."""
        ...


def workers() -> int:
    """How many streams the order has: the environment's NUM_WORKERS, by default 4.

    Raises:
        InputError: NUM_WORKERS is no such number.
    """
    text = os.environ.get(_WORKERS)
    if not text:
        return _MOST_WORKERS
    if not text.strip().isdecimal() or int(text) > 4096:
        raise InputError(f"the environment's {_WORKERS} must be a whole number from 0 to 4096, got {text!r}")
    return int(text)


class _Shuffled:
    """The numbers below ``n`` in PyTorch's random order (Fisher and Yates, from the front), made as they are asked for.

    A pass over millions of frames begins at once in this way, and remembers only what was moved.
    """

    def __init__(self, generator: Generator, n: int) -> None:
        self._generator, self._n = generator, n
        self._moved: dict[int, int] = {}  # places that hold another number than their own
        self._steps: list[int] = []  # how far the numbers come from that are next, the last one first
        self.taken = 0

    def take(self, count: int) -> NDArray[np.int64]:
        """So many more numbers, fewer at the end."""
        out = []
        for place in range(self.taken, min(self.taken + count, self._n)):
            other = place + self._step(place)
            mine = self._moved.pop(place, place)
            if other == place:
                out.append(mine)
            else:
                out.append(self._moved.get(other, other))
                self._moved[other] = mine
        self.taken += len(out)
        return np.array(out, dtype=np.int64)

    def _step(self, place: int) -> int:
        left = self._n - 1 - place  # the last number needs no draw
        if left == 0:
            return 0
        if not self._steps:
            bits = self._generator.bits32(min(_STEPS, left))
            choices = np.arange(left + 1, left + 1 - len(bits), -1, dtype=np.uint64)
            self._steps = (bits % choices)[::-1].tolist()
        return self._steps.pop()


class Passes:
    """The batches of a system: pass after pass over its frames, each in a random order of its own."""

    def __init__(self, frames: int, size: int, generator: Generator) -> None:
        self._frames, self._size, self._generator = frames, size, generator
        self._seed = -1  # of the pass that is on; it has not begun
        self._order = _Shuffled(Generator(0), frames)
        generator.bits64()  # deepmd-kit makes an iterator, which draws

    def copy(self, generator: Generator) -> Passes:
        """The same place in the same pass, with another generator for what follows."""
        other = object.__new__(Passes)
        other.__dict__.update(self.__dict__, _generator=generator)
        other.place = self.place
        return other

    def next(self) -> NDArray[np.int64]:
        """The frames of the next batch; the last one of a pass may be smaller."""
        if self._seed >= 0 and self._order.taken >= self._frames:
            self._generator.bits64()
            self._seed = -1
        if self._seed < 0:
            self.place = (self._generator.bits64() & (2**63 - 1), 0)
        return self._order.take(self._size)

    @property
    def place(self) -> tuple[int, int]:
        """The seed of the pass that is on, -1 before the first, and how many of its frames were taken."""
        return self._seed, self._order.taken

    @place.setter
    def place(self, place: tuple[int, int]) -> None:
        self._seed, taken = place
        self._order = _Shuffled(Generator(max(0, self._seed)), self._frames)
        self._order.take(taken)


class Order:
    """The batches of a data section, one after the other, for ever.

    Args:
        data: the section.
        generator: the global one, from which the weights and the orders of other sections are drawn as well. Who asks
            for the same things in the same order as deepmd-kit gets its numbers.
        seed: ``training.seed``; the generator is started anew with it. None leaves the generator where it is.
        streams: as :func:`workers` says.
    """

    def __init__(self, data: Sizes, generator: Generator, seed: int | None, streams: int) -> None:
        self._data, self._generator, self._workers = data, generator, streams
        if seed is not None:
            generator.seed([0, seed % 2**32])
        self._passes = [self.passes(k) for k in range(len(data.frames))]
        batches = sum(-(-frames // size) for frames, size in zip(data.frames, data.sizes, strict=True))
        self._count = max(1, streams) * batches
        cumulative = np.cumsum(data.probabilities)
        self._cumulative = cumulative / cumulative[-1]
        self._cumulative[-1] = 1.0
        self._begin = np.empty(0, dtype=np.uint32)  # where the generator stood when systems were drawn
        self._systems = np.empty(0, dtype=np.uint32)  # that were drawn
        self._served = 0
        self._generators: list[Generator] = []
        self._streams: list[list[Passes]] = []

    def passes(self, k: int) -> Passes:
        """New passes over a system, from the global generator."""
        return Passes(self._data.frames[k], self._data.sizes[k], self._generator)

    def next(self) -> Draw:
        """What the next batch is made of."""
        if self._served >= len(self._systems):  # beyond the end where a restart has larger batches
            self._start()
        system = int(self._systems[self._served])
        stream = self._streams[self._served % len(self._streams)]
        self._served += 1
        return Draw(system, stream[system].next())

    def _start(self) -> None:
        """Draw the systems of as many batches as all passes of all streams have; streams begin from the front."""
        base = self._generator.bits64()
        self._begin = _packed(self._generator)
        self._systems = self._drawn(self._generator)
        self._served = 0
        self._make_streams([(base + w) & (2**64 - 1) for w in range(self._workers)])

    def _drawn(self, generator: Generator) -> NDArray[np.uint32]:
        systems = np.empty(self._count, dtype=np.uint32)
        for start in range(0, self._count, _CHUNK):
            part = systems[start : start + _CHUNK]
            part[:] = np.searchsorted(self._cumulative, generator.doubles(len(part)), side="left")
        return systems

    def _make_streams(self, seeds: Sequence[int]) -> None:
        self._generators = [Generator(seed) for seed in seeds]
        copies = [[passes.copy(generator) for passes in self._passes] for generator in self._generators]
        self._streams = copies or [self._passes]

    @property
    def state(self) -> dict[str, Any]:
        """Where the order stands, but for the global generator, as arrays; empty before the first batch.

        ``served`` (), ``begin`` (625,), ``generators`` (streams, 625), ``passes`` (streams, nsystems, 2).
        """
        if not self._streams:
            return {}
        return {
            "served": np.array(self._served, dtype=np.int64),
            "begin": self._begin.copy(),
            "generators": np.array([_packed(generator) for generator in self._generators]).reshape(-1, 625),
            "passes": np.array([[passes.place for passes in stream] for stream in self._streams], dtype=np.int64),
        }

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        """Raises InputError: it is the state of other data."""
        if not state:
            return
        shape = (max(1, self._workers), len(self._passes), 2)
        places = np.asarray(state["passes"])
        if places.shape != shape:
            raise InputError(
                f"the order of the data was kept for {places.shape[0]} streams of {places.shape[1]} systems, but there "
                f"are {shape[0]} and {shape[1]}: the data or the environment's {_WORKERS} have changed"
            )
        if (places[..., 1] > np.array(self._data.frames)).any():
            raise InputError("the order of the data was kept for systems of more frames: the data have changed")
        self._begin = np.asarray(state["begin"], dtype=np.uint32)
        generator = Generator(0)
        _unpack(generator, self._begin)
        self._systems, self._served = self._drawn(generator), int(state["served"])
        self._make_streams([0] * self._workers)
        for generator, packed in zip(self._generators, state["generators"], strict=True):
            _unpack(generator, packed)
        for stream, row in zip(self._streams, places.tolist(), strict=True):
            for passes, place in zip(stream, row, strict=True):
                passes.place = (place[0], place[1])


def _packed(generator: Generator) -> NDArray[np.uint32]:
    """The state of a generator's bits: (625,)."""
    state = generator.state
    return np.concatenate([state["key"], [state["pos"]]]).astype(np.uint32)


def _unpack(generator: Generator, packed: NDArray[np.uint32]) -> None:
    generator.state = {"key": packed[:624], "pos": int(packed[624]), "kept": None}
