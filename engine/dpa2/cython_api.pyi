"""The C interface of dpa2 for Cython, which extensions cimport (``cython_api.pxd``); from Python for a quick check."""

import os
from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["DomainHandle", "ModelHandle"]

@final
class ModelHandle:
    def __init__(
        self, path: str | os.PathLike[str], precision: str | None = ..., skin: float = ..., device: str = ...
    ) -> None: ...
    @staticmethod
    def from_bytes(
        data: bytes | bytearray | memoryview, name: str = ..., precision: str | None = ..., skin: float = ...
    ) -> ModelHandle: ...
    @property
    def type_map(self) -> tuple[str, ...]: ...
    @property
    def precision(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def outputs(self) -> dict[str, tuple[int, ...]]: ...
    @property
    def virtual_scale(self) -> tuple[float, ...]: ...  # angstrom per unit of spin
    @property
    def rcut(self) -> float: ...  # angstrom
    @property
    def descriptor_dim(self) -> int: ...
    @property
    def g2_dim(self) -> int: ...
    @property
    def fparam_dim(self) -> int: ...
    @property
    def aparam_dim(self) -> int: ...
    @property
    def exchange_width(self) -> int: ...
    def evaluate(
        self, coords: ArrayLike, types: ArrayLike, box: ArrayLike | None = ..., threads: int = ...
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]: ...  # eV, (natoms, 3) eV/angstrom, (3, 3) eV
    def compute(
        self,
        coords: ArrayLike,
        types: ArrayLike,
        box: ArrayLike | None = ...,
        names: Sequence[str] | None = ...,
        fparam: ArrayLike | None = ...,
        aparam: ArrayLike | None = ...,
        threads: int = ...,
        spin: ArrayLike | None = ...,
    ) -> dict[str, NDArray[np.float64]]: ...

@final
class DomainHandle:
    def __init__(self) -> None: ...
