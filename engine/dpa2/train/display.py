"""What a run says of itself: the learning curve in a file, lines as deepmd-kit prints them, the time that is left."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..inputs import Float
from ..outputs import errors_named

#: values of a loss by deepmd-kit's names of them: rmse, rmse_e, ...
Values = Mapping[str, float]

_NOTE = "# If there is no available reference data, rmse_*_{val,trn} will print nan\n"


@dataclass
class Results:
    """What is shown of a step.

    Attributes:
        step: counted from 1.
        rate: the learning rate of the step.
        training: the values of each task: of the batch of this step before its update.
        validation: those of validation data after it; empty without such data.
    """

    step: int
    rate: float
    training: dict[str, dict[str, float]]
    validation: dict[str, dict[str, float]] = field(default_factory=dict)


class Curve:
    """The file of the learning curve: a row for every step that is shown.

    Args:
        path: of the file.
        tasks: of the run, in order; one alone is not named in the columns.
        append: go on in a file that is there. Its header is written once more before the first row.
    """

    def __init__(self, path: Path, tasks: Sequence[str], append: bool = False) -> None:
        self.path = path
        self._suffixes = {task: f"_{task}" if len(tasks) > 1 else "" for task in tasks}
        self._header = True
        with errors_named(str(path)):
            self._file = open(path, "ab+" if append else "wb")  # noqa: SIM115
            if append and self._file.tell() and _last_byte(path) != b"\n":  # a row that was cut off
                self._file.write(b"\n")

    def add(self, results: Results) -> None:
        """Write a row, and the header if it is the first one.

        Raises:
            OSError: naming the file.
        """
        text = row(results, self._suffixes)
        if self._header:
            text = header(results, self._suffixes) + text
        with errors_named(str(self.path)):
            self._file.write(text.encode())
            self._file.flush()
        self._header = False

    def close(self) -> None:
        """Close the file."""
        with errors_named(str(self.path)):
            self._file.close()


def read_curve(path: Path) -> dict[str, Float]:
    """The columns of a learning curve by their names; ``step`` is the first, ``lr`` the last.

    Of parts of a run that were done again after a restart the later rows count.

    Raises:
        InputError: the file is none, or has no rows.
    """
    names: list[str] = []
    rows: dict[int, list[float]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.lstrip("#").split()
        if line.startswith("# step"):
            names = words
        elif words and not line.startswith("#") and len(words) == len(names):
            try:
                rows[int(words[0])] = [float(word) for word in words]
            except ValueError:
                continue  # a row that was cut off
    if not rows:
        raise InputError(f"{path}: no learning curve with rows")
    table = np.array([rows[step] for step in sorted(rows) if len(rows[step]) == len(names)])
    return dict(zip(names, table.T, strict=True))


def _last_byte(path: Path) -> bytes:
    with open(path, "rb") as handle:
        handle.seek(-1, 2)
        return handle.read(1)


def header(results: Results, suffixes: Mapping[str, str]) -> str:
    """The two lines above the first row; ``suffixes`` are those of the columns of each task, in order."""
    line = f"# {'step':5s}"
    for task, suffix in suffixes.items():
        both = bool(results.validation.get(task))
        for name in sorted(results.training[task]):
            columns = [f"{name}_val{suffix}"] if both else []
            columns.append(f"{name}_trn{suffix}")
            line += "   " + " ".join(f"{column:>11s}" for column in columns)
    return f"{line}   {'lr':8s}\n{_NOTE}"


def row(results: Results, suffixes: Mapping[str, str]) -> str:
    """The row of a step."""
    line = f"{results.step:7d}"
    for task in suffixes:
        training, validation = results.training[task], results.validation.get(task)
        for name in sorted(training):
            values = [validation[name]] if validation else []
            values.append(training[name])
            line += "   " + " ".join(f"{value:11.2e}" for value in values)
    return f"{line}   {results.rate:8.1e}\n"


def lines(results: Results) -> list[str]:
    """The lines of a step as deepmd-kit prints them."""
    out = []
    alone = len(results.training) == 1
    for task, training in results.training.items():
        name = "" if alone else f"{task}_"
        out.append(f"{_line(results.step, f'{name}trn', training)}, lr = {results.rate:8.2e}")
        if validation := results.validation.get(task):
            out.append(_line(results.step, f"{name}val", validation))
    return out


def _line(step: int, name: str, values: Values) -> str:
    shown = ", ".join(f"{key} = {value:8.2e}" for key, value in sorted(values.items()))
    return f"Batch {step:7d}: {name}: {shown}"


def nan_task(results: Results) -> str | None:
    """The task whose total is no number any more."""
    for values in (results.training, results.validation):
        for task, entry in values.items():
            if math.isnan(entry.get("rmse", 0.0)):
                return task
    return None


class Clock:
    """How long the steps of a run take.

    The first interval has what happens once in a run, such as the first reading of data: no time that is left is told
    from it, and the average leaves the first ``interval`` steps out unless the run is short.

    Args:
        first, last: the steps that were done when the run begins and when it ends.
        interval: between lines.
        seconds: says what time it is.
    """

    def __init__(self, first: int, last: int, interval: int, seconds: Callable[[], float] = time.monotonic) -> None:
        self._first, self._last, self._interval = first, last, max(1, interval)
        self._seconds, self._begin = seconds, seconds()
        self._step = first
        self._told = False
        self._time, self._steps = 0.0, 0

    def line(self, step: int) -> str:
        """The line of a step that was shown, counted from 1."""
        now = self._seconds()
        wall, steps = now - self._begin, max(1, step - self._step)
        self._begin, self._step = now, step
        short = self._last - self._first <= 2 * self._interval
        if short or step - 1 - self._first >= self._interval:
            self._time += wall
            self._steps += steps
        text = f"Batch {step:7d}: total wall time = {wall:.2f} s"
        if self._told:
            left = int((self._last - step) * wall / steps)
            end = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=left)
            text += f", eta = {datetime.timedelta(seconds=left)!s} at {end:%Y-%m-%d %H:%M}"
        self._told = True
        return text

    def average(self) -> str | None:
        """The line at the end; None if no interval counts."""
        if not self._steps:
            return None
        text = f"average training time: {self._time / self._steps:.4f} s/batch"
        left_out = self._last - self._first - self._steps
        return text + (f" ({left_out} batches excluded)" if left_out > 0 else "")
