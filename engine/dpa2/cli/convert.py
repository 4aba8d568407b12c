"""``dpa2 convert``: a model file of any supported format to the native one."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from . import common

if TYPE_CHECKING:
    from ..files import ModelData

EPILOG = """\
examples:
  dpa2 convert model.pt model.safetensors
  dpa2 convert multitask.pt water.safetensors --head water
  dpa2 convert model.pth small.safetensors --precision float32    half the size

The native file holds the whole configuration and the weights of one model, and is readable
from C++ and C as well.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "convert",
        help="a model file to the native format (.safetensors)",
        description="Convert a model file to the native format. Weights are copied exactly, or rounded by --precision.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("input", metavar="IN", help="model file: .pt, .pth, .dp, .yaml, .pt2, .hlo, .safetensors, ...")
    parser.add_argument("output", metavar="OUT", help="the file to write: .safetensors")
    parser.add_argument("--head", help="which model of a multi-task file")
    parser.add_argument(
        "--precision", choices=("float64", "float32"), help="store and run in this one (default: as it is)"
    )
    parser.set_defaults(run=run)


def with_precision(data: ModelData, precision: str) -> ModelData:
    """The model with its weights, and what it says of its precision, in ``precision``; tables of pairs stay."""
    import copy

    from ..files import ModelData, schema

    config = copy.deepcopy(data.config)
    config["precision"] = precision
    for part in schema.networks(config).values():
        for block in (*schema.descriptors(part), part["fitting_net"]):
            block["precision"] = precision
    weights = {
        name: array if name.endswith(".tab_data") else array.astype(precision) for name, array in data.weights.items()
    }
    return ModelData(config, weights)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from ..files import read, write_safetensors
    from ..files.schema import kind

    common.check_output(args.output, (".safetensors",), [args.input])
    data = read(args.input, args.head)
    if args.precision is not None:
        data = with_precision(data, args.precision)
    write_safetensors(args.output, data)
    parameters = sum(int(array.size) for array in data.weights.values())
    of = "" if kind(data.config) == "energy" else f"{kind(data.config)} of "
    facts = [of + " ".join(data.config["type_map"]), data.config["precision"], f"{parameters:,} parameters"]
    print(f"{args.output}: {', '.join(facts)}, {os.path.getsize(args.output) / 1e6:.2f} MB")
