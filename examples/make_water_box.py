"""Make a box of liquid water: place molecules, relax them, equilibrate with the embedded model.

    python examples/make_water_box.py --output water.extxyz
    python examples/make_water_box.py --molecules 216 --temperature 320 --seed 7 --output big.extxyz

Needs ASE: pip install 'dpa2[ase]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import write
from ase.md.langevin import Langevin
from ase.optimize import FIRE
from dpa2.ase import DPA2Calculator
from numpy.typing import NDArray

Float = NDArray[np.float64]

MOLAR_MASS = 18.015  # g/mol
AVOGADRO = 0.602214076  # per mol, times 1e-24 cm^3 in an angstrom^3
BOND, ANGLE = 0.97, 105.0  # angstrom, degrees: roughly the molecule in the liquid
FRICTION = 0.05  # 1/fs
BOND_LIMIT = 1.3  # angstrom: how far a hydrogen may be from its oxygen


def rotations(count: int, rng: np.random.Generator) -> Float:
    """Random rotation matrices, uniform: (count, 3, 3), by quaternions."""
    q = rng.normal(size=(count, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def place(molecules: int, density: float, rng: np.random.Generator, trials: int = 200) -> Atoms:
    """Molecules on a cubic grid, each turned so that it keeps the most distance from those before it.

    Args:
        molecules: how many.
        density: g/cm^3.
        rng: source of the orientations, and of the sites when the grid has more than needed.
        trials: orientations tried per molecule.

    Returns:
        A cubic periodic box; atoms in the order O H H O H H ...
    """
    length = (molecules * MOLAR_MASS / (AVOGADRO * density)) ** (1 / 3)
    side = int(np.ceil(molecules ** (1 / 3) - 1e-9))
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    sites = rng.permutation(sites)[:molecules] * (length / side)
    half = np.radians(ANGLE) / 2
    shape = BOND * np.array([[0, 0, 0], [np.sin(half), np.cos(half), 0], [-np.sin(half), np.cos(half), 0]])

    placed = np.empty((0, 3))
    for site in sites:
        candidates = site + shape @ np.swapaxes(rotations(trials, rng), 1, 2)  # (trials, 3, 3): trial, atom, axis
        best = 0
        if len(placed):
            d = candidates[:, :, None] - placed
            d -= length * np.round(d / length)
            best = int(np.linalg.norm(d, axis=-1).min(axis=(1, 2)).argmax())
        placed = np.concatenate([placed, candidates[best]])
    return Atoms("OHH" * molecules, placed, cell=[length] * 3, pbc=True)


def intact(atoms: Atoms) -> bool:
    """Is its own oxygen, within the limit of a bond, the nearest one of every hydrogen?"""
    d = atoms.positions[::3, None] - np.delete(atoms.positions, np.s_[::3], axis=0)
    length = atoms.cell.lengths()
    d -= length * np.round(d / length)
    distances = np.linalg.norm(d, axis=-1)  # (oxygens, hydrogens)
    own = np.repeat(np.arange(len(atoms) // 3), 2)
    return bool(np.array_equal(distances.argmin(axis=0), own) and distances.min(axis=0).max() < BOND_LIMIT)


def equilibrate(atoms: Atoms, temperature: float, time: float, timestep: float, rng: np.random.Generator) -> None:
    """Langevin dynamics: from a third of the temperature to all of it in the first fifth of the time, then constant.

    The grid of the start gives off heat as it melts, so the beginning is slow and the friction strong.

    Args:
        atoms: changed in place; has a calculator.
        temperature: kelvin.
        time, timestep: picoseconds in all, femtoseconds per step.
        rng: source of velocities and noise.
    """
    steps, block = round(1000 * time / timestep), 100
    widths = np.sqrt(atoms.get_masses() * units.kB * temperature / 3)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * widths[:, None])
    dynamics = Langevin(
        atoms, timestep * units.fs, temperature_K=temperature, friction=FRICTION / units.fs, fixcm=False, rng=rng
    )
    print(f"{'time/ps':>8} {'T/K':>7} {'energy/eV':>14} {'max force':>10}")
    for done in range(0, steps, block):
        dynamics.set_temperature(temperature_K=temperature * min(1.0, 1 / 3 + 2 / 3 * done / (0.2 * steps)))
        count = min(block, steps - done)
        dynamics.run(count)
        if not intact(atoms):
            raise SystemExit(f"molecules broke up after {(done + count) * timestep / 1000:g} ps: try another --seed")
        largest = np.linalg.norm(atoms.get_forces(), axis=1).max()
        line = f"{(done + count) * timestep / 1000:8.2f} {atoms.get_temperature():7.1f}"
        print(f"{line} {atoms.get_potential_energy():14.4f} {largest:10.3f}", flush=True)


def whole_molecules(atoms: Atoms) -> Atoms:
    """Positions only, molecules whole, oxygens inside the box."""
    molecules = atoms.positions.reshape(-1, 3, 3)
    oxygens = molecules[:, :1]
    length = atoms.cell.lengths()
    bonds = molecules - oxygens
    bonds -= length * np.round(bonds / length)
    positions = (oxygens % length + bonds).reshape(-1, 3)
    return Atoms(atoms.get_chemical_symbols(), positions, cell=atoms.cell, pbc=True)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make a box of liquid water with the embedded model.")
    parser.add_argument("--molecules", type=int, default=64, help="how many (default: %(default)s)")
    parser.add_argument("--density", type=float, default=0.993, help="g/cm^3 (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=300.0, help="kelvin (default: %(default)s)")
    parser.add_argument("--time", type=float, default=10.0, help="equilibration, ps (default: %(default)s)")
    parser.add_argument("--timestep", type=float, default=0.5, help="time step, fs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of positions, velocities, noise (default: %(default)s)")
    parser.add_argument("--model", help="model file (default: the embedded model of water)")
    parser.add_argument("--output", type=Path, default=Path("water.extxyz"), help="default: %(default)s")
    args = parser.parse_args()
    for name in ("molecules", "density", "temperature", "timestep"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name} must be positive")
    return args


def main() -> None:
    """Place, relax, equilibrate, write."""
    args = parse_arguments()
    rng = np.random.default_rng(args.seed)
    atoms = place(args.molecules, args.density, rng)
    atoms.calc = DPA2Calculator(args.model)
    FIRE(atoms, logfile=None, maxstep=0.05).run(fmax=0.5, steps=300)
    if not intact(atoms):
        raise SystemExit("molecules broke up while relaxing: is the model one of water, the density sensible?")
    print(f"relaxed     {atoms.get_potential_energy():.4f} eV")
    equilibrate(atoms, args.temperature, args.time, args.timestep, rng)
    write(args.output, whole_molecules(atoms), format="extxyz")
    print(f"written     {args.output}")


if __name__ == "__main__":
    main()
