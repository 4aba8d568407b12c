"""What deepmd-kit's classes for models of all kinds have in common, and :class:`DeepEval`, which finds the kind."""

from __future__ import annotations

import json
import os
import re
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dpa2.errors import InputError, UnsupportedModelError
from dpa2.files import heads, schema
from dpa2.inputs import Batch, Float, check_input, counted, to_floats
from dpa2.model import Model, load
from dpa2.options import Atomic, OnOverflow, Precision

from .arguments import (
    Array,
    Dtype,
    atomic_parameters,
    cast,
    check_types,
    dtype_of,
    frame_parameters,
    sized,
    warn_of_ignored,
)

__all__ = ["DeepEval"]

D = TypeVar("D", bound="DeepEval")
#: what is said of a model beside its parts
_NOT_OF_THE_MODEL = ("format_version", "precision", "min_nbor_dist", "head")


class DeepEval:
    """A model of any kind: ``DeepEval(file)`` is a :class:`DeepPot`, :class:`DeepDipole`, ... as the file says.

    The classes of the kinds are made in the same way, and refuse files of other kinds.

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
            an InputError, which is a ValueError; so is a file of another kind than that of the class.
    """

    #: what the model must be, "" for anything
    _kind: ClassVar[str] = ""
    _classes: ClassVar[dict[str, type[DeepEval]]] = {}

    def __init_subclass__(cls) -> None:
        if "_kind" in cls.__dict__:
            DeepEval._classes[cls._kind] = cls

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
        warn_of_ignored(type(self), kwargs)
        self.model_file = model_file
        self._model = load_by_head(
            model_file, head, {"precision": precision, "threads": threads, "on_overflow": on_overflow}
        )
        self._config = self._model.config
        of_kind = self._classes[self._model.kind]
        if type(self) is DeepEval:
            self.__class__ = of_kind  # which has more methods, and nothing else
        elif self._kind not in ("", of_kind._kind):
            raise InputError(
                f"{os.fspath(model_file)} is a model of kind {self._model.kind!r}, which {of_kind.__name__} is for and "
                f"not {type(self).__name__}; DeepEval takes files of every kind"
            )

    def close(self) -> None:
        """Nothing: dpa2 holds no files or devices. Here so that ``with DeepEval(...) as dp`` works."""

    def __enter__(self: D) -> D:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------ evaluation

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

        A spin model takes ``spin`` as well, see :meth:`DeepPot.eval`. Its virtual atoms, whose descriptors deepmd-kit
        appends to those of the atoms, are left out.

        Raises:
            InputError: sizes that do not fit, and see :meth:`dpa2.Model.evaluate`.
        """
        spin = self._spin(kwargs)
        warn_of_ignored(type(self), kwargs)
        batch = self._batch(coords, cells, atom_types, fparam, aparam, mixed_type, spin)
        return cast(self._descriptor(batch), dtype)

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
            InputError: sizes that do not fit, and see :meth:`dpa2.Model.evaluate`.
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
            (nframes, natoms, neuron[-1]); and the sum of the latter over the atoms that count, those that are neither
            virtual nor of an excluded type, (nframes, neuron[-1]). float32, or with ``dtype`` "fp64" float64, or with
            "native" the precision of each part. Of a combination: of its first model with a descriptor, to which no
            type is excluded.

        Raises:
            InputError: see :meth:`dpa2.Model.evaluate`. UnsupportedModelError: a spin model, of which deepmd-kit has
                none either.
        """
        from dpa2._native import last_hidden

        if self.has_spin:
            raise UnsupportedModelError("there are no embeddings of spin models, only descriptors")
        warn_of_ignored(type(self), kwargs)
        batch = self._batch(coords, cells, atom_types, fparam, aparam, mixed_type)
        descriptor = self._descriptor(batch)
        config, weights = self._parts()[0]
        net = config["fitting_net"]
        fparam, aparam = batch.fparam if net["numb_fparam"] else None, batch.aparam if net["numb_aparam"] else None
        of_net = {name: value for name, value in weights.items() if name.startswith("fitting_net.")}
        feature = last_hidden(json.dumps(config), of_net, descriptor, fparam, aparam)
        mask = counted(batch.types, config["atom_exclude_types"])
        feature = feature.astype(dtype_of(net["precision"]), copy=False)
        total = (feature * mask[:, :, None]).sum(axis=1, dtype=feature.dtype)
        return cast(descriptor, dtype), cast(feature, dtype), cast(total, dtype)

    def eval_typeebd(self) -> Array:
        """The type embedding, (ntypes + 1, tebd_dim) in the precision of the descriptor; the last row is zero.

        Of a combination those of its models side by side, of a hybrid descriptor those of its parts.

        Raises:
            InputError: the models of a combination have different numbers of types.
        """
        from dpa2._native import folded

        tables = []
        for config, weights in self._parts():
            tensors = folded(json.dumps(config), weights)
            for k, descriptor in enumerate(schema.descriptors(config)):
                name = f"descriptors.{k}.type_embedding" if schema.is_hybrid(config) else "type_embedding"
                if (table := tensors.get(name)) is not None:
                    padded = np.concatenate([table, np.zeros((1, table.shape[1]))])
                    tables.append(padded.astype(dtype_of(descriptor["precision"])))
        if len({len(table) for table in tables}) > 1:
            counts = " and ".join(str(len(table) - 1) for table in tables)
            raise InputError(f"the models of this combination know {counts} types: their embeddings make no one array")
        return np.concatenate(tables, axis=1)

    def _parts(self) -> list[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
        """Configuration and weights of the model, or of each one with a descriptor in a combination."""
        config, weights = self._config, self._model._data.weights
        if "models" not in config:
            return [(config, weights)]
        common = {name: config[name] for name in ("format_version", "precision", "min_nbor_dist", "head")}
        parts = []
        for k, child in enumerate(config["models"]):
            if "descriptor" in child:
                own = {name: value for name, value in weights.items() if name.startswith(f"models.{k}.")}
                parts.append(
                    (
                        {**common, "pair_exclude_types": [], "atom_exclude_types": [], **child},
                        {name.removeprefix(f"models.{k}."): value for name, value in own.items()},
                    )
                )
        return parts

    def _spin(self, kwargs: dict[str, Any]) -> ArrayLike | None:
        """The spins for a spin model, taken out of the further arguments of a method."""
        spin: ArrayLike | None = kwargs.pop("spin", None) if self.has_spin else None
        return spin

    def _outputs(self, batch: Batch, *, atomic: Atomic = False, forces: bool = True) -> dict[str, Any]:
        """What the model makes of it, by deepmd-kit's names, with a frame axis."""
        found = self._model.evaluate(
            batch.coords,
            batch.types,
            batch.boxes,
            fparam=batch.fparam,
            aparam=batch.aparam,
            atomic=atomic,
            spin=batch.spins,
            forces=forces,
        )
        return found.outputs

    def _width(self, name: str) -> int:
        """Numbers in the value of an output."""
        return next(output.shape[0] for output in self._model.outputs if output.name == name)

    def _descriptor(self, batch: Batch) -> Float:
        return self._model.descriptor(batch.coords, batch.types, batch.boxes, spin=batch.spins)

    def _batch(
        self,
        coords: ArrayLike,
        cells: ArrayLike | None,
        atom_types: ArrayLike,
        fparam: ArrayLike | None,
        aparam: ArrayLike | None,
        mixed_type: bool,
        spin: ArrayLike | None = None,
    ) -> Batch:
        """The arguments of an evaluation, brought from any shape of the right size into those of dpa2."""
        types = check_types(atom_types, mixed_type)
        natoms = types.shape[-1]
        flat = to_floats(coords, "coords")
        if flat.size % max(1, 3 * natoms) or (natoms == 0 and flat.size):
            raise InputError(f"coords has {flat.size} numbers, which is no multiple of 3 x {natoms} atoms")
        nframes = flat.size // (3 * natoms) if natoms else len(np.atleast_1d(flat))
        boxes = None
        if cells is not None:
            boxes = sized(cells, "cells", {(nframes, 9): "nframes x 9"}).reshape(nframes, 3, 3)
        return check_input(
            self._config,
            flat.reshape(nframes, natoms, 3),
            types,
            boxes,
            None,
            frame_parameters(fparam, nframes, self.get_dim_fparam()),
            atomic_parameters(aparam, nframes, natoms, self.get_dim_aparam()),
            spin=None if spin is None else sized(spin, "spin", {(nframes, natoms, 3): "nframes x natoms x 3"}),
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
        return int(schema.parameters(self._config)["numb_fparam"])

    def get_dim_aparam(self) -> int:
        """The number of atomic parameters."""
        return int(schema.parameters(self._config)["numb_aparam"])

    def has_default_fparam(self) -> bool:
        """Whether frame parameters may be left out although the model has some."""
        return bool(schema.parameters(self._config)["own_defaults"])

    def get_sel_type(self) -> list[int]:
        """The types of atoms that have outputs: all but the excluded ones; with a pair table none, which means all."""
        if any(child.get("type") == "pairtab" for child in self._config.get("models", ())):
            return []
        return [t for t in range(self.get_ntypes()) if t not in self._config["atom_exclude_types"]]

    def get_model(self) -> Model:
        """The :class:`dpa2.Model`, where deepmd-kit has that of its framework."""
        return self._model

    def get_model_def_script(self) -> dict[str, Any]:
        """The model section of an input of deepmd-kit, complete with defaults; of a multi-task file, that of the head.

        Only what defines the model is in it, not how it was trained (``seed``, ``trainable``, ...). A combination is
        described by its models, as dpa2 keeps them; their tables are among the weights.
        """
        return {name: value for name, value in self._model.config.items() if name not in _NOT_OF_THE_MODEL}

    def get_model_size(self) -> dict[str, int]:
        """Numbers of trainable parameters: of the ``descriptor``, of the ``fitting-net``, and in ``total``."""
        descriptor = fitting = 0
        for name, value in self._model._data.weights.items():
            own = re.sub(r"^models\.\d+\.", "", name)
            if own.startswith("fitting_net.filter_layers."):
                fitting += value.size
            elif own.startswith("descriptor.") and own.rpartition(".")[2] not in ("mean", "stddev", "econf_tebd"):
                descriptor += value.size
        return {"descriptor": descriptor, "fitting-net": fitting, "total": descriptor + fitting}

    def get_observed_types(self) -> dict[str, Any]:
        """The types that the model was trained on: ``type_num`` and, by atomic number, ``observed_type``.

        Told by their biases, which are zero for the others, also where deepmd-kit's file has a list of its own.
        """
        from dpa2.files.econf import SYMBOLS

        order = {symbol: number for number, symbol in enumerate(SYMBOLS)}
        part = "models.0." if self.has_spin else ""  # whose types of virtual atoms, behind those of atoms, do not count
        ntypes = len(self._model.type_map)
        known = (np.abs(self._model._data.weights[f"{part}out_bias"][0, :ntypes]) > 1e-6).any(axis=-1)
        seen = [name for name, observed in zip(self._model.type_map, known, strict=True) if observed]
        seen.sort(key=lambda name: order.get(name, len(order)))
        return {"type_num": len(seen), "observed_type": seen}

    def get_ntypes_spin(self) -> int:
        """0: it counts the types of virtual atoms in models of deepmd-kit's TensorFlow backend."""
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
        """Whether it is a spin model, which ``eval`` gives ``spin`` to."""
        return self._model.kind == "spin"

    @property
    def use_spin(self) -> list[bool]:
        """Which types have spins; empty for a model without spins."""
        return list(self._model.use_spin) if self.has_spin else []

    @property
    def has_hessian(self) -> bool:
        """Whether ``eval`` returns Hessians: of a potential that was trained with them (``hessian_mode``)."""
        return self._model.has_hessian


def load_by_head(path: str | os.PathLike[str], head: str | int | None, options: dict[str, Any]) -> Model:
    """A model by deepmd-kit's rules for ``head``; ``options`` are those of :func:`dpa2.load`."""
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
