"""Commands in this process: run, interrupted; and the signals of those in processes of their own."""

from __future__ import annotations

import signal
from typing import Any

import dpa2
import pytest
from dpa2.cli import main


def run_command(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run a command that must succeed and say nothing on stderr; its stdout."""
    status = main(list(args))
    captured = capsys.readouterr()
    assert status == 0, captured.err
    assert captured.err == ""
    return captured.out


def figures_and_files(out: str) -> tuple[str, list[str]]:
    """What ``dpa2 test -d`` prints: the figures, and the files that its last line names, in alphabetical order."""
    *figures, last = out.splitlines(keepends=True)
    return "".join(figures), sorted(last.strip().removeprefix("written     ").split(", "))


def interrupt(monkeypatch: pytest.MonkeyPatch, method: str, call: int) -> None:
    """Ctrl-C in the given call, counted from 1, of a method of :class:`dpa2.Model`."""
    original, calls = getattr(dpa2.Model, method), []

    def interrupted(model: dpa2.Model, *args: object, **keywords: object) -> Any:
        calls.append(None)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(model, *args, **keywords)

    monkeypatch.setattr(dpa2.Model, method, interrupted)


def ordinary_signals() -> None:
    """For ``preexec_fn``: a process of a script's background inherits that Ctrl-C is ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
