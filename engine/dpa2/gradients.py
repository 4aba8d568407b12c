"""The gradient of a weighted sum of outputs: what :meth:`dpa2.Model.vjp` takes, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from .errors import InputError
from .inputs import Float, check_finite, to_floats

#: arrays by the names of outputs, (nframes, natoms, ...)
Weights: TypeAlias = dict[str, Float]


def check_weights(
    value: Any, widths: Mapping[str, tuple[int, ...]], nframes: int, natoms: int, framed: bool
) -> Weights:
    """The weights of outputs, by name; ``widths``: the outputs that may have any, and the shape of an atom's value."""
    known = " or ".join(map(repr, widths))
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"weights must be a dict of arrays, by the name of the output they belong to: {known}")
    for name in value:
        if name not in widths:
            raise InputError(f"there is no gradient of {name!r}; weights may be those of {known}")
    # in the order of the outputs
    return {
        name: _rows(value[name], name, shape, nframes, natoms, framed)
        for name, shape in widths.items()
        if name in value
    }


def _rows(value: Any, name: str, width: tuple[int, ...], nframes: int, natoms: int, framed: bool) -> Float:
    name = f"the weights of {name!r}"
    array = to_floats(value, name)
    check_finite(array, name)
    one, all_frames = (natoms, *width), (nframes, natoms, *width)
    short = width[:-1] if width == (1,) else width  # a number per atom may come without an axis of its own
    if array.shape in (one, (natoms, *short)):
        return np.broadcast_to(array.reshape(one), all_frames)
    if framed and array.shape in (all_frames, (nframes, natoms, *short)):
        return array.reshape(all_frames)
    wanted = f"{(natoms, *short)}" + (f" or {(nframes, natoms, *short)}" if framed else "")
    raise InputError(f"{name} must have shape {wanted}, got {array.shape}")
