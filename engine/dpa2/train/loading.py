"""Batches in their order, of which the next one is read while the model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from ..data.lmdb_frames import is_lmdb
from ..errors import InputError
from .batch import WEIGHTS, Label
from .dataset import DataSet, select
from .lmdb import LmdbOrder, LmdbSet
from .order import Draw, Order
from .random import Generator
from .systems import Batch


def open_section(
    section: Mapping[str, Any],
    type_map: Sequence[str],
    labels: Sequence[Label],
    name: str = "training.training_data",
    key: str | None = None,
    shares: int = 1,
) -> DataSet | LmdbSet:
    """The data of a section: systems, or one LMDB data set; arguments and errors of :class:`DataSet`."""
    systems = section["systems"]
    if isinstance(systems, (list, tuple)) and len(systems) == 1:
        systems = systems[0]
    if isinstance(systems, str) and is_lmdb(systems):
        return LmdbSet({**section, "systems": systems}, type_map, labels, name, shares)
    return DataSet(section, type_map, labels, name, key, shares)


def order_of(data: DataSet | LmdbSet, generator: Generator, seed: int | None, streams: int) -> Order | LmdbOrder:
    """The order of the data of a section; arguments of :class:`Order`."""
    return LmdbOrder(data, generator, seed) if isinstance(data, LmdbSet) else Order(data, generator, seed, streams)


#: labels that are compared with nothing: weights of others, and what the model takes
_NOT_COMPARED = (*WEIGHTS, "fparam", "aparam")


def missing_labels(data: DataSet | LmdbSet, labels: Sequence[Label], name: str = "training.training_data") -> list[str]:
    """What is to be said of labels that the data lack, a line each.

    Raises:
        InputError: there is no label at all that the loss compares with.
    """
    compared = [label.name for label in labels if label.name not in _NOT_COMPARED]
    found = {label: len(data.found(label)) for label in compared}
    if compared and not any(found.values()):
        raise InputError(f"{name}: no system has any label that the loss compares with: {', '.join(compared)}")
    lines = []
    for label, count in found.items():
        if count < len(data.systems):
            of = "no system has" if count == 0 else f"{len(data.systems) - count} of {len(data.systems)} systems lack"
            lines.append(f"{name}: {of} {label}: its term of the loss is left out in their batches")
    return lines


class Loader:
    """The batches of a data section for ever.

    Args:
        data: the section.
        order: of its batches, such as :func:`order_of` makes.
        name: the key of the section, for messages.
        mine: of so many frames of a batch those of this process; None: all of them.
    """

    def __init__(
        self,
        data: DataSet | LmdbSet,
        order: Order | LmdbOrder,
        name: str = "training.training_data",
        mine: Callable[[int], slice] | None = None,
    ) -> None:
        self.data, self.order, self.name, self._mine = data, order, name, mine
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: Future[tuple[bool, Batch | None]] | None = None

    def next(self) -> Batch | None:
        """The next batch that has frames; None if none of them are those of this process.

        Raises:
            InputError: a frame cannot be trained on, and is named; no frame keeps ``min_pair_dist``.
        """
        ahead, self._ahead = self._ahead, None
        any_left, batch = self._read(self.order.next()) if ahead is None else ahead.result()
        left = sum(self.data.lengths)
        while not any_left:
            left -= 1
            if left <= 0:
                raise InputError(
                    f"{self.name}.min_pair_dist: in {sum(self.data.lengths)} batches, all that there are, every frame "
                    f"has atoms that are closer than {self.data.min_pair_dist:g} angstrom"
                )
            any_left, batch = self._read(self.order.next())
        return batch

    def _read(self, draw: Draw) -> tuple[bool, Batch | None]:
        """Whether a batch has frames, and those of this process."""
        if self._mine is None:
            batch = self.data.read(draw)
            return batch is not None, batch
        if self.data.min_pair_dist > 0.0:  # which frames are left must be known to share them
            batch = self.data.read(draw)
            if batch is None:
                return False, None
            rows = range(len(batch["coord"]))
            mine = list(rows[self._mine(len(rows))])
            return True, select(batch, mine) if mine else None
        frames = draw.frames[self._mine(len(draw.frames))]
        batch = self.data.read(Draw(draw.system, frames)) if len(frames) else None
        if batch is not None:
            batch["where"] = self.data.where(draw)  # a loss counts the frames of all processes
        return True, batch

    def ahead(self) -> None:
        """Begin to read the next batch in another thread.

        It draws from the global generator: who wants deepmd-kit's order calls it only where nothing else draws from
        there before :meth:`next`, such as an evaluation of validation data.
        """
        if self._ahead is None:
            if self._reader is None:
                self._reader = ThreadPoolExecutor(1, thread_name_prefix="dpa2-data")
            self._ahead = self._reader.submit(self._read, self.order.next())

    def sample(self, most: int) -> Iterator[Batch]:
        """The batches for statistics: at most so many of every system, from passes of their own.

        Their draws from the global generator are those of deepmd-kit once all are taken.
        """
        for k, length in enumerate(self.data.lengths):
            passes, wanted = self.order.passes(k), min(most, length)
            for _ in range(length if self.data.min_pair_dist > 0.0 else wanted):
                if wanted == 0:
                    break
                batch = self.data.read(Draw(k, passes.next()))
                if batch is not None:
                    wanted -= 1
                    yield batch

    def close(self) -> None:
        """End the thread and close the files."""
        if self._ahead is not None:
            with suppress(InputError, OSError):  # nobody asks for that batch any more
                self._ahead.result()
            self._ahead = None
        if self._reader is not None:
            self._reader.shutdown()
            self._reader = None
        self.data.close()
