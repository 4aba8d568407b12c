"""What makes a run go on to the last bit: where its random numbers and the order of its data stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np

from ..errors import InputError
from .dataset import DataSet
from .lmdb import LmdbOrder, LmdbSet
from .loading import Loader, order_of
from .order import Draw, Order
from .random import Generator
from .systems import Batch


class Source(Protocol):
    """Where batches come from; :class:`Stream` is one.

    Attributes:
        state: where it stands, as a checkpoint can hold it.
    """

    state: Any

    def next(self) -> Mapping[str, Any] | None:
        """The next batch, as :class:`dpa2.train.GradientEngine` takes it.

        Where processes share it the frames of this one; None if it has none.
        """
        ...

    def ahead(self) -> None:
        """Begin to read the next batch."""
        ...

    def close(self) -> None:
        """Close what is open; whoever goes on gets the batch that comes next."""
        ...


#: what a stream keeps besides its order
_OWN = ("system", "frames", "sample")


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
        most: batches of each system that a sample has.
        keep: whether the place has to tell which frames were sampled.
        mine: of so many frames of a batch those of this process; None: all of them.
    """

    def __init__(
        self,
        data: DataSet | LmdbSet,
        generator: Generator,
        seed: int | None,
        streams: int,
        name: str,
        most: int = 0,
        keep: bool = False,
        mine: Callable[[int], slice] | None = None,
    ) -> None:
        self._order = _Remembering(order_of(data, generator, seed, streams))
        self.loader = Loader(data, cast(Order, self._order), name, mine)
        self._waiting = False
        self._most, self._keep = most, keep
        self._sampled: list[Draw] | None = None

    def sample(self) -> Iterator[Batch]:
        """Batches for statistics, which are drawn once and then read again."""
        if self._sampled is not None:
            for draw in self._sampled:
                if (batch := self.loader.data.read(draw)) is not None:
                    yield batch
            return
        sampled = []
        for batch in self.loader.sample(self._most):
            sampled.append(Draw(int(batch["system"]), np.asarray(batch["frames"], np.int64)))
            yield batch
        self._sampled = sampled

    def next(self) -> Batch | None:
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
        pending = self._order.last if self._waiting else self._order.once_more
        if pending is not None:
            state["system"] = int(pending.system)
            state["frames"] = np.asarray(pending.frames, np.int64)
        if self._keep and self._sampled is not None:
            state["sample"] = [[draw.system, draw.frames] for draw in self._sampled]
        return state

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self._order.order.state = {key: value for key, value in state.items() if key not in _OWN}
        if "system" in state:
            self._order.once_more = Draw(int(state["system"]), np.asarray(state["frames"], np.int64))
        if "sample" in state:
            self._sampled = [Draw(int(system), np.asarray(frames, np.int64)) for system, frames in state["sample"]]

    def close(self) -> None:
        """Close the files; the batch that is being read is read again by who goes on."""
        if self._waiting:
            self._waiting, self._order.once_more = False, self._order.last
        self.loader.close()


def _storable(value: Any) -> Any:
    """The same numbers of a type that PyTorch has as well."""
    return np.asarray(value, np.int64) if isinstance(value, np.ndarray) and value.dtype.kind in "iu" else value


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


def run_state(
    draws: TaskDraws, sources: Mapping[str, tuple[Source, Source | None]], generator: Generator | None
) -> dict[str, Any]:
    """Where a run stands, for a checkpoint.

    Args:
        draws: of the tasks.
        sources: of training and of validation data, by task.
        generator: the global one.
    """
    state: dict[str, Any] = {"draws": draws.state, "streams": {}}
    if generator is not None:
        place = generator.state
        state["generator"] = {
            "key": np.asarray(place["key"], np.int64),
            "pos": int(place["pos"]),
            "kept": place["kept"],
        }
    for name, (training, validation) in sources.items():
        state["streams"][name] = {
            "training": training.state,
            "validation": {} if validation is None else validation.state,
        }
    return state


def restore_run(
    state: Mapping[str, Any],
    draws: TaskDraws,
    sources: Mapping[str, tuple[Source, Source | None]],
    generator: Generator | None,
) -> None:
    """Go on from what :func:`run_state` was.

    Raises:
        InputError: it was of other data. KeyError, TypeError, ValueError: it is none.
    """
    draws.state = state["draws"]
    for name, (training, validation) in sources.items():
        training.state = state["streams"][name]["training"]
        if validation is not None:
            validation.state = state["streams"][name]["validation"]
    if generator is not None and "generator" in state:
        place = state["generator"]
        generator.state = {"key": np.asarray(place["key"], np.uint32), "pos": int(place["pos"]), "kept": place["kept"]}
