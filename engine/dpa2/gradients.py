"""What :meth:`dpa2.Model.vjp` and :meth:`dpa2.Model.hessian_product` take, checked."""

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


def check_direction(value: Any, nframes: int, natoms: int, framed: bool) -> tuple[Float, bool]:
    """Directions as (nframes, directions, natoms, 3), and whether there was an axis for several of them."""
    array = to_floats(value, "direction")
    check_finite(array, "direction")
    one, per_frame = (natoms, 3), (nframes, natoms, 3)
    if array.shape == one or (framed and array.shape == per_frame):
        frames = array if array.ndim == 3 else array[None]
        return np.broadcast_to(frames[:, None], (nframes, 1, *one)), False
    if not framed and array.ndim == 3 and array.shape[1:] == one:
        return array[None], True
    if framed and array.ndim == 4 and array.shape[0] == nframes and array.shape[2:] == one:
        return array, True
    several = f"({nframes}, n, {natoms}, 3)" if framed else f"(n, {natoms}, 3)"
    wanted = f"{one}" + (f", one per frame {per_frame}" if framed else "")
    raise InputError(f"direction must have shape {wanted}, or for n directions at once {several}, got {array.shape}")
