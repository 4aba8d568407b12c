"""Time and memory of dpa2 on a CUDA device, in the columns of scaling.py. Needs a GPU.

    python bench/gpu.py --csv gpu.csv
    python bench/gpu.py -m medium.pth --copies 1 4 8 --precision float32
    python bench/gpu.py --copies 8 --kernels

A step is energy, forces and virial of a periodic box of copies of water, coordinates and results in the memory of the
device, neighbour lists built anew, after all atoms have moved a little. `peak_mb` is what the engine holds of the
device; `isa` is the compute capability, `processor` the device. Copies must have the energy and the forces of the small
box. `--kernels` lists the kernels of one more step with their times, by torch's profiler.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
from common import Structure, copies, machine, read_structure, write_csv
from dpa2.embedded import default_model
from scaling import exponent, row_of

SHIFT = 0.01  # angstrom: how far atoms are moved from step to step


def describe() -> dict[str, str]:
    """Name and compute capability of the device, and CUDA's driver, as nvidia-smi tells them."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        found = ""
    words = [word.strip() for word in found.splitlines()[0].split(",")] if found.strip() else ["unknown device"]
    name, capability, driver = [*words, "", ""][:3]
    return {"processor": f"{name}, driver {driver}" if driver else name, "isa": "sm_" + capability.replace(".", "")}


class Steps:
    """Evaluations with coordinates and results on the device."""

    def __init__(self, model: dpa2.Model, structure: Structure) -> None:
        from dpa2._native import DeviceArray

        self.model, self.structure, self._array = model, structure, DeviceArray

    def put(self, coords: np.ndarray) -> Any:
        """Coordinates on the device."""
        return self._array.copy_of(0, np.ascontiguousarray(coords))

    def run(self, coords: Any) -> Any:
        """A step, complete."""
        return self.model.evaluate(coords, self.structure.types, self.structure.box).check()

    def get(self, value: Any) -> np.ndarray:
        """A result in the memory of the host."""
        copied: np.ndarray = self._array.taken(value.__dlpack__(stream=1)).numpy()
        return copied


def measure(model: dpa2.Model, small: Structure, large: Structure, steps: int) -> dict[str, Any]:
    """One point: what `dpa2 bench --json` reports of a run on the CPU."""
    few, one = len(small.types), Steps(model, small)
    found = one.run(one.put(small.coords))
    energy, forces = float(one.get(found.energy)) / few, one.get(found.forces)
    scale = float(np.abs(one.get(found.atom_energy)).max()) or 1.0
    many, atoms = Steps(model, large), len(large.types)
    at = many.put(large.coords)
    start = time.perf_counter()
    found = many.run(at)
    first = time.perf_counter() - start
    difference = many.get(found.forces).reshape(-1, few, 3) - forces
    energy_error = abs(float(many.get(found.energy)) / atoms - energy) / scale
    rng, times = np.random.default_rng(0), []
    for _ in range(steps):
        at = many.put(large.coords + rng.uniform(-SHIFT, SHIFT, large.coords.shape))
        start = time.perf_counter()
        many.run(at)
        times.append(time.perf_counter() - start)
    return {
        "model": "water",
        "precision": model.precision,
        "isa": describe()["isa"],
        "threads": 1,
        "atoms": atoms,
        "step_times": times,
        "step": float(np.median(times)),
        "first_step": first,
        "peak_memory": model._gpu.native.bytes,  # type: ignore[union-attr]
        "energy_error": energy_error,
        "force_error": float(np.abs(difference).max()) / max(1.0, float(np.abs(forces).max())),
    }


def show_kernels(model: dpa2.Model, structure: Structure) -> None:
    """The table of --kernels: one step, after those that have been run."""
    try:
        from torch.profiler import ProfilerActivity, profile
    except ImportError:
        print("NO KERNEL WAS TIMED: torch is not installed; or run this under ncu or nsys")
        return
    steps = Steps(model, structure)
    at = steps.put(structure.coords)
    steps.run(at)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        steps.run(at)
    print(f"{'kernel':<28}{'launches':>9}{'ns/atom':>10}")
    rows = [(row.device_time_total, row.count, row.key) for row in found.key_averages() if row.device_time_total > 0]
    for microseconds, count, name in sorted(rows, reverse=True):
        print(f"{name[:27]:<28}{count:>9}{1e3 * microseconds / len(structure.types):>10.2f}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Time and memory of dpa2 on a CUDA device.")
    parser.add_argument("-m", "--model", help="model file (default: the embedded model of water)")
    parser.add_argument("structure", nargs="?", help="periodic structure (default: 192 atoms of water)")
    parser.add_argument("--copies", type=copies, nargs="+", default=[(1, 1, 1), (4, 4, 4), (8, 8, 8)], metavar="N")
    parser.add_argument("--precision", choices=("float64", "float32"), default="float32")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each point (default: 10)")
    parser.add_argument("--kernels", action="store_true", help="also the time of every kernel, by torch's profiler")
    parser.add_argument("--csv", help="append the rows to this file")
    args = parser.parse_args()
    options: dict[str, Any] = {"device": "cuda", "precision": args.precision}
    try:
        model = dpa2.load(args.model, **options) if args.model else default_model(**options)
    except dpa2.Error as error:
        raise SystemExit(f"NOTHING WAS MEASURED: {error}") from error
    small = read_structure(args.structure, (1, 1, 1), model.type_map)
    if small.box is None:
        raise SystemExit("a structure without a box cannot be replicated")
    here = {**machine(), "processor": describe()["processor"]}
    rows, seconds = [], {}
    print(f"{here['processor']}, {args.precision}, {here['commit']}")
    print(f"{'atoms':>9} {'s/step':>10} {'us/atom':>10} {'peak MB':>9} {'kB/atom':>9} {'energy':>9} {'forces':>9}")
    for times in args.copies:
        large = read_structure(args.structure, times, model.type_map)
        found = measure(model, small, large, args.steps)
        rows.append(row_of(here, found, Path(args.model).name if args.model else None))
        atoms, memory = found["atoms"], found["peak_memory"]
        seconds[atoms] = found["step"]
        print(
            f"{atoms:>9} {found['step']:>10.5f} {1e6 * found['step'] / atoms:>10.4f} {memory / 1e6:>9.1f} "
            f"{memory / atoms / 1e3:>9.2f} {found['energy_error']:>9.1e} {found['force_error']:>9.1e}",
            flush=True,
        )
        if args.kernels:
            show_kernels(model, large)
    print(f"exponent {exponent(list(seconds), list(seconds.values())):.3f}")
    if args.csv:
        write_csv(args.csv, rows)


if __name__ == "__main__":
    sys.exit(main())
