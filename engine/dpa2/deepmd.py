"""The Python interface of deepmd-kit on top of dpa2: scripts switch by changing one import.

>>> from dpa2.deepmd import DeepPot                             # doctest: +SKIP
>>> energy, force, virial = DeepPot("model.pth").eval(coords, cells, atom_types)  # doctest: +SKIP

Names, arguments, shapes and types of numbers are those of ``deepmd.infer.DeepPot`` of deepmd-kit 3.2.0.
"""

from __future__ import annotations

import json
import os
import warnings
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError
from .files import heads
from .inputs import Batch, Float, Int, check_input, to_array, to_floats
from .model import Model, load
from .options import OnOverflow, Precision

__all__ = ["DeepPot"]

Array: TypeAlias = NDArray[Any]
Dtype: TypeAlias = Literal["native", "fp32", "fp64"]

#: inputs of models that dpa2 does not evaluate: they must not be passed over in silence
_PHYSICAL = ("spin", "charge_spin", "efield")


class DeepPot:
    """A DPA-2 potential with the methods of deepmd-kit's class of this name.

    In all methods a structure is given by

    - ``coords``: coordinates, angstrom, nframes x natoms x 3 numbers in any shape;
    - ``cells``: lattice vectors as rows, angstrom, nframes x 9 numbers in any shape, or None for open boundaries;
    - ``atom_types``: indices into :meth:`get_type_map`, (natoms,); with ``mixed_type`` (nframes, natoms). A negative
      one is a virtual atom;
    - ``fparam``: frame parameters, nframes x dim_fparam numbers or dim_fparam for all frames;
    - ``aparam``: atomic parameters, nframes x natoms x dim_aparam numbers, natoms x dim_aparam for all frames, or
      dim_aparam for all atoms.

    Args:
        model_file: a model file of any format that :func:`dpa2.load` reads.
        auto_batch_size, neighbor_list, no_jit, nlist_backend, args: taken and not used. dpa2 looks for neighbours and
            divides frames among threads by itself, and none of these changes a result.
        head: which model of a multi-task file, by name (in lower or upper case) or alias; 0 for the first. Files of a
            single model ignore it, unless they say that theirs is another.
        precision, threads, on_overflow: as for :func:`dpa2.load`; deepmd-kit has no such arguments.
        kwargs: options of deepmd-kit's other backends, not used; each is named in a ``UserWarning``.

    Raises:
        ModelFileError, InputError: see :func:`dpa2.load`. What deepmd-kit reports as RuntimeError or AssertionError is
            an InputError, which is a ValueError.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        *args: Any,
        auto_batch_size: Any = True,
        neighbor_list: Any = None,
        head: str | int | None = None,
        no_jit: bool = False,
        nlist_backend: str = "auto",
        precision: Precision | None = None,
        threads: int | None = None,
        on_overflow: OnOverflow = "warn",
        **kwargs: Any,
    ) -> None:
        _warn_of_ignored(kwargs)
        self.model_file = model_file
        self._model = _load(model_file, head, {"precision": precision, "threads": threads, "on_overflow": on_overflow})
        self._config = self._model.config

    def close(self) -> None:
        """Nothing: dpa2 holds no files or devices. Here so that ``with DeepPot(...) as dp`` works."""

    def __enter__(self) -> DeepPot:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------ evaluation

    def eval(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        atomic: bool = False,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        mixed_type: bool = False,
        **kwargs: Any,
    ) -> tuple[Array, ...]:
        """Energies and their derivatives.

        Returns:
            energy (nframes, 1) eV, force (nframes, natoms, 3) eV/angstrom, virial (nframes, 9) eV; with ``atomic``
            also atomic energy (nframes, natoms, 1) eV and atomic virial (nframes, natoms, 9) eV, the latter as
            deepmd-kit defines it. All of them float64.

        Raises:
            InputError: sizes that do not fit, and see :meth:`dpa2.Model.evaluate`.
        """
        _warn_of_ignored(kwargs)
        batch = self._batch(coords, cells, atom_types, fparam, aparam, mixed_type)
        found = self._model.evaluate(
            batch.coords,
            batch.types,
            batch.boxes,
            fparam=batch.fparam,
            aparam=batch.aparam,
            atomic="deepmd" if atomic else False,
        )
        nframes, natoms = batch.types.shape
        whole = (np.reshape(found.energy, (nframes, 1)), found.forces, found.virial.reshape(nframes, 9))
        if found.atom_virial is None:
            return whole
        return (*whole, found.atom_energy[:, :, None], found.atom_virial.reshape(nframes, natoms, 9))

    def eval_descriptor(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        mixed_type: bool = False,
        dtype: Dtype = "native",
        **kwargs: Any,
    ) -> Array:
        """Descriptors of the atoms, (nframes, natoms, descriptor_dim): float64, or float32 with ``dtype="fp32"``.

        Raises:
            InputError: see :meth:`eval`.
        """
        _warn_of_ignored(kwargs)
        return _cast(self._descriptor(self._batch(coords, cells, atom_types, fparam, aparam, mixed_type)), dtype)

    def eval_fitting_last_layer(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        mixed_type: bool = False,
        dtype: Dtype = "native",
        **kwargs: Any,
    ) -> Array:
        """The output of the fitting net's last hidden layer, (nframes, natoms, neuron[-1]).

        In the precision of the fitting net, unless ``dtype`` is "fp32" or "fp64".

        Raises:
            InputError: see :meth:`eval`.
        """
        return self.eval_embedding(coords, cells, atom_types, fparam, aparam, mixed_type, dtype, **kwargs)[1]

    def eval_embedding(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        fparam: ArrayLike | None = None,
        aparam: ArrayLike | None = None,
        mixed_type: bool = False,
        dtype: Dtype = "fp32",
        **kwargs: Any,
    ) -> tuple[Array, Array, Array]:
        """What the layers of the model make of a structure.

        Returns:
            descriptors (nframes, natoms, descriptor_dim); the last hidden layer of the fitting net
            (nframes, natoms, neuron[-1]); and the sum of the latter over the atoms that have an energy, those that are
            neither virtual nor of an excluded type, (nframes, neuron[-1]). float32, or with ``dtype`` "fp64" float64,
            or with "native" the precision of each part.

        Raises:
            InputError: see :meth:`eval`.
        """
        from ._native import last_hidden

        _warn_of_ignored(kwargs)
        batch = self._batch(coords, cells, atom_types, fparam, aparam, mixed_type)
        descriptor = self._descriptor(batch)
        weights = {k: value for k, value in self._model._data.weights.items() if k.startswith("fitting_net.")}
        feature = last_hidden(json.dumps(self._config), weights, descriptor, batch.fparam, batch.aparam)
        counted = (batch.types >= 0) & ~np.isin(batch.types, self._config["atom_exclude_types"])
        feature = feature.astype(_dtype_of(self._config["fitting_net"]["precision"]), copy=False)
        total = (feature * counted[:, :, None]).sum(axis=1, dtype=feature.dtype)
        return _cast(descriptor, dtype), _cast(feature, dtype), _cast(total, dtype)

    def eval_typeebd(self) -> Array:
        """The type embedding, (ntypes + 1, tebd_dim) in the precision of the descriptor; the last row is zero."""
        from ._native import folded

        table = folded(json.dumps(self._config), self._model._data.weights)["type_embedding"]
        padded = np.concatenate([table, np.zeros((1, table.shape[1]))])
        return padded.astype(_dtype_of(self._config["descriptor"]["precision"]))

    def _descriptor(self, batch: Batch) -> Float:
        return self._model.descriptor(batch.coords, batch.types, batch.boxes)

    def _batch(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        fparam: ArrayLike | None,
        aparam: ArrayLike | None,
        mixed_type: bool,
    ) -> Batch:
        """The arguments of an evaluation, brought from any shape of the right size into those of dpa2."""
        types = _check_types(atom_types, mixed_type)
        natoms = types.shape[-1]
        flat = to_floats(coords, "coords")
        if flat.size % max(1, 3 * natoms) or (natoms == 0 and flat.size):
            raise InputError(f"coords has {flat.size} numbers, which is no multiple of 3 x {natoms} atoms")
        nframes = flat.size // (3 * natoms) if natoms else len(np.atleast_1d(flat))
        boxes = None
        if cells is not None:
            boxes = _sized(cells, "cells", {(nframes, 9): "nframes x 9"}).reshape(nframes, 3, 3)
        return check_input(
            self._config,
            flat.reshape(nframes, natoms, 3),
            types,
            boxes,
            None,
            _frame_parameters(fparam, nframes, self.get_dim_fparam()),
            _atomic_parameters(aparam, nframes, natoms, self.get_dim_aparam()),
        )

    # ------------------------------------------------------------------------------------------ the model

    def get_type_map(self) -> list[str]:
        """The names of the atom types."""
        return list(self._model.type_map)

    def get_ntypes(self) -> int:
        """The number of atom types."""
        return len(self._model.type_map)

    def get_rcut(self) -> float:
        """The cutoff of the neighbour list, angstrom."""
        return self._model.rcut

    def get_dim_fparam(self) -> int:
        """The number of frame parameters."""
        return int(self._config["fitting_net"]["numb_fparam"])

    def get_dim_aparam(self) -> int:
        """The number of atomic parameters."""
        return int(self._config["fitting_net"]["numb_aparam"])

    def has_default_fparam(self) -> bool:
        """Whether frame parameters may be left out although the model has some."""
        return self._config["fitting_net"]["default_fparam"] is not None

    def get_sel_type(self) -> list[int]:
        """The types of atoms that have an energy: all but the excluded ones."""
        return [t for t in range(self.get_ntypes()) if t not in self._config["atom_exclude_types"]]

    def get_model(self) -> Model:
        """The :class:`dpa2.Model`, where deepmd-kit has that of its framework."""
        return self._model

    def get_model_def_script(self) -> dict[str, Any]:
        """The model section of an input of deepmd-kit, complete with defaults; of a multi-task file, that of the head.

        Only what defines the model is in it, not how it was trained (``seed``, ``trainable``, ...).
        """
        names = ("type_map", "descriptor", "fitting_net", "pair_exclude_types", "atom_exclude_types")
        config = self._model.config
        return {name: config[name] for name in names}

    def get_model_size(self) -> dict[str, int]:
        """Numbers of trainable parameters: of the ``descriptor``, of the ``fitting-net``, and in ``total``."""
        descriptor = fitting = 0
        for name, value in self._model._data.weights.items():
            if name.startswith("fitting_net.filter_layers."):
                fitting += value.size
            elif name.startswith("descriptor.") and name.rpartition(".")[2] not in ("mean", "stddev", "econf_tebd"):
                descriptor += value.size
        return {"descriptor": descriptor, "fitting-net": fitting, "total": descriptor + fitting}

    def get_observed_types(self) -> dict[str, Any]:
        """The types that the model was trained on: ``type_num`` and, by atomic number, ``observed_type``.

        Told by their energy biases, which are zero for the others, also where deepmd-kit's file has a list of its own.
        """
        from .files.econf import SYMBOLS

        order = {symbol: number for number, symbol in enumerate(SYMBOLS)}
        biases = self._model._data.weights["out_bias"][0, :, 0]
        seen = [name for name, bias in zip(self._model.type_map, biases, strict=True) if abs(bias) > 1e-6]
        seen.sort(key=lambda name: order.get(name, len(order)))
        return {"type_num": len(seen), "observed_type": seen}

    def get_ntypes_spin(self) -> int:
        """0, as for every model that dpa2 reads."""
        return 0

    def has_chg_spin_ebd(self) -> bool:
        """False: dpa2 reads no models with an embedding of charge and spin."""
        return False

    def has_default_chg_spin(self) -> bool:
        """False, see :meth:`has_chg_spin_ebd`."""
        return False

    @property
    def has_efield(self) -> bool:
        """False: dpa2 reads no models with an electric field."""
        return False

    @property
    def has_spin(self) -> bool:
        """False: dpa2 reads no models with spin."""
        return False

    @property
    def use_spin(self) -> list[bool]:
        """Empty, as for every model without spin."""
        return []

    @property
    def has_hessian(self) -> bool:
        """False: dpa2 computes no second derivatives."""
        return False


def _load(path: str | os.PathLike[str], head: str | int | None, options: dict[str, Any]) -> Model:
    """A model by deepmd-kit's rules for ``head``."""
    names = [] if head is None else heads(path)
    if isinstance(head, int):
        if head != 0:
            raise InputError(f"head must be a name, or 0 for the first model of the file, got {head}")
        head = names[0] if names else None
    if head is not None and names:
        if head not in names:
            head = next((name for name in names if name.lower() == head.lower()), head)
        return load(path, head, **options)
    model = load(path, None, **options)
    own = model.config["head"]
    if head is not None and own is not None and head != own:
        raise InputError(f"head {head!r} was asked for, but {os.fspath(path)} holds the head {own!r} alone")
    return model


def _warn_of_ignored(kwargs: dict[str, Any]) -> None:
    for name, value in kwargs.items():
        if value is not None:
            if name in _PHYSICAL:
                raise InputError(f"{name} was given, but the models that dpa2 evaluates know no {name}: leave it out")
            warnings.warn(f"DeepPot does not know {name!r} and ignores it", UserWarning, stacklevel=3)


def _check_types(value: ArrayLike, mixed_type: bool) -> Int:
    """(natoms,) or (nframes, natoms) integers."""
    types = to_array(value, "atom_types")
    if types.size == 0:
        types = types.astype(np.int32)
    if types.dtype.kind not in "iu":
        raise InputError(f"atom_types must be indices into the type map, but has elements of type {types.dtype}")
    if types.ndim not in (1, 2) or (mixed_type and types.ndim != 2):
        wanted = "(nframes, natoms)" if mixed_type else "(natoms,)"
        raise InputError(f"atom_types must have shape {wanted}, got {types.shape}")
    return types[0] if len(types) == 1 and types.ndim == 2 and not mixed_type else types


def _sized(value: ArrayLike, name: str, shapes: dict[tuple[int, ...], str]) -> Float:
    """``value`` in the first of these shapes that has its number of elements."""
    array = to_floats(value, name)
    for shape in shapes:
        if array.size == np.prod(shape, dtype=int):
            return array.reshape(shape)
    wanted = " or ".join(f"{' x '.join(map(str, shape))} ({words})" for shape, words in shapes.items())
    raise InputError(f"{name} must have {wanted} numbers, but has {array.size}")


def _frame_parameters(value: ArrayLike | None, nframes: int, dim: int) -> Float | None:
    if value is None or (dim == 0 and np.size(value) == 0):
        return None
    return _sized(value, "fparam", {(nframes, dim): "nframes x dim_fparam", (dim,): "dim_fparam"})


def _atomic_parameters(value: ArrayLike | None, nframes: int, natoms: int, dim: int) -> Float | None:
    if value is None or (dim == 0 and np.size(value) == 0):
        return None
    shapes = {
        (nframes, natoms, dim): "nframes x natoms x dim_aparam",
        (natoms, dim): "natoms x dim_aparam",
        (dim,): "dim_aparam",
    }
    return _sized(value, "aparam", shapes)


def _dtype_of(precision: str) -> type[np.float64] | type[np.float32]:
    return np.float64 if precision == "float64" else np.float32


def _cast(array: Array, dtype: Any) -> Array:
    if dtype == "native":
        return array
    if dtype not in ("fp32", "fp64"):
        raise InputError(f'dtype must be "native", "fp32" or "fp64", got {dtype!r}')
    return array.astype(np.float64 if dtype == "fp64" else np.float32, copy=False)
