"""`dpa2.deepmd` with spin models, against deepmd-kit's own answers (tests/golden/spin_tests)."""

from __future__ import annotations

from functools import cache
from typing import Any

import dpa2
import numpy as np
import pytest
from cases import GOLDEN
from dpa2.deepmd import DeepDipole, DeepEval, DeepPot
from spin_cases import FILES
from spin_sets import evaluated_frames

MODEL = FILES / "spin" / "model.pt"


@cache
def model() -> DeepPot:
    found = DeepEval(MODEL, threads=1)
    assert type(found) is DeepPot
    return found


def arguments(**changes: Any) -> dict[str, Any]:
    return {**evaluated_frames(), **changes}


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    scale = max(1.0, float(np.abs(theirs).max()))
    return ours.shape == theirs.shape and bool(np.abs(ours - theirs).max() < 1e-10 * scale)


def test_returns_what_deepmd_kit_returns() -> None:
    with np.load(GOLDEN / "spin_tests" / "deeppot.npz") as data:
        theirs = [data[name] for name in data.files]
    ours = model().eval(**arguments(), atomic=True)
    assert len(ours) == len(theirs) == 7
    assert [array.dtype for array in ours] == [np.float64] * 6 + [np.bool_]
    for k, (mine, other) in enumerate(zip(ours[:6], theirs[:6], strict=True)):
        assert close(mine, other), k
    assert np.array_equal(ours[6], theirs[6].astype(bool))
    energy, force, virial, force_mag, mask_mag = model().eval(**arguments())
    for mine, other in zip((energy, force, virial, force_mag), (*ours[:3], ours[5]), strict=True):
        assert np.array_equal(mine, other)
    assert np.array_equal(mask_mag, ours[6])


@pytest.mark.parametrize("shape", [(30,), (2, 15), (10, 3)])
def test_spins_come_in_any_shape(shape: tuple[int, ...]) -> None:
    spins = evaluated_frames()["spin"].reshape(shape)
    assert np.array_equal(model().eval(**arguments(spin=spins))[0], model().eval(**arguments())[0])
    types = np.tile(evaluated_frames()["atom_types"], (2, 1))
    mixed = model().eval(**arguments(spin=spins, atom_types=types, mixed_type=True))
    assert np.array_equal(mixed[3], model().eval(**arguments())[3])


def test_getters() -> None:
    assert model().has_spin is True
    assert model().use_spin == [True, False, True]
    assert model().get_type_map() == ["O", "H", "Cu"]
    assert model().get_ntypes() == 3
    assert model().get_ntypes_spin() == 0
    assert model().get_sel_type() == [0, 1, 2]


def test_observed_types_are_atoms_with_a_bias() -> None:
    loaded = model().get_model()
    bias = loaded._data.weights["models.0.out_bias"][0, :3, 0]
    assert np.abs(bias).min() > 1e-6
    assert model().get_observed_types() == {"type_num": 3, "observed_type": ["H", "O", "Cu"]}


def test_other_classes_say_that_it_has_spins() -> None:
    with pytest.raises(dpa2.InputError, match="a model of kind 'spin', which DeepPot is for and not DeepDipole"):
        DeepDipole(MODEL)


def test_descriptors() -> None:
    given = arguments()
    found = model().eval_descriptor(**given)
    assert found.shape == (2, 5, model().get_model().descriptor_dim)
    expected = (
        model()
        .get_model()
        .descriptor(given["coords"], given["atom_types"], given["cells"].reshape(2, 3, 3), spin=given["spin"])
    )
    assert np.array_equal(found, expected)
    assert model().eval_descriptor(**given, dtype="fp32").dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spin": None}, "this is a spin model, its energies depend on spins: pass spin="),
        ({"spin": np.zeros((2, 4, 3))}, r"spin must have 2 x 5 x 3 \(nframes x natoms x 3\) numbers, but has 24"),
        ({"spin": np.full((2, 5, 3), np.nan)}, r"spin\[0, 0, 0\] = nan is not finite"),
    ],
)
def test_spins_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        model().eval(**arguments(**changes))


def test_what_spin_models_have_not() -> None:
    for method in (model().eval_embedding, model().eval_fitting_last_layer):
        with pytest.raises(dpa2.UnsupportedModelError, match="no embeddings of spin models"):
            method(**arguments())
