"""The seeds of dipoles and polarizabilities in the reference: adjoint to the derivative by a complex step."""

from __future__ import annotations

import numpy as np
import pytest
from dpa2.reference.tensor import dipole, dipole_seeds, polar, polar_seeds


@pytest.mark.parametrize("kind", ["dipole", "diagonal", "full"])
def test_seeds_are_the_adjoint_of_the_derivative(kind: str) -> None:
    rng = np.random.default_rng(3)
    n, width, step = 4, 5, 1e-30
    option = {"fit_diag": kind == "diagonal", "shift_diag": False}
    z, dz = rng.normal(size=(2, n, width**2 if kind == "full" else width))
    rotation, drotation = rng.normal(size=(2, n, width, 3))
    nobody = np.zeros(n, dtype=int), np.ones(n)

    def value(z: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        return dipole(z, rotation) if kind == "dipole" else polar(z, rotation, *nobody, option, {})

    moved = value(z + 1j * step * dz, rotation + 1j * step * drotation).imag / step
    gradient = rng.normal(size=moved.shape)
    seeds = dipole_seeds(z, rotation, gradient) if kind == "dipole" else polar_seeds(z, rotation, gradient, option)
    backward = np.sum(seeds[0] * dz) + np.sum(seeds[1] * drotation)
    assert abs(np.sum(gradient * moved) - backward) < 1e-12 * abs(backward)
