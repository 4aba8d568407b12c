"""The compiled module: the C++ core as Python sees it. Use :mod:`dpa2` instead; nothing here checks its input twice."""

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from .remarks import RemarksTuple

class _EvaluationBase(TypedDict):
    energy: float
    forces: NDArray[np.float64]  # (natoms, 3) eV/angstrom
    virial: NDArray[np.float64]  # (3, 3) eV
    atom_energy: NDArray[np.float64]  # (natoms,) eV
    remarks: RemarksTuple

class _Evaluation(_EvaluationBase, total=False):
    atom_virial: NDArray[np.float64]  # (natoms, 3, 3) eV, with atomic != 0

class NativeModel:
    def __init__(
        self, config_json: str, weights: dict[str, NDArray[Any]], precision: str, skin: float = ..., checked: bool = ...
    ) -> None: ...
    @staticmethod
    def from_file(path: str, precision: str | None = ..., skin: float = ...) -> NativeModel: ...
    @property
    def config_json(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def descriptor_dim(self) -> int: ...
    def evaluate(
        self,
        coords: NDArray[np.float64],
        types: NDArray[np.int32],
        box: NDArray[np.float64] | None,
        pbc: tuple[bool, bool, bool],
        fparam: NDArray[np.float64] | None,
        aparam: NDArray[np.float64] | None,
        atomic: int,
        threads: int,
    ) -> _Evaluation: ...
    def descriptor(
        self,
        coords: NDArray[np.float64],
        types: NDArray[np.int32],
        box: NDArray[np.float64] | None,
        pbc: tuple[bool, bool, bool],
        rot_mat: bool,
        threads: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, RemarksTuple]: ...
    def memory_estimate(self, natoms: int, neighbors: float, atomic: int, threads: int) -> int: ...

def neighbors(
    coords: NDArray[np.float64],
    types: NDArray[np.int32],
    box: NDArray[np.float64] | None,
    pbc: tuple[bool, bool, bool],
    config_json: str,
) -> dict[str, NDArray[Any]]: ...
def config_schema() -> dict[str, Any]: ...  # what dpa2.files.schema reads
def expected_weights(config_json: str) -> list[tuple[str, tuple[int, ...], str, str]]: ...  # name, shape, role, dtype
def check_weights(config_json: str, weights: dict[str, NDArray[Any]]) -> None: ...
def limits() -> tuple[float, int]: ...  # the largest length in angstrom, the most threads
def available_memory() -> tuple[int, str]: ...  # bytes, and what leaves no more
def isa() -> str: ...
def isa_levels() -> list[str]: ...
