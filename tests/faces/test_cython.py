"""``dpa2.cython_api``: extensions outside of the package are built against the installed one, and run."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, TYPES, model_data, work_in
from c_library import Parts
from cases import SAME
from dpa2.files import ModelData, write_safetensors
from helpers import case_system, golden, model_of, relative
from pages import ROOT, code_blocks
from spin_cases import spin_frames, spin_golden

pytest.importorskip("Cython", reason=needs.reason("Cython"))
pytest.importorskip("setuptools", reason=needs.reason("setuptools"))
pytestmark = [needs.library, pytest.mark.slow]  # an extension is compiled

from dpa2.cython_api import DomainHandle, ModelHandle  # noqa: E402

CONSUMER = Path(__file__).parent / "cython_consumer.pyx"
PXD = ROOT / "engine" / "dpa2" / "cython_api.pxd"


def build(folder: Path, name: str) -> ModuleType:
    """The extension of a ``.pyx`` in a folder, compiled as the page says."""
    (setup, _) = code_blocks("docs/cython.md", "python")
    (folder / "setup.py").write_text(setup.replace("energies", name))
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "CFLAGS": "-O1 -w"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob(f"{name}.*.so")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def energies(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The extension of the page, which names its file before the code."""
    folder = tmp_path_factory.mktemp("energies")
    (code,) = code_blocks("docs/cython.md", "cython")
    (folder / "energies.pyx").write_text(code)
    return build(folder, "energies")


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp("consumer")
    shutil.copy(CONSUMER, folder)
    return build(folder, CONSUMER.stem)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    case = golden("base")
    write_safetensors(tmp_path / "base.safetensors", ModelData(case.config, case.weights))
    return tmp_path / "base.safetensors"


def test_page(energies: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of the page, with the module that they import."""
    work_in(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "energies", energies)
    names: dict[str, Any] = {}
    exec(compile(code_blocks("docs/cython.md", "python")[1], "cython.md", "exec"), names)
    expected = dpa2.load("model.safetensors").evaluate(names["coords"], [0, 1, 1])
    assert relative(names["energy"], expected.energy) <= SAME
    assert relative(names["forces"], expected.forces) <= SAME


def test_page_names_everything() -> None:
    text, declared = (ROOT / "docs" / "cython.md").read_text(), PXD.read_text()
    functions = re.findall(r"^cdef (?:int|const char \*)\s*(\w+)\(", declared, re.MULTILINE)
    classes = re.findall(r"^cdef class (\w+)", declared, re.MULTILINE)
    assert len(functions) == 13
    assert classes == ["ModelHandle", "DomainHandle"]
    assert [name for name in functions + classes if f"`{name}`" not in text] == []
    assert [name for name in functions + classes if name not in CONSUMER.read_text()] == []


def test_whole_systems(consumer: ModuleType, base: Path) -> None:
    s = case_system("base", "bulk")
    coords, types, box = s.coord[0].copy(), s.atype.astype(np.intc), np.asarray(s.box)[0].reshape(3, 3).copy()
    model, python = ModelHandle(base), model_of(golden("base"), device="cpu")
    forces, virial = np.full_like(coords, np.nan), np.full((3, 3), np.nan)
    rows = np.full((len(types), model.descriptor_dim), np.nan)
    energy, warning = consumer.whole(model, coords, types, box, forces, virial, rows)
    expected = python.evaluate(coords, types, box)
    assert warning == ""
    assert relative(energy, expected.energy) <= SAME
    assert relative(forces, expected.forces) <= SAME
    assert relative(virial, expected.virial) <= SAME
    assert relative(rows, python.descriptor(coords, types, box)) <= SAME


def test_outputs_by_name_and_gradients(consumer: ModuleType, base: Path) -> None:
    s = case_system("base", "bulk")
    coords, types, box = s.coord[0].copy(), s.atype.astype(np.intc), np.asarray(s.box)[0].reshape(3, 3).copy()
    model, python = ModelHandle(base), model_of(golden("base"), device="cpu")
    assert model.kind == python.kind
    assert model.outputs == {o.name: o.shape for o in python.outputs}
    forces, gradient, strain = np.empty_like(coords), np.empty_like(coords), np.empty((3, 3))
    weights = np.linspace(-1.0, 2.0, len(types))
    energy = consumer.named(model, coords, types, box, weights, forces, gradient, strain)
    result, expected = python.evaluate(coords, types, box), python.vjp(coords, types, box, {"atom_energy": weights})
    assert energy == result.energy
    assert np.array_equal(forces, result.forces)
    assert np.array_equal(gradient, expected[0])
    assert np.array_equal(strain, expected[1])
    with pytest.raises(dpa2.InputError, match="number 1 of the weights of 'atom_energy' is not finite"):
        consumer.named(
            model, coords, types, box, np.where(weights == weights[1], np.nan, weights), forces, gradient, strain
        )

    alone, energies = python.evaluate(coords, types), np.empty(len(types))
    lists = np.array([np.delete(np.arange(len(types)), i) for i in range(len(types))], dtype=np.intc)
    consumer.named_parts(model, DomainHandle(), coords, types, lists, energies, gradient)
    assert relative(energies, alone.atom_energy) <= SAME
    assert relative(gradient, python.vjp(coords, types, None, {"atom_energy": energies})[0]) <= SAME


def test_parts_of_systems(consumer: ModuleType, base: Path) -> None:
    s = case_system("base", "bulk")
    box = np.asarray(s.box)[0].reshape(3, 3)
    model, domain = ModelHandle(base), DomainHandle()
    parts = Parts(s.coord[0], s.atype, box, model.rcut)
    assert parts.nall > parts.nlocal
    virial = np.full((3, 3), np.nan)
    rows = np.full((parts.nlocal, model.descriptor_dim), np.nan)
    expected = model_of(golden("base"), device="cpu").evaluate(s.coord[0], s.atype, box)
    layers = golden("base").config["descriptor"]["repformer"]["nlayers"]
    for _ in range(2):
        forces = np.full((parts.nall, 3), np.nan)
        inputs = (model, domain, parts.coords, parts.types, parts.owner, parts.lists, parts.nlocal)
        energy, calls = consumer.parts(*inputs, forces, virial, rows)
        assert calls == 3 * layers
        np.add.at(forces, parts.owner[parts.nlocal :], forces[parts.nlocal :].copy())
        assert relative(energy, expected.energy) <= SAME
        assert relative(forces[: parts.nlocal], expected.forces) <= SAME
        assert relative(virial, expected.virial) <= SAME
        expected_rows = model_of(golden("base"), device="cpu").descriptor(s.coord[0], s.atype, box)
        assert relative(rows, expected_rows) <= SAME
        with pytest.raises(dpa2.Error, match="the forward exchange failed with code 9"):
            consumer.parts(*inputs, forces, virial, rows, failure=9)


def test_halos(consumer: ModuleType, base: Path) -> None:
    """Ghosts that are images, and others that a process sends to itself."""
    s = case_system("base", "bulk")
    model, domain = ModelHandle(base), DomainHandle()
    parts = Parts(s.coord[0], s.atype, np.asarray(s.box)[0].reshape(3, 3), model.rcut)
    ghosts, layers = np.arange(parts.nlocal, parts.nall), golden("base").config["descriptor"]["repformer"]["nlayers"]
    carried, copied = (rows.astype(np.intc) for rows in (ghosts[::2], ghosts[1::2]))
    ways = (parts.owner[carried], carried, copied, parts.owner[copied])
    inputs = (model, domain, parts.coords, parts.types, parts.lists, parts.nlocal)
    forces = np.full((parts.nall, 3), np.nan)
    energy, calls = consumer.halo(*inputs, *ways, forces)
    assert calls == 2 * layers
    expected = model_of(golden("base"), device="cpu").evaluate(s.coord[0], s.atype, np.asarray(s.box)[0].reshape(3, 3))
    np.add.at(forces, parts.owner[parts.nlocal :], forces[parts.nlocal :].copy())
    assert relative(energy, expected.energy) <= SAME
    assert relative(forces[: parts.nlocal], expected.forces) <= SAME
    with pytest.raises(dpa2.Error, match="the forward exchange failed with code 9"):
        consumer.halo(*inputs, *ways, forces, failure=9)
    with pytest.raises(dpa2.InputError, match="is a ghost and somebody's neighbour, but there is no exchange"):
        consumer.halo(*inputs, *ways, forces, again=True)
    with pytest.raises(dpa2.InputError, match=r"receive\[0\] is 0, but ghosts have the rows from"):
        consumer.halo(*inputs, ways[0], np.append(np.intc(0), carried[1:]), *ways[2:], forces)


def test_spins(consumer: ModuleType, tmp_path: Path) -> None:
    data = spin_golden("spin")
    write_safetensors(tmp_path / "spin.safetensors", ModelData(data.config, data.weights))
    model, domain, frame = ModelHandle(tmp_path / "spin.safetensors"), DomainHandle(), spin_frames("spin", "open")[0]
    coords, types, spins = frame["coords"], frame["types"].astype(np.intc), frame["spin"]
    lists = np.array([np.delete(np.arange(len(types)), i) for i in range(len(types))], dtype=np.intc)
    forces, magnetic, of_part = (np.full_like(coords, np.nan) for _ in range(3))
    expected = model_of(data, device="cpu").evaluate(coords, types, spin=spins)
    inputs = (model, domain, coords, types, spins, lists)
    assert relative(consumer.spins(*inputs, 100.0, forces, magnetic, of_part), expected.energy) <= SAME
    assert relative(forces, expected.forces) <= SAME
    assert relative(magnetic, expected.magnetic_forces) <= SAME
    assert relative(of_part, expected.magnetic_forces) <= SAME
    with pytest.raises(dpa2.InputError, match="lists and ghosts have to reach as far as"):
        consumer.spins(*inputs, model.rcut, forces, magnetic, of_part)


def test_errors_are_those_of_dpa2(consumer: ModuleType, base: Path) -> None:
    model = ModelHandle(base)
    forces, virial, rows = np.empty((5, 3)), np.empty((3, 3)), np.empty((5, model.descriptor_dim))
    kinds = TYPES.astype(np.intc) % 2
    for coords, box, part in [
        (np.where(np.arange(15).reshape(5, 3) == 7, np.nan, COORDS), BOX, "coordinate 1 of atom 2 is not finite"),
        (COORDS, np.ones((3, 3)), "the box is singular"),
        (COORDS[[0, 1, 2, 3, 3]], BOX, "atoms 3 and 4 are at the same place"),
    ]:
        with pytest.raises(dpa2.InputError, match=part):
            consumer.whole(model, coords, kinds, box, forces, virial, rows)
    nothing = ModelHandle.__new__(ModelHandle)
    with pytest.raises(dpa2.InputError, match="model is NULL"):
        consumer.whole(nothing, COORDS, kinds, BOX, forces, virial, rows)


def test_two_threads_without_the_gil(energies: ModuleType, base: Path) -> None:
    """A third thread of Python goes on while two evaluate: they do not hold the GIL."""
    s = case_system("base", "open")
    model, kinds = ModelHandle(base), s.atype.astype(np.intc)
    systems = [s.coord[0].copy(), 1.01 * s.coord[0]]
    expected = []
    for coords in systems:
        forces = np.empty_like(coords)
        expected.append((energies.total_energy(model, coords, kinds, forces), forces))
    found: dict[int, tuple[float, np.ndarray]] = {}

    def work(k: int) -> None:
        forces = np.empty_like(systems[k])
        found[k] = (energies.total_energy(model, systems[k], kinds, forces, repeat=200), forces)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        for worker in workers:
            worker.start()
        turns = 0
        while any(worker.is_alive() for worker in workers):
            turns += 1
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert turns > 100, "Python stood still: the GIL was held"
    for k, (energy, forces) in enumerate(expected):
        assert found[k][0] == energy
        assert np.array_equal(found[k][1], forces)


# ------------------------------------------------------------------------------------------------ from Python


def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_in(tmp_path, monkeypatch)
    model, python = ModelHandle("model.safetensors"), dpa2.load("model.safetensors")
    assert model.type_map == python.type_map
    assert model.precision == python.precision
    assert model.device == ModelHandle("model.safetensors", None, 0.0, "cpu").device == "cpu"
    assert (model.rcut, model.descriptor_dim) == (python.rcut, python.descriptor_dim)
    assert (model.fparam_dim, model.aparam_dim) == (0, 0)
    assert model.g2_dim == model_data().config["descriptor"]["repformer"]["g2_dim"]
    assert model.exchange_width >= 6
    assert (ModelHandle("params.safetensors").fparam_dim, ModelHandle("params.safetensors").aparam_dim) == (2, 1)
    for box in (None, BOX):
        energy, forces, virial = model.evaluate(COORDS, TYPES, box, threads=2)
        expected = python.evaluate(COORDS, TYPES, box)
        assert relative(energy, expected.energy) <= SAME
        assert relative(forces, expected.forces) <= SAME
        assert relative(virial, expected.virial) <= SAME
    copy = ModelHandle.from_bytes(bytearray(Path("model.safetensors").read_bytes()), precision="float32", skin=0.5)
    assert copy.precision == "float32"
    assert relative(copy.evaluate(COORDS, TYPES)[1], python.evaluate(COORDS, TYPES).forces) <= 2e-4
    assert model.evaluate(np.empty((0, 3)), np.empty(0, dtype=int))[0] == 0.0


def test_refusals_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_in(tmp_path, monkeypatch)
    with pytest.raises(dpa2.ModelFileError, match=r"cannot read 'absent\.safetensors'"):
        ModelHandle("absent.safetensors")
    with pytest.raises(dpa2.ModelFileError, match="what came"):
        ModelHandle.from_bytes(b"12345", name="what came")
    with pytest.raises(dpa2.InputError, match="precision must be"):
        ModelHandle("model.safetensors", precision="float16")
    with pytest.raises(dpa2.InputError, match="skin must be"):
        ModelHandle("model.safetensors", skin=-1.0)
    with pytest.raises(dpa2.InputError, match="NUL"):
        ModelHandle("model\0.safetensors")
    for device, message in (("gpu", "device must be 'cpu', 'cuda' or 'cuda:N'"), ("cuda\0:1", "NUL")):
        with pytest.raises(dpa2.InputError, match=message):
            ModelHandle("model.safetensors", device=device)
    model = ModelHandle("model.safetensors")
    with pytest.raises(dpa2.InputError, match="has a model already"):
        model.__init__("params.safetensors")  # type: ignore[misc]
    for coords, types, box in [(COORDS.ravel(), TYPES, None), (COORDS, TYPES[:4], None), (COORDS, TYPES, BOX[:2])]:
        with pytest.raises(dpa2.InputError, match="coords must be"):
            model.evaluate(coords, types, box)
    for threads in (0, 4097, 2**31, 2**64, "two"):
        with pytest.raises(dpa2.InputError, match="threads must be a positive integer up to 4096"):
            model.evaluate(COORDS, TYPES, threads=threads)  # type: ignore[arg-type]
    for types in ([0, 1, 1, 2**32, 0], TYPES + 0.5, ["O"] * 5):
        with pytest.raises(dpa2.InputError, match="types must be indices into"):
            model.evaluate(COORDS, types)
    with pytest.raises(dpa2.InputError, match="coordinate 0 of atom 0 is too large"):
        model.evaluate(COORDS + 1.1e7, TYPES)
    with pytest.raises(dpa2.InputError, match="the model needs fparam"):
        ModelHandle("params.safetensors").evaluate(COORDS, TYPES)
    with pytest.raises(TypeError):
        pickle.dumps(model)


def test_a_handle_without_a_model_is_no_crash() -> None:
    nothing = ModelHandle.__new__(ModelHandle)
    assert (nothing.type_map, nothing.precision, nothing.rcut, nothing.descriptor_dim) == ((), "", 0.0, 0)
    assert (nothing.kind, nothing.device, nothing.outputs) == ("", "", {})
    with pytest.raises(dpa2.InputError, match="model is NULL"):
        nothing.evaluate(COORDS, TYPES)
