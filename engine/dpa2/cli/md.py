"""``dpa2 md``: molecular dynamics, by ASE's integrators."""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

from ..errors import InputError
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
)

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from ..data import Frame
    from ..model import Model
    from ..simulation.dynamics import Settings
    from ..simulation.run import Files, Intervals

#: fs, where --tdamp says nothing
_TDAMP = {"langevin": 1000.0}

EPILOG = """\
examples:
  dpa2 md water.xyz --ensemble nve --temperature 300 --timestep 0.5 --steps 2000
  dpa2 md -m model.pth POSCAR --ensemble nvt --temperature 300 --timestep 1 --time 10 -o run.traj
  dpa2 md -m model.pth POSCAR --ensemble npt --temperature 300 --pressure 0.0001 --timestep 1 --time 50
  dpa2 md ... --restart                            the same command: goes on with its run, or makes it longer

-o OUT.extxyz is the trajectory; beside it grow OUT.log, a table with every --log-interval steps, and
OUT.restart.npz. The trajectory and the restart file are brought up to date every --interval steps, and after the
last one, after Ctrl-C and after SIGTERM. A run that was killed goes on from its last interval.

NVT is the thermostat of Bussi (velocity rescaling), Langevin, or a chain of Nose and Hoover; NPT the barostat of
Martyna, Tobias and Klein, which keeps the shape of the cell, or Berendsen's, for equilibration.

A run that goes astray (numbers that are not finite, an absurd temperature or volume, a lost atom) ends with status 1.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "md",
        help="molecular dynamics",
        description="Molecular dynamics of a structure: NVE, NVT or NPT.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    add_structure(parser)
    parser.add_argument("--ensemble", choices=("nve", "nvt", "npt"), required=True, help="what is constant")
    parser.add_argument(
        "--temperature", type=common.above_zero, metavar="K", help="of the thermostat, and of the first velocities"
    )
    parser.add_argument("--pressure", type=common.real, metavar="GPA", help="of npt (default: 0)")
    parser.add_argument("--timestep", type=common.above_zero, required=True, metavar="FS", help="femtoseconds")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=common.positive, metavar="N", help="steps of the whole run")
    length.add_argument("--time", type=common.above_zero, metavar="PS", help="or its length in picoseconds")
    parser.add_argument("--thermostat", choices=("bussi", "langevin", "nose-hoover"), help="of nvt (default: bussi)")
    parser.add_argument("--barostat", choices=("mtk", "berendsen"), help="of npt (default: mtk)")
    parser.add_argument(
        "--tdamp",
        type=common.above_zero,
        metavar="FS",
        help="time constant of the thermostat (default: 100; langevin: 1000, the inverse friction)",
    )
    parser.add_argument(
        "--pdamp", type=common.above_zero, metavar="FS", help="time constant of the barostat (default: 1000)"
    )
    parser.add_argument(
        "--compressibility",
        type=common.above_zero,
        metavar="1/GPA",
        help="of --barostat berendsen (default: 0.46, water)",
    )
    parser.add_argument(
        "--velocities",
        choices=("new", "file"),
        default="new",
        help="drawn, of --temperature, or those of the structure file (default: new)",
    )
    parser.add_argument("--seed", type=common.natural, metavar="N", help="of random numbers (default: a new one)")
    parser.add_argument(
        "-o",
        "--output",
        default="md.extxyz",
        metavar="OUT",
        help="the trajectory: .extxyz, .xyz or .traj (default: %(default)s)",
    )
    parser.add_argument(
        "--interval", type=common.positive, default=100, metavar="N", help="steps between frames (default: 100)"
    )
    parser.add_argument(
        "--log-interval", type=common.positive, default=10, metavar="N", help="steps between rows (default: 10)"
    )
    parser.add_argument("--restart", action="store_true", help="go on with the run of these outputs")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where an unfinished run is there")
    parser.add_argument("--plot", metavar="PNG", help="draw energy, temperature, pressure, drift: .png, .pdf, .svg")
    add_simulation_options(parser)
    parser.set_defaults(run=run, program="md")


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    _check_options(args)
    steps = _steps(args)
    common.check_output(args.output, SUFFIXES, inputs_of(args))
    picture_checked(args.plot, inputs_of(args))
    model = potential_of(args)
    frame = frame_of(args)
    from ..simulation.run import Files, check_job, progress_of, read_restart

    stem = args.output.rpartition(".")[0]
    files = Files(args.output, f"{stem}.log", f"{stem}.restart.npz")
    for path in (files.log, files.restart):
        common.check_output(path, ("",), inputs_of(args))
    state = read_restart(files.restart) if args.restart else None
    _check_unfinished(args, files)
    settings = _settings(args, state)
    atoms = atoms_for(frame, model, args)
    job = _job(args, model, settings)
    if state is not None:
        check_job(files.restart, state, job, atoms)
        step, _ = progress_of(state)
        if step > steps:
            raise InputError(f"{files.restart}: the run is at step {step} already; give more than that with --steps")
    describe(args, model, atoms, frame.where.rsplit(", frame", 1)[0])
    show(args, f"run         {settings.words()}, {steps} steps of {steps * settings.timestep / 1000.0:g} ps in all")
    went = None
    if state is None or progress_of(state)[0] < steps:
        went = _go(args, steps, frame, atoms, model, settings, files, state, job)
    else:
        show(args, f"complete    {files.restart} is at step {steps} already")
    _finish(args, steps, settings, files, len(atoms), went)


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that do not go together."""
    of = {
        "pressure": "npt",
        "barostat": "npt",
        "pdamp": "npt",
        "compressibility": "npt",
        "thermostat": "nvt",
    }
    for name, ensemble in of.items():
        if getattr(args, name) is not None and args.ensemble != ensemble:
            raise InputError(f"--{name} is for --ensemble {ensemble}, and this is {args.ensemble}")
    if args.tdamp is not None and args.ensemble == "nve":
        raise InputError("--tdamp is for a thermostat, and nve has none")
    if args.compressibility is not None and args.barostat != "berendsen":
        raise InputError("--compressibility is for --barostat berendsen")
    if args.temperature is None and (args.ensemble != "nve" or args.velocities == "new"):
        raise InputError(f"--ensemble {args.ensemble} needs a --temperature, in K")
    if args.restart and args.overwrite:
        raise InputError("--restart goes on with a run, --overwrite begins anew: give one of them")


def _steps(args: argparse.Namespace) -> int:
    if args.steps is not None:
        return int(args.steps)
    steps: int = round(args.time * 1000.0 / args.timestep)
    if steps < 1:
        raise InputError(f"--time {args.time:g} ps is less than a step of {args.timestep:g} fs")
    return steps


def _check_unfinished(args: argparse.Namespace, files: Files) -> None:
    """Refuse to write over a run that is not finished."""
    from ..simulation.run import progress_of, read_restart

    if args.restart or args.overwrite or not os.path.exists(files.restart):
        return
    step, steps = progress_of(read_restart(files.restart))
    if step < steps:
        raise InputError(
            f"{files.restart} is of a run that is at step {step} of {steps}: go on with --restart, begin anew with "
            "--overwrite, or choose another -o"
        )


def _settings(args: argparse.Namespace, state: dict[str, Any] | None) -> Settings:
    """The settings; a seed that is not given is that of the run to go on with, or drawn."""
    import json
    import secrets

    from ..simulation.dynamics import Settings

    thermostat = (args.thermostat or "bussi") if args.ensemble == "nvt" else ""
    barostat = (args.barostat or "mtk") if args.ensemble == "npt" else ""
    seed = args.seed
    if seed is None:
        seed = secrets.randbits(31) if state is None else json.loads(str(state["said"]))["job"]["seed"]
    return Settings(
        args.ensemble,
        args.timestep,
        args.temperature,
        args.pressure or 0.0,
        thermostat,
        barostat,
        args.tdamp or _TDAMP.get(thermostat, 100.0),
        args.pdamp or 1000.0,
        args.compressibility or 0.46,
        seed,
    )


def _job(args: argparse.Namespace, model: Model, settings: Settings) -> dict[str, Any]:
    """What a run must have in common with the one that it goes on with."""
    return {
        **settings.facts(),
        "model": common.digest_of(model),
        "precision": model.precision,
        "interval": args.interval,
        "log_interval": args.log_interval,
        "fparam": args.fparam,
        "aparam": args.aparam,
    }


def _go(
    args: argparse.Namespace,
    steps: int,
    frame: Frame,
    atoms: Atoms,
    model: Model,
    settings: Settings,
    files: Files,
    state: dict[str, Any] | None,
    job: dict[str, Any],
) -> tuple[int, float]:
    """Make the run; its steps and the seconds that they took."""
    import numpy as np

    from ..simulation.dynamics import Integrator, check, restore_atoms
    from ..simulation.run import Intervals, Run, go

    intervals = Intervals(args.interval, args.log_interval)
    generator = np.random.default_rng(settings.seed)
    common.attempt(frame, check, atoms, settings)
    if state is None:
        common.attempt(frame, _start, atoms, args, settings, generator)
    else:
        restore_atoms(atoms, state)
        show(args, f"going on    after step {int(_step(state))} of {files.restart}")
    run = Run(Integrator(atoms, settings, generator), steps, files, intervals, job, model.rcut)
    report = _Table(args, intervals)
    begin, first = time.perf_counter(), run.step if state is None else _step(state)
    common.attempt(frame, atoms.get_forces)
    try:
        common.attempt(frame, go, run, state, report.add)
    except KeyboardInterrupt:
        common.say(f"{files.trajectory}, {files.restart}: the run up to step {run.step}")
        raise
    return run.step - first, time.perf_counter() - begin


def _step(state: dict[str, Any]) -> int:
    from ..simulation.run import progress_of

    return progress_of(state)[0]


def _start(atoms: Atoms, args: argparse.Namespace, settings: Settings, generator: np.random.Generator) -> None:
    """The first velocities."""
    from ..simulation.dynamics import remove_net_momentum, start_velocities

    if args.velocities == "new":
        start_velocities(atoms, settings.temperature or 0.0, generator)
        return
    if not atoms.has("momenta"):
        raise InputError("the file has no momenta for --velocities file: a column momenta:R:3 in extended XYZ")
    remove_net_momentum(atoms)
    if not atoms.get_momenta().any() and settings.ensemble != "nve":
        raise InputError("the momenta of the file are all zero, which a thermostat cannot scale: draw new velocities")


class _Table:
    """The rows on stdout: those of the frames."""

    def __init__(self, args: argparse.Namespace, intervals: Intervals) -> None:
        self.args, self.every = args, intervals.frames
        show(
            args,
            f"{'step':>9} {'time/ps':>10} {'E_pot/eV':>16} {'E_kin/eV':>12} {'T/K':>9} {'P/GPa':>9} "
            f"{'conserved/eV':>16} {'volume':>11}",
        )

    def add(self, row: list[float]) -> None:
        import math

        step, ps, potential, kinetic, temperature, pressure, conserved, volume = row
        if step % self.every:
            return
        gpa = "-" if math.isnan(pressure) else f"{pressure:.4f}"
        kept = "-" if math.isnan(conserved) else f"{conserved:.6f}"
        size = "-" if math.isnan(volume) else f"{volume:.3f}"
        line = f"{int(step):9d} {ps:10.4f} {potential:16.6f} {kinetic:12.6f} {temperature:9.2f} {gpa:>9}"
        show(self.args, f"{line} {kept:>16} {size:>11}")


def _finish(
    args: argparse.Namespace,
    steps: int,
    settings: Settings,
    files: Files,
    natoms: int,
    went: tuple[int, float] | None,
) -> None:
    """Means, drift, picture, and what was written."""
    from ..simulation.run import read_log
    from ..simulation.summary import Summary

    columns = read_log(files.log)
    summary = Summary(columns, natoms)
    if args.plot is not None:
        from ..simulation.pictures import draw_dynamics

        draw_dynamics(args.plot, columns, natoms, settings.words())
    speed = None if went is None else went[0] * settings.timestep * 86400.0 / max(went[1], 1e-9) / 1e6
    if args.json:
        names = {"trajectory": files.trajectory, "log": files.log, "restart": files.restart, "plot": args.plot}
        document = {"settings": settings.facts(), "steps": steps, "time_ps": steps * settings.timestep / 1000.0}
        dump({**document, **summary.facts(), "ns_per_day": speed, "files": names})
        return
    for line in summary.lines():
        show(args, line)
    if speed is not None:
        show(args, f"speed       {speed:.4g} ns/day")
    written = [files.trajectory, files.log, files.restart, *([args.plot] if args.plot else [])]
    show(args, f"written     {', '.join(written)}")
