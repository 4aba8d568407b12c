"""The frames of a file or system in another order, the one that ``dp test --shuffle-test`` of deepmd-kit draws."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .frames import Frame, Structures


class Shuffled:
    """Frames in an order that is drawn when they are walked through.

    The frames that are wanted are in memory from then on: files are read from their beginning.

    Args:
        source: whose frames these are.
        generator: draws the order. deepmd-kit draws all systems from one, in their order.
        most: so many are wanted, the first of the new order; None: all.
    """

    def __init__(self, source: Structures, generator: np.random.RandomState, most: int | None = None) -> None:
        self.path = source.path
        self._source, self._generator, self._most = source, generator, most

    def count(self) -> int | None:
        """How many there are, as far as the source knows."""
        count = self._source.count()
        return count if count is None or self._most is None else min(count, self._most)

    def __iter__(self) -> Iterator[Frame]:
        count = self._source.count()
        order = np.arange(sum(1 for _ in self._source) if count is None else count)
        self._generator.shuffle(order)
        order = order[: self._most]
        wanted = set(order.tolist())
        frames = {k: frame for k, frame in enumerate(self._source) if k in wanted}
        for k in order.tolist():
            yield frames.pop(k)
