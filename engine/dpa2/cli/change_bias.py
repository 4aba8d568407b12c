"""``dpa2 change-bias``: another bias of a model's output, from data or given."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from . import common

if TYPE_CHECKING:
    from ..files import ModelData
    from ..train.checkpoint import Checkpoint

EPILOG = """\
examples:
  dpa2 change-bias model.ckpt.pt -s data                 by what the model misses of these data
  dpa2 change-bias model.ckpt.pt -s data -m set          by the data alone
  dpa2 change-bias multi.pt --head water -f systems.txt -n 10
  dpa2 change-bias model.pth -b -93.57 -187.1 -o new.safetensors

As "dp --pt change-bias". All else in a checkpoint stays, so that runs go on from the new file. Of a
file of another format the new one is native: OUT must end in .safetensors.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "change-bias",
        help="fit the bias of a model to data",
        description="Change the bias of a model's output: by least squares on data, or to given numbers.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a checkpoint .pt, or a model file of any supported format")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "-s",
        "--system",
        metavar="SYSTEM",
        nargs="+",
        default=["."],
        help="folders with systems, at any depth (default: this folder)",
    )
    source.add_argument("-f", "--datafile", metavar="LIST", help="a text file with the path of a system on each line")
    source.add_argument(
        "-b", "--bias-value", metavar="X", type=float, nargs="+", help="the bias of each type of an energy model, eV"
    )
    parser.add_argument(
        "-n", "--numb-batch", type=common.natural, default=0, metavar="N", help="frames of each system (default: all)"
    )
    parser.add_argument(
        "-m",
        "--mode",
        choices=("change", "set"),
        default="change",
        help="by what the model misses, or by the data alone (default: change)",
    )
    parser.add_argument("-o", "--output", metavar="OUT", help="the new file (default: MODEL_updated.pt)")
    parser.add_argument("--head", "--model-branch", metavar="HEAD", help="which model of a multi-task file")
    parser.add_argument(
        "--threads", type=common.positive, metavar="N", help="default: OMP_NUM_THREADS, else the available cores"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from ..files import detect, guarded, read, write_safetensors
    from ..train.bias import put
    from ..train.checkpoint import Checkpoint

    output = args.output
    if output is None:
        if not args.model.endswith(".pt"):
            raise InputError(f"{args.model} is no checkpoint .pt: say with -o which file .safetensors to write")
        output = f"{args.model.removesuffix('.pt')}_updated.pt"
    checkpoint = Checkpoint(args.model) if guarded(args.model, detect) == "pt" else None
    suffixes = (".safetensors",) if checkpoint is None else (".pt", ".safetensors")
    common.check_output(output, suffixes, [args.model])
    data = read(args.model, args.head) if checkpoint is None else checkpoint.read(args.head)
    if "models" in data.config:
        raise InputError(f"{args.model}: the bias of a combination of models cannot be changed")
    found = _given(args, data) if args.bias_value is not None else _fitted(args, data, checkpoint)
    if "out_bias" not in found:
        raise InputError("no frame of these data has the label that the model predicts: nothing was changed")
    print(put(data, found))
    if checkpoint is not None and output.endswith(".pt"):
        _write_checkpoint(checkpoint, data, found, output)
    else:
        write_safetensors(output, data)
    print(f"Saved model to {output}")


def _given(args: argparse.Namespace, data: ModelData) -> dict[str, Any]:
    from ..files import schema

    names, values = data.config["type_map"], args.bias_value
    if schema.kind(data.config) != "energy":
        raise InputError(f"-b is for energies, but {args.model} is a model of kind {schema.kind(data.config)}")
    if len(values) != len(names):
        raise InputError(f"-b has {len(values)} numbers, but the model has the types {', '.join(names)}")
    if not np.isfinite(values).all():
        raise InputError("-b must be finite numbers")
    old = data.weights["out_bias"]
    return {"out_bias": np.array(values, old.dtype).reshape(old.shape)}


def _fitted(args: argparse.Namespace, data: ModelData, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """What the data say."""
    from ..train.batch import Label, parameter_labels
    from ..train.bias import change_bias, set_bias
    from ..train.loading import Loader, open_section, order_of
    from ..train.random import Generator, fresh_seed
    from ..train.statistics import output_of

    section = _section(data, checkpoint)
    name, width = output_of(section)
    labels = [Label(name, width, False, False)]
    if name != "energy":
        labels.append(Label(f"atom_{name}", width, True, False))
    labels += parameter_labels(section["fitting_net"])
    wanted = {"systems": common.system_paths(args), "batch_size": 1}
    source = "-s" if args.datafile is None else "-f"
    files = open_section(wanted, data.config["type_map"], labels, source, source)
    loader = Loader(files, order_of(files, Generator(fresh_seed()), None, 1), source)
    try:
        batches = loader.sample(args.numb_batch or max(files.lengths))
        if args.mode == "set":
            return set_bias(data, section, batches)
        return change_bias(data, section, batches, args.threads)
    finally:
        loader.close()


def _section(data: ModelData, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """The model section in deepmd-kit's names, as far as biases ask for it."""
    from ..train.checkpoint import SINGLE

    section: dict[str, Any] = {
        "data_stat_protect": 0.01,
        "preset_out_bias": None,
        **{key: data.config[key] for key in ("type_map", "atom_exclude_types")},
    }
    section["fitting_net"] = {"type": "ener", **data.config["fitting_net"]}
    if checkpoint is not None:
        own = checkpoint.sections()[data.config["head"] or SINGLE]
        section.update({k: own[k] for k in ("data_stat_protect", "preset_out_bias") if own.get(k) is not None})
        if isinstance(own.get("fitting_net"), dict):
            section["fitting_net"].update(own["fitting_net"])
    return section


def _write_checkpoint(checkpoint: Checkpoint, data: ModelData, found: dict[str, Any], output: str) -> None:
    """The same checkpoint with these weights."""
    from ..train.checkpoint import SINGLE, full_name, write
    from ..train.gradient import PREFIX

    content = checkpoint.content
    state = content.get("model", content)
    for name, value in found.items():
        full = full_name(data.config["head"] or SINGLE, PREFIX + name)
        old = state.get(full)
        if not isinstance(old, np.ndarray) or old.size != value.size:
            raise InputError(f"{checkpoint.path}: the checkpoint has no weight {full} of this size")
        state[full] = value.astype(old.dtype).reshape(old.shape)
    write(Path(output), content)
