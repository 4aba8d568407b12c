"""``dpa2 eval``: what a model says of structures, such as energies, forces and virials."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice, repeat, tee
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import InputError
from . import common, log
from .document import add_json_option
from .reading import add_reading_options, reading_options
from .slow import say_time

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ..data import Frame
    from ..data.unfinished import Unfinished
    from ..inputs import Float
    from ..model import Model
    from ..streams import Parameters
    from .eval_report import Report
    from .eval_sinks import Sink
    from .eval_values import Column, Values

    #: a frame, its types in the model, its values, its descriptors
    Done: TypeAlias = tuple[Frame, Any, Values, Float | None]

SECONDS = 1.0  # how often what is finished is made permanent

EPILOG = """\
examples:
  dpa2 eval water.xyz                              the embedded model of water
  dpa2 eval water.xyz --descriptor                 shape and norm of the descriptor as well
  dpa2 eval -m model.pth md.extxyz -o out.extxyz   energy, forces, virial of every frame
  dpa2 eval -m model.pth data/ -o out.npz          all deepmd/npy systems below a folder
  dpa2 eval -m model.pth md.xyz --save-deepmd DIR  a deepmd/npy data set with the model's labels
  dpa2 eval -m multi.pt --head water POSCAR        through ASE (pip install 'dpa2[ase]')
  dpa2 eval md.xyz -f ::10 -n 100                  every tenth frame, 100 of these at most
  dpa2 eval md.xyz --workers 4 --json > out.json   results of every frame, for programs

One frame is printed as a summary, several as a table. Units: eV, angstrom, eV/angstrom; the
pressure is that of the virial, tr W / (3 V), without the kinetic part.

An .extxyz output has energy, virial and stress (-W/V, eV/angstrom^3) of each frame, forces and
atom_energy of each atom. An .npz output has energy (nframes), virial (nframes, 3, 3), natoms
(nframes), and forces, atom_energy, types with a frame axis if every frame has as many atoms,
else with all atoms one after the other. --save-deepmd makes a folder per composition, such as
O64H128, or with --mixed-type per number of atoms.

Spin models take the spins of the frames: spin.npy of a deepmd system, a column spin or
initial_magmoms. Outputs have them too, and force_mag, in an .npz magnetic_forces and mask_mag.

Other kinds of models: an .npz output has all outputs under deepmd-kit's names, as global_dipole,
dipole (of the atoms), force and virial (of the dipole), and mask, 1 for the atoms that count. In an
.extxyz output and with --save-deepmd they have the names of labels: dipole and atom_dipole,
polarizability and atom_polarizability, dos and atom_dos, NAME and atom_NAME of a property NAME,
atom_population; derivatives of a dipole are in .extxyz alone, as dipole_force and dipole_virial.

Until the outputs are complete, finished frames are kept in the folder OUT.part (of DIR, if there is
no OUT), also if the process is killed or the disk is full; the same command goes on from there.
--restart begins anew. After Ctrl-C or SIGTERM the outputs hold the finished frames as well.

--json prints {"model": ..., "frames": [...]}, with "structure", "frame", "natoms", "volume" and the
values of an .npz output in each; an entry "error" behind them says why there are no more.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "eval",
        help="energies, forces and virials of structures; dipoles and so on",
        description="Evaluate structures: energy, forces, virial and pressure, or what a model of another kind\n"
        "computes.",
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
    common.add_frames_option(parser, "-f")
    parser.add_argument(
        "-n", "--numb", type=common.positive, metavar="N", help="frames of each file at most (default: all)"
    )
    add_json_option(parser)
    common.add_model_options(parser)
    common.add_worker_option(parser)
    common.add_parameter_options(parser)
    add_reading_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    with log.quiet(args.json):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    from ..streams import Parameters
    from .eval_report import report_for
    from .eval_values import columns_of

    outputs = [name for name in (args.output, args.save_deepmd) if name is not None]
    common.check_output(
        args.output, (".extxyz", ".xyz", ".npz"), [*args.structures, *([args.model] if args.model else [])]
    )
    if args.save_deepmd is not None:
        common.check_folder(args.save_deepmd, outputs[0])
    if args.descriptor and outputs and not (args.output or "").endswith(".npz"):
        common.say(
            f"the descriptors are printed and not written to {' and '.join(outputs)}: only an .npz output has them; "
            "dpa2 descriptor writes them alone"
        )
    walk = common.Walk(args.structures, args.numb, reading=reading_options(args), chosen=args.frames)
    model = common.load_model(args)
    say_time(model, walk)
    parameters = Parameters.of(model, args.fparam, args.aparam)
    columns = columns_of(model, args.atomic)
    with ExitStack() as stack:
        report = stack.enter_context(report_for(args, model, walk))
        work = _Work(args, model, columns, parameters, common.worker_pool(args, stack))
        if not outputs:
            for frame, _, values, descriptor in work.results(iter(walk)):
                report.add(frame, values, descriptor)
        else:
            store = _store(args, model, columns, walk, outputs[0])
            with store.until_complete(common.say):
                try:
                    _write(work, walk, report, store)
                except BaseException:
                    store.commit()
                    raise
        if report.frames == 0:
            raise InputError("there are no frames in these structures")
        report.finish()


def _store(
    args: argparse.Namespace, model: Model, columns: tuple[Column, ...], walk: common.Walk, output: str
) -> Unfinished:
    """Where results are kept until the outputs are complete."""
    from ..data.unfinished import Unfinished

    masks = ("mask", "mask_mag")
    rows = {column.name: ("int32" if column.name in masks else "float64", column.shape) for column in columns}
    of_frame = [column.name for column in columns if not column.per_atom]
    arrays: dict[str, Any] = {name: rows[name] for name in of_frame} | {"natoms": ("int64", ()), "types": ("int32", ())}
    arrays |= rows
    if args.descriptor:
        arrays["descriptor"] = ("float64", (model.descriptor_dim,))
    job = common.job_of("eval", model, walk)
    job |= {"fparam": args.fparam, "aparam": args.aparam, "atomic": args.atomic, "descriptor": args.descriptor}
    store = Unfinished(output, job, arrays, args.restart)
    if store.frames:
        common.tell(f"{output}: going on after {store.frames} frames")
    return store


def _write(work: _Work, walk: common.Walk, report: Report, store: Unfinished) -> None:
    """Fill the store and the outputs: with what the store holds already, then with what is computed."""
    import time

    args, columns = work.args, work.columns
    kept = _Kept(store, columns)
    try:
        with ExitStack() as stack:
            sinks = _sinks(args, work.model, columns, stack, store)
            stack.enter_context(_flagged(store))
            last, frames = time.monotonic(), iter(walk)
            for k, (frame, types, values, descriptor) in enumerate(chain(kept.results(frames), work.results(frames))):
                if k >= kept.frames:
                    store.add(_rows(columns, types, values, descriptor))
                for sink in sinks:
                    common.attempt(frame, sink.add, frame, types, values)
                report.add(frame, values, descriptor)
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


def _rows(columns: tuple[Column, ...], types: Any, values: Values, descriptor: Float | None) -> dict[str, Any]:
    """A frame as :class:`Unfinished` takes it."""
    import numpy as np

    rows = {column.name: values[column.name] if column.per_atom else values[column.name][None] for column in columns}
    return {**rows, "natoms": np.array([len(types)]), "types": types, "descriptor": descriptor}


class _Kept:
    """The results that an earlier run has left, frame by frame."""

    def __init__(self, store: Unfinished, columns: tuple[Column, ...]) -> None:
        self.frames = store.frames
        self.of_atoms = {"types", "descriptor", *(column.name for column in columns if column.per_atom)}
        self.arrays = {name: store.array(name) for name in store.names} if store.frames else {}
        self.frame = self.atom = 0

    def results(self, frames: Iterator[Frame]) -> Iterator[Done]:
        """As many frames as there are results of, with these."""
        for frame in islice(frames, self.frames):
            yield frame, *self._next()

    def _next(self) -> tuple[Any, Values, Float | None]:
        import numpy as np

        k, begin = self.frame, self.atom
        self.frame, self.atom = k + 1, begin + int(self.arrays["natoms"][k])
        values = {
            name: np.array(array[begin : self.atom] if name in self.of_atoms else array[k])
            for name, array in self.arrays.items()
        }
        return values.pop("types"), values, values.pop("descriptor", None)


def _sinks(
    args: argparse.Namespace, model: Model, columns: tuple[Column, ...], stack: ExitStack, store: Unfinished
) -> list[Sink]:
    """Where the options want the results; on Ctrl-C they get what there is."""
    from ..outputs import replacing, replacing_folder
    from .eval_sinks import DeepmdSink, NpzSink, XyzSink

    sinks: list[Sink] = []
    if args.output is not None:
        path = stack.enter_context(replacing(args.output, keep=KeyboardInterrupt))
        npz = args.output.endswith(".npz")
        sink = NpzSink(path, columns, store) if npz else XyzSink(path, columns, model.type_map)
        sinks.append(stack.enter_context(sink))
    if args.save_deepmd is not None:
        folder = stack.enter_context(replacing_folder(args.save_deepmd, keep=KeyboardInterrupt))
        sinks.append(stack.enter_context(DeepmdSink(folder, columns, model.type_map, args.mixed_type)))
    return sinks


@dataclass(frozen=True)
class _Work:
    """How frames are evaluated."""

    args: argparse.Namespace
    model: Model
    columns: tuple[Column, ...]
    parameters: Parameters
    executor: Executor | None

    def results(self, frames: Iterator[Frame]) -> Iterator[Done]:
        """The results of frames, in their order; without workers each before the next frame is read."""
        if self.executor is None:
            for frame in frames:
                yield frame, *common.attempt(frame, self._evaluate, frame)
            return
        from ..streams import descriptor_frames, evaluate_frames
        from .eval_values import values_of

        args, model = self.args, self.model
        frames, copy = tee(frames)
        found = evaluate_frames(
            model,
            frames,
            executor=self.executor,
            atomic=args.atomic or False,
            fparam=args.fparam,
            aparam=args.aparam,
        )
        others: Iterator[Any] = repeat((None, None))
        if args.descriptor:
            others = descriptor_frames(model, copy, executor=self.executor)
        else:
            del copy  # or it would keep all frames
        for (frame, result), (_, descriptor) in zip(found, others, strict=False):
            types = frame.types_in(model.type_map)
            yield frame, types, values_of(self.columns, result, len(types)), descriptor

    def _evaluate(self, frame: Frame) -> tuple[Any, Values, Float | None]:
        from .eval_values import values_of

        model = self.model
        types = frame.types_in(model.type_map)
        keywords = self.parameters.keywords(frame)
        atomic = self.args.atomic or False
        result = model.evaluate(frame.coords, types, frame.box, frame.pbc, **keywords, atomic=atomic, hessian=False)
        descriptor = None
        if self.args.descriptor:
            spin = keywords.get("spin")
            descriptor = model.descriptor(frame.coords, types, frame.box, frame.pbc, spin=spin)
        return types, values_of(self.columns, result, len(types)), descriptor
