"""Names of deepmd-kit beside its classes: deviations, the evaluator below a potential, the calculator `DP`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from cases import GOLDEN
from datasets import write_all
from deeppot_calls import CELLS, FRAMES, TYPES, load_answers
from dpa2 import deepmd
from dpa2.data import read_structures
from dpa2.deepmd import DeepPot, calc_model_devi

FILES = GOLDEN / "files"
TRAINED = str(FILES / "trained" / "model.pt")
MODELS = [TRAINED, str(FILES / "trained" / "model_ema.pt"), str(FILES / "version1" / "model.pt")]


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The frames of a data set with labels, as arrays."""
    folder = tmp_path_factory.mktemp("systems")
    write_all(folder)
    (source,) = read_structures(folder / "standard")
    frames = list(source)
    natoms = len(frames[0])
    return {
        "coord": np.stack([frame.coords for frame in frames]),
        "box": np.stack([frame.box for frame in frames]),
        "atype": frames[0].types_in(["O", "H"]),
        "real_data": {
            "energy": np.array([[frame.energy / natoms] for frame in frames]),
            "force": np.stack([frame.forces for frame in frames]),
            "virial": np.stack([frame.virial.ravel() / natoms for frame in frames]),
        },
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain", {}),
        ("atomic", {"atomic": True}),
        ("real", {"real": True, "relative": 0.5}),
        ("relative", {"relative": 1.0, "frequency": 5}),
    ],
)
def test_deviations_are_those_of_deepmd_kit(
    name: str, options: dict[str, Any], standard: dict[str, Any], tmp_path: Path
) -> None:
    expected = (GOLDEN / "dp_test" / f"devi_{name}_standard.out").read_text(encoding="utf-8").splitlines()
    arrays = {key: standard[key] for key in ("coord", "box", "atype")}
    options = dict(options)
    if options.pop("real", False):
        options["real_data"] = standard["real_data"]
    models = [DeepPot(path, threads=1) for path in MODELS]
    rows = calc_model_devi(**arrays, models=models, fname=str(tmp_path / "devi.out"), **options)
    wanted = np.loadtxt(expected)
    assert rows.shape == wanted.shape
    np.testing.assert_allclose(rows, wanted, rtol=1e-6, atol=1e-9)
    written = (tmp_path / "devi.out").read_text(encoding="utf-8").splitlines()
    assert written == ["# ", *expected[1:]]  # the name of the system is left to the caller
    calc_model_devi(**arrays, models=models, fname=str(tmp_path / "devi.out"), **options)
    assert len((tmp_path / "devi.out").read_text(encoding="utf-8").splitlines()) == 2 * len(written)


def test_deviations_of_arrays() -> None:
    """Of two models, by hand: each is half of the difference from the mean."""
    forces = np.zeros((2, 1, 3, 3))
    forces[:, 0, 1, 0] = 1.0, 3.0
    assert [value.item() for value in deepmd.calc_model_devi_f(forces)] == [1.0, 0.0, pytest.approx(1.0 / 3.0)]
    largest, _, _, atoms = deepmd.calc_model_devi_f(forces, relative=2.0, atomic=True)
    assert largest.item() == 0.25  # the mean is 2
    assert atoms.tolist() == [[0.0, 0.25, 0.0]]
    assert deepmd.calc_model_devi_f(forces, real_f=np.zeros((1, 3, 3)))[0].item() == pytest.approx(np.sqrt(5.0))
    virials = np.zeros((2, 4, 9))
    virials[:, :, 4] = [[1.0], [5.0]]
    largest, smallest, average = deepmd.calc_model_devi_v(virials, relative=1.0)
    assert largest.tolist() == [0.5] * 4
    assert smallest.tolist() == [0.0] * 4
    np.testing.assert_allclose(average, 0.5 / 3.0)
    assert deepmd.calc_model_devi_e(np.array([[[1.0]], [[4.0]]])).tolist() == [1.5]
    with pytest.raises(dpa2.InputError, match="models is empty"):
        calc_model_devi(FRAMES, None, TYPES, [])


def test_the_evaluator_below_a_potential() -> None:
    """Its outputs have the shapes that those of deepmd-kit 3.2.0 have, and the numbers that its `DeepPot` answers."""
    model = DeepPot(TRAINED, threads=1)
    backend = model.deep_eval
    found = backend.eval(FRAMES, CELLS, TYPES, atomic=True)
    shapes = {name: array.shape for name, array in found.items()}
    assert shapes == {
        "energy": (2, 5, 1, 1),
        "energy_redu": (2, 1, 1),
        "energy_derv_r": (2, 1, 5, 3),
        "energy_derv_c_redu": (2, 1, 9),
        "energy_derv_c": (2, 1, 5, 9),
        "mask": (2, 5, 1, 1),
    }
    assert found["mask"].dtype == np.int32
    answers = load_answers()[0]["eval/two_shaped"]
    for name, answer in zip(("energy_redu", "energy_derv_r", "energy_derv_c_redu"), answers, strict=False):
        np.testing.assert_allclose(found[name].reshape(answer.shape), answer, rtol=0, atol=1e-10)
    atoms = model.eval(FRAMES, CELLS, TYPES, atomic=True)[3:]
    np.testing.assert_array_equal(found["energy"][..., 0], atoms[0])
    np.testing.assert_array_equal(found["energy_derv_c"][:, 0], atoms[1])
    assert "energy_derv_c" not in backend.eval(FRAMES, CELLS, TYPES)
    assert backend.get_type_map() == backend.type_map == ["O", "H"]
    assert backend.get_has_spin() is backend.get_has_hessian() is False
    assert backend.model_path == TRAINED
    np.testing.assert_array_equal(
        backend.eval_descriptor(FRAMES, CELLS, TYPES), model.eval_descriptor(FRAMES, CELLS, TYPES)
    )
    with pytest.raises(AttributeError, match="no attribute 'sess'"):
        _ = backend.sess
    with pytest.raises(dpa2.InputError, match="know no spin"):
        backend.eval(FRAMES, CELLS, TYPES, spin=FRAMES)


def test_older_names() -> None:
    assert isinstance(deepmd.DeepPotential(TRAINED), DeepPot)
    assert isinstance(deepmd.DeepEval(TRAINED), DeepPot)
    assert set(deepmd.__all__) <= set(dir(deepmd)) | {"DP"}
    with pytest.raises(AttributeError, match="has no attribute 'DQ'"):
        _ = deepmd.DQ


def test_the_calculator() -> None:
    """Energies, forces and the virial (3, 3) that `DeepPot` of deepmd-kit answers; the arguments of its `DP`."""
    ase = pytest.importorskip("ase")
    answers = load_answers()[0]["eval/two_shaped"]
    calculator = deepmd.DP(TRAINED, "name", {"Cu": 1}, None, head="anything", nlist_backend="native", threads=1)
    atoms = ase.Atoms(["O", "Cu", "H", "O", "H"], FRAMES[1], cell=CELLS[1], pbc=True, calculator=calculator)
    assert atoms.get_potential_energy() == pytest.approx(answers[0][1].item(), abs=1e-10)
    np.testing.assert_allclose(atoms.get_forces(), answers[1][1], rtol=0, atol=1e-10)
    virial = calculator.get_property("virial", atoms)
    np.testing.assert_allclose(virial, answers[2][1].reshape(3, 3), rtol=0, atol=1e-10)
    assert "virial" in calculator.implemented_properties
    assert (calculator.label, calculator.name) == ("name", "DP")
    assert calculator.dp.get_type_map() == ["O", "H"]
    assert calculator.dp is calculator.dp
    assert calculator.model.skin == 1.0
    assert atoms.get_properties(["energy", "forces"])["energy"] == atoms.get_potential_energy()  # of ASE's names alone
    from dpa2.ase import DPA2Calculator

    with pytest.raises(dpa2.InputError, match="skin"):
        deepmd.DP(TRAINED, skin=-1.0)
    plain = DPA2Calculator(TRAINED, neighbor_list=object(), type_dict={"Cu": 1})
    assert plain.get_potential_energy(atoms) == atoms.get_potential_energy()
