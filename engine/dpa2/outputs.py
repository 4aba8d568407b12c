"""Outputs that are complete or not there: written under another name, synced, and moved to their own in one step.

What stands under the name stays until the new output is in place. Other names are hidden and unique
(``.out.npy.0123456789abcdef.part``); those that a killed process left behind are removed by the next one that writes
the same output. Outputs that are symbolic links stay links: what they point to is replaced. Pipes and devices are
written to directly.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Errors of writing that do not say which file they are about.
_NAMELESS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
# Bytes of the output's name in the other one: both have to stay below the 255 that a file system allows.
_NAME_BYTES = 200


@contextmanager
def errors_named(path: str, *inside: str) -> Iterator[None]:
    """Errors about files whose names start with one of ``inside``, or about none, become errors about ``path``."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, (str, bytes)):
            named = os.fsdecode(error.filename).startswith(tuple(inside))
        else:
            named = error.errno in _NAMELESS
        if not named or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), path) from error


@contextmanager
def replacing(
    path: str | os.PathLike[str], keep: type[BaseException] | tuple[type[BaseException], ...] = ()
) -> Iterator[str]:
    """A name of an empty file to write to, which becomes ``path`` when all went well, and vanishes otherwise.

    With ``keep`` also what had been written when one of these exceptions came moves there, if it is anything.

    Raises:
        OSError: with ``path`` as its file name.
    """
    path = os.fspath(path)
    target = _target(path)
    if target is None:
        yield path
        return
    folder = os.path.dirname(target)
    with errors_named(path, _beginning(target)):
        _remove_left_over(target)
        part, lock = _create(target, folder=False)
        try:
            try:
                yield part
            except keep:
                if os.path.getsize(part):
                    _deliver(part, target)
                raise
            _deliver(part, target)
            os.close(lock)
            lock = -1
            sync(folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
        finally:
            if lock >= 0:
                os.close(lock)


@contextmanager
def replacing_folder(
    path: str | os.PathLike[str], keep: type[BaseException] | tuple[type[BaseException], ...] = ()
) -> Iterator[str]:
    """As :func:`replacing`, with a new folder. A folder that stands under the name is taken away in the end."""
    path = os.fspath(path)
    target = os.path.realpath(path)
    with errors_named(path, _beginning(target)):
        _remove_left_over(target)
        part, lock = _create(target, folder=True)
        aside = part.removesuffix(".part") + "0.part"
        try:
            try:
                yield part
            except keep:
                if os.listdir(part):
                    _deliver_folder(part, target, aside)
                raise
            _deliver_folder(part, target, aside)
        finally:
            for rest in (part, aside):
                shutil.rmtree(rest, ignore_errors=True)
            if lock >= 0:
                os.close(lock)


def finish(action: Callable[[], object], spoil: Callable[[], object]) -> None:
    """``action``, again if a Ctrl-C comes in between; ``spoil`` if it cannot be done: what is empty is not kept."""
    try:
        action()
    except KeyboardInterrupt:
        try:
            action()
        except BaseException:
            spoil()
            raise
        raise


def reserve(path: str, size: int) -> None:
    """Find out now whether a file of so many bytes fits, for writers that do not take it well."""
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "r+b") as handle:
        try:
            os.posix_fallocate(handle.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            handle.truncate(0)


class Blocks:
    """A text file that grows by whole blocks: half a one, after an interrupt, is cut off when the file is closed.

    From pipes and devices nothing can be cut off.

    Args:
        path: of the file.
        begin: go on after so many bytes of a file that is there, and cut off what follows; None: from nothing.
    """

    def __init__(self, path: str, begin: int | None = None) -> None:
        self._handle = open(path, "wb" if begin is None else "r+b")  # noqa: SIM115
        self._regular = stat.S_ISREG(os.fstat(self._handle.fileno()).st_mode)
        self._size = begin or 0
        if begin is not None:
            self._handle.truncate(begin)
            self._handle.seek(begin)

    @property
    def size(self) -> int:
        """The bytes of the whole blocks."""
        return self._size

    def sync(self) -> None:
        """Have the system write what was added to the disk."""
        self._handle.flush()
        if self._regular:
            os.fsync(self._handle.fileno())

    def __enter__(self) -> Blocks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cut off half a block, and close the file."""

        def cut() -> None:
            self._handle.flush()
            if self._regular:
                self._handle.truncate(self._size)

        def spoil() -> None:
            if self._regular:
                os.ftruncate(self._handle.fileno(), 0)

        try:
            finish(cut, spoil)
        finally:
            with suppress(OSError):
                self._handle.close()

    def add(self, text: str) -> None:
        """Append a block."""
        data = text.encode()
        self._handle.write(data)
        if not self._regular:
            self._handle.flush()
        self._size += len(data)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise now what :func:`replacing` would raise in the end.

    Raises:
        OSError: with ``path`` as its file name.
    """
    path = os.fspath(path)
    target = _target(path)
    if target is None:
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return
    with errors_named(path, _beginning(target)):
        part, lock = _create(target, folder=False)
        os.close(lock)
        os.unlink(part)


def remove_folder(path: str, output: str) -> None:
    """Remove a folder that lies beside an output, in one step; what a kill leaves of it is left over of the output."""
    _remove_left_over(os.path.abspath(output))
    aside = f"{_beginning(os.path.abspath(output))}{secrets.token_hex(8)}.part"
    os.replace(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def sync(path: str) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that know no such thing
            raise
    finally:
        os.close(handle)


def try_lock(handle: int, wait: bool = False) -> bool | None:
    """Lock an open file, or folder, until it is closed; whether it worked. None: there are no locks here."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def same_file(path: str, handle: int) -> bool:
    """Whether an open file still is the one that has this name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _target(path: str) -> str | None:
    """The file that ``path`` leads to; None if it is a pipe, a device or a file that is open (``/dev/stdout``)."""
    if os.path.islink(path) and os.readlink(path).startswith("/proc/"):
        return None
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if len(os.fsencode(os.path.basename(path))) > 255:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    return os.path.realpath(path) if stat.S_ISREG(mode) else None


def _beginning(target: str) -> str:
    """How the other names of an output start, but for the characters that make them unique."""
    folder, name = os.path.split(target)
    short = os.fsencode(name)[:_NAME_BYTES].decode(errors="ignore")
    return os.path.join(folder, f".{short}.")


def _create(target: str, folder: bool) -> tuple[str, int]:
    """Another name for an output, with nothing in it yet, open and locked."""
    while True:
        part = f"{_beginning(target)}{secrets.token_hex(8)}.part"
        if folder:
            os.mkdir(part)
        try:
            handle = os.open(part, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:
            if not folder:
                raise
            continue
        try_lock(handle, wait=True)
        # Before it is locked another process may take it for left over.
        if same_file(part, handle):
            return part, handle
        os.close(handle)


def remove_left_over(folder: str | os.PathLike[str], beginning: str) -> None:
    """Remove what killed processes have left of outputs in this folder whose names begin like this."""
    _remove_unlocked(os.fspath(folder), rf"\.{re.escape(beginning)}.*\.[0-9a-f]{{16}}0?\.part")


def _remove_left_over(target: str) -> None:
    """Remove other names of this output that nobody has open."""
    folder, start = os.path.split(_beginning(target))
    _remove_unlocked(folder, re.escape(start) + r"[0-9a-f]{16}0?\.part")


def _remove_unlocked(folder: str, pattern: str) -> None:
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(folder)
    for path in (os.path.join(folder, name) for name in names if re.fullmatch(pattern, name)):
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if try_lock(handle):
                    if stat.S_ISDIR(os.fstat(handle).st_mode):
                        shutil.rmtree(path, ignore_errors=True)
                    else:
                        os.unlink(path)
            finally:
                os.close(handle)


def _deliver(part: str, target: str) -> None:
    sync(part)
    os.replace(part, target)


def _deliver_folder(part: str, target: str, aside: str) -> None:
    for where, _, files in os.walk(part):
        for name in files:
            sync(os.path.join(where, name))
        sync(where)
    if os.path.isdir(target) and os.listdir(target):
        os.replace(target, aside)
    try:
        os.replace(part, target)
    except OSError:
        if os.path.isdir(aside):
            os.replace(aside, target)
        raise
    sync(os.path.dirname(target))
