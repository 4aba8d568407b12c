"""The compiled module: the C++ core as Python sees it. Use :mod:`dpa2` instead; nothing here checks its input twice."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .remarks import RemarksTuple

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
        forces: bool = ...,
        spins: NDArray[np.float64] | None = ...,
    ) -> dict[str, Any]: ...  # what the head computes, under the names and in the shapes of its outputs; "remarks"
    def vjp(
        self,
        coords: NDArray[np.float64],
        types: NDArray[np.int32],
        box: NDArray[np.float64] | None,
        pbc: tuple[bool, bool, bool],
        fparam: NDArray[np.float64] | None,
        aparam: NDArray[np.float64] | None,
        weights: dict[str, NDArray[np.float64]],
        threads: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], RemarksTuple]: ...  # to coords (natoms, 3), to strain (3, 3)
    def hessian_product(
        self,
        coords: NDArray[np.float64],
        types: NDArray[np.int32],
        box: NDArray[np.float64] | None,
        pbc: tuple[bool, bool, bool],
        fparam: NDArray[np.float64] | None,
        aparam: NDArray[np.float64] | None,
        velocity: NDArray[np.float64],
        threads: int,
    ) -> tuple[NDArray[np.float64], RemarksTuple]: ...  # (natoms, 3): the Hessian of the energy times the velocity
    def descriptor(
        self,
        coords: NDArray[np.float64],
        types: NDArray[np.int32],
        box: NDArray[np.float64] | None,
        pbc: tuple[bool, bool, bool],
        rot_mat: bool,
        threads: int,
        spins: NDArray[np.float64] | None = ...,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, RemarksTuple]: ...
    def memory_estimate(self, natoms: int, neighbors: float, atomic: int, threads: int) -> int: ...

# Of every part of a model: constants, what goes in and comes out, everything between, and that in detail at its most.
_Memory = list[tuple[int, int, int, int, list[tuple[str, int]]]]

class NativeGpuPlan:  # needs nothing of CUDA
    def __init__(self, config_json: str, weights: dict[str, NDArray[Any]], precision: str, checked: bool) -> None: ...
    def memory(self, natoms: int, neighbors: float, atomic: int, gradient: bool = ...) -> _Memory: ...
    def kernels(self) -> list[tuple[str, str, list[tuple[str, str]]]]: ...  # source, name, defines

class NativeGpuModel:
    def __init__(
        self,
        config_json: str,
        weights: dict[str, NDArray[Any]],
        precision: str,
        checked: bool,
        device: str,  # "cuda" or "cuda:N"
        hooks: Any,  # dpa2.cuda.hooks.CupyHooks, or None
    ) -> None: ...
    @property
    def device(self) -> int: ...
    @property
    def bytes(self) -> int: ...  # of the device that it holds
    @property
    def launches(self) -> int: ...  # of a steady step of the last size
    @property
    def warnings(self) -> list[str]: ...  # of loading, once per process
    @property
    def descriptor_dim(self) -> int: ...
    def memory(self, natoms: int, neighbors: float, atomic: int, gradient: bool = ...) -> _Memory: ...
    # With a stream values of inputs and outputs are addresses of the device, but boxes; without one NumPy arrays.
    def evaluate(
        self,
        frames: int,
        natoms: int,
        pbc: tuple[bool, bool, bool],
        inputs: dict[str, Any],  # coords, types, boxes, fparam, aparam; weights atom_energy, descriptor
        outputs: dict[str, Any],  # energy, atom_energy, forces, virial, atom_virial, descriptor, rot_mat
        atomic: int = ...,
        vjp: bool = ...,
        stream: int | None = ...,
    ) -> list[RemarksTuple]: ...
    def check(self) -> tuple[bool, list[RemarksTuple]]: ...

class DeviceArray:
    @staticmethod
    def empty(device: int, shape: Sequence[int], dtype: str) -> DeviceArray: ...
    @staticmethod
    def copy_of(device: int, array: NDArray[Any]) -> DeviceArray: ...
    @staticmethod
    def taken(capsule: Any) -> DeviceArray: ...
    @property
    def ptr(self) -> int: ...
    @property
    def device(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def reshape(self, *shape: int | Sequence[int]) -> DeviceArray: ...  # the same memory
    def repeated(self, n: int) -> DeviceArray: ...
    def numpy(self) -> NDArray[Any]: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __dlpack__(self, stream: int | None = ..., **options: Any) -> Any: ...
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...

def kernel_folder() -> str: ...
def kernel_package() -> tuple[str, str, list[tuple[str, str, list[tuple[str, str]], bool]], str]: ...
def packaged_image(index: int) -> bytes: ...
def kernel_options(defines: list[tuple[str, str]], folder: str) -> list[str]: ...

class EmbeddingCurves:
    def __init__(self, config_json: str, weights: dict[str, NDArray[Any]], three_body: bool) -> None: ...
    @property
    def count(self) -> int: ...
    @property
    def channels(self) -> int: ...
    # (3, n, channels): value, d/ds and d2/ds2 at s (n)
    def evaluate(self, curve: int, s: NDArray[np.float64]) -> NDArray[np.float64]: ...

def last_hidden(
    config_json: str,
    weights: dict[str, NDArray[Any]],
    descriptor: NDArray[np.float64],  # (nframes, natoms, descriptor_dim)
    fparam: NDArray[np.float64] | None,
    aparam: NDArray[np.float64] | None,
) -> NDArray[np.float64]: ...  # (nframes, natoms, width of the last hidden layer)
def reduced_lattice(
    box: NDArray[np.float64] | None, pbc: tuple[bool, bool, bool]
) -> tuple[
    NDArray[np.float64],  # (3, 3) vectors as rows, angstrom
    NDArray[np.float64],  # (3, 3) their inverse
    NDArray[np.float64],  # (3) distances between opposite faces, angstrom
    NDArray[np.int64],  # (3, 3) integers, times the vectors of the box
]: ...
def check_atoms(coords: NDArray[np.float64], types: NDArray[np.int32], ntypes: int) -> None: ...
def distance_tolerance() -> float: ...  # angstrom: distances closer than this are equal up to rounding
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
def folded(
    config_json: str, weights: dict[str, NDArray[Any]]
) -> dict[str, NDArray[np.float64]]: ...  # src/fold/folded.hpp has the names
def unfolded(
    config_json: str, weights: dict[str, NDArray[Any]], gradient: dict[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]: ...  # of every parameter, given that of folded tensors

class Trainer:
    def __init__(self, config_json: str, weights: dict[str, NDArray[Any]], precision: str, threads: int) -> None: ...
    def assign(self, weights: dict[str, NDArray[np.float64]]) -> None: ...
    # value, parts, gradient by canonical names
    def gradient(
        self,
        coords: NDArray[np.float64],  # (nframes, natoms, 3)
        types: NDArray[np.int32],  # (nframes, natoms)
        boxes: NDArray[np.float64] | None,  # (nframes, 3, 3)
        fparam: NDArray[np.float64] | None,
        aparam: NDArray[np.float64] | None,
        loss_json: str,
        lr: float,
        labels: dict[str, NDArray[np.float64]],
    ) -> tuple[float, dict[str, float], dict[str, NDArray[np.float64]]]: ...
    # value, parts; arguments of gradient
    def value(
        self,
        coords: NDArray[np.float64],
        types: NDArray[np.int32],
        boxes: NDArray[np.float64] | None,
        fparam: NDArray[np.float64] | None,
        aparam: NDArray[np.float64] | None,
        loss_json: str,
        lr: float,
        labels: dict[str, NDArray[np.float64]],
    ) -> tuple[float, dict[str, float]]: ...
    def bytes(self) -> int: ...

class TrainerPart:  # the frames of a batch that are here, or none; what joins all of them is handed out and in
    def __init__(self, trainer: Trainer, loss_json: str, lr: float) -> None: ...
    def set(
        self,
        coords: NDArray[np.float64],  # (nframes, natoms, 3)
        types: NDArray[np.int32],  # (nframes, natoms)
        boxes: NDArray[np.float64] | None,  # (nframes, 3, 3)
        fparam: NDArray[np.float64] | None,
        aparam: NDArray[np.float64] | None,
        labels: dict[str, NDArray[np.float64]],
    ) -> None: ...
    def counted(self) -> list[int]: ...  # atoms that count, of every frame
    # counted of all frames; how many are before these; labels that all have
    def begin(self, counted: list[int], first: int, labels: list[str]) -> None: ...
    def survey(self) -> list[float]: ...  # sums that the gradient depends on; empty for most losses
    def surveyed(self, sums: list[float]) -> None: ...  # those of all
    def gradient(self) -> dict[str, NDArray[np.float64]]: ...
    def add(self) -> None: ...  # to the loss alone
    def sums(self) -> list[float]: ...
    def result(self, sums: list[float]) -> tuple[float, dict[str, float]]: ...  # value, parts

def loss_labels(
    config_json: str,
    weights: dict[str, NDArray[Any]],  # out_bias and out_std of properties
    section: str,
) -> list[tuple[str, int, bool, bool]]: ...  # name, numbers per frame or atom, whether per atom, whether required
def loss(
    config_json: str,
    weights: dict[str, NDArray[Any]],
    section: str,
    lr: float,
    counted: NDArray[np.bool_],  # (nframes, natoms)
    predicted: dict[str, NDArray[np.float64]],  # atoms (nframes, natoms, width); force, virial if read
    labels: dict[str, NDArray[np.float64]],
) -> tuple[float, dict[str, float], dict[str, NDArray[np.float64]]]: ...  # value, parts, seeds by names of predicted
def kind(config_json: str) -> str: ...
def outputs(config_json: str) -> list[tuple[str, str, tuple[int, ...], bool, str, str]]: ...  # of dpa2.results.Output
def limits() -> tuple[float, int]: ...  # the largest length in angstrom, the most threads
def available_memory() -> tuple[int, str]: ...  # bytes, and what leaves no more
def isa() -> str: ...
def isa_levels() -> list[str]: ...
