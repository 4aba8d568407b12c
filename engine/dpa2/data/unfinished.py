"""Work that survives being killed: rows of arrays that pile up in a folder, with a journal of what is complete."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import InputError
from ..outputs import errors_named, remove_folder, same_file, sync, try_lock

_JOURNAL = "journal"
_JOB = "job.json"
_DELIVERED = "delivered"


class Unfinished:
    """The folder ``OUT.part`` of an output that is not complete: one file per array, a journal, and the job.

    Rows are added to arrays frame by frame and become permanent with :meth:`commit`, also if the process is killed or
    the machine stops. Opening the folder again finds exactly the frames of the last commit. One process at a time has
    it open. Whatever moment the folder was left at, it can be opened again.

    Attributes:
        frames: how many frames the last commit made permanent.
        added: how many there are with those that were added since.
        names: of the arrays.

    Args:
        output: the path of the output.
        job: everything that the rows depend on, as JSON. Folders of other jobs are refused, unless what they hold
            is in its outputs (:meth:`deliver`).
        arrays: the element type and the shape of a row of every array.
        restart: throw away what there is.

    Raises:
        InputError: a folder of another job, which the message names; one that another process has open, or that is
            damaged or not of this kind. OSError: with ``output`` as its file name.
    """

    def __init__(
        self,
        output: str,
        job: Mapping[str, Any],
        arrays: Mapping[str, tuple[DTypeLike, tuple[int, ...]]],
        restart: bool = False,
    ) -> None:
        self.output = output
        self.folder = folder_of(output)
        self.frames = self.added = 0
        self.names = tuple(arrays)
        self._kinds = {name: (np.dtype(dtype).newbyteorder("<"), row) for name, (dtype, row) in arrays.items()}
        self._rows = dict.fromkeys(arrays, 0)
        self._files: dict[str, IO[bytes]] = {}
        with self._errors():
            self._journal: IO[bytes] = self._open_journal()
            try:
                self._claim(json.loads(json.dumps(job)), restart)
                self._files = {name: open(self._path(name), "ab") for name in arrays}  # noqa: SIM115
                self._take_up()
            except BaseException:
                self.close()
                raise

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _errors(self) -> Any:
        return errors_named(self.output, self.folder)

    def _open_journal(self) -> IO[bytes]:
        """Open the journal and lock it: who has the lock, has the folder."""
        while True:
            if os.path.lexists(self.folder) and not os.path.isdir(self.folder):
                raise InputError(f"{self.folder} is in the way, where unfinished work is kept: move it, or change OUT")
            os.makedirs(self.folder, exist_ok=True)
            path = self._path(_JOURNAL)
            if not os.path.exists(path) and os.listdir(self.folder):
                raise InputError(f"{self.folder} holds other files than unfinished work: move it, or change OUT")
            try:
                journal = open(path, "ab+")  # noqa: SIM115
            except FileNotFoundError:
                continue  # another process has just removed the folder
            if try_lock(journal.fileno()) is False:
                journal.close()
                raise InputError(f"{self.folder}: another process is at work on this output")
            if same_file(path, journal.fileno()):
                return journal
            journal.close()

    def _claim(self, job: dict[str, Any], restart: bool) -> None:
        path = self._path(_JOB)
        if not restart and os.path.exists(path):
            found = _read_object(path)
            differing = sorted(key for key in {**job, **found} if found.get(key) != job.get(key))
            if not differing:
                return
            if not self._all_delivered():
                raise InputError(
                    f"{self.folder} holds unfinished work of another run (other {', '.join(differing)}): give "
                    "--restart to throw it away, or another output"
                )
        self._clear()
        for name in self._kinds:
            open(self._path(name), "wb").close()
        with open(f"{path}.new", "w", encoding="utf-8") as handle:
            json.dump(job, handle, indent=1)
        sync(f"{path}.new")
        os.replace(f"{path}.new", path)
        sync(self.folder)

    def _clear(self) -> None:
        """Remove what is there. Without its job the folder holds nothing, so that this goes first and comes last.

        That outputs were delivered stays true: they may be replaced until the folder is gone.
        """
        names = sorted(os.listdir(self.folder), key=lambda name: name != _JOB)
        for name in names:
            if name not in (_JOURNAL, _DELIVERED):
                os.unlink(self._path(name))
        self._journal.truncate(0)

    def _lines(self) -> list[bytes]:
        """The complete lines of the journal."""
        self._journal.seek(0)
        return self._journal.read().split(b"\n")[:-1]

    def _all_delivered(self) -> bool:
        try:
            with open(self._path(_DELIVERED), encoding="utf-8") as handle:
                frames = int(handle.read())
        except (FileNotFoundError, ValueError):
            return False
        counts = _counts(lines[-1]) if (lines := self._lines()) else None
        return counts is not None and counts["frames"] == frames

    def _take_up(self) -> None:
        """Go back to the last commit."""
        complete = self._lines()
        if complete:
            counts = _counts(complete[-1])
            if counts is None or set(counts) != {"frames", *self._rows}:
                raise InputError(f"{self._path(_JOURNAL)} is damaged: give --restart to begin anew")
            self.frames = self.added = counts.pop("frames")
            self._rows = counts
        self._journal.truncate(sum(len(line) + 1 for line in complete))
        for name, handle in self._files.items():
            size = self._rows[name] * self._row_bytes(name)
            if os.path.getsize(self._path(name)) < size:
                raise InputError(f"{self._path(name)}: this file has lost rows: give --restart to begin anew")
            handle.truncate(size)
            handle.seek(0, os.SEEK_END)

    def _row_bytes(self, name: str) -> int:
        dtype, row = self._kinds[name]
        return int(dtype.itemsize * np.prod(row, dtype=int))

    def add(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Add a frame: its rows (k, \\*row) of every array."""
        for name, (_, row) in self._kinds.items():
            if rows[name].shape[1:] != row:
                raise ValueError(f"{name}: rows of shape {row} expected, got {rows[name].shape[1:]}")
        with self._errors():
            for name, (dtype, _) in self._kinds.items():
                self._files[name].write(np.ascontiguousarray(rows[name], dtype=dtype).data)
        # Last, and in one step: an interrupted frame is not there.
        self._rows, self.added = {name: k + len(rows[name]) for name, k in self._rows.items()}, self.added + 1

    def commit(self) -> None:
        """Make permanent what was added."""
        if self.added == self.frames:
            return
        with self._errors():
            for handle in self._files.values():
                handle.flush()
                os.fsync(handle.fileno())
            self._journal.write(json.dumps({"frames": self.added, **self._rows}).encode() + b"\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())
        self.frames = self.added

    def array(self, name: str) -> NDArray[Any]:
        """All rows of an array, (n, \\*row), mapped into memory."""
        dtype, row = self._kinds[name]
        shape = (self._rows[name], *row)
        with self._errors():
            self._files[name].flush()
            if 0 in shape:
                return np.empty(shape, dtype)
            return np.memmap(self._path(name), dtype=dtype, mode="r", shape=shape)

    def deliver(self, frames: int | None = None) -> None:
        """Say that the outputs are about to get what is here, and with ``frames``, that so many are there.

        Outputs that were written by an interrupted run may be replaced; and where they hold all that is here, another
        job may begin anew in this place.
        """
        with self._errors(), open(self._path(_DELIVERED), "w", encoding="utf-8") as handle:
            handle.write("" if frames is None else str(frames))

    def close(self) -> None:
        """Close the files; the folder stays."""
        for handle in (*self._files.values(), self._journal):
            with suppress(OSError):  # of rows that are not committed
                handle.close()

    def remove(self) -> None:
        """Remove the folder and close the files."""
        if self._journal.closed:
            return
        self.frames = self.added = 0
        with suppress(OSError):
            self._clear()
            remove_folder(self.folder, self.output)
        self.close()

    def _settle(self) -> None:
        """Believe the journal: a signal may have come between a line of it and what is known here."""
        with suppress(OSError, ValueError):  # a full disk; a folder that has been removed
            if (lines := self._lines()) and (counts := _counts(lines[-1])) is not None:
                self.frames = counts["frames"]

    @contextmanager
    def until_complete(self, say: Callable[[str], None]) -> Iterator[None]:
        """Removes the folder when the block has written the output; after an exception it stays, which ``say`` says."""
        try:
            yield
        except BaseException:
            self._settle()
            if self.frames == 0:
                self.remove()
            else:
                self.close()
                say(f"{self.frames} frames are kept in {self.folder}; the same command goes on from there")
            raise
        self.remove()


def folder_of(output: str) -> str:
    """Where the unfinished work of an output is kept."""
    return f"{output.rstrip(os.sep)}.part"


def was_delivered(output: str) -> bool:
    """Whether an interrupted run has written what it had finished to its outputs, or was about to."""
    return os.path.exists(os.path.join(folder_of(output), _DELIVERED))


def _read_object(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as handle:
            found = json.load(handle)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: give --restart to begin anew, or another output")
    return found


def _counts(line: bytes) -> dict[str, int] | None:
    """A line of the journal; None if it is none."""
    try:
        counts = json.loads(line)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(counts, dict) and "frames" in counts and all(type(k) is int and k >= 0 for k in counts.values())
    return counts if sound else None


def fingerprint(path: str) -> str:
    """A name for the present contents of a file, a folder, or ``file.hdf5#/group``: sizes and times of change."""
    import hashlib

    file = path if os.path.exists(path) else path.partition("#")[0]
    names = [file]
    if os.path.isdir(file):
        names = sorted(os.path.join(where, name) for where, _, files in os.walk(file) for name in files)
    digest = hashlib.sha256(path.encode())
    for name in names:
        facts = os.stat(name)
        digest.update(f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()
