"""compute dpa2/descriptor/atom: what Python computes, whatever the pair style, the ranks and the units."""

from __future__ import annotations

from pathlib import Path

import dpa2
import needs
import numpy as np
import pytest
from dpa2.files import write_safetensors
from lammps_runs import (
    DIVISIONS,
    SYMBOLS,
    Cluster,
    Setup,
    combination_data,
    difference,
    divided,
    engine_of,
    model_data,
    prepare,
    python_model,
    refusal,
    succeed,
    systems,
    systems_of,
    table,
    tensor_data,
    tensors,
)

SYSTEM = next(system for system in systems() if system.name == "orthogonal")
ELEMENTS = " ".join(SYMBOLS)
#: another pair style beside the compute, and ghosts that reach far enough
OTHER = {"style": "zero 1.0", "coeff": ["pair_coeff * *"], "after_box": ["comm_modify cutoff 6.0"]}
DIM = python_model().descriptor_dim


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


def by_python(system: Cluster = SYSTEM, model: dpa2.Model | None = None) -> np.ndarray:
    """(natoms, descriptor_dim)"""
    found = (model or python_model()).descriptor(system.coords, system.types, system.box)
    assert np.abs(found).max() > 0.01
    return found


def lines(system: str, words: str, name: str, **setup: object) -> list[str]:
    """A system beside another pair style, and its descriptors in ``name.dump``."""
    start = Setup(system, **{**OTHER, **setup}).lines()  # type: ignore[arg-type]
    return [*start, f"compute t all dpa2/descriptor/atom {words}", *tensors("t", DIM, name)]


def found_by(folder: Path, name: str) -> np.ndarray:
    return table(folder / f"{name}.dump")[:, 2:]


@pytest.mark.parametrize("division", needs.mostly_slow(DIVISIONS, {"2 ranks"}))
def test_division_of_space(folder: Path, division: str) -> None:
    script: list[str] = []
    for system in systems_of(division):
        setup = divided(division, system)
        setup.style, setup.coeff = "zero 1.0", ["pair_coeff * *"]
        script += [*setup.lines(), "comm_modify cutoff 6.0"]
        script += [f"compute t all dpa2/descriptor/atom model.safetensors {ELEMENTS}", *tensors("t", DIM, system)]
    succeed(folder, script, DIVISIONS[division][0])
    for system in systems():
        if system.name in systems_of(division):
            assert difference(found_by(folder, system.name), by_python(system)) < 1e-10, system.name


def test_models_of_other_kinds(folder: Path) -> None:
    """Parameters of a model do not matter; of a combination it is the first part's."""
    models = {"dipole": tensor_data("dipole", nf=2, na=1), "zbl": combination_data("zbl")}
    script: list[str] = []
    for name, data in models.items():
        write_safetensors(folder / f"{name}.safetensors", data)
        script += lines("orthogonal", f"{name}.safetensors {ELEMENTS}", name)
    succeed(folder, script)
    for name, data in models.items():
        assert difference(found_by(folder, name), by_python(model=engine_of(data))) < 1e-10, name


def test_groups_elements_and_precision(folder: Path) -> None:
    some = ["group some id 3:17"]
    script = [line.replace("all dpa2", "some dpa2") for line in lines("orthogonal", "model.safetensors", "some")]
    script.insert(script.index("pair_coeff * *") + 1, some[0])
    script += lines("orthogonal", "model.safetensors O NULL C", "null")
    script += lines("orthogonal", f"model.safetensors {ELEMENTS} precision float32 threads 2", "float32")
    succeed(folder, script, ranks=2)
    ids = np.arange(1, len(SYSTEM.types) + 1)
    inside = (ids >= 3) & (ids <= 17)
    assert difference(found_by(folder, "some"), by_python() * inside[:, None]) < 1e-10
    part = Cluster("part", SYSTEM.box, SYSTEM.coords, np.where(SYSTEM.types == 1, -1, SYSTEM.types))
    assert difference(found_by(folder, "null"), by_python(part) * (part.types >= 0)[:, None]) < 1e-10
    assert 1e-9 < difference(found_by(folder, "float32"), by_python()) < 1e-4


def test_other_units(folder: Path) -> None:
    length = 1.0 / 0.5291772109
    SYSTEM.write(folder, length)
    beside = {"units": "electron", "style": f"zero {4.5 * length}", "after_box": []}
    succeed(folder, lines("orthogonal", f"model.safetensors {ELEMENTS}", "electron", **beside))
    assert difference(found_by(folder, "electron"), by_python()) < 1e-6  # LAMMPS's bohr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "compute t dpa2/descriptor/atom needs a model file: compute ID group dpa2/descriptor/atom"),
        ("model.pth", "Convert it once: dpa2 convert model.pth model.safetensors"),
        ("model.safetensors O H", "the compute line names 2 elements for 3 atom types: O H"),
        ("model.safetensors O H C fparam 1.0", "descriptors do not depend on parameters: leave fparam out"),
        ("model.safetensors O H C threads 1 again", "unknown keyword 'again'"),
    ],
)
def test_refusals(folder: Path, words: str, message: str) -> None:
    (folder / "model.pth").write_bytes(b"PK")
    start = Setup("orthogonal", **OTHER).lines()  # type: ignore[arg-type]
    assert message in refusal(folder, [*start, f"compute t all dpa2/descriptor/atom {words}"])


def test_too_many_neighbors(folder: Path) -> None:
    write_safetensors(folder / "small.safetensors", model_data(nsel=12))
    assert "more than its sel of" in refusal(
        folder, lines("orthogonal", f"small.safetensors {ELEMENTS} overflow error", "x")
    )
