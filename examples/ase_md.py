"""Water with ASE: relax for some steps, then dynamics at constant temperature, written as extended XYZ.

    python examples/ase_md.py                            100 steps of the water box beside this file
    python examples/ase_md.py --steps 2000 --model my.pth --input POSCAR --output md.extxyz

Needs ASE: pip install 'dpa2[ase]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase import units
from ase.md.langevin import Langevin
from ase.optimize import FIRE
from dpa2.ase import DPA2Calculator


def main() -> None:
    """Read a structure, relax it, integrate, print."""
    parser = argparse.ArgumentParser(description="Relaxation and dynamics with ASE.")
    parser.add_argument("--input", default=str(Path(__file__).parent / "water_192.extxyz"), help="default: %(default)s")
    parser.add_argument("--model", help="model file (default: the embedded model of water)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--relax", type=int, default=10, help="steps of relaxation (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="steps of dynamics (default: %(default)s)")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=300.0, help="K (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    parser.add_argument("--output", help="where to write every tenth step (default: nowhere)")
    args = parser.parse_args()

    atoms = ase.io.read(args.input)
    atoms.calc = DPA2Calculator(args.model, device=args.device)
    FIRE(atoms, logfile=None).run(fmax=0.05, steps=args.relax)

    rng = np.random.default_rng(args.seed)
    spread = np.sqrt(atoms.get_masses() * units.kB * args.temperature)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * spread[:, None])
    dynamics = Langevin(
        atoms,
        args.timestep * units.fs,
        temperature_K=args.temperature,
        friction=0.01 / units.fs,
        fixcm=False,
        rng=rng,
    )

    def report() -> None:
        """One line, and one frame if there is a file for it."""
        pressure = -np.trace(atoms.get_stress(voigt=False, include_ideal_gas=True)) / (3.0 * units.GPa)
        time = dynamics.get_time() / units.fs
        print(f"{time:8.1f} {atoms.get_temperature():7.1f} {atoms.get_potential_energy():15.5f} {pressure:10.4f}")
        if args.output:
            ase.io.write(args.output, atoms, append=dynamics.nsteps > 0)

    print(f"{'time/fs':>8} {'T/K':>7} {'potential/eV':>15} {'p/GPa':>10}")
    dynamics.attach(report, interval=10)
    dynamics.run(args.steps)


if __name__ == "__main__":
    main()
