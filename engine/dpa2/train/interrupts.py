"""Signals that ask a process to end, held back until a step is complete and saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """While open, the first such signal is only noted; a second Ctrl-C is not waited with.

    Signals that nothing in Python handles are left alone, and so are all of them outside the main thread.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._noted: int | None = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is not None and callable(signal.getsignal(number)):
                    self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()

    @property
    def noted(self) -> int | None:
        """The number of the signal, if there was one."""
        return self._noted

    def follow(self, number: int) -> None:
        """Do now what a signal asks for, which raises an exception as a rule; another process may have had it."""
        handler = self._handlers.get(number, signal.default_int_handler)
        self._give_back()
        handler(number, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted is not None and number == signal.SIGINT:
            handler = self._handlers[number]
            self._give_back()
            handler(number, frame)
        elif self._noted is None:
            self._noted = number

    def _give_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers, self._noted = {}, None
