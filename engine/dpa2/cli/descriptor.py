"""``dpa2 descriptor``: descriptors of structures to .npy, .npz or HDF5, and maps of them."""

from __future__ import annotations

import argparse
import errno
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from .. import optional
from ..errors import EvaluationError, InputError
from . import common
from .reading import add_reading_options, reading_options
from .slow import say_time

if TYPE_CHECKING:
    from ..data.unfinished import Unfinished
    from ..model import Model

EPILOG = """\
examples:
  dpa2 descriptor water.xyz -o water.npy                        (nframes, natoms, dim)
  dpa2 descriptor -m model.pth data/ -o mean.npy --pooling mean (nframes, dim)
  dpa2 descriptor -m model.pth *.extxyz -o all.npz              structures of different sizes
  dpa2 descriptor -m model.pth -f systems.txt -o all.h5 --dtype float32 --workers 8
  dpa2 descriptor -m model.pth data/ -o all.npz --map map.html  a map to click on

An .npy output is the descriptors alone; all frames need the same number of atoms, unless pooled.
An .npz or .h5 output has descriptor, natoms (nframes), types, type_map, source (nframes: which of
sources a frame is from); descriptor and types have a frame axis if every frame has as many atoms,
else all atoms one after the other. Mean and standard deviation are over real atoms.

Finished frames are kept in the folder OUT.part until the output is in place, also if the process
is killed or the disk is full; the same command goes on from there and ends with the same file.
--restart begins anew.

A map shows atoms (pooled: structures) in the plane of the two largest principal components. Points
of a page are coloured by the energies of the model, if it has some.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "descriptor",
        help="descriptors of structures to .npy, .npz or HDF5; maps",
        description="Compute the descriptor of every atom, or its mean over each structure.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("structures", metavar="STRUCTURE", nargs="*", help=common.STRUCTURE_HELP)
    parser.add_argument(
        "-f", "--datafile", metavar="LIST", help="a text file with the path of a structure on each line"
    )
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write: .npy, .npz or .h5")
    parser.add_argument(
        "--pooling", choices=("none", "mean", "mean+std"), default="none", help="over atoms (default: none)"
    )
    parser.add_argument(
        "--dtype", choices=("float64", "float32"), default="float64", help="of the numbers written (default: float64)"
    )
    parser.add_argument("--map", metavar="MAP", help="also a two-dimensional map: .html, .png, .pdf or .svg")
    parser.add_argument(
        "--map-points", type=common.positive, default=20000, metavar="N", help="at most so many in it (default: 20000)"
    )
    parser.add_argument(
        "--map-types", nargs="+", metavar="NAME", help="only atoms of these types in it, by their own components"
    )
    parser.add_argument("--restart", action="store_true", help="do not go on with an interrupted run")
    common.add_model_options(parser)
    common.add_worker_option(parser)
    add_reading_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from ..data import read_list
    from ..data.unfinished import Unfinished

    paths = [*args.structures, *(read_list(args.datafile) if args.datafile is not None else [])]
    if not paths:
        raise InputError("no structures: name some, or a list of them with -f")
    inputs = [*paths, *([args.model] if args.model else [])]
    common.check_output(args.output, (".npy", ".npz", ".h5", ".hdf5"), inputs)
    if args.output.lower().endswith((".h5", ".hdf5")):
        optional.hdf5()  # or all would be computed in vain
    common.check_output(args.map, (".html", ".png", ".pdf", ".svg"), [*inputs, args.output])
    if args.map is not None:
        from ..maps import check_map

        check_map(args.map)
    walk = common.Walk(paths, reading=reading_options(args))
    model = common.load_model(args)
    say_time(model, walk)
    for name in args.map_types or ():
        if name not in model.type_map:
            raise InputError(
                f"--map-types: the model does not know {name!r}; its type_map is {' '.join(model.type_map)}"
            )
    if args.map_types and args.pooling != "none":
        raise InputError("--map-types chooses atoms, but with --pooling the map shows structures")
    width = model.descriptor_dim * (2 if args.pooling == "mean+std" else 1)
    arrays: dict[str, Any] = {
        "descriptor": (args.dtype, (width,)),
        "natoms": ("int64", ()),
        "types": ("int32", ()),
        "source": ("int32", ()),
    }
    job = {**common.job_of("descriptor", model, walk), "pooling": args.pooling, "dtype": args.dtype}
    store = Unfinished(args.output, job, arrays, args.restart)
    with store.until_complete(common.say):
        if store.frames:
            print(f"{args.output}: going on after {store.frames} frames", flush=True)
        _compute(args, model, walk, store)
        if store.frames == 0:
            raise InputError("there are no frames in these structures")
        shape = _write(args, model, walk, store)
        if args.map is not None:
            _map(args, model, walk, store)
    print(f"{args.output}: descriptor {shape}, {common.model_name(args)}, {model.precision}")
    if args.map is not None:
        print(f"{args.map}: written")


def _compute(args: argparse.Namespace, model: Model, walk: common.Walk, store: Unfinished) -> None:
    """Fill the store."""
    import numpy as np

    from ..streams import TaskEnds, descriptor_frames

    index = {source.path: k for k, source in enumerate(walk.sources)}
    walk.skip = store.frames
    natoms = int(store.array("natoms")[0]) if store.frames else None
    ends = TaskEnds()
    with ExitStack() as stack:
        executor = common.worker_pool(args, stack)
        for frame, descriptor in descriptor_frames(model, walk, executor=executor, pooling=args.pooling):
            if len(frame) == 0:
                raise EvaluationError(f"{frame.where} has no atoms, and so no descriptor: remove it")
            if natoms is not None and natoms != len(frame) and args.pooling == "none" and args.output.endswith(".npy"):
                store.remove()  # what is there can never become this output
                raise InputError(
                    f"{frame.where} has {len(frame)} atoms, the frames before it {natoms}: "
                    "a .npy file needs equal numbers; write an .npz file, or use --pooling mean"
                )
            natoms = len(frame)
            store.add(
                {
                    "descriptor": descriptor if args.pooling == "none" else descriptor[None],
                    "natoms": np.array([natoms]),
                    "types": frame.types_in(model.type_map),
                    "source": np.array([index[frame.where.rpartition(", frame ")[0]]]),
                }
            )
            if ends.after(frame):
                store.commit()
    store.commit()


def _write(args: argparse.Namespace, model: Model, walk: common.Walk, store: Unfinished) -> tuple[int, ...]:
    """The output from the complete store; the shape of the descriptors."""
    import numpy as np

    from ..data.npy_writer import write_npy
    from ..outputs import replacing

    natoms = store.array("natoms")
    descriptor, types = store.array("descriptor"), store.array("types")
    if (natoms == natoms[0]).all():
        types = types.reshape(len(natoms), -1)
        if args.pooling == "none":
            descriptor = descriptor.reshape(len(natoms), int(natoms[0]), -1)
    names = [common.source_name(source.path) for source in walk.sources]
    arrays: dict[str, Any] = {
        "descriptor": descriptor,
        "natoms": natoms,
        "types": types,
        "source": store.array("source"),
    }
    with replacing(args.output) as path:
        if args.output.endswith(".npy"):
            write_npy(path, descriptor)
        elif args.output.endswith(".npz"):
            with open(path, "wb") as handle:  # a handle, so that NumPy does not append a suffix
                np.savez(handle, **arrays, type_map=np.array(model.type_map), sources=np.array(names))
        else:
            _write_hdf5(path, arrays, {"type_map": list(model.type_map), "sources": names}, args, model)
    shape: tuple[int, ...] = descriptor.shape
    return shape


def _write_hdf5(
    path: str, arrays: dict[str, Any], words: dict[str, list[str]], args: argparse.Namespace, model: Model
) -> None:
    import numpy as np

    from ..outputs import reserve

    h5py = optional.hdf5()
    texts_size = sum(len(text.encode()) + 32 for texts in words.values() for text in texts)
    reserve(path, sum(array.nbytes for array in arrays.values()) + texts_size + 2**15)
    try:
        with h5py.File(path, "w", locking=False) as file:  # it is locked already, which HDF5 would take for another's
            for name, array in arrays.items():
                file[name] = array
            for name, texts in words.items():
                file.create_dataset(name, data=np.array(texts, dtype=object), dtype=h5py.string_dtype())
            file.attrs.update({"pooling": args.pooling, "precision": model.precision})
            file.flush()
    except RuntimeError as error:  # HDF5 does not always say why: most often the disk is full
        raise OSError(errno.EIO, str(error), path) from error


def _map(args: argparse.Namespace, model: Model, walk: common.Walk, store: Unfinished) -> None:
    from ..maps import write_map
    from ..outputs import replacing

    with replacing(args.map) as path:
        write_map(
            path,
            store.array("descriptor"),
            store.array("natoms"),
            store.array("types"),
            walk.sources,
            model,
            pooled=args.pooling != "none",
            most=args.map_points,
            only=args.map_types,
            title=f"{common.model_name(args)}: {', '.join(args.structures[:3]) or args.datafile}",
            suffix=args.map.rpartition(".")[2],
        )
