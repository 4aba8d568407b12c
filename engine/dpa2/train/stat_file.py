"""Files of statistics (``stat_file``) in deepmd-kit's layout: computed once, read by later runs.

An HDF5 file, or a folder of arrays as ``numpy.save`` writes them. Below a group that is named by the types there are
the sums of every part of the descriptor, in a group that its cutoff and its number of neighbours name, and the bias of
the output. Nothing in the file says which data it is of: who changes the data has to remove it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import optional
from ..data.deepmd_hdf5 import HDF5_SUFFIXES, check_dataset, find, open_hdf5
from ..data.deepmd_stores import NpyRows
from ..errors import InputError
from ..outputs import replacing
from .statistics import Statistics, blocks

Arrays = dict[str, NDArray[Any]]


class StatisticsFile:
    """The file of a task.

    Args:
        path: ``stat_file``: with the suffix .h5 or .hdf5, or of a file that is there, an HDF5 file; else a folder.
        model: the section of the model.
        mode: ``stat_file_mode``: "update" writes what is not there, "read" refuses to compute it.
    """

    def __init__(self, path: str, model: Mapping[str, Any], mode: str = "update") -> None:
        self.path, self._model, self._mode = os.path.expanduser(path), model, mode
        self._hdf5 = os.path.isfile(self.path) or (
            not os.path.isdir(self.path) and self.path.lower().endswith(HDF5_SUFFIXES)
        )
        if self._hdf5:
            optional.hdf5()  # before the statistics are computed
        self._top = " ".join(model["type_map"])

    def load(self) -> Statistics | None:
        """The statistics of the file; None if it is not there or lacks some, and may be written.

        Raises:
            InputError: the file is damaged, or of other shapes; it lacks something, and the mode is "read".
        """
        wanted = self._shapes()
        found = (self._read_hdf5 if self._hdf5 else self._read_folder)(list(wanted))
        missing = [name for name in wanted if name not in found]
        if missing:
            if self._mode == "read":
                raise InputError(
                    f"{self.path}: the statistics have no {self._top}/{missing[0]}; with stat_file_mode update they "
                    "are computed and written"
                )
            return None
        for name, shape in wanted.items():
            array = found[name]
            good = (
                array.dtype.kind == "S" if shape is None else array.dtype.kind in "fiu" and array.size == np.prod(shape)
            )
            if not good or (shape is not None and not np.isfinite(array).all()):
                raise InputError(f"{self.path}: {self._top}/{name} must be finite numbers of shape {shape}")
            if shape is not None:
                found[name] = array.astype(np.float64).reshape(shape)
        return self._statistics(found)

    def save(self, statistics: Statistics) -> None:
        """Write the statistics, whole or not at all; what else the file has stays.

        Raises:
            OSError: it cannot be written.
        """
        arrays = self._arrays(statistics)
        if not self._hdf5:
            folder = Path(self.path) / self._top
            for name, array in arrays.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with replacing(os.fspath(target)) as part, open(part, "wb") as file:
                    np.save(file, array, allow_pickle=False)
            return
        h5py = optional.hdf5()
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as part:
            if os.path.exists(self.path):
                shutil.copyfile(self.path, part)
            # the part is locked already
            with h5py.File(part, "a" if os.path.exists(self.path) else "w", locking=False) as file:
                for name, array in arrays.items():
                    full = f"{self._top}/{name}"
                    if full in file:
                        del file[full]
                    file[full] = array

    def _shapes(self) -> dict[str, tuple[int, ...] | None]:
        """The arrays of a whole file and their shapes; None: texts."""
        ntypes = len(self._model["type_map"])
        out: dict[str, tuple[int, ...] | None] = {}
        for name in self._groups():
            out |= {f"{name}/{kind}_{a}": (3,) for a in range(ntypes) for kind in "ra"}
        blank = Statistics(self._model)
        out |= {part.name: (part.width, 3) for part in (blank.fparam, blank.aparam) if part.width}
        out |= {f"{what}_atom_{blank.output.name}": (ntypes, blank.output.width) for what in ("bias", "std")}
        return out | {"observed_type": None}

    def _groups(self) -> list[str]:
        """The name of the group of each part of the descriptor."""
        return [
            _hash(
                {
                    "type": "se_a",
                    "ntypes": len(self._model["type_map"]),
                    "rcut": round(block.rcut, 2),
                    "rcut_smth": round(block.rcut_smth, 2),
                    "nsel": block.nsel,
                    "sel": [block.nsel],
                    "mixed_types": True,
                }
            )
            for block in blocks(self._model["descriptor"])
        ]

    def _arrays(self, statistics: Statistics) -> Arrays:
        arrays: Arrays = {}
        for name, sums in zip(self._groups(), statistics.environment.sums, strict=True):
            for a, row in enumerate(sums):
                arrays |= {f"{name}/{kind}_{a}": entry.copy() for kind, entry in zip("ra", row, strict=True)}
        for part in (statistics.fparam, statistics.aparam):
            if part.width:
                arrays[part.name] = part.sums.T.copy()
        solved = statistics.output.solve()
        if solved is not None:
            for what, value in zip(("bias", "std"), solved, strict=True):
                arrays[f"{what}_atom_{statistics.output.name}"] = value
        names = [name.encode() for name in statistics.observed_type]
        return arrays | {"observed_type": np.array(names, dtype="S")}

    def _statistics(self, arrays: Arrays) -> Statistics:
        out = Statistics(self._model)
        for name, sums in zip(self._groups(), out.environment.sums, strict=True):
            for a, row in enumerate(sums):
                for kind, entry in zip("ra", row, strict=True):
                    entry[:] = arrays[f"{name}/{kind}_{a}"]
        for part in (out.fparam, out.aparam):
            if part.width:
                part.sums[:] = arrays[part.name].T
        out.output.give(*(arrays[f"{what}_atom_{out.output.name}"] for what in ("bias", "std")))
        seen = {name.decode("utf-8", "replace") for name in arrays["observed_type"].ravel().tolist()}
        out.seen[:] = [name in seen for name in self._model["type_map"]]
        return out

    def _read_hdf5(self, names: list[str]) -> Arrays:
        found: Arrays = {}
        if not os.path.lexists(self.path):
            return found
        h5py = optional.hdf5()
        with open_hdf5(self.path) as file:
            size = os.path.getsize(self.path)
            for name in names:
                dataset = find(file, f"{self._top}/{name}")
                if isinstance(dataset, h5py.Dataset):
                    check_dataset(dataset, f"{self.path}#{self._top}/{name}", size)
                    found[name] = np.asarray(dataset[()])
        return found

    def _read_folder(self, names: list[str]) -> Arrays:
        paths = {name: os.path.join(self.path, self._top, name) for name in names}
        return {name: NpyRows(path)[...] for name, path in paths.items() if os.path.lexists(path)}


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha1(json.dumps(entry).encode(), usedforsecurity=False).hexdigest()
