"""Batches in their order, of which the next one is read while the model computes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from ..errors import InputError
from .dataset import DataSet
from .order import Draw, Order
from .systems import Batch


class Loader:
    """The batches of a data section for ever.

    Args:
        data: the section.
        order: of its batches.
        name: the key of the section, for messages.
    """

    def __init__(self, data: DataSet, order: Order, name: str = "training.training_data") -> None:
        self.data, self.order, self.name = data, order, name
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: Future[Batch | None] | None = None

    def next(self) -> Batch:
        """The next batch that has frames.

        Raises:
            InputError: a frame cannot be trained on, and is named; no frame keeps ``min_pair_dist``.
        """
        ahead, self._ahead = self._ahead, None
        batch = self.data.read(self.order.next()) if ahead is None else ahead.result()
        left = sum(self.data.lengths)
        while batch is None:
            left -= 1
            if left <= 0:
                raise InputError(
                    f"{self.name}.min_pair_dist: in {sum(self.data.lengths)} batches, all that there are, every frame "
                    f"has atoms that are closer than {self.data.min_pair_dist:g} angstrom"
                )
            batch = self.data.read(self.order.next())
        return batch

    def ahead(self) -> None:
        """Begin to read the next batch in another thread.

        It draws from the global generator: who wants deepmd-kit's order calls it only where nothing else draws from
        there before :meth:`next`, such as an evaluation of validation data.
        """
        if self._ahead is None:
            if self._reader is None:
                self._reader = ThreadPoolExecutor(1, thread_name_prefix="dpa2-data")
            self._ahead = self._reader.submit(self.data.read, self.order.next())

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
            with suppress(InputError):  # nobody asks for that batch any more
                self._ahead.result()
            self._ahead = None
        if self._reader is not None:
            self._reader.shutdown()
            self._reader = None
        self.data.close()
