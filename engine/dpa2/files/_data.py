"""What a model file contains, in one form for all formats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import ModelFileError
from dpa2.files import compression, econf, schema
from dpa2.files import config as _config
from dpa2.files.schema import Weight

MAX_REPEATED = 2**20
"""Numbers that a model may have beyond what its file can hold: views of a storage and references can repeat it."""


@dataclass
class ModelData:
    """A model: its canonical configuration and its weights.

    Attributes:
        config: every option of the model, defaults filled in; can be written as JSON.
        weights: name -> C-contiguous float32 or float64 array; matrices are (in, out).
        checked: whether the weights are known to be those that the configuration asks for, and finite.
    """

    config: dict[str, Any]
    weights: dict[str, NDArray[Any]]
    checked: bool = False


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


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in tensor.shape)


def number_of(tensor: Any, what: str) -> float | None:
    """The value of a tensor with one element, a number, or None."""
    if tensor is None or isinstance(tensor, (int, float)):
        return None if tensor is None else float(tensor)
    if not hasattr(tensor, "shape") or int(np.prod(_shape(tensor), dtype=np.float64)) != 1:
        raise ModelFileError(f"corrupt file: {what} is not a single number")
    return float(to_array(tensor).reshape(()))


def assemble(raw: RawModel) -> ModelData:
    """Check a model completely and bring it into canonical form.

    Raises:
        ModelFileError: a weight is missing, superfluous, of the wrong shape or type, or not finite, or the options
            contradict each other.
    """
    _config.check_kind(raw.params)
    tensors = raw.tensors
    params = _inferred(raw.params, tensors) if raw.infer else raw.params
    config = _config.normalise(params, raw.min_nbor_dist, raw.head)
    if "compression" not in config and (found := compression.from_deepmd(tensors, config)) is not None:
        config["compression"], table = found
        tensors = {**tensors, "descriptor.repinit.table": table}
    expected = schema.expected_weights(config)
    _refuse_superfluous(tensors, expected)
    if raw.nbytes is not None:
        _refuse_expansion([_shape(tensors[name]) for name in expected if name in tensors], raw.nbytes)
    weights = {name: _weight(weight, tensors, config) for name, weight in expected.items()}
    schema.check_weights(config, weights)
    return ModelData(config, weights, checked=True)


def _count(shape: Iterable[int]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


def _inferred(params: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Fill options whose defaults changed between versions, from what the weights show."""
    out = dict(params)
    descriptor = dict(out["descriptor"])
    repformer = descriptor.get("repformer")
    switches = ("use_sqrt_nnei", "g1_out_conv", "g1_out_mlp")
    if isinstance(repformer, Mapping) and not any(key in repformer for key in switches):
        new = "descriptor.repformers.layers.0.g1_self_mlp.matrix" in tensors
        descriptor["repformer"] = {**repformer, **dict.fromkeys(switches, new)}
    if "use_tebd_bias" not in descriptor:
        name = "descriptor.type_embedding.embedding.embedding_net.layers.0.bias"
        descriptor["use_tebd_bias"] = name in tensors
    out["descriptor"] = descriptor
    return out


def _refuse_superfluous(tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name in tensors:
        if name in expected or not name.startswith(("descriptor.", "fitting_net.")):
            continue
        parts = name.rsplit(".", 2)
        if parts[-1] in ("matrix", "bias", "idt", "table") or parts[-2].endswith("_residual"):
            raise ModelFileError(
                f"corrupt or inconsistent file: it holds the weight {name[:200]!r}, which these options do not use"
            )


def _refuse_expansion(shapes: Iterable[tuple[int, ...]], nbytes: int) -> None:
    """Before memory is taken: a number takes a byte at least, so that a file has no more numbers than bytes."""
    numbers = sum(map(_count, shapes))
    if numbers > nbytes + MAX_REPEATED:
        raise ModelFileError(
            f"hostile file: its weights are {numbers} numbers, and it has only {nbytes} bytes: they repeat each other"
        )


def _weight(weight: Weight, tensors: Mapping[str, Any], config: Mapping[str, Any]) -> NDArray[Any]:
    """The array of a weight, in the shape that the core asks for; its values are for the core to check."""
    name, shape = weight.name, weight.shape
    tensor = tensors.get(name)
    if tensor is None and weight.role == "constant":  # what the options say is not in every format
        if name.endswith(".econf_tebd"):
            return econf.table(config["type_map"]).astype(weight.dtype)
        if name.endswith(".default_fparam_tensor"):
            tensor = np.array(config["fitting_net"]["default_fparam"], weight.dtype)
    if tensor is None:
        raise ModelFileError(f"corrupt or inconsistent file: the weight {name!r} is missing")
    environment = weight.role.startswith("environment_")
    found = _shape(tensor)
    if environment and len(found) == 3 and found[1] >= 1:
        # one row per neighbour slot in deepmd-kit's files
        ok = (found[0], found[2]) == shape and found[1] <= 100_000
    else:
        # old files keep biases as rows and the per-type bias as a vector
        row = len(shape) == 1 and found == (1, *shape)
        ok = found == shape or row or (name == "fitting_net.bias_atom_e" and found == shape[:1])
    if not ok:
        raise ModelFileError(f"corrupt or inconsistent file: {name!r} has shape {found}, its options ask for {shape}")
    array = to_array(tensor)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype not in (np.float32, np.float64):
        raise ModelFileError(f"corrupt file: {name!r} holds {array.dtype} values, not floating-point numbers")
    if environment and array.ndim == 3:
        first = array[:, :1]
        if not ((array == first) | (np.isnan(array) & np.isnan(first))).all():
            raise ModelFileError(f"{name!r} differs between neighbour slots, which no statistics of deepmd-kit do")
        array = array[:, 0]
    return np.require(array.reshape(shape), requirements=("C_CONTIGUOUS", "ALIGNED"))
