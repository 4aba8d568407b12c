"""Checkpoints of a training run in deepmd-kit's own layout, which its PyTorch backend loads as its own.

A file holds ``model``: all tensors by name, the definition of the model, and how far the run is; ``optimizer``; with a
moving average ``ema``; and ``dpa2``, which deepmd-kit does not look at: what makes a run go on to the last bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ModelFileError
from ..files import ModelData, guarded, torch_writer
from ..files._data import RawModel, number_of
from ..files.assembly import assemble
from ..files.combination import resolve_shared
from ..files.detect import detect
from ..files.pt import canonical_names, model_of
from ..files.torch_zip import LazyTensor, TorchArchive
from ..outputs import replacing
from .averages import MovingAverage
from .gradient import PREFIX
from .layout import layout, tensors
from .optimizer import EPSILON, Adam, Moments

#: the task of a model that is alone
SINGLE = "Default"
#: of the state that is ours
_VERSION = 1

Array = NDArray[Any]


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: how many steps are done.
        rate: the learning rate of the last one.
        next_rate: that of the one that comes next.
        start_rate: that at the end of the warm-up.
        own: what else the run needs to go on exactly: dicts, lists, texts, numbers, arrays.
    """

    step: int
    rate: float
    next_rate: float
    start_rate: float
    own: Mapping[str, Any] = field(default_factory=dict)


def full_name(task: str, name: str) -> str:
    """What a tensor of a task's model is named in a checkpoint; ``name`` begins with ``atomic_model.``."""
    return f"model.{task}.{name}"


def numbering(tasks: Mapping[str, ModelData], links: Mapping[str, str] | None = None) -> dict[str, int]:
    """The number of every parameter in the state of deepmd-kit's optimizer, by full name.

    Args:
        tasks: the models.
        links: of a parameter that is shared, by full name: whose it is. Both have the same number.
    """
    links = links or {}
    numbers: dict[str, int] = {}
    seen: dict[str, int] = {}
    for task, data in tasks.items():
        for name, entry in layout(data.config).items():
            if entry.parameter:
                full = full_name(task, name)
                numbers[full] = seen.setdefault(links.get(full, full), len(seen))
    return numbers


def contents(
    tasks: Mapping[str, ModelData],
    definition: Mapping[str, Any],
    progress: Progress,
    optimizer: Adam | None = None,
    average: MovingAverage | None = None,
    links: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a checkpoint of these models holds.

    Args:
        tasks: the models by task, their weights as they are to be saved; "Default" for one alone.
        definition: the ``model`` section of the input, defaults filled in.
        progress: of the run.
        optimizer: its state, by full names of parameters; None: a file that no run can go on from.
        average: of parameters, by full names.
        links: as for :func:`numbering`.
    """
    state: OrderedDict[str, Any] = OrderedDict()
    infos = {"lr": progress.rate, "step": max(progress.step - 1, 0)}  # deepmd-kit's counts from 0
    state["_extra_state"] = {"model_params": definition, "train_infos": infos}
    made: dict[str, Array] = {}
    for task, data in tasks.items():
        distance = data.config.get("min_nbor_dist")
        state[full_name(task, "min_nbor_dist")] = np.array(-1.0 if distance is None else distance)
        for name, tensor in tensors(data.config, data.weights).items():
            full = full_name(task, name)
            state[full] = made.get((links or {}).get(full, full), tensor)
            made[full] = state[full]
    out: dict[str, Any] = {"model": state}
    if optimizer is not None:
        out["optimizer"] = _optimizer_state(optimizer, numbering(tasks, links), progress)
    if average is not None:
        out["ema"] = {
            "decay": average.decay,
            "model": _averages(tasks, average, state, links or {}),
            "validation_state": {},
        }
    out["dpa2"] = {"version": _VERSION, "step": progress.step, **progress.own}
    return out


def averaged(tasks: Mapping[str, ModelData], average: MovingAverage, links: Mapping[str, str]) -> dict[str, ModelData]:
    """The models with averages in place of their parameters."""
    out = {}
    for task, data in tasks.items():
        weights = dict(data.weights)
        for name in weights:
            full = full_name(task, PREFIX + name)
            if (value := average.values.get(links.get(full, full))) is not None:
                weights[name] = value.copy()
        out[task] = ModelData(data.config, weights, frozen=data.frozen)
    return out


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint beside its place and move it there in one step, so that a whole one is there at any moment.

    Raises:
        OSError: naming the file; what was there before stays.
    """
    with replacing(path) as part, open(part, "wb") as handle:
        torch_writer.write(handle, content, path.name.removesuffix(".pt"))


def _optimizer_state(optimizer: Adam, numbers: Mapping[str, int], progress: Progress) -> dict[str, Any]:
    state = {}
    for name, moments in optimizer.moments().items():
        state[numbers[name]] = {
            "step": np.array(moments.step, np.float32),
            "exp_avg": moments.mean,
            "exp_avg_sq": moments.square,
        }
    group = {
        "lr": progress.next_rate,
        "betas": optimizer.betas,
        "eps": EPSILON,
        "weight_decay": optimizer.decay,
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
        "fused": False,
        "decoupled_weight_decay": optimizer.decoupled,
        "initial_lr": progress.start_rate,
        "params": list(range(len(set(numbers.values())))),
    }
    return {"state": dict(sorted(state.items())), "param_groups": [group]}


def _averages(
    tasks: Mapping[str, ModelData], average: MovingAverage, state: Mapping[str, Any], links: Mapping[str, str]
) -> dict[str, Array]:
    """The averages as deepmd-kit names them: without the task of a model that is alone."""
    out = {}
    for task in [SINGLE] if list(tasks) == [SINGLE] else sorted(tasks):
        for name, entry in layout(tasks[task].config).items():
            if entry.parameter:
                full = full_name(task, name)
                out[name if task == SINGLE else f"{task}.{name}"] = average.values.get(
                    links.get(full, full), state[full]
                )
    return out


# ------------------------------------------------------------------------------------------------------------- reading


class Checkpoint:
    """What a checkpoint holds, of deepmd-kit or ours.

    Args:
        path: of the file.
        force: whether weights that the file lacks may begin as they are drawn.

    Attributes:
        definition: the model section that it was made with.
        step: of ours the number of steps that were done. deepmd-kit's goes on at the step that it stores, which is the
            last one that was done: it does this one again.
        own: what ours has besides; empty for deepmd-kit's.
        content: all that the file holds, arrays in place of tensors, as :func:`write` takes it.

    Raises:
        ModelFileError: the file is missing, damaged or no checkpoint.
    """

    def __init__(self, path: str | Path, force: bool = False) -> None:
        self.path, self._force = Path(path), force
        content, self._size = guarded(self.path, _unpickled)
        if not isinstance(content.get("model", content), dict):
            raise ModelFileError(f"{path}: the checkpoint has no model state")
        self.content: dict[str, Any] = content
        self._state: dict[str, Any] = content.get("model", content)
        extra = self._state.get("_extra_state")
        extra = extra if isinstance(extra, dict) else {}
        if not isinstance(extra.get("model_params"), dict):
            raise ModelFileError(f"{path}: the file is no checkpoint: it has no definition of a model")
        self.definition: dict[str, Any] = extra["model_params"]
        infos = extra.get("train_infos")
        stored = infos.get("step") if isinstance(infos, dict) else 0
        if not isinstance(stored, int) or stored < 0:
            raise ModelFileError(f"{path}: corrupt file: its number of steps is {str(stored)[:40]}")
        own = content.get("dpa2")
        exact = isinstance(own, dict) and own.get("version") == _VERSION and own.get("step") in _steps_done(stored)
        self.own: dict[str, Any] = own if exact and own is not None else {}
        self.step = int(self.own.get("step", stored))

    @property
    def tasks(self) -> list[str]:
        """The names of the models, "Default" for one alone."""
        heads = self.definition.get("model_dict")
        return list(heads) if isinstance(heads, dict) else [SINGLE]

    def sections(self) -> dict[str, dict[str, Any]]:
        """The model section of every task, "Default" for one alone, with shared parts in their places.

        Raises:
            ModelFileError: one is no section, or names a part that is not there.
        """
        heads = self.definition.get("model_dict")
        out = {}
        for name, section in (heads if isinstance(heads, dict) else {SINGLE: self.definition}).items():
            if not isinstance(section, dict):
                raise ModelFileError(f"{self.path}: corrupt file: the definition of {name!r} is not a dictionary")
            try:
                out[str(name)] = resolve_shared(section, self.definition.get("shared_dict"))
            except ModelFileError as error:
                raise type(error)(f"{self.path}: {error}") from None
        return out

    def model(self, task: str, section: Mapping[str, Any], fresh: Mapping[str, Array] | None = None) -> ModelData:
        """The weights of a task in a model of this definition, the section of an input.

        Args:
            task: the name of the task.
            section: of the model.
            fresh: the weights as they are drawn.

        Raises:
            ModelFileError: the file has no such task, or its weights are not those that the section asks for.
        """
        prefix = f"model.{task}."
        own = {
            name.removeprefix(prefix): value
            for name, value in self._state.items()
            if isinstance(name, str) and name.startswith(prefix) and isinstance(value, np.ndarray)
        }
        if not own:
            raise ModelFileError(f"{self.path}: the file has no model {task!r}, but {', '.join(self.tasks)}")
        try:
            named = canonical_names(own)
            if self._force:
                named = {**(fresh or {}), **named}
            distance = number_of(named.get("min_nbor_dist"), "min_nbor_dist")
            data = assemble(RawModel(dict(section), named, distance, None if task == SINGLE else task, None))
        except ModelFileError as error:
            raise type(error)(f"{self.path}: {error}") from None
        return data

    def read(self, head: str | None) -> ModelData:
        """The model, or its branch ``head``, as :func:`dpa2.files.read` finds it, without reading the file again.

        Raises:
            InputError: ``head`` is missing or unknown. ModelFileError: what is in the file is no sound model.
        """
        return guarded(self.path, lambda _: assemble(model_of(self.content, head, self._size)))

    def moments(self, numbers: Mapping[str, int]) -> dict[str, Moments]:
        """The state of the optimizer by full names of parameters.

        Raises:
            ModelFileError: the file has none, or it is of another number of parameters, or damaged.
        """
        found = self.content.get("optimizer")
        if found is None:
            raise ModelFileError(
                f"{self.path}: the file has no state of an optimizer, so that no run can go on from it: begin one with "
                "--init-model"
            )
        try:
            count = sum(len(group["params"]) for group in found["param_groups"])
            states = dict(found["state"])
            if count != len(set(numbers.values())):
                raise ModelFileError(
                    f"{self.path}: the optimizer's state is of {count} parameters, but the model has "
                    f"{len(set(numbers.values()))}"
                )
            out = {}
            for name, number in numbers.items():
                if number in states:
                    step, mean, square = (np.asarray(states[number][k]) for k in ("step", "exp_avg", "exp_avg_sq"))
                    out[name] = Moments(int(step.reshape(())), mean, square)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, ModelFileError):
                raise
            raise ModelFileError(f"{self.path}: the state of the optimizer is damaged, or not of Adam") from None
        return out

    def averages(self) -> dict[str, Array]:
        """The averaged parameters by full name; empty if the file has none."""
        found = self.content.get("ema")
        values = found.get("model") if isinstance(found, dict) else None
        if not isinstance(values, dict):
            return {}
        alone = self.tasks == [SINGLE]
        return {
            full_name(SINGLE, name) if alone else f"model.{name}": value
            for name, value in values.items()
            if isinstance(name, str) and isinstance(value, np.ndarray)
        }


def restore(checkpoint: Checkpoint, optimizer: Adam, average: MovingAverage | None, numbers: Mapping[str, int]) -> None:
    """Put the state of a checkpoint into an optimizer and an average, whose parameters are named in full.

    Raises:
        ModelFileError: they do not fit.
    """
    found = checkpoint.moments(numbers)
    shapes = {name: value.shape for name, value in optimizer.parameters.items()}
    fitting = {name: moments for name, moments in found.items() if name in shapes}
    for name, moments in fitting.items():
        if moments.mean.shape != shapes[name] or moments.square.shape != shapes[name] or moments.step < 0:
            raise ModelFileError(f"{checkpoint.path}: the state of the optimizer for {name} has another shape than it")
        if not (np.isfinite(moments.mean).all() and np.isfinite(moments.square).all() and (moments.square >= 0).all()):
            raise ModelFileError(f"{checkpoint.path}: the state of the optimizer for {name} is not finite")
    optimizer.restore(fitting)
    if average is None:
        return
    values = checkpoint.averages()
    if not values:
        raise InputError(
            f"{checkpoint.path} has no moving averages: leave training.enable_ema out, or begin them anew with "
            "--init-model"
        )
    for name, value in average.values.items():
        if name not in values or values[name].shape != value.shape or not np.isfinite(values[name]).all():
            raise ModelFileError(f"{checkpoint.path}: the moving average of {name} is missing or damaged")
    average.restore({name: values[name] for name in average.values})


def _steps_done(stored: int) -> tuple[int, ...]:
    """What deepmd-kit's count of a checkpoint can mean: it is 0 for none and for one."""
    return (stored + 1,) if stored else (0, 1)


def _unpickled(path: Path) -> tuple[dict[str, Any], int]:
    """What the file holds, and its size in bytes."""
    if detect(path) != "pt":
        raise ModelFileError("the file is no training checkpoint (.pt) of deepmd-kit's PyTorch backend")
    with TorchArchive(path) as archive:
        found, size = _loaded(archive.unpickle()), archive.size
    if not isinstance(found, dict):
        raise ModelFileError("the file is a PyTorch archive, but no checkpoint of deepmd-kit")
    return found, size


def _loaded(value: Any, read: dict[tuple[Any, ...], Array] | None = None) -> Any:
    """The object with arrays in place of tensors that are read on demand; tensors that are tied have one array."""
    read = {} if read is None else read
    if isinstance(value, LazyTensor):
        place = (value.storage.key, value.dtype, value.offset, value.shape, value.stride)
        if place not in read:
            read[place] = value.numpy()
        return read[place]
    if isinstance(value, dict):
        return {key: _loaded(entry, read) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_loaded(entry, read) for entry in value)
    return value
