"""What a model file contains, in one form for all formats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import ModelFileError


@dataclass
class ModelData:
    """A model: its canonical configuration and its weights.

    Attributes:
        config: every option of the model, defaults filled in; can be written as JSON.
        weights: name -> C-contiguous float32 or float64 array; matrices are (in, out).
        checked: whether the weights are known to be those that the configuration asks for, and finite.
        frozen: beginnings of the names of weights that training leaves as they are.
    """

    config: dict[str, Any]
    weights: dict[str, NDArray[Any]]
    checked: bool = False
    frozen: tuple[str, ...] = ()


@dataclass
class RawModel:
    """A model as a reader found it: the definition as deepmd-kit writes it, and tensors under canonical names."""

    params: dict[str, Any]
    tensors: dict[str, Any]
    min_nbor_dist: float | None = None
    head: str | None = None
    nbytes: int | None = None
    """The size of the file, which bounds what its tensors may need; None for a model that is in memory already."""
    infer: bool = field(default=False)
    """Whether options that the definition omits are to be inferred from the tensors (files without versions)."""


def to_array(tensor: Any) -> NDArray[Any]:
    """The NumPy array of a lazy tensor, an h5py data set or an array."""
    if hasattr(tensor, "numpy"):
        return np.asarray(tensor.numpy())
    return np.asarray(tensor)


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The shape of a tensor that may be unread."""
    return tuple(int(n) for n in tensor.shape)


def number_of(tensor: Any, what: str) -> float | None:
    """The value of a tensor with one element, a number, or None."""
    if tensor is None or isinstance(tensor, (int, float)):
        return None if tensor is None else float(tensor)
    if not hasattr(tensor, "shape") or int(np.prod(shape_of(tensor), dtype=np.float64)) != 1:
        raise ModelFileError(f"corrupt file: {what} is not a single number")
    return float(to_array(tensor).reshape(()))


def column_of(tensor: Any, what: str) -> list[float]:
    """The numbers of a tensor with one row per type."""
    shape = shape_of(tensor)
    if len(shape) != 2 or shape[1] != 1 or shape[0] > 10_000:
        raise ModelFileError(f"corrupt file: {what} has shape {shape}, expected one number per type")
    return [float(value) for value in to_array(tensor)[:, 0]]
