"""Dense layers with skip connections: embedding nets, and the hidden layers of the fitting net (theory 4.1).

    z = x W + b ;   a = phi(z) ;   a <- a * idt with resnet_dt, if the layer has a skip ;
    y = a + x if out == in ;   a + [x, x] if out == 2 in ;   a otherwise

The skip exists in EVERY hidden layer whose widths match, the first one included.
"""

from __future__ import annotations

import numpy as np

from .activation import Activation
from .common import Array, Weights
from .linear import linear


def skip(a: Array, x: Array) -> Array:
    """Adds the skip connection of a layer with input x (..., in) to its output a (..., out), where the widths match."""
    if a.shape[-1] == x.shape[-1]:
        a = a + x
    elif a.shape[-1] == 2 * x.shape[-1]:
        a = a + np.concatenate([x, x], axis=-1)
    return a


def hidden_layer(x: Array, weights: Weights, name: str, phi: Activation, resnet_dt: bool) -> Array:
    """(..., out) one hidden layer on x (..., in); ``name`` is the prefix of matrix, bias and idt."""
    a = phi(linear(x, weights, name))
    if resnet_dt and a.shape[-1] in (x.shape[-1], 2 * x.shape[-1]):
        a = a * weights[f"{name}.idt"]
    return skip(a, x)


def embedding_net(x: Array, weights: Weights, name: str, nlayers: int, phi: Activation, resnet_dt: bool) -> Array:
    """(..., neuron[-1]) the net of ``nlayers`` hidden layers called ``name``.layers.0, 1, ... on x (..., in)."""
    for layer in range(nlayers):
        x = hidden_layer(x, weights, f"{name}.layers.{layer}", phi, resnet_dt)
    return x
