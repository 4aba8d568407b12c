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
from test_series import answers
np.savez(sys.argv[2], **answers(sys.argv[3]))
"""

OPTIONS: dict[str, dict[str, Any]] = {
    "concat": {"repinit": {"tebd_input_mode": "concat"}},
    "strip": {"repinit": {"tebd_input_mode": "strip"}},
    "one_side": {"repinit": {"tebd_input_mode": "strip", "type_one_side": True}, "davg": 0.3},
}


def answers(name: str) -> dict[str, np.ndarray]:
    """Forces and descriptors of an open cluster and of a pair much closer than any table reaches."""
    rng = np.random.default_rng(5)
    config, weights = random_model(rng, **OPTIONS[name])
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


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_series_and_networks_agree(name: str, tmp_path: Path) -> None:
    saved = {}
    for value in ("on", "off"):
        path = tmp_path / f"{value}.npz"
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(Path(__file__).parent), str(path), name],
            env={**os.environ, "DPA2_SERIES": value},
            check=True,
            timeout=120,
        )
        saved[value] = np.load(path)
    for key in saved["on"].files:
        exact, series = saved["off"][key], saved["on"][key]
        assert np.abs(series - exact).max() <= 1e-11 * max(1.0, np.abs(exact).max()), key
