"""Keywords of the pair style, against the Python engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dpa2.files import write_safetensors
from lammps_runs import (
    NKTV2P,
    Cluster,
    Setup,
    answer,
    measure,
    model_data,
    prepare,
    python_model,
    refusal,
    succeed,
    systems,
)

SYSTEM = next(system for system in systems() if system.name == "orthogonal")
STYLE = "dpa2 model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


def test_types_in_another_order(folder: Path) -> None:
    order = np.array([2, 0, 1])  # LAMMPS's types 1 2 3 are C O H
    Cluster("permuted", SYSTEM.box, SYSTEM.coords, np.argsort(order)[SYSTEM.types]).write(folder)
    succeed(
        folder,
        Setup("permuted", coeff=["pair_coeff * * C O H"]).lines()
        + measure("a")
        + Setup("orthogonal").lines()
        + measure("b")
        + Setup("orthogonal", coeff=["pair_coeff * *"]).lines()
        + measure("c"),
    )
    a, b, c = (answer(folder, name) for name in "abc")
    assert a.energy == pytest.approx(b.energy, rel=1e-13)
    assert c.energy == b.energy
    assert np.abs(a.forces - b.forces).max() < 1e-12


@pytest.mark.parametrize("ranks", [1, 2])
def test_single_precision(folder: Path, ranks: int) -> None:
    succeed(folder, Setup("orthogonal", style=f"{STYLE} precision float32").lines() + measure("a"), ranks)
    found, exact = answer(folder, "a"), python_model().evaluate(SYSTEM.coords, SYSTEM.types, SYSTEM.box)
    error = np.abs(found.forces - exact.forces).max() / np.abs(exact.forces).max()
    assert 1e-9 < error < 1e-4


def test_threads_change_nothing(folder: Path) -> None:
    succeed(
        folder,
        Setup("orthogonal", style=f"{STYLE} threads 2").lines()
        + measure("a")
        + Setup("orthogonal").lines()
        + measure("b"),
    )
    a, b = answer(folder, "a"), answer(folder, "b")
    assert np.abs(a.forces - b.forces).max() < 1e-12 * np.abs(b.forces).max()


@pytest.mark.parametrize("ranks", [1, 2])
def test_parameters(folder: Path, ranks: int) -> None:
    write_safetensors(folder / "model.safetensors", model_data(nf=2, na=1))
    model = python_model(nf=2, na=1)
    atoms = ["compute a all property/atom id"]
    centre = "compute f all reduce ave x y"
    sources: dict[str, tuple[str, list[str]]] = {
        "fixed": ("fparam 0.3 -0.2 aparam 0.7", []),
        "computed": ("fparam_from_compute f aparam_from_compute a", [centre, *atoms]),
        "averaged": (
            "fparam_from_fix f aparam_from_compute a",
            [centre, "fix f all ave/time 1 1 1 c_f[1] c_f[2]", *atoms],
        ),
    }
    lines = []
    for name, (words, after) in sources.items():
        # the fix has an average after the first run
        lines += [*Setup("orthogonal", style=f"{STYLE} {words}", after_box=after).lines(), "run 0", *measure(name)]
    succeed(folder, lines, ranks)
    numbers = np.arange(1.0, len(SYSTEM.types) + 1)[:, None]
    means = SYSTEM.coords[:, :2].mean(axis=0)
    for name, fparam, aparam in (
        ("fixed", [0.3, -0.2], [0.7]),
        ("computed", means, numbers),
        ("averaged", means, numbers),
    ):
        expected = model.evaluate(SYSTEM.coords, SYSTEM.types, SYSTEM.box, fparam=fparam, aparam=aparam)
        found = answer(folder, name)
        assert found.energy == pytest.approx(float(expected.energy), rel=1e-10)
        assert np.abs(found.forces - expected.forces).max() < 1e-10 * max(1.0, np.abs(expected.forces).max())
    assert answer(folder, "fixed").energy != pytest.approx(answer(folder, "computed").energy, rel=1e-6)


def test_missing_and_unwanted_parameters(folder: Path) -> None:
    write_safetensors(folder / "params.safetensors", model_data(nf=2, na=1))
    write = [*Setup("orthogonal", style="dpa2 params.safetensors aparam 0.7").lines(), "run 0"]
    assert "needs fparam (2 values per frame)" in refusal(folder, write)
    twice = "dpa2 params.safetensors fparam 1 2 fparam_from_compute c"
    assert "fparam_from_compute comes after another source" in refusal(folder, Setup("orthogonal", style=twice).lines())
    assert "fparam is given, but the model has no such parameters" in refusal(
        folder, Setup("orthogonal", style=f"{STYLE} fparam 1.0").lines()
    )
    for kind in ("compute", "fix"):
        style = f"dpa2 params.safetensors aparam 0.7 fparam_from_{kind} nobody"
        assert f"there is no {kind} with the ID 'nobody'" in refusal(
            folder, [*Setup("orthogonal", style=style).lines(), "run 0"]
        )


def test_scale_for_thermodynamic_integration(folder: Path) -> None:
    lines = [
        *Setup("orthogonal").lines(),
        "variable half equal 0.5",
        "fix s all adapt 1 pair dpa2 scale * * v_half",
        *measure("half"),
    ]
    succeed(folder, lines + Setup("orthogonal").lines() + measure("full"))
    half, full = answer(folder, "half"), answer(folder, "full")
    assert half.energy == pytest.approx(0.5 * full.energy, rel=1e-13)
    assert np.abs(half.forces - 0.5 * full.forces).max() < 1e-12 * np.abs(full.forces).max()
    assert np.abs(half.pressure - 0.5 * full.pressure).max() < 1e-12 * np.abs(full.pressure).max()


@pytest.mark.slow
def test_more_neighbors_than_sel(folder: Path) -> None:
    write_safetensors(folder / "small.safetensors", model_data(nsel=12))
    shown = {}
    for overflow in ("warn", "ignore"):
        lines = Setup("orthogonal", style=f"dpa2 small.safetensors overflow {overflow}").lines()
        shown[overflow] = succeed(folder, [*lines, "run 3", *measure(overflow)], ranks=2)
    assert "neighbours within the cutoff of the model's" in shown["warn"]
    assert "more than its sel of" in shown["warn"]
    assert shown["warn"].count("more than its sel of") <= 2  # once per process
    assert "more than its sel" not in shown["ignore"]
    expected = python_model(nsel=12).evaluate(SYSTEM.coords, SYSTEM.types, SYSTEM.box)
    assert answer(folder, "warn").energy == answer(folder, "ignore").energy
    assert answer(folder, "warn").energy == pytest.approx(float(expected.energy), rel=1e-10)
    assert "more than its sel of" in refusal(
        folder, [*Setup("orthogonal", style="dpa2 small.safetensors overflow error").lines(), "run 0"]
    )


def test_close_atoms_are_a_warning_whatever_overflow_says(folder: Path) -> None:
    write_safetensors(folder / "small.safetensors", model_data())
    x, y, z = (float(value) for value in SYSTEM.coords[0] + [0.3, 0.0, 0.0])
    for overflow in ("ignore", "error"):
        lines = Setup("orthogonal", style=f"dpa2 small.safetensors overflow {overflow}").lines()
        shown = succeed(folder, [*lines, f"create_atoms 2 single {x} {y} {z} units box", "run 1"])
        assert shown.count("are 0.3 angstrom from each other") == 1  # once, in two evaluations
        assert "more than its sel" not in shown


def deviations(file: Path) -> tuple[list[str], np.ndarray]:
    lines = file.read_text(encoding="ascii").splitlines()
    return lines[0].lstrip("#").split(), np.array([line.split() for line in lines[1:]], dtype=float)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("relative", [False, True])
def test_model_deviation(folder: Path, ranks: int, relative: bool) -> None:
    seeds = (7, 8, 9)
    for seed in seeds:
        write_safetensors(folder / f"m{seed}.safetensors", model_data(seed=seed, softness=0.02))
    files = " ".join(f"m{seed}.safetensors" for seed in seeds)
    words = "relative 0.3 relative_v 0.01" if relative else ""
    lines = Setup("orthogonal", style=f"dpa2 {files} out_freq 2 out_file devi.out atomic {words}").lines()
    lines += [
        "velocity all create 600 1",
        "fix 1 all nve",
        "run 4",
        "write_dump all custom end.dump id x y z fx fy fz modify sort id format float %.17g",
    ]
    succeed(folder, lines, ranks)
    titles, rows = deviations(folder / "devi.out")
    assert titles == [
        "step",
        "max_devi_v",
        "min_devi_v",
        "avg_devi_v",
        "max_devi_f",
        "min_devi_f",
        "avg_devi_f",
        "atm_devi_f(N)",
    ]
    assert rows[:, 0].tolist() == [0, 2, 4]
    assert rows.shape[1] == 7 + len(SYSTEM.types)

    text = (folder / "end.dump").read_text(encoding="ascii").split("ITEM: ATOMS")[-1]
    end = np.array([line.split() for line in text.splitlines()[1:]], dtype=float)[:, 1:]
    for row, coords in ((rows[0], SYSTEM.coords), (rows[2], end[:, :3])):
        results = [python_model(seed=seed, softness=0.02).evaluate(coords, SYSTEM.types, SYSTEM.box) for seed in seeds]
        if coords is not SYSTEM.coords:  # the first model drives
            assert np.abs(end[:, 3:] - results[0].forces).max() < 1e-10
        forces = np.array([result.forces for result in results])
        devi_f = np.sqrt(((forces - forces.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
        virials = np.array([result.virial / len(SYSTEM.types) for result in results])
        devi_v = virials.std(axis=0)
        if relative:
            devi_f /= np.linalg.norm(forces.mean(axis=0), axis=1) + 0.3
            devi_v /= np.abs(virials.mean(axis=0)) + 0.01
        expected = [devi_v.max(), devi_v.min(), np.sqrt((devi_v**2).mean()), devi_f.max(), devi_f.min(), devi_f.mean()]
        assert np.allclose(row[1:7], expected, rtol=1e-8, atol=1e-12)
        assert np.allclose(row[7:], devi_f, rtol=1e-8, atol=1e-12)


def test_several_models_do_not_change_the_dynamics(folder: Path) -> None:
    write_safetensors(folder / "other.safetensors", model_data(seed=8, nsel=60))
    several = Setup("triclinic", style="dpa2 model.safetensors other.safetensors out_freq 1")
    succeed(folder, several.lines() + measure("several") + Setup("triclinic").lines() + measure("one"), ranks=2)
    assert (folder / "model_devi.out").is_file()
    several_answer, one = answer(folder, "several"), answer(folder, "one")
    assert several_answer.energy == one.energy
    assert np.array_equal(several_answer.forces, one.forces)
    assert np.abs(one.pressure).max() < NKTV2P
