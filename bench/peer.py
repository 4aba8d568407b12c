"""Speed of dpa2 against deepmd-kit: two long-lived processes, called in turn on the same structures.

    python bench/peer.py --peer-python ENV/bin/python --peer-model medium.pth -m medium.pth
    python bench/peer.py ... --precision float32 --replicate 2 --threads 2 --runs 11 --csv peer.csv

Run it with the interpreter that has dpa2. deepmd-kit computes in the precision of its own file: give it a float32 model
to compare with --precision float32. GFLOP/s count the useful work of bench/flops.py for both; the peak is measured by
the native program of a build with -Dbench=true (--build FOLDER), in turn with the two.
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
import flops
import numpy as np
from common import Service, Structure, add_structure_options, default_build, machine, read_structure, write_csv
from dpa2 import _native

#: Seconds before every turn: idle threads of the program that was called before wait actively for a while.
PAUSE = 0.5


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Speed of dpa2 against deepmd-kit, interleaved.")
    parser.add_argument("-m", "--model", required=True, help="the model for dpa2")
    parser.add_argument("--peer-python", help="interpreter that has deepmd-kit; without it dpa2 runs alone")
    parser.add_argument("--peer-model", help="frozen model for deepmd-kit: .pth, .pt2 (default: the same file)")
    add_structure_options(parser)
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64", help="of dpa2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=7, help="timed evaluations of each, one per turn (default: 7)")
    parser.add_argument("--warmup", type=int, default=2, help="turns before the first timed one (default: 2)")
    parser.add_argument("--build", default=default_build(), help="build folder with bench/peak, for the FMA peak")
    parser.add_argument("--csv", help="append a row to this file")
    return parser.parse_args()


def start(args: argparse.Namespace, structure: Structure, folder: Path) -> dict[str, Service]:
    """The processes that take turns."""
    path = folder / "structure.npz"
    structure.save(path)
    worker = str(Path(__file__).with_name("worker.py"))
    tail = [str(path), args.precision, str(args.threads)]
    environment = {"OMP_NUM_THREADS": str(args.threads)}
    services = {}
    if args.peer_python:
        command = [args.peer_python, worker, "deepmd", args.peer_model or args.model, *tail]
        services["peer"] = Service("deepmd-kit", command, environment)
    services["ours"] = Service("dpa2", [sys.executable, worker, "dpa2", args.model, *tail], environment)
    if args.build:
        program = [str(Path(args.build) / "bench" / "peak"), "--serve", args.precision, str(args.threads)]
        services["peak"] = Service("peak", program, environment)
    return services


def measure(args: argparse.Namespace, services: dict[str, Service]) -> dict[str, Any]:
    """Answers in turn; medians of what they say."""
    loaded = {name: service.answer() for name, service in services.items() if name != "peak"}
    timed: list[str] = [name for name in ("peer", "ours") if name in services]
    for _ in range(args.warmup):
        for name in timed:
            services[name].ask()
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in services}
    for _ in range(args.runs):
        for name, service in services.items():
            time.sleep(PAUSE)
            answers[name].append(service.ask())
    for service in services.values():
        service.close()
    found: dict[str, Any] = {"load": loaded, "memory": {name: answers[name][-1]["memory"] for name in timed}}
    found["seconds"] = {name: statistics.median(a["seconds"] for a in answers[name]) for name in timed}
    found["cold"] = {name: statistics.median(a["cold"] for a in answers[name]) for name in timed}
    found["fastest"] = {name: min(a["seconds"] for a in answers[name]) for name in timed}
    found["peak"] = statistics.median(a["gflops"] for a in answers["peak"]) if "peak" in answers else None
    if "peer" in services:
        pairs = list(zip(answers["peer"], answers["ours"], strict=True))
        found["ratio"] = statistics.median(peer["seconds"] / ours["seconds"] for peer, ours in pairs)
        found["energy"] = max(abs(peer["energy"] - ours["energy"]) for peer, ours in pairs)
    return found


def label(path: str) -> str:
    """A model file by its name and its folder's."""
    return "/".join(Path(path).resolve().parts[-2:])


def main() -> None:
    """Measure, print, write."""
    args = parse_arguments()
    model = dpa2.load(args.model)
    structure = read_structure(args.structure, args.replicate, model.type_map)
    neighbors = flops.measure(model.config, structure.coords, structure.types, structure.box)
    natoms, work = len(structure.types), flops.total(flops.count(model.config, neighbors)).flops
    with tempfile.TemporaryDirectory() as folder:
        services = start(args, structure, Path(folder))
        found = measure(args, services)
        force = float("nan")
        if "peer" in services:
            ours, peer = (np.load(Path(folder) / f"structure.{kind}.npy") for kind in ("dpa2", "deepmd"))
            force = float(np.abs(ours - peer).max())

    rows: dict[str, Any] = {
        **machine(),
        "model": label(args.model),
        "peer_model": label(args.peer_model or args.model) if args.peer_python else "",
        "structure": structure.name,
        "atoms": natoms,
        "precision": args.precision,
        "threads": args.threads,
        "isa": _native.isa(),
        "runs": args.runs,
        "mflop_per_atom": round(work / 1e6, 3),
        "peak_gflops": "" if found["peak"] is None else round(found["peak"], 1),
    }
    for name in ("peer", "ours"):
        here = name in found["seconds"]
        rate = work * natoms / found["seconds"][name] / 1e9 if here else float("nan")
        rows[f"{name}_ms_per_atom"] = f"{found['seconds'][name] / natoms * 1e3:.5g}" if here else ""
        rows[f"{name}_cold_ms_per_atom"] = f"{found['cold'][name] / natoms * 1e3:.5g}" if here else ""
        rows[f"{name}_fastest_ms_per_atom"] = f"{found['fastest'][name] / natoms * 1e3:.5g}" if here else ""
        rows[f"{name}_gflops"] = f"{rate:.4g}" if here else ""
        rows[f"{name}_fraction_of_peak"] = f"{rate / found['peak']:.4g}" if here and found["peak"] else ""
        rows[f"{name}_peak_mb"] = f"{found['memory'][name]:.1f}" if here else ""
        rows[f"{name}_load_s"] = f"{found['load'][name]['load']:.3g}" if here else ""
        rows[f"{name}_first_s"] = f"{found['load'][name]['first']:.3g}" if here else ""
    rows["ratio"] = f"{found['ratio']:.4g}" if "ratio" in found else ""
    rows["energy_difference_per_atom"] = f"{found['energy'] / natoms:.3g}" if "energy" in found else ""
    rows["force_difference"] = f"{force:.3g}" if "ratio" in found else ""
    report(rows)
    if args.csv:
        write_csv(args.csv, [rows])


def report(row: dict[str, Any]) -> None:
    """The table for people."""
    print(f"{row['processor']}, {row['threads']} thread(s), instruction set {row['isa']}, {row['commit']}")
    print(f"{row['model']}, {row['structure']}: {row['atoms']} atoms, {row['precision']}, {row['runs']} runs")
    print(f"useful work {row['mflop_per_atom']} MFLOP per atom, FMA peak {row['peak_gflops'] or '-'} GFLOP/s\n")
    columns = {
        "ms_per_atom": "ms/atom",
        "cold_ms_per_atom": "cold",
        "fastest_ms_per_atom": "fastest",
        "gflops": "GFLOP/s",
        "fraction_of_peak": "of peak",
        "peak_mb": "peak MB",
        "load_s": "load s",
        "first_s": "first s",
    }
    print(" " * 12 + "".join(f"{title:>10}" for title in columns.values()))
    for side, label in (("peer", "deepmd-kit"), ("ours", "dpa2")):
        print(f"{label:<12}" + "".join(f"{row[f'{side}_{key}'] or '-':>10}" for key in columns))
    if row["ratio"]:
        print(f"\nratio {row['ratio']} (median of {row['runs']} pairs)")
        print(f"largest differences: energy {row['energy_difference_per_atom']} eV per atom", end="")
        print(f", force {row['force_difference']} eV/angstrom")


if __name__ == "__main__":
    main()
