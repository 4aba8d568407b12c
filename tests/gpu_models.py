"""Models on the emulated GPU, and arrays that other libraries have there."""

from __future__ import annotations

import os
from typing import Any

import dpa2
import numpy as np
import pytest
from cases import System
from cuda_emulator.driver import environment
from dpa2.files import ModelData
from helpers import golden, model_of
from random_model import random_model


def emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated driver and compiler for the rest of the test, in this process, with two devices.

    They look at their options once in a process: other options are for processes of their own. With
    DPA2_TEST_KERNELS=ptx the kernels are what NVIDIA's compiler makes of them (cuda_emulator/compiled.py), and
    DPA2_TEST_ARCHITECTURE=80 is a device with tensor cores.
    """
    architecture = int(os.environ.get("DPA2_TEST_ARCHITECTURE", "75"))
    options = {"devices": 2, "sanitizer": os.environ.get("DPA2_TEST_KERNELS", ""), "architecture": architecture}
    for name, value in environment(**options).items():
        monkeypatch.setenv(name, value)


def gpu_model(name: str, **options: Any) -> dpa2.Model:
    """The model of a golden file on the emulated GPU."""
    return model_of(golden(name), **{"device": "cuda", **options})


def full_model() -> ModelData:
    """A small random model of two types with all terms."""
    rng, on = np.random.default_rng(0), True
    repinit = {"neuron": [4, 8], "axis_neuron": 2, "nsel": 120, "three_body_sel": 70, "rcut": 4.0}
    repformer = {
        "nlayers": 3, "g1_dim": 6, "g2_dim": 4, "nsel": 70, "update_h2": on, "update_g1_has_attn": on,
        "update_g1_has_conv": on, "update_g1_has_grrg": on, "update_g1_has_drrd": on, "update_g2_has_g1g1": on,
        "update_g2_has_attn": on,
    }  # fmt: skip
    return ModelData(*random_model(rng, ntypes=2, repinit=repinit, repformer=repformer))


def everything(**options: Any) -> dict[str, np.ndarray]:
    """All that :func:`full_model` gives for frames of two atoms.

    Their box is so small that a centre has more neighbours than any kernel takes at a time.
    """
    rng, model = np.random.default_rng(1), dpa2.Model(full_model(), precision="float64", **options)
    coords, types, boxes = (
        rng.normal(size=(2, 2, 3)),
        np.array([0, 1], np.int32),
        np.tile(np.eye(3) * 1.8 + 0.1, (2, 1, 1)),
    )
    found: dict[str, np.ndarray] = {}
    for atomic in (True, "deepmd"):
        result = model.evaluate(coords, types, boxes, atomic=atomic)
        names = ("energy", "forces", "virial", "atom_energy", "atom_virial")
        found |= {f"{name} {atomic}": getattr(result, name) for name in names}
    found["descriptor"], found["rot_mat"] = model.descriptor(coords, types, boxes, rot_mat=True)
    weights = {"atom_energy": rng.normal(size=(2, 2)), "descriptor": rng.normal(size=(2, 2, model.descriptor_dim))}
    found["vjp"], found["vjp virial"] = model.vjp(coords, types, boxes, weights)
    return found


def frame_of(system: System, frame: int = 0) -> tuple[Any, Any, Any]:
    """Coordinates, types and box of a frame of a golden file."""
    box = None if system.box is None else np.asarray(system.box[frame]).reshape(3, 3)
    return system.coord[frame], system.atype.astype(np.int32), box


class OnDevice:
    """An array of another library in the memory of a GPU, which remembers the streams that it was asked for."""

    requires_grad = False

    def __init__(self, array: Any, device: int = 0) -> None:
        from dpa2._native import DeviceArray

        self.held = DeviceArray.copy_of(device, np.array(array, order="C"))
        self.streams: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.held.__dlpack_device__()

    def __dlpack__(self, stream: Any = None) -> Any:
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient")
        self.streams.append(stream)
        return self.held.__dlpack__(stream=stream)


def host(value: Any) -> np.ndarray:
    """A result on the device, as another library takes it, in the memory of the host."""
    from dpa2._native import DeviceArray

    copy: np.ndarray = DeviceArray.taken(value.__dlpack__(stream=1)).numpy()
    return copy
