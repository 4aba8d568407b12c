"""`dpa2.ase.DPA2Calculator` with models of other kinds than energies, and with a dipole model beside a potential."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from deeppot_calls import CELLS, FRAMES
from dpa2.files import ModelData, write_safetensors
from kind_cases import KIND_CASES, load_kind

pytest.importorskip("ase", reason=needs.reason("ase"))

import ase.io
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io.trajectory import Trajectory
from ase.md.verlet import VelocityVerlet
from dpa2.ase import DPA2Calculator

SYMBOLS, TYPES = "OH2OH", [0, 1, 1, 0, 1]
CASES = {case.name: case for case in KIND_CASES}


@cache
def model_of(name: str, **changes: Any) -> dpa2.Model:
    golden = load_kind(CASES[name])
    return dpa2.Model(ModelData({**golden.config, **changes}, golden.weights), threads=1)


def make_atoms(calculator: DPA2Calculator) -> Atoms:
    return Atoms(SYMBOLS, FRAMES[0], cell=CELLS[1], pbc=True, calculator=calculator)


def outputs(model: dpa2.Model, **parameters: Any) -> dict[str, np.ndarray]:
    return model.evaluate(FRAMES[0], TYPES, CELLS[1], **parameters).outputs


def test_dipoles() -> None:
    model = model_of("dipole_excluded")
    atoms = make_atoms(DPA2Calculator(model))
    assert np.array_equal(atoms.get_dipole_moment(), outputs(model)["global_dipole"])
    assert np.abs(atoms.get_dipole_moment()).min() > 1e-3
    assert atoms.calc.results.keys() == {"dipole"}
    for ask in (atoms.get_potential_energy, atoms.get_forces, atoms.get_stress, atoms.get_stresses):
        with pytest.raises(PropertyNotImplementedError, match=r"\w"):
            ask()
    before = atoms.get_dipole_moment()
    atoms.positions[1] += 0.1
    assert np.abs(atoms.get_dipole_moment() - before).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "properties"),
    [
        ("polar", {"polarizability": "global_polar", "atom_polarizability": "polar"}),
        ("dos", {"dos": "dos", "atom_dos": "atom_dos"}),
        ("property_extensive", {"volume": "volume", "atom_volume": "atom_volume"}),
        ("population", {"population": "population"}),
    ],
)
def test_other_kinds_have_their_names(name: str, properties: dict[str, str]) -> None:
    model = model_of(name)
    takes = model.config["fitting_net"]["numb_fparam"]
    parameters = {"fparam": np.full(takes, 0.3)} if takes else {}
    calculator = DPA2Calculator(model, **parameters)
    atoms, expected = make_atoms(calculator), outputs(model, **parameters)
    assert calculator.implemented_properties == list(properties)
    for own, output in properties.items():
        assert np.array_equal(calculator.get_property(own, atoms), expected[output])
    assert calculator.results.keys() == properties.keys()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_dipole_moment()


def test_potentials_with_dipoles() -> None:
    potential, dipole = model_of("multitask_energy"), model_of("multitask_dipole")
    atoms = make_atoms(DPA2Calculator(potential, dipole=dipole))
    expected = outputs(potential)
    assert atoms.get_potential_energy() == expected["energy"][0]
    assert np.array_equal(atoms.get_forces(), expected["force"])
    assert np.array_equal(atoms.get_dipole_moment(), outputs(dipole)["global_dipole"])
    assert "dipole" not in DPA2Calculator(potential).implemented_properties
    assert "dipole" in copy.deepcopy(atoms.calc).implemented_properties


def test_trajectories_carry_dipoles(tmp_path: Path) -> None:
    potential, dipole = model_of("multitask_energy"), model_of("multitask_dipole")
    atoms = make_atoms(DPA2Calculator(potential, dipole=dipole))
    with Trajectory(str(tmp_path / "run.traj"), "w", atoms) as trajectory:
        dynamics = VelocityVerlet(atoms, timestep=0.2 * units.fs)
        dynamics.attach(trajectory.write, interval=1)
        dynamics.run(3)
    frames = ase.io.read(tmp_path / "run.traj", index=":")
    assert len(frames) == 4
    found = np.stack([frame.get_dipole_moment() for frame in frames])
    expected = dipole.evaluate(np.stack([frame.positions for frame in frames]), TYPES, CELLS[1]).outputs
    np.testing.assert_allclose(found, expected["global_dipole"], rtol=0, atol=1e-12)
    assert np.ptp(found, axis=0).min() > 0.0


def test_types_of_the_two_models_go_by_name(tmp_path: Path) -> None:
    """They may be numbered differently, and `type_dict` means those of the potential."""
    potential = model_of("multitask_energy")
    other = {**load_kind(CASES["multitask_dipole"]).config, "type_map": ["H", "Cu", "O"]}
    write_safetensors(tmp_path / "dipole.safetensors", ModelData(other, load_kind(CASES["multitask_dipole"]).weights))
    turned = dpa2.load(tmp_path / "dipole.safetensors", threads=1)
    atoms = make_atoms(DPA2Calculator(potential, dipole=tmp_path / "dipole.safetensors"))
    assert np.array_equal(
        atoms.get_dipole_moment(), turned.evaluate(FRAMES[0], list("OHHOH"), CELLS[1]).outputs["global_dipole"]
    )
    atoms.calc = DPA2Calculator(potential, dipole=turned, type_dict={"O": 1, "H": "Cu"})
    expected = turned.evaluate(FRAMES[0], ["H", "Cu", "Cu", "H", "Cu"], CELLS[1]).outputs["global_dipole"]
    assert np.array_equal(atoms.get_dipole_moment(), expected)
    atoms.calc = DPA2Calculator(potential, dipole=turned, type_dict={"O": -1})
    expected = turned.evaluate(FRAMES[0], [-1, 0, 0, -1, 0], CELLS[1]).outputs["global_dipole"]
    assert np.array_equal(atoms.get_dipole_moment(), expected)


def test_parameters_go_to_the_model_that_takes_them() -> None:
    potential, dipole = model_of("multitask_energy"), model_of("dipole")
    given = {"fparam": np.array([0.4, -0.2]), "aparam": np.full((5, 1), 0.3)}
    with pytest.raises(dpa2.InputError, match="takes no frame parameters"):
        make_atoms(DPA2Calculator(potential, dipole=dipole, **given)).get_dipole_moment()
    atoms = make_atoms(DPA2Calculator(dipole, **given))
    assert np.array_equal(atoms.get_dipole_moment(), outputs(dipole, **given)["global_dipole"])
    atoms.info["fparam"] = np.array([0.1, 0.2])
    assert np.array_equal(
        atoms.get_dipole_moment(), outputs(dipole, **{**given, "fparam": [0.1, 0.2]})["global_dipole"]
    )
    with pytest.raises(dpa2.InputError, match="pass aparam="):
        make_atoms(DPA2Calculator(dipole, fparam=given["fparam"])).get_dipole_moment()


def test_wrong_pairs_of_models() -> None:
    potential, dipole = model_of("multitask_energy"), model_of("multitask_dipole")
    with pytest.raises(dpa2.InputError, match="dipole must be a dipole model, but this one is of kind 'polar'"):
        DPA2Calculator(potential, dipole=model_of("polar"))
    with pytest.raises(dpa2.InputError, match="goes with a potential, but the first one is of kind 'dipole'"):
        DPA2Calculator(dipole, dipole=dipole)
    atoms = Atoms("HAu", FRAMES[0, :2], calculator=DPA2Calculator(dipole))
    with pytest.raises(dpa2.InputError, match=r"atom 1 is 'Au', which the model does not know.* O, H, Cu"):
        atoms.get_dipole_moment()
