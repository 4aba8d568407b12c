"""The models of a run, and their parameters, each of which lies in one place whoever shares it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import ModelData, schema
from .checkpoint import full_name
from .gradient import PREFIX, parameters
from .processes import Alone
from .resume import Source


@dataclass
class Task:
    """A model and the data that it is trained on.

    Attributes:
        data: the model. Its parameters are replaced by views of those of the optimizer.
        loss: the ``loss`` section.
        training: the batches.
        validation: those of the validation data; None: there are none.
        batches: of validation data whenever something is shown.
        section: the ``model`` section.
        sample: gives the batches of the sample that statistics are made of.
    """

    data: ModelData
    loss: Mapping[str, Any]
    training: Source
    validation: Source | None = None
    batches: int = 1
    section: Mapping[str, Any] | None = None
    sample: Callable[[], Iterable[Mapping[str, Any]]] | None = None


class Trained:
    """The parameters of all tasks.

    Args:
        tasks: by name.
        links: of every weight that tasks share, by full name in a checkpoint: whose it is.

    Attributes:
        first: their first values by full name, each once, in the precision that deepmd-kit keeps it in.
        names: of each task, by the names of its gradient the full names.
    """

    def __init__(self, tasks: Mapping[str, Task], links: Mapping[str, str]) -> None:
        self._tasks = tasks
        self.first: dict[str, NDArray[Any]] = {}
        self.names: dict[str, dict[str, str]] = {}
        for task, entry in tasks.items():
            expected = schema.expected_weights(entry.data.config)
            self.names[task] = {}
            for name in parameters(entry.data):
                full = full_name(task, PREFIX + name)
                owner = links.get(full, full)
                if owner == full or owner not in self.first:
                    self.first[owner] = entry.data.weights[name].astype(expected[name].dtype)
                self.names[task][PREFIX + name] = owner

    def of(self, task: str, values: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Those of a task by the names of its gradient, of all by full name."""
        return {name: values[full] for name, full in self.names[task].items()}

    def share(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Let the models have these arrays, by full name."""
        for task, entry in self._tasks.items():
            mine = {name.removeprefix(PREFIX): value for name, value in self.of(task, values).items()}
            entry.data.weights = {**entry.data.weights, **mine}

    def copy_others(self, processes: Alone) -> None:
        """Take the weights that are no parameters from the first process."""
        for task, entry in self._tasks.items():
            mine = {name.removeprefix(PREFIX) for name in self.names[task]}
            for name in sorted(set(entry.data.weights) - mine):
                entry.data.weights[name] = processes.copied(np.asarray(entry.data.weights[name]))
