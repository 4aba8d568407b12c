"""The memory of an evaluation: the part of :class:`dpa2.Model` that estimates it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .engines import make_gpu_plan
from .errors import InputError
from .files import schema
from .options import Atomic, atomic_mode, checked_amount, checked_device

if TYPE_CHECKING:
    from ._native import NativeGpuModel, NativeGpuPlan
    from .cuda.gpu import GpuModel
    from .files import ModelData


class MemoryEstimate:
    """What an evaluation takes on a CPU or a GPU, whether or not the model is there."""

    _data: ModelData
    _device: str
    _engine: Any
    _gpu: GpuModel | None
    _gpu_plan: NativeGpuPlan | None = None  # made when it is asked for
    _precision: str
    _threads: int

    def memory_estimate(
        self,
        natoms: int,
        density: float | None = None,
        neighbors: float | None = None,
        atomic: Atomic = False,
        device: str | None = None,
    ) -> int:
        """The memory that :meth:`evaluate` takes for one structure, on top of what the process already holds, in bytes.

        2**63 - 1 stands for all that is more.

        On the CPU small systems take more memory per atom than large ones, to compute nothing twice. An evaluation
        that finds less memory than this computes again in the backward pass what it does not keep: the same bits in
        down to four tenths of the memory, and up to half more time.

        On a GPU it is the memory of the GPU, of a structure that is periodic and passed as arrays of the host: the
        model's constants, what is passed, neighbour lists with the room that is left in them, everything up to the
        results. Nothing of CUDA has to be there to ask for it. Not in it are CUDA's context and the compiled kernels
        (some hundred MB), what CuPy's pool keeps for others and in rounding up, and arrays of your own on the GPU.

        Args:
            natoms: number of atoms.
            density: atoms per cubic angstrom; 0.1, that of liquid water, if neither this nor ``neighbors`` is given.
            neighbors: in place of the density, how many others are on average within :attr:`rcut` of an atom.
            atomic: as for :meth:`evaluate`.
            device: "cpu" or "cuda", whichever GPU that is; the model's own if left out.

        Raises:
            InputError: wrong arguments; more atoms or neighbours than a GPU can number; the CPU's memory of a model
                that is not there.
        """
        integer = isinstance(natoms, (int, np.integer)) and not isinstance(natoms, bool)
        if not (integer and 0 <= natoms < 2**63):
            raise InputError(f"natoms must be a number of atoms, from 0 to 2**63 - 1, got {natoms!r}")
        if density is not None and neighbors is not None:
            raise InputError("give density or neighbors, not both")
        if neighbors is None:
            given = 0.1 if density is None else checked_amount(density, "density")
            neighbors = given * (4.0 / 3.0 * math.pi * schema.rcut(self._data.config) ** 3)
            if not math.isfinite(neighbors):
                raise InputError(f"density is too large: {given:g} atoms per cubic angstrom")
        neighbors, mode = float(checked_amount(neighbors, "neighbors")), atomic_mode(atomic)
        device = self._device if device is None else checked_device(device)
        if device.startswith("cuda"):
            parts = self._gpu_memory().memory(int(natoms), neighbors, mode)
            return min(sum(sum(numbers) for *numbers, _ in parts), 2**63 - 1)
        if device != "cpu" or self._device != "cpu":
            raise InputError(
                f'a model on {self._device} does not know the memory of {device}: load it with device="cpu", or ask '
                'for that of a GPU with device="cuda"'
            )
        return int(self._engine.memory_estimate(int(natoms), neighbors, mode, self._threads))

    def _gpu_memory(self) -> NativeGpuModel | NativeGpuPlan:
        """What knows the memory of the model on a GPU."""
        if self._gpu is not None:
            return self._gpu.native
        if self._gpu_plan is None:
            self._gpu_plan = make_gpu_plan(self._data, self._precision)
        return self._gpu_plan
