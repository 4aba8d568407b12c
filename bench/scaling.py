"""Time and memory over numbers of atoms and threads: one `dpa2 bench` per point, the exponent, a CSV file, a plot.

    python bench/scaling.py --atoms 1000 10000 100000 --threads 1 2 --csv scaling.csv --plot scaling.png

Run it with the interpreter that has dpa2. The exponent is the slope of log(time of a step) over log(atoms).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, write_csv


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time and memory of dpa2 over atoms and threads.")
    parser.add_argument("-m", "--model", help="model file (default: the embedded model of water)")
    parser.add_argument("--atoms", type=int, nargs="+", default=[1000, 4000, 16000], help="sizes, at least this many")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each point (default: 3)")
    parser.add_argument("--csv", help="append the rows to this file")
    parser.add_argument("--plot", help="write a plot: .png, .pdf, .svg (needs matplotlib)")
    return parser.parse_args()


def measure(args: argparse.Namespace, atoms: int, threads: int) -> dict[str, Any]:
    """One point, in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", "dpa2", "bench", "--json", "--atoms", str(atoms), "--threads", str(threads)]
    command += ["--precision", args.precision, "--steps", str(args.steps), *(["-m", args.model] if args.model else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"dpa2 bench failed with {atoms} atoms and {threads} threads")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def exponent(atoms: list[int], seconds: list[float]) -> float:
    """The slope of log(seconds) over log(atoms), by least squares."""
    if len(set(atoms)) < 2:
        return float("nan")
    return float(np.polyfit(np.log(atoms), np.log(seconds), 1)[0])


def row_of(here: dict[str, Any], found: dict[str, Any], model: str | None) -> dict[str, Any]:
    """A row of the CSV file, from the report of `dpa2 bench` or what says the same; ``model``: a file's name."""
    atoms, step, memory = found["atoms"], found["step"], found["peak_memory"]
    return {
        **here,
        "model": model or found["model"],
        "precision": found["precision"],
        "isa": found["isa"],
        "threads": found["threads"],
        "atoms": atoms,
        "steps": len(found["step_times"]),
        "s_per_step": f"{step:.6g}",
        "fastest_s": f"{min(found['step_times']):.6g}",
        "first_s": f"{found['first_step']:.6g}",
        "ms_per_atom": f"{1e3 * step / atoms:.5g}",
        "peak_mb": f"{memory / 1e6:.1f}",
        "kb_per_atom": f"{memory / atoms / 1e3:.2f}",
        "energy_error": f"{found['energy_error']:.2e}",
        "force_error": f"{found['force_error']:.2e}",
    }


def main() -> None:
    """Measure, fit, print, write."""
    args = parse_arguments()
    here = machine()
    rows: list[dict[str, Any]] = []
    print(f"{here['processor']}, {args.precision}, {here['commit']}")
    print(f"{'threads':>7} {'atoms':>9} {'s/step':>10} {'ms/atom':>10} {'speed-up':>9} {'peak MB':>9} {'kB/atom':>9}")
    base: dict[int, float] = {}  # seconds of the first number of threads
    for threads in args.threads:
        times: dict[int, float] = {}
        for wanted in sorted(args.atoms):
            found = measure(args, wanted, threads)
            atoms, step, memory = found["atoms"], found["step"], found["peak_memory"]
            times[atoms] = step
            faster = base.setdefault(atoms, step) / step
            rows.append(row_of(here, found, None if args.model is None else Path(args.model).name))
            print(
                f"{threads:>7} {atoms:>9} {step:>10.4f} {1e3 * step / atoms:>10.5f} {faster:>9.2f} "
                f"{memory / 1e6:>9.1f} {memory / atoms / 1e3:>9.2f}",
                flush=True,
            )
        print(f"{threads:>7} exponent {exponent(list(times), list(times.values())):.3f}")
    if args.csv:
        write_csv(args.csv, rows)
    if args.plot:
        plot(args.plot, rows)


def plot(path: str, rows: list[dict[str, Any]]) -> None:
    """Time per step over atoms, one curve per number of threads, and the memory per atom below."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install matplotlib") from None
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(6, 7), layout="constrained")
    for threads in sorted({row["threads"] for row in rows}):
        chosen = sorted((row for row in rows if row["threads"] == threads), key=lambda row: int(row["atoms"]))
        atoms = [int(row["atoms"]) for row in chosen]
        seconds = [float(row["s_per_step"]) for row in chosen]
        label = f"{threads} thread{'' if threads == 1 else 's'}, exponent {exponent(atoms, seconds):.3f}"
        above.loglog(atoms, seconds, "o-", label=label)
        below.loglog(atoms, [float(row["kb_per_atom"]) for row in chosen], "o-")
    above.set_ylabel("time per step / s")
    above.legend()
    below.set_ylabel("peak memory per atom / kB")
    below.set_xlabel("atoms")
    above.set_title(f"{rows[0]['model']}, {rows[0]['precision']}: {rows[0]['processor']}", fontsize="medium")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
