"""Writing deepmd/npy systems: frames in, one folder per composition (standard) or number of atoms (mixed type) out."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..inputs import Float, Int, Pbc
from .npy_writer import NpyAppender

# Frames of a system that are held before they are written.
BUFFERED = 64


def formula(types: Int, type_map: Sequence[str]) -> str:
    """The composition in the order of the type map, such as ``O64H128``."""
    counts = Counter(types.tolist())
    return "".join(f"{type_map[t]}{counts[t]}" for t in sorted(counts)) or "empty"


@dataclass
class _System:
    folder: str
    rows: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    files: dict[str, NpyAppender] = field(default_factory=dict)
    held: int = 0
    written: int = 0


class DeepmdWriter:
    """Writes frames as deepmd/npy systems below a folder.

    Standard systems have one order of types each; folders are named after the composition, ``O64H128``, and where
    there are several orders or sets of labels or both open and periodic frames, ``O64H128.1`` and so on. Systems of
    mixed type gather all frames of as many atoms, in folders named after that number. Virtual atoms are left out.

    Args:
        folder: an existing folder.
        type_map: the names of the types; they become ``type_map.raw``.
        mixed: write systems of mixed type.
    """

    def __init__(self, folder: str, type_map: Sequence[str], mixed: bool = False) -> None:
        self.folder = folder
        self.type_map = tuple(type_map)
        self.mixed = mixed
        self._systems: dict[Any, _System] = {}
        self._names: set[str] = set()

    @property
    def systems(self) -> list[str]:
        """The folders of the systems so far, below :attr:`folder`."""
        return [os.path.relpath(system.folder, self.folder) for system in self._systems.values()]

    def add(
        self,
        coords: Float,
        types: Int,
        box: Float | None,
        pbc: Pbc,
        frame_labels: dict[str, ArrayLike] | None = None,
        atom_labels: dict[str, ArrayLike] | None = None,
    ) -> None:
        """Add a frame.

        Args:
            coords: (natoms, 3), angstrom. types: (natoms,), indices into the type map; negative ones are left out.
            box: (3, 3) or None. pbc: all True or all False.
            frame_labels: numbers of the frame, such as ``energy``, ``virial`` (3, 3), ``dipole``, ``fparam``.
            atom_labels: arrays with one row per atom, such as ``force`` (natoms, 3), ``atom_dipole``, ``aparam``.

        Raises:
            InputError: a frame that is periodic in some directions only, which the format does not know.
        """
        if any(pbc) and not all(pbc):
            raise InputError("a deepmd/npy system is periodic in all directions or in none, but pbc is " + _flags(pbc))
        periodic = all(pbc) and box is not None
        real = types >= 0
        types = types[real]
        rows = {"coord": coords[real]}
        if periodic:
            assert box is not None
            rows["box"] = box
        rows |= {key: np.asarray(value, dtype=np.float64)[real] for key, value in (atom_labels or {}).items()}
        rows |= {key: np.asarray(value, dtype=np.float64) for key, value in (frame_labels or {}).items()}
        flat = {key: np.asarray(value, dtype=np.float64).ravel() for key, value in rows.items()}
        if self.mixed:
            flat["real_atom_types"] = types.astype(np.int32)
        widths = tuple((name, row.size) for name, row in flat.items())
        key = (len(types) if self.mixed else types.tobytes(), widths)
        system = self._systems.get(key)
        if system is None:
            system = self._systems[key] = self._make(types, periodic)
        for name, row in flat.items():
            system.rows.setdefault(name, []).append(row)
        system.held += 1
        if system.held == BUFFERED:
            self._write(system)

    def flush(self) -> None:
        """Write all that is held. Call it at the end, after an interrupted :meth:`add` too."""
        for system in self._systems.values():
            self._write(system)
        whole = {system.folder for system in self._systems.values() if system.written}
        for folder in {os.path.join(self.folder, name) for name in self._names} - whole:
            shutil.rmtree(folder, ignore_errors=True)  # of a first frame that was interrupted

    def _make(self, types: Int, periodic: bool) -> _System:
        base = str(len(types)) if self.mixed else formula(types, self.type_map)
        base = "".join(c if c.isalnum() or c in "-_+" else "_" for c in base)[:200]
        name, k = base, 0
        while name in self._names:
            k += 1
            name = f"{base}.{k}"
        self._names.add(name)
        folder = os.path.join(self.folder, name)
        os.makedirs(os.path.join(folder, "set.000"))
        written = np.zeros_like(types) if self.mixed else types
        with open(os.path.join(folder, "type.raw"), "w", encoding="utf-8") as handle:
            handle.writelines(f"{t}\n" for t in written.tolist())
        with open(os.path.join(folder, "type_map.raw"), "w", encoding="utf-8") as handle:
            handle.writelines(f"{name}\n" for name in self.type_map)
        if not periodic:
            open(os.path.join(folder, "nopbc"), "w").close()
        return _System(folder)

    def _write(self, system: _System) -> None:
        """Write the frames that are held. What was interrupted may be done again: every file gets every row once."""
        for key, rows in system.rows.items():
            if key not in system.files:
                path = os.path.join(system.folder, "set.000", f"{key}.npy")
                # a label of one number per frame has no second axis
                row = () if key == "energy" and rows[0].size == 1 else rows[0].shape
                system.files[key] = NpyAppender(path, rows[0].dtype, row)
            file = system.files[key]
            if system.held and file.count == system.written:
                file.append(np.stack(rows[: system.held]).reshape(system.held, *file.row))
        system.rows, system.held, system.written = {}, 0, system.written + system.held


def _flags(pbc: Pbc) -> str:
    return " ".join("T" if flag else "F" for flag in pbc)
