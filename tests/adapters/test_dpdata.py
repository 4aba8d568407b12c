"""dpdata's `predict(driver="dpa2")`: the driver is found by itself, and its labels are the model's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, SYMBOLS, frames, make_model, model_data
from cases import SAME
from datasets import write_all
from dpa2.data import read_structures
from dpa2.files import write_safetensors
from dpa2.model import Model
from dpa2.streams import evaluate_frames
from kind_files import make_fitting

pytest.importorskip("dpdata", reason=needs.reason("dpdata"))

import dpdata
from dpa2.dpdata import DPA2Driver

NAMES = ["C", "Ar", "H", "O"]  # in another order than the model's, and one that no atom has


def make_system(nframes: int = 3, **changes: Any) -> Any:
    """Frames of five atoms in a box."""
    types = np.array([NAMES.index(symbol) for symbol in SYMBOLS])
    data = {
        "atom_names": NAMES,
        "atom_numbs": [int((types == k).sum()) for k in range(len(NAMES))],
        "atom_types": types,
        "coords": frames(nframes),
        "cells": np.tile(BOX, (nframes, 1, 1)),
        "orig": np.zeros(3),
    }
    return dpdata.System(data={**data, **changes})


def check_labels(labeled: Any, expected: dpa2.Result) -> None:
    assert isinstance(labeled, dpdata.LabeledSystem)
    np.testing.assert_allclose(labeled["energies"], expected.energy, rtol=SAME)
    np.testing.assert_allclose(labeled["forces"], expected.forces, rtol=SAME, atol=SAME)
    np.testing.assert_allclose(labeled["virials"], expected.virial, rtol=SAME, atol=SAME)


def test_labels_are_those_of_the_model() -> None:
    system = make_system()
    labeled = system.predict(driver="dpa2", model=make_model("cpu"))
    check_labels(labeled, make_model("cpu").evaluate(system["coords"], SYMBOLS, BOX))
    assert labeled["atom_names"] == system["atom_names"]
    assert "energies" not in system.data
    again = labeled.predict(driver=DPA2Driver(make_model("cpu")))  # of a system that has labels
    np.testing.assert_array_equal(again["forces"], labeled["forces"])


def test_without_a_cell() -> None:
    system = make_system(nopbc=True)
    labeled = system.predict(driver="dpa2", model=make_model("cpu"))
    check_labels(labeled, make_model("cpu").evaluate(system["coords"], SYMBOLS))


def test_the_virial_has_dpdatas_sign() -> None:
    """dpdata's stress, positive under compression by its virials, from differences of the energy by the volume."""
    driver, step = DPA2Driver(make_model("cpu")), 1e-4
    coords, cell = frames(1), BOX[None]
    energies = []
    for scale in (1.0 - step, 1.0 + step):
        energies.append(make_system(1, coords=scale * coords, cells=scale * cell).predict(driver=driver)["energies"][0])
    virial = make_system(1).predict(driver=driver)["virials"][0]
    assert np.trace(virial) == pytest.approx(-(energies[1] - energies[0]) / (2.0 * step), abs=1e-6)


def test_a_file_and_options(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", model_data())
    system = make_system()
    labeled = system.predict(str(tmp_path / "model.safetensors"), driver="dpa2", precision="float32", threads=1)
    expected = dpa2.load(tmp_path / "model.safetensors", precision="float32", threads=1)
    check_labels(labeled, expected.evaluate(system["coords"], SYMBOLS, BOX))
    water = dpdata.System(data={**make_system(1).data, "atom_names": ["O", "Ar", "H", "O2"]})
    with pytest.raises(dpa2.InputError, match=r"'O2', which the model does not know"):
        water.predict(driver="dpa2")


def test_parameters_of_the_system() -> None:
    model = Model(model_data(nf=2, na=1), threads=1)
    system = make_system()
    with pytest.raises(dpa2.InputError, match="takes 2 frame parameters"):
        system.predict(driver="dpa2", model=model)
    data = {**system.data, "fparam": np.arange(6.0).reshape(3, 2) / 7.0, "aparam": np.ones((3, 5, 1))}
    found = DPA2Driver(model).label(data)
    expected = model.evaluate(system["coords"], SYMBOLS, BOX, fparam=data["fparam"], aparam=data["aparam"])
    np.testing.assert_allclose(found["energies"], expected.energy, rtol=SAME)
    labeled = system.predict(driver="dpa2", model=model, fparam=[0.5, 0.1], aparam=[0.2])
    check_labels(labeled, model.evaluate(system["coords"], SYMBOLS, BOX, fparam=[0.5, 0.1], aparam=[0.2]))


def test_sets_of_deepmd_kit_standard_and_mixed(tmp_path: Path) -> None:
    """Against dpa2's own reader, frame by frame. dpdata sorts the frames of a mixed set by composition."""
    write_all(tmp_path)
    model = make_model("cpu")
    for name in ("mixed", "standard"):
        path = tmp_path / name
        if name == "mixed":
            systems = dpdata.MultiSystems().load_systems_from_file(str(path), fmt="deepmd/npy/mixed", labeled=False)
        else:
            systems = dpdata.MultiSystems(dpdata.System(str(path), fmt="deepmd/npy"))
        found = [energy for each in systems.predict(driver=DPA2Driver(model)) for energy in each["energies"].tolist()]
        (structures,) = read_structures(str(path))
        expected = [result.energy for _, result in evaluate_frames(model, structures)]
        assert len(found) == len(expected) > 1
        np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=SAME)


def test_through_dpdatas_calculator_for_ase() -> None:
    atoms = needs.package("ase").Atoms(SYMBOLS, frames(1)[0], cell=BOX, pbc=True)
    atoms.calc = DPA2Driver(make_model("cpu")).ase_calculator
    expected = make_model("cpu").evaluate(frames(1)[0], SYMBOLS, BOX)
    assert atoms.get_potential_energy() == pytest.approx(expected.energy, rel=SAME)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"coords": np.full((3, 5, 3), np.nan)}, "coords of atom 0 of frame 0: x = nan is not finite"),
        ({"cells": np.zeros((3, 3, 3))}, "box of frame 0 is singular"),
        ({"atom_names": ["C", "Ar", "H", "Xx"]}, "atom 0 is 'Xx', which the model does not know"),
        ({"atom_types": np.array([0, 1, 9, 0, 0])}, "atom_types go from 0 to 3, got 0 to 9"),
    ],
)
def test_bad_systems(changes: dict[str, Any], match: str) -> None:
    data = {**make_system().data, **changes}
    with pytest.raises(dpa2.InputError, match=match):
        DPA2Driver(make_model("cpu")).label(data)


def test_bad_arguments() -> None:
    with pytest.raises(dpa2.InputError, match="this model is of kind 'dipole'"):
        DPA2Driver(Model(make_fitting("dipole"), threads=1))
    with pytest.raises(dpa2.InputError, match=r"threads: a dpa2\.Model has its own"):
        make_system().predict(driver="dpa2", model=make_model("cpu"), threads=2)
    with pytest.raises(dpa2.ModelFileError, match="no such file"):
        make_system().predict(driver="dpa2", model="nowhere.pth")


@pytest.mark.parametrize("first", ["dpdata", "dpa2.dpdata", "dpa2"])
def test_import_in_any_order(first: str) -> None:
    """dpdata imports the driver while it is imported itself; models are not imported for that."""
    program = (
        f"import sys, {first}; before = 'dpa2.model' in sys.modules, 'dpdata' in sys.modules; import dpdata;"
        "from dpdata.driver import Driver; print(*before, Driver.get_driver('dpa2').__module__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", str(first != "dpa2"), "dpa2.dpdata"]
