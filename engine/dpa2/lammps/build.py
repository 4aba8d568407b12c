"""Builds the plugin for a LAMMPS other than the one that the package was built with."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from .. import installation
from ..outputs import replacing
from . import PLUGIN
from .discover import Lammps, LammpsNotFound

SOURCES = Path(__file__).resolve().parent / "src"
#: one unit of all sources: most of the time would go into LAMMPS's headers, again for each of them
UNIT = "plugin_of_all.cpp"


def sources() -> list[Path]:
    """The files of the plugin; an editable install has none."""
    return sorted(SOURCES.glob("*.[ch]*"))


def command(lammps: Lammps, include: Path, output: Path) -> list[str]:
    """The compiler's command line; ``include`` is a folder with `UNIT`, and with LAMMPS's headers as ``lammps``."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    flags = ["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{installation.include_directory()}"]
    flags += [f"-isystem{include}", *([f"-isystem{lammps.mpi}"] if lammps.mpi is not None else [])]
    flags += [f'-DDPA2_LAMMPS_BUILD="{lammps.build}"', *(f"-D{define}" for define in lammps.defines)]
    if lammps.old_abi:
        flags.append("-D_GLIBCXX_USE_CXX11_ABI=0")
    # clear unloads plugins, but which files the process has written is to be known until its end
    return [*compiler, *flags, "-Wl,-z,nodelete", str(include / UNIT), "-o", str(output), *installation.link_flags()]


def build(lammps: Lammps, output: Path) -> Path:
    """Compile the plugin.

    Args:
        lammps: what :func:`dpa2.lammps.discover.find` found.
        output: the folder for ``dpa2plugin.so``, made if missing.

    Returns:
        The path of the plugin.

    Raises:
        LammpsNotFound: there are no sources, or the compiler fails; the message holds what it says.
    """
    units = [path for path in sources() if path.suffix == ".cpp"]
    if not units:
        raise LammpsNotFound(f"its sources are not in '{SOURCES}', as in an editable install; do without -e")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, replacing(output / PLUGIN) as made:
        (Path(scratch) / "lammps").symlink_to(lammps.headers)
        lines = [f'#include "{path}"' for path in units]
        (Path(scratch) / UNIT).write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            run = subprocess.run(
                command(lammps, Path(scratch), Path(made)), capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise LammpsNotFound(f"there is no C++ compiler '{error.filename}': install one, or set CXX") from None
        if run.returncode != 0:
            raise LammpsNotFound(f"the plugin does not compile:\n{run.stderr.strip()[:4000]}")
    return output / PLUGIN
