"""Initial weights of a model, drawn as deepmd-kit draws them: from the seeds of an input, or one after another.

Where a part has a seed, each of its layers has a generator of its own. Its seed is the path to the layer in the tree of
deepmd-kit's modules. Where a part has none, its layers take their numbers from a global generator, in the order of
construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import econf, schema
from ..files.schema import Weight
from .inputs import canonical_model
from .random import DType, Generator, Seed, child

#: what a weight that is not drawn starts with; the others start at zero
_ONES = ("stddev", "out_std", "fparam_inv_std", "aparam_inv_std")
#: what a layer of the repformer is made of in the order of construction: a dense layer and its path in the tree, and
#: the residual vector that follows it, with its place; one vector follows no dense layer
_LAYER_PARTS: list[tuple[str | None, tuple[int, ...], tuple[str, int] | None]] = [
    (None, (), ("g1_residual", 0)),
    ("linear1", (1,), None),
    ("linear2", (2,), ("g2_residual", 3)),
    ("g1_self_mlp", (15,), ("g1_residual", 16)),
    ("proj_g1g2", (4,), ("g1_residual", 17)),
    ("proj_g1g1g2", (5,), ("g2_residual", 6)),
    ("attn2g_map.mapqk", (7,), None),
    ("attn2_mh_apply.mapv", (8, 0), None),
    ("attn2_mh_apply.head_map", (8, 1), ("g2_residual", 10)),
    ("attn2_ev_apply.head_map", (11,), ("h2_residual", 12)),
    ("loc_attn.mapq", (13, 0), None),
    ("loc_attn.mapkv", (13, 1), None),
    ("loc_attn.head_map", (13, 2), ("g1_residual", 14)),
]


def initial_weights(
    model: Mapping[str, Any], generator: Generator, case_index: int | None = None
) -> dict[str, NDArray[Any]]:
    """The weights that a model starts its training with, before statistics.

    Args:
        model: a model section as :func:`dpa2.train.inputs.normalise` returns it.
        generator: the global one. It moves on as deepmd-kit's does, also where all parts have seeds.
        case_index: the entry of the case embedding that is one: the place of the task in the sorted names of tasks.

    Returns:
        Every weight of :func:`dpa2.files.schema.expected_weights` in its shape, in the type in which deepmd-kit keeps
        it. Environment means and biases are zero, deviations one.

    The same seed gives the numbers of deepmd-kit 3.2.0 to rounding in double precision. In single precision those of
    long fills differ in the last digits.
    """
    config = canonical_model(model)
    expected = schema.expected_weights(config)
    drawn = _Drawing(expected, generator, model["descriptor"]["repformer"])
    drawn.descriptor(model["descriptor"].get("seed"))
    drawn.net("fitting_net.filter_layers.networks.0", child(model["fitting_net"].get("seed"), 0))
    out: dict[str, NDArray[Any]] = {}
    for name, weight in expected.items():
        if name in drawn.weights:
            out[name] = drawn.weights[name]
        elif weight.role == "parameter" and ".attn2_lm." not in name:
            raise AssertionError(f"the weight {name} was not drawn")
        else:
            out[name] = _undrawn(weight, config, case_index)
    return out


def _undrawn(weight: Weight, config: Mapping[str, Any], case_index: int | None) -> NDArray[Any]:
    """A weight that takes no random numbers."""
    name = weight.name
    if name == "descriptor.econf_tebd":
        return econf.table(config["type_map"]).astype(weight.dtype)
    if name == "fitting_net.default_fparam_tensor":
        return np.array(config["fitting_net"]["default_fparam"], dtype=weight.dtype)
    value = np.full(weight.shape, 1.0 if name.endswith((*_ONES, ".attn2_lm.matrix")) else 0.0, dtype=weight.dtype)
    if name == "fitting_net.case_embd" and case_index is not None:
        value[case_index] = 1.0
    return value


class _Drawing:
    """Weights as they are drawn, by name."""

    def __init__(self, expected: Mapping[str, Weight], generator: Generator, repformer: Mapping[str, Any]) -> None:
        self.weights: dict[str, NDArray[Any]] = {}
        self._expected = expected
        self._global = generator
        self._residual_of = float(repformer["update_residual"])
        self._constant = repformer["update_residual_init"] == "const"
        self._conv_has_residual = repformer["g1_out_conv"]

    def descriptor(self, seed: Seed | None) -> None:
        """All of a descriptor, in the order of construction."""
        for block, index in (("repinit", 0), ("repinit_three_body", 5)):
            for net, place in (("filter_layers", 1), ("filter_layers_strip", 2)):
                self.net(f"descriptor.{block}.{net}.networks.0", child(child(seed, index), place))
        repformers = child(seed, 1)
        self.layer("descriptor.repformers.g2_embd", child(repformers, 0))
        number = 0
        while f"descriptor.repformers.layers.{number}.linear1.matrix" in self._expected:
            self._repformer_layer(number, child(child(repformers, 1), number))
            number += 1
        self.net("descriptor.type_embedding.embedding.embedding_net", child(seed, 2))
        self.layer("descriptor.g1_shape_tranform", child(seed, 3), glorot=True)
        self.layer("descriptor.tebd_transform", child(seed, 4))

    def _repformer_layer(self, number: int, seed: Seed | None) -> None:
        where = f"descriptor.repformers.layers.{number}"
        counts = {"g1_residual": 0, "g2_residual": 0, "h2_residual": 0}
        for name, places, residual in _LAYER_PARTS:
            if name is not None:
                if f"{where}.{name}.matrix" not in self._expected:
                    continue
                path = seed
                for place in places:
                    path = child(path, place)
                self.layer(f"{where}.{name}", path)
            if name == "proj_g1g2" and not self._conv_has_residual:
                continue
            if residual is not None and self._residual(
                f"{where}.{residual[0]}.{counts[residual[0]]}", child(seed, residual[1])
            ):
                counts[residual[0]] += 1

    def _residual(self, name: str, seed: Seed | None) -> bool:
        """Draw a residual vector, if there is one."""
        weight = self._expected.get(name)
        if weight is None:
            return False
        if self._constant:
            self.weights[name] = np.full(weight.shape, self._residual_of, dtype=weight.dtype)
        else:
            generator = self._generator(seed)
            self.weights[name] = generator.normal(weight.shape, 0.0, self._residual_of, _dtype(weight))
        return True

    def net(self, where: str, seed: Seed | None) -> None:
        """Draw the layers of a network, if there is one.

        The hidden ones are built a second time from what they hold. deepmd-kit draws numbers for that from the global
        generator, and throws them away. Of a network in front of others all layers are hidden.
        """
        number = 0
        while f"{where}.layers.{number}.matrix" in self._expected:
            number += 1
        hidden = number - 1 if where.startswith("fitting_net.") else number
        for k in range(hidden):
            self.layer(f"{where}.layers.{k}", child(seed, k))
        for k in range(hidden):
            self._draw(f"{where}.layers.{k}", self._global)
        if hidden < number:
            self.layer(f"{where}.layers.{hidden}", child(seed, hidden))

    def layer(self, where: str, seed: Seed | None, glorot: bool = False) -> None:
        """Draw a layer, if there is one."""
        if f"{where}.matrix" in self._expected:
            self.weights.update(self._draw(where, self._generator(seed), glorot))

    def _draw(self, where: str, generator: Generator, glorot: bool = False) -> dict[str, NDArray[Any]]:
        matrix = self._expected[f"{where}.matrix"]
        rows, columns = matrix.shape
        if glorot:
            bound = math.sqrt(3.0) * math.sqrt(2.0 / (rows + columns))
            drawn = {matrix.name: generator.uniform(matrix.shape, -bound, bound, _dtype(matrix))}
        else:
            drawn = {matrix.name: generator.normal(matrix.shape, 0.0, 1.0 / math.sqrt(rows + columns), _dtype(matrix))}
        for leaf, mean, std in (("bias", 0.0, 1.0), ("idt", 0.1, 0.001)):
            if (weight := self._expected.get(f"{where}.{leaf}")) is not None:
                drawn[weight.name] = generator.normal(weight.shape, mean, std, _dtype(weight))
        return drawn

    def _generator(self, seed: Seed | None) -> Generator:
        return self._global if seed is None else Generator(seed)


def _dtype(weight: Weight) -> DType:
    return "float32" if weight.dtype == "float32" else "float64"
