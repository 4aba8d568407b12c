"""Useful floating-point operations of a DPA-2 evaluation, from a configuration and measured numbers of neighbours.

    python bench/flops.py [-m MODEL] [STRUCTURE]

What is counted is the least work by exact rearrangements of the model's formulas, whatever a program really executes:
only real neighbours; queries folded with keys and values with head maps; the types' part of first layers and of the
fitting network as tables; embedding networks of one scalar, and g2 where it is one, as polynomials of degree 5 (five
multiply-adds per value and per derivative); the equal entries of Gram matrices once. Environment matrices, switches,
exponentials, tanh and LayerNorm count nothing (together below one per cent). The backward is that of forces: gradients
of inputs, none of weights, with everything that the forward computed at hand.

One multiply-add is two FLOPs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEGREE = 5  # of the polynomials that stand for functions of one scalar


@dataclass(frozen=True)
class Neighbors:
    """Means over the atoms of a structure; the squares count pairs of neighbours, both orders and equal ones."""

    repinit: float
    three_body: float
    three_body_squared: float
    repformer: float
    repformer_squared: float


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of a part of the model, per atom."""

    forward: float
    backward: float

    def __add__(self, other: Macs) -> Macs:
        return Macs(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, factor: float) -> Macs:
        return Macs(self.forward * factor, self.backward * factor)

    @property
    def flops(self) -> float:
        """Floating-point operations of forward and backward together."""
        return 2.0 * (self.forward + self.backward)


def unordered(n: float, squared: float) -> float:
    """Pairs of n neighbours without order, equal ones included."""
    return 0.5 * (squared + n)


def repinit_net(n: float, channels: int, strip: bool) -> Macs:
    """The embedding of n edges as polynomials of one scalar; in strip mode with the factor of the types."""
    per_edge = channels * (DEGREE + (2 if strip else 0))
    return Macs(n * per_edge, n * per_edge)


def repinit_gram(n: float, channels: int, axis: int) -> Macs:
    """Moments over n edges and their Gram matrix."""
    forward = 4.0 * channels * (n + axis)
    return Macs(forward, 2 * forward)


def three_body(n: float, squared: float, channels: int) -> Macs:
    """The sum over pairs of neighbours; the two orders of a pair are one polynomial."""
    pairs = unordered(n, squared)
    return Macs(pairs * (DEGREE * channels + 3), pairs * (DEGREE * channels + 6))


def dense(rows: float, columns: float) -> Macs:
    """A product of one row with a matrix."""
    return Macs(float(rows * columns), float(rows * columns))


def equal_entries(axis: int) -> int:
    """Pairs of equal entries of a Gram matrix whose first index runs below ``axis``."""
    return axis * (axis - 1) // 2


def conv(n: float, n1: int, n2: int) -> Macs:
    """Projection of g2, product with the neighbours' g1, sum (one layer)."""
    return Macs(n * (n1 * n2 + n1 + n2), n * (n1 * n2 + 2 * (n1 + n2)))


def symmetrization(n: float, channels: int, axis: int) -> Macs:
    """Vector moments of n edges and their Gram matrix (grrg or drrd of one layer)."""
    forward = 3.0 * channels * (n + axis)
    return Macs(forward, 2 * forward)


def attention_linear(n: float, n2: int, heads: int, values: bool) -> Macs:
    """The folded query-key maps, and with ``values`` the folded value-head maps (one layer)."""
    return dense(n, n2 * n2 * heads * (2 if values else 1))


def attention_pairs(squared: float, n2: int, heads: int, values: bool) -> Macs:
    """Scores, softmax and, with ``values``, weighted sums over pairs (one layer)."""
    products = 2 if values else 1
    return Macs(squared * heads * (products * n2 + 4), squared * heads * (2 * products * n2 + 7))


def attention_factors(n: float, squared: float) -> Macs:
    """The two factors of a pair that all heads share."""
    return Macs(4 * unordered(n, squared), 10 * unordered(n, squared))


def local_attention(n: float, n1: int, heads: int) -> Macs:
    """Scores and weighted sums over the neighbours' g1 (one layer, without the two maps of the atom itself)."""
    return Macs(n * heads * (2 * n1 + 4), n * heads * (4 * n1 + 7))


def g1g1(n: float, n1: int, n2: int) -> Macs:
    """The pair update from the product of both ends' g1 (one layer)."""
    return Macs(n * n1 * (n2 + 2), n * n1 * (n2 + 4))


def fitting(n_in: int, widths: list[int]) -> Macs:
    """The fitting network of one atom."""
    sizes = [n_in, *widths, 1]
    total = Macs(0, 0)
    for rows, columns in pairwise(sizes):
        total = total + dense(rows, columns)
    return total


def count(config: Mapping[str, Any], neighbors: Neighbors) -> dict[str, Macs]:
    """Multiply-adds per atom by part of the model, for a complete configuration (``dpa2.Model.config``)."""
    descriptor, widths = config["descriptor"], config["fitting_net"]["neuron"]
    a, b = descriptor["repinit"], descriptor["repformer"]
    ng, axis1, n1, n2, axis = a["neuron"][-1], a["axis_neuron"], b["g1_dim"], b["g2_dim"], b["axis_neuron"]
    layers, inner = b["nlayers"], b["nlayers"] - 1
    n, pairs = neighbors.repformer, neighbors.repformer_squared
    strip = a["tebd_input_mode"] == "strip"
    parts: dict[str, Macs] = {
        "repinit net": repinit_net(neighbors.repinit, ng, strip),
        "repinit moment+gram": repinit_gram(neighbors.repinit, ng, axis1),
    }
    n_shape = ng * axis1 - equal_entries(axis1)
    if a["use_three_body"]:
        n3 = a["three_body_neuron"][-1]
        parts["three-body"] = three_body(neighbors.three_body, neighbors.three_body_squared, n3)
        n_shape += n3
    parts["shape transform"] = dense(n_shape, n1)

    # g2 of all layers is a function of one scalar per edge unless something mixes edges or brings g1 in
    scalar = inner == 0 or not (b["update_g2_has_attn"] or b["update_g2_has_g1g1"])
    parts["g2 embed+linear2"] = Macs(0, 0) if scalar else dense(n, n2) + dense(n, n2 * n2) * inner

    out_conv = b["g1_out_conv"]
    n_cat = 0 if b["g1_out_mlp"] else n1
    for on, channels in ((b["update_g1_has_grrg"], n2), (b["update_g1_has_drrd"], n1)):
        n_cat += axis * channels - equal_entries(axis) if on else 0
    n_cat += n2 if b["update_g1_has_conv"] and not out_conv else 0
    node = dense(n_cat, n1) + (dense(n1, n1) if b["g1_out_mlp"] else Macs(0, 0))
    parts["self MLP+linear1"] = node * layers

    if b["update_g1_has_conv"]:
        if not out_conv:  # g1 is projected once per atom
            parts["conv"] = (dense(n1, n2) + Macs(2.0 * n * n2, 4.0 * n * n2)) * layers
        elif scalar:
            parts["conv"] = Macs(n * (DEGREE * n1 + n1 + n2), n * (DEGREE * n1 + 2 * (n1 + n2))) * layers
        else:
            parts["conv"] = conv(n, n1, n2) * layers

    gram = Macs(0, 0)
    if b["update_g1_has_grrg"]:
        table = n * n2 * DEGREE if scalar else 0.0
        gram = gram + symmetrization(n, n2, axis) + Macs(table, table)
    if b["update_g1_has_drrd"]:
        gram = gram + symmetrization(n, n1, axis)
    parts["grrg+drrd"] = gram * layers

    if b["update_g2_has_attn"] or b["update_h2"]:
        heads, values = b["attn2_nhead"], b["update_g2_has_attn"]
        factors = attention_factors(n, pairs) * (inner if b["update_h2"] else min(inner, 1))
        moved = Macs(pairs * heads * 3, pairs * heads * 9) if b["update_h2"] else Macs(0, 0)
        parts["attention linear"] = attention_linear(n, n2, heads, values) * inner
        parts["attention pairs"] = (attention_pairs(pairs, n2, heads, values) + moved) * inner + factors
    if b["update_g2_has_g1g1"]:
        parts["g1g1"] = g1g1(n, n1, n2) * inner
    if b["update_g1_has_attn"]:
        heads = b["attn1_nhead"]
        parts["local attention"] = (dense(n1, 2 * n1 * heads) + local_attention(n, n1, heads)) * layers
    parts["fitting"] = fitting(n1, widths)
    return parts


def total(parts: Mapping[str, Macs]) -> Macs:
    """The sum over all parts."""
    return sum(parts.values(), Macs(0, 0))


def measure(
    config: Mapping[str, Any], coords: NDArray[Any], types: NDArray[Any], box: NDArray[Any] | None
) -> Neighbors:
    """The neighbours of a structure: coords (n, 3) and box (3, 3) in angstrom, types (n,) as indices."""
    import json

    from dpa2 import _native

    periodic = (box is not None,) * 3
    x = np.ascontiguousarray(coords, dtype=np.float64)
    found = _native.neighbors(x, np.ascontiguousarray(types, dtype=np.int32), box, periodic, json.dumps(config))
    natoms = max(1, len(types))
    three, rep = (np.asarray(found[key], dtype=np.float64) for key in ("n_three", "n_repformer"))
    return Neighbors(
        float(found["start"][-1]) / natoms,
        float(three.sum()) / natoms,
        float((three**2).sum()) / natoms,
        float(rep.sum()) / natoms,
        float((rep**2).sum()) / natoms,
    )


def main() -> None:
    """Print the table of a model and a structure."""
    import dpa2
    from common import add_structure_options, read_structure
    from dpa2.embedded import default_model

    parser = argparse.ArgumentParser(description="Useful multiply-adds per atom, by part of the model.")
    parser.add_argument("-m", "--model", help="model file (default: the embedded model of water)")
    add_structure_options(parser)
    args = parser.parse_args()
    model = dpa2.load(args.model) if args.model else default_model()
    structure = read_structure(args.structure, args.replicate, model.type_map)
    neighbors = measure(model.config, structure.coords, structure.types, structure.box)
    print(f"neighbours: repinit {neighbors.repinit:.1f}, three-body {neighbors.three_body:.1f}, ", end="")
    print(f"repformer {neighbors.repformer:.1f} (mean square {neighbors.repformer_squared:.0f})")
    parts = count(model.config, neighbors)
    print(f"{'kMAC per atom':<20} {'forward':>9} {'backward':>9}")
    for name, macs in [*parts.items(), ("total", total(parts))]:
        print(f"{name:<20} {macs.forward / 1e3:>9.1f} {macs.backward / 1e3:>9.1f}")
    print(f"{total(parts).flops / 1e6:.2f} MFLOP per atom, forward and backward")


if __name__ == "__main__":
    main()
