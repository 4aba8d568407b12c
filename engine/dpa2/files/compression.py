"""The tables of compressed models: their part of the configuration, and those that ``dp compress`` of deepmd-kit wrote.

A table holds the curves of an embedding network as piecewise quintic polynomials (docs/compression.md). The
configuration of a compressed model has the entry ``compression``: ``max_error``, the bound that the grid was chosen by
(null: made by deepmd-kit), and per table, ``repinit`` and ``three_body``, its grid: intervals follow each other from
``lower`` on, in ``segments`` of [number of intervals, length in units of ``step``]. ``descriptor.repinit.table`` and
``descriptor.repinit_three_body.table`` are (curves, intervals, 6, channels): coefficients of the powers of
(s - begin of the interval) / length of the interval.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import schema

TERMS = 6
#: name in the configuration -> prefix of the weights of the block
BLOCKS = {"repinit": "descriptor.repinit", "three_body": "descriptor.repinit_three_body"}

Grid = dict[str, Any]


def intervals(grid: Grid) -> int:
    """The number of intervals of a table."""
    return sum(count for count, _ in grid["segments"])


def cells(grid: Grid) -> int:
    """The number of steps of a table."""
    return sum(count * width for count, width in grid["segments"])


def upper(grid: Grid) -> float:
    """Where a table ends."""
    return float(grid["lower"] + grid["step"] * cells(grid))


def curves(config: Mapping[str, Any], block: str) -> int:
    """How many curves the network of a block has: one per combination of types that it sees."""
    option, ntypes = config["descriptor"]["repinit"], len(config["type_map"])
    if option["tebd_input_mode"] == "strip":
        return 1
    return int(ntypes if block == "repinit" and option["type_one_side"] else ntypes**2)


def channels(config: Mapping[str, Any], block: str) -> int:
    """The width of the output of a block's network."""
    option = config["descriptor"]["repinit"]
    return int(option["neuron" if block == "repinit" else "three_body_neuron"][-1])


def _array(tensor: Any) -> NDArray[Any]:
    return np.asarray(tensor.numpy() if hasattr(tensor, "numpy") else tensor)


def _plain(value: np.floating[Any]) -> float:
    """The decimal number that was meant: 0.01 for the float32 next to it."""
    return float(str(value))


def refuse_in_hybrid(tensors: Mapping[str, Any]) -> None:
    """Raise :class:`UnsupportedModelError` where deepmd-kit has compressed descriptors of a hybrid one."""
    for name, tensor in tensors.items():
        if ".compress_data." in name and 0 not in tuple(tensor.shape):
            raise UnsupportedModelError(
                f"this hybrid descriptor is compressed (it holds {name[:200]!r}), which is not supported: take the "
                "model that it was made from"
            )


def from_deepmd(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[dict[str, Any], NDArray[Any]] | None:
    """The entry ``compression`` and the table of repinit that deepmd-kit stored; None if there is none or it is unused.

    deepmd-kit keeps (intervals, channels * 6) coefficients of the powers of s - begin, and [lower, upper, end, step0,
    step1, ...]: steps of step0 from lower to upper, of step1 from there to the end.

    Raises:
        ModelFileError: the table is damaged.

    Warns:
        UserWarning: the grid is one that deepmd-kit itself does not evaluate as intended (its steps do not fit into the
            range); the networks, which the file holds as well, are used in its place.
    """
    data, info = (tensors.get(f"descriptor.repinit.compress_{name}.0") for name in ("data", "info"))
    if data is None or info is None or 0 in tuple(data.shape) or 0 in tuple(info.shape):
        return None
    ng = channels(config, "repinit")
    shape = tuple(int(n) for n in data.shape)
    if (
        len(shape) != 2
        or shape[1] != TERMS * ng
        or shape[0] > schema.most_intervals()
        or curves(config, "repinit") != 1
    ):
        raise ModelFileError(f"corrupt or inconsistent file: a table of shape {shape} does not fit the options")
    if tuple(info.shape) not in ((5,), (6,)):
        raise ModelFileError("corrupt file: the description of the table has not 6 numbers")
    coefficients, numbers = _array(data), _array(info)
    for array in (coefficients, numbers):
        if array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
            raise ModelFileError("corrupt file: the table holds something else than finite floating-point numbers")
    lower, middle, end, step, second = (_plain(value) for value in numbers[:5])
    if not (lower < middle <= end and step > 0 and second > 0 and max(abs(lower), abs(end)) < 1e6 * step):
        raise ModelFileError("corrupt file: the range or the steps of the table make no sense")
    near, far, ratio = (middle - lower) / step, (end - middle) / second, second / step
    count = round(near), round(far)
    whole = all(abs(value - round(value)) < 1e-6 * max(1.0, value) for value in (near, far, ratio)) and ratio >= 1
    if not whole or sum(count) != shape[0]:
        warnings.warn(
            f"the table of this compressed model has {shape[0]} intervals from {lower:g} over {middle:g} to {end:g}, "
            f"which steps of {step:g} and {second:g} do not divide: its networks are evaluated in its place",
            stacklevel=2,
        )
        return None
    segments = [[count[0], 1], [count[1], round(ratio)]]
    grid: Grid = {"lower": lower, "step": step, "segments": [s for s in segments if s[0]]}
    lengths = np.concatenate([np.full(n, grid["step"] * width) for n, width in grid["segments"]])
    powers = lengths[:, None] ** np.arange(TERMS)
    table = coefficients.astype(np.float64).reshape(shape[0], ng, TERMS).transpose(0, 2, 1) * powers[:, :, None]
    return {"max_error": None, "repinit": grid}, np.ascontiguousarray(table[None])
