"""``dpa2 relax``: structures at a minimum of the energy, by ASE's optimizers."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..errors import InputError, WorkFailedError
from . import common
from .document import dump
from .simulating import (
    SUFFIXES,
    add_simulation_options,
    atoms_for,
    inputs_of,
    model_words,
    potential_of,
    show,
    structure_words,
    walk_of,
    written,
)

if TYPE_CHECKING:
    from ase import Atoms

    from ..data import Frame
    from ..simulation.relaxation import Relaxation
    from ..simulation.trajectories import Trajectory

EPILOG = """\
examples:
  dpa2 relax water.xyz -o relaxed.extxyz               atoms, the embedded model of water
  dpa2 relax -m model.pth POSCAR --cell -o out.extxyz  atoms and cell
  dpa2 relax -m model.pth POSCAR --cell --pressure 5   under 5 GPa
  dpa2 relax -m model.pth all.xyz --trajectory path.traj --optimizer fire
  dpa2 relax -m model.pth POSCAR --json > out.json

Every frame is relaxed. Atoms that the file fixes stay where they are: move_mask of extended XYZ, selective
dynamics of a POSCAR, constraints of ASE's formats; with --cell they keep their place in the cell.

Outputs have energy, forces and stress of each structure. One that has not converged after --steps is written as
it is then, and the status is 1. After Ctrl-C the outputs hold what was reached.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "relax",
        help="structures at a minimum of the energy",
        description="Relax structures: move atoms, and with --cell the cell, until forces are small.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("structures", metavar="STRUCTURE", nargs="+", help=common.STRUCTURE_HELP)
    parser.add_argument("-o", "--output", metavar="OUT", help="write the structures: .extxyz, .xyz or .traj")
    parser.add_argument("--trajectory", metavar="PATH", help="write all steps as well: .extxyz, .xyz or .traj")
    parser.add_argument("--cell", action="store_true", help="relax the cell as well")
    parser.add_argument(
        "--pressure", type=common.real, metavar="GPA", help="with --cell: the pressure from outside (default: 0)"
    )
    parser.add_argument(
        "--fmax",
        type=common.above_zero,
        default=0.01,
        metavar="F",
        help="until no force is larger, eV/angstrom (default: 0.01)",
    )
    parser.add_argument("--steps", type=common.natural, default=500, metavar="N", help="at most (default: 500)")
    parser.add_argument(
        "--optimizer", choices=("bfgs", "lbfgs", "fire"), default="bfgs", help="of ASE's (default: bfgs)"
    )
    add_simulation_options(parser)
    parser.set_defaults(run=run, program="relax")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    for path in (args.output, args.trajectory):
        common.check_output(path, SUFFIXES, inputs_of(args))
    if args.output is not None and args.output == args.trajectory:
        raise InputError(f"-o and --trajectory name the same file: {args.output}")
    if args.pressure is not None and not args.cell:
        raise InputError("--pressure acts on a cell that relaxes: give --cell as well")
    model = potential_of(args)
    from ..simulation.relaxation import Relaxation

    how = Relaxation(args.fmax, args.steps, args.optimizer, args.cell, args.pressure or 0.0)
    walk = walk_of(args)
    if args.output is None and not args.json:
        common.say("the relaxed structures are not written: there is no -o OUT")
    show(args, f"model       {model_words(args, model)}")
    report = _Report(args, walk)
    with ExitStack() as stack:
        output, path = (stack.enter_context(written(name)) for name in (args.output, args.trajectory))
        for frame in walk:
            atoms = atoms_for(frame, model, args)
            common.attempt(frame, _relax, frame, atoms, how, report, output, path)
    if not report.found:
        raise InputError("there are no frames in these structures")
    report.finish()


def _relax(
    frame: Frame, atoms: Atoms, how: Relaxation, report: _Report, output: Trajectory | None, path: Trajectory | None
) -> None:
    """Relax a frame, write and print it."""
    from ..simulation.structures import snapshot

    seen: list[Atoms] = []

    def on_step(step: int) -> None:
        seen[:] = [snapshot(atoms)]
        if path is not None:
            path.add(seen[0])
        report.step(frame, seen[0], step)

    try:
        converged = how.run(atoms, on_step)
    except (KeyboardInterrupt, WorkFailedError):
        if seen and output is not None:
            output.add(seen[0])
        raise
    if output is not None:
        output.add(seen[0])
    report.end(frame, seen[0], converged)


class _Report:
    """What is printed: every step of a single structure, a line for each of several, or JSON."""

    def __init__(self, args: argparse.Namespace, walk: common.Walk) -> None:
        self.args, self.walk = args, walk
        self.single = walk.total == 1
        self.found: list[dict[str, Any]] = []
        self.steps = 0
        self.before = 0.0

    def line(self, text: str) -> None:
        if not self.args.json:
            self.walk.print(text)

    def step(self, frame: Frame, atoms: Atoms, step: int) -> None:
        self.steps = step
        if step == 0:
            self.before = float(atoms.calc.results["energy"])
            if self.single:
                self.line(f"structure   {structure_words(atoms, frame.where.rsplit(', frame', 1)[0])}")
            if not self.found:
                kind = f"{'step':>6}" if self.single else f"{'frame':>6} {'atoms':>7} {'steps':>6}"
                moved = "" if self.single else f" {'gained/eV':>14}"
                self.line(f"{kind} {'energy/eV':>18}{moved} {'max force':>10} {'GPa':>9} {'volume':>11}")
        if self.single:
            self.line(f"{step:6d} {self._numbers(atoms)}")

    def end(self, frame: Frame, atoms: Atoms, converged: bool) -> None:
        from ..simulation.structures import is_periodic, pressure_of, remaining_force

        results = atoms.calc.results
        if not self.single:
            gained = self.before - float(results["energy"])
            numbers = self._numbers(atoms, f" {gained:14.8f}")
            late = "" if converged else "  not converged"
            self.line(f"{len(self.found):6d} {len(atoms):7d} {self.steps:6d} {numbers}{late}")
        self.found.append(
            {
                "where": frame.where,
                "converged": converged,
                "steps": self.steps,
                "energy": results["energy"],
                "energy_before": self.before,
                "max_force": remaining_force(atoms),
                "pressure_GPa": pressure_of(atoms),
                "volume": atoms.get_volume() if is_periodic(atoms) else None,
                "symbols": atoms.get_chemical_symbols(),
                "positions": atoms.positions,
                "cell": atoms.cell.array if atoms.pbc.any() else None,
                "pbc": atoms.pbc,
                "forces": results["forces"],
            }
        )

    def _numbers(self, atoms: Atoms, between: str = "") -> str:
        from ..simulation.structures import is_periodic, pressure_of, remaining_force

        pressure = pressure_of(atoms)
        gpa = "-" if pressure is None else f"{pressure:.4f}"
        volume = f"{atoms.get_volume():.3f}" if is_periodic(atoms) else "-"
        energy = float(atoms.calc.results["energy"])
        return f"{energy:18.8f}{between} {remaining_force(atoms):10.5f} {gpa:>9} {volume:>11}"

    def finish(self) -> None:
        """Say what was written, and what has not converged.

        Raises:
            WorkFailedError: not all has.
        """
        late = [k for k, entry in enumerate(self.found) if not entry["converged"]]
        if self.args.json:
            files = {"output": self.args.output, "trajectory": self.args.trajectory}
            dump({"converged": not late, "fmax": self.args.fmax, "frames": self.found, "files": files})
        else:
            if not late:
                what = "converged" if self.single else f"all {len(self.found)} structures have converged"
                self.line(f"{'converged' if self.single else 'done':<11} {self._end(what)}")
            for name in (self.args.output, self.args.trajectory):
                if name is not None:
                    self.line(f"written     {name}")
        if late:
            steps = f"{self.args.steps} step{'' if self.args.steps == 1 else 's'}"
            force = max(self.found[k]["max_force"] for k in late)
            many = "the structure has" if len(self.found) == 1 else f"{len(late)} of {len(self.found)} structures have"
            which = "" if len(self.found) == 1 else f" (the first is {self.found[late[0]]['where']})"
            raise WorkFailedError(
                f"{many} not converged after {steps}{which}: forces of up to {force:.4g} eV/angstrom are left"
                f"{' beside those on the cell' if self.args.cell else ''}; give more --steps, or another --optimizer"
            )

    def _end(self, what: str) -> str:
        entry = self.found[0]
        if not self.single:
            return what
        gained = entry["energy_before"] - entry["energy"]
        return f"after {entry['steps']} steps, the energy went down by {gained:.6f} eV"
