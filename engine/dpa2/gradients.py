"""The gradient of a weighted sum of outputs: what :meth:`dpa2.Model.vjp` takes, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from .errors import InputError
from .inputs import Float, check_finite, to_floats

#: one array per output in the order of NAMES, (nframes, natoms, ...), None where the output has no weights
Weights: TypeAlias = tuple[Float | None, Float | None]

NAMES = ("atom_energy", "descriptor")


def check_weights(value: Any, descriptor_dim: int, nframes: int, natoms: int, framed: bool) -> Weights:
    """The weights of atomic energies (nframes, natoms) and of descriptors (nframes, natoms, descriptor_dim)."""
    known = " or ".join(map(repr, NAMES))
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"weights must be a dict of arrays, by the name of the output they belong to: {known}")
    for name in value:
        if name not in NAMES:
            raise InputError(f"there is no gradient of {name!r}; weights may be those of {known}")
    widths = {"atom_energy": (), "descriptor": (descriptor_dim,)}
    energies, descriptors = (
        _rows(value[name], name, widths[name], nframes, natoms, framed) if name in value else None for name in NAMES
    )
    return energies, descriptors


def _rows(value: Any, name: str, width: tuple[int, ...], nframes: int, natoms: int, framed: bool) -> Float:
    name = f"the weights of {name!r}"
    array = to_floats(value, name)
    check_finite(array, name)
    one, all_frames = (natoms, *width), (nframes, natoms, *width)
    column = (1,) if not width else ()  # a number per atom may also come in deepmd-kit's shape
    if array.shape in (one, (*one, *column)):
        return np.broadcast_to(array.reshape(one), all_frames)
    if framed and array.shape in (all_frames, (*all_frames, *column)):
        return array.reshape(all_frames)
    wanted = f"{one}" + (f" or {all_frames}" if framed else "")
    raise InputError(f"{name} must have shape {wanted}, got {array.shape}")
