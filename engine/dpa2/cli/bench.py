"""``dpa2 bench``: speed, memory and correctness of a model on a large box made of copies of a small one."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, OutOfMemoryError, WorkFailedError
from . import common
from .document import add_json_option, dump
from .reading import add_reading_options, reading_options

if TYPE_CHECKING:
    from ..data import Frame
    from ..inputs import Float
    from ..model import Model
    from ..results import Result

WATER_BOX = "water_192.extxyz"
SHIFT = 0.01  # angstrom: how far atoms are moved from step to step
SECONDS, MOST_STEPS = 10.0, 20  # without --steps: until either is reached
# What copies may differ by: the mean energy of an atom relative to the largest one, forces in eV/angstrom and numbers
# of other kinds of models (relative to the largest one where that is larger than 1).
TOLERANCE = {"float64": (1e-10, 1e-8), "float32": (1e-6, 1e-4)}

# Bytes per atom of the arrays here, and the least share of Model.memory_estimate that an evaluation can do with.
ARRAYS = 100
LEAST_SHARE = 0.4

EPILOG = """\
examples:
  dpa2 bench                                     192 atoms of water, the embedded model
  dpa2 bench -m model.pth --atoms 10000          at least 10,000 atoms
  dpa2 bench --atoms 1000000 --precision float32 --steps 1
  dpa2 bench -m alloy.pth POSCAR --atoms 5000    a structure of your own
  dpa2 bench --atoms 1536 --json                 for programs

The box is repeated until there are as many atoms as asked for. Copies have the energy and the
forces of the small box: their largest differences from it are printed, and the command fails when
they exceed rounding. A step is energy, forces and virial, after all atoms have moved a little. With
a model of another kind it is all its outputs, and those of the atoms are compared.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "bench",
        help="speed and memory of a model on this machine",
        description="Time energy + forces + virial of a periodic box, repeated to the size asked for; of models of\n"
        "other kinds all their outputs.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument(
        "structure", metavar="STRUCTURE", nargs="?", help="periodic structure (default: 192 atoms of liquid water)"
    )
    parser.add_argument("--atoms", type=common.positive, metavar="N", help="at least N atoms (default: one box)")
    parser.add_argument(
        "--steps",
        type=common.positive,
        metavar="N",
        help=f"timed steps (default: {SECONDS:g} seconds, at most {MOST_STEPS})",
    )
    add_json_option(parser)
    common.add_model_options(parser)
    common.add_parameter_options(parser)
    add_reading_options(parser)
    parser.set_defaults(run=run)


@dataclass
class Report:
    """What a run found out. Times in seconds, energies in eV, memory in bytes.

    Models of other kinds than energies have, in place of the last three, the largest differences of the atoms' values
    and of their derivatives, if there are any.
    """

    model: str
    kind: str
    precision: str
    device: str
    threads: int
    isa: str
    structure: str
    copies: tuple[int, int, int]
    atoms: int
    load_time: float
    first_step: float
    step_times: list[float]
    step: float
    per_atom: float
    peak_memory: int
    peak_memory_per_atom: float
    energy_per_atom: float | None = None
    energy_error: float | None = None
    force_error: float | None = None
    value_error: float | None = None
    derivative_error: float | None = None

    def differences(self) -> list[tuple[str, float | None, str, float]]:
        """How copies differ from the small box: of what, by how much, in which unit, and how much is allowed."""
        energy, force = TOLERANCE[self.precision]
        found = [
            ("relative difference of the energy", self.energy_error, "", energy),
            ("of a force", self.force_error, " eV/angstrom", force),
            (f"difference of a number of an atom ({self.kind})", self.value_error, "", force),
            ("of a derivative", self.derivative_error, "", force),
        ]
        return [difference for difference in found if difference[1] is not None]


def water_box() -> Frame:
    """64 molecules of liquid water in a cubic box."""
    from importlib.resources import as_file, files

    from ..data import read_structures

    with as_file(files("dpa2").joinpath("models").joinpath(WATER_BOX)) as path:
        return next(iter(read_structures(str(path))[0]))


def copies_for(atoms: int, natoms: int) -> tuple[int, int, int]:
    """How often to repeat a box of ``natoms`` in each direction: the fewest copies that hold at least ``atoms``.

    No direction gets more than three times the copies of another.
    """
    wanted = max(1, -(-atoms // natoms))
    root = max(1, round(wanted ** (1 / 3)) - 1)
    while root**3 < wanted:
        root += 1
    best = (root**3, 0, (root, root, root))
    for x in range(1, root + 1):
        for y in range(x, 3 * x + 1):
            z = max(y, -(-wanted // (x * y)))
            if z <= 3 * x:
                best = min(best, (x * y * z, z - x, (x, y, z)))
    return best[2]


def require_memory(model: Model, frame: Frame, atoms: int) -> None:
    """Refuse a box that cannot fit into memory, before anything of its size is made.

    Raises:
        OutOfMemoryError: with what it needs at least, and what there is.
    """
    from .. import _native

    per_atom = float(ARRAYS)
    if model.device == "cpu":
        sample = min(atoms, 10**8)  # from there on memory is proportional to the atoms
        density = len(frame) / frame.volume if frame.volume else None
        per_atom += LEAST_SHARE * model.memory_estimate(sample, density) / sample
    needed = atoms * int(per_atom)
    available, limit = _native.available_memory()
    if needed > available:
        raise OutOfMemoryError(
            f"a box of {atoms:,} atoms needs at least {_gib(needed)} of memory ({int(per_atom):,} bytes per atom), but "
            f"{limit or 'an address space'} leaves {_gib(available)}: give fewer --atoms"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.4g} GiB" if size < 2**200 else "more than any machine's"


def replicate(coords: Float, box: Float, copies: tuple[int, int, int]) -> tuple[Float, Float]:
    """Copies of a box: coords (ncopies * n, 3), all atoms of a copy together, and the box of all of them (3, 3)."""
    import numpy as np

    shifts = np.stack(np.meshgrid(*map(np.arange, copies), indexing="ij"), axis=-1).reshape(-1, 3) @ box
    return (shifts[:, None, :] + coords).reshape(-1, 3), box * np.array(copies)[:, None]


def peak_memory() -> int:
    """The most memory that this process has held so far, bytes."""
    try:
        with open("/proc/self/status") as handle:
            for line in handle:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    frame = _read(args.structure, reading_options(args))
    start = time.perf_counter()
    model = common.load_model(args)
    load_time = time.perf_counter() - start
    name = "water" if args.structure is None else os.path.basename(args.structure.rstrip("/"))
    report = measure(model, frame, name, args, load_time)
    if args.json:
        dump(asdict(report))
    else:
        show(report)
    differences = report.differences()
    if not all(error is not None and error <= allowed for _, error, _, allowed in differences):
        said = ", ".join(
            f"{words} {error:.1e}{unit} (allowed {allowed:g})" for words, error, unit, allowed in differences
        )
        what = "energy and forces" if report.force_error is not None else "values"
        raise WorkFailedError(f"the copies do not have the {what} of the small box: {said}")


def _read(path: str | None, reading: dict[str, Any]) -> Frame:
    from ..data import read_structures

    if path is None:
        return water_box()
    frame = next((frame for source in read_structures(path, **reading) for frame in source), None)
    if frame is None or len(frame) == 0:
        raise InputError(f"{path}: no atoms")
    if frame.box is None or not all(frame.pbc):
        raise InputError(f"{frame.where}: a structure that is not periodic in all directions cannot be repeated")
    return frame


def measure(model: Model, frame: Frame, name: str, args: argparse.Namespace, load_time: float) -> Report:
    """Evaluate the small box once, its copies once for the comparison, and then step by step."""
    import numpy as np
    from tqdm import tqdm

    from ..streams import Parameters

    assert frame.box is not None
    natoms = len(frame)
    small_types = frame.types_in(model.type_map)
    parameters = Parameters.of(model, args.fparam, args.aparam).keywords(frame)
    small = common.attempt(frame, model.evaluate, frame.coords, small_types, frame.box, **parameters)
    require_memory(model, frame, max(args.atoms or natoms, natoms))
    copies = copies_for(args.atoms or natoms, natoms)
    count = math.prod(copies)
    coords, box = replicate(frame.coords, frame.box, copies)
    types = np.tile(small_types, count)
    for of_atoms in ("aparam", "spin"):
        if np.ndim(parameters.get(of_atoms, 0.0)) == 2:
            parameters[of_atoms] = np.tile(parameters[of_atoms], (count, 1))

    start = time.perf_counter()
    result = common.attempt(frame, model.evaluate, coords, types, box, **parameters)
    first = time.perf_counter() - start
    found = _compared(model, small, result, count)
    del result

    rng = np.random.default_rng(0)
    moved = np.empty_like(coords)
    times: list[float] = []
    most = args.steps or MOST_STEPS
    with tqdm(total=args.steps, unit="step", disable=None, leave=False) as bar:
        while len(times) < most and (args.steps or sum(times) < SECONDS or not times):
            moved[:] = coords
            for axis in range(3):  # one axis at a time: the noise then needs less memory
                moved[:, axis] += rng.uniform(-SHIFT, SHIFT, len(coords))
            start = time.perf_counter()
            common.attempt(frame, model.evaluate, moved, types, box, **parameters)
            times.append(time.perf_counter() - start)
            bar.update()
    step, peak = float(np.median(times)), peak_memory()
    return Report(
        model=common.model_name(args),
        kind=model.kind,
        precision=model.precision,
        device=model.device,
        threads=model.threads,
        isa=_isa(model),
        structure=name,
        copies=copies,
        atoms=len(coords),
        load_time=load_time,
        first_step=first,
        step_times=times,
        step=step,
        per_atom=step / len(coords),
        peak_memory=peak,
        peak_memory_per_atom=peak / len(coords),
        **found,
    )


def _compared(model: Model, small: Result, result: Result, count: int) -> dict[str, float]:
    """What a report says of the values of ``count`` copies."""
    import numpy as np

    from ..quantities import weighable

    def largest(name: str) -> float:
        expected = small.outputs[name]
        error = float(np.abs(result.outputs[name].reshape(count, *expected.shape) - expected).max())
        return error / max(1.0, float(np.abs(expected).max()))

    if model.kind not in ("energy", "spin"):
        values = [output.name for output in model.outputs if weighable(output)]
        found = {"value_error": max(largest(name) for name in values)}
        return found | ({"derivative_error": largest("force")} if "force" in small.outputs else {})
    natoms = len(small.atom_energy)
    scale = float(np.abs(small.atom_energy).max()) or 1.0
    energy, expected = float(result.energy) / (count * natoms), float(small.energy) / natoms
    return {
        "energy_per_atom": energy,
        "energy_error": abs(energy - expected) / scale,
        "force_error": max(largest(name) for name in ("force", "force_mag") if name in small.outputs),
    }


def _isa(model: Model) -> str:
    if model.device != "cpu":
        return "none"
    from .. import _native

    return _native.isa()


def show(report: Report) -> None:
    """The report for people."""
    threads = f"{report.threads} thread{'' if report.threads == 1 else 's'}"
    size = " x ".join(map(str, report.copies))
    steps = len(report.step_times)
    lines = [
        ("model", f"{report.model}: {report.precision}, {report.device}, {threads}, instruction set {report.isa}"),
        ("structure", f"{report.structure}, {size} boxes: {report.atoms} atoms"),
        ("load", f"{1e3 * report.load_time:.1f} ms; first evaluation {1e3 * report.first_step:.2f} ms"),
        (
            "step",
            f"{1e3 * report.step:.3f} ms (median of {steps}, fastest {1e3 * min(report.step_times):.3f}, "
            f"slowest {1e3 * max(report.step_times):.3f})",
        ),
        ("per atom", f"{1e3 * report.per_atom:.5f} ms, {1 / report.per_atom:.0f} atoms per second"),
        (
            "peak memory",
            f"{report.peak_memory / 1e6:.1f} MB, {report.peak_memory_per_atom / 1e3:.2f} kB per atom",
        ),
    ]
    if report.energy_per_atom is not None:
        energy = f"{report.energy_per_atom:.9f} eV per atom"
        lines += [
            ("energy", f"{energy}; relative difference from one box {report.energy_error:.1e}"),
            ("forces", f"largest difference from one box {report.force_error:.1e} eV/angstrom"),
        ]
    if report.value_error is not None:
        lines.append((report.kind, f"largest difference of an atom from one box {report.value_error:.1e}"))
    if report.derivative_error is not None:
        lines.append(("derivative", f"largest difference from one box {report.derivative_error:.1e}"))
    for key, value in lines:
        print(f"{key:<11} {value}")
