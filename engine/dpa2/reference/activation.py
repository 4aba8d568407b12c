"""Activation functions and their slopes (theory 4.2).

    name                                phi(x)                                     phi'(x)
    tanh                                tanh x                                     1 - phi^2
    relu                                max(x, 0)                                  1{x > 0}
    relu6                               min(max(x, 0), 6)                          1{0 < x < 6}
    sigmoid                             s = 1 / (1 + exp(-x))                      s (1 - s)
    softplus                            ln(1 + e^x), x itself above 20             s, 1 above 20
    gelu = gelu_tf                      x/2 (1 + th)                               (1 + th)/2 + x/2 (1 - th^2) th'
                                        with th = tanh(c (x + 0.044715 x^3)),      th' = c (1 + 0.134145 x^2)
                                        c = sqrt(2/pi)
    silu                                x s                                        s (1 + x (1 - s))
    silut:T = custom_silu:T (T = 3)     x s below T;                               that of silu below T;
                                        tanh(k (x - T)) + T s(T) from T on         k (1 - tanh^2) from T on
                                        with k = s(T) + T s(T) (1 - s(T))
    linear = none                       x                                          1

Names are case-insensitive. On complex arguments an activation returns phi(Re x) + i Im x phi'(Re x), which is its value
up to the square of the imaginary part: what a complex-step derivative needs, also for the functions with kinks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import UnsupportedModelError

from .common import Array

Real = NDArray[np.float64]
Function = Callable[[Real], Real]

NAMES = (
    "tanh",
    "relu",
    "relu6",
    "sigmoid",
    "softplus",
    "gelu",
    "gelu_tf",
    "silu",
    "silut",
    "custom_silu",
    "linear",
    "none",
)
GELU_SCALE = math.sqrt(2.0 / math.pi)


@dataclass(frozen=True)
class Activation:
    """An activation ``value`` with its derivative ``slope``, both elementwise on real arrays."""

    value: Function
    slope: Function

    def __call__(self, x: Array) -> Array:
        if not np.iscomplexobj(x):
            return self.value(x)
        real = np.ascontiguousarray(x.real)
        return self.value(real) + 1j * x.imag * self.slope(real)


def activation(name: str) -> Activation:
    """The activation of that name; thresholds are written as in ``"silut:1.0"``."""
    base, _, argument = name.lower().partition(":")
    if base in ("silut", "custom_silu"):
        try:
            return _silut(float(argument) if argument else 3.0)
        except ValueError:
            raise UnsupportedModelError(f"activation function {name!r}: the threshold is not a number") from None
    if argument or base not in _TABLE:
        raise UnsupportedModelError(f"unknown activation function {name!r}; known are {', '.join(NAMES)}")
    return _TABLE[base]


def sigmoid(x: Real) -> Real:
    """1 / (1 + exp(-x)), without overflow and with full relative accuracy on both sides."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0.0, 1.0, e) / (1.0 + e)


def _softplus(x: Real) -> Real:
    return np.where(x > 20.0, x, np.logaddexp(0.0, x))


def _softplus_slope(x: Real) -> Real:
    return np.where(x > 20.0, 1.0, sigmoid(x))


def _gelu(x: Real) -> Real:
    return 0.5 * x * (1.0 + np.tanh(GELU_SCALE * (x + 0.044715 * x**3)))


def _gelu_slope(x: Real) -> Real:
    th = np.tanh(GELU_SCALE * (x + 0.044715 * x**3))
    return 0.5 * (1.0 + th) + 0.5 * x * (1.0 - th**2) * GELU_SCALE * (1.0 + 0.134145 * x**2)


def _silu(x: Real) -> Real:
    return x * sigmoid(x)


def _silu_slope(x: Real) -> Real:
    s = sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


def _silut(threshold: float) -> Activation:
    s = float(sigmoid(np.float64(threshold)))
    k = s + threshold * s * (1.0 - s)

    def value(x: Real) -> Real:
        return np.where(x < threshold, _silu(x), np.tanh(k * (x - threshold)) + threshold * s)

    def slope(x: Real) -> Real:
        return np.where(x < threshold, _silu_slope(x), k * (1.0 - np.tanh(k * (x - threshold)) ** 2))

    return Activation(value, slope)


_IDENTITY = Activation(lambda x: x, np.ones_like)
_GELU = Activation(_gelu, _gelu_slope)
_TABLE = {
    "tanh": Activation(np.tanh, lambda x: 1.0 - np.tanh(x) ** 2),
    "relu": Activation(lambda x: np.maximum(x, 0.0), lambda x: np.where(x > 0.0, 1.0, 0.0)),
    "relu6": Activation(lambda x: np.clip(x, 0.0, 6.0), lambda x: np.where((x > 0.0) & (x < 6.0), 1.0, 0.0)),
    "sigmoid": Activation(sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "softplus": Activation(_softplus, _softplus_slope),
    "gelu": _GELU,
    "gelu_tf": _GELU,
    "silu": Activation(_silu, _silu_slope),
    "linear": _IDENTITY,
    "none": _IDENTITY,
}
