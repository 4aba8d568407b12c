"""From an input to a training run: data, models with their first weights, statistics, in deepmd-kit's order."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..blocks import BLOCKS
from ..errors import InputError
from ..files import ModelData, schema
from ..files.assembly import frozen
from ..outputs import replacing
from .batch import Label, loss_labels_of, parameter_labels
from .checkpoint import SINGLE, Checkpoint
from .dataset import DataSet
from .finetune import FineTuning
from .frozen import Frozen
from .initial import initial_weights
from .inputs import canonical_model, compatible, normalise, read_input, without_effect
from .lmdb import LmdbSet
from .loading import missing_labels, open_section
from .models import Task
from .order import workers
from .processes import Alone
from .random import Generator, fresh_seed
from .resume import Stream
from .sel import neighbor_statistics
from .sharing import links, share
from .stat_file import StatisticsFile
from .statistics import Statistics
from .tasks import SharedPart, expand
from .trainer import Trainer

Say = Callable[[str], None]
#: what deepmd-kit calls the input in the spelling of its version 2, in the folder of the run
COMPATIBLE = "input_v2_compat.json"


def sections(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sections of each task by its name: ``model``, ``loss``, ``data`` with training_data and validation_data."""
    model, training = config["model"], config["training"]
    if "model_dict" not in model:
        return {SINGLE: {"model": model, "loss": config["loss"], "data": training, "where": "training"}}
    return {
        task: {
            "model": section,
            "loss": config["loss_dict"][task],
            "data": training["data_dict"][task],
            "where": f"training.data_dict.{task}",
        }
        for task, section in model["model_dict"].items()
    }


def labels_of(model: Mapping[str, Any], loss: Mapping[str, Any]) -> list[Label]:
    """The labels and parameters that a model with this loss is trained on."""
    config = canonical_model(model)
    return [*loss_labels_of(config, loss), *parameter_labels(schema.parameters(config))]


class Preparation:
    """What comes before the first step; made by :func:`from_file` and :func:`from_input`.

    Args:
        config: the input, as :func:`dpa2.train.inputs.normalise` returns it. Numbers of neighbours that data decide
            are put into it.
        shared: the parts that its tasks share.
        say: takes lines for people.
        processes: that train together, each of which prepares the same.
    """

    def __init__(
        self,
        config: dict[str, Any],
        shared: Sequence[SharedPart] = (),
        say: Say = lambda line: None,
        processes: Alone | None = None,
    ) -> None:
        self.config, self._shared, self._say = config, shared, say
        self.processes = Alone() if processes is None else processes
        self.given: Mapping[str, Any] = config
        self.tasks = sections(config)
        self._data: dict[str, tuple[DataSet | LmdbSet, DataSet | LmdbSet | None]] = {}
        self._distances: dict[str, float] = {}
        for task, entry in self.tasks.items():
            labels, type_map = labels_of(entry["model"], entry["loss"]), entry["model"]["type_map"]
            where, data = entry["where"], entry["data"]
            shares = self.processes.size
            training = self._opened(data["training_data"], type_map, labels, f"{where}.training_data", shares)
            validation = None
            if data["validation_data"] is not None:
                validation = self._opened(data["validation_data"], type_map, labels, f"{where}.validation_data")
            self._data[task] = (training, validation)

    def _opened(
        self, section: Mapping[str, Any], type_map: Sequence[str], labels: Sequence[Label], name: str, shares: int = 1
    ) -> DataSet | LmdbSet:
        data = open_section(section, type_map, labels, name, shares=shares)
        for line in missing_labels(data, labels, name):
            self._say(line)
        return data

    def count_neighbors(self) -> None:
        """Look at all training frames: numbers of neighbours for "auto", the smallest distance."""
        for task, entry in self.tasks.items():
            found = neighbor_statistics(entry["model"], self._data[task][0], self.processes)
            entry["model"]["descriptor"] = found.model["descriptor"]
            self._distances[task] = found.min_nbor_dist
            of = "" if task == SINGLE else f"{task}: "
            self._say(f"{of}training data with min nbor dist: {found.min_nbor_dist}")
            for warning in found.warnings:
                self._say(f"{of}warning: {warning}")

    def write(self, path: str) -> None:
        """Write the completed input, and beside it in this folder what deepmd-kit calls ``input_v2_compat.json``."""
        if self.processes.is_first:
            _write_json(COMPATIBLE, compatible(self.given))
            _write_json(path, self.config)

    def steps(self) -> int:
        """How many steps the run has."""
        training = self.config["training"]
        if epochs := training.get("num_epoch_dict"):
            return math.ceil(sum(float(epochs.get(task, 0)) * self._data[task][0].epoch for task in self.tasks))
        if "numb_epoch" in training:
            return math.ceil(float(training["numb_epoch"]) * self._data[SINGLE][0].epoch)
        return int(training["numb_steps"])

    def probabilities(self) -> list[float]:
        """Of the tasks, which add up to 1."""
        training = self.config["training"]
        if epochs := training.get("num_epoch_dict"):
            weights = [epochs.get(task, 0) * self._data[task][0].epoch for task in self.tasks]
        elif given := training.get("model_prob"):
            weights = [float(given.get(task, 0.0)) for task in self.tasks]
        else:
            weights = [float(len(training.systems)) for training, _ in self._data.values()]
        return [weight / sum(weights) for weight in weights]

    def trainer(
        self,
        init_model: Checkpoint | Frozen | FineTuning | None = None,
        restart: Checkpoint | None = None,
        precision: Any = None,
        threads: int | None = None,
    ) -> Trainer:
        """The run, ready for its first step.

        Args:
            init_model: a checkpoint or frozen model whose weights it begins with; or one that it fine-tunes, the same
                that this preparation was made with.
            restart: one that it goes on from.
            precision, threads: of the gradients.

        Raises:
            InputError, ModelFileError: what the input says cannot be done, or the checkpoint is of another model.
        """
        threads = self.processes.threads(threads)
        for task, entry in self.tasks.items():
            for block in BLOCKS:
                value = entry["model"]["descriptor"][block.section].get(block.sel)
                if isinstance(value, str):
                    raise InputError(
                        f"model.descriptor.{block.section}.{block.sel} of {task} is {value!r}, for which the "
                        "neighbours have to be counted: leave --skip-neighbor-stat out"
                    )
        first_seed, streams = self.processes.once(lambda: (fresh_seed(), workers()))
        seed, generator = self.config["training"].get("seed"), Generator(first_seed)
        mine = self.processes.mine if self.processes.size > 1 else None
        sources: dict[str, tuple[Stream, Stream | None]] = {}
        for task, (training, validation) in self._data.items():
            where = self.tasks[task]["where"]
            most = int(self.tasks[task]["model"]["data_stat_nbatch"])
            keep = bool(self.config["training"]["change_bias_after_training"])
            first = Stream(training, generator, seed, streams, f"{where}.training_data", most, keep, mine)
            second = None
            if validation is not None:
                second = Stream(validation, generator, seed, streams, f"{where}.validation_data", mine=mine)
            sources[task] = (first, second)
        try:
            return self._trainer(generator, sources, init_model, restart, precision, threads)
        except BaseException:
            for pair in sources.values():
                for source in pair:
                    if source is not None:
                        source.close()
            raise

    def _trainer(
        self,
        generator: Generator,
        sources: Mapping[str, tuple[Stream, Stream | None]],
        init_model: Checkpoint | Frozen | FineTuning | None,
        restart: Checkpoint | None,
        precision: Any,
        threads: int | None,
    ) -> Trainer:
        start = restart or init_model
        if isinstance(start, FineTuning):
            models = self._fine_tuned(start, generator, sources, threads)
        else:
            models = self._models(generator, start)
        linked = links(self._shared, models)
        if start is None:
            self._add_statistics(models, sources)
        share(linked, models)
        tasks = {}
        for task, data in models.items():
            first, second = sources[task]
            batches = int((self.tasks[task]["data"]["validation_data"] or {}).get("numb_btch") or 1)
            section = self.tasks[task]["model"]
            tasks[task] = Task(data, self.tasks[task]["loss"], first, second, batches, section, first.sample)
        trainer = Trainer(
            self.config,
            tasks,
            self.steps(),
            links=linked,
            generator=generator,
            probabilities=self.probabilities(),
            precision=precision,
            threads=threads,
            say=self._say,
            processes=self.processes,
        )
        if restart is not None:
            self._keep_observed(restart)
            trainer.restart(restart)
        return trainer

    def _models(self, generator: Generator, start: Checkpoint | Frozen | None) -> dict[str, ModelData]:
        """The models with weights that are drawn, or with those of a checkpoint; numbers are drawn either way."""
        models = {}
        for task, entry in self.tasks.items():
            section = entry["model"]
            weights = initial_weights(section, generator, sorted(self.tasks).index(task))
            if start is not None:
                models[task] = start.model(task, section, weights)
                continue
            config = canonical_model(section)
            config["min_nbor_dist"] = self._distances.get(task)
            config["head"] = None if task == SINGLE else task
            models[task] = ModelData(config, weights, frozen=frozen(section))
        return models

    def _fine_tuned(
        self,
        start: FineTuning,
        generator: Generator,
        sources: Mapping[str, tuple[Stream, Stream | None]],
        threads: int | None,
    ) -> dict[str, ModelData]:
        """The models with the weights of a file, statistics for what it does not have, and biases that fit the data."""
        models = self._models(generator, None)
        found: dict[str, Statistics] = {}
        for task, data in models.items():
            if start.rules[task].new_types:
                found[task] = self._statistics(self.tasks[task], sources[task][0])
                _put(found[task].weights(), data)
        start.draw(generator)
        models = {task: start.model(task, data, generator) for task, data in models.items()}
        for task, data in models.items():
            start.fit_bias(task, data, self.tasks[task]["model"], sources[task][0].sample, threads)
        if found:
            self._share_statistics(found, models)
        return models

    def _share_statistics(self, found: dict[str, Statistics], models: Mapping[str, ModelData]) -> None:
        """Where tasks share a part and there are new types, its statistics are those of all their data."""
        shared = [part for part in self._shared if len(part.links) > 1]
        for part in shared:
            if lacking := [task for task, _ in part.links if task not in found]:
                raise InputError(
                    f"{part.name} is shared by {lacking[0]}, whose weights have all types, and by tasks whose weights "
                    "do not: fine-tune such tasks one by one"
                )
        self._merge(found)
        for part in shared:
            base = found[part.links[0][0]]
            if part.kind == "fitting_net":
                merged = {**base.fparam.weights(), **base.aparam.weights()}
            else:
                merged = base.environment.weights() if any(level == 0 for _, level in part.links[1:]) else {}
            _put(merged, models[part.links[0][0]])

    def _add_statistics(
        self, models: Mapping[str, ModelData], sources: Mapping[str, tuple[Stream, Stream | None]]
    ) -> None:
        """What follows from data, put into the weights."""
        found: dict[str, Statistics] = {}
        for task, entry in self.tasks.items():
            found[task] = self._statistics(entry, sources[task][0])
            info = entry["model"].setdefault("info", {})
            info.setdefault("observed_type", found[task].observed_type)
        self._merge(found)
        for task, statistics in found.items():
            _put(statistics.weights(), models[task])

    def _statistics(self, entry: Mapping[str, Any], source: Stream) -> Statistics:
        """Of a task: from its file of statistics, or from data, and then into that file."""
        if not (path := entry["data"].get("stat_file")):
            return Statistics(entry["model"]).add(source.sample())
        file = StatisticsFile(path, entry["model"], entry["data"]["stat_file_mode"])
        found = self.processes.once(file.load)
        if found is None:
            found = computed = Statistics(entry["model"]).add(source.sample())
            self.processes.once(lambda: file.save(computed))
        else:
            self._say(f"statistics are those of {path}, not of the data")
        return found

    def _keep_observed(self, checkpoint: Checkpoint) -> None:
        """The types that were seen when the run began, which no later part of it looks for."""
        definitions = checkpoint.definition.get("model_dict", {SINGLE: checkpoint.definition})
        for task, entry in self.tasks.items():
            info = definitions[task].get("info") if isinstance(definitions.get(task), dict) else None
            if checkpoint.own and isinstance(info, dict) and isinstance(info.get("observed_type"), list):
                entry["model"].setdefault("info", {}).setdefault("observed_type", info["observed_type"])

    def _merge(self, found: Mapping[str, Statistics]) -> None:
        """Sums of tasks that share a part, in that of the first one."""
        probabilities = dict(zip(self.tasks, self.probabilities(), strict=True))
        for part in self._shared:
            base = part.links[0][0]
            for task, level in part.links[1:]:
                if part.kind == "descriptor" and level == 0:
                    found[base].environment.merge(found[task].environment)
                elif part.kind == "fitting_net":
                    factor = probabilities[task] / probabilities[base]
                    found[base].fparam.merge(found[task].fparam, factor)
                    found[base].aparam.merge(found[task].aparam, factor)


def from_file(
    path: str,
    definition: Mapping[str, Any] | None = None,
    say: Say = lambda line: None,
    fine_tuning: FineTuning | None = None,
    processes: Alone | None = None,
) -> Preparation:
    """What an input file asks for; ``definition`` takes the place of its ``model`` section.

    Raises:
        InputError: naming the file, and the key of what cannot be done.
    """
    given = read_input(path)
    if definition is not None:
        given["model"] = copy.deepcopy(dict(definition))
    try:
        return from_input(given, say, fine_tuning, processes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def from_input(
    given: Mapping[str, Any],
    say: Say = lambda line: None,
    fine_tuning: FineTuning | None = None,
    processes: Alone | None = None,
) -> Preparation:
    """What an input asks for, as it stands in a file.

    Args:
        given: the input.
        say: takes lines for people.
        fine_tuning: what the run takes from a checkpoint; :meth:`Preparation.trainer` is to be given the same.
        processes: that train together; :func:`dpa2.train.processes.join` finds those of MPI.

    Raises:
        InputError: naming the key of what cannot be done.
    """
    given = dict(given)
    shared: Sequence[SharedPart] = ()
    if isinstance(model := given.get("model"), Mapping):
        if "model_dict" in model:
            given["model"], shared = expand(model)
        if fine_tuning is not None:
            given["model"] = fine_tuning.change(given["model"])
    config = normalise(given)
    for key in without_effect(config):
        say(f"warning: {key} has no effect")
    preparation = Preparation(config, shared, say, processes)
    preparation.given = given
    return preparation


def _put(found: Mapping[str, Any], data: ModelData) -> None:
    """Give a model what follows from data."""
    for name, value in found.items():
        weight = data.weights[name]
        data.weights[name] = value.astype(weight.dtype).reshape(weight.shape)


def _write_json(path: str, value: Any) -> None:
    with replacing(path) as part:
        Path(part).write_text(json.dumps(value, indent=4), encoding="utf-8")
