"""Fine-tuning: a run that begins with the weights of a trained model, for other types, and data of another level."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..blocks import descriptor_blocks
from ..errors import Error, InputError, ModelFileError
from ..files import ModelData, read, schema
from ..files.pt import choose_head
from .bias import change_bias, put, set_bias
from .checkpoint import SINGLE, Checkpoint
from .initial import initial_weights
from .inputs import complete_model
from .random import DType, Generator

Array = NDArray[Any]
#: where a fitting net is asked for that is not of the file
RANDOM = "RANDOM"
_EMBEDDING = "descriptor.type_embedding.embedding.embedding_net.layers.0.matrix"
#: weights with a row for every type, and on which axis; what new types have there
_ROWS = {"out_bias": (1, 0.0), "out_std": (1, 1.0), "fitting_net.bias_atom_e": (0, 0.0)}
#: of sections that are compared: not what the weights begin with, nor what follows from the types
_NOT_COMPARED = ("seed", "trainable", "exclude_types", "type_map", "precision", "preset_out_bias")


class Rule(NamedTuple):
    """Where the weights of a task come from.

    Attributes:
        branch: the model of the file.
        random: whether its fitting net is left aside for one that is drawn.
        resumed: whether all of it is taken as it is, its bias included.
        new_types: those that the file does not have.
    """

    branch: str
    random: bool
    resumed: bool
    new_types: tuple[str, ...]


class FineTuning:
    """What a run takes from a checkpoint.

    Args:
        path: of the checkpoint, single-task or multi-task.
        branch: which of its models; None: what the input says in ``finetune_head``.
        use_script: whether the sections of descriptor and fitting net are those of the file.
        say: takes lines for people.

    Attributes:
        rules: by task, once :meth:`change` has seen the input.

    Raises:
        ModelFileError: the file is missing, damaged or no checkpoint.
    """

    def __init__(
        self,
        path: str | Path,
        branch: str | None = None,
        use_script: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._file = Checkpoint(path)
        self.path, self._branch, self._use_script, self._say = self._file.path, branch, use_script, say
        self._single = not isinstance(self._file.definition.get("model_dict"), dict)
        self._sections = self._file.sections()
        if not self._sections:
            raise ModelFileError(f"{path}: the file has no models")
        self.rules: dict[str, Rule] = {}
        self._read: dict[str, ModelData] = {}
        self._mapped: dict[tuple[str, tuple[str, ...]], dict[str, Array]] = {}

    # --------------------------------------------------------------------------------------------- the input

    def change(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """The model section of an input, with sections of the file if that was asked for.

        Args:
            model: as it stands in the input, shared parts in their places.

        Raises:
            InputError: a branch that the file does not have. ModelFileError: one that cannot be trained.
        """
        out: dict[str, Any] = copy.deepcopy(dict(model))
        tasks = out.get("model_dict")
        if not isinstance(tasks, Mapping):
            chosen = self._branch or out.get("finetune_head") or ""
            self.rules = {SINGLE: self._rule(out, chosen, "model")}
            return self._with_sections(out, self.rules[SINGLE])
        if self._branch:
            raise InputError(
                f"--model-branch {self._branch} is for one task; of several, say in each section of model.model_dict "
                "which finetune_head it has"
            )
        for task, section in tasks.items():
            where = f"model.model_dict.{task}"
            if not isinstance(section, Mapping):
                raise InputError(f"{where} must be a section in braces")
            head = section.get("finetune_head")
            resumed = head is None and task in self._sections
            chosen = task if resumed else head or RANDOM
            self.rules[task] = self._rule(section, chosen, where)._replace(resumed=resumed)
            out["model_dict"][task] = self._with_sections(dict(section), self.rules[task])
        return out

    def _rule(self, section: Mapping[str, Any], chosen: Any, where: str) -> Rule:
        if not isinstance(chosen, str):
            raise InputError(f"{where}.finetune_head must be the name of a model in {self.path}, got {chosen!r}")
        random = chosen == RANDOM or (chosen == "" and not self._single)
        branch = self._named(chosen, random)
        if random and not self._single:
            self._say(f"the descriptor is that of {branch}, the first model of {self.path}; the fitting net is drawn")
        types = section.get("type_map")
        if not isinstance(types, list) or not all(isinstance(name, str) for name in types):
            raise InputError(f"{where}.type_map is missing, or no list of names: fine-tuning needs it")
        old = self._model(branch).config["type_map"]
        new = tuple(name for name in types if name not in old)
        if new:
            self._say(f"{self.path} does not have the types {', '.join(new)}: what belongs to them is drawn")
        return Rule(branch, random, False, new)

    def _named(self, chosen: str, random: bool) -> str:
        """The model of the file that a name or an alias means."""
        if random:
            return next(iter(self._sections))
        if self._single:
            if chosen not in ("", SINGLE):
                raise InputError(
                    f"{self.path} has one model, so that the branch {chosen!r} is not there: leave it out, or choose "
                    f"{RANDOM} for a new fitting net"
                )
            return SINGLE
        aliases = {name: list(section.get("model_branch_alias") or []) for name, section in self._sections.items()}
        try:
            return choose_head(chosen, aliases)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None

    def _with_sections(self, section: dict[str, Any], rule: Rule) -> dict[str, Any]:
        if not self._use_script:
            return section
        for part in ("descriptor",) if rule.random else ("descriptor", "fitting_net"):
            own = section.get(part)
            theirs = copy.deepcopy(self._sections[rule.branch].get(part))
            if not isinstance(theirs, dict):
                raise ModelFileError(f"{self.path}: the definition of {rule.branch} has no section {part}")
            section[part] = theirs
            section[part]["trainable"] = own.get("trainable", True) if isinstance(own, Mapping) else True
        return section

    # --------------------------------------------------------------------------------------------- the weights

    def _model(self, branch: str) -> ModelData:
        if branch not in self._read:
            data = read(self.path, None if self._single else branch)
            if "descriptor" not in data.config:
                raise ModelFileError(f"{self.path}: a combination of models cannot be fine-tuned: train its parts")
            if schema.is_hybrid(data.config):
                raise ModelFileError(f"{self.path}: a model of a hybrid descriptor cannot be fine-tuned")
            self._read[branch] = data
        return self._read[branch]

    def draw(self, generator: Generator) -> None:
        """Take the numbers from the global generator that deepmd-kit takes as it builds the models of the file."""
        for section in self._sections.values():
            try:
                initial_weights(complete_model(section, "model"), generator)
            except Error:  # a definition of another version: the numbers of new types are then others
                return

    def model(self, task: str, drawn: ModelData, generator: Generator) -> ModelData:
        """A task's model with the weights of the file.

        Args:
            task: its name.
            drawn: the model as it is drawn; if there are new types, with the statistics of its data.
            generator: the global one, of which new types take numbers.

        Raises:
            ModelFileError: a weight is missing, or of another shape.
        """
        rule = self.rules[task]
        source = self._model(rule.branch)
        self._compare(task, source.config, drawn.config, rule.random)
        key = rule.branch, tuple(drawn.config["type_map"])
        if key not in self._mapped:
            self._mapped[key] = mapped(source, drawn, generator)
        found, weights = self._mapped[key], dict(drawn.weights)
        for name, weight in schema.expected_weights(drawn.config).items():
            if weight.role == "constant" or (rule.random and not name.startswith("descriptor.")):
                continue
            value = found.get(name)
            if value is None or value.shape != weight.shape:
                has = "does not have it" if value is None else f"has it as {value.shape}"
                raise ModelFileError(
                    f"{self.path}: the input's model has the weight {name} as {weight.shape}, but {rule.branch} of the "
                    f"file {has}: give the sections of the file, or --use-pretrain-script"
                )
            weights[name] = value.astype(weight.dtype)
        config = dict(drawn.config)
        if not rule.random:
            config["min_nbor_dist"] = source.config.get("min_nbor_dist")
        schema.check_weights(config, weights)
        return ModelData(config, weights, frozen=drawn.frozen)

    def _compare(self, task: str, old: Mapping[str, Any], new: Mapping[str, Any], random: bool) -> None:
        """Say in what sections differ; refuse other numbers of neighbours, as deepmd-kit does."""
        of = "" if task == SINGLE else f" of {task}"
        theirs_have = descriptor_blocks(old["descriptor"])
        for block in [block for block in descriptor_blocks(new["descriptor"]) if block in theirs_have]:
            theirs, own = (config["descriptor"][block.section][block.sel] for config in (old, new))
            if theirs != own:
                raise InputError(
                    f"model.descriptor.{block.section}.{block.sel}{of} is {own}, but {theirs} in {self.path}, "
                    "whose statistics are of so many neighbours: give its number, or --use-pretrain-script"
                )
        for part in ("descriptor",) if random else ("descriptor", "fitting_net"):
            for name, theirs, own in _differences(old[part], new[part], f"model.{part}"):
                self._say(f"warning: {name}{of} is {own!r} in the input, but {theirs!r} in {self.path}")

    def fit_bias(
        self,
        task: str,
        data: ModelData,
        section: Mapping[str, Any],
        batches: Callable[[], Iterable[Mapping[str, Any]]],
        threads: int | None = None,
    ) -> None:
        """Fit the bias of a task's model to its data: of a head that is kept what it misses, else all of it.

        Args:
            task: its name.
            data: the model, whose weights are changed.
            section: its model section, defaults filled in.
            batches: gives those of the sample that statistics are made of.
            threads: of the evaluations.
        """
        rule = self.rules[task]
        if rule.resumed:
            self._say(f"the model {task} goes on as it is")
            return
        found = set_bias(data, section, batches()) if rule.random else change_bias(data, section, batches(), threads)
        if line := put(data, found):
            self._say(line)


def mapped(source: ModelData, drawn: ModelData, generator: Generator) -> dict[str, Array]:
    """The weights of a model for another list of types.

    Args:
        source: the model.
        drawn: one of the new types: from it come the statistics of types that the source does not have.
        generator: of the embeddings of such types.
    """
    weights = dict(source.weights)
    old, new = list(source.config["type_map"]), list(drawn.config["type_map"])
    if old == new:
        return weights
    rows = [old.index(name) if name in old else k - len(new) for k, name in enumerate(new)]

    def chosen(value: Array, others: Array, axis: int) -> Array:
        both = np.concatenate([value, others.astype(value.dtype)], axis=axis)
        return np.ascontiguousarray(both.take(rows, axis=axis))

    for name, value in source.weights.items():
        role = schema.expected_weights(source.config)[name].role
        if name in _ROWS:
            axis, first = _ROWS[name]
            shape = list(value.shape)
            shape[axis] = len(new)
            weights[name] = chosen(value, np.full(shape, first), axis)
        elif role.startswith("environment_") and name in drawn.weights:
            weights[name] = chosen(value, drawn.weights[name], 0)
    if not source.config["descriptor"]["use_econf_tebd"]:
        weights[_EMBEDDING] = _embedding(weights[_EMBEDDING], rows, any(row < 0 for row in rows), generator)
    return weights


def _embedding(matrix: Array, rows: list[int], unseen: bool, generator: Generator) -> Array:
    """The first layer of the embedding of types, whose identity follows from how many types there are."""
    full = matrix + _identity(*matrix.shape).astype(matrix.dtype)
    if unseen:
        dtype: DType = "float32" if matrix.dtype == np.float32 else "float64"
        full = np.concatenate([full, generator.uniform((len(rows), matrix.shape[1]), 0.0, 1.0, dtype)])
    full = full[rows]
    return np.ascontiguousarray(full - _identity(*full.shape).astype(matrix.dtype))


def _identity(ntypes: int, width: int) -> Array:
    """What a layer adds that is as wide as its input, or twice as wide; else nothing."""
    if width == ntypes:
        return np.eye(ntypes)
    if width == 2 * ntypes:
        return np.concatenate([np.eye(ntypes)] * 2, axis=1)
    return np.zeros((ntypes, width))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any, Any]]:
    """The options in which two sections differ: name, and both values."""
    for key in sorted({*old, *new} - {*_NOT_COMPARED}):
        theirs, own = old.get(key), new.get(key)
        if isinstance(theirs, Mapping) and isinstance(own, Mapping):
            yield from _differences(theirs, own, f"{where}.{key}")
        elif theirs != own:
            yield f"{where}.{key}", theirs, own
