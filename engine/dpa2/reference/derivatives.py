"""Derivatives of the reference, by complex-step differentiation (theory 9.2, 9.3).

There is no backward pass here.

The values y_a of atoms (energies, dipoles, or other numbers) depend on the coordinates only through the edge vectors
d_e. For a direction delta_e in the space of edge vectors

    sum_e (d y_a / d d_e) . delta_e = Im y_a(d + i h delta) / h          up to terms of order h^2

With h = 1e-30 these terms vanish in float64 and nothing cancels: the derivative is exact to rounding. The neighbour
lists are fixed, kinks of activations have the slope that activation.py states. The directions, with Y = sum_a y_a and
gamma_e = dY/dd_e:

    force:   F_i[k] = sum_{e: centre i} gamma_e[k] - sum_{e: neighbour i} gamma_e[k] = -dY/dx_i[k]
             delta_e = +1 along k for the edges whose neighbour is i, -1 for those whose centre is i (0 if both)
    virial:  W[k, l] = -sum_e gamma_e[k] d_e[l] = -dY/dstrain_kl:          delta_e = d_e[l] along k

and for the atomic virials those stated at the functions. Where y_a has several components (...) they stand before the
directions: forces (n, ..., 3), virials (..., 3, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .common import Array, IntArray
from .neighbors import Edges

Values = Callable[[Array], Array]
STEP = 1e-30


@dataclass(frozen=True)
class Pairs:
    """The edges that values depend on, those of all children of a combination one after the other."""

    natoms: int
    centre: IntArray  # (ne)
    j: IntArray  # (ne)
    d: Array  # (ne, 3) angstrom

    @classmethod
    def of(cls, natoms: int, lists: Sequence[Edges]) -> Pairs:
        centre, j, d = ([getattr(edges, name) for edges in lists] for name in ("centre", "j", "d"))
        return cls(natoms, np.concatenate(centre), np.concatenate(j), np.concatenate(d))


def directional(values: Values, d: Array, along: int, amount: Array) -> Array:
    """(n, ...) derivatives of the values of atoms when every edge vector moves by ``amount`` (ne) along one axis."""
    moved = d.astype(np.complex128)
    moved[:, along] += 1j * STEP * amount
    out: Array = values(moved).imag / STEP
    return out


def forces_and_virial(values: Values, pairs: Pairs, shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
    """Forces (n, ..., 3) and virial (..., 3, 3) of values (n, *shape); of energies in eV/angstrom and eV."""
    forces, virial = np.zeros((pairs.natoms, *shape, 3)), np.zeros((*shape, 3, 3))
    if len(pairs.centre) == 0:
        return forces, virial
    for k in range(3):
        for i in range(pairs.natoms):
            amount = (pairs.j == i).astype(np.float64) - (pairs.centre == i)
            if amount.any():
                forces[i, ..., k] = -directional(values, pairs.d, k, amount).sum(axis=0)
        for axis in range(3):
            virial[..., k, axis] = -directional(values, pairs.d, k, pairs.d[:, axis]).sum(axis=0)
    return forces, virial


def edge_atom_virial(values: Values, pairs: Pairs, shape: tuple[int, ...] = ()) -> Array:
    """(n, ..., 3, 3) each edge's share -gamma_e[k] d_e[l] split half and half between its two atoms."""
    out = np.zeros((pairs.natoms, *shape, 3, 3))
    for i in range(pairs.natoms):
        share = 0.5 * (pairs.j == i) + 0.5 * (pairs.centre == i)
        for k in range(3):
            for axis in range(3):
                if share.any():
                    out[i, ..., k, axis] = -directional(values, pairs.d, k, share * pairs.d[:, axis]).sum(axis=0)
    return out


def deepmd_atom_virial(values: Values, pairs: Pairs, wrapped: Array, shape: tuple[int, ...] = ()) -> Array:
    """(n, ..., 3, 3) w_i[k, l] = sum over images I of atom i and over atoms a of (x_a[l] - X_I[l]) d y_a / d X_I[k].

    ``wrapped`` (n, 3) are the coordinates x inside the cell; an image that is the neighbour of edge e has
    X_e = x_centre + d_e. Only the sum over atoms, the virial, is independent of the choice of the cell.
    """
    position = wrapped[pairs.centre] + pairs.d
    out = np.zeros((pairs.natoms, *shape, 3, 3))
    for i in range(pairs.natoms):
        neighbour, own = pairs.j == i, pairs.centre == i
        if not (neighbour.any() or own.any()):
            continue
        for k in range(3):
            moved = directional(values, pairs.d, k, neighbour.astype(np.float64) - own)
            for axis in range(3):
                lever = neighbour * position[:, axis] - own * wrapped[i, axis]
                out[i, ..., k, axis] = np.tensordot(wrapped[:, axis], moved, 1)
                out[i, ..., k, axis] -= directional(values, pairs.d, k, lever).sum(axis=0)
    return out
