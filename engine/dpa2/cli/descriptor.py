"""``dpa2 descriptor``: descriptors of structures to .npy or .npz."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import common

if TYPE_CHECKING:
    from ..data import Frame
    from ..inputs import Float
    from ..model import Model

EPILOG = """\
examples:
  dpa2 descriptor water.xyz -o water.npy                        (nframes, natoms, dim)
  dpa2 descriptor -m model.pth data/ -o mean.npy --pooling mean (nframes, dim)
  dpa2 descriptor -m model.pth *.extxyz -o all.npz              structures of different sizes

A .npy output is written as the frames come, so that it may be larger than the memory; all
frames need the same number of atoms, unless pooled. An .npz output has descriptor, natoms
(nframes), types, type_map; descriptor and types have a frame axis if every frame has as many
atoms, else all atoms one after the other. The mean is over real atoms.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "descriptor",
        help="descriptors of structures to .npy or .npz",
        description="Compute the descriptor of every atom, or its mean over each structure.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("structures", metavar="STRUCTURE", nargs="+", help=common.STRUCTURE_HELP)
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write: .npy or .npz")
    parser.add_argument("--pooling", choices=("none", "mean"), default="none", help="over atoms (default: none)")
    common.add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    common.check_output(args.output, (".npy", ".npz"), [*args.structures, *([args.model] if args.model else [])])
    walk = common.Walk(args.structures)
    model = common.load_model(args)
    with common.replacing(args.output) as path:
        write = _write_npy if args.output.endswith(".npy") else _write_npz
        shape = write(path, walk, model, args.pooling == "mean")
    print(f"{args.output}: descriptor {shape}, {common.model_name(args)}, {model.precision}")


def _compute(model: Model, frame: Frame, mean: bool) -> tuple[Float, Any]:
    types = frame.types_in(model.type_map)
    descriptor = model.descriptor(frame.coords, types, frame.box, frame.pbc)
    if mean:
        real = types >= 0
        if not real.any():
            raise InputError("there is no atom to take the mean of")
        descriptor = descriptor[real].mean(axis=0)
    return descriptor, types


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """The start of a .npy file of float64, always of the same length: it is written again when the shape is known."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + (246).to_bytes(2, "little") + text.ljust(245).encode() + b"\n"


def _write_npy(path: str, walk: common.Walk, model: Model, mean: bool) -> tuple[int, ...]:
    frames, shape = 0, None
    with open(path, "wb") as handle:
        handle.write(_npy_header(()))
        for frame in walk:
            descriptor, _ = common.attempt(frame, _compute, model, frame, mean)
            if shape not in (None, descriptor.shape):
                raise InputError(
                    f"{frame.where} has {len(descriptor)} atoms, the frames before it {shape[0] if shape else 0}: "
                    "a .npy file needs equal numbers; write an .npz file, or use --pooling mean"
                )
            shape = descriptor.shape
            handle.write(descriptor.astype("<f8").tobytes())
            frames += 1
        whole = (frames, *(shape or (0, model.descriptor_dim)))
        handle.seek(0)
        handle.write(_npy_header(whole))
    return whole


def _write_npz(path: str, walk: common.Walk, model: Model, mean: bool) -> tuple[int, ...]:
    import numpy as np

    descriptors, types, natoms = [], [], []
    for frame in walk:
        descriptor, frame_types = common.attempt(frame, _compute, model, frame, mean)
        descriptors.append(descriptor)
        types.append(frame_types)
        natoms.append(len(frame))
    if not natoms:
        raise InputError("there are no frames in these structures")
    joined = np.stack(descriptors) if mean else common.stack(descriptors, natoms)
    with open(path, "wb") as handle:
        np.savez(
            handle,
            descriptor=joined,
            natoms=np.array(natoms),
            types=common.stack(types, natoms),
            type_map=np.array(model.type_map),
        )
    shape: tuple[int, ...] = joined.shape
    return shape
