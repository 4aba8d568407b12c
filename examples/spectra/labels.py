"""What the models of this folder were trained on: formulas for a molecule of water and for the liquid.

Each is a formula of a few lines for what a quantum-chemical program would compute. Energies are in eV, lengths in
angstrom, dipoles in e angstrom, polarizabilities in angstrom^3. Molecules are O H H, one after the other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

BOND = 0.97  # angstrom: in the liquid

# Energy of a single molecule: force constants for which it vibrates at the measured 1595, 3657 and 3756 1/cm.
FREE_BOND, FREE_ANGLE = 0.9572, np.radians(104.52)  # angstrom
STRETCH, STRETCHES, BEND = 47.9, -0.58, 4.02  # eV/angstrom^2, of both bonds eV/angstrom^2, eV

# Dipoles: hydrogens carry charges that grow with the bond; the oxygen has the opposite.
CHARGE, CHARGE_SLOPE = 0.48, 0.45  # e, e/angstrom

# Polarizabilities: of bonds, along them and across, and of the lone pairs, across the plane of the molecule.
ALONG, ALONG_SLOPE, ACROSS, LONE_PAIRS = 0.90, 2.2, 0.50, 0.40  # angstrom^3, angstrom^2

# Tight binding: levels of O 2s, O 2p and H 1s (Harrison), hopping between O and H that decays, both ends taken as
# neighbours up to a distance at which the hopping has been switched off.
LEVEL_2S, LEVEL_2P, LEVEL_1S = -29.14, -14.13, -13.60  # eV
HOPPING_SS, HOPPING_SP, DECAY = -5.0, 4.5, 0.5  # eV, eV, angstrom
SWITCH = (2.2, 2.8)  # angstrom
ENERGIES = np.linspace(-36.0, -4.0, 129)  # eV: the grid of the densities of states
WIDTH = 0.5  # eV: of the Gaussian of every level


def bonds(positions: Float, box: Float | None) -> Float:
    """(molecules, 2, 3): from every oxygen to its two hydrogens."""
    molecules = positions.reshape(-1, 3, 3)
    return nearest(molecules[:, 1:] - molecules[:, :1], box)


def nearest(vectors: Float, box: Float | None) -> Float:
    """The shortest of the periodic images of vectors, in an orthogonal box."""
    if box is None:
        return vectors
    lengths = np.diagonal(box)
    shortest: Float = vectors - lengths * np.round(vectors / lengths)
    return shortest


def energies(positions: Float) -> tuple[Float, Float]:
    """(molecules,) eV and (molecules, 3, 3) eV/angstrom: energies of single molecules and the forces on their atoms."""
    d = bonds(positions, None)
    r = np.linalg.norm(d, axis=-1)
    unit = d / r[..., None]
    cosine = (unit[:, 0] * unit[:, 1]).sum(axis=-1)
    stretch = r - FREE_BOND
    bend = np.arccos(cosine) - FREE_ANGLE
    energy = (
        0.5 * STRETCH * (stretch**2).sum(axis=-1) + STRETCHES * stretch[:, 0] * stretch[:, 1] + 0.5 * BEND * bend**2
    )
    along = -(STRETCH * stretch + STRETCHES * stretch[:, ::-1])
    across = (BEND * bend / np.sqrt(1.0 - cosine**2))[:, None] / r
    other = unit[:, ::-1] - cosine[:, None, None] * unit
    of_hydrogens = along[..., None] * unit + across[..., None] * other
    return energy, np.concatenate([-of_hydrogens.sum(axis=1, keepdims=True), of_hydrogens], axis=1)


def dipoles(positions: Float, box: Float | None) -> Float:
    """(molecules, 3), e angstrom: of the charges of every molecule."""
    d = bonds(positions, box)
    charge = CHARGE + CHARGE_SLOPE * (np.linalg.norm(d, axis=-1, keepdims=True) - BOND)
    summed: Float = (charge * d).sum(axis=1)
    return summed


def polarizabilities(positions: Float, box: Float | None) -> Float:
    """(molecules, 3, 3), angstrom^3: the bonds' and the lone pairs'."""
    d = bonds(positions, box)
    r = np.linalg.norm(d, axis=-1, keepdims=True)
    normal = np.cross(d[:, 0], d[:, 1])
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    difference = (ALONG + ALONG_SLOPE * (r - BOND) - ACROSS)[..., None]
    direction = d / r
    of_bonds = difference * direction[..., :, None] * direction[..., None, :] + ACROSS * np.eye(3)
    summed: Float = of_bonds.sum(axis=1) + LONE_PAIRS * normal[..., :, None] * normal[..., None, :]
    return summed


def densities_of_states(positions: Float, box: Float | None) -> Float:
    """(atoms, energies), states per eV, both spins: levels of the whole box, shared out by squared amplitudes."""
    oxygen, hydrogen = positions[::3], np.delete(positions, np.s_[::3], axis=0)
    d = nearest(hydrogen[None] - oxygen[:, None], box)
    r = np.linalg.norm(d, axis=-1)
    x = np.clip((r - SWITCH[0]) / (SWITCH[1] - SWITCH[0]), 0.0, 1.0)
    decay = np.exp(-(r - BOND) / DECAY) * (1.0 - x**3 * (10.0 - 15.0 * x + 6.0 * x**2))
    to_s = HOPPING_SS * decay  # (oxygens, hydrogens)
    to_p = HOPPING_SP * decay[..., None] * d / r[..., None]
    count = len(oxygen)
    coupling = np.concatenate([to_s[:, None], np.moveaxis(to_p, -1, 1)], axis=1).reshape(4 * count, -1)
    levels = np.concatenate([np.tile([LEVEL_2S, *[LEVEL_2P] * 3], count), np.full(2 * count, LEVEL_1S)])
    matrix = np.diag(levels)
    matrix[: 4 * count, 4 * count :] = coupling
    matrix[4 * count :, : 4 * count] = coupling.T
    energies, states = np.linalg.eigh(matrix)
    weights = states**2  # (orbitals, levels)
    of_oxygen = weights[: 4 * count].reshape(count, 4, -1).sum(axis=1)
    of_atoms = np.concatenate([of_oxygen[:, None], weights[4 * count :].reshape(count, 2, -1)], axis=1)
    peaks = np.exp(-0.5 * ((ENERGIES - energies[:, None]) / WIDTH) ** 2) / (WIDTH * np.sqrt(2.0 * np.pi))
    density: Float = 2.0 * of_atoms.reshape(3 * count, -1) @ peaks
    return density
