"""What makes a run go on to the last bit: where its random numbers and the order of its data stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from ..errors import InputError
from .dataset import DataSet
from .lmdb import LmdbOrder, LmdbSet
from .loading import Loader, order_of
from .order import Draw, Order
from .random import Generator
from .systems import Batch


class _Remembering:
    """An order that can give its last batch once more."""

    def __init__(self, order: Order | LmdbOrder) -> None:
        self.order = order
        self.last: Draw | None = None
        self.once_more: Draw | None = None

    def next(self) -> Draw:
        draw, self.once_more = self.once_more, None
        self.last = self.order.next() if draw is None else draw
        return self.last

    def passes(self, k: int) -> Any:
        return self.order.passes(k)


class Stream:
    """The batches of a data section, whose place can be kept and found again.

    Args:
        data, generator, seed, streams: as for :func:`dpa2.train.loading.order_of`.
        name: the key of the section, for messages.
    """

    def __init__(
        self, data: DataSet | LmdbSet, generator: Generator, seed: int | None, streams: int, name: str
    ) -> None:
        self._order = _Remembering(order_of(data, generator, seed, streams))
        self.loader = Loader(data, cast(Order, self._order), name)
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
        state = {key: _storable(value) for key, value in self._order.order.state.items()}
        if self._waiting and self._order.last is not None:
            state["system"] = int(self._order.last.system)
            state["frames"] = np.asarray(self._order.last.frames, np.int64)
        return state

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self._order.order.state = {key: value for key, value in state.items() if key not in ("system", "frames")}
        if "system" in state:
            self._order.once_more = Draw(int(state["system"]), np.asarray(state["frames"], np.int64))

    def close(self) -> None:
        """Close the files."""
        self.loader.close()


def _storable(value: Any) -> Any:
    """The same numbers of a type that PyTorch has as well."""
    return np.asarray(value, np.int64) if isinstance(value, np.ndarray) and value.dtype.kind in "iu" else value


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
