"""Dynamics at constant energy : velocity Verlet on top of ``dpa2.Model.evaluate``.

    python examples/md_nve.py                            100 steps of the water box beside this file
    python examples/md_nve.py --steps 2000 --model my.pth --input start.extxyz

Needs nothing but dpa2.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dpa2
import numpy as np
from dpa2.data import read_structures
from dpa2.embedded import default_model

KELVIN = 8.617333262e-5  # eV
MASS = {"O": 15.999, "H": 1.008}  # g/mol
ACCELERATION = 9.648533212e-3  # angstrom/fs^2 from eV/angstrom per g/mol


def main() -> None:
    """Read a structure, draw velocities, integrate, print."""
    parser = argparse.ArgumentParser(description="Dynamics of water at constant energy.")
    parser.add_argument("--input", default=str(Path(__file__).parent / "water_192.extxyz"), help="default: %(default)s")
    parser.add_argument("--model", help="model file (default: the embedded model of water)")
    parser.add_argument("--steps", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--timestep", type=float, default=0.5, help="time step, fs (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=300.0, help="of the start, K (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the velocities (default: %(default)s)")
    args = parser.parse_args()

    model = dpa2.load(args.model) if args.model else default_model()
    frame = next(iter(read_structures(args.input)[0]))
    types = frame.types_in(model.type_map)
    mass = np.array([MASS[model.type_map[t]] for t in types])[:, None]
    x = frame.coords.copy()
    v = np.random.default_rng(args.seed).normal(size=x.shape) * np.sqrt(KELVIN * args.temperature * ACCELERATION / mass)
    v -= (mass * v).sum(axis=0) / mass.sum()

    print(f"{'time/fs':>8} {'T/K':>7} {'potential/eV':>15} {'total/eV':>15}")
    now = model.evaluate(x, types, frame.box)
    for step in range(args.steps + 1):
        if step % 10 == 0:
            kinetic = float((mass * v**2).sum()) / (2 * ACCELERATION)
            temperature = 2 * kinetic / (3 * (len(x) - 1) * KELVIN)
            print(f"{step * args.timestep:8.1f} {temperature:7.1f} {now.energy:15.5f} {now.energy + kinetic:15.5f}")
        v += 0.5 * args.timestep * ACCELERATION * now.forces / mass
        x += args.timestep * v
        now = model.evaluate(x, types, frame.box)
        v += 0.5 * args.timestep * ACCELERATION * now.forces / mass


if __name__ == "__main__":
    main()
