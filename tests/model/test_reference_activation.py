"""Activations of the reference against high-precision arithmetic; their slopes and complex arguments against values."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
from dpa2.errors import UnsupportedModelError
from dpa2.reference.activation import NAMES, activation

PI = Decimal("3.14159265358979323846264338327950288419716939937510")
POINTS = [-700.0, -40.0, -19.5, -6.0, -2.5, -1.0, -0.3, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.2, 0.49, 0.5, 0.51, 0.9]
POINTS += [1.0, 1.1, 2.0, 2.999, 3.0, 3.001, 5.9, 6.0, 6.1, 19.9, 20.0, 20.1, 40.0, 700.0]


def sigmoid(x: Decimal) -> Decimal:
    return 1 / (1 + (-x).exp())


def tanh(x: Decimal) -> Decimal:
    return 2 * sigmoid(2 * x) - 1


def gelu(x: Decimal) -> Decimal:
    return x / 2 * (1 + tanh((2 / PI).sqrt() * (x + Decimal("0.044715") * x**3)))


def silut(threshold: str) -> Callable[[Decimal], Decimal]:
    t = Decimal(threshold)
    slope = sigmoid(t) + t * sigmoid(t) * (1 - sigmoid(t))

    def value(x: Decimal) -> Decimal:
        return x * sigmoid(x) if x < t else tanh(slope * (x - t)) + t * sigmoid(t)

    return value


EXACT: dict[str, Callable[[Decimal], Decimal]] = {
    "tanh": tanh,
    "Tanh": tanh,
    "relu": lambda x: max(x, Decimal(0)),
    "relu6": lambda x: min(max(x, Decimal(0)), Decimal(6)),
    "sigmoid": sigmoid,
    "softplus": lambda x: x if x > 20 else (1 + x.exp()).ln(),
    "gelu": gelu,
    "gelu_tf": gelu,
    "silu": lambda x: x * sigmoid(x),
    "silut": silut("3"),
    "silut:1.0": silut("1"),
    "custom_silu": silut("3"),
    "custom_silu:0.5": silut("0.5"),
    "linear": lambda x: x,
    "none": lambda x: x,
}
KINKS = {"relu": [0.0], "relu6": [0.0, 6.0], "softplus": [20.0]}


@pytest.mark.parametrize("name", EXACT)
def test_value(name: str) -> None:
    with localcontext() as context:
        context.prec, context.Emax = 700, 10**12  # exp(-700) beside 1; exp of the cube of 700
        expected = np.array([float(EXACT[name](Decimal(x))) for x in POINTS])
    got = activation(name).value(np.array(POINTS))
    # gelu of large negative arguments and tanh-like differences cancel: absolute on the scale of the argument
    np.testing.assert_allclose(got, expected, rtol=4e-15, atol=4e-16 * (40.0 if "gelu" in name else 1.0))


@pytest.mark.parametrize("name", EXACT)
def test_slope(name: str) -> None:
    function, h = activation(name), 1e-3
    x = np.linspace(-8.0, 25.0, 1321) + 3e-4
    for kink in KINKS.get(name, []):
        x = x[np.abs(x - kink) > 4 * h]
    if "silu" in name and name != "silu":  # twice differentiable only up to the threshold
        x = x[np.abs(x - float(name.partition(":")[2] or 3.0)) > 4 * h]
    difference = (
        8 * (function.value(x + h) - function.value(x - h)) - function.value(x + 2 * h) + function.value(x - 2 * h)
    )
    np.testing.assert_allclose(function.slope(x), difference / (12 * h), rtol=0, atol=2e-10)


@pytest.mark.parametrize("name", EXACT)
def test_complex_step(name: str) -> None:
    function, x = activation(name), np.linspace(-7.0, 22.0, 59)
    out = function(x + 1e-30j)
    np.testing.assert_array_equal(out.real, function.value(x))
    np.testing.assert_allclose(out.imag / 1e-30, function.slope(x), rtol=1e-15)


def test_slopes_at_kinks() -> None:
    zero = np.zeros(1)
    assert activation("relu").slope(zero)[0] == 0.0
    assert activation("relu6").slope(np.array([0.0, 6.0])).tolist() == [0.0, 0.0]
    assert activation("softplus").slope(np.array([20.5]))[0] == 1.0


def test_softplus_jumps_above_twenty() -> None:
    at, above = activation("softplus").value(np.array([20.0, np.nextafter(20.0, 21.0)]))
    assert 1.9e-9 < at - above < 2.2e-9


def test_silut_joins_smoothly() -> None:
    for name in ("silut", "silut:1.0", "custom_silu:0.5"):
        t = float(name.partition(":")[2] or 3.0)
        below, at = np.array([np.nextafter(t, 0.0)]), np.array([t])
        function = activation(name)
        np.testing.assert_allclose(function.value(below), function.value(at), rtol=1e-15)
        np.testing.assert_allclose(function.slope(below), function.slope(at), rtol=1e-15)


def test_every_name_is_covered() -> None:
    assert {name.lower().partition(":")[0] for name in EXACT} == set(NAMES)


@pytest.mark.parametrize("name", ["", "mish", "tanh:2", "silut:", "silut:x", "relu7"])
def test_unknown_names(name: str) -> None:
    if name == "silut:":  # an empty threshold is the default
        np.testing.assert_array_equal(activation(name).value(np.ones(1)), activation("silut").value(np.ones(1)))
        return
    with pytest.raises(UnsupportedModelError, match="activation"):
        activation(name)
