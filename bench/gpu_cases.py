"""Models whose kernels are counted, and evaluations of them on the emulated GPU, each in a process of its own.

The emulation (tests/cuda_emulator) stands for CUDA's driver and compiler; everything else is what runs on a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Structure, read_structure
from dpa2.files import ModelData, schema

sys.path.insert(0, str(ROOT / "tests"))
from cuda_emulator import driver
from random_model import random_model

PRECISIONS = {"float": "float32", "double": "float64"}
DENSITY = 0.1003  # atoms per cubic angstrom of water


def water(atoms: int) -> Structure:
    """Atoms of water's density at places as irregular as those of a liquid; the same in every run."""
    rng = np.random.default_rng(7)
    length = (atoms / DENSITY) ** (1 / 3)
    per_side = int(np.ceil(atoms ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(per_side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    places = grid[rng.permutation(len(grid))[:atoms]] * (length / per_side)
    coords = places + rng.normal(scale=0.15, size=places.shape)
    types = np.where(np.arange(atoms) % 3 == 0, 0, 1).astype(np.int32)
    return Structure(coords, types, np.eye(3) * length, f"water_{atoms}")


def liquid() -> Structure:
    """Water as the models know it: 192 atoms of an equilibrated box."""
    return read_structure(None, (1, 1, 1), ["O", "H"])


def model_of_water(
    repinit: dict[str, Any], repformer: dict[str, Any], fitting: dict[str, Any] | None = None
) -> ModelData:
    """A random model of two types, with deepmd-kit's defaults but for these options."""

    def defaults(name: str) -> dict[str, Any]:
        return {key: option.default for key, option in schema.section(name).items()}

    lists = {"rcut": 6.0, "rcut_smth": 0.5, "nsel": 120}
    near = {"rcut": 4.0, "rcut_smth": 3.5, "nsel": 48}
    return ModelData(
        *random_model(
            np.random.default_rng(0),
            ntypes=2,
            repinit=defaults("repinit") | lists | repinit,
            repformer=defaults("repformer") | near | repformer,
            fitting={"neuron": [240, 240, 240]} | (fitting or {}),
        )
    )


PUBLISHED = {
    "axis_neuron": 12, "use_three_body": True, "three_body_neuron": [2, 4, 8], "three_body_rcut": 4.0,
    "three_body_rcut_smth": 3.5, "three_body_sel": 48,
}  # fmt: skip
FORMER = {
    "nlayers": 6, "g2_dim": 32, "attn1_hidden": 128, "attn2_hidden": 32, "update_g1_has_attn": False,
    "update_g2_has_g1g1": False, "update_style": "res_residual",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model, and how many atoms are enough to count it."""

    make: Callable[[], ModelData]
    atoms: int


#: published sizes of water; deepmd-kit's default options (g1 attention, g1g1); full lists of 120; h2 that is updated
MODELS: dict[str, Case] = {
    "medium": Case(lambda: model_of_water(PUBLISHED, FORMER), 24),
    "small": Case(lambda: model_of_water(PUBLISHED, FORMER | {"nlayers": 3, "update_g2_has_attn": False}), 24),
    "defaults": Case(lambda: model_of_water({}, {}), 24),
    "sel_120": Case(
        lambda: model_of_water(
            PUBLISHED | {"rcut": 7.0, "nsel": 200},
            FORMER | {"nlayers": 2, "g2_dim": 64, "rcut": 6.8, "rcut_smth": 6.0, "nsel": 120},
        ),
        9,
    ),
    "h2": Case(lambda: model_of_water(PUBLISHED, FORMER | {"nlayers": 3, "update_h2": True}), 24),
}


#: all terms at once, for what is looked at kernel by kernel
EVERYTHING = Case(
    lambda: model_of_water(
        PUBLISHED, FORMER | {"nlayers": 3, "update_h2": True, "update_g1_has_attn": True, "update_g2_has_g1g1": True}
    ),
    12,
)


@dataclass(frozen=True)
class Shape:
    """Of a launch."""

    threads: int
    shared: int  # bytes of dynamic shared memory


class Evaluation:
    """A model on the emulated device of this process, which must have the variables of :func:`process`."""

    def __init__(self, case: Case, precision: str) -> None:
        from dpa2._native import NativeGpuModel

        data = case.make()
        self.native = NativeGpuModel(
            json.dumps(data.config), data.weights, PRECISIONS[precision], data.checked, "cuda", None
        )

    def step(self, structure: Structure) -> None:
        """Energy, forces and virial, lists included."""
        n = len(structure.types)
        inputs = {"coords": structure.coords, "types": structure.types, "boxes": structure.box}
        results = {"energy": (1,), "atom_energy": (1, n), "force": (1, n, 3), "virial": (1, 9)}
        rows = {key: np.ascontiguousarray(value)[None] for key, value in inputs.items()}
        self.native.evaluate(
            1, n, (True, True, True), rows, {key: np.zeros(shape) for key, shape in results.items()}, 0
        )


@cache
def shapes(precision: str) -> dict[str, Shape]:
    """The launch of each kernel that takes the most shared memory: a model with all terms, with series and without."""
    found = process(Path(__file__).resolve(), precision)
    return {kernel: Shape(*shape) for kernel, shape in found.items()}


def shapes_here(precision: str) -> dict[str, tuple[int, int]]:
    """In this process, which must have the variables of :func:`process`."""
    for series in ("on", "off"):
        os.environ["DPA2_SERIES"] = series
        Evaluation(EVERYTHING, precision).step(water(EVERYTHING.atoms))
    found: dict[str, tuple[int, int]] = {}
    for one in driver.driver().launches():
        shape = (one.block[0], one.shared)
        if one.kernel not in found or shape[1] > found[one.kernel][1]:
            found[one.kernel] = shape
    return found


def process(script: Path, *words: str, sanitizer: str = "", multiprocessors: int = 132) -> Any:
    """What a script of this folder prints as JSON when it runs on an emulated device."""
    device = driver.environment(sanitizer=sanitizer, shared=48 * 1024, multiprocessors=multiprocessors, architecture=90)
    variables = {**os.environ, **device}
    variables["DPA2_GPU_SEPARATE_BUFFERS"] = ""  # memory as it is planned for a GPU
    command = [sys.executable, str(script), *words]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(shapes_here(sys.argv[1])))
