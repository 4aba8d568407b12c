"""What an operation declares, once for all backends."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from ops.backends import Arrays, Cpu, Cuda


class Bounds(NamedTuple):
    """Largest errors of a kernel in either precision."""

    float64: float
    float32: float


class Operation:
    """One operation at one size.

    ``inputs`` are the arrays that it is differentiated by; what else it takes (weights, sizes, neighbours) the object
    holds. `reference` is `dpa2.reference`, or what stands there inside of a larger function; it takes complex numbers.
    `cpu` and `cuda` compute the same on a backend: outputs, or with seeds (one array per output) the gradients of the
    inputs, in the order and shapes of the inputs; one that a backend does not have is not overridden. Gradients of
    weights and dual numbers are the CPU's alone: tests/native/training.hpp tests them at every level.
    """

    name: ClassVar[str]
    #: relative to the largest number that is expected; for gradients to the sum of the products of the dot product
    forward = Bounds(2e-14, 5e-6)
    gradient = Bounds(1e-13, 1e-5)

    def __init__(self, label: str, inputs: Arrays) -> None:
        self.label, self.inputs = label, inputs

    def __str__(self) -> str:
        return f"{self.name} {self.label}".strip().replace(" ", "-")

    def reference(self, **inputs: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    def cpu(self, run: Cpu, x: Arrays, seeds: tuple[np.ndarray, ...] | None) -> list[np.ndarray]:
        raise NotImplementedError

    def cuda(self, run: Cuda, x: Arrays, seeds: tuple[np.ndarray, ...] | None) -> list[np.ndarray]:
        raise NotImplementedError

    def on(self, backend: str) -> bool:
        """Whether a backend has the operation."""
        return getattr(type(self), backend) is not getattr(Operation, backend)
