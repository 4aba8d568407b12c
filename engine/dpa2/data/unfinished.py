"""Work that survives being killed: rows of arrays that pile up in a folder, with a journal of what is complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import InputError

_JOURNAL = "journal"
_JOB = "job.json"


class Unfinished:
    """The folder ``OUT.part`` of an output that is not complete: one file per array, a journal, and the job.

    Rows are added to arrays and become permanent with :meth:`commit`, also if the process is killed or the machine
    stops. Opening the folder again finds exactly the rows of the last commit. One process at a time has it open.

    Attributes:
        frames: how many frames the last commit made permanent.

    Args:
        output: the path of the output.
        job: everything that the rows depend on, as JSON. Folders of other jobs are refused.
        arrays: the element type and the shape of a row of every array.
        restart: throw away what there is.

    Raises:
        InputError: a folder of another job, which the message names; or one that another process has open.
    """

    def __init__(
        self,
        output: str,
        job: Mapping[str, Any],
        arrays: Mapping[str, tuple[DTypeLike, tuple[int, ...]]],
        restart: bool = False,
    ) -> None:
        self.folder = f"{output}.part"
        self.frames = 0
        self._kinds = {name: (np.dtype(dtype).newbyteorder("<"), row) for name, (dtype, row) in arrays.items()}
        self._rows = dict.fromkeys(arrays, 0)
        os.makedirs(self.folder, exist_ok=True)
        self._journal: IO[bytes] = open(self._path(_JOURNAL), "ab+")  # noqa: SIM115
        self._files: dict[str, IO[bytes]] = {}
        try:
            self._lock()
            self._claim(json.loads(json.dumps(job)), restart)
            self._files = {name: open(self._path(name), "ab") for name in arrays}  # noqa: SIM115
            self._take_up()
        except BaseException:
            self.close()
            raise

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:
            return
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{self.folder}: another process is at work on this output") from None

    def _claim(self, job: dict[str, Any], restart: bool) -> None:
        path = self._path(_JOB)
        if not restart and os.path.exists(path):
            try:
                with open(path, encoding="utf-8") as handle:
                    found = json.load(handle)
            except ValueError:
                found = {}
            differing = [key for key in {**job, **found} if found.get(key) != job.get(key)]
            if differing:
                raise InputError(
                    f"{self.folder} holds unfinished work of another run (other {', '.join(sorted(differing))}): give "
                    "--restart to throw it away, or another output"
                )
            return
        self._journal.truncate(0)
        for name in self._kinds:
            open(self._path(name), "wb").close()
        with open(f"{path}.new", "w", encoding="utf-8") as handle:
            json.dump(job, handle, indent=1)
        os.replace(f"{path}.new", path)

    def _take_up(self) -> None:
        """Go back to the last commit."""
        self._journal.seek(0)
        complete = self._journal.read().split(b"\n")[:-1]
        if complete:
            counts = json.loads(complete[-1])
            self.frames = counts.pop("frames")
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

    def add(self, name: str, rows: NDArray[Any]) -> None:
        """Add rows (k, \\*row) to an array."""
        dtype, row = self._kinds[name]
        if rows.shape[1:] != row:
            raise ValueError(f"{name}: rows of shape {row} expected, got {rows.shape[1:]}")
        self._files[name].write(np.ascontiguousarray(rows, dtype=dtype).data)
        self._rows[name] += len(rows)

    def commit(self, frames: int) -> None:
        """Make permanent what was added; ``frames`` is how many frames there are now in all."""
        for handle in self._files.values():
            handle.flush()
            os.fsync(handle.fileno())
        self.frames = frames
        self._journal.write(json.dumps({"frames": frames, **self._rows}).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def array(self, name: str) -> NDArray[Any]:
        """All rows of an array, (n, \\*row), mapped into memory."""
        self._files[name].flush()
        dtype, row = self._kinds[name]
        shape = (self._rows[name], *row)
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(self._path(name), dtype=dtype, mode="r", shape=shape)

    def close(self) -> None:
        """Close the files; the folder stays."""
        for handle in (*self._files.values(), self._journal):
            handle.close()

    def remove(self) -> None:
        """Close the files and remove the folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


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
