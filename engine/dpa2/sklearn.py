"""Descriptors of structures for scikit-learn: :class:`DescriptorTransformer`.

>>> from dpa2.sklearn import DescriptorTransformer              # doctest: +SKIP
>>> pipeline = make_pipeline(DescriptorTransformer("model.pth"), StandardScaler(), Ridge())  # doctest: +SKIP
>>> pipeline.fit(structures, values)                            # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .data import Frame
from .embedded import model_of
from .errors import InputError
from .inputs import Float, check_input
from .model import Model
from .options import OnOverflow, Precision
from .streams import descriptor_frames, process_pool

__all__ = ["DescriptorTransformer"]

#: over the rows of an array (atoms, dim), at least one
POOLINGS: dict[str, Callable[[Float], Float]] = {
    "mean": lambda rows: rows.mean(axis=0),
    "sum": lambda rows: rows.sum(axis=0),
    "std": lambda rows: rows.std(axis=0),
    "min": lambda rows: rows.min(axis=0),
    "max": lambda rows: rows.max(axis=0),
}


class DescriptorTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc, unused-ignore]
    """From structures to rows of features: the descriptors of a model's atoms, pooled over each structure.

    Structures are ``ase.Atoms``, or tuples ``(coords, types)``, ``(coords, types, box)`` or ``(coords, types, box,
    pbc)`` with what :meth:`dpa2.Model.descriptor` takes of one structure. Rows do not depend on the order of atoms.

    Args:
        model: the path of a model file, a :class:`dpa2.Model`, or None for the embedded model of water.
        pooling: "mean", "sum", "std", "min" or "max" over the atoms; several side by side as "mean+std" or a sequence.
            Mean, minimum and maximum are intensive, the sum is extensive.
        per_type: pool the atoms of each type by themselves, and put the results side by side. Types are those of the
            structures in :meth:`fit`, in the model's order; zeros stand for one that a structure has no atom of.
        head, precision, threads, device, on_overflow: as for :func:`dpa2.load`; not with a :class:`dpa2.Model`. Small
            structures of equal size are evaluated side by side on the threads.
        n_jobs: processes to compute in; None or 1: this one. -1: as many as it may use cores.

    Attributes:
        model_: the model that is evaluated.
        types_: the names of the types whose atoms are pooled by themselves, (); only with ``per_type`` there are any.

    Raises:
        InputError: in :meth:`fit` and :meth:`transform`: wrong parameters, no structures, or one that cannot be
            evaluated; the message names it by its number.
        ModelFileError: see :func:`dpa2.load`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model | None = None,
        *,
        pooling: str | Sequence[str] = "mean",
        per_type: bool = False,
        head: str | None = None,
        precision: Precision | None = None,
        threads: int | None = None,
        device: str | None = None,
        on_overflow: OnOverflow | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.model = model
        self.pooling = pooling
        self.per_type = per_type
        self.head = head
        self.precision = precision
        self.threads = threads
        self.device = device
        self.on_overflow = on_overflow
        self.n_jobs = n_jobs

    def fit(self, X: Sequence[Any], y: Any = None) -> DescriptorTransformer:
        """Read the model, and see which types there are. Nothing is computed, and nothing learnt.

        Args:
            X: the structures, see the class. y: not used.
        """
        self._poolings()
        self._workers()
        names = ("head", "precision", "threads", "device", "on_overflow")
        self.model_ = model_of(self.model, {name: getattr(self, name) for name in names})
        if self.model_.kind == "spin":
            raise InputError("descriptors of a spin model depend on spins, which structures here do not have")
        frames = self._frames(X)
        present: Any = np.unique(np.concatenate([frame.types for frame in frames])) if self.per_type else []
        self.types_ = tuple(self.model_.type_map[t] for t in present if t >= 0)
        return self

    def transform(self, X: Sequence[Any]) -> Float:
        """(structures, features): the pooled descriptors, float64, dimensionless.

        Args:
            X: the structures, see the class.
        """
        check_is_fitted(self)
        poolings = [POOLINGS[name] for name in self._poolings()]
        frames, workers, dim = self._frames(X), self._workers(), self.model_.descriptor_dim
        kinds = [self.model_.type_map.index(name) for name in self.types_]
        if self.per_type:
            for frame in frames:
                if (new := np.setdiff1d(frame.types[frame.types >= 0], kinds)).size:
                    raise InputError(
                        f"{frame.where} has atoms of {self.model_.type_map[new[0]]!r}, which no structure had in fit; "
                        f"there were {', '.join(self.types_)}"
                    )
        rows = np.zeros((len(frames), max(1, len(kinds)), len(poolings), dim))
        with nullcontext() if workers == 1 else process_pool(workers) as pool:
            for row, (frame, found) in zip(rows, descriptor_frames(self.model_, frames, executor=pool), strict=True):
                for part, atoms in zip(row, _parts(frame, kinds), strict=True):
                    if atoms.any():
                        part[:] = [pool_of(found[atoms]) for pool_of in poolings]
        return rows.reshape(len(frames), -1)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """(features,) their names: ``mean_0``, ``mean_1``, ..., and with ``per_type`` ``O_mean_0``, ...

        Args:
            input_features: not used; structures have no features with names.
        """
        check_is_fitted(self)
        heads = [f"{name}_" for name in self.types_] or [""]
        dims = range(self.model_.descriptor_dim)
        names = [f"{head}{pooling}_{k}" for head in heads for pooling in self._poolings() for k in dims]
        return np.array(names, dtype=object)

    def _poolings(self) -> list[str]:
        names = self.pooling.split("+") if isinstance(self.pooling, str) else self.pooling
        known = isinstance(names, (list, tuple)) and all(isinstance(n, str) and n in POOLINGS for n in names)
        if not known or not names or len(set(names)) < len(names):
            raise InputError(
                f"pooling must be one of {', '.join(POOLINGS)}, or several of them as 'mean+std' or a list, "
                f"got {self.pooling!r}"
            )
        if not isinstance(self.per_type, (bool, np.bool_)):
            raise InputError(f"per_type must be True or False, got {self.per_type!r}")
        return list(names)

    def _workers(self) -> int:
        jobs = 1 if self.n_jobs is None else self.n_jobs
        if not isinstance(jobs, (int, np.integer)) or isinstance(jobs, bool) or not (jobs >= 1 or jobs == -1):
            raise InputError(f"n_jobs must be None, a positive integer, or -1 for all cores, got {jobs!r}")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cores if jobs == -1 else int(jobs)

    def _frames(self, structures: Sequence[Any]) -> list[Frame]:
        if isinstance(structures, (str, bytes)) or hasattr(structures, "get_positions"):
            raise InputError("structures must be a list of them; put a single one into a list")
        if isinstance(structures, tuple) and structures and np.ndim(structures[0]) == 2:
            raise InputError("structures must be a list of them, got what looks like one: put (coords, types) into one")
        try:
            frames = [_frame(each, f"structure {k}", self.model_) for k, each in enumerate(structures)]
        except TypeError as error:
            raise InputError(f"structures must be a list of them: {error}") from error
        if not frames:
            raise InputError("there are no structures")
        return frames

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags


def _frame(structure: Any, where: str, model: Model) -> Frame:
    if hasattr(structure, "get_positions"):
        periodic = structure.pbc.any()
        box, pbc = (structure.cell.array, structure.pbc) if periodic else (None, None)
        structure = (structure.positions, structure.get_chemical_symbols(), box, pbc)
    if not isinstance(structure, (tuple, list)) or not 2 <= len(structure) <= 4:
        raise InputError(
            f"{where} must be ase.Atoms or a tuple (coords, types), (coords, types, box) or (coords, types, box, pbc), "
            f"got {type(structure).__name__}"
        )
    coords, types, box, pbc = (*structure, None, None)[:4]
    try:
        batch = check_input(model.config, coords, types, box, pbc, with_parameters=False)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if batch.has_frame_axis:
        raise InputError(f"{where}: coords must have shape (natoms, 3), got {np.shape(coords)}")
    if not (batch.types >= 0).any():
        raise InputError(f"{where} has no atoms")
    boxes = batch.boxes
    return Frame(batch.coords[0], batch.types[0], None, None if boxes is None else boxes[0], batch.pbc, where=where)


def _parts(frame: Frame, kinds: list[int]) -> Iterator[NDArray[np.bool_]]:
    """Which atoms are pooled together: those of each kind, or without kinds all real ones."""
    if not kinds:
        yield frame.types >= 0
    for kind in kinds:
        yield frame.types == kind
