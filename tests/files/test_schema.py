"""The schema of configuration and weights that the core states: against the table that Python had of its own."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from cases import FILE_MODELS, ModelCase, golden_cases
from dpa2 import _native
from dpa2.files import config as own
from dpa2.files import layout
from random_model import draw_options, random_model

CASES = (*golden_cases(), *FILE_MODELS)


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape, _, _ in _native.expected_weights(json.dumps(config))}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_weights_of_the_cases(case: ModelCase) -> None:
    assert shapes(case.config) == layout.expected_shapes(case.config)


@pytest.mark.parametrize("seed", range(40))
def test_weights_of_random_configurations(seed: int) -> None:
    rng = np.random.default_rng([17, seed])
    config, _ = random_model(rng, **draw_options(rng))
    assert shapes(config) == layout.expected_shapes(config)


def test_weights_of_tables() -> None:
    grid = {"lower": -1.0, "step": 0.5, "segments": [[4, 1], [3, 2]]}
    for options in ({}, {"repinit.tebd_input_mode": "strip"}, {"repinit.type_one_side": True}):
        config = ModelCase("compressed", options).config
        config["compression"] = {"max_error": None, "repinit": grid, "three_body": grid}
        assert shapes(config) == layout.expected_shapes(config)


@pytest.mark.parametrize(
    ("section", "table"),
    [
        ("descriptor", own._DESCRIPTOR),
        ("repinit", own._REPINIT),
        ("repformer", own._REPFORMER),
        ("fitting_net", own._FITTING),
    ],
)
def test_options(section: str, table: dict[str, Any]) -> None:
    stated = {option["key"]: option for option in _native.config_schema()["sections"][section]}
    assert set(stated) - {"type"} == set(table)
    for key, (kind, default) in table.items():
        option = stated[key]
        assert (default is own._REQUIRED) == (option["presence"] == "required")
        assert default is own._REQUIRED or option["default"] == default
        lowest = {"size": 1, "sizes": 1, "sizes?": 1, "count": 0}.get(kind)
        if lowest is not None:
            assert option["lowest"] == lowest
        if "|" in kind:
            assert option["choices"] == kind.split("|")
    assert set(_native.config_schema()["activations"]) == set(own._ACTIVATIONS)
