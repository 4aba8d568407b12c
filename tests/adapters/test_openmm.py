"""`dpa2.openmm.make_force`: the model's energy and forces in OpenMM's units, in every way that OpenMM uses a force."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, SYMBOLS, TYPES, make_model, model_data
from cases import DIFFERENCE, SAME, STEP
from dpa2.data import read_structures
from dpa2.files import ModelData
from dpa2.model import Model
from kind_files import make_fitting

pytest.importorskip("openmm", reason=needs.reason("openmm"))

import openmm
from dpa2.openmm import make_force
from openmm import app, unit

NM, KJ = unit.nanometer, unit.kilojoule_per_mole
#: one eV in kJ/mol, from OpenMM's own constants
EV = (1.602176634e-19 * unit.joule * unit.AVOGADRO_CONSTANT_NA).value_in_unit(KJ)
WATER = Path(__file__).resolve().parents[2] / "examples" / "training" / "water_48.extxyz"
MASSES = {"O": 15.999, "H": 1.008, "C": 12.011}


def make_context(
    force: openmm.Force,
    symbols: list[str],
    coords: np.ndarray,
    box: np.ndarray | None = None,
    integrator: Any = None,
    platform: str = "Reference",
    others: Any = (),
) -> openmm.Context:
    system = openmm.System()
    for symbol in symbols:
        system.addParticle(MASSES[symbol])
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*(box / 10.0))
    for each in (force, *others):
        system.addForce(each)
    integrator = openmm.VerletIntegrator(0.0005) if integrator is None else integrator
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(coords / 10.0)
    return context


def energy_of(context: openmm.Context) -> float:
    """eV."""
    return float(context.getState(energy=True).getPotentialEnergy().value_in_unit(KJ)) / EV


def forces_of(context: openmm.Context) -> np.ndarray:
    """eV/angstrom."""
    forces = context.getState(forces=True).getForces(asNumpy=True)
    return np.asarray(forces.value_in_unit(KJ / NM)) / EV / 10.0


def total_energy(context: openmm.Context) -> tuple[float, float]:
    """Potential plus kinetic, and kinetic alone, eV."""
    state = context.getState(energy=True)
    potential, kinetic = (e.value_in_unit(KJ) / EV for e in (state.getPotentialEnergy(), state.getKineticEnergy()))
    return potential + kinetic, kinetic


def topology_of(symbols: list[str | None], box: np.ndarray | None = None) -> app.Topology:
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for symbol in symbols:
        topology.addAtom("X", None if symbol is None else app.Element.getBySymbol(symbol), residue)
    if box is not None:
        topology.setPeriodicBoxVectors([openmm.Vec3(*row) for row in (box / 10.0).tolist()] * NM)
    return topology


def water() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Sixteen molecules."""
    (frame,) = next(iter(read_structures(str(WATER))))
    assert frame.names is not None
    assert frame.box is not None
    return [frame.names[t] for t in frame.types], frame.coords, frame.box


@pytest.mark.parametrize("box", [None, BOX], ids=["open", "triclinic"])
def test_energy_and_forces_are_those_of_the_model(box: np.ndarray | None) -> None:
    expected = make_model("cpu").evaluate(COORDS, TYPES, box)
    for atoms, periodic in ((topology_of(SYMBOLS, box), None), (SYMBOLS, box is not None), (TYPES, box is not None)):
        context = make_context(make_force(atoms, make_model("cpu"), periodic=periodic), SYMBOLS, COORDS, box)
        assert energy_of(context) == pytest.approx(expected.energy, rel=SAME)
        np.testing.assert_allclose(forces_of(context), expected.forces, rtol=SAME, atol=SAME)


def test_on_the_platform_in_single_precision() -> None:
    expected = make_model("cpu").evaluate(COORDS, TYPES, BOX)
    context = make_context(
        make_force(SYMBOLS, make_model("cpu"), periodic=True), SYMBOLS, COORDS, BOX, None, platform="CPU"
    )
    assert energy_of(context) == pytest.approx(expected.energy, rel=1e-5)
    np.testing.assert_allclose(forces_of(context), expected.forces, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("box", [None, BOX], ids=["open", "triclinic"])
def test_forces_are_the_slope_of_the_energy(box: np.ndarray | None) -> None:
    context = make_context(make_force(SYMBOLS, make_model("cpu"), periodic=box is not None), SYMBOLS, COORDS, box)
    forces = forces_of(context)

    def energy(atom: int, axis: int, step: float) -> float:
        moved = COORDS.copy()
        moved[atom, axis] += step
        context.setPositions(moved / 10.0)
        return energy_of(context)

    for atom, axis in ((0, 0), (2, 1), (4, 2)):
        near, far = (energy(atom, axis, k * STEP) - energy(atom, axis, -k * STEP) for k in (1, 2))
        slope = (8.0 * near - far) / (12.0 * STEP)
        assert slope == pytest.approx(-forces[atom, axis], abs=DIFFERENCE)


def test_wrapping_and_a_new_box_are_followed() -> None:
    model = make_model("cpu")
    context = make_context(make_force(SYMBOLS, model, periodic=True), SYMBOLS, COORDS, BOX)
    context.setPositions((COORDS + np.array([[1, -2, 0], [0, 0, 3], [0, 0, 0], [0, 1, 0], [-1, 0, 0]]) @ BOX) / 10.0)
    assert energy_of(context) == pytest.approx(model.evaluate(COORDS, TYPES, BOX).energy, rel=SAME)
    box = 1.05 * BOX
    context.setPeriodicBoxVectors(*(box / 10.0))
    context.setPositions(COORDS / 10.0)
    assert energy_of(context) == pytest.approx(model.evaluate(COORDS, TYPES, box).energy, rel=SAME)


def test_a_part_of_the_particles() -> None:
    model, part = make_model("cpu"), [4, 0, 1]
    symbols = [*SYMBOLS, "C"]
    coords = np.concatenate([COORDS, [[2.0, 2.0, 2.0]]])
    names = [*SYMBOLS, "Xe"]  # no business of the model
    for atoms in (names, topology_of([*SYMBOLS, None], BOX)):
        context = make_context(make_force(atoms, model, particles=part, periodic=True), symbols, coords, BOX)
        expected = model.evaluate(coords[part], [SYMBOLS[k] for k in part], BOX)
        assert energy_of(context) == pytest.approx(expected.energy, rel=SAME)
        forces = forces_of(context)
        np.testing.assert_allclose(forces[part], expected.forces, rtol=SAME, atol=SAME)
        assert not np.delete(forces, part, axis=0).any()


def test_beside_another_force() -> None:
    pull = openmm.CustomExternalForce("3*x")
    for k in range(len(SYMBOLS)):
        pull.addParticle(k)
    model = make_model("cpu")
    context = make_context(make_force(SYMBOLS, model, periodic=False), SYMBOLS, COORDS, others=[pull])
    alone = model.evaluate(COORDS, TYPES)
    assert energy_of(context) == pytest.approx(alone.energy + 3.0 * COORDS[:, 0].sum() / 10.0 / EV, rel=SAME)


def test_parameters() -> None:
    model = Model(model_data(nf=2, na=1), threads=1)
    fparam, aparam = np.array([0.3, -0.2]), np.arange(5.0)[:, None] / 7.0
    force = make_force(SYMBOLS, model, periodic=False, fparam=fparam, aparam=aparam)
    expected = model.evaluate(COORDS, TYPES, fparam=fparam, aparam=aparam)
    fparam += 1.0  # the force has a copy
    assert energy_of(make_context(force, SYMBOLS, COORDS)) == pytest.approx(expected.energy, rel=SAME)
    with pytest.raises(dpa2.InputError, match="takes 2 frame parameters"):
        make_force(SYMBOLS, model, periodic=False)
    with pytest.raises(dpa2.InputError, match=r"aparam must have shape \(2, 1\)"):
        make_force(SYMBOLS, model, particles=[0, 1], periodic=False, fparam=fparam, aparam=aparam)


def test_serialization_keeps_the_model() -> None:
    system = openmm.System()
    for symbol in SYMBOLS:
        system.addParticle(MASSES[symbol])
    system.setDefaultPeriodicBoxVectors(*(BOX / 10.0))
    system.addForce(make_force(SYMBOLS, make_model("cpu"), periodic=True))
    again = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
    assert again.usesPeriodicBoundaryConditions()
    assert again.getForce(0).getName() == "dpa2"
    context = openmm.Context(again, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(COORDS / 10.0)
    assert energy_of(context) == pytest.approx(make_model("cpu").evaluate(COORDS, TYPES, BOX).energy, rel=SAME)


@pytest.mark.filterwarnings("ignore::dpa2.ClosePairWarning")  # OpenMM's search along a line tries long steps
def test_minimization_goes_downhill() -> None:
    symbols, coords, _ = water()
    context = make_context(make_force(symbols[:3], periodic=False), symbols[:3], coords[:3])
    before = energy_of(context)
    openmm.LocalEnergyMinimizer.minimize(context, 1.0, 20)
    assert energy_of(context) < before
    assert np.abs(forces_of(context)).max() < 0.05


@pytest.mark.slow
def test_dynamics_conserves_the_energy() -> None:
    """Two hundred steps, and the error of the integrator is of second order: half the step makes a quarter of it."""
    symbols, coords, box = water()
    spread = []
    for step, count in ((0.001, 100), (0.0005, 200)):
        force = make_force(topology_of(list(symbols), box), precision="float64", threads=1)
        context = make_context(force, symbols, coords, box, openmm.VerletIntegrator(step))
        context.setVelocitiesToTemperature(300.0, 5)
        found = []
        for _ in range(count // 4):
            context.getIntegrator().step(4)
            found.append(total_energy(context))
        total, kinetic = np.transpose(found)
        spread.append(np.std(total))
    assert spread[1] < 0.4 * spread[0]
    assert spread[1] < 0.05 * np.std(kinetic)


@pytest.mark.slow
def test_a_barostat_changes_the_box() -> None:
    symbols, coords, box = water()
    model = dpa2.load(precision="float64", threads=1, skin=1.0)
    context = make_context(
        make_force(topology_of(list(symbols), box), model),
        symbols,
        coords,
        box,
        openmm.LangevinMiddleIntegrator(300.0, 1.0, 0.0005),
        others=[openmm.MonteCarloBarostat(1000.0, 300.0, 1)],
    )
    context.setVelocitiesToTemperature(300.0, 5)
    volumes = set()
    for _ in range(5):
        context.getIntegrator().step(4)
        state = context.getState(positions=True, energy=True, forces=True)
        volumes.add(state.getPeriodicBoxVolume().value_in_unit(NM**3))
        now = 10.0 * np.asarray(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(NM))
        expected = model.evaluate(10.0 * state.getPositions(asNumpy=True).value_in_unit(NM), symbols, now)
        assert state.getPotentialEnergy().value_in_unit(KJ) / EV == pytest.approx(expected.energy, rel=SAME)
        np.testing.assert_allclose(forces_of(context), expected.forces, rtol=0, atol=1e-9)
    assert len(volumes) > 2


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("atoms", "options", "match"),
    [
        (SYMBOLS, {}, "periodic must be True or False where there is no topology"),
        (SYMBOLS, {"periodic": "yes"}, "periodic must be True or False"),
        ([], {"periodic": False}, "there are no particles"),
        (["O", "Cu"], {"periodic": False}, "particle 1 is 'Cu', which the model does not know; its types are O, H, C"),
        ([0, 7], {"periodic": False}, "atom 1 has type 7, but the model has 3 types"),
        ([0.5, 1.0], {"periodic": False}, "types must be integers"),
        ("OHH", {"periodic": False}, "a sequence with a symbol for each particle, got one string"),
        (3, {"periodic": False}, "a sequence with a symbol for each particle"),
        (SYMBOLS, {"periodic": False, "particles": []}, "particles must be a sequence of indices of particles, at lea"),
        (SYMBOLS, {"periodic": False, "particles": [0, 5]}, "indices go from 0 to 4, got 0 to 5"),
        (SYMBOLS, {"periodic": False, "particles": [-1]}, "indices go from 0 to 4, got -1 to -1"),
        (SYMBOLS, {"periodic": False, "particles": [1, 1]}, "an index stands there twice"),
        (SYMBOLS, {"periodic": False, "particles": [0.0]}, "particles must be a sequence of indices"),
        (SYMBOLS, {"periodic": False, "skin": 1.0}, "skin: a dpa2.Model has its own"),
        (SYMBOLS, {"periodic": False, "fparam": [1.0]}, "takes no frame parameters"),
    ],
)
def test_bad_arguments(atoms: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(dpa2.InputError, match=match):
        make_force(atoms, make_model("cpu"), **options)


def test_a_virtual_site_is_named() -> None:
    with pytest.raises(dpa2.InputError, match=r"particle 1 has no element \(a virtual site\?\); leave it out"):
        make_force(topology_of(["O", None]), make_model("cpu"))


def test_a_model_that_is_no_potential() -> None:
    data: ModelData = make_fitting("dipole")
    with pytest.raises(dpa2.InputError, match="made of a potential, but this model is of kind 'dipole'"):
        make_force(["O"], Model(data, threads=1), periodic=False)


def test_what_cannot_be_evaluated_reaches_the_caller() -> None:
    context = make_context(make_force(SYMBOLS, make_model("cpu"), periodic=False), SYMBOLS, COORDS)
    bad = COORDS.copy()
    bad[1, 2] = np.nan
    context.setPositions(bad / 10.0)
    with pytest.raises(openmm.OpenMMException, match="coords of atom 1: z = nan is not finite"):
        energy_of(context)
    context.setPositions(COORDS / 10.0)
    assert energy_of(context) == pytest.approx(make_model("cpu").evaluate(COORDS, TYPES).energy, rel=SAME)
    other = make_context(make_force(SYMBOLS, make_model("cpu"), periodic=False), SYMBOLS[:3], COORDS[:3])
    with pytest.raises(openmm.OpenMMException, match="made for 5 particles, but the system has 3"):
        energy_of(other)


def test_an_older_openmm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(openmm, "PythonForce")
    with pytest.raises(dpa2.InputError, match=r"has no PythonForce; install 8\.4 or newer"):
        make_force(SYMBOLS, make_model("cpu"), periodic=False)


def test_dpa2_does_not_import_openmm() -> None:
    program = "import sys, dpa2; dpa2.load(); print('openmm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
