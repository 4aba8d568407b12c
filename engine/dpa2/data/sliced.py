"""Some of the frames of a file or system: one by its index, or a slice as Python and ASE have them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ..errors import InputError
from .frames import Frame, Structures


class Sliced:
    """The frames of a source that an index or a slice chooses.

    Files are read from their beginning, and no farther than is needed. Where an index counts from the end, and the
    source does not know how many frames it has, they are counted first.

    Args:
        source: whose frames these are.
        chosen: an index, or a slice with a positive step.
    """

    def __init__(self, source: Structures, chosen: int | slice) -> None:
        self.path = source.path
        self._source, self._chosen = source, chosen

    def count(self) -> int | None:
        """How many there are, as far as the source knows."""
        if isinstance(self._chosen, int):
            return 1
        count = self._source.count()
        return None if count is None else len(range(*self._chosen.indices(count)))

    def __iter__(self) -> Iterator[Frame]:
        chosen = self._chosen
        if isinstance(chosen, int):
            yield self._single(chosen)
            return
        if min(chosen.start or 0, chosen.stop or 0) < 0:
            chosen = slice(*chosen.indices(self._count()))
        yield from islice(self._source, chosen.start, chosen.stop, chosen.step)

    def _single(self, index: int) -> Frame:
        place = index if index >= 0 else self._count() + index
        frame = None if place < 0 else next(islice(self._source, place, None), None)
        if frame is None:
            count = self._count()
            raise InputError(f"{self.path}: there is no frame {index}, but {count} frame{'' if count == 1 else 's'}")
        return frame

    def _count(self) -> int:
        count = self._source.count()
        return sum(1 for _ in self._source) if count is None else count
