"""Every operation on every backend: forward against the reference, gradients against the reference's exact derivative.

The reference is differentiated by complex steps: a directional derivative to rounding, with no formula of its own for a
backward. The native tests have the backward passes against plain loops in C++, in more sizes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ops import attention, dense, messages
from ops.backends import Cpu, Library, cuda
from ops.declared import Operation

OPERATIONS = [*dense.OPERATIONS, *messages.OPERATIONS, *attention.OPERATIONS]
PRECISIONS = ("float64", "float32")
STEP = 1e-30
#: those of `operations` that take a prepared model, or are part of another or the same again
MISSING = {
    *("type_embedding", "embedding_net", "tabulate", "repinit", "three_body", "assemble"),
    *("shape_transform", "linear2", "attention_factors"),  # `linear` twice more; a part of pair_attention
}


@pytest.fixture(scope="module")
def library(native_build: Path) -> Library:
    return Library(native_build)


def values(op: Operation, found: Any) -> list[np.ndarray]:
    """Outputs in the shapes of the reference."""
    want = op.reference(**op.inputs)
    assert len(found) == len(want)
    return [np.asarray(value).reshape(np.shape(like)) for value, like in zip(found, want, strict=True)]


def seeds_of(op: Operation) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(77)
    return tuple(rng.normal(size=np.shape(value)) for value in op.reference(**op.inputs))


def assert_forward(op: Operation, found: Any, precision: str) -> None:
    for got, want in zip(values(op, found), op.reference(**op.inputs), strict=True):
        error = np.abs(got - want).max() / max(1.0, np.abs(want).max())
        assert error <= getattr(op.forward, precision), f"{op}: {error:.1e}"


def assert_gradient(op: Operation, found: Any, precision: str) -> None:
    """The dot product test, for one input at a time: a large one must not hide a small one."""
    assert len(found) == len(op.inputs)
    seeds, rng = seeds_of(op), np.random.default_rng(78)
    for (name, value), flat in zip(op.inputs.items(), found, strict=True):
        gradient = np.asarray(flat).reshape(value.shape)
        assert np.isfinite(gradient).all()
        for _ in range(3):
            direction = rng.normal(size=value.shape)
            moved = op.reference(**op.inputs | {name: value + 1j * STEP * direction})
            terms = [seed * out.imag / STEP for seed, out in zip(seeds, moved, strict=True) if np.iscomplexobj(out)]
            products = [np.concatenate([term.ravel() for term in terms]), (gradient * direction).ravel()]
            scale = max(1e-3, *(np.abs(product).sum() for product in products))
            error = abs(products[0].sum() - products[1].sum()) / scale
            assert error <= getattr(op.gradient, precision), f"{op}, {name}: {error:.1e}"


@pytest.mark.parametrize("op", OPERATIONS, ids=str)
def test_reference(op: Operation) -> None:
    """Its complex steps against central differences of fourth order: that it takes complex numbers as it should."""
    seeds, rng = seeds_of(op), np.random.default_rng(79)
    for name, value in op.inputs.items():
        direction = rng.normal(size=value.shape)

        def along(step: Any, name: str = name, value: Any = value, direction: Any = direction) -> Any:
            moved = op.reference(**op.inputs | {name: value + step * direction})
            return sum((seed * out).sum() for seed, out in zip(seeds, moved, strict=True))

        h = 1e-3
        central = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
        assert along(1j * STEP).imag / STEP == pytest.approx(central, rel=1e-6, abs=1e-6), name


@pytest.mark.slow  # a build of minutes
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("op", [op for op in OPERATIONS if op.on("cpu")], ids=str)
def test_cpu(op: Operation, precision: str, library: Library) -> None:
    assert library.levels
    for level in library.levels:
        run = Cpu(library, level, precision)
        assert_forward(op, op.cpu(run, op.inputs, None), precision)
        assert_gradient(op, op.cpu(run, op.inputs, seeds_of(op)), precision)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["emulated", pytest.param("gpu", marks=pytest.mark.requires_gpu)])
@pytest.mark.parametrize("op", [op for op in OPERATIONS if op.on("cuda")], ids=str)
def test_cuda(op: Operation, kind: str, precision: str) -> None:
    run = cuda(kind, precision)
    assert_forward(op, op.cuda(run, op.inputs, None), precision)
    assert_gradient(op, op.cuda(run, op.inputs, seeds_of(op)), precision)


def test_names_are_those_of_the_kernels() -> None:
    """What is missing is compared by itself, in the native tests and in tests/cuda."""
    from operations import OPERATIONS as COSTS

    missing = {op.name for op in COSTS} - {op.name for op in OPERATIONS}
    assert missing == MISSING
