"""The model that comes with the package, on the box of liquid water in `examples/`."""

from __future__ import annotations

from pathlib import Path

import dpa2
import numpy as np
import pytest
from dpa2.cli import main
from dpa2.data import Frame, read_structures
from dpa2.embedded import default_model, default_model_path
from numpy.typing import NDArray

Float = NDArray[np.float64]

WATER = Path(__file__).parents[2] / "examples" / "water_192.extxyz"

#: Physical ranges of liquid water at 300 K in the method that the model was trained on. Training frames have -155.967
#: to -155.946 eV/atom, largest forces of 2.7 to 6.5 and rms components of about 0.8 eV/angstrom. They come from quantum
#: nuclei, whose bonds spread more than those of the classical nuclei in the example: its energy is lower.
ENERGY_PER_ATOM = (-156.01, -155.95)
MAX_FORCE = 7.0
RMS_FORCE = (0.3, 1.0)
MAX_PRESSURE = 1.5  # GPa, of the virial; the kinetic part is 0.4 GPa at 300 K

BOND_LIMIT = 1.3  # angstrom
KELVIN = 8.617333262e-5  # eV
ACCELERATION = 9.648533212e-3  # angstrom/fs^2 from eV/angstrom per g/mol


@pytest.fixture(scope="module")
def water() -> Frame:
    (frame,) = read_structures(WATER)[0]
    return frame


def load_default(**options: object) -> dpa2.Model:
    with default_model_path() as path:
        return dpa2.load(path, **options)  # type: ignore[arg-type]


def distances(coords: Float, types: NDArray[np.int32], box: Float) -> tuple[Float, Float, Float]:
    """O-H (nO, nH), O-O and H-H (with infinity on the diagonal) in a rectangular box, nearest images."""

    def between(a: Float, b: Float) -> Float:
        d = a[:, None] - b
        d -= np.diag(box) * np.round(d / np.diag(box))
        return np.linalg.norm(d, axis=-1)

    oxygens, hydrogens = coords[types == 0], coords[types == 1]
    oo, hh = between(oxygens, oxygens), between(hydrogens, hydrogens)
    np.fill_diagonal(oo, np.inf)
    np.fill_diagonal(hh, np.inf)
    return between(oxygens, hydrogens), oo, hh


def assert_molecules(oh: Float) -> None:
    """Two hydrogens per oxygen and one oxygen per hydrogen within the limit of a bond."""
    bonded = oh < BOND_LIMIT
    np.testing.assert_array_equal(bonded.sum(axis=1), 2)
    np.testing.assert_array_equal(bonded.sum(axis=0), 1)


def test_packaged_file() -> None:
    model = default_model()
    assert model is default_model()
    assert model.type_map == ("O", "H")
    assert model.precision == "float32"
    assert (model.rcut, model.descriptor_dim) == (6.0, 72)
    with default_model_path() as path:
        assert path.suffix == ".safetensors"
        assert path.stat().st_size < 1_000_000


def test_compute_descriptor_without_a_model(water: Frame) -> None:
    descriptor = dpa2.compute_descriptor(water.coords, water.types_in(("O", "H")), water.box)
    assert descriptor.shape == (192, 72)
    assert np.isfinite(descriptor).all()
    np.testing.assert_array_equal(
        descriptor, load_default().descriptor(water.coords, water.types_in(("O", "H")), water.box)
    )
    symbols = [water.names[t] for t in water.types] if water.names else []
    np.testing.assert_array_equal(descriptor, dpa2.compute_descriptor(water.coords, symbols, water.box))


def test_descriptor_tells_elements_apart(water: Frame) -> None:
    types = water.types_in(("O", "H"))
    descriptor = dpa2.compute_descriptor(water.coords, types, water.box)
    oxygens, hydrogens = descriptor[types == 0], descriptor[types == 1]
    between = np.linalg.norm(oxygens.mean(axis=0) - hydrogens.mean(axis=0))
    within = max(np.linalg.norm(group - group.mean(axis=0), axis=1).max() for group in (oxygens, hydrogens))
    assert between > within > 0.0


def test_example_is_a_liquid(water: Frame) -> None:
    assert water.box is not None
    assert water.volume is not None
    types = water.types_in(("O", "H"))
    assert np.bincount(types).tolist() == [64, 128]
    density = 64 * 18.015 / (0.602214076 * water.volume)  # g/cm^3
    assert 0.95 < density < 1.05
    oh, oo, hh = distances(water.coords, types, water.box)
    assert_molecules(oh)
    assert oh.min() > 0.85
    assert 2.3 < oo.min() < 2.8
    assert hh.min() > 1.2
    # neither ice nor gas: an oxygen has between three and seven others within the first shell, 4.5 on average
    shell = (oo < 3.4).sum(axis=1)
    assert 3.8 < shell.mean() < 6.0
    assert shell.std() > 0.3


def test_example_evaluates_physically(water: Frame) -> None:
    result = default_model().evaluate(water.coords, water.types_in(("O", "H")), water.box)
    assert ENERGY_PER_ATOM[0] < result.energy / len(water) < ENERGY_PER_ATOM[1]
    assert np.linalg.norm(result.forces, axis=1).max() < MAX_FORCE
    assert RMS_FORCE[0] < np.sqrt(np.mean(result.forces**2)) < RMS_FORCE[1]
    assert np.abs(result.forces.sum(axis=0)).max() < 1e-4
    assert water.volume is not None
    assert abs(np.trace(result.virial)) / (3 * water.volume) * 160.2176634 < MAX_PRESSURE


def test_single_precision_is_enough(water: Frame) -> None:
    arguments = (water.coords, water.types_in(("O", "H")), water.box)
    single, double = load_default().evaluate(*arguments), load_default(precision="float64").evaluate(*arguments)
    assert abs(single.energy - double.energy) / len(water) < 1e-6
    assert np.abs(single.forces - double.forces).max() < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "steps"), [("float32", 50), ("float64", 20)])
def test_dynamics_conserve_energy(water: Frame, precision: str, steps: int) -> None:
    assert water.box is not None
    model, step, temperature = load_default(precision=precision), 0.5, 300.0
    types = water.types_in(model.type_map)
    mass = np.array([15.999, 1.008])[types, None]
    x = water.coords.copy()
    v = np.random.default_rng(5).normal(size=x.shape) * np.sqrt(KELVIN * temperature * ACCELERATION / mass)
    result = model.evaluate(x, types, water.box)
    energies = []
    for _ in range(steps):
        v += 0.5 * step * ACCELERATION * result.forces / mass
        x += step * v
        result = model.evaluate(x, types, water.box)
        v += 0.5 * step * ACCELERATION * result.forces / mass
        energies.append(result.energy + float((mass * v**2).sum()) / (2 * ACCELERATION))
    assert np.ptp(energies) / len(water) < 1e-4
    # kinetic and potential energy do exchange: conservation is not for want of motion
    assert np.abs(x - water.coords).max() > 0.02
    assert_molecules(distances(x, types, water.box)[0])


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(WATER), "--descriptor"]) == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line for line in printed.splitlines() if line[:1].strip()}
    assert {"energy", "forces", "pressure", "descriptor"} <= lines.keys()
    assert "(192, 72)" in lines["descriptor"]
    low, high = ENERGY_PER_ATOM
    assert low < float(lines["energy"].split()[1]) / 192 < high
