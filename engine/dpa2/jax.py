"""DPA-2 models in JAX: :class:`Function` and :func:`energy_fn`. The one module that needs JAX to be imported.

>>> import dpa2.jax                                             # doctest: +SKIP
>>> potential = dpa2.jax.Function("model.pth")                  # doctest: +SKIP
>>> potential(coords, ["O", "H", "H"], box)["energy"]           # doctest: +SKIP
>>> energy = dpa2.jax.energy_fn("model.pth", ["O", "H", "H"])   # doctest: +SKIP
>>> jax.jit(jax.grad(energy))(coords)                           # doctest: +SKIP

The model computes on the host, in a callback: JAX brings arrays there and back. Arrays that are not traced are
evaluated without one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from .differentiable import (
    Differentiable,
    Frames,
    cell_gradient,
    refuse_gradient_of,
    refuse_second_derivative,
)
from .errors import InputError
from .inputs import Pbc, check_pbc, check_types, counted
from .model import Model

__all__ = ["Function", "energy_fn"]

Array = Any  # jax.Array, or what stands for one while a function is traced


class Function:
    """A DPA-2 model as a function of JAX, with ``grad``, ``jit`` and ``vmap``.

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
        self._of = Differentiable(model, outputs)

    @property
    def model(self) -> Model:
        """The model that is evaluated."""
        return self._of.model

    def __call__(
        self,
        coords: Array,
        types: Any,
        box: Array | None = None,
        *,
        pbc: bool | Sequence[bool] | None = None,
        fparam: Array | None = None,
        aparam: Array | None = None,
    ) -> dict[str, Array]:
        """The outputs of one structure, or of many.

        Args:
            coords: (natoms, 3), or (..., natoms, 3) of equal frames, angstrom, of a floating-point type.
            types: element symbols, or integers, indices into ``model.type_map``: (natoms,) or (..., natoms).
            box: None (open), (3, 3) with lattice vectors as rows, angstrom, or (..., 3, 3).
            pbc: periodic directions, no array of JAX: None (all if there is a box), a bool, or three.
            fparam, aparam: (..., numb_fparam), (..., natoms, numb_aparam); there are no derivatives by them.

        Returns:
            Arrays by name, of the type of ``coords``. Energies: "energy" (...) and "atom_energy" (..., natoms), others
            in the shapes of :attr:`dpa2.Result.outputs` behind the axes of frames.

        Raises:
            InputError: see :meth:`dpa2.Model.evaluate`; and coordinates that are integers. What shows in numbers alone,
                as coordinates that are not finite, is a ``jax.errors.JaxRuntimeError`` with that text where the
                function is traced.
            SecondDerivativeError: where a gradient is differentiated.
        """
        given = {"coords": coords, "box": box, "fparam": fparam, "aparam": aparam}
        arrays = {name: _floats(value, name) for name, value in given.items() if value is not None}
        x = arrays["coords"]
        if x.ndim < 2 or x.shape[-1] != 3:
            raise InputError(f"coords must have shape (natoms, 3) or (..., natoms, 3), got {x.shape}")
        natoms, config = x.shape[-2], self.model.type_map
        if not isinstance(types, jax.core.Tracer):
            types = np.asarray(types) if isinstance(types, jax.Array) else types
            flat = types.reshape(-1, natoms) if isinstance(types, np.ndarray) and types.ndim > 2 else types
            rows = np.shape(flat)[0] if np.ndim(flat) == 2 else 1
            checked = check_types(flat, config, rows, natoms, np.ndim(flat) == 2)
            types = checked.reshape(np.shape(types)) if np.ndim(types) > 1 else checked[0]
        wanted = {"box": (3, 3), "aparam": (natoms,), "fparam": ()}
        rest = {"types": _spread(types, x, (natoms,), "types")}
        for name in ("fparam", "aparam"):
            if name in arrays:
                width = arrays[name].shape[-1:]
                rest[name] = _constant(name, _spread(arrays[name], x, (*wanted[name], *width), name))
        cell = _spread(arrays["box"], x, (3, 3), "box") if "box" in arrays else None
        call = _Call(self, check_pbc(pbc, cell is not None))
        found: dict[str, Array]
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((x, cell, rest))):
            found = _values(call, x, cell, rest)
        else:  # without a callback, so that errors are dpa2's own
            found = jax.tree.map(jnp.asarray, call.values(_operands(x, cell, rest), stored=False)[0])
        return found


def energy_fn(
    model: Model | str | os.PathLike[str] | None,
    types: Any,
    box: ArrayLike | None = None,
    *,
    pbc: bool | Sequence[bool] | None = None,
    fractional_coordinates: bool = False,
    fparam: ArrayLike | None = None,
    aparam: ArrayLike | None = None,
) -> Callable[..., Array]:
    """The energy of a model, eV, as a function of coordinates in the form that jax-md takes: ``energy(R, **kwargs)``.

    ``R`` (natoms, 3) in angstrom; keywords: ``box``, another box than this one, and ``perturbation``, a factor or a
    matrix (3, 3) that everything is strained by, as ``jax_md.quantity.stress`` and ``pressure`` pass it. Other keywords
    of jax-md, as ``neighbor``, mean nothing here: neighbours are found by dpa2.

    Args:
        model: as for :class:`Function`, of the kind "energy".
        types: (natoms,) element symbols, or indices into ``model.type_map``.
        box: None (open), or as jax-md has it: a length, (3,) lengths or a matrix (3, 3) with lattice vectors as
            *columns*, angstrom.
        pbc: as for :class:`Function`.
        fractional_coordinates: whether ``R`` counts in lattice vectors, as in ``jax_md.space.periodic_general``.
        fparam, aparam: as for :class:`Function`.

    Raises:
        InputError: the model has no energy; fractional coordinates without a box.
    """
    function = Function(model, "energy")
    own = box

    def energy(R: Array, *, box: Any = None, perturbation: Any = None, **_: Any) -> Array:
        cell = _rows_of_box(own if box is None else box)
        coords = _floats(R, "coords")
        if fractional_coordinates:
            if cell is None:
                raise InputError("fractional coordinates need a box: pass box=")
            coords = coords @ cell
        if perturbation is not None:
            strain = jnp.asarray(perturbation)
            strain = strain * jnp.eye(3, dtype=coords.dtype) if strain.ndim == 0 else strain
            coords, cell = coords @ strain.T, None if cell is None else cell @ strain.T
        found = function(coords, types, cell, pbc=pbc, fparam=fparam, aparam=aparam)
        return found["energy"]

    return energy


def _rows_of_box(box: Any) -> Array | None:
    """(3, 3) lattice vectors as rows, of a box of jax-md."""
    if box is None:
        return None
    cell = _floats(box, "box")
    if cell.shape not in ((), (3,), (3, 3)):
        raise InputError(f"box must be a length, (3,) lengths or (3, 3) with columns as vectors, got {cell.shape}")
    return cell.T if cell.ndim == 2 else cell * jnp.eye(3, dtype=cell.dtype)


def _floats(value: Any, name: str) -> Array:
    try:
        array = jnp.asarray(value)
    except Exception as error:  # whatever a foreign __array__ raises is about this one argument
        raise InputError(f"{name} cannot be read as an array: {error}") from error
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"{name} must be of a floating-point type, got {array.dtype}: pass {name}.astype(float)")
    return array


def _spread(value: Any, coords: Array, one: tuple[int, ...], name: str) -> Array:
    """One per frame of ``coords``; given so, or one for all."""
    array, lead = jnp.asarray(value), coords.shape[:-2]
    if array.shape not in (one, (*lead, *one)):
        several = f" or {(*lead, *one)}" if lead else ""
        hint = ", with lattice vectors as rows" if name == "box" else " to match coords"
        raise InputError(f"{name} must have shape {one}{several}{hint}, got {array.shape}")
    return jnp.broadcast_to(array, (*lead, *one))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _constant(name: str, value: Array) -> Array:
    return value


@_constant.defjvp  # type: ignore[untyped-decorator, unused-ignore]
def _refuse(name: str, *_: Any) -> Any:
    refuse_gradient_of(name)


# --------------------------------------------------------------------------------------------------------- the callback


@dataclass(frozen=True)
class _Call:
    """What does not depend on numbers; two of the same are traced once."""

    function: Function
    pbc: Pbc

    @property
    def of(self) -> Differentiable:
        return self.function._of

    def shapes(self, coords: Array) -> dict[str, Any]:
        """Of the outputs, of frames like these."""
        lead, natoms = coords.shape[:-2], coords.shape[-2]
        return {n: jax.ShapeDtypeStruct((*lead, *self.of.shape(n, natoms)), coords.dtype) for n in self.of.names}

    def frames(self, given: Mapping[str, Any]) -> tuple[Frames, tuple[int, ...]]:
        """Of the host, along one axis; and the axes that they had."""
        lead = given["coords"].shape[:-2]
        own = {"coords": 2, "types": 1, "box": 2, "fparam": 1, "aparam": 2}
        flat: dict[str, Any] = dict.fromkeys(own)
        for name in given.keys() & own.keys():
            array = np.asarray(given[name])
            array = array if name == "types" else array.astype(np.float64)
            flat[name] = array.reshape(-1, *array.shape[array.ndim - own[name] :])
        return Frames(**flat, pbc=self.pbc), lead

    def derivative_shapes(self, coords: Array, box: Array | None) -> tuple[Any, ...]:
        """Of the gradient to coordinates and, where there is one, to the box."""
        return tuple(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in (coords, box) if array is not None)

    def values(self, given: Mapping[str, Any], stored: bool) -> Any:
        """Outputs, and with ``stored`` the derivatives of the energy; in the callback."""
        frames, lead = self.frames(given)
        found, derivatives = self.of.values(frames, stored)
        dtype = given["coords"].dtype
        values = {name: rows.reshape((*lead, *rows.shape[1:])).astype(dtype) for name, rows in found.items()}
        if derivatives is None:
            return values, ()
        forces, virial = derivatives
        return values, self._derivatives(frames, given, -forces, -virial)

    def gradient(self, given: Mapping[str, Any], cotangents: Mapping[str, Any]) -> Any:
        """The derivatives of weighted outputs; in the callback."""
        frames, lead = self.frames(given)
        n = len(frames.coords)
        weights = {
            name: np.asarray(rows, np.float64).reshape(n, *np.shape(rows)[len(lead) :])
            for name, rows in cotangents.items()
        }
        mask = counted(np.asarray(frames.types), self.of.excluded_types).astype(np.float64)
        return self._derivatives(frames, given, *self.of.gradient(frames, weights, np, mask))

    def _derivatives(self, frames: Frames, given: Mapping[str, Any], gradient: Any, strain: Any) -> tuple[Any, ...]:
        found = [("coords", gradient)]
        if frames.box is not None:
            found.append(("box", cell_gradient(np, frames.coords, frames.box, self.pbc, gradient, strain)))
        return tuple(rows.reshape(given[name].shape).astype(given[name].dtype) for name, rows in found)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _callback(host: Callable[..., Any], shapes: Any, *operands: Any) -> Any:
    """What ``host`` makes of the operands."""
    return jax.pure_callback(host, shapes, *operands, vmap_method="broadcast_all")


@_callback.defjvp  # type: ignore[untyped-decorator, unused-ignore]
def _refuse_second(*_: Any) -> Any:
    refuse_second_derivative()


def _operands(coords: Array, box: Array | None, rest: Mapping[str, Array]) -> dict[str, Array]:
    return {"coords": coords, **rest, **({} if box is None else {"box": box})}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _values(call: _Call, coords: Array, box: Array | None, rest: Mapping[str, Array]) -> Any:
    operands = _operands(coords, box, rest)
    return _callback(partial(call.values, stored=False), (call.shapes(coords), ()), operands)[0]


def _forward(call: _Call, coords: Array, box: Array | None, rest: Mapping[str, Array]) -> Any:
    stores = call.of.names == ("energy",) and call.of.stores_gradient  # else other cotangents may come
    shapes = (call.shapes(coords), call.derivative_shapes(coords, box) if stores else ())
    found, derivatives = _callback(partial(call.values, stored=stores), shapes, _operands(coords, box, rest))
    return found, (coords, box, rest, derivatives)


def _backward(call: _Call, saved: Any, cotangents: Mapping[str, Array]) -> Any:
    coords, box, rest, derivatives = saved
    if derivatives:
        factor = cotangents["energy"][..., None, None]
        found = tuple((factor * rows).astype(rows.dtype) for rows in derivatives)
    else:
        shapes = call.derivative_shapes(coords, box)
        found = _callback(call.gradient, shapes, _operands(coords, box, rest), dict(cotangents))
    return found[0], None if box is None else found[1], None


_values.defvjp(_forward, _backward)
