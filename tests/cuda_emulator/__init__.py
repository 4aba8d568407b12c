"""Kernels of src/cuda on the CPU: threads, warps, barriers and shared memory of a CUDA device, with checks."""

from .build import EmulationError, has_sanitizer
from .device import EmulatedDevice

__all__ = ["EmulatedDevice", "EmulationError", "has_sanitizer"]
