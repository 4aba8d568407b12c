"""`dpa2.ase.DPA2Calculator`: the model's numbers under ASE's names, signs and rules."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, SYMBOLS, TYPES, make_model, model_data
from cases import DIFFERENCE, SAME, STEP
from dpa2.files import ModelData, write_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ase", reason=needs.reason("ase"))

import ase.io
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter, StrainFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.phonons import Phonons
from ase.stress import voigt_6_to_full_3x3_stress
from ase.vibrations import Vibrations, VibrationsData
from dpa2.ase import DPA2Calculator

WATER = Path(__file__).resolve().parents[2] / "examples" / "water_192.extxyz"
MONOMER = Atoms("OH2", [[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
PBC = [(True, True, True), (True, False, True), (False, True, False), (False, False, False)]


def make_atoms(pbc: Any = True, coords: np.ndarray = COORDS) -> Atoms:
    """The structure of `api_models`, with a calculator."""
    return Atoms(SYMBOLS, coords, cell=BOX, pbc=pbc, calculator=DPA2Calculator(make_model("cpu")))


def difference(energy: Callable[[float], float]) -> float:
    """The derivative of the energy at 0: central, of fourth order."""
    near, far = energy(STEP) - energy(-STEP), energy(2 * STEP) - energy(-2 * STEP)
    return (8.0 * near - far) / (12.0 * STEP)


# ------------------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("pbc", PBC)
def test_properties_are_those_of_the_model(pbc: tuple[bool, bool, bool]) -> None:
    atoms = make_atoms(pbc)
    box = BOX if any(pbc) else None
    expected = make_model("cpu").evaluate(COORDS, TYPES, box, pbc if any(pbc) else None, atomic=True)
    assert atoms.get_potential_energy() == expected.energy
    assert atoms.get_potential_energy(force_consistent=True) == expected.energy
    np.testing.assert_array_equal(atoms.get_forces(), expected.forces)
    np.testing.assert_array_equal(atoms.get_potential_energies(), expected.atom_energy)
    assert expected.atom_virial is not None
    # the symmetric part: the random statistics of this model make a difference
    volume = abs(np.linalg.det(BOX))
    stress = 0.5 * (expected.virial + expected.virial.T) / -volume
    assert np.abs(stress + expected.virial / volume).max() > 1e-4
    np.testing.assert_allclose(atoms.get_stress(voigt=False), stress, rtol=0, atol=SAME)
    found = np.array([voigt_6_to_full_3x3_stress(each) for each in atoms.get_stresses()])
    stresses = 0.5 * (expected.atom_virial + expected.atom_virial.transpose(0, 2, 1)) / -volume
    np.testing.assert_allclose(found, stresses, rtol=0, atol=SAME)


def test_boundaries_matter() -> None:
    """The four kinds of boundaries have four energies, so that the comparison above can tell them apart."""
    energies = {round(make_atoms(pbc).get_potential_energy(), 6) for pbc in PBC}
    assert len(energies) == len(PBC)


def test_parts_sum_to_the_whole() -> None:
    atoms = make_atoms()
    assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), abs=SAME)
    np.testing.assert_allclose(atoms.get_stresses().sum(axis=0), atoms.get_stress(), rtol=0, atol=SAME)
    assert np.ptp(atoms.get_stresses(), axis=0).min() > 1e-4


def test_forces_are_differences_of_the_energy() -> None:
    atoms = make_atoms((True, True, False))
    forces = atoms.get_forces()
    assert np.abs(forces).max() > 0.1
    for atom, axis in ((0, 0), (2, 1), (4, 2)):

        def energy(step: float, atom: int = atom, axis: int = axis) -> float:
            moved = make_atoms(atoms.pbc)
            moved.positions[atom, axis] += step
            return float(moved.get_potential_energy())

        assert -difference(energy) == pytest.approx(forces[atom, axis], abs=DIFFERENCE)


@pytest.mark.parametrize("pbc", [True, (True, True, False)])
def test_stress_is_the_difference_under_strain(pbc: Any) -> None:
    """Every component, in ASE's order and sign, from ASE's own way of straining a cell."""
    atoms = make_atoms(pbc)
    stress = atoms.get_stress()
    assert len(np.unique(np.abs(stress).round(9))) == 6
    for component in range(6):
        direction = voigt_6_to_full_3x3_stress(np.eye(6)[component])
        direction /= np.count_nonzero(direction)

        def energy(step: float, direction: np.ndarray = direction) -> float:
            strained = make_atoms(pbc)
            strained.set_cell(BOX @ (np.eye(3) + step * direction), scale_atoms=True)
            return float(strained.get_potential_energy())

        assert difference(energy) / atoms.get_volume() == pytest.approx(stress[component], abs=DIFFERENCE)


@pytest.mark.parametrize("pbc", PBC)
def test_hessian_is_that_of_the_model(pbc: tuple[bool, bool, bool]) -> None:
    atoms = make_atoms(pbc)
    found = atoms.calc.get_hessian(atoms)
    structure = (BOX, pbc) if any(pbc) else ()
    np.testing.assert_array_equal(found, make_model("cpu").hessian(COORDS, TYPES, *structure))
    atoms.get_potential_energy()
    np.testing.assert_array_equal(atoms.calc.get_hessian(), found)


def test_hessian_takes_parameters_and_needs_atoms() -> None:
    model, given = make_model("cpu", nf=2, na=1), {"fparam": [0.5, 1.0], "aparam": [0.3]}
    found = DPA2Calculator(model, **given).get_hessian(Atoms(SYMBOLS, COORDS))
    np.testing.assert_array_equal(found, model.hessian(COORDS, TYPES, **given))
    with pytest.raises(dpa2.InputError, match="there are no atoms to evaluate"):
        DPA2Calculator(model).get_hessian()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_one_calculator_for_all_structures(seed: int, pbc: tuple[bool, bool, bool]) -> None:
    """Whatever was evaluated before, and with other numbers of atoms: the results are those of the structure."""
    rng = np.random.default_rng(seed)
    natoms = int(rng.integers(0, 6))
    coords = COORDS[:natoms] + 0.1 * rng.normal(size=(natoms, 3))
    atoms = Atoms(SYMBOLS[:natoms], coords, cell=BOX, pbc=pbc, calculator=ONE_FOR_ALL)
    expected = make_model("cpu").evaluate(coords, TYPES[:natoms], BOX if any(pbc) else None, pbc)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy, abs=SAME)
    np.testing.assert_allclose(atoms.get_forces(), expected.forces, rtol=0, atol=SAME)


ONE_FOR_ALL = DPA2Calculator(dpa2.Model(model_data(), threads=1, skin=1.0))


# ------------------------------------------------------------------------------------------ models and options


def test_embedded_model_with_skin() -> None:
    atoms = ase.io.read(WATER)
    atoms.calc = DPA2Calculator(threads=1)
    assert atoms.calc.model.type_map == ("O", "H")
    assert (atoms.calc.model.skin, atoms.calc.model.threads) == (1.0, 1)
    assert atoms.get_potential_energy() / len(atoms) == pytest.approx(-155.958, abs=0.01)


def test_options_reach_the_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, model_data())
    model = DPA2Calculator(path, precision="float32", threads=2, skin=0.5, on_overflow="error").model
    assert (model.precision, model.threads, model.skin) == ("float32", 2, 0.5)
    assert DPA2Calculator(str(path), skin=0.0).model.skin == 0.0
    multitask = Path(__file__).parents[1] / "golden" / "files" / "multitask" / "model.pt"
    assert DPA2Calculator(multitask, head="ice").model.config["head"] == "ice"


def test_a_model_has_its_own_options() -> None:
    model = make_model("cpu")
    assert DPA2Calculator(model).model is model
    with pytest.raises(dpa2.InputError, match=r"threads, skin: a dpa2\.Model has its own"):
        DPA2Calculator(model, threads=1, skin=0.0)


def test_missing_file() -> None:
    with pytest.raises(dpa2.ModelFileError, match="no such file"):
        DPA2Calculator("nowhere.pth")


def test_unknown_option() -> None:
    with pytest.raises(dpa2.InputError, match="presicion: a DPA2Calculator has no parameter of this name"):
        DPA2Calculator(make_model("cpu"), presicion="float64")


def test_unknown_element_is_named() -> None:
    atoms = Atoms("OHCu", COORDS[:3], calculator=DPA2Calculator(make_model("cpu")))
    for _ in range(2):  # a failed evaluation leaves nothing behind
        with pytest.raises(dpa2.InputError, match=r"atom 2 is 'Cu', which the model does not know.* O, H, C"):
            atoms.get_potential_energy()


def test_symbols_by_type_dict() -> None:
    config = {**model_data().config, "type_map": ["O_water", "H", "type_2"]}
    model = dpa2.Model(ModelData(config, model_data().weights), threads=1)
    expected = make_atoms().get_potential_energy()
    atoms = make_atoms()
    atoms.calc = DPA2Calculator(model, type_dict={"O": "O_water", "C": 2})
    assert atoms.get_potential_energy() == expected
    atoms.calc = DPA2Calculator(model, type_dict={"O": 2, "C": 0})
    assert atoms.get_potential_energy() == make_model("cpu").evaluate(COORDS, [2, 1, 1, 0, 2], BOX).energy != expected
    atoms.calc = DPA2Calculator(model, type_dict={"O": 0, "C": -1})  # a virtual atom
    assert atoms.get_potential_energy() == make_model("cpu").evaluate(COORDS, [0, 1, 1, -1, 0], BOX).energy
    with pytest.raises(dpa2.InputError, match=r"atom 0 is 'O'.*O_water, H, type_2.*type_dict=\{'O': \.\.\.\}"):
        DPA2Calculator(model).calculate(atoms)


@pytest.mark.parametrize(
    ("type_dict", "message"),
    [
        ({"Oxygen": 0}, "'Oxygen' is not a chemical symbol"),
        ({"O": 3}, "'O' is to be 3, but the types of the model are 0 O, 1 H, 2 C"),
        ({"O": "N"}, "'O' is to be 'N'"),
        ({"O": True}, "'O' is to be True"),
        ({"O": -2}, "'O' is to be -2"),
    ],
)
def test_wrong_type_dict(type_dict: dict[str, Any], message: str) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        DPA2Calculator(make_model("cpu"), type_dict=type_dict)


def test_parameters_of_frames_and_atoms() -> None:
    """Of the calculator, of the atoms, changed in either place; results follow every change."""
    model = make_model("cpu", nf=2, na=1)
    atoms = make_atoms()

    def expected(fparam: Any, aparam: Any) -> float:
        return float(model.evaluate(COORDS, TYPES, BOX, fparam=fparam, aparam=aparam).energy)

    aparam = np.linspace(-1.0, 1.0, 5)[:, None]
    atoms.calc = DPA2Calculator(model, fparam=[0.5, -1.0], aparam=aparam)
    energies = [atoms.get_potential_energy()]
    assert energies[-1] == expected([0.5, -1.0], aparam)
    atoms.calc.set(fparam=np.array([0.7, -1.0]))
    assert atoms.calc.results == {}
    energies.append(atoms.get_potential_energy())
    assert energies[-1] == expected([0.7, -1.0], aparam)
    atoms.info["fparam"] = info = np.array([0.9, 0.0])
    energies.append(atoms.get_potential_energy())
    assert energies[-1] == expected([0.9, 0.0], aparam)
    info[1] = 2.0  # in place
    energies.append(atoms.get_potential_energy())
    assert energies[-1] == expected([0.9, 2.0], aparam)
    atoms.info["aparam"] = [0.25]
    energies.append(atoms.get_potential_energy())
    assert energies[-1] == expected([0.9, 2.0], [0.25])
    assert len(set(energies)) == len(energies)
    atoms.info.clear()
    assert atoms.get_potential_energy() == energies[1]
    with pytest.raises(dpa2.InputError, match="pass fparam="):
        DPA2Calculator(model).calculate(atoms)
    with pytest.raises(dpa2.InputError, match="head: a DPA2Calculator has no parameter"):
        atoms.calc.set(head="x")


# ------------------------------------------------------------------------------------------ ASE's rules


def test_no_stress_without_volume() -> None:
    atoms = MONOMER.copy()
    atoms.calc = DPA2Calculator(make_model("cpu"))
    assert np.isfinite(atoms.get_forces()).all()
    for ask in (atoms.get_stress, atoms.get_stresses):
        with pytest.raises(PropertyNotImplementedError, match="the cell of these atoms has no volume"):
            ask()
    atoms.set_cell([[5.0, 0, 0], [0, 6.0, 0], [0, 0, 0]])
    atoms.pbc = (True, True, False)
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError, match="no volume"):
        atoms.get_stress()
    assert "stress" not in atoms.calc.results
    with pytest.raises(PropertyNotImplementedError, match="dipole"):
        atoms.get_dipole_moment()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda atoms: atoms.set_cell(np.ones((3, 3))), "box is singular"),
        (lambda atoms: atoms.set_cell(1e-4 * BOX), "box is too small"),
        (lambda atoms: atoms.positions.__setitem__((1, 2), np.nan), "coords of atom 1: z = nan is not finite"),
        (lambda atoms: atoms.positions.__setitem__(1, COORDS[0]), "same place"),
    ],
)
def test_structures_that_cannot_be_evaluated(change: Callable[[Atoms], None], message: str) -> None:
    atoms = make_atoms()
    before = atoms.get_potential_energy()
    change(atoms)
    for evaluate in (atoms.calc.calculate, atoms.calc.get_potential_energy):  # the first must leave nothing behind
        with pytest.raises(dpa2.InputError, match=message):
            evaluate(atoms)
    atoms.positions, atoms.cell = COORDS, BOX
    assert atoms.get_potential_energy() == before


def test_without_atoms() -> None:
    with pytest.raises(dpa2.InputError, match="there are no atoms to evaluate"):
        DPA2Calculator(make_model("cpu")).get_potential_energy()


def test_evaluates_once_and_stresses_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model, atomic = dpa2.Model(model_data(), threads=1), []
    evaluate = model.evaluate

    def counted(*args: Any, **kwargs: Any) -> dpa2.Result:
        atomic.append(kwargs["atomic"])
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(model, "evaluate", counted)
    atoms = make_atoms()
    atoms.calc = DPA2Calculator(model)
    for ask in (atoms.get_potential_energy, atoms.get_forces, atoms.get_stress, atoms.get_potential_energies):
        ask()
    assert atomic == [False]
    atoms.get_stresses()
    atoms.get_forces()
    assert atomic == [False, True]
    atoms.set_initial_charges(np.ones(5))  # which the model does not know
    atoms.get_forces()
    assert not atoms.calc.calculation_required(atoms, ["energy", "stresses"])
    assert len(atomic) == 2


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("positions", lambda atoms: atoms.translate([0.0, 0.0, 1e-9])),
        ("cell", lambda atoms: atoms.set_cell(1.0001 * BOX)),
        ("pbc", lambda atoms: atoms.set_pbc((True, False, True))),
        ("numbers", lambda atoms: atoms.set_chemical_symbols("HHHCO")),
        ("fparam", lambda atoms: atoms.info.update(fparam=[1.0])),
        ("aparam", lambda atoms: atoms.info.update(aparam=[1.0])),
    ],
)
def test_changes_are_noticed(what: str, change: Callable[[Atoms], None]) -> None:
    atoms = make_atoms()
    atoms.get_potential_energy()
    assert atoms.calc.check_state(atoms) == []
    change(atoms)
    assert atoms.calc.check_state(atoms) == [what]


def test_results_are_copies() -> None:
    atoms = make_atoms()
    atoms.get_forces()[:] = 0.0
    assert np.abs(atoms.get_forces()).max() > 0.1


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda atoms: pickle.loads(pickle.dumps(atoms))])
def test_duplicates_are_independent_and_equal(duplicate: Callable[[Atoms], Atoms]) -> None:
    atoms = make_atoms()
    atoms.calc = DPA2Calculator(make_model("cpu", nf=2, na=1), fparam=[0.5, 1.0], aparam=[1.0], type_dict={"N": "C"})
    atoms.symbols[3] = "N"
    expected, forces = atoms.get_potential_energy(), atoms.get_forces()
    other = duplicate(atoms)
    assert other.calc is not atoms.calc
    assert other.get_potential_energy() == expected
    other.positions[0] += 0.1
    assert other.get_potential_energy() != expected
    other.positions[:] = COORDS
    assert other.get_potential_energy() == pytest.approx(expected, abs=SAME)
    np.testing.assert_allclose(other.get_forces(), forces, rtol=0, atol=SAME)
    assert atoms.calc.check_state(atoms) == []


def test_one_calculator_for_several_atoms() -> None:
    atoms = make_atoms()
    other = atoms.copy()
    other.calc = atoms.calc
    expected = atoms.get_potential_energy()
    other.positions[0] += 0.1
    assert other.get_potential_energy() != expected
    assert atoms.get_potential_energy() == expected


def test_files_keep_results(tmp_path: Path) -> None:
    atoms = make_atoms()
    forces, stress = atoms.get_forces(), atoms.get_stress()
    for name in ("one.extxyz", "one.traj"):
        ase.io.write(tmp_path / name, atoms)
        read = ase.io.read(tmp_path / name)
        np.testing.assert_allclose(read.get_forces(), forces, atol=1e-7)
        np.testing.assert_allclose(read.get_stress(), stress, atol=1e-7)


def test_only_this_module_needs_ase() -> None:
    code = "import sys, dpa2, dpa2.cli, dpa2.deepmd; sys.exit('ase' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ------------------------------------------------------------------------------------------ ASE's machines


def water(skin: float = 1.0, precision: Any = None) -> Atoms:
    atoms = ase.io.read(WATER)
    atoms.calc = DPA2Calculator(threads=1, skin=skin, precision=precision)
    return atoms


def run_dynamics(atoms: Atoms, steps: int) -> np.ndarray:
    """(steps + 1, 2) potential and total energy, at constant energy from 300 K."""
    rng = np.random.default_rng(5)
    spread = np.sqrt(atoms.get_masses() * units.kB * 300.0)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * spread[:, None])
    dynamics = VelocityVerlet(atoms, 0.25 * units.fs)
    energies = []
    dynamics.attach(lambda: energies.append((atoms.get_potential_energy(), atoms.get_total_energy())))
    dynamics.run(steps)
    return np.array(energies)


@pytest.mark.slow
def test_dynamics_conserves_energy_and_a_skin_changes_nothing() -> None:
    """The skin holds for all of these steps; then a jump by more than it."""
    with_skin, without = water(1.0, "float64"), water(0.0, "float64")
    energies = run_dynamics(with_skin, 20)
    assert np.ptp(energies[:, 0]) > 0.2
    assert np.ptp(energies[:, 1]) < 0.005
    run_dynamics(without, 20)
    assert np.abs(with_skin.positions - ase.io.read(WATER).positions).max() > 0.05
    np.testing.assert_allclose(with_skin.positions, without.positions, rtol=0, atol=1e-10)
    for atoms in (with_skin, without):
        atoms.rattle(0.05, seed=3)
        atoms.positions[0] += atoms.cell[0]
    np.testing.assert_allclose(with_skin.get_forces(), without.get_forces(), rtol=0, atol=1e-9)


@pytest.mark.filterwarnings("ignore::dpa2.ClosePairWarning")  # atoms meet in the large move
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_results_are_the_same_with_a_skin(precision: str) -> None:
    """Small moves, for which the list is kept, and after three of them a large one, for which it is not."""
    pair = [water(skin, precision) for skin in (1.0, 0.0)]
    for step, width in enumerate((0.0, 0.05, 0.05, 0.05, 0.4)):
        for atoms in pair:
            atoms.rattle(width, seed=step)
        one, other = pair
        assert one.get_potential_energy() == other.get_potential_energy()
        np.testing.assert_array_equal(one.get_forces(), other.get_forces())
        np.testing.assert_array_equal(one.get_stress(), other.get_stress())


def test_optimiser_lowers_energy_and_forces() -> None:
    atoms = MONOMER.copy()
    atoms.calc = DPA2Calculator(threads=1, precision="float64")
    before, strongest = atoms.get_potential_energy(), np.abs(atoms.get_forces()).max()
    assert strongest > 0.1
    assert BFGS(atoms, logfile=None).run(fmax=1e-4, steps=60)
    assert np.abs(atoms.get_forces()).max() <= 1e-4
    assert atoms.get_potential_energy() < before
    assert atoms.get_distance(0, 1) == pytest.approx(0.97, abs=0.05)


@pytest.mark.parametrize("make_filter", [FrechetCellFilter, StrainFilter])
def test_cell_filters_lower_the_energy(make_filter: Any) -> None:
    atoms = make_atoms()
    energy = atoms.get_potential_energy()
    filtered = make_filter(atoms)
    strongest = np.linalg.norm(filtered.get_forces(), axis=1).max()
    BFGS(filtered, logfile=None, maxstep=0.02).run(fmax=1e-4, steps=4)
    assert atoms.get_potential_energy() < energy
    assert np.linalg.norm(filtered.get_forces(), axis=1).max() != strongest
    assert not np.allclose(atoms.cell, BOX, atol=1e-3)


def relaxed_monomer() -> Atoms:
    atoms = MONOMER.copy()
    atoms.calc = DPA2Calculator(threads=1, precision="float64")
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=60)
    return atoms


def test_vibrations_of_a_molecule(tmp_path: Path) -> None:
    """Three modes, and six numbers next to zero. The embedded model is made for the liquid: the modes are soft."""
    atoms = relaxed_monomer()
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=0.01)
    vibrations.run()
    wavenumbers = vibrations.get_frequencies()
    assert len(wavenumbers) == 9
    assert np.abs(wavenumbers[:6]).max() < 100.0
    bend, *stretches = wavenumbers[6:].real
    assert 1000.0 < bend < 2000.0
    assert all(2000.0 < stretch < 4500.0 for stretch in stretches)
    exact = VibrationsData.from_2d(atoms, atoms.calc.get_hessian(atoms)).get_frequencies()
    np.testing.assert_allclose(exact[6:].real, wavenumbers[6:].real, rtol=1e-3)


def test_phonons_agree_with_vibrations(tmp_path: Path) -> None:
    """A molecule in a large periodic box: phonons at the zone centre are its vibrations."""
    atoms = relaxed_monomer()
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=0.01)
    vibrations.run()
    atoms.set_cell(np.eye(3) * 16.0)
    atoms.pbc = True
    phonons = Phonons(atoms, atoms.calc, supercell=(1, 1, 1), delta=0.01, name=str(tmp_path / "phonons"))
    phonons.run()
    phonons.read(acoustic=False)
    found = phonons.band_structure([[0.0, 0.0, 0.0]], verbose=False)[0] / units.invcm
    np.testing.assert_allclose(found[6:], vibrations.get_frequencies()[6:].real, rtol=1e-4)
