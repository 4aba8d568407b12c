"""``dpa2 eval``: energies, forces and virials of structures."""

from __future__ import annotations

import argparse
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import common
from .reading import add_reading_options, reading_options

if TYPE_CHECKING:
    from ..data import Frame
    from ..data.unfinished import Unfinished
    from ..inputs import Float
    from ..model import Model
    from ..results import Result
    from ..streams import Parameters

EV_PER_ANGSTROM3_IN_GPA = 160.2176634  # CODATA 2018: the elementary charge is exact
EV_PER_ANGSTROM3_IN_BAR = 1.602176634e6

SECONDS = 1.0  # how often what is finished is made permanent

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
O64H128, or with --mixed-type per number of atoms.

Until the outputs are complete, finished frames are kept in the folder OUT.part (of DIR, if there is
no OUT), also if the process is killed or the disk is full; the same command goes on from there.
--restart begins anew. After Ctrl-C or SIGTERM the outputs hold the finished frames as well.
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
    parser.add_argument("--restart", action="store_true", help="do not go on with an interrupted run")
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

    outputs = [name for name in (args.output, args.save_deepmd) if name is not None]
    common.check_output(
        args.output, (".extxyz", ".xyz", ".npz"), [*args.structures, *([args.model] if args.model else [])]
    )
    _check_folder(args.save_deepmd, outputs)
    walk = common.Walk(args.structures, reading=reading_options(args))
    model = common.load_model(args)
    parameters = Parameters.of(model, args.fparam, args.aparam)
    report = _Report(args, model, walk)
    if not outputs:
        for frame in walk:
            report.add(frame, *common.attempt(frame, _evaluate, model, frame, args, parameters)[::2])
    else:
        store = _store(args, model, walk, outputs[0])
        with store.until_complete(common.say):
            try:
                _write(args, model, walk, parameters, report, store)
            except BaseException:
                store.commit()
                raise
    if report.frames == 0:
        raise InputError("there are no frames in these structures")
    report.finish()


def _store(args: argparse.Namespace, model: Model, walk: common.Walk, output: str) -> Unfinished:
    """Where results are kept until the outputs are complete."""
    from ..data.unfinished import Unfinished

    arrays: dict[str, Any] = {
        "energy": ("float64", ()),
        "virial": ("float64", (3, 3)),
        "natoms": ("int64", ()),
        "types": ("int32", ()),
        "forces": ("float64", (3,)),
        "atom_energy": ("float64", ()),
    }
    if args.atomic:
        arrays["atom_virial"] = ("float64", (3, 3))
    if args.descriptor:
        arrays["descriptor"] = ("float64", (model.descriptor_dim,))
    job = common.job_of("eval", model, walk)
    job |= {"fparam": args.fparam, "aparam": args.aparam, "atomic": args.atomic, "descriptor": args.descriptor}
    store = Unfinished(output, job, arrays, args.restart)
    if store.frames:
        print(f"{output}: going on after {store.frames} frames", flush=True)
    return store


def _write(
    args: argparse.Namespace,
    model: Model,
    walk: common.Walk,
    parameters: Parameters,
    report: _Report,
    store: Unfinished,
) -> None:
    """Fill the store and the outputs: with what the store holds already, then with what is computed."""
    import time

    kept = _Kept(store)
    try:
        with ExitStack() as stack:
            sinks = _sinks(args, model, stack, store)
            stack.enter_context(_flagged(store))
            last = time.monotonic()
            for k, frame in enumerate(walk):
                if k < kept.frames:
                    result, types, descriptor = kept.next()
                else:
                    result, types, descriptor = common.attempt(frame, _evaluate, model, frame, args, parameters)
                    store.add(_rows(result, types, descriptor))
                for sink in sinks:
                    common.attempt(frame, sink.add, frame, types, result, descriptor)
                report.add(frame, result, descriptor)
                if time.monotonic() - last > SECONDS:
                    store.commit()
                    last = time.monotonic()
            store.commit()
            if report.frames == 0:
                raise InputError("there are no frames in these structures")
            store.deliver()
    except KeyboardInterrupt:
        if report.frames:
            store.deliver(report.frames)
            names = " and ".join(name for name in (args.output, args.save_deepmd) if name is not None)
            common.say(f"{names}: the {report.frames} finished frames")
        raise


@contextmanager
def _flagged(store: Unfinished) -> Iterator[None]:
    """Makes the store ready for the outputs to be delivered on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        store.commit()
        if store.frames:
            store.deliver()
        raise


def _rows(result: Result, types: Any, descriptor: Float | None) -> dict[str, Any]:
    """A frame as :class:`Unfinished` takes it."""
    import numpy as np

    return {
        "energy": np.array([result.energy]),
        "virial": result.virial[None],
        "natoms": np.array([len(types)]),
        "types": types,
        "forces": result.forces,
        "atom_energy": result.atom_energy,
        "atom_virial": result.atom_virial,
        "descriptor": descriptor,
    }


class _Kept:
    """The results that an earlier run has left, frame by frame."""

    def __init__(self, store: Unfinished) -> None:
        self.frames = store.frames
        self.arrays = {name: store.array(name) for name in store.names} if store.frames else {}
        self.frame = self.atom = 0

    def next(self) -> tuple[Result, Any, Float | None]:
        import numpy as np

        from ..results import Result

        k, begin = self.frame, self.atom
        self.frame, self.atom = k + 1, begin + int(self.arrays["natoms"][k])
        of_atoms = {
            name: np.array(self.arrays[name][begin : self.atom])
            for name in ("types", "forces", "atom_energy", "atom_virial", "descriptor")
            if name in self.arrays
        }
        energy, virial = float(self.arrays["energy"][k]), np.array(self.arrays["virial"][k])
        result = Result(energy, of_atoms["forces"], virial, of_atoms["atom_energy"], of_atoms.get("atom_virial"))
        return result, of_atoms["types"], of_atoms.get("descriptor")


def _sinks(args: argparse.Namespace, model: Model, stack: ExitStack, store: Unfinished) -> list[_Sink]:
    """Where the options want the results; on Ctrl-C they get what there is."""
    from ..outputs import replacing, replacing_folder

    sinks: list[_Sink] = []
    if args.output is not None:
        path = stack.enter_context(replacing(args.output, keep=KeyboardInterrupt))
        npz = args.output.endswith(".npz")
        sinks.append(stack.enter_context(_NpzSink(path, store) if npz else _XyzSink(path, model.type_map)))
    if args.save_deepmd is not None:
        folder = stack.enter_context(replacing_folder(args.save_deepmd, keep=KeyboardInterrupt))
        sinks.append(stack.enter_context(_DeepmdSink(folder, model.type_map, args.mixed_type)))
    return sinks


def _check_folder(path: str | None, outputs: list[str]) -> None:
    """Refuse a folder that cannot be made, or has something in it that is not of an interrupted run of this command."""
    from ..data.unfinished import was_delivered
    from ..outputs import check_writable

    if path is None:
        return
    if os.path.lexists(path) and not os.path.isdir(path):
        raise InputError(f"the folder to save to is a file: {path}")
    if os.path.isdir(path) and os.listdir(path) and not was_delivered(outputs[0]):
        raise InputError(f"the folder to save to exists and is not empty: {path}")
    if not os.path.isdir(os.path.dirname(os.path.normpath(path)) or "."):
        raise InputError(f"the folder of the output does not exist: {os.path.dirname(os.path.normpath(path))}")
    if not os.path.isdir(path):
        check_writable(path)


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

    def __exit__(self, *error: object) -> None:
        from ..outputs import finish

        if error[0] is None or isinstance(error[1], KeyboardInterrupt):
            finish(self.finish, self.spoil)

    @abstractmethod
    def add(self, frame: Frame, types: Any, result: Result, descriptor: Float | None) -> None:
        """One frame more."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is left to be written; called again where it was interrupted."""

    def spoil(self) -> None:
        """Empty the output."""
        os.truncate(self.path, 0)


class _XyzSink(_Sink):
    """Extended XYZ, written as the frames come."""

    def __init__(self, path: str, type_map: tuple[str, ...]) -> None:
        super().__init__(path)
        self.names = [*type_map, "X"]  # the last one for virtual atoms, type -1

    def __enter__(self) -> _XyzSink:
        from ..outputs import Blocks

        self.blocks = Blocks(self.path)
        return self

    def __exit__(self, *error: object) -> None:
        self.blocks.__exit__(*error)

    def finish(self) -> None:
        """Closing the blocks does it."""

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
        text = io.StringIO()
        write_frame(text, frame.coords, symbols, frame.box, frame.pbc, arrays, info)
        self.blocks.add(text.getvalue())


class _DeepmdSink(_Sink):
    """deepmd/npy systems, whose labels are the results."""

    def __init__(self, path: str, type_map: tuple[str, ...], mixed: bool) -> None:
        super().__init__(path)
        from ..data import DeepmdWriter

        self.writer = DeepmdWriter(path, type_map, mixed)

    def finish(self) -> None:
        self.writer.flush()

    def spoil(self) -> None:
        import shutil

        for name in os.listdir(self.path):
            shutil.rmtree(os.path.join(self.path, name), ignore_errors=True)

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

    def __init__(self, path: str, store: Unfinished) -> None:
        super().__init__(path)
        self.store = store

    def add(self, frame: Frame, types: Any, result: Result, descriptor: Float | None) -> None:
        """The store has it."""

    def finish(self) -> None:
        import numpy as np

        if not self.store.added:
            return
        arrays: dict[str, Any] = {name: self.store.array(name) for name in self.store.names}
        natoms = arrays["natoms"]
        if (natoms == natoms[:1]).all():
            for name in ("forces", "atom_energy", "types", "atom_virial", "descriptor"):
                if name in arrays:
                    shape = len(natoms), int(natoms[0]) if len(natoms) else 0, *arrays[name].shape[1:]
                    arrays[name] = arrays[name].reshape(shape)
        with open(self.path, "wb") as handle:  # a handle, so that NumPy does not append a suffix
            np.savez(handle, **arrays)
