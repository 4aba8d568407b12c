"""Signals that wait for a good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Noted:
    """The first signal that came; :meth:`act` does what it would have done at once. A second one is not held back."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def hold(self) -> None:
        """Note signals from now on, those that Python handles."""
        if threading.current_thread() is threading.main_thread():
            for number in _NUMBERS:
                if callable(signal.getsignal(number)):
                    self._before[number] = signal.signal(number, self._note)

    def release(self) -> None:
        """Handle signals as before."""
        while self._before:
            signal.signal(*self._before.popitem())

    def act(self) -> None:
        """Handle what was noted."""
        number, self.number = self.number, None
        if number is not None:
            handler = signal.getsignal(number)
            assert callable(handler)
            handler(number, None)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self.release()


@contextmanager
def signals_noted() -> Iterator[Noted]:
    """Holds signals back as long as the context lasts, so that they do not come in the middle of what must be whole."""
    noted = Noted()
    noted.hold()
    try:
        yield noted
    finally:
        noted.release()
    noted.act()
