"""The examples of spectra: they run, what they compute is what is known without them, their models are what is said."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import dpa2
import needs
import numpy as np
import pytest
from dpa2.data import read_structures
from dpa2.embedded import default_model

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "spectra"
WATER = ROOT / "examples" / "water_192.extxyz"
OXYGEN_HYDROGENS = ["O", "H", "H"]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"spectra_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(folder: Path, name: str, *words: str) -> list[str]:
    """Runs a script in a folder; the lines that it prints. Its picture has to be there, and no warnings."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return done.stdout.splitlines()


# ------------------------------------------------------------------------------------------------ infrared


def test_power_of_an_oscillation() -> None:
    """A dipole A cos(wt) has the power pi A^2 w^2/2, all of it at w, as often as one looks at it."""
    ir = script("ir")
    place, amplitude = 3000.0, 0.3
    to_angular = 2 * np.pi * ir.LIGHT / ir.PER_CM
    grid = np.arange(2500.0, 3500.0, 2.0)
    for spacing in (0.5, 2.0, 4.0):
        time = spacing * np.arange(round(8000.0 / spacing))
        dipole = amplitude * np.cos(place * to_angular * time)[:, None] * [0.6, 0.0, 0.8]
        density = ir.power(dipole, spacing, 40.0, grid)
        assert abs(grid[density.argmax()] - place) <= 4.0
        area = density.sum() * 2.0 * to_angular
        assert area == pytest.approx(0.5 * np.pi * (amplitude * place * to_angular) ** 2, rel=0.02)


def test_absorption_obeys_the_sum_rule() -> None:
    """Of charges q of mass m at a temperature: the integral over w is pi q^2 n / (2 m c vacuum), whatever they do."""
    ir = script("ir")
    temperature, volume, mass, charge = 300.0, 500.0, 1.7, 0.8  # mass in eV fs^2/angstrom^2
    squares = 3.0 * ir.KELVIN * temperature / mass * charge**2  # of the dipole's rate, by equipartition
    area = ir.absorption(np.array([np.pi * squares]), volume, temperature)[0] / ir.PER_CM
    assert area == pytest.approx(np.pi * charge**2 / (2.0 * mass * ir.VACUUM * ir.LIGHT * volume), rel=1e-12)


def test_infrared(tmp_path: Path) -> None:
    pytest.importorskip("ase", reason=needs.reason("ase"))
    pytest.importorskip("matplotlib", reason=needs.reason("matplotlib"))
    printed = run(tmp_path, "ir", "--time", "0.025", "--spacing", "1", "--save", "dipoles.txt")
    energies = [float(line.split()[2]) for line in printed[1:] if line[:8].strip().isdigit()]
    assert np.ptp(energies) < 0.1
    assert "maxima:" in printed
    dipoles = np.loadtxt(tmp_path / "dipoles.txt")
    assert dipoles.shape == (26, 3)
    (frame,) = read_structures(WATER)[0]
    model = dpa2.load(FOLDER / "models" / "water_dipole.safetensors")
    first = model.evaluate(frame.coords, frame.types_in(model.type_map), frame.box).outputs["global_dipole"]
    np.testing.assert_allclose(dipoles[0], first, atol=2e-3)  # single precision

    again = run(tmp_path, "ir", "--dipoles", "dipoles.txt", "--spacing", "1", "--volume", f"{frame.volume}")
    assert again[again.index("maxima:") :] == printed[printed.index("maxima:") :]


def test_infrared_of_a_trajectory(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason=needs.reason("matplotlib"))
    (frame,) = read_structures(WATER)[0]
    model = dpa2.load(FOLDER / "models" / "water_dipole.safetensors")
    types = frame.types_in(model.type_map)
    cell = " ".join(f"{x:.8f}" for x in frame.box.ravel())
    lines = []
    dipoles = []
    for k in range(22):
        coords = frame.coords + 0.02 * np.sin(0.9 * k) * (types == model.type_map.index("H"))[:, None]
        lines += [f"{len(coords)}", f'Lattice="{cell}" Properties=species:S:1:pos:R:3']
        lines += [f"{model.type_map[t]} {x:.8f} {y:.8f} {z:.8f}" for t, (x, y, z) in zip(types, coords, strict=True)]
        dipoles.append(model.evaluate(coords, types, frame.box).outputs["global_dipole"])
    (tmp_path / "md.extxyz").write_text("\n".join(lines) + "\n")
    printed = run(tmp_path, "ir", "--trajectory", "md.extxyz", "--spacing", "2", "--save", "dipoles.txt")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "dipoles.txt"), dipoles, atol=2e-3)  # single precision
    assert printed[printed.index("maxima:") + 1].endswith("1/cm")

    np.savetxt(tmp_path / "still.txt", [dipoles[0]] * 22)
    still = [sys.executable, str(FOLDER / "ir.py"), "--dipoles", str(tmp_path / "still.txt")]
    done = subprocess.run(still, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "the dipole is the same in all frames: there is no spectrum\n"


# ------------------------------------------------------------------------------------------------ Raman


def test_activities_of_known_tensors() -> None:
    """A breathing sphere is not depolarized, a traceless tensor by three quarters; x -> y alone has 7 * 3 squares."""
    raman = script("raman")
    tensors = np.zeros((3, 3, 3))
    tensors[0] = 2.0 * np.eye(3)
    tensors[1] = np.diag([1.0, -1.0, 0.0])
    tensors[2, 0, 1] = tensors[2, 1, 0] = 1.0
    activities, ratios = raman.activity(tensors)
    np.testing.assert_allclose(activities, [180.0, 21.0, 21.0], rtol=1e-12)
    np.testing.assert_allclose(ratios, [0.0, 0.75, 0.75], rtol=1e-12)


def test_vibrations_of_two_atoms_on_a_spring() -> None:
    raman = script("raman")
    along, mass, stiffness = np.array([0.6, 0.0, 0.8]), np.array([1.0, 16.0]), 40.0
    block = stiffness * np.outer(along, along)
    matrix = np.block([[block, -block], [-block, block]])
    wavenumbers, modes = raman.vibrations(matrix, mass, np.array([np.zeros(3), along]))
    assert wavenumbers.shape == (1,)
    assert wavenumbers[0] == pytest.approx(raman.TO_WAVENUMBER * np.sqrt(stiffness * (1 + 1 / 16)), rel=1e-9)
    np.testing.assert_allclose((mass[:, None] * modes[0] ** 2).sum(), 1.0, rtol=1e-12)


def test_polarizability_changes_as_its_gradient_says() -> None:
    raman = script("raman")
    model = dpa2.load(FOLDER / "models" / "water_polar.safetensors", precision="float64")
    coords = raman.WATER + np.array([[0.0, 0.0, 0.05], [0.02, 0.0, 0.0], [0.0, -0.03, 0.0]])
    gradient = raman.polarizability_gradient(model, coords, OXYGEN_HYDROGENS)
    step = 1e-4
    for atom, axis in ((0, 1), (1, 0), (2, 2)):
        move = np.zeros((3, 3))
        move[atom, axis] = step
        pair = np.stack([coords + move, coords - move])
        ahead, behind = model.evaluate(pair, OXYGEN_HYDROGENS).outputs["global_polar"]
        np.testing.assert_allclose(gradient[:, :, atom, axis], (ahead - behind) / (2 * step), atol=1e-6)


def test_raman(tmp_path: Path) -> None:
    """The modes are those of the formulas that the models were trained on, which need no model."""
    pytest.importorskip("matplotlib", reason=needs.reason("matplotlib"))
    printed = run(tmp_path, "raman")
    modes = np.array([line.split() for line in printed if line[:4].strip().isdigit()], dtype=float)

    raman, labels = script("raman"), script("labels")
    half, step = labels.FREE_ANGLE / 2, 1e-4
    x, y = labels.FREE_BOND * np.sin(half), labels.FREE_BOND * np.cos(half)
    coords = np.array([[0.0, 0.0, 0.0], [x, y, 0.0], [-x, y, 0.0]])
    moves = step * np.eye(9).reshape(9, 3, 3)
    slopes = [labels.energies(coords + sign * moves)[1].reshape(9, 9) for sign in (-1, 1)]
    tensors = [labels.polarizabilities((coords + sign * moves).reshape(-1, 3), None) for sign in (-1, 1)]
    matrix, gradient = (slopes[0] - slopes[1]) / (2 * step), (tensors[1] - tensors[0]) / (2 * step)
    wavenumbers, moved = raman.vibrations(matrix, np.array([15.999, 1.008, 1.008]), coords)
    activities, ratios = raman.activity(np.einsum("aij,ka->kij", gradient, moved.reshape(3, 9)))
    np.testing.assert_allclose(wavenumbers, [1595.0, 3657.0, 3756.0], atol=2.0)  # as measured

    np.testing.assert_allclose(modes[:, 0], [1, 2, 3])
    np.testing.assert_allclose(modes[:, 1], wavenumbers, atol=15.0)
    np.testing.assert_allclose(modes[:, 2], activities, rtol=0.05)
    np.testing.assert_allclose(modes[:, 3], ratios, atol=0.01)


def test_raman_says_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "raman.py"), "--polar", str(FOLDER / "models" / "water_dipole.safetensors")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "--polar of kind dipole" in done.stderr


# ------------------------------------------------------------------------------------------------ density of states


def test_density_of_states(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason=needs.reason("matplotlib"))
    printed = run(tmp_path, "dos", "--output", "dos.txt")
    columns = np.loadtxt(tmp_path / "dos.txt")
    assert columns.shape == (129, 4)
    step = columns[1, 0] - columns[0, 0]
    states = step * columns[:, 1:].sum(axis=0)  # six orbitals and two spins in a molecule
    np.testing.assert_allclose(states, [4.0, 8.0, 2.0], rtol=0.02)
    assert float(printed[1].split()[-1]) == pytest.approx(states[0], abs=1e-4)


# ------------------------------------------------------------------------------------------------ the models


def test_models_are_small_and_agree_with_their_formulas() -> None:
    """As the README says, on what they were not trained on: the box of the examples, and a molecule of its own."""
    labels, raman = script("labels"), script("raman")
    paths = sorted((FOLDER / "models").iterdir())
    assert [path.name for path in paths] == [
        f"water_{kind}.safetensors" for kind in ("dipole", "dos", "energy", "polar")
    ]
    assert max(path.stat().st_size for path in paths) < 200_000
    dipole, dos, energy, polar = (dpa2.load(path) for path in paths)
    assert {model.precision for model in (dipole, dos, energy, polar)} == {"float32"}
    (frame,) = read_structures(WATER)[0]
    symbols = [default_model().type_map[t] for t in frame.types_in(default_model().type_map)]
    assert symbols == OXYGEN_HYDROGENS * 64

    found = dipole.evaluate(frame.coords, symbols, frame.box).outputs["dipole"]
    known = labels.dipoles(frame.coords, frame.box)
    assert not found[np.array(symbols) == "H"].any()
    assert np.sqrt(np.mean((found[::3] - known) ** 2)) < 0.022
    assert np.sqrt(np.mean(known**2)) > 0.3

    density = dos.evaluate(frame.coords, symbols, frame.box).outputs["dos"] / 192
    exact = labels.densities_of_states(frame.coords, frame.box).sum(axis=0) / 192
    assert np.sqrt(np.mean((density - exact) ** 2)) < 0.02
    assert exact.max() > 0.7

    molecule = raman.WATER[None]
    forces = energy.evaluate(molecule, OXYGEN_HYDROGENS).forces
    np.testing.assert_allclose(forces, labels.energies(molecule)[1], atol=0.2)

    found = polar.evaluate(raman.WATER, OXYGEN_HYDROGENS).outputs["global_polar"]
    np.testing.assert_allclose(found, labels.polarizabilities(raman.WATER, None)[0], atol=0.01)
