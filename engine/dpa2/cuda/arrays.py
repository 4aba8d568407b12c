"""Structures that lie on the device already: evaluated there, and answered with arrays of the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dpa2.errors import InputError
from dpa2.gradients import check_weights
from dpa2.inputs import Batch, Float, Pbc, check_aparam, check_box, check_fparam, check_types
from dpa2.remarks import Remarks

from .engine import CudaEngine, shapes

_CUDA_DEVICE_TYPES = (2, 13)  # DLPack: kDLCUDA and kDLCUDAManaged

Report = Callable[[Remarks, Batch, int], None]


def on_device(value: Any) -> bool:
    """Whether an array says through DLPack that it lies in the memory of a CUDA device."""
    device = getattr(value, "__dlpack_device__", None)
    return device is not None and device()[0] in _CUDA_DEVICE_TYPES


class DeviceFrames:
    """Frames as the user passed them, coordinates on the device; see :meth:`dpa2.Model.evaluate` for the arguments.

    Shapes are checked; coordinates and types are by the neighbour search.
    """

    def __init__(
        self, engine: CudaEngine, config: dict[str, Any], report: Report, coords: Any, types: Any, box: Any, pbc: Any
    ) -> None:
        self.engine, self.config, self.report, device = engine, config, report, engine.device
        x = device.asarray(coords, np.float64)
        if x.ndim not in (2, 3) or x.shape[-1] != 3:
            raise InputError(f"coords must have shape (natoms, 3) or (nframes, natoms, 3), got {x.shape}")
        self.framed = x.ndim == 3
        self.coords = x if self.framed else x[None]
        nframes, natoms = self.coords.shape[:2]
        if not on_device(types):
            types = check_types(types, config["type_map"], nframes, natoms, self.framed)
        kinds = device.asarray(types, np.int32)
        if kinds.shape not in ((natoms,), (nframes, natoms)):
            raise InputError(f"types must have shape ({natoms},) or ({nframes}, {natoms}), got {kinds.shape}")
        self.types = kinds if kinds.ndim == 2 else device.xp.broadcast_to(kinds, (nframes, natoms))
        rcut = float(config["descriptor"]["repinit"]["rcut"])
        # Nine numbers that the host needs to lay out the search.
        self.boxes, self.pbc = check_box(self._host(box), pbc, rcut, nframes, self.framed)

    def _host(self, value: Any) -> Any:
        return self.engine.device.asnumpy(self.engine.device.asarray(value)) if on_device(value) else value

    def _frame(self, f: int) -> tuple[Any, Any, Any, Pbc]:
        device = self.engine.device
        coords, types = device.xp.ascontiguousarray(self.coords[f]), device.xp.ascontiguousarray(self.types[f])
        return coords, types, None if self.boxes is None else self.boxes[f], self.pbc

    def _report(self, remarks: Remarks, f: int) -> None:
        if remarks.overflow or remarks.closest is not None:
            types = self.engine.device.asnumpy(self.types)
            self.report(remarks, Batch(types, types, None, self.pbc, None, None, self.framed), f)

    def _joined(self, frames: list[Any], shape: tuple[int, ...], dtype: Any = np.float64) -> Any:
        """Of frames of this shape, with a frame axis where the coordinates have one."""
        if not frames:
            return self.engine.device.zeros((0, *shape), dtype)
        return self.engine.device.xp.stack(frames) if self.framed else frames[0]

    def _parameters(self, fparam: Any, aparam: Any) -> tuple[Float | None, Float | None]:
        """Those of all frames."""
        option, (nframes, natoms) = self.config["fitting_net"], self.coords.shape[:2]
        return (
            check_fparam(self._host(fparam), option, nframes, self.framed),
            check_aparam(self._host(aparam), option, nframes, natoms, self.framed),
        )

    def evaluate(self, fparam: Any, aparam: Any, atomic: int, forces: bool) -> dict[str, Any]:
        """The fields of a :class:`dpa2.Result` as arrays of the device, float64; the energy as well."""
        parameters = self._parameters(fparam, aparam)
        nframes, natoms = self.coords.shape[:2]
        wanted = shapes(natoms, atomic, forces) | {"energy": ()}
        found: dict[str, list[Any]] = {name: [] for name in wanted}
        for f in range(nframes):
            one_fparam, one_aparam = _of_frame(f, *parameters)
            with self.engine.lock:
                answer = self.engine.evaluate_arrays(*self._frame(f), one_fparam, one_aparam, atomic, forces)
                self._report(answer.pop("remarks"), f)
                answer["energy"] = answer["energy"][0]
                for name, array in answer.items():
                    found[name].append(array.copy())  # the engine uses its arrays again
        missing: dict[str, Any] = {} if forces else {"forces": None, "virial": None}
        return missing | {name: self._joined(found[name], shape) for name, shape in wanted.items()}

    def vjp(self, weights: Any, fparam: Any, aparam: Any) -> tuple[Any, Any]:
        """See :meth:`dpa2.Model.vjp`; arrays of the device, float64."""
        nframes, natoms = self.coords.shape[:2]
        if isinstance(weights, Mapping):
            weights = {name: self._host(rows) for name, rows in weights.items()}
        given = check_weights(weights, self.engine.model.descriptor_dim, nframes, natoms, self.framed)
        parameters = (None, None) if given[0] is None else self._parameters(fparam, aparam)
        gradients, strains = [], []
        for f in range(nframes):
            with self.engine.lock:
                answer = self.engine.vjp_arrays(*self._frame(f), *_of_frame(f, *parameters, *given))
                self._report(answer[2], f)
                gradients.append(answer[0].copy())
                strains.append(answer[1].copy())
        return self._joined(gradients, (natoms, 3)), self._joined(strains, (3, 3))

    def descriptor(self, rot_mat: bool) -> tuple[Any, Any]:
        """Descriptors, and rotation matrices where asked for, as arrays of the device in the model's precision."""
        descriptors, rotations = [], []
        for f in range(self.coords.shape[0]):
            with self.engine.lock:
                descriptor, rotation, remarks = self.engine.descriptor_arrays(*self._frame(f), rot_mat)
                self._report(remarks, f)
                descriptors.append(descriptor)
                rotations.append(rotation)
        model, real, natoms = self.engine.model, self.engine.run.real, self.coords.shape[1]
        rotation = self._joined(rotations, (natoms, model.n2, 3), real) if rot_mat else None
        return self._joined(descriptors, (natoms, model.descriptor_dim), real), rotation


def _of_frame(f: int, *rows: Any) -> tuple[Any, ...]:
    """Entry f of each, None of None."""
    return tuple(None if one is None else one[f] for one in rows)


def device_frames(
    engine: Any, config: dict[str, Any], report: Report, coords: Any, *others: Any
) -> DeviceFrames | None:
    """The frames, where the coordinates lie on a device; others: types, box and pbc."""
    return DeviceFrames(engine, config, report, coords, *others) if on_device(coords) else None
