"""What a model may be made of: its options and its weights, asked of the core, which states them once for everybody."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from numpy.typing import NDArray

try:
    from dpa2 import _native
except ImportError as error:
    raise ImportError(
        f"the compiled part of dpa2 cannot be imported ({error}), and without it no model can be read; "
        "install the package with pip"
    ) from error


@dataclass(frozen=True)
class Option:
    """An option of the canonical configuration.

    Attributes:
        key: its name.
        kind: "boolean", "integer", "number", "text", "choice", "activation"; lists of "integers", "numbers", "texts",
            of "holes" (numbers, or null where none is given) or of "pairs" of integers.
        presence: "default", "required", or "optional" if the configuration may leave it out.
        null: whether it may be null.
        positive: whether numbers must be above zero.
        types: whether the integers are indices of types.
        fewest, most: entries of a list.
        choices: of a choice.
        default: what it is where a definition leaves it out.
        lowest, highest: bounds of every number.
    """

    key: str
    kind: str
    presence: str
    null: bool
    positive: bool
    types: bool
    fewest: int
    most: int
    choices: list[str]
    default: Any = None
    lowest: float | None = None
    highest: float | None = None


class Weight(NamedTuple):
    """A weight that a model must have.

    ``role`` is "parameter", "environment_mean", "environment_stddev", "statistic", "constant" or "table"; ``dtype`` is
    what deepmd-kit keeps it in.
    """

    name: str
    shape: tuple[int, ...]
    role: str
    dtype: str


@cache
def _stated() -> dict[str, Any]:
    return _native.config_schema()


@cache
def section(name: str) -> dict[str, Option]:
    """The options of a section of the configuration.

    Sections are "model", "descriptor", "repinit", "repformer", "fitting_net" and what a type of it has besides (see
    :func:`fitting_sections`), "se_e2_a", "dpa1", "linear_ener", "zbl", "spin", "pairtab", "compression" and a "table"
    of it.
    """
    return {option["key"]: Option(**option) for option in _stated()["sections"][name]}


def fitting_sections(kind: str) -> list[str]:
    """The sections that a fitting net of this type has its options from."""
    own = f"fitting_net.{kind}"
    return ["fitting_net", own] if own in _stated()["sections"] else ["fitting_net"]


def format_version() -> int:
    """The newest version of the native format."""
    return int(_stated()["format_version"])


def activations() -> dict[str, bool]:
    """The names of activation functions, and whether they take a number behind a colon."""
    return dict(_stated()["activations"])


def most_intervals() -> int:
    """How many intervals a table may have."""
    return int(_stated()["table"]["intervals"])


def expected_weights(config: Mapping[str, Any]) -> dict[str, Weight]:
    """The weights of a model with this canonical configuration, by name, in the order of the evaluation.

    Raises:
        ModelFileError: the options contradict each other, or ask for unreasonably much.
    """
    return {entry[0]: Weight(*entry) for entry in _native.expected_weights(json.dumps(config))}


def check_weights(config: Mapping[str, Any], weights: dict[str, NDArray[Any]]) -> None:
    """Raise :class:`ModelFileError`, naming the weight, unless the weights are the expected ones and finite."""
    _native.check_weights(json.dumps(config), weights)


# ------------------------------------------------------------------------------- what holds for every configuration


def _children(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The models of a combination; a model that is none, alone."""
    models: list[dict[str, Any]] = config.get("models") or [config]
    return models


def networks(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What has a descriptor and a fitting net, by the prefix of its weights.

    That is the model itself, under the empty prefix, or the energy models of a combination.
    """
    if "models" not in config:
        return {"": config}
    return {f"models.{k}.": child for k, child in enumerate(config["models"]) if "descriptor" in child}


def base(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that has a descriptor: itself, or the first such model of a combination."""
    return next(iter(networks(config).values()))


def descriptors(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The descriptors of a network: its own, or those that stand in a hybrid one, and in hybrids in it, in order."""

    def within(descriptor: dict[str, Any]) -> list[dict[str, Any]]:
        if descriptor["type"] != "hybrid":
            return [descriptor]
        return [one for member in descriptor["list"] for one in within(member)]

    return within(config["descriptor"])


def is_hybrid(config: Mapping[str, Any]) -> bool:
    """Whether a network has a hybrid descriptor."""
    return bool(config["descriptor"]["type"] == "hybrid")


def descriptor_rcut(descriptor: Mapping[str, Any]) -> float:
    """The cutoff of a descriptor that is no hybrid one, angstrom."""
    return float(descriptor["repinit"]["rcut"] if descriptor["type"] == "dpa2" else descriptor["rcut"])


def kind(config: Mapping[str, Any]) -> str:
    """What a model is of: "energy", "spin", "dipole", "polar", "dos", "property" or "population"."""
    return str(_native.kind(json.dumps(config)))


def rcut(config: dict[str, Any]) -> float:
    """How far neighbours are, angstrom: the largest cutoff, of a pair table as well."""
    return max(
        max(map(descriptor_rcut, descriptors(child))) if "descriptor" in child else float(child["rcut"])
        for child in _children(config)
    )


def parameters(config: dict[str, Any]) -> dict[str, Any]:
    """The options of the fitting net that say which parameters of frames and atoms a model takes.

    The models of a combination agree in their numbers, but for those that have none and do not look at them. Where
    their defaults differ there is none for all of them, but ``own_defaults`` says that each has one.
    """
    nets = [network["fitting_net"] for network in networks(config).values()]
    defaults = [net["default_fparam"] for net in nets if net["numb_fparam"]]
    return {
        "numb_fparam": max(net["numb_fparam"] for net in nets),
        "default_fparam": defaults[0] if defaults and all(one == defaults[0] for one in defaults) else None,
        "own_defaults": bool(defaults) and None not in defaults,
        "numb_aparam": max(net["numb_aparam"] for net in nets),
        "use_aparam_as_mask": all(net["use_aparam_as_mask"] for net in nets if net["numb_aparam"]),
    }
