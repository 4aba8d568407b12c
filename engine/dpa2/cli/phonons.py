"""``dpa2 phonons``: bands, density of states and thermal properties, by phonopy."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from .. import optional
from ..errors import InputError
from . import common
from .document import dump
from .simulating import (
    add_simulation_options,
    add_structure,
    atoms_for,
    describe,
    frame_of,
    inputs_of,
    picture_checked,
    potential_of,
    show,
)

if TYPE_CHECKING:
    from ase import Atoms

    from ..data import Frame
    from ..simulation.phonons import Found, Phonons

#: eV/angstrom; of larger forces a warning says that the structure is not at its minimum
SMALL_FORCE = 0.01
MOST_ROWS = 12

EPILOG = """\
examples:
  dpa2 relax -m model.pth POSCAR --cell --fmax 0.001 --precision float64 -o relaxed.extxyz
  dpa2 phonons -m model.pth relaxed.extxyz --supercell 3 3 3 --plot phonons.png
  dpa2 phonons -m model.pth relaxed.extxyz --path GXWKGL --mesh 30 30 30 -o folder
  phonopy-load folder/phonopy.yaml --mesh 40 40 40    phonopy goes on from there

The folder has phonopy.yaml (cell, supercell, displacements, forces), FORCE_SETS, FORCE_CONSTANTS, band.yaml,
total_dos.dat and thermal_properties.yaml. Frequencies are in THz, imaginary ones negative. Free energies are in
kJ, entropies and heat capacities in J/K, per mole of primitive cells.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "phonons",
        help="phonon bands, density of states, thermal properties",
        description="Phonons of a crystal by finite displacements, with phonopy.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    add_structure(parser)
    parser.add_argument(
        "--supercell",
        type=common.positive,
        nargs=3,
        default=[2, 2, 2],
        metavar="N",
        help="cells along each lattice vector (default: 2 2 2)",
    )
    parser.add_argument(
        "--distance", type=common.above_zero, default=0.01, metavar="D", help="displacement, angstrom (default: 0.01)"
    )
    parser.add_argument(
        "--path", default="auto", metavar="PATH", help="special points as GXWK,UL (default: auto, that of the lattice)"
    )
    parser.add_argument(
        "--mesh", type=common.positive, nargs=3, default=[20, 20, 20], metavar="N", help="(default: 20 20 20)"
    )
    parser.add_argument(
        "--temperatures",
        type=common.real,
        nargs=3,
        default=[0.0, 1000.0, 100.0],
        metavar="K",
        help="the first, the last and the step of the table (default: 0 1000 100)",
    )
    parser.add_argument(
        "-o", "--output", default="phonons", metavar="DIR", help="folder for phonopy's files (default: phonons)"
    )
    parser.add_argument("--plot", metavar="PNG", help="draw bands and density of states: .png, .pdf or .svg")
    add_simulation_options(parser, precision="float64")
    parser.set_defaults(run=run, program="phonons")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    low, high, step = args.temperatures
    if not (0.0 <= low <= high and step > 0.0):
        raise InputError("--temperatures must be the first, the last and the step, as in 0 1000 100")
    picture_checked(args.plot, inputs_of(args))
    optional.ase("ase", "dpa2 phonons")
    optional.phonopy()
    _check_folder(args.output)
    model = potential_of(args)
    frame = frame_of(args)
    atoms = atoms_for(frame, model, args)
    from ..simulation.phonons import Phonons

    describe(args, model, atoms, frame.where.rsplit(", frame", 1)[0])
    phonons = common.attempt(frame, Phonons, atoms, args.supercell, args.distance)
    phonons.check_path(args.path)
    cells = " x ".join(map(str, args.supercell))
    show(
        args,
        f"supercell   {cells}, {len(phonons.phonopy.supercell)} atoms, {phonons.displacements} "
        f"displacement{'' if phonons.displacements == 1 else 's'} of {args.distance:g} angstrom; "
        f"{len(phonons.phonopy.primitive)} atoms in the primitive cell",
    )
    force = _check_forces(frame, atoms)
    _evaluate(frame, phonons)
    found = phonons.analyse(args.path, args.mesh, tuple(args.temperatures))
    _write(args, phonons, found)
    _warn(found)
    if args.json:
        dump(_facts(args, phonons, found, force))
    else:
        _say(args, found)


def _check_folder(path: str) -> None:
    """Refuse a folder that cannot be made, or that has other things in it than those of an earlier run."""
    from ..outputs import check_writable
    from ..simulation.phonons import FILES

    if os.path.lexists(path) and not os.path.isdir(path):
        raise InputError(f"the folder to write to is a file: {path}")
    above = os.path.dirname(os.path.normpath(path)) or "."
    if not os.path.isdir(above):
        raise InputError(f"the folder of the output does not exist: {above}")
    if os.path.isdir(path):
        others = sorted(set(os.listdir(path)) - set(FILES))
        if others:
            raise InputError(f"the folder to write to has other files in it, such as {others[0]}: {path}")
    else:
        check_writable(path)


def _check_forces(frame: Frame, atoms: Atoms) -> float:
    """The largest force, with a warning if it is not small."""
    from ..simulation.structures import largest_force

    force = largest_force(common.attempt(frame, atoms.get_forces, apply_constraint=False))
    if force > SMALL_FORCE:
        common.say(
            f"warning: forces of up to {force:.4g} eV/angstrom: the structure is not at its minimum, and phonons mean "
            "little there; relax it first (dpa2 relax --fmax 0.001, with --cell for the cell)"
        )
    return force


def _evaluate(frame: Frame, phonons: Phonons) -> None:
    from tqdm import tqdm

    hidden = True if sys.stderr is None or phonons.displacements < 2 else None
    with tqdm(total=phonons.displacements, unit="structure", disable=hidden, leave=False) as bar:
        common.attempt(frame, phonons.evaluate, bar.update)


def _write(args: argparse.Namespace, phonons: Phonons, found: Found) -> None:
    from ..outputs import replacing_folder

    with replacing_folder(args.output) as part:
        phonons.write(part)
    if args.plot is not None:
        from ..simulation.pictures import draw_phonons

        draw_phonons(args.plot, found)


def _warn(found: Found) -> None:
    """Name imaginary modes."""
    from ..simulation.phonons import IMAGINARY

    lowest, where = found.lowest
    if lowest < -IMAGINARY:
        place = " ".join(f"{value:.4g}" for value in where)
        common.say(
            f"warning: imaginary modes: the lowest is {-lowest:.4g}i THz at q = ({place}), and "
            f"{found.imaginary_share:.1%} of those on the mesh are imaginary. The "
            "structure is no minimum, or the supercell or the forces are too coarse; "
            "thermal properties leave these modes out"
        )


def _facts(args: argparse.Namespace, phonons: Phonons, found: Found, force: float) -> dict[str, Any]:
    bands = found.bands
    return {
        "supercell": args.supercell,
        "displacements": phonons.displacements,
        "natoms": len(phonons.atoms),
        "natoms_primitive": len(phonons.phonopy.primitive),
        "max_force": force,
        "lowest_THz": found.lowest[0],
        "lowest_q": found.lowest[1],
        "imaginary_share": found.imaginary_share,
        "bands": {
            "labels": bands.labels,
            "connected": bands.connected,
            "qpoints": bands.qpoints,
            "distances": bands.distances,
            "frequencies_THz": bands.frequencies,
        },
        "dos": {"frequencies_THz": found.dos[0], "per_THz": found.dos[1]},
        "thermal": {
            "temperatures_K": found.thermal[:, 0],
            "free_energy_kJ_mol": found.thermal[:, 1],
            "entropy_J_K_mol": found.thermal[:, 2],
            "heat_capacity_J_K_mol": found.thermal[:, 3],
        },
        "files": {"output": args.output, "plot": args.plot},
    }


def _say(args: argparse.Namespace, found: Found) -> None:
    for name, frequencies in _at_points(found).items():
        shown = " ".join(f"{value:.3f}" for value in frequencies[:MOST_ROWS])
        show(args, f"{'at ' + name:<11} {shown}{' ...' if len(frequencies) > MOST_ROWS else ''} THz")
    show(args, f"{'T/K':>9} {'F/kJ/mol':>12} {'S/J/K/mol':>12} {'Cv/J/K/mol':>12}")
    for temperature, free, entropy, capacity in found.thermal:
        show(args, f"{temperature:9.1f} {free:12.5f} {entropy:12.5f} {capacity:12.5f}")
    show(args, f"written     {args.output}{f', {args.plot}' if args.plot else ''}")


def _at_points(found: Found) -> dict[str, Any]:
    """The frequencies at the special points of the path."""
    from ..simulation.phonons import ends_of

    frequencies: dict[str, Any] = {}
    for (first, last), segment in zip(ends_of(found.bands), found.bands.frequencies, strict=True):
        frequencies.setdefault(first, segment[0])
        frequencies.setdefault(last, segment[-1])
    return frequencies
