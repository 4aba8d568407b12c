"""What an evaluation on a CUDA device would launch, found without one: the host code runs, the kernels do not.

`PlannedDevice` is a device whose launches are only written down: kernel, grid, block, shared memory, and how many bytes
the arrays have that a kernel gets. Arrays are NumPy's; memory that nothing touches costs nothing, so that
100,000 atoms can be planned on a laptop. Neighbour lists are real: they come from the CPU.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from common import ROOT, Structure
from dpa2 import _native
from dpa2.cuda.engine import CudaEngine
from dpa2.cuda.neighbors import NeighborSearch
from dpa2.files import ModelData
from numpy.typing import DTypeLike, NDArray

sys.path.insert(0, str(ROOT / "tests"))
from host_lists import HostLists
from random_model import random_model

SOURCES = ROOT / "src" / "cuda"
SHARED_BYTES = 227 * 1024  # of a block on an H100
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\([^()]*\)\s*)?(?:void\s+)?(\w+)\s*\(([^()]*)\)'
)


@cache
def kernels_of(source: str) -> dict[str, tuple[str, ...]]:
    """The kernels of a file of src/cuda and the names of their parameters."""
    text = re.sub(r"//[^\n]*", "", (SOURCES / source).read_text(encoding="utf-8"))
    return {
        name: tuple(re.findall(r"\w+", part)[-1] for part in inside.split(",") if part.strip())
        for name, inside in _KERNEL.findall(text)
    }


def sources() -> list[str]:
    """The files with kernels."""
    return sorted(path.name for path in SOURCES.glob("*.cu"))


@dataclass(frozen=True)
class Planned:
    """A launch or a product of matrices."""

    source: str  # "" for a product by cuBLAS
    kernel: str
    blocks: int
    threads: int
    shared: int  # bytes of dynamic shared memory
    arrays: tuple[tuple[str, int], ...]  # names of the parameters and bytes of the arrays, each once
    flops: float = 0.0  # of a product; kernels are counted by those who know them


class PlannedDevice:
    """See the module; the protocol is :class:`dpa2.cuda.device.Device`."""

    xp: Any = np
    max_shared = SHARED_BYTES

    def __init__(self) -> None:
        self.launches: list[Planned] = []

    def empty(self, shape: Any, dtype: DTypeLike) -> NDArray[Any]:
        return np.empty(shape, dtype)

    def zeros(self, shape: Any, dtype: DTypeLike) -> NDArray[Any]:
        return np.zeros(shape, dtype)

    def asarray(self, value: Any, dtype: DTypeLike | None = None) -> NDArray[Any]:
        return np.ascontiguousarray(value, dtype).reshape(np.shape(value))

    def asnumpy(self, array: NDArray[Any]) -> NDArray[Any]:
        return np.array(array)

    def launch(
        self,
        source: str,
        kernel: str,
        grid: Any,
        block: int,
        args: tuple[Any, ...],
        shared: int = 0,
        defines: Mapping[str, str | int] | None = None,
    ) -> None:
        blocks = int(np.prod(grid))
        if blocks == 0:
            return
        parameters = kernels_of(source)[kernel]
        if len(parameters) != len(args):
            raise ValueError(f"{kernel} has {len(parameters)} parameters, not {len(args)}")
        pairs = zip(parameters, args, strict=True)
        arrays = tuple((name, value.nbytes) for name, value in pairs if isinstance(value, np.ndarray))
        self.launches.append(Planned(source, kernel, blocks, block, shared, arrays))

    def gemm(
        self,
        a: NDArray[Any],
        b: NDArray[Any],
        out: NDArray[Any],
        transpose_a: bool = False,
        transpose_b: bool = False,
        accumulate: bool = False,
    ) -> None:
        m, n = out.shape
        k = a.shape[0] if transpose_a else a.shape[1]
        again = (("out, read", out.nbytes),) if accumulate else ()
        arrays = (("a", a.nbytes), ("b", b.nbytes), ("out", out.nbytes), *again)
        self.launches.append(Planned("", f"gemm {k}x{n}", 1, 0, 0, arrays, 2.0 * m * n * k))

    def synchronize(self) -> None:
        pass


def water_model(layers: int = 6, everything: bool = False) -> ModelData:
    """Random weights in the sizes of the published medium model of water; with ``everything``, of all its terms."""
    config, weights = random_model(
        np.random.default_rng(0),
        ntypes=2,
        repinit={
            "rcut": 6.0, "rcut_smth": 0.5, "nsel": 120, "neuron": [25, 50, 100], "axis_neuron": 12, "tebd_dim": 8,
            "three_body_neuron": [2, 4, 8], "three_body_rcut": 4.0, "three_body_rcut_smth": 3.5, "three_body_sel": 48,
        },
        repformer={
            "rcut": 4.0, "rcut_smth": 3.5, "nsel": 48, "nlayers": layers, "g1_dim": 128, "g2_dim": 32, "axis_neuron": 4,
            "attn1_hidden": 128, "attn1_nhead": 4, "attn2_hidden": 32, "attn2_nhead": 4,
            "update_g1_has_attn": everything, "update_g2_has_g1g1": everything, "update_h2": everything,
        },
        fitting={"neuron": [240, 240, 240]},
    )  # fmt: skip
    return ModelData(config, weights)


def planned_evaluation(model: ModelData, precision: str, structure: Structure) -> list[Planned]:
    """The launches of energy, forces and virial, from neighbour lists that are there."""
    device = PlannedDevice()
    engine = CudaEngine(model, precision, device, HostLists(device, model.config))
    device.launches.clear()
    with np.errstate(all="ignore"):  # what nobody computed
        periodic = (structure.box is not None,) * 3
        engine.evaluate_arrays(structure.coords, structure.types, structure.box, periodic)
    return device.launches


class _SearchedDevice(PlannedDevice):
    """Gives the totals that the search for neighbours asks for: what it would have counted."""

    def __init__(self, totals: list[tuple[int, int]]) -> None:
        super().__init__()
        self._totals = totals

    def asnumpy(self, array: NDArray[Any]) -> NDArray[Any]:
        if array.dtype == np.int64 and array.shape == (2,):
            return np.array(self._totals.pop(0))
        if array.dtype == np.int32:
            return np.full(array.shape, np.iinfo(np.int32).max, np.int32)  # nothing is wrong
        return np.array(array)  # remarks: none, as they were when the search began


def planned_search(model: ModelData, structure: Structure) -> list[Planned]:
    """The launches of the neighbour lists."""
    periodic = (structure.box is not None,) * 3
    config = model.config
    found = _native.neighbors(structure.coords, structure.types, structure.box, periodic, json.dumps(config))
    count = np.diff(found["start"])
    repinit = config["descriptor"]["repinit"]
    # Candidates that nsel cuts are as many as in a list without a cut
    wide = {**config, "descriptor": {**config["descriptor"], "repinit": {**repinit, "nsel": 1_000_000}}}
    every = np.diff(
        _native.neighbors(structure.coords, structure.types, structure.box, periodic, json.dumps(wide))["start"]
    )
    counts = (every, count, found["n_repformer"], found["n_three"])
    device = _SearchedDevice([(int(number.sum()), int(number.max())) for number in counts])
    search = NeighborSearch(device, config)
    lists = search.build(structure.coords, structure.types, structure.box, periodic)
    search.block(lists, lists.n_repformer)
    search.block(lists, lists.n_three)
    return device.launches
