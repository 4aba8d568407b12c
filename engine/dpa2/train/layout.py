"""Where deepmd-kit keeps the weights of a model in a checkpoint: names, shapes, precisions, and their order.

The order is that of the modules of its PyTorch backend. It counts because the state of an optimizer refers to
parameters by their number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..blocks import BLOCKS
from ..files import schema
from .gradient import PREFIX

#: what the embedding networks of a block are named, and under which second name they are kept as well
_FIRST, _SECOND = ".networks.", "._networks."
#: empty, but for compressed models: the first is no parameter
_EMPTY = ("type_embd_data", "compress_info.0", "compress_data.0")
_BLOCKS = ("descriptor.repinit.", "descriptor.repinit_three_body.")
#: by the beginning of names; a file has a row of statistics for each neighbour
_OF_WEIGHTS = {block.weights: block for block in BLOCKS}

_BLOCK_ORDER = (
    r"mean", r"stddev", r"type_embd_data", r"filter_layers\.networks\.", r"filter_layers\._networks\.",
    r"filter_layers_strip\.networks\.", r"filter_layers_strip\._networks\.", r"compress_info\.0", r"compress_data\.0",
)  # fmt: skip
_LAYER_ORDER = (
    "linear1", "linear2", "g1_self_mlp", "proj_g1g2", "proj_g1g1g2", "attn2g_map", "attn2_mh_apply", "attn2_lm",
    "attn2_ev_apply", "loc_attn", "g1_residual", "g2_residual", "h2_residual",
)  # fmt: skip
_FITTING_ORDER = (
    "bias_atom_e", "fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std", "case_embd",
    "default_fparam_tensor", r"filter_layers\.networks\.", r"filter_layers\._networks\.",
)  # fmt: skip
_ORDER = [
    re.compile(pattern)
    for pattern in (
        "out_bias",
        "out_std",
        *(re.escape(block) + name for block in _BLOCKS for name in _BLOCK_ORDER),
        r"descriptor\.repformers\.mean",
        r"descriptor\.repformers\.stddev",
        r"descriptor\.repformers\.g2_embd\.",
        r"descriptor\.repformers\.layers\.",
        r"descriptor\.type_embedding\.",
        r"descriptor\.g1_shape_tranform\.",
        r"descriptor\.tebd_transform\.",
        *(r"fitting_net\." + name for name in _FITTING_ORDER),
    )
]
_LAYER = re.compile(r"descriptor\.repformers\.layers\.([0-9]+)\.([a-z0-9_]+)\.")


class Entry(NamedTuple):
    """A tensor of a checkpoint.

    Attributes:
        weight: the canonical name of the weight that it holds; None: it is empty.
        shape: of the tensor.
        dtype: "float64" or "float32".
        parameter: whether PyTorch counts it among the parameters of the model.
    """

    weight: str | None
    shape: tuple[int, ...]
    dtype: str
    parameter: bool


def layout(config: Mapping[str, Any]) -> dict[str, Entry]:
    """The tensors of a model with this canonical configuration by name, in deepmd-kit's order.

    Names begin with ``atomic_model.``; those in a file have ``model.<task>.`` in front of that.
    """
    entries: dict[str, Entry] = {}
    for name, weight in schema.expected_weights(config).items():
        if name.endswith("descriptor.econf_tebd"):  # made of the type map
            continue
        shape = weight.shape
        if weight.role.startswith("environment_"):
            block = _OF_WEIGHTS[name[: name.rindex(".") + 1]]
            shape = (shape[0], int(config["descriptor"][block.section][block.sel]), *shape[1:])
        parameter = weight.role == "parameter"
        entries[name] = Entry(name, shape, weight.dtype, parameter)
        if parameter and _FIRST in name:
            entries[name.replace(_FIRST, _SECOND)] = Entry(name, shape, weight.dtype, False)
    for start in _BLOCKS:
        if start + "mean" in entries:
            dtype = entries[start + "mean"].dtype
            entries |= {start + name: Entry(None, (0,), dtype, name != _EMPTY[0]) for name in _EMPTY}
    return {PREFIX + name: entries[name] for name in sorted(entries, key=_rank)}


def tensors(config: Mapping[str, Any], weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The tensors of :func:`layout` for these weights by canonical name. Second names share the arrays."""
    made: dict[str, NDArray[Any]] = {}
    out: dict[str, NDArray[Any]] = {}
    for name, entry in layout(config).items():
        if entry.weight is None:
            out[name] = np.zeros(entry.shape, entry.dtype)
            continue
        if entry.weight not in made:
            value = weights[entry.weight].astype(entry.dtype, copy=False)
            if value.shape != entry.shape:  # statistics: the same row for every neighbour
                value = np.repeat(value[:, None], entry.shape[1], axis=1)
            made[entry.weight] = np.ascontiguousarray(value).reshape(entry.shape)
        out[name] = made[entry.weight]
    return out


def _rank(name: str) -> tuple[int, int, int]:
    """Where a tensor is among the others; those of one layer keep their order."""
    place = next((rank for rank, pattern in enumerate(_ORDER) if pattern.match(name)), len(_ORDER))
    found = _LAYER.match(name)
    if not found:
        return place, 0, 0
    return place, int(found[1]), _LAYER_ORDER.index(found[2])
