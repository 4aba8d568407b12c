"""Every operation of src/cpu by itself: time, useful GFLOP/s, fraction of the FMA peak and of the roofline.

    python bench/kernels.py --build build
    python bench/kernels.py --build build --precision float32 --isa v3 --operation pair_attention --csv kernels.csv

Needs a build with -Dbench=true. Sizes and useful work are those of tests/operations.py; the weights are random ones of
a model of the published medium size, with attention to neighbours and g1-g1 products switched on, or those of --model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, default_build, machine, write_csv
from dpa2.files import ModelData, write_safetensors

sys.path.insert(0, str(ROOT / "tests"))
from operations import OPERATIONS
from random_model import random_model

COLUMNS = (
    ("operation", 18), ("direction", 10), ("us_per_atom", 12), ("gflops", 9), ("gb_per_s", 9),
    ("fraction_of_peak", 17), ("bound", 14), ("fraction_of_roofline", 21),
)  # fmt: skip


def medium_model() -> ModelData:
    """Random weights in the sizes of the published medium model of water; two layers, so that one updates the pairs."""
    config, weights = random_model(
        np.random.default_rng(0),
        ntypes=2,
        repinit={
            "rcut": 6.0,
            "rcut_smth": 0.5,
            "nsel": 120,
            "neuron": [25, 50, 100],
            "axis_neuron": 12,
            "tebd_dim": 8,
            "three_body_neuron": [2, 4, 8],
            "three_body_rcut": 4.0,
            "three_body_rcut_smth": 3.5,
            "three_body_sel": 48,
        },
        repformer={
            "rcut": 4.0,
            "rcut_smth": 3.5,
            "nsel": 48,
            "nlayers": 2,
            "g1_dim": 128,
            "g2_dim": 32,
            "axis_neuron": 4,
            "attn1_hidden": 128,
            "attn1_nhead": 4,
            "attn2_hidden": 32,
            "attn2_nhead": 4,
        },
        fitting={"neuron": [240, 240, 240]},
    )
    return ModelData(config, weights)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time, GFLOP/s and roofline of every operation on one core.")
    parser.add_argument("--build", default=default_build(), help="build folder with bench/kernels")
    parser.add_argument("--model", help="a .safetensors model of the medium size (default: random weights)")
    parser.add_argument("--precision", choices=("float64", "float32", "both"), default="both")
    parser.add_argument("--isa", nargs="+", default=[""], metavar="LEVEL", help="levels to run (default: the best)")
    parser.add_argument("--operation", default="", help="one operation only")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each, the fastest counts (default: 9)")
    parser.add_argument("--csv", help="append the rows to this file")
    args = parser.parse_args()
    if not args.build:
        parser.error("no build with -Dbench=true found; name one with --build")
    return args


def answers(args: argparse.Namespace, model: str, precision: str, isa: str) -> Iterator[dict[str, Any]]:
    """What the native program prints."""
    sizes = OPERATIONS[0].sizes
    program = str(Path(args.build) / "bench" / "kernels")
    command = [program, model, precision, str(sizes["n"]), str(sizes["nr"]), str(args.rounds), args.operation]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"DPA2_ISA": isa} if isa else {})}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        raise SystemExit(f"{program} ended with status {process.returncode}")


def row_of(answer: dict[str, Any], head: dict[str, Any], precision: str) -> dict[str, Any]:
    """A line of the table."""
    operation = next(op for op in OPERATIONS if op.name == answer["operation"])
    macs = operation.macs if answer["direction"] == "forward" else operation.macs_backward
    # A product of two dual numbers is three of plain ones.
    flops, seconds = (6.0 if answer["direction"] == "training" else 2.0) * macs(operation.sizes), answer["us"] * 1e-6
    rate, peak, bandwidth = flops / seconds / 1e9, answer["peak_gflops"], head["cache_gb_per_s"]
    least = max(flops / (peak * 1e9), answer["bytes"] / (bandwidth * 1e9))
    return {
        "isa": head["isa"],
        "precision": precision,
        "operation": answer["operation"],
        "direction": answer["direction"],
        "us_per_atom": f"{answer['us']:.4g}",
        "flops": f"{flops:.0f}",
        "bytes": f"{answer['bytes']:.0f}",
        "gflops": f"{rate:.4g}",
        "gb_per_s": f"{answer['bytes'] / seconds / 1e9:.4g}",
        "peak_gflops": f"{peak:.4g}",
        "cache_gb_per_s": f"{bandwidth:.4g}",
        "memory_gb_per_s": f"{head['memory_gb_per_s']:.4g}",
        "fraction_of_peak": f"{rate / peak:.4f}",
        "bound": "multiply-adds" if flops / peak >= answer["bytes"] / bandwidth else "bandwidth",
        "fraction_of_roofline": f"{least / seconds:.4f}",
    }


def line_of(row: dict[str, Any]) -> str:
    """The columns for people."""
    (first, width), *others = COLUMNS
    return f"{row[first]:<{width}}" + "".join(f"{row[name]:>{w}}" for name, w in others)


def main() -> None:
    """Run the program per level and precision; print a table, write a CSV file."""
    args = parse_arguments()
    here = machine()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        model = args.model
        if model is None:
            model = str(Path(folder) / "medium.safetensors")
            write_safetensors(model, medium_model())
        for isa in args.isa:
            for precision in ("float64", "float32") if args.precision == "both" else (args.precision,):
                lines = answers(args, model, precision, isa)
                head = next(lines)
                print(f"\n{here['processor']}, level {head['isa']}, {precision}, {here['commit']}")
                print(f"bandwidth of the core's cache {head['cache_gb_per_s']:.0f} GB/s", end="")
                print(f", of main memory {head['memory_gb_per_s']:.0f} GB/s", end="")
                print("" if head["series"] else "; embedding networks are not evaluated as series")
                print(line_of({name: name for name, _ in COLUMNS}))
                for answer in lines:
                    row = row_of(answer, head, precision)
                    print(line_of(row), flush=True)
                    rows.append({**here, **row})
    if args.csv:
        write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
