"""From what a reader found to a model: its configuration in canonical form, its weights checked completely."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import ModelFileError
from dpa2.files import combination, econf, kinds, network, schema
from dpa2.files._data import ModelData, RawModel, shape_of, to_array
from dpa2.files.schema import Weight

MAX_REPEATED = 2**20
"""Numbers that a model may have beyond what its file can hold: views of a storage and references can repeat it."""

_PART = re.compile(r"models\.([0-9]+)\.")


def assemble(raw: RawModel) -> ModelData:
    """Check a model completely and bring it into canonical form.

    Raises:
        ModelFileError: a weight is missing, superfluous, of the wrong shape or type, or not finite, or the options
            contradict each other.
    """
    kinds.check_kind(raw.params)
    complete = combination.normalise if kinds.is_combination(raw.params) else network.completed
    config, made = complete(raw.params, raw.tensors, raw.infer, raw.min_nbor_dist, raw.head)
    tensors = {**raw.tensors, **made}
    expected = schema.expected_weights(config)
    _refuse_superfluous(tensors, expected)
    if raw.nbytes is not None:
        _refuse_expansion([shape_of(tensors[name]) for name in expected if name in tensors], raw.nbytes)
    weights = {name: _weight(weight, tensors, config) for name, weight in expected.items()}
    schema.check_weights(config, weights)
    return ModelData(config, weights, checked=True, frozen=frozen(raw.params))


def frozen(params: Mapping[str, Any]) -> tuple[str, ...]:
    """What the definition of a network does not train: a fitting net with a flag per layer, unless all are set."""
    out = []
    for block in ("descriptor", "fitting_net"):
        options = params.get(block)
        flag = options.get("trainable") if isinstance(options, Mapping) else None
        if flag is False or (isinstance(flag, (list, tuple)) and not all(flag)):
            out.append(f"{block}.")
    return tuple(out)


def _count(shape: Iterable[int]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


def _refuse_superfluous(tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name in tensors:
        if name in expected or not _PART.sub("", name, count=1).startswith(("descriptor.", "fitting_net.")):
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
        part = _PART.match(name)
        owner = config["models"][int(part[1])] if part else config
        if name.endswith(".econf_tebd"):
            return econf.table(owner["type_map"]).astype(weight.dtype)
        if name.endswith("fitting_net.default_fparam_tensor"):
            tensor = np.array(owner["fitting_net"]["default_fparam"], weight.dtype)
    if tensor is None:
        raise ModelFileError(f"corrupt or inconsistent file: the weight {name!r} is missing")
    environment = weight.role.startswith("environment_")
    found = shape_of(tensor)
    if environment and len(found) == 3 and found[1] >= 1:
        # one row per neighbour slot in deepmd-kit's files
        ok = (found[0], found[2]) == shape and found[1] <= 100_000
    else:
        # old files keep biases as rows and the per-type bias as a vector; trees keep tables of pairs flat
        row = len(shape) == 1 and found == (1, *shape)
        column = name.endswith("fitting_net.bias_atom_e") and shape[1:] == (1,) and found == shape[:1]
        flat = name.endswith(".tab_data") and found == (_count(shape),)
        ok = found == shape or row or column or flat
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
