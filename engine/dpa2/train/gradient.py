"""The gradient of a loss to the parameters of a model, under deepmd-kit's names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, TypeAlias, TypedDict

import numpy as np

from ..errors import InputError, UnsupportedModelError
from ..files import ModelData, read, schema
from ..inputs import Float, Int, check_finite, to_floats
from ..model import Model
from ..options import Precision, checked_amount, choice
from ..threads import checked_threads
from .batch import Label, check_batch, check_labels
from .processes import Alone

#: in front of the canonical name of a weight, in deepmd-kit's checkpoints, behind `model.<head>.`
PREFIX = "atomic_model."


#: coordinates, types, boxes, parameters of frames and of atoms
_Structures: TypeAlias = tuple[Float, Int, Float | None, Float | None, Float | None]


class LossValue(TypedDict):
    """A loss, and what deepmd-kit displays of it."""

    value: float
    parts: dict[str, float]


class LossGradient(LossValue):
    """What :func:`gradient` finds."""

    gradient: dict[str, Float]


def gradient(
    checkpoint: str | os.PathLike[str] | Model,
    batch: Mapping[str, Any],
    loss: Mapping[str, Any],
    lr: float,
    precision: Precision | None = None,
    threads: int | None = None,
    *,
    head: str | None = None,
) -> LossGradient:
    """A loss of a batch, and its gradient to every parameter that is trained. Computed on the CPU.

    Args:
        checkpoint: a model file as for :func:`dpa2.load`, or a model. Tables in place of networks have no parameters:
            a compressed model is refused.
        batch: arrays by deepmd-kit's names of them. ``coord`` (nframes, natoms, 3) or (nframes, 3 natoms), angstrom;
            ``atype`` (nframes, natoms) or (natoms,), indices into the model's type map, -1 for a place without an atom;
            ``box`` (nframes, 9) or (nframes, 3, 3), None or left out for open systems; where the model takes them
            ``fparam`` (nframes, numb_fparam) and ``aparam`` (nframes, natoms, numb_aparam). The labels of the loss:
            ``energy`` (nframes,) or (nframes, 1), ``force`` as ``coord``, ``virial`` as ``box``, ``atom_ener``,
            ``atom_ener_coeff`` (nframes, natoms), ``atom_pref`` with one or three numbers per atom, ``drdq``
            (nframes, 3 natoms, numb_generalized_coord); ``dipole``, ``polarizability``, ``dos``, the name of a property
            with an axis for the numbers of the frame, ``atom_dipole``, ... with one for the atoms before it. In units
            of the model, eV and angstrom. A label whose ``find_<name>`` is 0 counts as missing: its term is left out.
            Other entries are not looked at.
        loss: the ``loss`` section of deepmd-kit's input, its defaults for what it does not say. Prefactors follow the
            learning rate: ``starter_learning_rate`` beside them is the first one of the schedule, ``lr`` if left out.
        lr: the learning rate of the step.
        precision: "float64" or "float32"; the model's own by default. Sums over frames are float64 either way.
        threads: of the evaluations; the model's own by default, of a file as for :func:`dpa2.load`.
        head: which model of a multi-task checkpoint.

    Returns:
        ``value``; ``parts``: what deepmd-kit displays of the loss, by its names (rmse_e per atom, rmse_f, ...), NaN
        where the label is missing; ``gradient``: by the names that parameters have in deepmd-kit's checkpoint, without
        ``model.<head>.`` in front, arrays in their shapes. Parameters that the model's definition does not train
        (``trainable``) are left out; a native file does not know of that.

    The mathematics is in docs/theory.md. Values are those of deepmd-kit's PyTorch backend, but for what it rounds to
    float32 in a model of float64: prefactors and numbers of atoms, 5e-8 of the loss.

    Raises:
        InputError: wrong shapes or numbers; a loss that the model cannot have; a batch without any label of it.
        ModelFileError: as for :func:`dpa2.load`; UnsupportedModelError, a subclass: a compressed model, a linear
            combination; Hessians in the loss.
        OutOfMemoryError: the batch needs more memory than there is.
    """
    return GradientEngine(checkpoint, precision, threads, head=head).gradient(batch, loss, lr)


class GradientEngine:
    """A model in memory, of which gradients are taken step after step while its parameters change.

    The arguments are those of :func:`gradient`; the model may also be what a file holds. Calls may come from several
    threads; one is computed at a time.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] | Model | ModelData,
        precision: Precision | None = None,
        threads: int | None = None,
        *,
        head: str | None = None,
    ) -> None:
        data, own, own_threads = _model(checkpoint, head)
        if precision is not None:
            choice(precision, ("float64", "float32"), "precision")
        count = own_threads if threads is None and own_threads else checked_threads(threads)
        from .._native import Trainer

        self._data_config = data.config
        self._config = json.dumps(data.config)
        self._statistics = {name: data.weights[name] for name in ("out_bias", "out_std")}
        self._values = {PREFIX + name: np.array(data.weights[name], dtype=np.float64) for name in parameters(data)}
        self._trainer = Trainer(self._config, data.weights, precision or own, count)

    @property
    def parameters(self) -> dict[str, Float]:
        """Copies of the parameters that are trained, by deepmd-kit's names, in the order of the evaluation."""
        return {name: value.copy() for name, value in self._values.items()}

    def assign(self, parameters: Mapping[str, Any]) -> None:
        """Other values of parameters, by the names and in the shapes of :attr:`parameters`; the others stay.

        Raises:
            InputError: names that are no parameters, other shapes, numbers that are not finite.
        """
        if not isinstance(parameters, Mapping):
            raise InputError(f"parameters must be a dict of arrays by name, got {type(parameters).__name__}")
        values: dict[str, Float] = {}
        for name, value in parameters.items():
            if name not in self._values:
                raise InputError(f"the model has no parameter {name!r} that is trained")
            array, shape = to_floats(value, name), self._values[name].shape
            if array.shape != shape:
                raise InputError(f"{name} must have shape {shape}, got {array.shape}")
            check_finite(array, name)
            copied = isinstance(value, np.ndarray) and not np.may_share_memory(array, value)
            values[name] = array if copied else array.copy()
        self._trainer.assign({name.removeprefix(PREFIX): value for name, value in values.items()})
        self._values.update(values)

    def gradient(self, batch: Mapping[str, Any], loss: Mapping[str, Any], lr: float) -> LossGradient:
        """A loss and its gradient at the parameters as they are now: see :func:`gradient`."""
        rate, section = checked_amount(lr, "lr"), _section(loss)
        structures, labels = self._checked(batch, section)
        value, parts, found = self._trainer.gradient(*structures, section, rate, labels)
        return {"value": value, "parts": parts, "gradient": self._named(found)}

    def value(self, batch: Mapping[str, Any], loss: Mapping[str, Any], lr: float) -> LossValue:
        """The same loss without its gradient, for a quarter of the work."""
        rate, section = checked_amount(lr, "lr"), _section(loss)
        structures, labels = self._checked(batch, section)
        value, parts = self._trainer.value(*structures, section, rate, labels)
        return {"value": value, "parts": parts}

    def _checked(self, batch: Mapping[str, Any], section: str) -> tuple[_Structures, dict[str, Float]]:
        """A batch as the core takes it: structures and the labels of the loss."""
        structures = check_batch(self._data_config, batch)
        from .._native import loss_labels

        wanted = [Label(*entry) for entry in loss_labels(self._config, self._statistics, section)]
        labels = check_labels(batch, wanted, *structures.types.shape)
        parts = structures.coords, structures.types, structures.boxes, structures.fparam, structures.aparam
        return parts, labels

    def _named(self, found: Mapping[str, Float]) -> dict[str, Float]:
        return {name: found[name.removeprefix(PREFIX)] for name in self._values}

    def shared_gradient(
        self, batch: Mapping[str, Any] | None, loss: Mapping[str, Any], lr: float, processes: Alone
    ) -> LossGradient:
        """A loss and its gradient of a batch whose frames are shared between processes; all have to call together.

        Args:
            batch: the frames of this process; None: it has none. All of them, one process after the other, have the
                loss that one process would find.
            loss, lr: as for :meth:`gradient`, the same in all processes.
            processes: that have the frames.

        Returns:
            The same value and parts everywhere. The gradient, summed in the order of the processes, on the first one;
            on the others it is empty.
        """
        part = self._begun(batch, loss, lr, processes)
        here = None if batch is None else part.gradient()
        value, parts = part.result(_added(processes.gather(part.sums())))
        sizes = [value.size for value in self._values.values()]
        flat = np.zeros(sum(sizes))
        if here is not None:
            np.concatenate([value.ravel() for value in self._named(here).values()], out=flat)
        summed = processes.sum(flat)
        if not processes.is_first:
            return {"value": value, "parts": parts, "gradient": {}}
        cut = np.split(summed, np.cumsum(sizes)[:-1])
        shaped = zip(self._values.items(), cut, strict=True)
        return {"value": value, "parts": parts, "gradient": {k: part.reshape(v.shape) for (k, v), part in shaped}}

    def shared_value(
        self, batch: Mapping[str, Any] | None, loss: Mapping[str, Any], lr: float, processes: Alone
    ) -> LossValue:
        """The same loss without its gradient, the same everywhere."""
        part = self._begun(batch, loss, lr, processes)
        if batch is not None:
            part.add()
        value, parts = part.result(_added(processes.gather(part.sums())))
        return {"value": value, "parts": parts}

    def _begun(self, batch: Mapping[str, Any] | None, loss: Mapping[str, Any], lr: float, processes: Alone) -> Any:
        """The frames of this process, of a loss that knows what joins them with those of others."""
        rate, section = checked_amount(lr, "lr"), _section(loss)
        from .._native import TrainerPart

        part = TrainerPart(self._trainer, section, rate)
        counted: list[int] = []
        labels: dict[str, Float] | None = None
        if batch is not None:
            structures, labels = self._checked(batch, section)
            part.set(*structures, labels)
            counted = part.counted()
        of_all = processes.gather((counted, None if labels is None else list(labels)))
        found = [set(names) for _, names in of_all if names is not None]
        first = sum(len(counts) for counts, _ in of_all[: processes.rank])
        part.begin([n for counts, _ in of_all for n in counts], first, sorted(set.intersection(*found)))
        if mine := part.survey():
            part.surveyed(_added(processes.gather(mine)))
        return part


def _added(rows: list[list[float]]) -> list[float]:
    """Sums of numbers, in the order of the processes."""
    return [sum(column) for column in zip(*rows, strict=True)]


def parameters(data: ModelData) -> list[str]:
    """The canonical names of the weights that are trained, in the order of the evaluation."""
    return [
        name
        for name, weight in schema.expected_weights(data.config).items()
        if weight.role == "parameter" and not name.startswith(data.frozen) and np.prod(weight.shape) > 0
    ]


def _model(checkpoint: Any, head: str | None) -> tuple[ModelData, str, int | None]:
    """The model, and the precision and threads that it is evaluated with by default."""
    threads = None
    if isinstance(checkpoint, Model):
        if head is not None:
            raise InputError("head says which model of a file: leave it out where a model is given")
        data, precision, threads = checkpoint._data, checkpoint.precision, checkpoint.threads
    elif isinstance(checkpoint, ModelData):
        data, precision = checkpoint, str(checkpoint.config["precision"])
    else:
        data = read(checkpoint, head)
        precision = str(data.config["precision"])
    if data.config.get("type") == "linear_ener":
        raise UnsupportedModelError("there are no gradients of linear combinations: take those of the parts")
    if data.config.get("type") == "spin":
        raise UnsupportedModelError("spin models are not trained here, and have no gradients to their weights")
    if schema.is_hybrid(schema.base(data.config)):
        raise UnsupportedModelError("there are no gradients of models of hybrid descriptors (descriptor.type 'hybrid')")
    if "compression" in schema.base(data.config):
        raise UnsupportedModelError(
            "the model is compressed, and tables have no parameters: take the checkpoint that it was made of, or "
            "dpa2.load(path, compress=False)"
        )
    return data, precision, threads


def _section(loss: Any) -> str:
    """The loss section as JSON."""
    if not isinstance(loss, Mapping):
        raise InputError(f"loss must be a dict, the loss section of an input, got {type(loss).__name__}")

    def plain(value: Any) -> Any:
        if isinstance(value, (np.generic, np.ndarray)):
            return value.tolist()
        raise TypeError(f"it holds {type(value).__name__}")

    try:
        return json.dumps(dict(loss), allow_nan=False, default=plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"loss must hold what JSON can: {error}") from None
