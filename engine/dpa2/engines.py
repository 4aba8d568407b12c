"""What evaluates frames, by the name of their device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .errors import UnsupportedModelError
from .inputs import Float, Int, Pbc
from .remarks import RemarksTuple

if TYPE_CHECKING:
    from ._native import NativeGpuPlan
    from .cuda.gpu import GpuModel
    from .files import ModelData


class Engine(Protocol):
    """What evaluates one frame: the compiled core or the NumPy reference."""

    def evaluate(
        self,
        coords: Float,
        types: Int,
        box: Float | None,
        pbc: Pbc,
        fparam: Float | None,
        aparam: Float | None,
        atomic: int,
        threads: int,
        forces: bool = True,
    ) -> Any: ...

    def vjp(
        self,
        coords: Float,
        types: Int,
        box: Float | None,
        pbc: Pbc,
        fparam: Float | None,
        aparam: Float | None,
        weights: dict[str, Float],
        threads: int,
    ) -> tuple[Float, Float, RemarksTuple]: ...

    def descriptor(
        self, coords: Float, types: Int, box: Float | None, pbc: Pbc, rot_mat: bool, threads: int
    ) -> tuple[Float, Float | None, RemarksTuple]: ...


def make_engine(data: ModelData, precision: str, device: str, skin: float) -> Any:
    """The engine of a device that evaluates frames one by one: "cpu" or "reference".

    It is an :class:`Engine`; that of a spin model takes ``spins`` besides, for values and descriptors, and has no vjp.
    """
    if device == "reference":
        from .reference import ReferenceModel, SpinReference

        if data.config.get("type") == "spin":
            return SpinReference(data.config, data.weights)
        reference: Engine = ReferenceModel(data.config, data.weights)
        return reference
    import json

    from ._native import NativeModel

    return NativeModel(json.dumps(data.config), data.weights, precision, skin, data.checked)


def make_gpu(data: ModelData, precision: str, device: str) -> GpuModel:
    """What evaluates batches of frames on a GPU: "cuda" or "cuda:N"."""
    if data.config.get("type") == "spin":
        raise UnsupportedModelError('spin models are evaluated on the CPU only: leave device out, or let it be "cpu"')
    from .cuda.gpu import GpuModel

    return GpuModel(data, precision, device)


def make_gpu_plan(data: ModelData, precision: str) -> NativeGpuPlan:
    """What knows the memory of a model on a GPU, where there is none."""
    import json

    from ._native import NativeGpuPlan

    return NativeGpuPlan(json.dumps(data.config), data.weights, precision, data.checked)
