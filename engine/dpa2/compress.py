"""Compression of models: embedding networks as piecewise quintic tables with a stated error bound.

The networks of repinit and of the three-body block see one scalar s and types, so that they are curves G_c(s), one set
per combination of types (one for all in strip mode). On an interval a curve becomes the polynomial of degree five that
has its value, slope and second derivative at both ends: the table is twice continuously differentiable. Intervals are
halved until values and first derivatives between the nodes are within the bound.

Lengths in angstrom; s and the curves are dimensionless.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, UnsupportedModelError
from .files import ModelData, schema
from .files.compression import BLOCKS

Float = NDArray[np.float64]

DEFAULT_MAX_ERROR = 1e-8
#: the tables cover distances from here on; below, curves go on as straight lines
MIN_DISTANCE = 0.25
FIRST_LEVEL, LAST_LEVEL = 5, 20
MAX_BYTES = 2**30
#: intervals that are fitted at once
CHUNK = 512
#: the basis of Hermite's interpolation on [0, 1]: rows value, slope, second derivative at 0, then at 1; columns powers
HERMITE = np.array(
    [
        [1, 0, 0, -10, 15, -6],
        [0, 1, 0, -6, 8, -3],
        [0, 0, 0.5, -1.5, 1.5, -0.5],
        [0, 0, 0, 10, -15, 6],
        [0, 0, 0, -4, 7, -3],
        [0, 0, 0, 0.5, -1, 0.5],
    ]
)
# Where the errors of value and slope are largest on an interval that is short enough, and between.
_PROBES = np.array([0.04, 0.1, 0.19, 0.2764, 0.35, 0.43, 0.5, 0.57, 0.65, 0.7236, 0.81, 0.9, 0.96])
_CHECKS = np.linspace(0.0, 1.0, 33)


@dataclass(frozen=True)
class Table:
    """What a table of a compressed model is like.

    Attributes:
        prefix: of the weights of the network that it is in: empty, or "models.<k>." in a combination.
        block: "repinit" or "three_body".
        curves, intervals, channels: its size; every curve has all intervals.
        lower, upper: its range of s.
        value_error, slope_error: largest differences from the network that were found between the nodes.
        nbytes: in the file.
    """

    prefix: str
    block: str
    curves: int
    intervals: int
    channels: int
    lower: float
    upper: float
    value_error: float
    slope_error: float
    nbytes: int


class Curves:
    """The network of a block as functions of s, evaluated by the compiled core."""

    def __init__(self, data: ModelData, block: str) -> None:
        from ._native import EmbeddingCurves

        needed = (f"{BLOCKS[block]}.filter_layers.", "descriptor.type_embedding.", "descriptor.econf_tebd")
        weights = {name: value for name, value in data.weights.items() if name.startswith(needed)}
        self._curves = EmbeddingCurves(json.dumps(data.config), weights, block == "three_body")
        self.count, self.channels = self._curves.count, self._curves.channels
        self.activation = data.config["descriptor"]["repinit"]["activation_function"]

    def __call__(self, curve: int, s: Float) -> tuple[Float, Float, Float]:
        """(n, channels) each: value, d/ds and d2/ds2 of a curve at s (n)."""
        value, slope, second = self._curves.evaluate(curve, s)
        return value, slope, second


def ranges(data: ModelData, block: str) -> tuple[float, float]:
    """The range of the scalar that a block's network sees, for distances from `MIN_DISTANCE` on and padded slots."""
    weights, protection = data.weights, data.config["descriptor"]["env_protection"]
    mean, stddev = (weights[f"{BLOCKS[block]}.{name}"].astype(np.float64) for name in ("mean", "stddev"))
    largest = 1.0 / (MIN_DISTANCE + protection)
    if block == "repinit":
        ends = np.stack([-mean[:, 0] / stddev[:, 0], (largest - mean[:, 0]) / stddev[:, 0]])
        return float(ends.min()), float(ends.max())
    shift = np.linalg.norm(mean[:, 1:] / stddev[:, 1:], axis=1)
    longest = float((largest / np.abs(stddev[:, 1:]).min(axis=1) + shift).max()) ** 2
    return -longest, longest


def _polynomials(both: tuple[Float, Float, Float], length: float) -> Float:
    """(n, 6, channels) coefficients on n intervals from the jets at their 2 n ends, begin and end in turn."""
    jets = np.stack([part * length**k for k, part in enumerate(both)])  # (3, 2 n, channels)
    ends = jets.reshape(3, -1, 2, jets.shape[-1]).transpose(1, 2, 0, 3).reshape(-1, 6, jets.shape[-1])
    out: Float = np.einsum("pk,npc->nkc", HERMITE, ends)
    return out


def _errors(curve: Curves, index: int, begin: Float, length: float, a: Float, u: Float) -> tuple[Float, Float]:
    """(n) largest errors of value and slope of the polynomials a at the places u of their intervals."""
    value, slope, _ = curve(index, (begin[:, None] + length * u).ravel())
    shape = (len(begin), len(u), a.shape[-1])
    powers = u[:, None] ** np.arange(6)
    slopes = np.zeros_like(powers)
    slopes[:, 1:] = powers[:, :-1] * np.arange(1, 6) / length
    wrong = np.abs(np.matmul(powers, a) - value.reshape(shape)), np.abs(np.matmul(slopes, a) - slope.reshape(shape))
    return wrong[0].max(axis=(1, 2)), wrong[1].max(axis=(1, 2))


def _grid(curve: Curves, lower: float, upper: float, max_error: float, block: str) -> list[tuple[int, int]]:
    """The intervals that keep the bound, as (level, index) in order: a level halves those of the one before."""
    done: list[tuple[int, int]] = []
    open_ = list(range(2**FIRST_LEVEL))
    for level in range(FIRST_LEVEL, LAST_LEVEL + 1):
        length = (upper - lower) / 2**level
        begins = lower + length * np.array(open_, dtype=np.float64)
        good = np.ones(len(open_), dtype=bool)
        for index in range(curve.count):
            for first in range(0, len(open_), CHUNK):
                begin = begins[first : first + CHUNK]
                a = _polynomials(curve(index, np.stack([begin, begin + length], axis=1).ravel()), length)
                worst = np.maximum(*_errors(curve, index, begin, length, a, _PROBES))
                good[first : first + CHUNK] &= worst <= 0.8 * max_error
        done += [(level, n) for n, ok in zip(open_, good, strict=True) if ok]
        open_ = [child for n, ok in zip(open_, good, strict=True) if not ok for child in (2 * n, 2 * n + 1)]
        if not open_:
            return sorted(done, key=lambda leaf: leaf[1] / 2 ** leaf[0])
        if 48 * curve.count * curve.channels * (len(done) + len(open_)) > MAX_BYTES:
            break
    raise InputError(
        f"the network of {block} cannot be tabulated to {max_error:g} with a table of reasonable size"
        + (f": {curve.activation} has kinks" if curve.activation.startswith(("relu", "silut", "custom")) else "")
        + "; give a larger max_error"
    )


def _table(data: ModelData, block: str, max_error: float, prefix: str) -> tuple[dict[str, Any], Float, Table]:
    """Grid, weight and description of the table of a block of a single network."""
    curve = Curves(data, block)
    lower, upper = ranges(data, block)
    margin = 1e-6 * (upper - lower)  # rounding at the ends, in the precision of the kernels
    lower, upper = lower - margin, upper + margin
    leaves = _grid(curve, lower, upper, max_error, block)
    deepest = max(level for level, _ in leaves)
    step = (upper - lower) / 2**deepest
    widths = np.array([2 ** (deepest - level) for level, _ in leaves])
    shape = (curve.count, len(leaves), 6, curve.channels)
    edges = lower + step * np.concatenate([[0], np.cumsum(widths)])
    table = np.empty(shape)
    worst = np.zeros(2)
    for width in np.unique(widths):
        all_of = np.flatnonzero(widths == width)
        for first in range(0, len(all_of), CHUNK):
            own = all_of[first : first + CHUNK]
            for index in range(curve.count):
                ends = np.stack([edges[own], edges[own + 1]], axis=1).ravel()
                table[index, own] = a = _polynomials(curve(index, ends), step * width)
                found = _errors(curve, index, edges[own], step * width, a, _CHECKS)
                worst = np.maximum(worst, [part.max() for part in found])
    starts = np.flatnonzero(np.diff(widths, prepend=0))
    counts = np.diff(starts, append=len(widths))
    segments = [[int(n), int(widths[k])] for k, n in zip(starts, counts, strict=True)]
    errors = float(worst[0]), float(worst[1])
    facts = Table(prefix, block, shape[0], shape[1], shape[3], lower, upper, *errors, table.nbytes)
    return {"lower": lower, "step": step, "segments": segments}, table, facts


def compress(data: ModelData, max_error: float = DEFAULT_MAX_ERROR) -> tuple[ModelData, list[Table]]:
    """The model with tables in place of its embedding networks, which stay in the file beside them.

    Args:
        data: the model; tables that it has are made anew.
        max_error: bound on the errors of values and of first derivatives, both dimensionless.

    Raises:
        InputError: the bound cannot be reached, or is not between 1e-12 and 0.1.
        UnsupportedModelError: a spin model, or one whose descriptor is a hybrid one.
    """
    if isinstance(max_error, bool) or not isinstance(max_error, (int, float)) or not 1e-12 <= max_error <= 0.1:
        raise InputError(f"max_error must be a number from 1e-12 to 0.1, got {max_error!r}")
    if data.config.get("type") == "spin":
        raise UnsupportedModelError(
            "spin models are not compressed: virtual atoms are nearer to atoms than tables follow the networks"
        )
    out = decompress(data)
    facts = []
    if any(schema.is_hybrid(part) for part in schema.networks(out.config).values()):
        raise UnsupportedModelError("a model of a hybrid descriptor (descriptor.type 'hybrid') cannot be compressed")
    for prefix, part in schema.networks(out.config).items():
        network = _alone(out, prefix, part)
        entry: dict[str, Any] = {"max_error": float(max_error)}
        for block in BLOCKS if part["descriptor"]["repinit"]["use_three_body"] else ("repinit",):
            entry[block], table, found = _table(network, block, float(max_error), prefix)
            out.weights[f"{prefix}{BLOCKS[block]}.table"] = table
            facts.append(found)
        part["compression"] = entry
    return out, facts


def _alone(data: ModelData, prefix: str, part: dict[str, Any]) -> ModelData:
    """A network of a model as a model by itself."""
    top = {key: value for key, value in data.config.items() if key in schema.section("model")}
    config = {"format_version": schema.format_version(), **top, "pair_exclude_types": [], "atom_exclude_types": []}
    own = {name.removeprefix(prefix): value for name, value in data.weights.items() if name.startswith(prefix)}
    return ModelData(config | {key: part[key] for key in ("type_map", "descriptor", "fitting_net")}, own)


def decompress(data: ModelData) -> ModelData:
    """The model without tables in place of its networks; tables of pairs stay."""
    config = copy.deepcopy(data.config)
    for part in schema.networks(config).values():
        part.pop("compression", None)
    weights = {name: value for name, value in data.weights.items() if not name.endswith(".table")}
    return ModelData(config, weights, frozen=data.frozen)


def caution(config: Mapping[str, Any]) -> str:
    """What to keep in mind about distances that the training data did not have."""
    distance = config["min_nbor_dist"]
    below = "the file does not say how close atoms came in the training data"
    if distance is not None:
        below = f"atoms came no closer than {distance:.3g} angstrom in the training data"
    return (
        f"{below}; below, the tables follow the networks' extrapolation down to {MIN_DISTANCE:g} angstrom, and "
        "continue as straight lines from there on"
    )


def chosen(data: ModelData, choice: bool | float | None) -> ModelData:
    """The model as ``dpa2.load(compress=...)`` asks for it.

    Warns:
        UserWarning: when tables are made, about distances below those of the training data.
    """
    if choice is None:
        return data
    if choice is False:
        return decompress(data)
    out, _ = compress(data, DEFAULT_MAX_ERROR if choice is True else choice)
    warnings.warn(caution(data.config), UserWarning, stacklevel=3)
    return out
