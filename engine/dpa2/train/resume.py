"""What makes a run go on to the last bit: where its random numbers and the order of its data stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .loading import Loader
from .order import Draw, Order
from .random import Generator
from .systems import Batch


class _Remembering(Order):
    """An order that can give its last batch once more."""

    last: Draw | None = None
    _again: Draw | None = None

    def next(self) -> Draw:
        draw, self._again = self._again, None
        self.last = super().next() if draw is None else draw
        return self.last

    def again(self, draw: Draw) -> None:
        self._again = draw


class Stream:
    """The batches of a data section, whose place can be kept and found again.

    Args:
        data, generator, seed, streams: as for :class:`dpa2.train.order.Order`.
        name: the key of the section, for messages.
    """

    def __init__(self, data: Any, generator: Generator, seed: int | None, streams: int, name: str) -> None:
        self._order = _Remembering(data, generator, seed, streams)
        self.loader = Loader(data, self._order, name)
        self._waiting = False

    def next(self) -> Batch:
        """The next batch."""
        self._waiting = False
        return self.loader.next()

    def ahead(self) -> None:
        """Begin to read the next batch."""
        self._waiting = True
        self.loader.ahead()

    @property
    def state(self) -> dict[str, Any]:
        """Where the stream stands: arrays, and the batch that is being read."""
        state: dict[str, Any] = {key: np.asarray(value, np.int64) for key, value in self._order.state.items()}
        if self._waiting and self._order.last is not None:
            state["system"] = self._order.last.system
            state["frames"] = np.asarray(self._order.last.frames, np.int64)
        return state

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self._order.state = {key: value for key, value in state.items() if key not in ("system", "frames")}
        if "system" in state:
            self._order.again(Draw(int(state["system"]), np.asarray(state["frames"], np.int64)))

    def close(self) -> None:
        """Close the files."""
        self.loader.close()


def packed_generator(generator: Generator) -> dict[str, Any]:
    """The state of a generator for a checkpoint."""
    state = generator.state
    return {"key": np.asarray(state["key"], np.int64), "pos": int(state["pos"]), "kept": state["kept"]}


def restore_generator(generator: Generator, state: Mapping[str, Any]) -> None:
    """Set a generator to a state of :func:`packed_generator`."""
    generator.state = {"key": np.asarray(state["key"], np.uint32), "pos": int(state["pos"]), "kept": state["kept"]}


class TaskDraws:
    """Which task comes next, as NumPy's legacy generator draws it for deepmd-kit.

    Args:
        probabilities: of the tasks, in order.
        seed: ``training.seed``; None: another order in every run.
    """

    def __init__(self, probabilities: Sequence[float], seed: int | None) -> None:
        total = float(np.sum(probabilities))
        if not (np.isfinite(total) and total > 0 and min(probabilities) >= 0):
            raise InputError(f"training.model_prob must be numbers that are not negative, got {list(probabilities)}")
        cumulative = np.cumsum(np.asarray(probabilities, float) / total)
        self._cumulative = cumulative / cumulative[-1]
        self._random = np.random.RandomState(None if seed is None else [0, seed % 2**32])

    def next(self) -> int:
        """The number of the task."""
        if len(self._cumulative) == 1:
            return 0
        return int(np.searchsorted(self._cumulative, self._random.random_sample(), side="right"))

    @property
    def state(self) -> dict[str, Any]:
        """Where the generator stands."""
        key = self._random.get_state(legacy=False)["state"]
        return {"key": np.asarray(key["key"], np.int64), "pos": int(key["pos"])}

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self._random.set_state(("MT19937", np.asarray(state["key"], np.uint32), int(state["pos"]), 0, 0.0))
