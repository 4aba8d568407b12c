"""Faces on an emulated GPU: the ASE calculator, the driver for i-PI, the examples in C and C++, Cython's handles."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from c_library import STRICT, output_of, package_flags
from cuda_emulator.driver import environment
from dpa2.files import ModelData, write_safetensors
from gpu_models import emulate
from helpers import case_system, golden, relative
from kind_models import kind
from pages import ROOT

pytestmark = [needs.linux, needs.compiler]

BOUND = 1e-10  # of float64 on the GPU from the CPU
COMPILERS = {".c": ["cc", "-std=c11"], ".cpp": ["c++", "-std=c++17"]}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model file."""
    write_safetensors(tmp_path / "base.safetensors", ModelData(golden("base").config, golden("base").weights))
    return tmp_path / "base.safetensors"


def make_atoms() -> Any:
    """A few atoms of that model's elements in a box."""
    ase = pytest.importorskip("ase", reason=needs.reason("ase"))
    s = case_system("base", "bulk")
    symbols = [golden("base").config["type_map"][t] for t in s.atype]
    return ase.Atoms(symbols, s.coord[0], cell=np.reshape(s.box[0], (3, 3)), pbc=True)


def test_the_calculator_takes_a_device(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = make_atoms()
    from dpa2.ase import DPA2Calculator

    names = ("energy", "forces", "stress", "energies", "stresses")
    atoms.calc = DPA2Calculator(base, threads=1)
    wanted = {name: atoms.calc.get_property(name, atoms) for name in names}
    emulate(monkeypatch)
    atoms.calc = DPA2Calculator(base, device="cuda:1", precision="float64")
    assert atoms.calc.model.device == "cuda:1"
    for name in names:
        found = atoms.calc.get_property(name, atoms)
        assert type(found) is type(wanted[name])
        assert relative(found, wanted[name]) <= BOUND, name
    atoms.positions += 0.01  # a step of dynamics: everything but the places is as before
    assert relative(atoms.get_forces(), wanted["forces"]) <= 1e-8
    assert relative(atoms.get_potential_energy(), wanted["energy"]) <= 1e-8
    with pytest.raises(dpa2.InputError, match="computed on the CPU, and the model is on cuda:1"):
        atoms.calc.get_hessian(atoms)


def test_a_dipole_model_goes_along(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = make_atoms()
    from dpa2.ase import DPA2Calculator

    data = kind("dipole_excluded")
    path = tmp_path / "dipole.safetensors"
    write_safetensors(path, ModelData(data.config, data.weights))
    assert set(atoms.symbols) <= set(data.config["type_map"])
    atoms.calc = DPA2Calculator(base, dipole=path, threads=1)
    wanted = atoms.get_dipole_moment()
    emulate(monkeypatch)
    atoms.calc = DPA2Calculator(base, dipole=path, device="cuda")
    assert relative(atoms.get_dipole_moment(), wanted) <= BOUND
    assert atoms.calc._dipole.model.device == "cuda"


def test_devices_that_there_are_not(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ase", reason=needs.reason("ase"))
    from dpa2.ase import DPA2Calculator

    emulate(monkeypatch)
    with pytest.raises(dpa2.InputError, match="there is no CUDA device 7"):
        DPA2Calculator(base, device="cuda:7")
    with pytest.raises(dpa2.InputError, match="device must be"):
        DPA2Calculator(base, device="gpu")
    with pytest.raises(dpa2.InputError, match=r"device: a dpa2\.Model has its own"):
        DPA2Calculator(dpa2.load(base), device="cuda")


def test_the_driver_of_i_pi_takes_a_device(base: Path, tmp_path: Path) -> None:
    """With a server of ASE, which speaks as i-PI does."""
    atoms = make_atoms()
    import ase.io
    from ase.calculators.socketio import SocketIOCalculator
    from dpa2.ase import DPA2Calculator

    ase.io.write(tmp_path / "start.extxyz", atoms)
    address = f"dpa2-{uuid.uuid4().hex[:12]}"
    words = ["--model", base, "--structure", tmp_path / "start.extxyz", "--address", address, "--device", "cuda"]
    command = [sys.executable, ROOT / "examples/ipi/driver.py", *words]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment()}
    with (
        SocketIOCalculator(unixsocket=address, timeout=100) as server,
        subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as client,
    ):
        try:
            atoms.calc = server
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            server.close()
            _, errors = client.communicate(timeout=100)
        finally:
            client.kill()
    assert client.returncode == 0, errors
    atoms.calc = DPA2Calculator(base, threads=1)
    assert relative(energy, atoms.get_potential_energy()) <= BOUND
    assert relative(forces, atoms.get_forces()) <= 1e-8  # the numbers go by way of hartree and bohr


@needs.library
@needs.c_compiler
@pytest.mark.parametrize("suffix", [".c", ".cpp"])
def test_examples_take_a_device(suffix: str, base: Path, tmp_path: Path) -> None:
    """The second one evaluates a part of a system as well, with ghosts."""
    ase = pytest.importorskip("ase.io", reason=needs.reason("ase"))
    ase.write(tmp_path / "atoms.extxyz", make_atoms(), columns=["symbols", "positions"])
    source, program = ROOT / f"examples/{suffix[1:]}/evaluate{suffix}", tmp_path / "program"
    output_of([*COMPILERS[suffix], *STRICT, source, *package_flags(), "-o", program])
    found = {}
    for device in ("cpu", "cuda"):
        command = [program, base, tmp_path / "atoms.extxyz", "1", device]
        done = subprocess.run(command, env={**os.environ, **environment()}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in done.stdout.splitlines()]
        found[device] = [name for name, *_ in lines], np.array([float(x) for _, *row in lines for x in row])
    assert found["cuda"][0] == found["cpu"][0]
    assert found["cuda"][0].count("energy") == (2 if suffix == ".cpp" else 1)
    assert relative(found["cuda"][1], found["cpu"][1]) <= BOUND
    done = subprocess.run(
        [*command[:-1], "cuda:3"], env={**os.environ, **environment()}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "there is no CUDA device 3" in done.stderr


def test_cython_handles_take_a_device(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dpa2.cython_api import ModelHandle

    s = case_system("base", "bulk")
    given = s.coord[0], s.atype.astype(np.intc), np.reshape(s.box[0], (3, 3))
    wanted = ModelHandle(base).evaluate(*given)
    emulate(monkeypatch)
    model = ModelHandle(base, device="cuda")
    assert model.device == "cuda:0"
    for one, other in zip(model.evaluate(*given), wanted, strict=True):
        assert relative(one, other) <= BOUND
