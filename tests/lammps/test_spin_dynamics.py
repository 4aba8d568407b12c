"""fix nve/dpa2/spin: energy and lengths of spins are kept, time can be turned around, on any ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dpa2.files import write_safetensors
from lammps_runs import (
    COEFF,
    Setup,
    assert_python_spins,
    difference,
    engine_of,
    measure_spins,
    refusal,
    scattered,
    spin_data,
    succeed,
    table,
)

SYSTEM = scattered("spins", np.diag([7.0, 7.5, 8.0]).tolist(), 12, 17, 1.9)
SPINS = np.random.default_rng(5).normal(np.array([0.0, 0.0, 0.8]), 0.4, size=(12, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_safetensors(tmp_path / "spin.safetensors", spin_data(softness=0.1))
    SYSTEM.write(tmp_path, spins=SPINS)
    return tmp_path


def lines(*more: str, fix: str = "nve/dpa2/spin") -> list[str]:
    start = Setup("spins", style="dpa2/spin spin.safetensors", coeff=[COEFF], atom_style="spin").lines()
    return [*start, "velocity all create 20 7 loop geom", "timestep 0.001", f"fix 1 all {fix}", *more]


def dynamics(steps: int, every: int) -> list[str]:
    """Energies to ``energies``, the last state to ``end``."""
    return [
        "thermo_style custom step etotal pe ke",
        f"fix out all ave/time {every} 1 {every} c_thermo_pe v_total file energies format ' %.17g'",
        "compute spins all property/atom sp spx spy spz",
        f"run {steps}",
        "write_dump all custom end id x y z vx vy vz c_spins[1] c_spins[2] c_spins[3] c_spins[4] "
        "modify sort id format float %.17g",
    ]


TOTAL = ["variable total equal pe+ke"]


def check_energy(folder: Path, steps: int, every: int) -> float:
    """The largest difference from the first energy, which the potential energy alone exceeds by far."""
    rows = np.loadtxt(folder / "energies")
    assert len(rows) == steps // every + 1
    drift = float(np.abs(rows[:, 2] - rows[0, 2]).max())
    assert np.ptp(rows[:, 1]) > 50.0 * drift
    return drift


def test_energy_and_lengths_are_kept(folder: Path) -> None:
    succeed(folder, [*lines(), *TOTAL, *dynamics(60, 5)])
    assert check_energy(folder, 60, 5) < 1e-6
    end = table(folder / "end")
    assert difference(end[:, 7], np.linalg.norm(SPINS, axis=1)) < 1e-12
    assert np.abs(np.linalg.norm(end[:, 8:11], axis=1) - 1.0).max() < 1e-8
    turned = np.linalg.norm(end[:, 8:11] - SPINS / np.linalg.norm(SPINS, axis=1)[:, None], axis=1)
    assert turned[SYSTEM.types != 1].max() > 0.1
    assert turned[SYSTEM.types == 1].max() < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, *(pytest.param(ranks, marks=pytest.mark.minutes) for ranks in (2, 4))])
def test_energy_over_a_thousand_steps(folder: Path, ranks: int) -> None:
    """And where atoms and spins are then, the Python engine finds the same; velocities would add to the pressure."""
    there = ["unfix out", "velocity all set 0.0 0.0 0.0", *measure_spins("last")]
    succeed(folder, [*lines(), *TOTAL, *dynamics(1000, 10), *there], ranks)
    assert check_energy(folder, 1000, 10) < 2e-6
    end = table(folder / "end")
    assert np.abs(end[:, 1:4] - SYSTEM.coords).max() > 0.1
    last = replace(SYSTEM, coords=end[:, 1:4])
    assert_python_spins(folder, "last", last, engine_of(spin_data(softness=0.1)), end[:, 7:8] * end[:, 8:11])


@pytest.mark.slow
def test_ranks_and_newton_make_no_difference(folder: Path) -> None:
    found = []
    for ranks, newton in ((1, "on"), (2, "off"), (4, "on")):
        script = ["newton off" if line == "newton on" and newton == "off" else line for line in lines()]
        succeed(folder, [*script, *TOTAL, *dynamics(20, 5)], ranks)
        found.append(table(folder / "end"))
    for other in found[1:]:
        assert difference(other, found[0]) < 1e-8


def test_back_in_time(folder: Path) -> None:
    """A negative time step leads back: the scheme is symmetric in time."""
    succeed(folder, [*lines(), *TOTAL, "run 10", "timestep -0.001", *dynamics(10, 5)])
    end = table(folder / "end")
    assert difference(end[:, 1:4], SYSTEM.coords) < 1e-8
    assert difference(end[:, 8:11], SPINS / np.linalg.norm(SPINS, axis=1)[:, None]) < 1e-7


def test_spins_on_a_frozen_lattice(folder: Path) -> None:
    """Atoms stay, and the energy of the spins is kept, in an external field as well."""
    field = ["fix 2 all precession/spin zeeman 0.1 0.0 0.0 1.0", "fix_modify 2 energy yes"]
    succeed(folder, [*lines(*field, fix="nve/dpa2/spin lattice frozen"), *TOTAL, *dynamics(40, 5)])
    assert np.array_equal(table(folder / "end")[:, 1:4], SYSTEM.coords)
    rows = np.loadtxt(folder / "energies")
    assert np.ptp(rows[:, 1]) < 1e-6


def test_an_atom_without_a_spin(folder: Path) -> None:
    """LAMMPS has no direction for it; it has none to turn."""
    spins = SPINS.copy()
    spins[int(np.argmax(SYSTEM.types == 1))] = 0.0
    SYSTEM.write(folder, spins=spins)
    succeed(folder, [*lines(), *TOTAL, *dynamics(10, 5)])
    assert check_energy(folder, 10, 5) < 1e-6


@pytest.mark.parametrize(
    ("fix", "message"),
    [
        ("nve/dpa2/spin moving", "fix nve/dpa2/spin: unknown keyword 'moving'"),
        ("nve/dpa2/spin lattice", "fix nve/dpa2/spin: lattice needs a value"),
        ("nve/dpa2/spin lattice no", "lattice must be moving or frozen, not 'no'"),
        ("nve/dpa2/spin tolerance 0", "tolerance must be more than 0"),
        ("nve/dpa2/spin iterations 0", "iterations must be 1 or more"),
        ("nve/dpa2/spin iterations 1", "are not found within 1 iterations: the time step is too long"),
    ],
)
def test_refusals(folder: Path, fix: str, message: str) -> None:
    assert message in refusal(folder, [*lines(fix=fix), "run 1"])


def test_damping_is_refused(folder: Path) -> None:
    more = "fix 2 all langevin/spin 10.0 0.01 17"
    assert "fix nve/dpa2/spin: fix langevin/spin does not go with it" in refusal(folder, [*lines(more), "run 1"])
