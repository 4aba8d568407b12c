"""The bits of every result: one line per model, precision, instruction-set level and number of threads.

    python tests/bits.py > before          # with the installed package
    python tests/bits.py --against before  # after a change that must not change them

Models are those of `cases`, their compressed twins and the embedded one; the outputs are energies, forces, virials and
atomic virials of both conventions, descriptors and rotation matrices. A change that moves code leaves every line as it
is. Bits differ from one processor to another only through its instruction sets, and never from run to run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from cases import GOLDEN, golden_cases, load_golden
from dpa2 import _native
from dpa2.data import read_structures
from dpa2.embedded import default_model_path
from dpa2.files import ModelData, read
from dpa2.model import Model

QUANTITIES = ("energy", "forces", "virial", "atom_energy", "atom_virial")


Frames = list[tuple[Any, ...]]


def models(quick: bool) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], Frames]]:
    """(name, configuration, weights, list of (coords, types, box, fparam, aparam)) of every model."""
    paths = [case.golden for case in golden_cases()] + sorted((GOLDEN / "compressed").glob("*.npz"))
    for path in paths[:: 8 if quick else 1]:
        golden = load_golden(path)
        data = read(path.with_suffix(".pth"), None) if path.parent.name == "compressed" else golden
        inputs = [(s.coord, s.atype, s.box, s.fparam, s.aparam) for s in golden.systems]
        yield str(path.relative_to(GOLDEN).with_suffix("")), data.config, data.weights, inputs
    # The embedded model's water, four times: large enough for the spatial order and many tiles.
    with default_model_path() as path:
        data = read(path, None)
        frame = next(iter(read_structures(path.with_name("water_192.extxyz"))[0]))
    types = frame.types_in(data.config["type_map"])
    shifts = np.array([(i, j, 0) for i in range(2) for j in range(2)]) @ frame.box
    coords = (frame.coords[None] + shifts[:, None]).reshape(-1, 3)
    yield "water", data.config, data.weights, [(coords, np.tile(types, 4), frame.box * [[2], [2], [1]], None, None)]


def digest(model: Any, frames: Frames) -> str:
    """Of everything that the model says about the frames."""
    total = hashlib.sha256()
    for coords, types, box, fparam, aparam in frames:
        for atomic in (False, True, "deepmd"):
            result = model.evaluate(coords, types, box, fparam=fparam, aparam=aparam, atomic=atomic)
            for name in QUANTITIES:
                value = getattr(result, name, None)
                if value is not None:
                    total.update(np.ascontiguousarray(value))
        for value in model.descriptor(coords, types, box, rot_mat=True):
            total.update(np.ascontiguousarray(value))
    return total.hexdigest()[:16]


def worker(quick: bool) -> None:
    """Print the lines of the level of this process."""
    warnings.simplefilter("ignore")
    for name, config, weights, frames in models(quick):
        for precision in ("float64", "float32"):
            for threads in (1, 2):
                model = Model(ModelData(config, weights), precision, threads, "cpu", "ignore", 0.0)
                print(f"{name} {precision} {_native.isa()} {threads} {digest(model, frames)}", flush=True)


def lines(quick: bool) -> list[str]:
    """All lines, levels side by side."""

    def run(level: str) -> str:
        command = [sys.executable, __file__, "--worker", *(["--quick"] if quick else [])]
        return subprocess.run(
            command, env={**os.environ, "DPA2_ISA": level}, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    with ThreadPoolExecutor(2) as pool:
        return "".join(pool.map(run, _native.isa_levels())).splitlines()


def main() -> int:
    """Print the lines, or what differs from those of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="FILE", help="lines of an earlier run")
    parser.add_argument("--quick", action="store_true", help="every eighth model")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.quick)
        return 0
    start = time.perf_counter()
    found = lines(options.quick)
    if options.against is None:
        print("\n".join(found))
        return 0
    before = set(options.against.read_text().splitlines())
    others = [line for line in found if line not in before]
    print("\n".join(others))
    print(f"{len(found) - len(others)} of {len(found)} lines are the same ({time.perf_counter() - start:.0f} s)")
    return int(bool(others))


if __name__ == "__main__":
    sys.exit(main())
