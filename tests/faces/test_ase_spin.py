"""`dpa2.ase.DPA2Calculator` with spin models: spins are the initial magnetic moments."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import dpa2
import needs
import numpy as np
import pytest
from spin_cases import FILES
from spin_sets import evaluated_frames

pytest.importorskip("ase", reason=needs.reason("ase"))

import ase.io
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from dpa2.ase import DPA2Calculator

GIVEN = evaluated_frames()
COORDS, TYPES, SPINS = GIVEN["coords"][0], GIVEN["atom_types"], GIVEN["spin"][0]
CELL = GIVEN["cells"][0].reshape(3, 3)
SYMBOLS = ["O", "H", "Cu"]


@cache
def model() -> dpa2.Model:
    return dpa2.load(FILES / "spin" / "model.pt", threads=1)


def make_atoms(moments: np.ndarray | None = SPINS) -> Atoms:
    atoms = Atoms([SYMBOLS[t] for t in TYPES], COORDS, cell=CELL, pbc=True, calculator=DPA2Calculator(model()))
    if moments is not None:
        atoms.set_initial_magnetic_moments(moments)
    return atoms


def evaluated(spins: np.ndarray = SPINS) -> dpa2.Result:
    return model().evaluate(COORDS, TYPES, CELL, spin=spins)


def test_properties() -> None:
    atoms, expected = make_atoms(), evaluated()
    assert atoms.get_potential_energy() == expected.energy
    assert np.array_equal(atoms.get_forces(), expected.forces)
    assert np.array_equal(atoms.get_potential_energies(), expected.atom_energy)
    symmetric = -0.5 * (expected.virial + expected.virial.T) / atoms.get_volume()
    assert np.allclose(atoms.get_stress(voigt=False), symmetric, rtol=1e-13)
    assert np.allclose(atoms.get_stresses().sum(axis=0), atoms.get_stress(), rtol=1e-10)
    assert np.array_equal(atoms.calc.get_property("magnetic_forces", atoms), expected.magnetic_forces)
    assert np.array_equal(atoms.get_magnetic_moments(), np.where((TYPES == 1)[:, None], 0.0, SPINS))
    assert np.array_equal(atoms.get_magnetic_moment(), SPINS[TYPES != 1].sum(axis=0))


def test_numbers_are_spins_along_z() -> None:
    along_z = np.array([2.0, 1.0, -1.0, 0.0, 0.5])
    atoms = make_atoms(along_z)
    expected = evaluated(along_z[:, None] * [0.0, 0.0, 1.0])
    assert atoms.get_potential_energy() == expected.energy
    assert np.array_equal(atoms.get_magnetic_moments(), [2.0, 1.0, 0.0, 0.0, 0.5])
    assert atoms.get_magnetic_moment() == 3.5


def test_another_spin_is_another_state() -> None:
    atoms = make_atoms()
    before = atoms.get_potential_energy()
    atoms.set_initial_magnetic_moments(-2.0 * SPINS)
    assert atoms.get_potential_energy() == evaluated(-2.0 * SPINS).energy
    assert abs(atoms.get_potential_energy() - before) > 1e-6
    atoms.set_initial_charges([1.0, 0.0, 0.0, 0.0, 0.0])
    assert atoms.calc.check_state(atoms) == []


def test_forces_are_derivatives() -> None:
    """By displaced atoms and by changed spins."""
    atoms, step = make_atoms(), 1e-4
    forces, magnetic = atoms.get_forces(), atoms.calc.get_property("magnetic_forces", atoms)
    energies = []
    for sign in (1.0, -1.0):
        moved = make_atoms()
        moved.positions[0, 1] += sign * step
        energies.append(moved.get_potential_energy())
        turned = SPINS.copy()
        turned[2, 2] += sign * step
        energies.append(make_atoms(turned).get_potential_energy())
    assert abs((energies[0] - energies[2]) / (2 * step) + forces[0, 1]) < 1e-6
    assert abs((energies[1] - energies[3]) / (2 * step) + magnetic[2, 2]) < 1e-6


def test_dynamics_and_files(tmp_path: Path) -> None:
    """At fixed spins the energy is kept; files carry the moments, and are data sets with spins again."""
    atoms = make_atoms()
    dynamics = VelocityVerlet(atoms, timestep=0.1 * units.fs)
    start = atoms.get_total_energy()
    dynamics.run(20)
    assert abs(atoms.get_total_energy() - start) < 1e-3 * abs(atoms.get_kinetic_energy())
    for name in ("last.traj", "last.extxyz"):
        ase.io.write(tmp_path / name, atoms)
        again = ase.io.read(tmp_path / name)
        assert np.allclose(again.get_magnetic_moments(), atoms.get_magnetic_moments(), atol=1e-7)


def test_atoms_without_moments() -> None:
    with pytest.raises(dpa2.InputError, match=r"these atoms have none: atoms\.set_initial_magnetic_moments"):
        make_atoms(None).get_potential_energy()
    zero = make_atoms(np.zeros((5, 3)))  # which is something to say
    assert np.isfinite(zero.get_potential_energy())


def test_there_is_no_hessian() -> None:
    atoms = make_atoms()
    with pytest.raises(dpa2.UnsupportedModelError, match="spin model"):
        atoms.calc.get_hessian(atoms)


def test_descriptors_of_atoms() -> None:
    expected = model().descriptor(COORDS, TYPES, CELL, spin=SPINS)
    assert np.array_equal(model().descriptor(make_atoms()), expected)
    with pytest.raises(dpa2.InputError, match="the model needs spins, and these atoms have none"):
        model().descriptor(make_atoms(None))
