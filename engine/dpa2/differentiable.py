"""What :mod:`dpa2.torch` and :mod:`dpa2.jax` share: outputs of frames, and gradients of weighted sums of them.

Frames always have an axis of their own here. Arrays are those of the host (NumPy), or of a GPU where the model and the
coordinates are there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import Error, InputError, SecondDerivativeError, UnsupportedModelError
from .inputs import Pbc
from .model import Model, load
from .quantities import OF_DESCRIPTOR
from .results import Output

#: an array of NumPy, PyTorch, JAX or CuPy
Array = Any
T = TypeVar("T")

#: of a GPU: its buffers grow with every evaluation that was void
_MOST_REPEATS = 8

NO_SECOND_DERIVATIVES = (
    "gradients of dpa2 are not differentiable again here: for second derivatives of energies use Model.hessian or "
    "Model.hessian_product, which are exact"
)


def refuse_second_derivative(*_: Any) -> Any:
    """What stands where a framework would differentiate a gradient again."""
    raise SecondDerivativeError(NO_SECOND_DERIVATIVES)


def refuse_gradient_of(name: str) -> None:
    """What stands where a framework would differentiate by something else than coordinates and cell."""
    raise InputError(f"there are no derivatives by {name}, only by coords and box: keep {name} out of what is derived")


@dataclass(frozen=True, eq=False)
class Frames:
    """Structures of as many atoms each.

    ``coords`` (nframes, natoms, 3) angstrom; ``types`` (nframes, natoms) or (natoms,); ``box`` (nframes, 3, 3) with
    lattice vectors as rows, or None; ``fparam`` (nframes, nf), ``aparam`` (nframes, natoms, na) or None.
    """

    coords: Array
    types: Array
    box: Array | None
    pbc: bool | Sequence[bool] | None
    fparam: Array | None = None
    aparam: Array | None = None


class Differentiable:
    """Some outputs of a model, as functions of coordinates and box that have gradients.

    Args:
        model: a :class:`dpa2.Model`, the path of a file, or None for the embedded model of water.
        outputs: names of :attr:`dpa2.Model.outputs` that are no derivatives; None: those of the head.

    Raises:
        InputError: an output that the model has not, or a derivative. UnsupportedModelError: a spin model.
    """

    def __init__(self, model: Model | str | os.PathLike[str] | None, outputs: Sequence[str] | str | None) -> None:
        self.model = model if isinstance(model, Model) else load() if model is None else load(model)
        if self.model.kind == "spin":
            raise UnsupportedModelError(
                "this is a spin model, whose energies depend on spins as well: Model.evaluate has its forces and "
                "magnetic forces"
            )
        self._known = {o.name: o for o in self.model.outputs if not o.derivative}
        of_head = tuple(name for name in self._known if name not in OF_DESCRIPTOR)
        given = of_head if outputs is None else (outputs,) if isinstance(outputs, str) else tuple(outputs)
        for name in given:
            if name not in self._known:
                known = ", ".join(map(repr, self._known))
                raise InputError(f"outputs: {name!r} is none of those that have gradients in this model: {known}")
        self.names = tuple(dict.fromkeys(given))
        if not self.names:
            raise InputError(f"outputs must name at least one of {', '.join(map(repr, self._known))}")
        self.excluded_types: tuple[int, ...] = tuple(self.model.config["atom_exclude_types"])
        self._of_head = any(name in of_head for name in self.names)
        #: whether the gradient of the first output comes with its value, for no more than later by itself
        self.stores_gradient = self.model.kind == "energy" and "energy" in self.names

    def per_atom(self, name: str) -> bool:
        """Whether an output is one of atoms."""
        return self._known[name].per_atom

    def shape(self, name: str, natoms: int) -> tuple[int, ...]:
        """Of an output of one structure: energies without an axis of their own, others as deepmd-kit has them."""
        output = self._known[name]
        return ((natoms,) if output.per_atom else ()) + self._width(output)

    def _width(self, output: Output) -> tuple[int, ...]:
        return () if self.model.kind == "energy" and output.shape == (1,) else output.shape

    # ------------------------------------------------------------------------------------------------------- evaluation

    def values(self, frames: Frames, gradient: bool) -> tuple[dict[str, Array], tuple[Array, Array] | None]:
        """The outputs, with a frame axis; with ``gradient`` also forces and virial, minus those of the energy."""
        given = (frames.coords, frames.types, frames.box, frames.pbc)
        found: dict[str, Array] = {}
        derivatives = None
        if self._of_head:
            with_forces = gradient and self.stores_gradient
            result = self.model.evaluate(
                *given, frames.fparam, frames.aparam, forces=with_forces, hessian=False
            ).check()
            found |= result.outputs
            if with_forces:
                derivatives = (result.forces, result.virial)
        if any(name in OF_DESCRIPTOR for name in self.names):
            with_rotation = "rot_mat" in self.names
            rows = self._standing(lambda: self.model.descriptor(*given, with_rotation))
            found |= zip(OF_DESCRIPTOR, rows, strict=True) if with_rotation else {"descriptor": rows}
        nframes, natoms = (int(extent) for extent in frames.coords.shape[:2])
        shapes = {name: (nframes, *self.shape(name, natoms)) for name in self.names}
        return {name: found[name].reshape(shape) for name, shape in shapes.items()}, derivatives

    def gradient(self, frames: Frames, cotangents: Mapping[str, Array], xp: Any, counted: Array) -> tuple[Array, Array]:
        """The gradient of the sum of outputs times ``cotangents``: to coordinates, and to strain (nframes, 3, 3).

        Args:
            cotangents: in the shapes of the outputs, with a frame axis; at least one.
            xp: the module of these arrays: numpy or torch.
            counted: (nframes, natoms) 1 for the atoms that have outputs, else 0, in the arrays of ``xp``.
        """
        weights: dict[str, Array] = {}
        natoms = int(frames.coords.shape[1])
        for name, rows in cotangents.items():
            output = self._known[name]
            target = name
            if not output.per_atom:
                target, ones = output.of, (1,) * len(self._width(output))
                share = counted
                if output.reduction == "mean":
                    share = counted / xp.sum(counted, -1)[:, None]
                rows = rows[:, None] * share.reshape((*share.shape, *ones))
            weights[target] = weights[target] + rows if target in weights else rows
        shapes = {name: (int(frames.coords.shape[0]), natoms, *self._known[name].shape) for name in weights}
        given = {name: rows.reshape(shapes[name]) for name, rows in weights.items()}
        own = {"fparam": frames.fparam, "aparam": frames.aparam}
        return self._standing(lambda: self.model.vjp(frames.coords, frames.types, frames.box, given, frames.pbc, **own))

    def _standing(self, call: Callable[[], T]) -> T:
        """What ``call`` gives; on a GPU once it stands."""
        for _ in range(_MOST_REPEATS):
            found = call()
            if self.model.check():
                return found
        raise Error("an evaluation on the GPU stays void however large its buffers are: please report it")


def cell_gradient(xp: Any, coords: Array, box: Array, pbc: Pbc, gradient: Array, strain: Array) -> Array:
    """(nframes, 3, 3) the gradient to lattice vectors at fixed coordinates, from those to coordinates and strain.

    With rows x of coordinates and h of lattice vectors, strain = gradient^T x + cell^T h. Open directions have none.

    Args:
        xp: the module of these arrays: numpy or torch.
    """
    # gradients of all atoms sum to zero, so that the origin is free: one in the middle loses fewest digits
    middle = xp.sum(coords, -2)[:, None] / max(1, coords.shape[-2])
    of_cell = strain - xp.einsum("fik,fil->fkl", gradient, coords - middle)
    if all(pbc):
        return xp.linalg.solve(box.swapaxes(-1, -2), of_cell.swapaxes(-1, -2))
    periodic = xp.stack([box[:, a] if pbc[a] else 0 * box[:, a] for a in range(3)], 1)
    return (of_cell @ xp.linalg.pinv(periodic)).swapaxes(-1, -2)
