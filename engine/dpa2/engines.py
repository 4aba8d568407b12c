"""What evaluates one frame, by the name of its device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .inputs import Float, Int, Pbc
from .remarks import RemarksTuple

if TYPE_CHECKING:
    from .files import ModelData


class Engine(Protocol):
    """What evaluates one frame: the compiled core, a GPU or the NumPy reference."""

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
        atom_energy: Float | None,
        descriptor: Float | None,
        threads: int,
    ) -> tuple[Float, Float, RemarksTuple]: ...

    def descriptor(
        self, coords: Float, types: Int, box: Float | None, pbc: Pbc, rot_mat: bool, threads: int
    ) -> tuple[Float, Float | None, RemarksTuple]: ...


def make_engine(data: ModelData, precision: str, device: str, skin: float) -> Engine:
    """The engine of a device: "cpu", "cuda" or "reference"."""
    if device == "reference":
        from .reference import ReferenceModel

        reference: Engine = ReferenceModel(data.config, data.weights)
        return reference
    if device == "cuda":
        from .cuda.device import CupyDevice
        from .cuda.engine import CudaEngine

        return CudaEngine(data, precision, CupyDevice())
    import json

    from ._native import NativeModel

    return NativeModel(json.dumps(data.config), data.weights, precision, skin, data.checked)
