"""One side of bench/peer.py: loads a model, then evaluates a structure twice per line that it reads.

    python worker.py deepmd|dpa2 MODEL STRUCTURE.npz PRECISION THREADS

Of a turn's two evaluations the second counts, as a step among others in a simulation: the first finds the caches full
of the other program's data and its own threads asleep; its time is given apart.

Needs NumPy and either deepmd-kit or dpa2, nothing of the source tree: it runs in the other program's environment.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHIFT = 0.01  # angstrom: displacement of the atoms from evaluation to evaluation
Answer = tuple[float, Any, Any]


def peak_memory() -> float:
    """The most memory that this process has held so far, MB."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6


def make_deepmd(model: str, types: Any, box: Any, threads: int) -> Callable[[Any], Answer]:
    """deepmd-kit: energy, forces and virial of coordinates (n, 3)."""
    import torch

    torch.set_num_threads(threads)
    from deepmd.infer import DeepPot

    potential = DeepPot(model)
    cell = None if box is None else box.reshape(1, 9)

    def evaluate(coords: Any) -> Answer:
        energy, force, virial = potential.eval(coords.reshape(1, -1), cell, types)[:3]
        return float(np.ravel(energy)[0]), force[0], virial[0]

    return evaluate


def make_dpa2(model: str, types: Any, box: Any, precision: Any, threads: int) -> Callable[[Any], Answer]:
    """The same by dpa2."""
    import dpa2

    loaded = dpa2.load(model, precision=precision, threads=threads)

    def evaluate(coords: Any) -> Answer:
        result = loaded.evaluate(coords, types, box)
        return float(result.energy), result.forces, result.virial

    return evaluate


def main() -> None:
    """Say that the model is loaded; then an answer per line."""
    kind, model, structure, precision, threads = sys.argv[1:6]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get in between
    with np.load(structure) as z:
        coords, types, box = z["coords"], z["types"], z.get("box")
    start = time.perf_counter()
    if kind == "deepmd":
        evaluate = make_deepmd(model, types, box, int(threads))
    else:
        evaluate = make_dpa2(model, types, box, precision, int(threads))
    load = time.perf_counter() - start
    start = time.perf_counter()
    energy, forces, _ = evaluate(coords)
    first = time.perf_counter() - start
    np.save(structure.removesuffix(".npz") + f".{kind}.npy", forces)
    print(json.dumps({"load": load, "first": first, "energy": energy}), file=replies, flush=True)
    rng = np.random.default_rng(0)
    for _ in sys.stdin:
        seconds = []
        for _ in range(2):
            moved = coords + rng.normal(size=coords.shape) * SHIFT
            start = time.perf_counter()
            energy, forces, _ = evaluate(moved)
            seconds.append(time.perf_counter() - start)
        answer = {"cold": seconds[0], "seconds": seconds[1], "energy": energy, "memory": peak_memory()}
        print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    main()
