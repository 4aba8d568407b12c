"""Infrared spectrum: dipoles along dynamics at constant energy, the autocorrelation of their rate, its transform.

    python examples/spectra/ir.py                                             1.5 ps of the water box of the examples
    python examples/spectra/ir.py --input start.extxyz --model energy.pth --dipole dipole.pth --time 20
    python examples/spectra/ir.py --trajectory md.extxyz --spacing 2          dipoles along frames that are there
    python examples/spectra/ir.py --dipoles dipole.dat --spacing 2 --volume 1928       or of LAMMPS (docs/lammps.md)

Needs ASE for dynamics and matplotlib for the plot: pip install 'dpa2[ase,plot]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import dpa2
import numpy as np
from dpa2.data import read_structures
from numpy.typing import NDArray

Float = NDArray[np.float64]
HERE = Path(__file__).resolve().parent

KELVIN = 8.617333262e-5  # eV
LIGHT = 2997.92458  # angstrom/fs
VACUUM = 5.526349406e-3  # e^2/(eV angstrom): the permittivity
PER_CM = 1e8  # of 1/angstrom
BANDS = {"libration": 685.0, "bend": 1643.0, "stretch": 3400.0}  # 1/cm: maxima of liquid water as measured


def dynamics(args: argparse.Namespace) -> tuple[Float, float]:
    """Dipoles (steps, 3), e angstrom, every ``--spacing`` along dynamics at constant energy; the volume, angstrom^3."""
    import ase.io
    from ase import units
    from ase.md.verlet import VelocityVerlet
    from dpa2.ase import DPA2Calculator

    atoms = ase.io.read(args.input)
    atoms.calc = DPA2Calculator(args.model, dipole=args.dipole)
    spread = np.sqrt(atoms.get_masses() * units.kB * args.temperature)
    atoms.set_momenta(np.random.default_rng(args.seed).normal(size=(len(atoms), 3)) * spread[:, None])
    motion = VelocityVerlet(atoms, args.timestep * units.fs)
    dipoles: list[Float] = []
    temperatures: list[float] = []

    def look() -> None:
        if motion.nsteps % every == 0:
            dipoles.append(atoms.get_dipole_moment())
            temperatures.append(atoms.get_temperature())
        if motion.nsteps % (every * 100) == 0:
            total = atoms.get_total_energy()
            print(f"{motion.nsteps * args.timestep:8.0f} {temperatures[-1]:8.1f} {total:15.4f}", flush=True)

    every = round(args.spacing / args.timestep)
    if every < 1 or abs(every * args.timestep - args.spacing) > 1e-9:
        raise SystemExit(f"--spacing {args.spacing:g} fs is no multiple of --timestep {args.timestep:g} fs")
    print(f"{'time/fs':>8} {'T/K':>8} {'total/eV':>15}")
    motion.attach(look, interval=1)
    motion.run(round(1000.0 * args.time / args.timestep))
    print(f"mean temperature {np.mean(temperatures):.1f} K")
    return np.array(dipoles), atoms.get_volume()


def along_trajectory(args: argparse.Namespace) -> tuple[Float, float | None]:
    """Dipoles (frames, 3) of the frames of a file, and the volume of the first."""
    model = dpa2.load(args.dipole)
    if model.kind != "dipole":
        raise SystemExit(f"--dipole {args.dipole}: a dipole model is needed, this one is of kind {model.kind}")
    dipoles, volume = [], None
    for frame in read_structures(args.trajectory)[0]:
        volume = volume or frame.volume
        found = model.evaluate(frame.coords, frame.types_in(model.type_map), frame.box, frame.pbc, forces=False)
        dipoles.append(found.outputs["global_dipole"])
    return np.array(dipoles), volume


def power(dipoles: Float, spacing: float, resolution: float, grid: Float) -> Float:
    """The transform of the autocorrelation of the dipole's rate, e^2 angstrom^2/fs.

    Args:
        dipoles: (steps, 3), e angstrom. spacing: between them, fs.
        resolution: full width of the Gaussian that the spectrum is smoothed with, 1/cm.
        grid: wavenumbers, 1/cm.
    """
    rate = np.diff(dipoles, axis=0) / spacing
    rate -= rate.mean(axis=0)
    steps = len(rate)
    transform = np.fft.rfft(rate, 2 * steps, axis=0)  # with zeros behind: the ends do not see one another
    correlation = np.fft.irfft((np.abs(transform) ** 2).sum(axis=1))[:steps] / np.arange(steps, 0, -1)

    to_angular = 2.0 * np.pi * LIGHT / PER_CM  # 1/fs of 1/cm
    lag = spacing * np.arange(steps)
    window = np.exp(-0.5 * (lag * to_angular * resolution / 2.3548) ** 2)
    kept = window > 1e-8
    weights = (window * correlation)[kept] * np.where(lag[kept] > 0.0, 2.0, 1.0)
    omega = grid * to_angular
    density = spacing * np.cos(np.outer(omega, lag[kept])) @ weights
    # a difference over a step is a mean of the rate over that step, which weakens fast oscillations by a known factor
    restored: Float = density / np.sinc(omega * spacing / (2.0 * np.pi)) ** 2
    return restored


def absorption(density: Float, volume: float, temperature: float) -> Float:
    """Absorption coefficient times refractive index, 1/cm: that of classical dynamics with the harmonic correction."""
    return density / (6.0 * VACUUM * volume * LIGHT * KELVIN * temperature) * PER_CM


def maxima(grid: Float, values: Float) -> list[int]:
    """Where a spectrum is highest within 150 1/cm and above a twentieth of its maximum."""
    reach = round(150.0 / (grid[1] - grid[0]))
    around = [values[max(0, k - reach) : k + reach + 1].max() for k in range(len(grid))]
    return [k for k in range(1, len(grid) - 1) if values[k] == around[k] > 0.05 * values.max()]


def draw(path: str, grid: Float, values: Float, words: str, title: str, bands: dict[str, float]) -> None:
    """The spectrum, with dotted lines where bands were measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(grid, values, color="C0", linewidth=1.2)
    top = 1.25 * values.max()
    for name, place in bands.items():
        axes.axvline(place, color="0.5", linewidth=0.8, linestyle=":")
        axes.text(
            place - 20.0, 0.97 * top, f"measured: {name}", rotation=90, ha="right", va="top", fontsize=8, color="0.4"
        )
    axes.set(xlim=(grid[0], grid[-1]), ylim=(min(0.0, values.min()), top), title=title)
    axes.set(xlabel="wavenumber (1/cm)", ylabel=words)
    figure.savefig(path, dpi=120)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Infrared spectrum from dipoles along a trajectory.")
    parser.add_argument(
        "--input", default=str(HERE.parent / "water_192.extxyz"), help="equilibrated structure (default: %(default)s)"
    )
    parser.add_argument("--model", help="energy model (default: the embedded model of water)")
    parser.add_argument(
        "--dipole",
        default=str(HERE / "models" / "water_dipole.safetensors"),
        help="dipole model, e angstrom (default: that of this folder)",
    )
    parser.add_argument("--time", type=float, default=1.5, help="of the dynamics, ps (default: %(default)s)")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs (default: %(default)s)")
    parser.add_argument("--spacing", type=float, default=2.0, help="between two dipoles, fs (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=300.0, help="K (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the velocities (default: %(default)s)")
    parser.add_argument("--trajectory", help="a file of frames in place of dynamics; --dipole is evaluated along it")
    parser.add_argument("--dipoles", help="a text file of dipoles, in its last three columns, in place of both")
    parser.add_argument("--volume", type=float, help="of the cell, angstrom^3, where the file does not say it")
    parser.add_argument("--resolution", type=float, default=80.0, help="1/cm (default: %(default)s)")
    parser.add_argument("--plain", action="store_true", help="do not mark where liquid water was measured to absorb")
    parser.add_argument("--save", help="write the dipoles there, as text")
    parser.add_argument("--plot", default="ir.png", help="picture (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Get the dipoles, transform, print, draw."""
    args = arguments()
    volume: float | None
    if args.dipoles:
        dipoles, volume = np.loadtxt(args.dipoles)[:, -3:], args.volume
    elif args.trajectory:
        dipoles, volume = along_trajectory(args)
        volume = args.volume or volume
    else:
        dipoles, volume = dynamics(args)
    if len(dipoles) < 20:
        raise SystemExit(f"{len(dipoles)} dipoles are too few for a spectrum")
    if not np.ptp(dipoles, axis=0).any():
        raise SystemExit("the dipole is the same in all frames: there is no spectrum")
    if args.save:
        np.savetxt(args.save, dipoles, header="total dipole x y z, e angstrom", fmt="%.8f")

    highest = min(4500.0, PER_CM / (2.0 * args.spacing * LIGHT))
    grid = np.arange(0.0, highest, 5.0)
    values, words = power(dipoles, args.spacing, args.resolution, grid), "power (arbitrary units)"
    if volume:
        values = absorption(values, volume, args.temperature) / 1000.0
        words = "absorption $\\times$ refractive index (1000/cm)"
    print("maxima:", *(f"{grid[k]:.0f} 1/cm" for k in maxima(grid, values)), sep="\n  ")
    time = len(dipoles) * args.spacing / 1000.0
    draw(args.plot, grid, values, words, f"Infrared spectrum, {time:.1f} ps", {} if args.plain else BANDS)
    print(f"written {args.plot}")


if __name__ == "__main__":
    main()
