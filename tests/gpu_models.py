"""Models on the emulated GPU, and arrays that other libraries have there."""

from __future__ import annotations

from typing import Any

import dpa2
import numpy as np
import pytest
from cuda_emulator.driver import environment
from helpers import golden, model_of


def emulate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated driver and compiler for the rest of the test, in this process, with two devices.

    They look at their options once in a process: other options are for processes of their own.
    """
    for name, value in environment(devices=2).items():
        monkeypatch.setenv(name, value)


def gpu_model(name: str, **options: Any) -> dpa2.Model:
    """The model of a golden file on the emulated GPU."""
    return model_of(golden(name), **{"device": "cuda", **options})


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
