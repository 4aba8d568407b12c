"""The loop of a training: batches, gradients, steps of the optimizer; what is shown and saved in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import Error, EvaluationError, InputError, WorkFailedError
from ..files import ModelData, write_safetensors
from .averages import MovingAverage
from .checkpoint import SINGLE, Checkpoint, Progress, averaged, contents, numbering, restore, write
from .display import Clock, Curve, Results, lines, nan_task
from .gradient import GradientEngine
from .interrupts import Interrupts
from .models import Task, Trained
from .optimizer import Adam
from .processes import Alone
from .resume import Source, TaskDraws, restore_run, run_state
from .schedule import Schedule
from .store import Store, stores


class Trainer:
    """A training run over prepared models and data: see :func:`dpa2.train.from_file` for one of an input.

    Args:
        config: the input, as :func:`dpa2.train.inputs.normalise` returns it.
        tasks: by name; "Default" for one alone.
        steps: of the whole run.
        links: of every weight that tasks share, by full name in a checkpoint: whose it is.
        generator: the global generator of random numbers, kept in checkpoints; None: none is used.
        probabilities: of the tasks.
        precision, threads: of the gradients; the model's own and all cores by default.
        say: takes the lines that deepmd-kit would print.
        processes: that train together, each with a trainer of its own. All do the same with their frames of the
            batches that the tasks give; the first one has the optimizer and the averages, and writes the files.

    Attributes:
        done: how many steps have been done.
        steps: of the whole run.
        optimizer, average: with the parameters, and their moving averages, by full name.

    Raises:
        InputError: what the input says cannot be done. OSError: a folder of checkpoints that cannot be made or written.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tasks: Mapping[str, Task],
        steps: int,
        *,
        links: Mapping[str, str] | None = None,
        generator: Any = None,
        probabilities: Sequence[float] | None = None,
        precision: Any = None,
        threads: int | None = None,
        say: Callable[[str], None] = lambda line: None,
        processes: Alone | None = None,
    ) -> None:
        self.processes = Alone() if processes is None else processes
        self.config, self.tasks, self.steps = config, dict(tasks), steps
        training = config["training"]
        self._links, self._generator, self._say = dict(links or {}), generator, say
        self._threads = self.processes.threads(threads)
        self._schedule = Schedule(config["learning_rate"], steps)
        first = {"starter_learning_rate": self._schedule.start}
        self._losses = {name: {**task.loss, **first} for name, task in self.tasks.items()}
        self._trained = Trained(self.tasks, self._links)
        self.optimizer = Adam(config["optimizer"], self._trained.first, float(training.get("gradient_max_norm") or 0.0))
        self._trained.share(self.optimizer.parameters)
        self._copy()
        self._engines = {name: GradientEngine(task.data, precision, self._threads) for name, task in self.tasks.items()}
        enabled = bool(training["enable_ema"])
        self.average = MovingAverage(training["ema_decay"], self.optimizer.parameters) if enabled else None
        seed = training.get("seed")
        self._draws = TaskDraws(probabilities or [1.0] * len(self.tasks), seed)
        self._draws.state = self.processes.once(lambda: self._draws.state)
        suffixes = [self._native_suffix(name) for name in self.tasks]
        self._store, self._average_store = stores(training, steps, suffixes)
        for store in (self._store, self._average_store)[: 1 + enabled]:
            self.processes.once(store.prepare)
        self.done = self._first = 0
        self._appends = False
        self._sums: dict[str, dict[str, float]] = {name: {} for name in self.tasks}
        self._counts = dict.fromkeys(self.tasks, 0)

    # ------------------------------------------------------------------------------------------------- the parameters

    def _native_suffix(self, task: str) -> str:
        return ".safetensors" if list(self.tasks) == [SINGLE] else f".{task.replace('/', '_')}.safetensors"

    def _copy(self) -> None:
        """Take all weights from the first process: another machine may have rounded what was computed for them."""
        self._take()
        self._trained.copy_others(self.processes)

    def _take(self) -> None:
        """Take the parameters from the first process."""
        for block in self.optimizer.blocks:
            self.processes.copied(block)

    def _assign(self) -> None:
        """Give the engines the parameters as they are now."""
        for task, engine in self._engines.items():
            engine.assign(self._trained.of(task, self.optimizer.parameters))

    def restart(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, whose weights the models have already: steps, optimizer, averages, orders.

        Raises:
            ModelFileError, InputError: it does not fit.
        """
        numbers = numbering({name: task.data for name, task in self.tasks.items()}, self._links)
        if self.processes.is_first:
            restore(checkpoint, self.optimizer, self.average, numbers)
        self.done = self._first = checkpoint.step
        self._appends = True
        if own := checkpoint.own.get("state"):
            try:
                self._restore_state(own)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
                if isinstance(error, Error):
                    raise type(error)(f"{checkpoint.path}: {error}") from None
                raise InputError(f"{checkpoint.path}: what it says of the order of the data is damaged") from None

    # ------------------------------------------------------------------------------------------------- steps

    def step(self, ahead: bool = True) -> dict[str, Any]:
        """Do one step.

        Args:
            ahead: whether the next batch may be read meanwhile.

        Returns:
            ``step``, counted from 1; ``task``; ``rate``; ``value`` of the loss and ``parts`` of it before the update;
            ``norm`` of the gradient before it was bounded.

        Raises:
            InputError: a batch that cannot be read, which is named. EvaluationError: a loss or a gradient that is not
            finite; parameters stay as they were.
        """
        with self.processes.telling():
            name = list(self.tasks)[self._draws.next()]
            task, rate = self.tasks[name], self._schedule.rate(self.done)
            batch = task.training.next()
            if ahead:
                task.training.ahead()
            found = self._evaluated(name, batch, rate)
            gradient = {self._trained.names[name][key]: value for key, value in found["gradient"].items()}
            norm = self.processes.once(lambda: self._moved(gradient, rate))
            self._take()
            self._assign()
        self.done += 1
        return {
            "step": self.done,
            "task": name,
            "rate": rate,
            "value": found["value"],
            "parts": found["parts"],
            "norm": norm,
        }

    def _moved(self, gradient: Mapping[str, Any], rate: float) -> float:
        """Let the optimizer and the averages take a step; the norm of the gradient."""
        try:
            norm = self.optimizer.step(gradient, rate)
        except InputError as error:
            raise WorkFailedError(f"step {self.done + 1}: {error}") from None
        if self.average is not None:
            self.average.update(self.optimizer.parameters)
        return norm

    def _evaluated(
        self, task: str, batch: Mapping[str, Any] | None, rate: float, with_gradient: bool = True
    ) -> Mapping[str, Any]:
        engine, loss = self._engines[task], self._losses[task]
        try:
            if self.processes.size == 1 and batch is not None:
                return (engine.gradient if with_gradient else engine.value)(batch, loss, rate)
            shared = engine.shared_gradient if with_gradient else engine.shared_value
            return shared(batch, loss, rate, self.processes)
        except InputError as error:
            if self.processes.over:  # the error of another one says all this
                raise
            where = f"{batch['where']}: " if batch is not None and batch.get("where") else ""
            raise WorkFailedError(f"step {self.done + 1}: {where}{error}") from error

    def results(self, step: Mapping[str, Any]) -> Results:
        """What is shown of a step that was just done: validation data are evaluated, and a batch of every other task.

        With ``disp_avg`` training values are averages over the steps since the last call.
        """
        rate, drawn = step["rate"], step["task"]
        averages = bool(self.config["training"]["disp_avg"])
        results = Results(step["step"], rate, {}, {})
        for name, task in self.tasks.items():
            if averages:
                results.training[name] = {k: v / self._counts[name] for k, v in self._sums[name].items()}
            elif name == drawn:
                results.training[name] = dict(step["parts"])
            else:
                results.training[name] = dict(self._evaluated(name, task.training.next(), rate, False)["parts"])
            if not averages or len(self.tasks) == 1:
                results.validation[name] = self._validated(name, task, rate)
        self._sums = {name: {} for name in self.tasks}
        self._counts = dict.fromkeys(self.tasks, 0)
        return results

    def _validated(self, name: str, task: Task, rate: float) -> dict[str, float]:
        """The values of validation data, each batch weighted by its atoms."""
        sums: dict[str, float] = {}
        atoms = 0
        for _ in range(task.batches if task.validation is not None else 0):
            assert task.validation is not None
            batch = task.validation.next()
            count = sum(self.processes.gather(0 if batch is None else int((batch["atype"] >= 0).sum())))
            atoms += count
            for key, value in self._evaluated(name, batch, rate, False)["parts"].items():
                sums[key] = sums.get(key, 0.0) + value * count
        return {key: value / atoms for key, value in sums.items()}

    def _gather(self, step: Mapping[str, Any]) -> None:
        sums = self._sums[step["task"]]
        for key, value in step["parts"].items():
            sums[key] = sums.get(key, 0.0) + value
        self._counts[step["task"]] += 1

    # ------------------------------------------------------------------------------------------------- the run

    def run(self, progress: Callable[[Mapping[str, Any]], None] = lambda step: None) -> None:
        """Do all steps that are left, write the learning curve and checkpoints.

        A checkpoint of the last complete step is left by Ctrl-C and SIGTERM, and where a step or what is shown of it
        ends in InputError, OSError or MemoryError. A loss that is not finite leaves none but those that are there.

        Args:
            progress: called after every step with what :meth:`step` returned.

        Raises:
            InputError: a batch that cannot be read. EvaluationError: a loss that is not finite. OSError: a file that
            cannot be written; checkpoints that are there stay whole.
        """
        try:
            with self.processes.together():
                self._run(progress)
        finally:
            for sources in self._sources().values():
                for source in sources:
                    if source is not None:
                        source.close()

    def _run(self, progress: Callable[[Mapping[str, Any]], None]) -> None:
        training = self.config["training"]
        self._first = self.done
        path = Path(training["disp_file"])
        curve = Curve(path, list(self.tasks), self._appends) if self.processes.is_first else None
        clock = Clock(self.done, self.steps, int(training["disp_freq"]))
        saved = self.done if self.done else -1
        self._say(f"Start to train {self.steps} steps.")
        try:
            with Interrupts() as interrupts:
                while self.done < self.steps:
                    try:
                        with self.processes.telling():
                            self._one(curve, clock, progress)
                    except (InputError, OSError, MemoryError) as error:
                        if not isinstance(error, EvaluationError) and self.done > max(saved, self._first):
                            self.save()
                        raise
                    if self._due():
                        self.save()
                        saved = self.done
                    noted = [number for number in self.processes.gather(interrupts.noted) if number is not None]
                    if noted:
                        if saved != self.done:
                            self.save()
                        self.processes.end()
                        interrupts.follow(noted[0])
            if self.steps == 0:
                self.save()
            if training["change_bias_after_training"] and self.done > self._first:
                self.change_bias()
                self.save()
        finally:
            if curve is not None:
                curve.close()
        if training["time_training"] and (line := clock.average()) is not None:
            self._say(line)
        self._say(f"Trained model has been saved to: {self._store.prefix}")

    def _one(self, curve: Curve | None, clock: Clock, progress: Callable[[Mapping[str, Any]], None]) -> None:
        """A step, and what is shown of it."""
        training, number = self.config["training"], self.done + 1
        shown = bool(training["disp_training"]) and (number % max(1, int(training["disp_freq"])) == 0 or number == 1)
        # other sections draw from the same generator when something is shown
        step = self.step(ahead=not shown and number < self.steps)
        progress(step)
        if training["disp_avg"]:
            self._gather(step)
        if not shown:
            return
        results = self.results(step)
        self.processes.once(lambda: self._show(results, curve, clock))

    def _show(self, results: Results, curve: Curve | None, clock: Clock) -> None:
        number = results.step
        for line in lines(results):
            self._say(line)
        if (task := nan_task(results)) is not None:
            of = "" if task == SINGLE else f" of task {task}"
            raise WorkFailedError(f"step {number}: the loss{of} is not a number any more: it makes no sense to go on")
        if self.config["training"]["time_training"]:
            self._say(clock.line(number))
        if curve is not None:
            curve.add(results)

    def change_bias(self) -> None:
        """Change the biases of the models by least squares on what they miss of the sample."""
        from .bias import change_bias, put

        for task in self.tasks.values():
            if task.section is None or task.sample is None:
                raise InputError("a bias cannot be changed without the section of the model and a sample of its data")
            if line := put(task.data, change_bias(task.data, task.section, task.sample(), self._threads)):
                self._say(line)
        self._copy()

    def _due(self) -> bool:
        """Whether a checkpoint is written after the step that was just done."""
        frequency = int(self.config["training"]["save_freq"])
        regular = frequency > 0 and self.done % frequency == 0 and self.done != self._first + 1
        return self.done == self.steps or regular

    # ------------------------------------------------------------------------------------------------- saving

    def save(self) -> Path:
        """Write a checkpoint of the step that was done last, with native files beside it; returns its path.

        Processes that train together all call this.

        Raises:
            OSError: a file that cannot be written. The checkpoint before stays the newest.
        """
        self.processes.once(self._save)
        return self._store.path(self.done)

    def _save(self) -> None:
        tasks = {name: task.data for name, task in self.tasks.items()}
        path = self._store.path(self.done)
        self._write(self._store, path, tasks, self.optimizer, self.average)
        if self.average is not None:
            of_averages = averaged(tasks, self.average, self._links)
            self._write(self._average_store, self._average_store.path(self.done), of_averages, None, None)
        self._say(f"Saved model to {path}")

    def _write(
        self,
        store: Store,
        path: Path,
        tasks: Mapping[str, ModelData],
        optimizer: Adam | None,
        average: MovingAverage | None,
    ) -> None:
        last = max(self.done - 1, 0)
        rate = self._schedule.rate(last) if self.done else 0.0
        own = {} if optimizer is None else {"state": self._state()}
        progress = Progress(self.done, rate, self._schedule.rate(self.done), self._schedule.start, own)
        write(path, contents(tasks, self.config["model"], progress, optimizer, average, self._links))
        for name, data in tasks.items():
            write_safetensors(path.with_suffix(self._native_suffix(name)), data)
        store.publish(path)

    def _state(self) -> dict[str, Any]:
        """What a restart needs besides parameters and the optimizer."""
        state = run_state(self._draws, self._sources(), self._generator)
        if self.config["training"]["disp_avg"]:
            state["sums"] = {name: dict(values) for name, values in self._sums.items()}
            state["counts"] = dict(self._counts)
        return state

    def _restore_state(self, state: Mapping[str, Any]) -> None:
        restore_run(state, self._draws, self._sources(), self._generator)
        for name, values in state.get("sums", {}).items():
            self._sums[name] = {key: float(value) for key, value in values.items()}
            self._counts[name] = int(state["counts"][name])

    def _sources(self) -> dict[str, tuple[Source, Source | None]]:
        return {name: (task.training, task.validation) for name, task in self.tasks.items()}
