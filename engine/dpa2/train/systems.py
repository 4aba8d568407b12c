"""The systems that a model is trained on: where they lie, what labels they have, and their frames as batches.

Files are read by :mod:`dpa2.data.deepmd_system`, row by row as batches ask for them, so that data sets may be larger
than the memory. The atoms of a standard system are put in the order of the model's types, as deepmd-kit feeds them:
labels of atoms go along. Those of mixed type stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..data import Frame
from ..data.deepmd_hdf5 import HDF5_SUFFIXES
from ..data.deepmd_system import DeepmdSystem, Table, find_systems
from ..data.lmdb_frames import is_lmdb
from ..errors import InputError
from ..inputs import Float, Int
from ..neighbors import neighbors_of
from .batch import Label

#: arrays by deepmd-kit's names of them: ``coord`` (nframes, natoms, 3), ``atype`` (nframes, natoms), ``box``
#: (nframes, 3, 3) or None, labels with their axes, ``find_<label>`` 1.0 or 0.0, and ``where``, for messages
Batch: TypeAlias = dict[str, Any]

#: sets of which a system remembers what its files look like
_MOST_SETS = 64


def find(systems: Any, patterns: Sequence[str] | None = None, name: str = "systems") -> list[str]:
    """The paths of all systems that a data section names.

    Args:
        systems: a path or a list of them: folders, HDF5 files or ``file.hdf5#/group``. Every system at or below each
            of them is taken, in alphabetical order.
        patterns: ``rglob_patterns``: those folders below each path that match one of these, in place of that.
        name: the key of the section, for messages.

    Raises:
        InputError: no such path, or no system in it.
    """
    paths = [systems] if isinstance(systems, str) else systems
    if not isinstance(paths, (list, tuple)) or not paths or not all(isinstance(path, str) and path for path in paths):
        raise InputError(f"{name} must be the path of a folder, or a list of paths, got {systems!r}")
    found: list[str] = []
    for k, path in enumerate(paths):
        key = name if isinstance(systems, str) else f"{name}[{k}]"
        file = path.partition("#")[0]
        if not os.path.lexists(path) and not os.path.lexists(file):
            raise InputError(f"{key}: there is no folder {path}")
        if not os.path.isdir(path) and not is_lmdb(path) and not file.lower().endswith(HDF5_SUFFIXES):
            raise InputError(f"{key}: {path} is neither the folder of a system nor an HDF5 file")
        if is_lmdb(path):
            raise InputError(f"{key}: {path} is an LMDB data set, which must be the only one: {name} must be its path")
        here = find_systems(path) if patterns is None else _matching(path, patterns)
        if not here:
            what = "no folder with a file type.raw" if patterns is None else f"nothing that matches {list(patterns)}"
            raise InputError(f"{key}: no system in {path}: {what} in it or below it")
        found += here
    return found


def systems_of_input(path: str, name: str) -> list[str]:
    """The paths of all systems of a training input; relative ones begin in its folder.

    Args:
        path: of the input. name: the section, ``training_data`` or ``validation_data``.

    Raises:
        InputError: it is no such input, or names no systems, or those are not there.
    """
    from .inputs import read_input

    training = read_input(path).get("training")
    data = training.get(name) if isinstance(training, dict) else None
    systems = data.get("systems") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not systems:
        tasks = isinstance(training, dict) and "data_dict" in training
        hint = "; it is for several tasks: give the systems of one with -s or -f" if tasks else ""
        raise InputError(f"{path}: no training.{name}.systems in this input{hint}")
    folder = os.path.dirname(path)
    if isinstance(systems, str):
        systems = os.path.join(folder, systems)
        if is_lmdb(systems):
            return [systems]
    elif isinstance(systems, list):
        systems = [os.path.join(folder, one) if isinstance(one, str) and one else one for one in systems]
    return find(systems, data.get("rglob_patterns"), f"{path}: training.{name}.systems")


def _matching(path: str, patterns: Sequence[str]) -> list[str]:
    """Folders below a path that are systems and match a pattern, each once."""
    found = {str(folder) for pattern in patterns for folder in Path(path).rglob(pattern)}
    return sorted(folder for folder in found if os.path.isfile(os.path.join(folder, "type.raw")))


class _Set:
    """What a system knows of one of its sets: the tables that training reads."""

    def __init__(self, system: System, folder: str) -> None:
        source = system.source
        self.coord = source.coord(folder)
        present, nframes, natoms = source.present(folder), len(self.coord), system.natoms
        self.box = source.table(folder, "box", 9, nframes) if source.periodic else None
        self.types = source.table(folder, "real_atom_types", natoms, nframes) if source.mixed else None
        self.labels: dict[str, Table] = {}
        for label in system.labels:
            if label.name in present:
                width = label.width * (natoms if label.per_atom else 1)
                file = present[label.name]
                if label.may_be_single and source.table(folder, label.name, -1, nframes, file).width == natoms:
                    width = natoms  # one weight for the three components
                self.labels[label.name] = source.table(folder, label.name, width, nframes, file)


class System:
    """One system: frames of so many atoms, numbered through its sets.

    Args:
        path: of a folder or of a group in an HDF5 file.
        type_map: the names of the model's types.
        labels: those that the training reads, ``fparam`` and ``aparam`` among them.

    Attributes:
        nframes, natoms: how many; places without an atom count as atoms.
        mixed: whether every frame has its own types.
        found: of each label, whether the system has it.

    Raises:
        InputError: what the files of the system hold cannot be trained on.
    """

    def __init__(self, path: str, type_map: Sequence[str], labels: Sequence[Label]) -> None:
        self.path = path
        self.type_map = list(type_map)
        self.labels = list(labels)
        self.source = DeepmdSystem(path)
        self.natoms, self.mixed = len(self.source.types), self.source.mixed
        if self.natoms == 0:
            raise InputError(f"{os.path.join(path, 'type.raw')}: a system without atoms cannot be trained on")
        if self.mixed and not self.source.has_names:
            raise InputError(f"{path}: a system of mixed type needs a file type_map.raw with the names of its types")
        self._sets: dict[int, _Set] = {}
        self._opened = ExitStack()
        self._lock = Lock()
        with self.source.store.opened():
            counts = [len(self.source.coord(folder)) for folder in self.source.sets]
            self.nframes = sum(counts)
            if self.nframes == 0:
                raise InputError(f"{path}: no frames in this system: its arrays have no rows")
            self._starts = np.concatenate([[0], np.cumsum(counts)])
            self._found = self._look(counts)
        if not self.mixed:
            self._types = types_in(self.type_map, self.source.types, self.source.names, path)
            self._order = np.argsort(self._types, kind="stable")
        self.found = {label.name: bool(self._found[label.name].all()) for label in self.labels}
        for label in self.labels:
            if label.required and not self.found[label.name]:
                folder = self.source.sets[int(np.argmin(self._found[label.name]))]
                raise InputError(f"{path}: {folder} has no {label.name}.npy, which the model cannot be trained without")

    def _look(self, counts: list[int]) -> dict[str, Any]:
        """Which sets with frames have which labels, as (nsets,); and that the files of every set have their shapes."""
        found = {label.name: np.zeros(len(counts), dtype=bool) for label in self.labels}
        for k, folder in enumerate(self.source.sets):
            tables = _Set(self, folder).labels
            for name, flags in found.items():
                flags[k] = name in tables
        with_frames = np.array(counts) > 0
        return {name: np.where(with_frames, flags, flags[with_frames].any()) for name, flags in found.items()}

    def check_labels_of_batches(self) -> None:
        """Refuse labels that some sets have and others lack: a batch of both would be compared with zeros.

        Raises:
            InputError: naming the label and two such sets.
        """
        for label in self.labels:
            flags = self._found[label.name]
            if flags.any() and not flags.all():
                has, lacks = self.source.sets[int(np.argmax(flags))], self.source.sets[int(np.argmin(flags))]
                raise InputError(
                    f"{self.path}: {has} has {label.name}.npy and {lacks} has not, so that a batch may have frames "
                    "with and without it: make two systems of them, or let batches be of one frame"
                )

    def __enter__(self) -> System:
        """Keep open what frames are read from."""
        self._opened.enter_context(self.source.store.opened())
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._sets.clear()
            self._opened.close()

    def _set_of(self, number: int) -> tuple[_Set, int]:
        """The set of a frame, and the frame's row in it."""
        k = int(np.searchsorted(self._starts, number, side="right")) - 1
        tables = self._sets.get(k)
        if tables is None:
            if len(self._sets) >= _MOST_SETS:
                del self._sets[next(iter(self._sets))]
            tables = self._sets[k] = _Set(self, self.source.sets[k])
        return tables, number - int(self._starts[k])

    def batch(self, numbers: Sequence[int] | NDArray[np.int64], *, as_stored: bool = False) -> Batch:
        """These frames, with the labels that they have.

        ``find_<label>`` is that of the first frame. Missing labels are left out. ``as_stored``: with the atoms in the
        order of the files.

        Raises:
            InputError: numbers that are not finite, or types that the model does not know, in a frame that is named.
        """
        with self._lock, self.source.store.opened():
            frames = [self._frame(int(number), as_stored) for number in numbers]
        first = frames[0]
        batch: Batch = {
            "coord": np.stack([frame["coord"] for frame in frames]),
            "atype": np.stack([frame["atype"] for frame in frames]),
            "box": np.stack([frame["box"] for frame in frames]) if self.source.periodic else None,
            "where": where(self.path, numbers),
        }
        for label in self.labels:
            batch[f"find_{label.name}"] = float(label.name in first)
            if label.name in first:
                batch[label.name] = np.stack([frame[label.name] for frame in frames])
        return batch

    def _frame(self, number: int, as_stored: bool) -> dict[str, Any]:
        tables, row = self._set_of(number)

        def read(table: Table, *shape: int, per_atom: bool = False) -> Float:
            where = f"{table.name}, row {row} (frame {number} of {self.path})"
            return finite(table.row(row, *shape), where, per_atom)

        order: Any = slice(None) if self.mixed or as_stored else self._order
        frame: dict[str, Any] = {"coord": read(tables.coord, self.natoms, 3, per_atom=True)[order]}
        if self.mixed:
            assert tables.types is not None
            types, where = tables.types.types(row), f"{tables.types.name}, row {row}"
            self.source.check_types(types, where)
            frame["atype"] = types_in(self.type_map, types, self.source.names, where)
        else:
            frame["atype"] = self._types[order]
        if tables.box is not None:
            frame["box"] = read(tables.box, 3, 3)
        for label in self.labels:
            table = tables.labels.get(label.name)
            if table is None:
                continue
            if not label.per_atom:
                frame[label.name] = read(table, label.width)
                continue
            frame[label.name] = label.widened(read(table, self.natoms, -1, per_atom=True)[order])
        return frame

    def walk(self, first: int = 0, step: int = 1) -> Iterator[Batch]:
        """All frames, or those from the first one on in such steps, one by one, atoms in the order of the files."""
        with self:
            for number in range(first, self.nframes, step):
                yield self.batch([number], as_stored=True)


def where(path: str, numbers: Sequence[int] | NDArray[np.int64]) -> str:
    """Which frames of a data set, for messages."""
    return f"{path}, frame{'s' if len(numbers) > 1 else ''} {' '.join(str(int(number)) for number in numbers)}"


def types_in(type_map: Sequence[str], types: Int, names: Sequence[str] | None, where: str) -> Int:
    """Types of atoms as those of a model.

    Args:
        type_map: of the model.
        types: (natoms,), -1 for a place without an atom.
        names: of the types; None: they are the model's own.
        where: file and frame, for messages.

    Raises:
        InputError: the model does not know one, which is named.
    """
    frame = Frame(np.zeros((len(types), 3)), types, None if names is None else tuple(names), where=where)
    return np.asarray(frame.types_in(type_map), dtype=np.int32)


def finite(values: Float, where: str, per_atom: bool) -> Float:
    """The numbers of a frame, if all of them are finite.

    Args:
        values: ``per_atom`` in a row for each atom.
        where: file, label and frame, for messages.

    Raises:
        InputError: one is not, and its atom is named.
    """
    good = np.isfinite(values)
    if not good.all():
        wrong = tuple(int(i) for i in np.argwhere(~good)[0])
        atom = f", atom {wrong[0]}" if per_atom else ""
        raise InputError(
            f"{where}{atom}: found {values[wrong]:g} where a finite number must be; correct it or take the frame out"
        )
    return values


def frame_of(batch: Batch, f: int) -> Frame:
    """The structure of a frame of a batch; types are the model's."""
    box = None if batch["box"] is None else batch["box"][f]
    return Frame(batch["coord"][f], batch["atype"][f], None, box, (box is not None,) * 3, where=batch["where"])


def batch_neighbors(batch: Batch, f: int, rcut: float, ntypes: int) -> dict[str, Any]:
    """All neighbours within ``rcut`` in a frame of a batch: see :func:`dpa2.neighbors.neighbors_of`.

    Raises:
        InputError: a cell or coordinates that cannot be, with the batch named.
    """
    frame = frame_of(batch, f)
    try:
        return neighbors_of(frame, frame.types, rcut, ntypes)
    except InputError as error:
        raise InputError(f"{batch['where']}: {error}") from error
