"""Make a data set to train on: frames of dynamics with a model, with its energies, forces and virials as labels.

    python examples/training/make_data.py data/train
    python examples/training/make_data.py data/dense --frames 100 --temperature 450 --scale 0.96 --zero -432 -13.6

The model stands for the reference method that one would label frames with. Needs nothing but dpa2.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import dpa2
import numpy as np
from dpa2.data import DeepmdWriter, Frame, read_structures
from dpa2.embedded import default_model
from numpy.typing import NDArray

Float = NDArray[np.float64]

KELVIN = 8.617333262e-5  # eV
MASS = {"O": 15.999, "H": 1.008}  # g/mol
ACCELERATION = 9.648533212e-3  # angstrom/fs^2 from eV/angstrom per g/mol
BLOCK = 20  # frames between two lines of the output


def langevin(
    model: dpa2.Model, frame: Frame, temperature: float, timestep: float, friction: float, rng: np.random.Generator
) -> Iterator[tuple[Float, dpa2.Result, float]]:
    """Langevin dynamics without end, by the splitting of Leimkuhler and Matthews (BAOAB).

    Args:
        frame: the start. temperature: K. timestep: fs. friction: 1/fs.
        rng: source of velocities and noise.

    Yields:
        Coordinates (angstrom), what the model makes of them, and the temperature of the moment, of every step.
    """
    types = frame.types_in(model.type_map)
    mass = np.array([MASS[model.type_map[t]] for t in types])[:, None]
    width = np.sqrt(KELVIN * temperature * ACCELERATION / mass)
    keep = np.exp(-friction * timestep)
    x, v = frame.coords.copy(), rng.normal(size=frame.coords.shape) * width
    found = model.evaluate(x, types, frame.box)
    while True:
        v += 0.5 * timestep * ACCELERATION * found.forces / mass
        x += 0.5 * timestep * v
        v = keep * v + np.sqrt(1 - keep**2) * width * rng.normal(size=v.shape)
        x += 0.5 * timestep * v
        found = model.evaluate(x, types, frame.box)
        v += 0.5 * timestep * ACCELERATION * found.forces / mass
        yield x, found, float((mass * v**2).sum()) / (3 * len(x) * KELVIN * ACCELERATION)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make a data set by dynamics with a model.")
    parser.add_argument("output", type=Path, help="the folder of the data set, which must not be there")
    start = Path(__file__).parent / "water_48.extxyz"
    parser.add_argument("--input", default=str(start), help="the start (default: 16 molecules of water)")
    parser.add_argument("--model", help="model file (default: the embedded model of water)")
    parser.add_argument("--frames", type=int, default=320, help="default: %(default)s")
    parser.add_argument("--every", type=int, default=20, help="steps from frame to frame (default: %(default)s)")
    parser.add_argument("--before", type=int, default=1000, help="steps before the first (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=330.0, help="K (default: %(default)s)")
    parser.add_argument("--timestep", type=float, default=0.5, help="fs (default: %(default)s)")
    parser.add_argument("--friction", type=float, default=0.02, help="1/fs (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all lengths of the start (default: %(default)s)")
    parser.add_argument(
        "--zero", type=float, nargs="+", metavar="E", help="energies of atoms of each type that count as zero, eV"
    )
    parser.add_argument("--seed", type=int, default=1, help="of velocities and noise (default: %(default)s)")
    args = parser.parse_args()
    for name in ("frames", "every", "temperature", "timestep", "friction", "scale"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name} must be positive")
    if args.before < 0:
        parser.error("--before must not be negative")
    if args.output.exists():
        parser.error(f"{args.output} is there already: name another folder, or remove it")
    return args


def main() -> None:
    """Read a structure, run, keep every so many steps a frame."""
    args = parse_arguments()
    model = dpa2.load(args.model) if args.model else default_model()
    frame = next(iter(read_structures(args.input)[0]))
    frame.coords = args.scale * frame.coords
    frame.box = None if frame.box is None else args.scale * frame.box
    types = frame.types_in(model.type_map)
    if args.zero is not None and len(args.zero) != len(model.type_map):
        raise SystemExit(f"--zero needs {len(model.type_map)} numbers, those of {', '.join(model.type_map)}")
    zero = 0.0 if args.zero is None else float(np.array(args.zero)[types].sum())
    rng = np.random.default_rng(args.seed)
    steps = langevin(model, frame, args.temperature, args.timestep, args.friction, rng)
    for _ in range(args.before):
        next(steps)

    args.output.mkdir(parents=True)
    writer = DeepmdWriter(str(args.output), model.type_map)
    print(f"{'frames':>8} {'T/K':>7} {'energy/eV':>15} {'max force':>10}")
    for k in range(args.frames):
        for _ in range(args.every):
            x, found, temperature = next(steps)
        energy = found.energy - zero
        labels = {"energy": energy, "virial": found.virial}
        writer.add(x, types, frame.box, frame.pbc, labels, {"force": found.forces})
        if (k + 1) % BLOCK == 0 or k + 1 == args.frames:
            largest = np.linalg.norm(found.forces, axis=1).max()
            print(f"{k + 1:8d} {temperature:7.1f} {energy:15.4f} {largest:10.3f}", flush=True)
    writer.flush()


if __name__ == "__main__":
    main()
