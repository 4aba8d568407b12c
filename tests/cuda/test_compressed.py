"""Compressed models on the emulated device: tables in place of the embedding networks."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from dpa2.compress import chosen
from dpa2.cuda.engine import CudaEngine
from dpa2.files import ModelData
from dpa2.reference import ReferenceModel
from helpers import golden, relative

NO_PBC = (False, False, False)


@pytest.mark.filterwarnings("ignore:the file does not say how close")
@pytest.mark.parametrize("name", ["base", "davg_strip", "davg_rough", "one_side"])
def test_compressed_models(name: str) -> None:
    """Against the reference, which reads the same tables; neither is close to the networks."""
    given = golden(name)
    data = chosen(ModelData(given.config, given.weights), 1e-3)
    system = given.systems[-1]
    box = None if system.box is None else system.box[0]
    frame = (system.coord[0], system.atype.astype(np.int32), box, NO_PBC if box is None else (True, True, True))
    found = CudaEngine(data, "float64", EmulatedDevice()).evaluate(*frame, None, None, 0, 1)
    wanted = ReferenceModel(data.config, data.weights).evaluate(*frame)
    for quantity in ("energy", "forces", "virial"):
        assert relative(found[quantity], wanted[quantity]) <= 1e-12, quantity
    assert relative(found["forces"], system.expected["force"][0]) > 1e-9, "the tables were not read"
