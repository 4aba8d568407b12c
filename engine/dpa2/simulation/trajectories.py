"""Trajectories that grow while a program runs, and that one can go on with: extended XYZ, and ASE's ``.traj``."""

from __future__ import annotations

import io
import os
from typing import Any, Protocol

from ase import Atoms
from ase.io.trajectory import Trajectory as AseTrajectory

from ..data import write_frame
from ..errors import InputError
from ..outputs import Blocks, errors_named, replacing, sync
from .structures import columns_of


class Trajectory(Protocol):
    """A file of frames; what an interrupt leaves of a frame is cut off."""

    def add(self, atoms: Atoms) -> None:
        """Append a snapshot."""
        ...

    def position(self) -> int:
        """What :func:`open_trajectory` takes to go on from here."""
        ...

    def sync(self) -> None:
        """Have the system write what was added to the disk."""
        ...

    def close(self) -> None: ...


def open_trajectory(path: str, begin: int | None = None) -> Trajectory:
    """A trajectory to write to, of the format that its name says.

    Args:
        path: ends in .traj, or is of extended XYZ.
        begin: the position of an earlier one to go on from; what follows there is cut off. None: a new file.

    Raises:
        InputError: the file is shorter than that, or is no trajectory. OSError: with ``path`` as its file name.
    """
    if begin is not None and not os.path.isfile(path):
        raise InputError(f"{path}: the trajectory to go on with is not there")
    return TrajFile(path, begin) if path.endswith(".traj") else XyzTrajectory(path, begin)


class XyzTrajectory:
    """Extended XYZ with forces, momenta if there are any, energy and stress."""

    def __init__(self, path: str, begin: int | None = None) -> None:
        check_length(path, begin)
        self.path = path
        self._blocks = Blocks(path, begin)

    def add(self, atoms: Atoms) -> None:
        with errors_named(self.path):
            self._blocks.add(text_of(atoms))

    def position(self) -> int:
        return self._blocks.size

    def sync(self) -> None:
        with errors_named(self.path):
            self._blocks.sync()

    def close(self) -> None:
        with errors_named(self.path):
            self._blocks.close()


class TrajFile:
    """ASE's binary format. What an interrupt leaves of a frame is not counted by its header, and so not read."""

    def __init__(self, path: str, begin: int | None = None) -> None:
        self.path = path
        self._frames = begin or 0
        if begin is not None:
            _cut_frames(path, begin)
        with errors_named(path):
            self._file: Any = AseTrajectory(path, "w" if begin is None else "a")

    def add(self, atoms: Atoms) -> None:
        with errors_named(self.path):
            self._file.write(atoms)
        self._frames += 1

    def position(self) -> int:
        return self._frames

    def sync(self) -> None:
        if os.path.isfile(self.path):
            sync(self.path)

    def close(self) -> None:
        self._file.close()


def _cut_frames(path: str, count: int) -> None:
    """Leave so many frames of a ``.traj`` file."""
    try:
        with AseTrajectory(path) as old:
            found = len(old)
            if found > count:
                with replacing(path) as part, AseTrajectory(part, "w") as new:
                    for k in range(count):
                        new.write(old[k])
    except OSError:
        raise
    except Exception as error:  # ASE's reader raises whatever comes
        raise InputError(f"{path}: the trajectory to go on with cannot be read: {error}") from error
    if found < count:
        raise InputError(f"{path}: the trajectory to go on with has {found} frames, and had {count}")


def check_length(path: str, begin: int | None) -> None:
    """Refuse a file that is shorter than what is to stay of it."""
    if begin is not None and (size := os.path.getsize(path)) < begin:
        raise InputError(f"{path}: the file to go on with has {size} bytes, and had {begin}: it was changed since")


def text_of(atoms: Atoms) -> str:
    """A snapshot as a frame of extended XYZ."""
    arrays, info = columns_of(atoms)
    text = io.StringIO()
    box = atoms.cell.array if atoms.pbc.any() else None
    x, y, z = (bool(flag) for flag in atoms.pbc)
    write_frame(text, atoms.positions, atoms.get_chemical_symbols(), box, (x, y, z), arrays, info)
    return text.getvalue()
