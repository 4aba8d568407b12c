"""Arguments of deepmd-kit's methods, brought from any shape of the right size into those of dpa2."""

from __future__ import annotations

import warnings
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpa2.errors import InputError
from dpa2.inputs import Float, Int, to_array, to_floats

Array: TypeAlias = NDArray[Any]
Dtype: TypeAlias = Literal["native", "fp32", "fp64"]

#: inputs that change what a model says, and that a model may not have: they must not be passed over in silence
_PHYSICAL = ("spin", "charge_spin", "efield")


def warn_of_ignored(of: type, kwargs: dict[str, Any]) -> None:
    """Called first in a method that has such arguments, so that the warning is where that is called."""
    for name, value in kwargs.items():
        if value is not None:
            if name in _PHYSICAL:
                raise InputError(f"{name} was given, but models of this kind know no {name}: leave it out")
            warnings.warn(f"{of.__name__} does not know {name!r} and ignores it", UserWarning, stacklevel=3)


def check_types(value: ArrayLike, mixed_type: bool) -> Int:
    """(natoms,) or (nframes, natoms) integers."""
    types = to_array(value, "atom_types")
    if types.size == 0:
        types = types.astype(np.int32)
    if types.dtype.kind not in "iu":
        raise InputError(f"atom_types must be indices into the type map, but has elements of type {types.dtype}")
    if types.ndim not in (1, 2) or (mixed_type and types.ndim != 2):
        wanted = "(nframes, natoms)" if mixed_type else "(natoms,)"
        raise InputError(f"atom_types must have shape {wanted}, got {types.shape}")
    return types[0] if len(types) == 1 and types.ndim == 2 and not mixed_type else types


def sized(value: ArrayLike, name: str, shapes: dict[tuple[int, ...], str]) -> Float:
    """``value`` in the first of these shapes that has its number of elements."""
    array = to_floats(value, name)
    for shape in shapes:
        if array.size == np.prod(shape, dtype=int):
            return array.reshape(shape)
    wanted = " or ".join(f"{' x '.join(map(str, shape))} ({words})" for shape, words in shapes.items())
    raise InputError(f"{name} must have {wanted} numbers, but has {array.size}")


def frame_parameters(value: ArrayLike | None, nframes: int, dim: int) -> Float | None:
    if value is None or (dim == 0 and np.size(value) == 0):
        return None
    return sized(value, "fparam", {(nframes, dim): "nframes x dim_fparam", (dim,): "dim_fparam"})


def atomic_parameters(value: ArrayLike | None, nframes: int, natoms: int, dim: int) -> Float | None:
    if value is None or (dim == 0 and np.size(value) == 0):
        return None
    shapes = {
        (nframes, natoms, dim): "nframes x natoms x dim_aparam",
        (natoms, dim): "natoms x dim_aparam",
        (dim,): "dim_aparam",
    }
    return sized(value, "aparam", shapes)


def dtype_of(precision: str) -> type[np.float64] | type[np.float32]:
    return np.float64 if precision == "float64" else np.float32


def cast(array: Array, dtype: Any) -> Array:
    if dtype == "native":
        return array
    if dtype not in ("fp32", "fp64"):
        raise InputError(f'dtype must be "native", "fp32" or "fp64", got {dtype!r}')
    return array.astype(np.float64 if dtype == "fp64" else np.float32, copy=False)
