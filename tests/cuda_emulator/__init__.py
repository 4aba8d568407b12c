"""Kernels of src/cuda on the CPU: what a CUDA device does with threads, warps, barriers and shared memory, with checks."""

from .build import EmulationError, has_sanitizer
from .device import EmulatedDevice, Launch

__all__ = ["EmulatedDevice", "EmulationError", "Launch", "has_sanitizer"]
