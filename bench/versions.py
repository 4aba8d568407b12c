"""Two installations of dpa2 against each other: processes that take turns on the same structures, one of them twice.

    python bench/versions.py --before ENV/bin/python -m medium.pt
    python bench/versions.py --before ENV/bin/python -m medium.pt --precision float32 --replicate 2 --pairs 20

Run it with the interpreter that has the new installation; ENV has the old one. The old one runs as two processes: the
ratio of these two says how far apart equal programs come out on this machine now. Every turn begins with another one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
from common import Service, add_structure_options, machine, read_structure, write_csv
from peer import PAUSE, label

SIDES = ("before", "again", "after")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Speed of two installations of dpa2, interleaved.")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--before", required=True, metavar="PYTHON", help="interpreter of the old installation")
    add_structure_options(parser)
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=20, help="timed turns (default: 20)")
    parser.add_argument("--csv", help="append a row to this file")
    args = parser.parse_args()
    structure = read_structure(args.structure, args.replicate, dpa2.load(args.model).type_map)
    with tempfile.TemporaryDirectory() as folder:
        services = {side: start(args, structure, Path(folder), side) for side in SIDES}
        loaded = {side: service.answer() for side, service in services.items()}
        answers: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for turn in range(-2, args.pairs):
            for k in range(len(SIDES)):
                side = SIDES[(turn + k) % len(SIDES)]
                time.sleep(PAUSE)
                answer = services[side].ask()
                if turn >= 0:
                    answers[side].append(answer)
        for service in services.values():
            service.close()
        forces = [np.load(Path(folder) / f"{side}.dpa2.npy") for side in ("before", "after")]

    def ratio(side: str) -> float:
        pairs = zip(answers[side], answers["before"], strict=True)
        return statistics.median(one["seconds"] / other["seconds"] for one, other in pairs)

    row: dict[str, Any] = {
        **machine(),
        "model": label(args.model),
        "structure": structure.name,
        "atoms": len(structure.types),
        "precision": args.precision,
        "threads": args.threads,
        "pairs": args.pairs,
    }
    for side in ("before", "after"):
        seconds = statistics.median(answer["seconds"] for answer in answers[side])
        row[f"{side}_ms_per_atom"] = f"{seconds / len(structure.types) * 1e3:.5g}"
        row[f"{side}_peak_mb"] = f"{answers[side][-1]['memory']:.1f}"
        row[f"{side}_load_s"] = f"{loaded[side]['load']:.3g}"
    row["ratio"], row["ratio_of_equals"] = f"{ratio('after'):.4f}", f"{ratio('again'):.4f}"
    row["same_bits"] = bool(np.array_equal(*forces))
    print("\n".join(f"{key:<20}{value}" for key, value in row.items()))
    if args.csv:
        write_csv(args.csv, [row])


def start(args: argparse.Namespace, structure: Any, folder: Path, side: str) -> Service:
    """The process of one side."""
    path = folder / f"{side}.npz"
    structure.save(path)
    python = sys.executable if side == "after" else args.before
    worker = str(Path(__file__).with_name("worker.py"))
    command = [python, worker, "dpa2", args.model, str(path), args.precision, str(args.threads)]
    return Service(side, command, {"OMP_NUM_THREADS": str(args.threads)})


if __name__ == "__main__":
    main()
