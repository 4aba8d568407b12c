"""What every numerical operation of the model costs, and the sizes that it is measured at.

`cases` has the models, `ops` the operations that are tested. Needs the standard library alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One numerical operation: its name in src/cpu and dpa2.reference, the sizes of a benchmark, and what it costs.

    `macs` and `macs_backward` count the multiply-adds that are needed for one centre atom: for real neighbours only, in
    the form with the least work (queries folded with keys, values with head maps, embedding networks of one scalar as
    polynomials of degree 5); exponentials, tanh and square roots count nothing. The backward finds everything that the
    forward computed.
    """

    name: str
    sizes: Mapping[str, int]
    macs: Callable[[Mapping[str, int]], float]
    macs_backward: Callable[[Mapping[str, int]], float]


_WATER = {
    "n": 26, "nr": 89, "nsel": 48, "g1": 128, "g2": 32, "axis": 4, "heads": 4, "hidden": 32,
    "ng": 100, "ng_axis": 12, "n3": 8, "tebd": 8, "in": 128, "width": 240,
}  # fmt: skip


def _equal(axis: int) -> int:
    """Pairs of equal entries in a Gram matrix whose first index runs below `axis`: one of each is needed."""
    return axis * (axis - 1) // 2


def _linear(s: Mapping[str, int]) -> float:
    return float(s["g1"] * (s["g1"] + s["axis"] * (s["g1"] + s["g2"]) - 2 * _equal(s["axis"])))


def _shape(s: Mapping[str, int]) -> float:
    return float(s["g1"] * (s["ng"] * s["ng_axis"] + s["n3"] - _equal(s["ng_axis"])))


def _net(s: Mapping[str, int]) -> float:
    return s["nr"] * (17.0 * 25 + 25 * 50 + 50 * 100)


def _table(s: Mapping[str, int]) -> float:
    return 5.0 * s["nr"] * s["ng"]


def _moments(s: Mapping[str, int]) -> float:
    return 4.0 * s["ng"] * (s["nr"] + s["ng_axis"])


def _pairs(s: Mapping[str, int]) -> float:
    return 0.5 * s["n"] * (s["n"] + 1)


def _heads(s: Mapping[str, int]) -> float:
    return 2.0 * s["n"] * s["heads"] * s["g2"] ** 2


def _fitting(s: Mapping[str, int]) -> float:
    return float(s["width"] * (s["in"] + 2 * s["width"] + 1))


OPERATIONS: tuple[Operation, ...] = (
    Operation("env_mat", _WATER, lambda s: 10.0 * s["nr"], lambda s: 20.0 * s["nr"]),
    Operation("type_embedding", {"ntypes": 2, "tebd": 8}, lambda s: float(s["ntypes"] * s["tebd"]), lambda s: 0.0),
    Operation("embedding_net", _WATER, _net, _net),
    Operation("tabulate", _WATER, _table, _table),
    Operation("repinit", _WATER, lambda s: _table(s) + _moments(s), lambda s: _table(s) + 2 * _moments(s)),
    Operation(
        "three_body",
        _WATER,
        lambda s: _pairs(s) * (5.0 * s["n3"] + 3),
        lambda s: _pairs(s) * (5.0 * s["n3"] + 6),
    ),
    Operation("shape_transform", _WATER, _shape, _shape),
    Operation("linear", _WATER, _linear, _linear),
    Operation("linear2", _WATER, lambda s: float(s["n"] * s["g2"] ** 2), lambda s: float(s["n"] * s["g2"] ** 2)),
    Operation("activation", _WATER, lambda s: 0.0, lambda s: float(s["g1"])),
    Operation("g2_embed", _WATER, lambda s: float(s["n"] * s["g2"]), lambda s: float(s["n"] * s["g2"])),
    Operation(
        "g1g1",
        _WATER,
        lambda s: s["n"] * s["g1"] * (s["g2"] + 2.0),
        lambda s: s["n"] * s["g1"] * (s["g2"] + 4.0),
    ),
    Operation("attention_factors", _WATER, lambda s: 4.0 * _pairs(s), lambda s: 10.0 * _pairs(s)),
    Operation(
        "pair_attention",
        _WATER,
        lambda s: _heads(s) + s["n"] ** 2 * s["heads"] * (2.0 * s["g2"] + 4),
        lambda s: _heads(s) + s["n"] ** 2 * s["heads"] * (4.0 * s["g2"] + 7),
    ),
    Operation("layer_norm", _WATER, lambda s: 3.0 * s["n"] * s["g2"], lambda s: 4.0 * s["n"] * s["g2"]),
    Operation(
        "symmetrization",
        _WATER,
        lambda s: 3.0 * (s["n"] + s["axis"]) * (s["g1"] + s["g2"]),
        lambda s: 6.0 * (s["n"] + s["axis"]) * (s["g1"] + s["g2"]),
    ),
    Operation(
        "conv",
        _WATER,
        lambda s: s["n"] * (s["g1"] * s["g2"] + s["g1"] + s["g2"]),
        lambda s: s["n"] * (s["g1"] * s["g2"] + 2.0 * (s["g1"] + s["g2"])),
    ),
    Operation(
        "local_attention",
        _WATER,
        lambda s: s["n"] * s["heads"] * (2.0 * s["g1"] + 4),
        lambda s: s["n"] * s["heads"] * (4.0 * s["g1"] + 7),
    ),
    Operation("residual_update", _WATER, lambda s: 4.0 * s["g1"], lambda s: 4.0 * s["g1"]),
    # one pass makes the energy and its gradient
    Operation("fitting", _WATER, _fitting, lambda s: 2 * _fitting(s)),
    Operation("assemble", _WATER, lambda s: 0.0, lambda s: 12.0 * s["nr"]),
)
