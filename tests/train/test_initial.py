"""Initial weights: deepmd-kit's from the same seeds, of every kind and option; what is not drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dpa2.files import schema
from dpa2.train.initial import initial_weights
from dpa2.train.inputs import canonical_model, normalise
from dpa2.train.random import Generator, mix
from initial_cases import CASES, GLOBAL, InitialCase, expected, fingerprints
from training_inputs import BASE, changed


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_weights_are_those_of_deepmd(case: InitialCase) -> None:
    generator, stated = Generator(GLOBAL), expected()[case.key]
    section = case.section
    weights = initial_weights(section, generator)
    assert sorted(weights) == stated.names
    single = np.array([weights[name].dtype == np.float32 for name in stated.names])
    differences = np.abs(fingerprints(weights) - stated.fingerprints).max(axis=1)
    assert differences[~single].max(initial=0.0) < 1e-14
    # logarithms and angles in single precision are not rounded alike
    assert differences[single].max(initial=0.0) < 1e-6
    assert abs(generator.doubles(1)[0] - stated.following) < 1e-16
    config = canonical_model(section)
    schema.check_weights(config, weights)
    assert {name: weight.dtype for name, weight in schema.expected_weights(config).items()} == {
        name: str(array.dtype) for name, array in weights.items()
    }


def test_some_weights_by_hand() -> None:
    """Layers whose paths in the tree are read off deepmd-kit's own files, from seeds of several integers."""
    weights = initial_weights(InitialCase("base", "seeds").section, Generator(0))
    for name, path, shape in (
        ("descriptor.repinit.filter_layers.networks.0.layers.1", [1, 1, 0, 3], (4, 8)),
        ("descriptor.repinit_three_body.filter_layers.networks.0.layers.0", [0, 1, 5, 3], (9, 2)),
        ("descriptor.repformers.layers.1.linear1", [1, 1, 1, 1, 3], (26, 8)),
        ("descriptor.repformers.layers.0.attn2_mh_apply.head_map", [1, 8, 0, 1, 1, 3], (10, 5)),
        ("fitting_net.filter_layers.networks.0.layers.2", [2, 0, 4], (12, 1)),
    ):
        generator = Generator(mix(path))
        matrix = generator.normal(shape, 0.0, 1.0 / math.sqrt(sum(shape)))
        assert np.array_equal(weights[f"{name}.matrix"], matrix)
        assert np.array_equal(weights[f"{name}.bias"], generator.normal(shape[1]))
    bound = math.sqrt(6 / sum(weights["descriptor.g1_shape_tranform.matrix"].shape))
    assert np.abs(weights["descriptor.g1_shape_tranform.matrix"]).max() < bound


def test_what_is_not_drawn() -> None:
    section = InitialCase("fparam_aparam_case", "seeds").section
    weights = initial_weights(section, Generator(0), case_index=1)
    for name, value in weights.items():
        leaf = name.rpartition(".")[2]
        if leaf in ("mean", "out_bias", "bias_atom_e", "fparam_avg", "aparam_avg") or name.endswith("attn2_lm.bias"):
            assert not value.any(), name
        if leaf in ("stddev", "out_std", "fparam_inv_std", "aparam_inv_std") or name.endswith("attn2_lm.matrix"):
            assert (value == 1).all(), name
    assert weights["fitting_net.case_embd"].tolist() == [0, 1, *[0] * (weights["fitting_net.case_embd"].size - 2)]
    assert not initial_weights(section, Generator(0))["fitting_net.case_embd"].any()


def test_numbers_of_neighbours_do_not_matter() -> None:
    """They may be left to the data, which are looked at before."""
    auto = changed(BASE, {"model.descriptor.repinit.nsel": "auto", "model.descriptor.repformer.nsel": "auto:1.5"})
    found, given = (initial_weights(normalise(one)["model"], Generator(5)) for one in (auto, BASE))
    assert all(np.array_equal(value, given[name]) for name, value in found.items())


def test_seeds_make_weights_and_the_generator_the_rest() -> None:
    seeded = changed(BASE, {"model.descriptor.seed": 2})["model"]
    one, other = (initial_weights(normalise({**BASE, "model": seeded})["model"], Generator(s)) for s in (0, 1))
    assert all(np.array_equal(value, other[name]) for name, value in one.items())
    free = changed(BASE, {"model.fitting_net.seed": None})["model"]
    one, other = (initial_weights(normalise({**BASE, "model": free})["model"], Generator(s)) for s in (0, 1))
    name = "fitting_net.filter_layers.networks.0.layers.0.matrix"
    assert not np.array_equal(one[name], other[name])
