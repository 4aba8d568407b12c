"""``dpa2 eos``: energy over volume, and the bulk modulus, by ASE's equation of state."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import InputError, WorkFailedError
from . import common
from .document import dump
from .simulating import (
    SUFFIXES,
    add_simulation_options,
    add_structure,
    atoms_for,
    describe,
    frame_of,
    inputs_of,
    picture_checked,
    potential_of,
    show,
    written,
)

if TYPE_CHECKING:
    from ase import Atoms

    from ..simulation.equation_of_state import Fit

FEWEST = 4

EPILOG = """\
examples:
  dpa2 eos -m model.pth POSCAR                         11 volumes, the lattice vectors by 3 % either way
  dpa2 eos -m model.pth POSCAR --strain 0.05 --points 15 --relax
  dpa2 eos -m model.pth POSCAR --plot eos.png -o volumes.extxyz --json > eos.json

The cell keeps its shape. Atoms are scaled with it, and with --relax relax in each. Of the equation of Birch and
Murnaghan, third order, the volume V0, energy E0, bulk modulus B and its derivative by the pressure B' are printed.
A fit without a minimum among the volumes is an error, status 1; of a doubtful one a warning says why.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "eos",
        help="energy over volume, bulk modulus",
        description="Equation of state: energies of a structure at several volumes, equilibrium volume, bulk modulus.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    add_structure(parser)
    parser.add_argument(
        "--strain",
        type=common.above_zero,
        default=0.03,
        metavar="S",
        help="the lattice vectors go from 1 - S to 1 + S times what they are (default: 0.03)",
    )
    parser.add_argument(
        "--points", type=common.positive, default=11, metavar="N", help="volumes, at least 4 (default: 11)"
    )
    parser.add_argument("--relax", action="store_true", help="relax the atoms in every cell")
    parser.add_argument(
        "--fmax", type=common.above_zero, default=0.01, metavar="F", help="of --relax, eV/angstrom (default: 0.01)"
    )
    parser.add_argument(
        "--steps", type=common.positive, default=500, metavar="N", help="of --relax, at most (default: 500)"
    )
    parser.add_argument("-o", "--output", metavar="OUT", help="write the structures: .extxyz, .xyz or .traj")
    parser.add_argument("--plot", metavar="PNG", help="draw points and fit: .png, .pdf or .svg")
    add_simulation_options(parser, precision="float64")
    parser.set_defaults(run=run, program="eos")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if args.points < FEWEST:
        raise InputError(f"--points must be {FEWEST} or more, as many as the equation has parameters")
    if args.strain >= 0.5:
        raise InputError(f"--strain {args.strain:g}: lattice vectors change by less than half of what they are")
    common.check_output(args.output, SUFFIXES, inputs_of(args))
    picture_checked(args.plot, inputs_of(args))
    model = potential_of(args)
    frame = frame_of(args)
    atoms = atoms_for(frame, model, args)
    from ..simulation.equation_of_state import energies_over_volumes, fit
    from ..simulation.relaxation import Relaxation

    describe(args, model, atoms, frame.where.rsplit(", frame", 1)[0])
    relaxation = Relaxation(args.fmax, args.steps) if args.relax else None
    show(args, f"{'volume/A^3':>12} {'energy/eV':>18} {'max force':>10} {'GPa':>9}")
    late: list[float] = []
    with written(args.output) as output:

        def on_point(point: Atoms, converged: bool) -> None:
            if output is not None:
                output.add(point)
            _row(args, point, converged)
            if not converged:
                late.append(point.get_volume())

        volumes, energies = common.attempt(
            frame, energies_over_volumes, atoms, args.strain, args.points, relaxation, on_point
        )
    if late:
        common.say(
            f"warning: the atoms have not converged at {len(late)} of {args.points} volumes (the first is "
            f"{late[0]:.3f} angstrom^3); give more --steps"
        )
    document: dict[str, Any] = {"natoms": len(atoms), "volumes": volumes, "energies": energies, "fit": None}
    files = {"output": args.output, "plot": args.plot}
    try:
        found = common.attempt(frame, fit, volumes, energies)
    except WorkFailedError:
        if args.json:
            dump({**document, "files": {**files, "plot": None}})
        raise
    if args.plot is not None:
        from ..simulation.pictures import draw_equation_of_state

        draw_equation_of_state(args.plot, volumes, energies, found, len(atoms))
    for doubt in found.doubts:
        common.say(f"warning: {doubt}")
    if args.json:
        dump({**document, "fit": _facts(found), "files": files})
        return
    _say(args, found, len(atoms))
    for name in files.values():
        if name is not None:
            show(args, f"written     {name}")


def _row(args: argparse.Namespace, point: Atoms, converged: bool) -> None:
    from ..simulation.structures import pressure_of, remaining_force

    numbers = f"{point.get_volume():12.4f} {point.get_potential_energy():18.8f} {remaining_force(point):10.5f}"
    show(args, f"{numbers} {pressure_of(point) or 0.0:9.4f}{'' if converged else '  not converged'}")


def _facts(found: Fit) -> dict[str, Any]:
    return {
        "V0": found.volume,
        "E0": found.energy,
        "B_GPa": found.bulk_modulus,
        "B_derivative": found.derivative,
        "residual": found.residual,
        "doubts": found.doubts,
    }


def _say(args: argparse.Namespace, found: Fit, natoms: int) -> None:
    show(args, f"V0          {found.volume:.4f} angstrom^3, {found.volume / natoms:.4f} per atom")
    show(args, f"E0          {found.energy:.8f} eV, {found.energy / natoms:.8f} per atom")
    show(args, f"B           {found.bulk_modulus:.3f} GPa, B' {found.derivative:.3f}")
    show(args, f"residual    {found.residual:.3g} eV, root mean square")
