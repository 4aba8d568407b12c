"""Time and memory of dpa2 on a CUDA device, in the columns of scaling.py. Needs a GPU and CuPy.

    python bench/gpu.py --csv gpu.csv
    python bench/gpu.py -m medium.pth --copies 1 4 8 --precision float32
    python bench/gpu.py --copies 8 --kernels

A step is energy, forces and virial of a periodic box of copies of water, coordinates and results in the memory of the
device, neighbour lists built anew, after all atoms have moved a little. `peak_mb` is what the memory pool of the device
holds; `isa` is the compute capability, `processor` the device. Copies must have the energy and the forces of the small
box. `--kernels` times one more step launch by launch, which is slower than the step itself, beside the bound of the
roofline.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import Structure, copies, machine, read_structure, write_csv
from dpa2.cuda.device import CupyDevice, Device
from dpa2.cuda.engine import CudaEngine
from dpa2.embedded import default_model_path
from dpa2.errors import InputError
from dpa2.files import ModelData, read
from scaling import exponent, row_of

SHIFT = 0.01  # angstrom: how far atoms are moved from step to step


class TimedDevice:
    """A device that waits for every launch and adds up what each kernel takes."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}
        self.launches: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def _timed(self, name: str, action: Callable[[], None]) -> None:
        xp = self._device.xp
        if hasattr(xp, "cuda"):
            begin, end = xp.cuda.Event(), xp.cuda.Event()
            begin.record()
            action()
            end.record()
            end.synchronize()
            taken = 1e-3 * float(xp.cuda.get_elapsed_time(begin, end))
        else:
            start = time.perf_counter()
            action()
            taken = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + taken
        self.launches[name] = self.launches.get(name, 0) + 1

    def launch(self, source: str, kernel: str, *args: Any, **options: Any) -> None:
        self._timed(kernel, lambda: self._device.launch(source, kernel, *args, **options))

    def gemm(self, a: Any, b: Any, out: Any, transpose_a: bool = False, *args: Any, **options: Any) -> None:
        name = f"gemm {a.shape[0] if transpose_a else a.shape[1]}x{out.shape[1]}"
        self._timed(name, lambda: self._device.gemm(a, b, out, transpose_a, *args, **options))


def describe(device: Device) -> dict[str, Any]:
    """Name of the device, and how to ask for the memory that it holds."""
    xp = device.xp
    if not hasattr(xp, "cuda"):
        return {"processor": "no device", "isa": "none", "memory": lambda: 0}
    properties = xp.cuda.runtime.getDeviceProperties(xp.cuda.runtime.getDevice())
    name = properties["name"]
    return {
        "processor": name.decode() if isinstance(name, bytes) else str(name),
        "isa": f"sm_{properties['major']}{properties['minor']}",
        "memory": lambda: int(xp.get_default_memory_pool().total_bytes()),
    }


def measure(
    device: Device, data: ModelData, precision: str, small: Structure, large: Structure, steps: int
) -> dict[str, Any]:
    """One point: what `dpa2 bench --json` reports of a run on the CPU."""
    about = describe(device)
    engine = CudaEngine(data, precision, device)
    periodic = (True, True, True)

    def evaluate(coords: Any, structure: Structure) -> dict[str, Any]:
        found = engine.evaluate_arrays(coords, structure.types, structure.box, periodic)
        device.synchronize()
        return found

    few = len(small.types)
    found = evaluate(device.asarray(small.coords), small)
    energy, forces = float(device.asnumpy(found["energy"])[0]) / few, device.asnumpy(found["forces"])
    scale = float(np.abs(device.asnumpy(found["atom_energy"])).max()) or 1.0
    atoms = len(large.types)
    start = time.perf_counter()
    found = evaluate(device.asarray(large.coords), large)
    first = time.perf_counter() - start
    difference = device.asnumpy(found["forces"]).reshape(-1, few, 3) - forces
    energy_error = abs(float(device.asnumpy(found["energy"])[0]) / atoms - energy) / scale
    rng, times = np.random.default_rng(0), []
    for _ in range(steps):
        moved = device.asarray(large.coords + rng.uniform(-SHIFT, SHIFT, large.coords.shape))
        device.synchronize()
        start = time.perf_counter()
        evaluate(moved, large)
        times.append(time.perf_counter() - start)
    return {
        "model": "water",
        "precision": precision,
        "isa": about["isa"],
        "threads": 1,
        "atoms": atoms,
        "step_times": times,
        "step": float(np.median(times)),
        "first_step": first,
        "peak_memory": about["memory"](),
        "energy_error": energy_error,
        "force_error": float(np.abs(difference).max()) / max(1.0, float(np.abs(forces).max())),
    }


def kernel_times(device: Device, data: ModelData, precision: str, structure: Structure) -> TimedDevice:
    """A step, launch by launch, after one that compiles everything."""
    timed = TimedDevice(device)
    engine = CudaEngine(data, precision, timed)
    for _ in range(2):
        timed.seconds.clear()
        timed.launches.clear()
        engine.evaluate_arrays(structure.coords, structure.types, structure.box, (True, True, True))
    return timed


def show_kernels(timed: TimedDevice, data: ModelData, structure: Structure) -> None:
    """The table of --kernels: measured times beside the bound for an H100 in float32."""
    from flops import measure as count_neighbors
    from gpu_plan import planned_evaluation
    from gpu_roofline import BANDWIDTH, PEAK, sizes_of, table_of

    natoms = len(structure.types)
    near = count_neighbors(data.config, structure.coords, structure.types, structure.box)
    planned = planned_evaluation(data, "float32", structure)
    bounds = table_of(planned, sizes_of(data.config, near), natoms, 1e12 * PEAK, 1e12 * BANDWIDTH)
    print(f"{'kernel':<26}{'launches':>9}{'ns/atom':>10}{'bound':>9}")
    for name, seconds in sorted(timed.seconds.items(), key=lambda item: -item[1]):
        bound = f"{1e9 * bounds[name].seconds:.2f}" if name in bounds else ""
        print(f"{name:<26}{timed.launches[name]:>9}{1e9 * seconds / natoms:>10.2f}{bound:>9}")


def main(device: Device | None = None) -> None:
    """Measure, print, write. ``device``: another one than CuPy's."""
    parser = argparse.ArgumentParser(description="Time and memory of dpa2 on a CUDA device.")
    parser.add_argument("-m", "--model", help="model file (default: the embedded model of water)")
    parser.add_argument("structure", nargs="?", help="periodic structure (default: 192 atoms of water)")
    parser.add_argument("--copies", type=copies, nargs="+", default=[(1, 1, 1), (4, 4, 4), (8, 8, 8)], metavar="N")
    parser.add_argument("--precision", choices=("float64", "float32"), default="float32")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each point (default: 10)")
    parser.add_argument("--kernels", action="store_true", help="also the time of every kernel")
    parser.add_argument("--csv", help="append the rows to this file")
    args = parser.parse_args()
    if device is None:
        try:
            device = CupyDevice()
        except InputError as error:
            raise SystemExit(f"NOTHING WAS MEASURED: {error}") from error
    if args.model:
        data = read(args.model)
    else:
        with default_model_path() as path:
            data = read(path)
    type_map = data.config["type_map"]
    small = read_structure(args.structure, (1, 1, 1), type_map)
    if small.box is None:
        raise SystemExit("a structure without a box cannot be replicated")
    here = {**machine(), "processor": describe(device)["processor"]}
    rows, seconds = [], {}
    print(f"{here['processor']}, {args.precision}, {here['commit']}")
    print(f"{'atoms':>9} {'s/step':>10} {'us/atom':>10} {'peak MB':>9} {'kB/atom':>9} {'energy':>9} {'forces':>9}")
    for times in args.copies:
        large = read_structure(args.structure, times, type_map)
        found = measure(device, data, args.precision, small, large, args.steps)
        rows.append(row_of(here, found, Path(args.model).name if args.model else None))
        atoms, memory = found["atoms"], found["peak_memory"]
        seconds[atoms] = found["step"]
        print(
            f"{atoms:>9} {found['step']:>10.5f} {1e6 * found['step'] / atoms:>10.4f} {memory / 1e6:>9.1f} "
            f"{memory / atoms / 1e3:>9.2f} {found['energy_error']:>9.1e} {found['force_error']:>9.1e}",
            flush=True,
        )
        if args.kernels:
            show_kernels(kernel_times(device, data, args.precision, large), data, large)
    print(f"exponent {exponent(list(seconds), list(seconds.values())):.3f}")
    if args.csv:
        write_csv(args.csv, rows)


if __name__ == "__main__":
    sys.exit(main())
