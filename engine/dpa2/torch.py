"""DPA-2 models in PyTorch: :class:`Module`. The one module of the package that needs PyTorch to be imported.

>>> import dpa2.torch                                           # doctest: +SKIP
>>> potential = dpa2.torch.Module("model.pth")                  # doctest: +SKIP
>>> energy = potential(coords, ["O", "H", "H"], box)["energy"]  # doctest: +SKIP
>>> (gradient,) = torch.autograd.grad(energy, coords)           # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .differentiable import (
    Differentiable,
    Frames,
    cell_gradient,
    refuse_gradient_of,
    refuse_second_derivative,
)
from .errors import InputError
from .inputs import Pbc, check_pbc, check_types
from .model import Model

__all__ = ["Module"]


class Module(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """A DPA-2 model whose outputs are differentiable by coordinates and box. It has no parameters of PyTorch.

    Args:
        model: a :class:`dpa2.Model`, the path of a model file, or None for the embedded model of water.
        outputs: which of :attr:`dpa2.Model.outputs` are computed, one name or several: "energy", "atom_energy",
            "descriptor", "rot_mat", "dipole", ...; None: all that the head computes. Derivatives are none of them.

    Raises:
        InputError: ``outputs`` has names of no outputs. UnsupportedModelError: a spin model.
    """

    def __init__(
        self,
        model: Model | str | os.PathLike[str] | None = None,
        outputs: Sequence[str] | str | None = None,
    ) -> None:
        super().__init__()
        self._of = Differentiable(model, outputs)

    @property
    def model(self) -> Model:
        """The model that is evaluated."""
        return self._of.model

    def extra_repr(self) -> str:
        return f"{self.model!r}, outputs={self._of.names!r}"

    def forward(
        self,
        coords: Tensor,
        types: Any,
        box: Tensor | None = None,
        *,
        pbc: bool | Sequence[bool] | None = None,
        fparam: Tensor | None = None,
        aparam: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The outputs of one structure or of many.

        Args:
            coords: (natoms, 3), or (nframes, natoms, 3) of equal frames, angstrom, of a floating-point type. With
                ``batch`` (natoms of all structures, 3).
            types: element symbols, or an integer tensor of indices into ``model.type_map``: (natoms,) or (nframes,
                natoms).
            box: None (open), (3, 3) with lattice vectors as rows, angstrom, or one per structure in front.
            pbc: periodic directions, of all structures: None (all if there is a box), a bool, or three.
            fparam, aparam: parameters, as for :meth:`dpa2.Model.evaluate`; there are no derivatives by them.
            batch: (natoms of all structures,) the number of the structure that each atom belongs to, from 0, in any
                order; structures may have different sizes. One row per structure of ``box`` and ``fparam``, and one
                per atom of ``aparam``. Those of one size are evaluated at once.

        Returns:
            Tensors by name, of the type and on the device of ``coords``. Energies: "energy" () and "atom_energy"
            (natoms,), others in the shapes of :attr:`dpa2.Result.outputs`, all with an axis in front where there is one
            of frames; with ``batch`` one per structure or per atom.

        With a model on a GPU, tensors of that GPU stay there; the nine numbers of a box and the sizes in ``batch`` are
        read by the host.

        Raises:
            InputError: see :meth:`dpa2.Model.evaluate`; also tensors on a GPU where the model is on none, coordinates
                that are integers, parameters that require gradients.
            SecondDerivativeError: in the backward pass of a gradient.
        """
        self._check(coords, box, fparam=fparam, aparam=aparam)
        if batch is not None:
            return self._batched(coords, types, box, pbc, fparam, aparam, batch)
        framed = coords.ndim == 3
        if not framed:
            coords, box = coords[None], None if box is None else box.reshape(1, *box.shape)
            types = types[None] if isinstance(types, Tensor) and types.ndim == 1 else types
            fparam, aparam = (None if rows is None else rows[None] for rows in (fparam, aparam))
        elif box is not None and box.ndim == 2:
            box = box.expand(len(coords), *box.shape)
        found = self._frames(coords, types, box, pbc, fparam, aparam)
        return found if framed else {name: rows[0] for name, rows in found.items()}

    def _check(self, coords: Any, box: Any, **parameters: Any) -> None:
        if not isinstance(coords, Tensor):
            raise InputError(f"coords must be a torch.Tensor, got {type(coords).__name__}")
        given = {"coords": coords, "box": box, **parameters}
        for name, value in given.items():
            if value is None:
                continue
            if not isinstance(value, Tensor):
                raise InputError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
            if not value.dtype.is_floating_point:
                raise InputError(f"{name} must be of a floating-point type, got {value.dtype}: pass {name}.double()")
            if value.device != coords.device:
                raise InputError(f"{name} is on {value.device}, and coords on {coords.device}: move one of them")
            if name in parameters and value.requires_grad:
                refuse_gradient_of(name)
        if coords.ndim not in (2, 3) or coords.shape[-1] != 3:
            raise InputError(f"coords must have shape (natoms, 3) or (nframes, natoms, 3), got {tuple(coords.shape)}")
        on = self.model.device
        if coords.device.type != "cpu" and not (coords.device.type == "cuda" and on.startswith("cuda")):
            raise InputError(
                f"coords are on {coords.device}, and the model is on {on}: pass coords.cpu(), or load the model with "
                f'dpa2.load(..., device="{coords.device}")'
            )

    def _frames(
        self, coords: Tensor, types: Any, box: Tensor | None, pbc: Any, fparam: Any, aparam: Any
    ) -> dict[str, Tensor]:
        """Outputs of frames of one size, with a frame axis."""
        nframes, natoms = coords.shape[:2]
        if box is not None and tuple(box.shape) != (nframes, 3, 3):
            raise InputError(
                f"box must have shape (3, 3), or with one per structure ({nframes}, 3, 3), with lattice vectors as "
                f"rows, got {tuple(box.shape)}"
            )
        if isinstance(types, Tensor) and types.device.type == "cpu":
            types = types.numpy()
        if not (isinstance(types, Tensor) and coords.device.type == "cuda"):
            types = check_types(types, self.model.type_map, nframes, natoms, True)
        derived = torch.is_grad_enabled() and (coords.requires_grad or (box is not None and box.requires_grad))
        flags = check_pbc(pbc, box is not None)
        call = _Call(self._of, types, flags, _for_engine(fparam), _for_engine(aparam), derived)
        found = _Values.apply(call, coords, box)
        return dict(zip(self._of.names, found, strict=False))

    def _batched(
        self, coords: Tensor, types: Any, box: Any, pbc: Any, fparam: Any, aparam: Any, batch: Any
    ) -> dict[str, Tensor]:
        natoms = len(coords)
        if coords.ndim != 2:
            raise InputError(f"coords must have shape (natoms, 3) with batch, got {tuple(coords.shape)}")
        groups, count = _groups(batch, natoms, None if box is None or box.ndim == 2 else len(box))
        if box is not None and box.ndim == 2:
            box = box.expand(count, *box.shape)
        for name, rows, wanted in (("box", box, count), ("fparam", fparam, count), ("aparam", aparam, natoms)):
            if rows is not None and len(rows) != wanted:
                raise InputError(f"{name} must have {wanted} rows with this batch, got {len(rows)}")
        if not isinstance(types, Tensor):
            types = torch.from_numpy(check_types(types, self.model.type_map, 1, natoms, False)[0].copy())
        if tuple(types.shape) != (natoms,):
            raise InputError(f"types must have shape ({natoms},) to match coords, got {tuple(types.shape)}")
        parts: dict[str, list[Tensor]] = {name: [] for name in self._of.names}
        for structures, atoms in groups:
            at = atoms.to(coords.device)
            which = structures.to(coords.device)
            found = self._frames(
                coords[at],
                types[atoms.to(types.device)],
                None if box is None else box[which],
                pbc,
                None if fparam is None else fparam[which],
                None if aparam is None else aparam[at],
            )
            for name, rows in found.items():
                parts[name].append(rows.flatten(0, 1) if self._of.per_atom(name) else rows)
        place_of_structure = torch.argsort(torch.cat([structures for structures, _ in groups])).to(coords.device)
        place_of_atom = torch.argsort(torch.cat([atoms.flatten() for _, atoms in groups])).to(coords.device)
        return {
            name: torch.cat(rows)[place_of_atom if self._of.per_atom(name) else place_of_structure]
            for name, rows in parts.items()
        }


def _groups(batch: Any, natoms: int, boxes: int | None) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """Structures of one size and their atoms, (nframes,) and (nframes, natoms), for every size; and their number."""
    if not isinstance(batch, Tensor) or batch.dtype.is_floating_point or batch.dtype == torch.bool:
        raise InputError("batch must be a tensor of integers, the number of the structure of each atom")
    if tuple(batch.shape) != (natoms,):
        raise InputError(f"batch must have shape ({natoms},) to match coords, got {tuple(batch.shape)}")
    numbers = batch.cpu().long()
    if natoms and int(numbers.min()) < 0:
        raise InputError(f"batch has the structure {int(numbers.min())}; they are counted from 0")
    count = max(int(numbers.max()) + 1 if natoms else 0, boxes or 0)
    sizes = torch.bincount(numbers, minlength=count)
    if count == 0 or int(sizes.min()) == 0:
        empty = int(torch.argmin(sizes)) if count else 0
        raise InputError(f"batch has no atoms of structure {empty}: structures are counted from 0 without gaps")
    order, starts = torch.argsort(numbers, stable=True), torch.cumsum(sizes, 0) - sizes
    groups = []
    for size in torch.unique(sizes).tolist():
        structures = torch.nonzero(sizes == size).flatten()
        groups.append((structures, order[starts[structures][:, None] + torch.arange(size)]))
    return groups, count


@dataclass(frozen=True, eq=False)
class _Call:
    """What an evaluation takes besides coordinates and box; of the engine."""

    of: Differentiable
    types: Any
    pbc: Pbc
    fparam: Any
    aparam: Any
    derived: bool  #: whether gradients may be asked for

    def frames(self, coords: Tensor, box: Tensor | None) -> Frames:
        given = _for_engine(coords), self.types, _for_engine(box)
        return Frames(*given, self.pbc if box is not None else None, self.fparam, self.aparam)


def _for_engine(tensor: Tensor | None) -> Any:
    """float64, where it is: an array of NumPy, or the tensor on its GPU."""
    if tensor is None:
        return None
    own = tensor.detach().to(torch.float64).contiguous()
    return own.numpy() if own.device.type == "cpu" else own


def _from_engine(array: Any, like: Tensor) -> Tensor:
    """A tensor of the type of ``like``, on its device."""
    made = torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.from_dlpack(array)
    return made.to(like.dtype)


class _Values(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """Outputs, by their order in ``call.of.names``; then forces and virial where they are stored."""

    @staticmethod
    def forward(call: _Call, coords: Tensor, box: Tensor | None) -> tuple[Tensor, ...]:
        values, stored = call.of.values(call.frames(coords, box), call.derived)
        found = [_from_engine(values[name], coords) for name in call.of.names]
        found += [_from_engine(array, coords.double()) for array in stored or ()]
        return tuple(found)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.call, coords, box = inputs
        stored = output[len(ctx.call.of.names) :]
        ctx.mark_non_differentiable(*stored)
        ctx.save_for_backward(coords, box, *stored)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        coords, box, *stored = ctx.saved_tensors
        given = cotangents[: len(ctx.call.of.names)]
        if all(one is None for one in given):
            return None, None, None
        of_box = box is not None and ctx.needs_input_grad[2]
        of_coords, *rest = _Gradient.apply(ctx.call, of_box, coords, box, tuple(stored), *given)
        return None, of_coords, rest[0] if of_box else None


class _Gradient(torch.autograd.Function):  # type: ignore[misc, unused-ignore]
    """The gradient of weighted outputs to coordinates and, where asked for, to the box; that has none itself."""

    @staticmethod
    def forward(
        call: _Call, of_box: bool, coords: Tensor, box: Tensor | None, stored: Any, *given: Tensor | None
    ) -> tuple[Tensor, ...]:
        cotangents = {
            name: one.detach().double() for name, one in zip(call.of.names, given, strict=True) if one is not None
        }
        x = coords.detach().double()
        if stored and set(cotangents) == {"energy"}:
            factor = -cotangents["energy"][:, None, None]
            gradient, strain = (factor * rows for rows in stored)
        else:
            frames = call.frames(coords, box)
            counted = _counted(call, x)
            weights = {name: _for_engine(one) for name, one in cotangents.items()}
            xp: Any = np if x.device.type == "cpu" else torch
            found = call.of.gradient(frames, weights, xp, _for_engine(counted))
            gradient, strain = (_from_engine(array, x) for array in found)
        if not of_box:
            return (gradient.to(coords.dtype),)
        assert box is not None
        return gradient.to(coords.dtype), cell_gradient(torch, x, box.detach().double(), call.pbc, gradient, strain).to(
            box.dtype
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        refuse_second_derivative()


def _counted(call: _Call, x: Tensor) -> Tensor:
    """(nframes, natoms) 1 for atoms that have outputs, 0 for virtual ones and those of excluded types."""
    types = torch.as_tensor(np.array(call.types) if isinstance(call.types, np.ndarray) else call.types, device=x.device)
    mask = types >= 0
    for excluded in call.of.excluded_types:
        mask &= types != excluded
    return mask.expand(x.shape[:2]).to(torch.float64)
