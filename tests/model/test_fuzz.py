"""Random models in random options on random structures: the compiled core against the NumPy reference.

The reference differentiates by complex steps, so that its forces and virials are exact to rounding. And mutated model
files: `fuzz_models` makes as many as one likes, here are a few.
"""

from __future__ import annotations

import dpa2
import fuzz_models
import fuzzing
import needs
import numpy as np
import pytest
from cases import TOLERANCE
from dpa2.files import ModelData
from helpers import DEVICE, relative
from random_model import draw_options, random_model, random_parameters, random_structure


@pytest.mark.parametrize("seed", needs.mostly_slow(range(60), range(20)))
def test_core_agrees_with_reference(seed: int) -> None:
    rng = np.random.default_rng([77, seed])
    config, weights = random_model(rng, **draw_options(rng))
    natoms = int(rng.integers(1, 9))
    coords, types, box, pbc = random_structure(rng, len(config["type_map"]), natoms, virtual=rng.random() < 0.2)
    fparam, aparam = random_parameters(rng, config, len(types))
    atomic = ("deepmd" if seed % 2 else True) if len(types) <= 4 else False
    answers = []
    for device in (DEVICE, "reference"):
        model = dpa2.Model(ModelData(config, weights), precision="float64", device=device, on_overflow="ignore")
        result = model.evaluate(coords, types, box, pbc, fparam, aparam, atomic=atomic)
        descriptor, rot_mat = model.descriptor(coords, types, box, pbc, rot_mat=True)
        answers.append((result, descriptor, rot_mat))
    (ours, descriptor, rot_mat), (reference, expected_descriptor, expected_rot_mat) = answers
    assert relative(descriptor, expected_descriptor) <= TOLERANCE["float64"]
    assert relative(rot_mat, expected_rot_mat) <= TOLERANCE["float64"]
    for field in ("energy", "atom_energy", "forces", "virial"):
        assert relative(getattr(ours, field), getattr(reference, field)) <= TOLERANCE["float64"], field
    if atomic:
        assert relative(ours.atom_virial, reference.atom_virial) <= TOLERANCE["float64"]


@pytest.mark.parametrize("seed", range(20))
def test_float32_stays_near_float64(seed: int) -> None:
    rng = np.random.default_rng([78, seed])
    options = draw_options(rng)
    for group in ("repinit", "repformer", "fitting"):
        options[group]["activation_function"] = "tanh"  # bounded, so that rounding errors are not amplified
    config, weights = random_model(rng, **options)
    coords, types, box, pbc = random_structure(rng, len(config["type_map"]))
    fparam, aparam = random_parameters(rng, config, len(types))
    low, high = (
        dpa2.Model(ModelData(config, weights), precision=precision, device=DEVICE, on_overflow="ignore").evaluate(
            coords, types, box, pbc, fparam, aparam
        )
        for precision in ("float32", "float64")
    )
    for field in ("energy", "atom_energy", "forces", "virial"):
        assert relative(getattr(low, field), getattr(high, field)) <= TOLERANCE["float32"], field


@pytest.mark.slow
def test_mutated_model_files_do_no_harm() -> None:
    """Read or refused: no crash, no wait, no error of another kind, no gigabyte of memory."""
    report = fuzzing.fuzz("fuzz_models:read", fuzz_models.make, range(200), fuzz_models.ALLOWED)
    assert report.wrong == []
    outcomes = [outcome for _, outcome in report.counts.elements()]
    assert min(outcomes.count("read"), outcomes.count("refused")) > 40
