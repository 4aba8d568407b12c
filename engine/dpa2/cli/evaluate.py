"""``dpa2 eval``: energies, forces and virials of structures."""

from __future__ import annotations

import argparse
import os
import sys
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import InputError
from . import common
from .reading import add_reading_options, reading_options

if TYPE_CHECKING:
    from ..data import Frame
    from ..inputs import Float
    from ..model import Model, Result
    from ..streams import Parameters

EV_PER_ANGSTROM3_IN_GPA = 160.2176634  # CODATA 2018: the elementary charge is exact
EV_PER_ANGSTROM3_IN_BAR = 1.602176634e6

EPILOG = """\
examples:
  dpa2 eval water.xyz                              the embedded model of water
  dpa2 eval water.xyz --descriptor                 shape and norm of the descriptor as well
  dpa2 eval -m model.pth md.extxyz -o out.extxyz   energy, forces, virial of every frame
  dpa2 eval -m model.pth data/ -o out.npz          all deepmd/npy systems below a folder
  dpa2 eval -m model.pth md.xyz --save-deepmd DIR  a deepmd/npy data set with the model's labels
  dpa2 eval -m multi.pt --head water POSCAR        through ASE (pip install 'dpa2[ase]')

One frame is printed as a summary, several as a table. Units: eV, angstrom, eV/angstrom; the
pressure is that of the virial, tr W / (3 V), without the kinetic part.

An .extxyz output has energy, virial and stress (-W/V, eV/angstrom^3) of each frame, forces and
atom_energy of each atom. An .npz output has energy (nframes), virial (nframes, 3, 3), natoms
(nframes), and forces, atom_energy, types with a frame axis if every frame has as many atoms,
else with all atoms one after the other. --save-deepmd makes a folder per composition, such as
O64H128, or with --mixed-type per number of atoms. After Ctrl-C outputs hold the finished frames.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "eval",
        help="energies, forces and virials of structures",
        description="Evaluate structures: energy, forces, virial and pressure.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("structures", metavar="STRUCTURE", nargs="+", help=common.STRUCTURE_HELP)
    parser.add_argument("-o", "--output", metavar="OUT", help="write the results: .extxyz, .xyz or .npz")
    parser.add_argument(
        "--save-deepmd", metavar="DIR", help="write the results as deepmd/npy systems below this new folder"
    )
    parser.add_argument("--mixed-type", action="store_true", help="let these be of mixed type")
    parser.add_argument("--descriptor", action="store_true", help="also the descriptors (written to .npz only)")
    parser.add_argument(
        "--atomic", choices=("edge", "deepmd"), help="also write the virial per atom, by this definition"
    )
    common.add_model_options(parser)
    common.add_parameter_options(parser)
    add_reading_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from ..streams import Parameters

    common.check_output(
        args.output, (".extxyz", ".xyz", ".npz"), [*args.structures, *([args.model] if args.model else [])]
    )
    _check_folder(args.save_deepmd)
    walk = common.Walk(args.structures, reading=reading_options(args))
    model = common.load_model(args)
    parameters = Parameters.of(model, args.fparam, args.aparam)
    report = _Report(args, model, walk)
    try:
        with ExitStack() as stack:
            sinks = _sinks(args, model, stack)
            for frame in walk:
                result, types, descriptor = common.attempt(frame, _evaluate, model, frame, args, parameters)
                for sink in sinks:
                    common.attempt(frame, sink.add, frame, types, result, descriptor)
                report.add(frame, result, descriptor)
    except KeyboardInterrupt:
        names = [name for name in (args.output, args.save_deepmd) if name is not None]
        if names and report.frames:
            print(f"dpa2: {' and '.join(names)}: the {report.frames} finished frames", file=sys.stderr)
        raise
    report.finish()


def _sinks(args: argparse.Namespace, model: Model, stack: ExitStack) -> list[_Sink]:
    """Where the options want the results."""
    sinks: list[_Sink] = []
    if args.output is not None:
        path = stack.enter_context(common.replacing(args.output, keep=True))
        npz = args.output.endswith(".npz")
        sinks.append(stack.enter_context(_NpzSink(path) if npz else _XyzSink(path, model.type_map)))
    if args.save_deepmd is not None:
        from ..data.npy_writer import ReplacingFolder

        folder = stack.enter_context(ReplacingFolder(args.save_deepmd))
        sinks.append(stack.enter_context(_DeepmdSink(folder, model.type_map, args.mixed_type)))
    return sinks


def _check_folder(path: str | None) -> None:
    """Refuse a folder that has something in it, or none to be made in."""
    if path is None:
        return
    if os.path.exists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise InputError(f"the folder to save to exists and is not empty: {path}")
    if not os.path.isdir(os.path.dirname(os.path.normpath(path)) or "."):
        raise InputError(f"the folder of the output does not exist: {os.path.dirname(os.path.normpath(path))}")


def _evaluate(
    model: Model, frame: Frame, args: argparse.Namespace, parameters: Parameters
) -> tuple[Result, Any, Float | None]:
    types = frame.types_in(model.type_map)
    keywords = parameters.keywords(frame)
    result = model.evaluate(frame.coords, types, frame.box, frame.pbc, atomic=args.atomic or False, **keywords)
    descriptor = model.descriptor(frame.coords, types, frame.box, frame.pbc) if args.descriptor else None
    return result, types, descriptor


class _Report:
    """What goes to stdout: a summary of one frame, or a table of several."""

    HEADER = (
        f"{'frame':>6} {'atoms':>7} {'energy/eV':>18} {'eV/atom':>13} {'max force':>10} {'rms force':>10} {'GPa':>9}"
    )

    def __init__(self, args: argparse.Namespace, model: Model, walk: common.Walk) -> None:
        self.walk = walk
        self.args = args
        self.model = model
        self.single = walk.total == 1
        self.frames = 0
        self.first = 0
        self.source = ""

    def add(self, frame: Frame, result: Result, descriptor: Float | None) -> None:
        import numpy as np

        natoms = max(1, len(frame))
        norms = np.linalg.norm(result.forces, axis=1)
        largest = float(norms.max(initial=0.0))
        rms = float(np.sqrt(np.mean(result.forces**2))) if len(frame) else 0.0
        volume = frame.volume
        pressure = None if volume is None else float(np.trace(result.virial)) / (3.0 * volume)
        energy = float(np.asarray(result.energy))
        if self.frames == 0:
            self.walk.print(f"model       {common.model_name(self.args)}: {self._how()}")
        self.frames += 1
        if not self.single:
            source = frame.where.rsplit(", frame", 1)[0]
            if source != self.source:
                self.walk.print(
                    f"\n{source}\n{self.HEADER}" + ("    descriptor norm" if descriptor is not None else "")
                )
                self.source, self.first = source, self.frames
            gpa = "-" if pressure is None else f"{pressure * EV_PER_ANGSTROM3_IN_GPA:.4f}"
            line = f"{self.frames - self.first:6d} {len(frame):7d} {energy:18.8f} {energy / natoms:13.8f}"
            line += f" {largest:10.5f} {rms:10.5f} {gpa:>9}"
            self.walk.print(line + (f" {np.linalg.norm(descriptor):18.6f}" if descriptor is not None else ""))
            return
        box = "open" if volume is None else f"volume {volume:.3f} angstrom^3"
        where = frame.where.rsplit(", frame", 1)[0]
        atom = f" (atom {int(norms.argmax())})" if len(frame) else ""
        lines = [
            f"structure   {where}: {len(frame)} atoms, {box}",
            f"energy      {energy:.8f} eV",
            f"per atom    {energy / natoms:.8f} eV",
            f"forces      max {largest:.6f}{atom}, rms {rms:.6f} eV/angstrom",
        ]
        if pressure is not None:
            gpa_bar = (pressure * EV_PER_ANGSTROM3_IN_GPA, pressure * EV_PER_ANGSTROM3_IN_BAR)
            lines.append(f"pressure    {gpa_bar[0]:.6f} GPa = {gpa_bar[1]:.2f} bar (of the virial, no kinetic part)")
        virial = "\n            ".join(" ".join(f"{x:14.6f}" for x in row) for row in result.virial)
        lines.append(f"virial/eV   {virial}")
        if descriptor is not None:
            lines.append(f"descriptor  shape {descriptor.shape}, norm {np.linalg.norm(descriptor):.8f}")
        for line in lines:
            self.walk.print(line)

    def finish(self) -> None:
        for name in (self.args.output, self.args.save_deepmd):
            if name is not None:
                print(f"written     {name} ({self.frames} frame{'' if self.frames == 1 else 's'})")

    def _how(self) -> str:
        model = self.model
        types = " ".join(model.type_map[:8]) + (" ..." if len(model.type_map) > 8 else "")
        threads = f"{model.threads} thread{'' if model.threads == 1 else 's'}"
        return f"{types}, {model.precision}, {model.device}, {threads}"


class _Sink(ABC):
    """Where results go, frame by frame."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> _Sink:
        return self

    @abstractmethod
    def __exit__(self, *error: object) -> None:
        """Finish the file; not after an error where that would leave a wrong one."""

    @abstractmethod
    def add(self, frame: Frame, types: Any, result: Result, descriptor: Float | None) -> None:
        """One frame more."""


class _XyzSink(_Sink):
    """Extended XYZ, written as the frames come."""

    def __init__(self, path: str, type_map: tuple[str, ...]) -> None:
        super().__init__(path)
        self.names = [*type_map, "X"]  # the last one for virtual atoms, type -1

    def __enter__(self) -> _XyzSink:
        self.handle: TextIO = open(self.path, "w", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.close()

    def add(self, frame: Frame, types: Any, result: Result, descriptor: Float | None) -> None:
        from ..data import write_frame

        info: dict[str, object] = {"energy": result.energy, "virial": result.virial}
        if frame.volume is not None:
            info["stress"] = -result.virial / frame.volume
        info |= {key: value for key, value in frame.info.items() if key.lower() not in info}
        if frame.fparam is not None:
            info["fparam"] = frame.fparam
        arrays = {"forces": result.forces, "atom_energy": result.atom_energy}
        if result.atom_virial is not None:
            arrays["atom_virial"] = result.atom_virial
        symbols = [self.names[max(int(t), -1)] for t in types]
        write_frame(self.handle, frame.coords, symbols, frame.box, frame.pbc, arrays, info)


class _DeepmdSink(_Sink):
    """deepmd/npy systems, whose labels are the results."""

    def __init__(self, path: str, type_map: tuple[str, ...], mixed: bool) -> None:
        super().__init__(path)
        from ..data import DeepmdWriter

        self.writer = DeepmdWriter(path, type_map, mixed)

    def __exit__(self, *error: object) -> None:
        self.writer.flush()

    def add(self, frame: Frame, types: Any, result: Result, descriptor: Float | None) -> None:
        labels: dict[str, Any] = {"energy": result.energy, "virial": result.virial}
        of_atoms: dict[str, Any] = {"force": result.forces, "atom_ener": result.atom_energy}
        if frame.fparam is not None:
            labels["fparam"] = frame.fparam
        if frame.aparam is not None:
            of_atoms["aparam"] = frame.aparam
        self.writer.add(frame.coords, types, frame.box, frame.pbc, labels, of_atoms)


class _NpzSink(_Sink):
    """Arrays of all frames, written at the end."""

    def __enter__(self) -> _NpzSink:
        self.frames: list[dict[str, Any]] = []
        return self

    def add(self, frame: Frame, types: Any, result: Result, descriptor: Float | None) -> None:
        entry = {"forces": result.forces, "atom_energy": result.atom_energy, "types": types}
        entry |= {"energy": result.energy, "virial": result.virial, "natoms": len(frame)}
        if result.atom_virial is not None:
            entry["atom_virial"] = result.atom_virial
        if descriptor is not None:
            entry["descriptor"] = descriptor
        self.frames.append(entry)

    def __exit__(self, *error: object) -> None:
        import numpy as np

        if error[0] not in (None, KeyboardInterrupt) or (error[0] is not None and not self.frames):
            return
        natoms = [entry["natoms"] for entry in self.frames]
        arrays: dict[str, Any] = {}
        for key in self.frames[0] if self.frames else ():
            values = [entry[key] for entry in self.frames]
            per_frame = key in ("energy", "virial", "natoms")
            arrays[key] = np.array(values) if per_frame else common.stack(values, natoms)
        with open(self.path, "wb") as handle:  # a handle, so that NumPy does not append a suffix
            np.savez(handle, **arrays)
