"""``dpa2 compress``: tables in place of embedding networks."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from . import common

EPILOG = """\
examples:
  dpa2 compress model.pth -o model_c.safetensors
  dpa2 compress model.pt -o model_c.safetensors --max-error 1e-6     smaller
  dpa2 compress multitask.pt -o water_c.safetensors --head water

Repinit, with types in strip or concat mode, and the three-body block become piecewise quintic
tables. The networks stay in the file: dpa2.load(..., compress=False) uses them.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "compress",
        help="tables in place of the embedding networks",
        description="Replace embedding networks by piecewise quintic tables, with a bound on the error.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="model file of any supported format")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write: .safetensors")
    parser.add_argument("--head", help="which model of a multi-task file")
    parser.add_argument(
        "--max-error",
        type=float,
        default=1e-8,
        metavar="X",
        help="bound on the errors of values and first derivatives between the nodes (default: 1e-8)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from ..compress import caution, compress
    from ..files import read, write_safetensors

    common.check_output(args.output, (".safetensors",), [args.model])
    data, tables = compress(read(args.model, args.head), args.max_error)
    write_safetensors(args.output, data)
    for table in tables:
        size = f"{table.curves} x {table.intervals} intervals x {table.channels} channels"
        size += f", {table.nbytes / 1e6:.2f} MB"
        print(f"{table.prefix + table.block:<11} {size}, s from {table.lower:.4g} to {table.upper:.4g}")
        print(
            f"{'':<11} largest error between the nodes: {table.value_error:.1e}, of the slope {table.slope_error:.1e}"
        )
    print(f"{args.output}: {os.path.getsize(args.output) / 1e6:.2f} MB")
    print(f"dpa2: warning: {caution(data.config)}", file=sys.stderr)
