"""A training input as deepmd-kit takes it: read, with old spellings rewritten, completed by defaults, and checked.

>>> config = normalise(read_input("input.json"))       # doctest: +SKIP
>>> config["training"]["disp_freq"]                    # doctest: +SKIP
100
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..blocks import BLOCKS
from ..errors import Error, InputError, ModelFileError
from ..files import config as canonical
from ..files import schema, yaml_tree
from ..files.kinds import SUPPORTED, check_kind
from . import sections
from .batch import loss_labels_of
from .dataset import batch_rule
from .keys import ABSENT, Key, complete, described, place, section
from .schedule import check_ends
from .sel import ratio_of
from .tasks import check_tasks, expand

#: a longer file is no input
_LONGEST = 64 * 2**20
_WARMUP = ("warmup_steps", "warmup_ratio", "warmup_start_factor")
_OPTIMIZER = (
    *("opt_type", "kf_blocksize", "kf_start_pref_e", "kf_limit_pref_e", "kf_start_pref_f", "kf_limit_pref_f"),
    *("weight_decay", "momentum", "muon_momentum", "adam_beta1", "adam_beta2", "lr_adjust", "lr_adjust_coeff"),
    *("muon_2d_only", "min_2d_dim"),
)
_TRAINED = (
    "models are trained that have the descriptor 'dpa2' and a fitting net 'ener', 'dipole', 'polar', 'dos', 'property' "
    "or 'population'"
)


def read_input(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a training input holds, as it stands there: JSON, or YAML in a file named ``.yaml`` or ``.yml``.

    Raises:
        InputError: naming the file, and where it is not JSON or YAML.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LONGEST:
            raise InputError(f"{path} is longer than 64 MiB: it is no training input")
        if path.suffix.lower() in (".yaml", ".yml"):
            return yaml_tree.load(path)
        found = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique, parse_constant=_constant)
    except OSError as error:
        raise InputError(f"the training input {path} cannot be read: {error.strerror or error}") from None
    except json.JSONDecodeError as error:
        message = f"{path} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        raise InputError(f"{message}; YAML must be in a file named .yaml or .yml") from None
    except ModelFileError as error:
        text = str(error).replace("this is no model file", "this is no training input")
        raise InputError(f"{path}: {text}") from None
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (ValueError, RecursionError):  # bytes that are no text, integers of thousands of digits
        raise InputError(f"{path} is not a training input: it is no text, or nests too deeply") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds {described(found)}, expected the sections of a training input in braces")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out and not key.startswith("_"):
            raise InputError(f"the key {key[:60]!r} stands twice in one section: leave one of them out")
        out[key] = value
    return out


def _constant(name: str) -> Any:
    raise InputError(f"{name} is no number that an input may have")


def compatible(given: Mapping[str, Any]) -> dict[str, Any]:
    """What deepmd-kit writes into ``input_v2_compat.json``: the input without what it has long stopped to read.

    In a multi-task input the shared parts stand in their places already (:func:`dpa2.train.tasks.expand`).
    """
    out = copy.deepcopy(dict(given))
    if isinstance(out.get("training"), dict):
        out["training"].pop("numb_test", None)
    return out


def normalise(given: Mapping[str, Any]) -> dict[str, Any]:
    """An input with all defaults, in deepmd-kit's names: what it writes into ``out.json``.

    Args:
        given: as :func:`read_input` returns it; a multi-task input before or after
            :func:`dpa2.train.tasks.expand`. It stays as it is.

    Returns:
        The sections model, learning_rate, optimizer, loss (of several tasks loss_dict), training and validating.
        Comments are gone. Keys without a default that were not given are not there: seed, stat_file,
        gradient_max_norm, relative_f, numb_steps or numb_epoch, finetune_head.

    Raises:
        InputError: naming the key that is unknown, missing or of a wrong value, options that contradict each other,
            and what is not there.
    """
    config = compatible(section(given, "the input"))
    for name in ("model", "training", "learning_rate", "optimizer"):
        if name in config:
            config[name] = section(config[name], name)
    if "model" not in config and "training" not in config:
        raise InputError("the input has neither a section model nor training; inputs of deepmd-kit 0.x are not read")
    tasks = "model_dict" in config.get("model", {})
    if tasks:
        config["model"] = expand(config["model"])[0]
    _rewrite(config)
    _refuse(config, "")
    out = complete(config, sections.INPUT_OF_TASKS if tasks else sections.INPUT, "")
    for name in ("learning_rate", "optimizer"):
        out[name] = _variant(out[name], name, name)
    rate = out["learning_rate"]
    if rate["stop_lr"] is None and rate["stop_lr_ratio"] is None:
        rate["stop_lr"] = 5e-8
    check_ends(rate)
    if out["validating"]:  # deepmd-kit fills it in only where it is given
        out["validating"] = complete(out["validating"], sections.VALIDATING, "validating")
    if tasks:
        out["model"] = complete(out["model"], sections.MODEL_OF_TASKS, "model")
        _each(out["model"], "model_dict", "model", complete_model)
        _each(out, "loss_dict", "", _loss)
        out["training"] = complete(out["training"], sections.TRAINING_OF_TASKS, "training")
        _each(out["training"], "data_dict", "training", _data)
        check_tasks(out)
        pairs = [
            (f"model.model_dict.{task}", model, f"loss_dict.{task}", out["loss_dict"][task])
            for task, model in out["model"]["model_dict"].items()
        ]
    else:
        out["model"] = complete_model(out["model"], "model")
        out["loss"] = _loss(out["loss"], "loss")
        out["training"] = complete(out["training"], sections.TRAINING, "training")
        out["training"] = _data(out["training"], "training", sections.TRAINING)
        pairs = [("model", out["model"], "loss", out["loss"])]
    _check_training(out, tasks)
    for where, model, loss_where, loss in pairs:
        _check_loss(_check_model(model, where), loss, loss_where)
    return out


def without_effect(config: Mapping[str, Any]) -> list[str]:
    """The places of keys in a normalised input that say something that is not done."""
    tasks = config["model"].get("model_dict")
    out = []
    for name, default in sections.UNREAD.items():
        first, *rest = name.split(".")
        heads = {name: config[first]}
        if first == "model" and tasks is not None:
            heads = {".".join(["model.model_dict", task, *rest]): model for task, model in tasks.items()}
        for where, value in heads.items():
            for key in rest:
                value = value.get(key, ABSENT) if isinstance(value, Mapping) else ABSENT
            if value is not ABSENT and value is not None and value != default:
                out.append(where)
    return out


def _each(parent: dict[str, Any], name: str, where: str, one: Any) -> None:
    """Complete the section of every task."""
    where = place(where, name)
    parent[name] = {task: one(value, f"{where}.{task}") for task, value in section(parent[name], where).items()}
    if not parent[name]:
        raise InputError(f"{where} is empty, expected a section for each task")


def _rewrite(config: dict[str, Any]) -> None:
    """Keys of older versions, moved to where they stand now."""
    training = config.get("training")
    if not isinstance(training, dict):
        return
    if "systems" in training:
        raise InputError(
            "training.systems is of an input for deepmd-kit 1.x; put systems, batch_size and sys_probs into "
            "training.training_data"
        )
    rate = config.get("learning_rate")
    for key in _WARMUP:
        if key not in training:
            continue
        if isinstance(rate, dict) and key in rate:
            raise InputError(f"{key} is given in training and in learning_rate: leave it out of training")
        value = training.pop(key)
        if isinstance(rate, dict):
            rate[key] = value
    optimizer = config.setdefault("optimizer", {})
    for key in _OPTIMIZER:
        if key in training:
            optimizer["type" if key == "opt_type" else key] = training.pop(key)


def _refuse(given: Mapping[str, Any], where: str) -> None:
    """Raise :class:`InputError` for a key that deepmd-kit knows and this package does not."""
    for key in given:
        if reason := sections.REFUSED.get(place("model" if where else "", key)):
            raise InputError(f"{place(where, key)} cannot be trained with: {reason}")


def _variant(given: Any, name: str, where: str) -> dict[str, Any]:
    """A section whose key ``type`` says which keys it has."""
    common, variants, default = sections.VARIANTS[name]
    kind = section(given, where).get("type", default)
    kind = "ener" if name == "loss" and kind == "ener_hess" else kind
    if isinstance(kind, str) and (reason := sections.REFUSED_TYPES.get((name, kind))):
        raise InputError(f"{where}.type is {kind}, which is not there: {reason}; there are {', '.join(variants)}")
    if not isinstance(kind, str) or kind not in variants:
        raise InputError(f"{where}.type is {described(kind)}, expected one of {', '.join(variants)}")
    keys = [*common, Key("type", ("text",), default), *variants[kind]]
    return complete({**given, "type": kind} if "type" in given else given, keys, where)


def complete_model(given: Any, where: str) -> dict[str, Any]:
    """A model section with all defaults; ``where`` names it in messages.

    Raises:
        InputError: naming the key that is unknown, missing or of a wrong value.
    """
    model = section(given, where)
    _refuse(model, where)
    if (kind := model.get("type", "standard")) != "standard":
        raise InputError(f"{where}.type is {described(kind)}, expected standard; of a combination, train the parts")
    out = complete(model, sections.MODEL, where)
    descriptor = section(out["descriptor"], f"{where}.descriptor")
    if "type" not in descriptor:
        raise InputError(f"{where}.descriptor.type is missing; it must be dpa2")
    if descriptor["type"] == "hybrid":
        raise InputError(
            f"{where}.descriptor.type is hybrid: models of hybrid descriptors are evaluated, but not trained"
        )
    with _placed(where):
        check_kind(out)
    keys = [Key("type", ("text",)), *(key for key in sections.descriptor("descriptor") if key.name != "type")]
    descriptor = complete(descriptor, keys, f"{where}.descriptor")
    for name in ("repinit", "repformer"):
        descriptor[name] = complete(descriptor[name], sections.descriptor(name), f"{where}.descriptor.{name}")
    kind = section(out["fitting_net"], f"{where}.fitting_net").get("type", "ener")
    out["descriptor"] = descriptor
    out["fitting_net"] = complete(out["fitting_net"], sections.fitting_net(kind), f"{where}.fitting_net")
    _check_preset(out, where)
    return out


def _loss(given: Any, where: str) -> dict[str, Any]:
    return _variant(given, "loss", where)


def _data(given: Any, where: str, keys: list[Key] = sections.TASK_DATA) -> dict[str, Any]:
    """The data of a task."""
    out = complete(given, keys, where)
    out["training_data"] = complete(out["training_data"], sections.TRAINING_DATA, f"{where}.training_data")
    if out["validation_data"] is not None:
        out["validation_data"] = complete(out["validation_data"], sections.VALIDATION_DATA, f"{where}.validation_data")
    for name in ("training_data", "validation_data"):
        rule = (out[name] or {}).get("batch_size")
        if isinstance(rule, str):
            batch_rule(rule, f"{where}.{name}.batch_size")
    if out["stat_file_mode"] == "read" and not out.get("stat_file"):
        raise InputError(f"{where}.stat_file_mode is read, but {where}.stat_file does not say which file")
    return out


def _check_training(config: dict[str, Any], tasks: bool) -> None:
    """What several keys say together."""
    training, validating = config["training"], config["validating"]
    if "mixed_precision" in training:
        keys, where = sections.MIXED_PRECISION, "training.mixed_precision"
        training["mixed_precision"] = complete(training["mixed_precision"], keys, where)
    if not tasks and ("numb_steps" in training) == ("numb_epoch" in training):
        raise InputError("training must have one of numb_steps and numb_epoch, which say how long it takes")
    if training["zero_stage"] != 0:
        raise InputError("training.zero_stage must be 0: states of the optimizer are not spread over processes")
    own, averaged = (validating.get(name) for name in ("full_validation", "ema_full_validation"))
    if (own or (averaged and training["enable_ema"])) and validating["full_val_start"] != 1:
        raise InputError(
            "validating.full_validation is not there; leave it out, and run dpa2 test with the checkpoints"
        )


def _check_preset(model: dict[str, Any], where: str) -> None:
    """The energies that are set and not fitted: for each output a number, a list or null per type."""
    where, ntypes = f"{where}.preset_out_bias", len(model["type_map"])
    entry = Key(where, ("null", "number", "numbers"))
    for name, values in section(model["preset_out_bias"] or {}, where).items():
        if not isinstance(values, list) or len(values) != ntypes:
            raise InputError(f"{where}.{name} must be a list with an entry for each of the {ntypes} types of type_map")
        for k, value in enumerate(values):
            entry.check(value, f"{where}.{name}[{k}]")


def canonical_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical configuration of a model section, as of model files; a ``sel`` that data will tell is made up.

    Raises:
        ModelFileError: options that contradict each other.
    """
    model = copy.deepcopy(dict(model))
    first, *others = BLOCKS
    for block in others:
        options = model["descriptor"][block.section]
        if isinstance(options.get(block.sel), str):
            options[block.sel] = 1
    options = model["descriptor"][first.section]
    if isinstance(options[first.sel], str):
        options[first.sel] = 1 + max(model["descriptor"][block.section][block.sel] for block in others)
    return canonical.normalise(model, None, None)


def _check_model(model: dict[str, Any], where: str) -> dict[str, Any]:
    """The canonical configuration, if the options agree with each other and it can be trained."""
    for block in BLOCKS:
        sel = model["descriptor"][block.section].get(block.sel)
        if isinstance(sel, str):  # numbers are the core's to check
            ratio_of(sel, f"{where}.descriptor.{block.section}.{block.sel}")
    with _placed(where):
        config = canonical_model(model)
        schema.expected_weights(config)
    for name in ("descriptor", "fitting_net"):
        if (precision := config[name]["precision"]) not in ("float64", "float32"):
            raise InputError(f"{where}.{name}.precision is {precision}; training is done in float64 and float32")
    return config


def _check_loss(config: dict[str, Any], loss: dict[str, Any], where: str) -> None:
    """Whether the model can have this loss, asked of the core."""
    try:
        labels = loss_labels_of(config, loss)
    except Error as error:
        text = str(error).replace("loss.", f"{where}.")
        raise InputError(text if text.startswith(where) else f"{where}: {text}") from None
    if not labels:
        raise InputError(f"{where} has no term whose prefactors are not zero: nothing would be learned")


class _placed:
    """Errors of model definitions with their place in the input in front."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ModelFileError):
            text = str(error).removeprefix("the model definition is inconsistent: ")
            raise InputError(f"{self._where}: {text.replace(SUPPORTED, _TRAINED)}") from None
