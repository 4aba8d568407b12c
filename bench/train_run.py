"""The training commands of dpa2 and deepmd-kit on the same input, called in turn: seconds per step and peak memory.

    python bench/train_run.py --peer ENV/bin/dp input.json
    python bench/train_run.py --peer ENV/bin/dp input.json --precision float32 --threads 2 --turns 3 --csv run.csv

Everything that a step costs a user is in it: data, lists, gradient, optimizer, the lines that are written. A turn is a
command from its start on, in an empty folder; of its steps the second half counts, by the times that both programs
print. The input is changed in its lengths alone: number of steps, how often lines are printed, no statistics file, and
with --precision that of the model. Its systems are sought from the folder of the input.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine, write_csv
from peer import PAUSE

TIMES = re.compile(r"atch +(\d+): total wall time = ([\d.]+) s")


def shortened(path: Path, steps: int, precision: str | None) -> dict[str, Any]:
    """The input for a run of 2 `steps` steps, which prints a time for each half."""
    found: dict[str, Any] = json.loads(path.read_text())
    training = found["training"]
    training.pop("stat_file", None)
    training.update(numb_steps=2 * steps, disp_freq=steps, save_freq=2 * steps)
    for name in ("training_data", "validation_data"):
        if name in training:
            systems = training[name]["systems"]
            systems = [systems] if isinstance(systems, str) else systems
            training[name]["systems"] = [str((path.parent / system).resolve()) for system in systems]
    if precision is not None:
        for name in ("descriptor", "fitting_net"):
            found["model"][name]["precision"] = precision
    return found


def run(command: list[str], steps: int, content: dict[str, Any], threads: int) -> tuple[float, float]:
    """Seconds per step and peak memory in MB of a command in a folder of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment |= {"DP_INTRA_OP_PARALLELISM_THREADS": str(threads), "DP_INTER_OP_PARALLELISM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "input.json").write_text(json.dumps(content))
        log = Path(folder) / "log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [*command, "train", "input.json"], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        text = log.read_text()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}\n{text[-2000:]}")
    times = {int(batch): float(seconds) for batch, seconds in TIMES.findall(text)}
    if 2 * steps not in times:
        raise SystemExit(f"{' '.join(command)} printed no time of step {2 * steps}\n{text[-2000:]}")
    return times[2 * steps] / steps, used.ru_maxrss / 1e3


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="The training commands of dpa2 and deepmd-kit, interleaved.")
    parser.add_argument("input", type=Path, help="input of deepmd-kit, .json")
    parser.add_argument("--peer", help="the program dp of deepmd-kit; without it dpa2 runs alone")
    parser.add_argument("--precision", choices=("float64", "float32"), help="of the model (default: as the input says)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="timed steps of dpa2 in a turn (default: 40)")
    parser.add_argument("--peer-steps", type=int, default=8, help="those of deepmd-kit (default: 8)")
    parser.add_argument("--csv", help="append a row to this file")
    args = parser.parse_args()
    ours = [shutil.which("dpa2", path=str(Path(sys.executable).parent)) or "dpa2"]
    sides = {"ours": (ours, args.steps)}
    if args.peer:
        sides["peer"] = ([args.peer, "--pt"], args.peer_steps)
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(args.turns):
        for side, (command, steps) in sides.items():
            time.sleep(PAUSE)
            content = shortened(args.input, steps, args.precision)
            found[side].append(run(command, steps, content, args.threads))
    row: dict[str, Any] = {**machine(), "input": args.input.name, "precision": args.precision or "as given"}
    row |= {"threads": args.threads, "turns": args.turns}
    for side, name in (("ours", "dpa2"), ("peer", "deepmd-kit")):
        values = found.get(side, [])
        seconds = statistics.median(s for s, _ in values) if values else float("nan")
        memory = max((m for _, m in values), default=float("nan"))
        row |= {f"{side}_s": round(seconds, 5), f"{side}_mb": round(memory, 1)}
        if values:
            print(f"{name:<11} {seconds:9.4f} s per step, peak {memory:8.1f} MB")
    if args.peer:
        pairs = zip(found["peer"], found["ours"], strict=True)
        row["ratio"] = round(statistics.median(peer[0] / ours[0] for peer, ours in pairs), 2)
        print(f"ratio {row['ratio']:.2f}")
    if args.csv:
        write_csv(args.csv, [row])


if __name__ == "__main__":
    main()
