"""Derivatives, dynamics, units, and the company of other pair styles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dpa2.files import write_safetensors
from lammps_runs import (
    NKTV2P,
    Setup,
    answer,
    measure,
    model_data,
    prepare,
    python_model,
    scattered,
    succeed,
    systems,
    table,
)

TRICLINIC = next(system for system in systems() if system.name == "triclinic")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the models and systems, and ``soft.safetensors``, whose forces atoms survive."""
    prepare(tmp_path)
    write_safetensors(tmp_path / "soft.safetensors", model_data(softness=0.02))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("newton", ["on", "off"])
def test_forces_and_virial_are_differences_of_the_energy(folder: Path, newton: str) -> None:
    orders = {"c_p": (1, 2, 3, 6, 5, 4), "f_v": (1, 2, 3, 4, 5, 6)}  # the difference has xx yy zz yz xz xy
    numbers = {name: " ".join(f"$({name}[{k}]:%.17g)" for k in order) for name, order in orders.items()}
    lines = [
        *Setup("triclinic", newton, before_box=["atom_modify map yes"]).lines(),
        "fix d all numdiff 1 1.0e-4",
        "compute p all pressure NULL virial",
        "fix v all numdiff/virial 1 1.0e-5",
        "thermo_style custom step c_p[1] c_p[2] c_p[3] c_p[4] c_p[5] c_p[6] f_v[1] f_v[2] f_v[3] f_v[4] f_v[5] f_v[6]",
        "run 0",
        *[f'print "{text}" file {name}' for name, text in numbers.items()],
        "write_dump all custom forces.dump fx fy fz f_d[1] f_d[2] f_d[3] modify format float %.17g",
    ]
    succeed(folder, lines, ranks=2)
    rows = table(folder / "forces.dump")
    assert rows.shape == (len(TRICLINIC.types), 6)
    assert np.abs(rows[:, :3] - rows[:, 3:]).max() < 1e-6
    ours, theirs = (np.array((folder / name).read_text().split(), dtype=float) for name in orders)
    assert np.abs(ours - theirs).max() < 1e-6 * max(1000.0, float(np.abs(ours).max()))


def dynamics(fix: str, steps: int, ranks: int, folder: Path) -> np.ndarray:
    """Numbers of the last step: total energy and volume, then the unwrapped coordinates."""
    lines = [
        *Setup("triclinic", style="dpa2 soft.safetensors").lines(),
        "neighbor 0.5 bin",
        "neigh_modify delay 0 every 1 check yes",
        "velocity all create 900.0 4711 loop all",
        fix,
        "timestep 0.001",
        "thermo_style custom step etotal vol",
        "run 0",
        "variable start equal $(etotal:%.17g)",
        f"run {steps}",
        'print "${start} $(etotal:%.17g) $(vol:%.17g)" file end',
        "write_dump all custom end.dump id xu yu zu modify sort id format float %.17g",
    ]
    output = succeed(folder, lines, ranks)
    assert int(output.split("Neighbor list builds = ")[-1].split()[0]) > 0
    return np.concatenate(
        [np.array((folder / "end").read_text().split(), dtype=float), table(folder / "end.dump")[:, 1:].ravel()]
    )


@pytest.mark.slow
def test_constant_pressure_with_migrating_atoms_is_the_same_on_any_number_of_ranks(folder: Path) -> None:
    fix = "fix 1 all npt temp 900 900 0.1 tri 0.0 0.0 0.5"
    one = dynamics(fix, 200, 1, folder)
    for ranks in (2, 4):
        many = dynamics(fix, 200, ranks, folder)
        assert np.abs(many - one).max() < 1e-10 * np.abs(one).max()
    assert abs(one[2] - np.linalg.det(TRICLINIC.box)) > 0.1


def test_energy_is_conserved(folder: Path) -> None:
    end = dynamics("fix 1 all nve", 300, 2, folder)
    assert abs(end[1] - end[0]) < 2e-4 * len(TRICLINIC.types)


@pytest.mark.parametrize(
    ("units", "length", "energy"),
    [("real", 1.0, 23.0605), ("si", 1e-10, 1.602177e-19), ("electron", 1.0 / 0.5291772, 0.0367493)],
)
def test_units(folder: Path, units: str, length: float, energy: float) -> None:
    system = next(s for s in systems() if s.name == "orthogonal")
    system.write(folder, length)
    lines = Setup("orthogonal", units=units, after_box=[f"neighbor {0.5 * length} bin"]).lines() + measure("found")
    succeed(folder, lines, ranks=2)
    found = answer(folder, "found")
    expected = python_model().evaluate(system.coords, system.types, system.box)
    assert found.energy == pytest.approx(energy * float(expected.energy), rel=1e-5)
    assert np.abs(found.forces / (energy / length) - expected.forces).max() < 2e-5 * np.abs(expected.forces).max()


def test_light_and_heavy_units_agree(folder: Path) -> None:
    """Pressure goes through LAMMPS's own conversion."""
    pressures = []
    for units, bar in (("metal", 1.0), ("real", 1.01325)):
        succeed(folder, Setup("orthogonal", units=units).lines() + measure("found"))
        pressures.append(answer(folder, "found").pressure * bar)
    assert np.abs(pressures[0] - pressures[1]).max() < 2e-5 * np.abs(pressures[0]).max()
    assert np.abs(pressures[0]).max() > 100.0


@pytest.mark.parametrize("newton", ["on", "off"])
def test_with_another_style_on_top(folder: Path, newton: str) -> None:
    lj = "lj/cut 3.0"
    alone = Setup("triclinic", newton, style=lj, coeff=["pair_coeff * * 0.01 1.5"])
    both = Setup(
        "triclinic",
        newton,
        style=f"hybrid/overlay dpa2 model.safetensors {lj}",
        coeff=["pair_coeff * * dpa2 O H C", "pair_coeff * * lj/cut 0.01 1.5"],
    )
    succeed(
        folder,
        Setup("triclinic", newton).lines()
        + measure("a")
        + alone.lines()
        + [line for line in measure("b") if "c_c" not in line or line.startswith("write")]
        + both.lines()
        + measure("c"),
        ranks=2,
    )
    a, b, c = (answer(folder, name) for name in "abc")
    assert c.energy == pytest.approx(a.energy + b.energy, rel=1e-12)
    assert np.abs(c.forces - a.forces - b.forces).max() < 1e-11
    assert np.abs(c.pressure - a.pressure - b.pressure).max() < 1e-11 * np.abs(c.pressure).max()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("newton", ["on", "off"])
def test_atoms_without_a_model_take_no_part(folder: Path, ranks: int, newton: str) -> None:
    nothing = [f"pair_coeff {pair} lj/cut 0.0 1.0" for pair in ("1 3", "2 3", "3 3")]
    hybrid = Setup(
        "triclinic",
        newton,
        style="hybrid dpa2 model.safetensors lj/cut 3.0",
        coeff=["pair_coeff * * dpa2 O H NULL", *nothing],
    )
    plain = Setup("triclinic", newton, coeff=["pair_coeff * * O H NULL"])
    succeed(folder, hybrid.lines() + measure("hybrid") + plain.lines() + measure("plain"), ranks)
    types = np.where(TRICLINIC.types == 2, -1, TRICLINIC.types)
    expected = python_model().evaluate(TRICLINIC.coords, types, TRICLINIC.box)
    for name in ("hybrid", "plain"):
        found = answer(folder, name)
        assert found.energy == pytest.approx(float(expected.energy), rel=1e-10)
        assert np.abs(found.forces - expected.forces).max() < 1e-10 * np.abs(expected.forces).max()
        assert np.all(found.forces[types < 0] == 0.0)
        assert (
            abs(found.pressure[0] - expected.virial[0, 0] * NKTV2P / found.volume)
            < 1e-10 * np.abs(found.pressure).max()
        )


@pytest.mark.parametrize("newton", ["on", "off"])
def test_a_system_that_grows_between_runs(folder: Path, newton: str) -> None:
    """Exchanges of the second run are wider than the last of the first was: LAMMPS has to have room for them."""
    write_safetensors(folder / "wide.safetensors", model_data(g1_dim=64))
    grown = ["lattice sc 2.0", "region r block 20 120 0 9 0 9 units box", "create_atoms 2 region r"]
    lines = [*Setup("empty", newton, style="dpa2 wide.safetensors overflow ignore").lines(), "run 0", *grown]
    lines += ["run 0", 'print "$(pe:%.17g)" file energy', "write_dump all custom end.dump id type x y z modify sort id"]
    succeed(folder, [*lines[:-1], f"{lines[-1]} format float %.17g"], ranks=2)
    rows = table(folder / "end.dump")
    assert len(rows) > 1000
    box = np.diag([120.0, 9.0, 9.0])
    expected = python_model(g1_dim=64).evaluate(rows[:, 2:], rows[:, 1].astype(int) - 1, box).energy
    assert float((folder / "energy").read_text()) == pytest.approx(float(expected), rel=1e-10)


def test_minimisation(folder: Path) -> None:
    system = scattered("few", np.diag([9.0, 9.0, 9.0]).tolist(), 12, 5, 2.0)
    system.write(folder)
    energies = []
    for ranks in (1, 2):
        lines = [
            *Setup("few").lines(),
            "thermo_style custom step pe fnorm",
            "run 0",
            'print "$(pe:%.17g) $(fnorm:%.17g)" file start',
            "minimize 0.0 1.0e-3 40 200",
            'print "$(pe:%.17g) $(fnorm:%.17g)" file end',
        ]
        succeed(folder, lines, ranks)
        start, end = (np.array((folder / name).read_text().split(), dtype=float) for name in ("start", "end"))
        assert end[0] < start[0] - 1e-3
        energies.append(end[0])
    assert energies[0] == pytest.approx(energies[1], abs=1e-8)


def test_partitions_are_worlds_of_their_own(folder: Path) -> None:
    (folder / "model2.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    lines = [
        "variable s world triclinic orthogonal",
        *Setup("${s}").lines(),
        "run 0",
        'print "$(pe:%.17g)" file ${s}.energy',
    ]
    lines.remove("clear")
    succeed(folder, lines, ranks=3, arguments=["-partition", "2", "1", "-plog", "none", "-pscreen", "none"])
    for name in ("triclinic", "orthogonal"):
        system = next(s for s in systems() if s.name == name)
        expected = python_model().evaluate(system.coords, system.types, system.box).energy
        assert float((folder / f"{name}.energy").read_text()) == pytest.approx(float(expected), rel=1e-12)
