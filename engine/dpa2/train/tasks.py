"""Inputs of several tasks: parts of models that stand in one place and are used by several of them."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from .keys import described, section

#: the highest level at which a part can be shared: 0 all of it, 1 of a descriptor the type embedding alone
_LEVELS = {"descriptor": 1, "fitting_net": 0}


@dataclass(frozen=True)
class SharedPart:
    """A part of models that several tasks train together.

    Attributes:
        name: in ``shared_dict``.
        kind: "descriptor" or "fitting_net".
        links: tasks and levels, by the level: the first has what the others take over.
    """

    name: str
    kind: str
    links: tuple[tuple[str, int], ...]


def expand(model: Mapping[str, Any]) -> tuple[dict[str, Any], list[SharedPart]]:
    """The model section of a multi-task input with every shared part in its place, and what is shared.

    Args:
        model: with ``model_dict`` and ``shared_dict``; what else stands there is for all tasks that do not have it
            themselves. It stays as it is. A section that was expanded comes back unchanged, without shared parts.

    Raises:
        InputError: naming the task whose part is not there, or is shared at a level that is not.
    """
    out = section(copy.deepcopy(dict(model)), "model")
    shared = section(out.get("shared_dict", {}), "model.shared_dict")
    tasks = section(out["model_dict"], "model.model_dict")
    for_all = {key: out.pop(key) for key in list(out) if key not in ("model_dict", "shared_dict")}
    links: dict[str, tuple[str, list[tuple[str, int]]]] = {}
    type_maps = set()
    for task, value in tasks.items():
        where = f"model.model_dict.{task}"
        if task == "RANDOM" or not task or "." in task:
            raise InputError(f"{where}: a task must not be named RANDOM or nothing, or have a dot in its name")
        tasks[task] = one = {**copy.deepcopy(for_all), **section(value, where)}
        for kind in ("type_map", "descriptor", "fitting_net"):
            if not isinstance(one.get(kind), str):
                continue
            name, level = _reference(one[kind], kind, shared, f"{where}.{kind}")
            one[kind] = copy.deepcopy(shared[name])
            if kind == "type_map":
                type_maps.add(name)
            elif links.setdefault(name, (kind, []))[0] != kind:
                raise InputError(f"{where}.{kind} is {name}, which another task has for its {links[name][0]}")
            else:
                links[name][1].append((task, level))
    if links and len(type_maps) != 1:
        raise InputError(
            "tasks that share parts must have one type_map: put it into model.shared_dict, and its name into every task"
        )
    out["model_dict"] = tasks
    parts = [
        SharedPart(name, kind, tuple(sorted(pairs, key=lambda pair: pair[1]))) for name, (kind, pairs) in links.items()
    ]
    return out, parts


def _reference(text: str, kind: str, shared: Mapping[str, Any], where: str) -> tuple[str, int]:
    """The name and level of "name" or "name:level"."""
    match = re.fullmatch(r"([^:]+)(?::([0-9]{1,3}))?", text)
    if match is None or match[1] not in shared:
        raise InputError(f"{where} is {described(text)}, which model.shared_dict does not have")
    level, highest = int(match[2] or 0), _LEVELS.get(kind, 0)
    if level > highest:
        raise InputError(f"{where} is {described(text)}, but a {kind} is shared at level {highest} at most")
    return match[1], level


def check_tasks(config: dict[str, Any]) -> None:
    """Raise :class:`InputError` unless the sections of a completed input agree in their tasks.

    A part that is used under one name is the same in all tasks, since it was written once.
    """
    tasks, training = list(config["model"]["model_dict"]), config["training"]
    for where, names in (("loss_dict", config["loss_dict"]), ("training.data_dict", training["data_dict"])):
        if missing := [task for task in tasks if task not in names]:
            raise InputError(f"{where}.{missing[0]} is missing: model.model_dict has this task")
        if extra := [task for task in names if task not in tasks]:
            raise InputError(f"{where}.{extra[0]} is for a task that model.model_dict does not have")
    if "numb_epoch" in training:
        raise InputError("training.numb_epoch is for one task; for several give num_epoch_dict, or numb_steps")
    epochs, weights = training["num_epoch_dict"], training["model_prob"]
    for where, values in (("num_epoch_dict", epochs), ("model_prob", weights)):
        for task, value in values.items():
            if task not in tasks:
                raise InputError(f"training.{where}.{task} is for a task that model.model_dict does not have")
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e300
            if not number:
                raise InputError(
                    f"training.{where}.{task} is {described(value)}, expected a number that is not negative"
                )
        if values and not any(values.values()):
            raise InputError(f"training.{where} is 0 for every task: at least one must be above 0")
    if epochs and ("numb_steps" in training or weights):
        raise InputError("training.num_epoch_dict takes the place of numb_steps and model_prob: leave these out")
    if not epochs and "numb_steps" not in training:
        raise InputError("training must have numb_steps or num_epoch_dict, which say how long it takes")
    widths = {
        task: model["fitting_net"].get("dim_case_embd", 0) for task, model in config["model"]["model_dict"].items()
    }
    if len(set(widths.values())) > 1:
        raise InputError(f"fitting_net.dim_case_embd must be the same in all tasks, got {widths}")
