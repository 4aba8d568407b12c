"""The series that stand for the embedding networks against these networks, and the way back to the networks."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from dpa2.files import ModelData
from random_model import random_model

SCRIPT = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from model.test_series import answers
np.savez(sys.argv[2], **answers(sys.argv[3]))
"""

OPTIONS: dict[str, dict[str, Any]] = {
    "concat": {"repinit": {"tebd_input_mode": "concat"}},
    "strip": {"repinit": {"tebd_input_mode": "strip"}},
    "one_side": {"repinit": {"tebd_input_mode": "strip", "type_one_side": True}, "davg": 0.3},
}
#: of networks whose series would take 1e11 multiplications
WIDE: dict[str, Any] = {"ntypes": 10, "repinit": {"neuron": [1200, 1200, 2], "axis_neuron": 2, "use_three_body": False}}


def answers(name: str) -> dict[str, np.ndarray]:
    """Forces and descriptors of an open cluster and of a pair much closer than any table reaches."""
    rng = np.random.default_rng(5)
    config, weights = random_model(rng, **(WIDE if name == "wide" else OPTIONS[name]))
    model = dpa2.Model(ModelData(config, weights), precision="float64", threads=1, on_overflow="ignore")
    types = rng.integers(0, len(model.type_map), 12)
    cluster = rng.normal(size=(12, 3)) * 2.5
    close = cluster.copy()
    close[1] = close[0] + [0.0, 0.15, 0.1]
    out = {}
    for key, coords in (("cluster", cluster), ("close", close)):
        out[key + "_forces"] = np.asarray(model.evaluate(coords, types).forces)
        out[key + "_descriptor"] = np.asarray(model.descriptor(coords, types))
    return out


def with_and_without(name: str, folder: Path) -> tuple[Any, Any]:
    """The answers by series and by networks."""
    found = []
    for value in ("on", "off"):
        path = folder / f"{value}.npz"
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(Path(__file__).parents[1]), str(path), name],
            env={**os.environ, "DPA2_SERIES": value},
            check=True,
            timeout=120,
        )
        found.append(np.load(path))
    return found[0], found[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_series_and_networks_agree(name: str, tmp_path: Path) -> None:
    series, exact = with_and_without(name, tmp_path)
    for key in series.files:
        assert np.abs(series[key] - exact[key]).max() <= 1e-11 * max(1.0, np.abs(exact[key]).max()), key


@pytest.mark.slow
def test_networks_that_would_take_too_long_are_evaluated(tmp_path: Path) -> None:
    """Files of some megabytes could ask for hours of fitting: the networks are used then, to the same bits."""
    series, exact = with_and_without("wide", tmp_path)
    for key in series.files:
        np.testing.assert_array_equal(series[key], exact[key])
