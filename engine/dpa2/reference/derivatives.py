"""Forces and virials of the reference, by complex-step differentiation (theory 9.2, 9.3).

There is no backward pass here.

The atomic energies e_a depend on the coordinates only through the edge vectors d_e. For a direction delta_e in the
space of edge vectors

    sum_e (d e_a / d d_e) . delta_e = Im e_a(d + i h delta) / h          up to terms of order h^2

With h = 1e-30 these terms vanish in float64 and nothing cancels: the derivative is exact to rounding. The neighbour
lists are fixed, kinks of activations have the slope that activation.py states. The directions, with gamma_e = dE/dd_e:

    force:   F_i[k] = sum_{e: centre i} gamma_e[k] - sum_{e: neighbour i} gamma_e[k] = -dE/dx_i[k]
             delta_e = +1 along k for the edges whose neighbour is i, -1 for those whose centre is i (0 if both)
    virial:  W[k, l] = -sum_e gamma_e[k] d_e[l] = -dE/dstrain_kl:          delta_e = d_e[l] along k

and for the atomic virials those stated at the functions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .common import Array
from .neighbors import Edges

AtomEnergy = Callable[[Array], Array]
STEP = 1e-30


def directional(atom_energy: AtomEnergy, d: Array, along: int, amount: Array) -> Array:
    """(n) derivatives of the atomic energies when every edge vector moves by ``amount`` (ne) along one axis."""
    moved = d.astype(np.complex128)
    moved[:, along] += 1j * STEP * amount
    return atom_energy(moved).imag / STEP


def forces_and_virial(atom_energy: AtomEnergy, edges: Edges) -> tuple[Array, Array]:
    """Forces (n, 3), eV/angstrom, and the virial (3, 3), eV."""
    natoms, centre = len(edges.start) - 1, edges.centre
    forces, virial = np.zeros((natoms, 3)), np.zeros((3, 3))
    if len(centre) == 0:
        return forces, virial
    for k in range(3):
        for i in range(natoms):
            amount = (edges.j == i).astype(np.float64) - (centre == i)
            if amount.any():
                forces[i, k] = -directional(atom_energy, edges.d, k, amount).sum()
        for axis in range(3):
            virial[k, axis] = -directional(atom_energy, edges.d, k, edges.d[:, axis]).sum()
    return forces, virial


def edge_atom_virial(atom_energy: AtomEnergy, edges: Edges) -> Array:
    """(n, 3, 3) each edge's share -gamma_e[k] d_e[l] split half and half between its two atoms, eV."""
    natoms, centre = len(edges.start) - 1, edges.centre
    out = np.zeros((natoms, 3, 3))
    for i in range(natoms):
        share = 0.5 * (edges.j == i) + 0.5 * (centre == i)
        for k in range(3):
            for axis in range(3):
                if share.any():
                    out[i, k, axis] = -directional(atom_energy, edges.d, k, share * edges.d[:, axis]).sum()
    return out


def deepmd_atom_virial(atom_energy: AtomEnergy, edges: Edges, wrapped: Array) -> Array:
    """(n, 3, 3) w_i[k, l] = sum over images I of atom i and over atoms a of (x_a[l] - X_I[l]) d e_a / d X_I[k], eV.

    ``wrapped`` (n, 3) are the coordinates x inside the cell; an image that is the neighbour of edge e has
    X_e = x_centre + d_e. Only the sum over atoms, the virial, is independent of the choice of the cell.
    """
    natoms, centre = len(edges.start) - 1, edges.centre
    position = wrapped[centre] + edges.d
    out = np.zeros((natoms, 3, 3))
    for i in range(natoms):
        neighbour, own = edges.j == i, centre == i
        if not (neighbour.any() or own.any()):
            continue
        for k in range(3):
            moved = directional(atom_energy, edges.d, k, neighbour.astype(np.float64) - own)
            for axis in range(3):
                lever = neighbour * position[:, axis] - own * wrapped[i, axis]
                out[i, k, axis] = moved @ wrapped[:, axis]
                out[i, k, axis] -= directional(atom_energy, edges.d, k, lever).sum()
    return out
