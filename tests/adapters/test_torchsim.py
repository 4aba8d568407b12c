"""dpa2.torchsim: TorchSim's own tests of models, and dpa2 itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from dpa2.files import ModelData
from helpers import relative
from kind_models import kind_model
from pages import run_page
from random_model import random_model, random_weights

ts = needs.package("torch_sim")
import torch  # noqa: E402
from dpa2.torchsim import DPA2Model  # noqa: E402
from torch_sim.models.interface import validate_model_outputs as assert_model_outputs  # noqa: E402
from torch_sim.testing import (  # noqa: E402
    CONSISTENCY_SIMSTATES,
    SIMSTATE_GENERATORS,
    assert_model_calculator_consistency,
)

pytestmark = [needs.native, pytest.mark.filterwarnings("ignore")]

CPU = torch.device("cpu")
#: of the structures that TorchSim tests models with
ELEMENTS = ["H", "C", "N", "O", "Mg", "Al", "Si", "Ar", "Ca", "Ti", "Fe", "Ni", "Cu", "Ga", "Sb", "Os"]
SAME = 1e-12


@cache
def model() -> dpa2.Model:
    rng = np.random.default_rng(7)
    config, _ = random_model(
        rng,
        repinit={"neuron": [3, 6], "nsel": 200, "three_body_sel": 40},
        repformer={"nlayers": 2, "g1_dim": 6, "g2_dim": 4, "nsel": 40},
        fitting={"neuron": [5, 5]},
    )
    config["type_map"] = ELEMENTS
    weights = random_weights(rng, config)
    return dpa2.Model(ModelData(config, weights), threads=1, on_overflow="ignore")


def water() -> Any:
    import ase.io

    return ase.io.read(Path(__file__).parents[2] / "examples" / "water_192.extxyz")


def test_torchsim_validates_its_outputs() -> None:
    assert_model_outputs(DPA2Model(model()), CPU, torch.float64)


@pytest.mark.parametrize("name", CONSISTENCY_SIMSTATES)
def test_torchsim_finds_it_consistent_with_the_calculator(name: str) -> None:
    from dpa2.ase import DPA2Calculator

    state = SIMSTATE_GENERATORS[name](CPU, torch.float64)
    periodic = bool(state.pbc.all())  # calculators of open systems have no stress
    assert_model_calculator_consistency(DPA2Model(model(), compute_stress=periodic), DPA2Calculator(model()), state)


def test_systems_of_several_sizes_and_boundaries() -> None:
    from ase.build import bulk, molecule

    slab = bulk("Cu", cubic=True)
    slab.pbc = (True, True, False)
    systems = [bulk("Si", cubic=True), slab, bulk("Fe", cubic=True) * (2, 1, 1)]
    for group in (systems[::2], systems[1:2], [molecule("C6H6"), molecule("H2O")]):
        found = DPA2Model(model())(ts.io.atoms_to_state(group, CPU, torch.float64))
        first = 0
        for k, atoms in enumerate(group):
            box, pbc = (atoms.cell.array, atoms.pbc) if atoms.pbc.any() else (None, None)
            wanted = model().evaluate(atoms.positions, list(atoms.symbols), box, pbc)
            rows = slice(first, first + len(atoms))
            first += len(atoms)
            assert abs(float(found["energy"][k]) - wanted.energy) <= SAME * max(1.0, abs(wanted.energy))
            assert relative(found["energies"][rows], wanted.atom_energy) <= SAME
            assert relative(found["forces"][rows], wanted.forces) <= SAME
            if box is None:
                assert bool(found["stress"][k].isnan().all())
            else:
                symmetric = (wanted.virial + wanted.virial.T) / -2.0 / atoms.get_volume()
                assert relative(found["stress"][k], symmetric) <= SAME


@pytest.mark.slow
def test_dynamics_conserve_energy() -> None:
    potential = DPA2Model(dpa2.load(precision="float64", threads=1))
    state = ts.io.atoms_to_state(water(), CPU, torch.float64)
    kT = torch.tensor(300.0 * 8.617333e-5, dtype=torch.float64)
    dt = torch.tensor(0.25 * 0.09822694788, dtype=torch.float64)  # of a femtosecond in angstrom sqrt(u / eV)
    now = ts.nve_init(state=state, model=potential, kT=kT)

    def total(one: Any) -> tuple[float, float]:
        kinetic = float((one.momenta.square().sum(-1) / one.masses).sum() / 2)
        return float(one.energy) + kinetic, kinetic

    before, kinetic = total(now)
    changes = []
    for _ in range(100):
        now = ts.nve_step(state=now, model=potential, dt=dt)
        changes.append(total(now)[0] - before)
    assert kinetic > 1.0
    assert np.abs(changes).max() <= 2e-3 * kinetic


@pytest.mark.slow
def test_relaxations() -> None:
    """Two systems of different size until their forces are small, and one with its cell for some steps."""
    from ase.build import molecule

    own = dpa2.load(precision="float64", threads=1)
    single, pair = molecule("H2O"), molecule("H2O")
    other = molecule("H2O")
    other.rotate(90, "x")
    other.translate((0.0, 0.0, 3.1))
    pair += other
    start = [single, pair]
    small = ts.generate_force_convergence_fn(force_tol=0.02, include_cell_forces=False)
    potential = DPA2Model(own, compute_stress=False)
    found = ts.optimize(start, potential, optimizer=ts.Optimizer.fire, convergence_fn=small, max_steps=500)
    for before, after in zip(start, found.to_atoms(), strict=True):
        relaxed = own.evaluate(after.positions, list(after.symbols))
        assert np.linalg.norm(relaxed.forces, axis=1).max() <= 0.02
        assert relaxed.energy < own.evaluate(before.positions, list(before.symbols)).energy

    state = ts.io.atoms_to_state(water(), CPU, torch.float64)
    potential = DPA2Model(own)
    now = ts.fire_init(state, potential, cell_filter=ts.CellFilter.frechet)
    first = float(now.energy)
    for _ in range(5):
        now = ts.fire_step(now, potential)
    assert float(now.energy) < first
    assert bool((now.cell != state.cell).any())


def test_wrong_models_and_elements() -> None:
    from ase.build import bulk

    with pytest.raises(dpa2.InputError, match="outputs: 'energy' is none of those"):
        DPA2Model(kind_model("dipole"))
    with pytest.raises(dpa2.InputError, match="atom 0 is Au, which the model does not know"):
        DPA2Model(model())(ts.io.atoms_to_state(bulk("Au"), CPU, torch.float64))


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_page("adapters.md", tmp_path, monkeypatch, "TorchSim")
    assert names["found"]["forces"].shape == (384, 3)
    assert names["found"]["stress"].shape == (2, 3, 3)
