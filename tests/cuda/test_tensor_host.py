"""DPA2_CUDA_TENSOR on the emulated device: when tensor cores are used, and what is said where they are not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator.driver import environment
from helpers import relative

TESTS = Path(__file__).resolve().parents[1]

#: two models of each precision, and what one evaluation gives and launches
SCRIPT = """
import json, sys, warnings
import dpa2, numpy as np
from cuda_emulator.driver import driver
from gpu_models import full_model

rng = np.random.default_rng(1)
coords, types, box = rng.normal(size=(5, 3)) * 1.5, np.array([0, 1, 1, 0, 1]), np.eye(3) * 6.0
found = {}
for precision in sys.argv[1].split():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        models = [dpa2.Model(full_model(), precision=precision, device="cuda") for _ in range(2)]
    tried = sum(one.kernel == "tensor_check" for one in driver().launches())
    driver().reset()
    result = models[1].evaluate(coords, types, box)
    said = [[str(one.message), one.category.__name__, one.filename] for one in caught]
    found[precision] = {"said": said, "tried": tried, "forces": result.forces.tolist(), "energy": result.energy}
print(json.dumps(found))
"""


@cache
def evaluated(
    architecture: int, tensor: str | None, products: str = "", precisions: str = "float64 float32"
) -> dict[str, Any]:
    """What a process of its own says."""
    variables = {**os.environ, **environment(architecture=architecture), "PYTHONPATH": str(TESTS)}
    variables |= {"DPA2_EMULATED_PRODUCTS": products} | ({} if tensor is None else {"DPA2_CUDA_TENSOR": tensor})
    command = [sys.executable, "-c", SCRIPT, precisions]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("tensor", [None, "0", ""])
def test_they_are_off_unless_asked_for(tensor: str | None) -> None:
    found = evaluated(80, tensor, precisions="float32")["float32"]
    assert (found["said"], found["tried"]) == ([], 0)


def test_they_are_tried_once_and_used() -> None:
    """Both precisions: close to what multiply-adds give, and not the same bits, so that something was used."""
    found, usual = evaluated(80, "1"), evaluated(80, None)
    for precision, bound in (("float64", 1e-12), ("float32", 2e-5)):
        assert (found[precision]["said"], found[precision]["tried"]) == ([], 1)
        forces = [np.array(one[precision]["forces"]) for one in (found, usual)]
        assert relative(*forces) <= bound
        assert (forces[0] != forces[1]).any()


def test_wrong_ones_are_found_and_said_once() -> None:
    """The two models of a precision, with the usual kernels: the same bits as without; the warning names the caller."""
    found, usual = evaluated(80, "1", "wrong"), evaluated(80, None)
    for precision in ("float64", "float32"):
        assert found[precision]["tried"] == 1
        ((message, category, file),) = found[precision]["said"]
        assert category == "RuntimeWarning"
        assert file == "<string>"
        assert "tensor cores of CUDA device 0" in message
        assert "has the error" in message
        assert "multiply-adds are used" in message
        assert found[precision]["forces"] == usual[precision]["forces"]
        assert found[precision]["energy"] == usual[precision]["energy"]


def test_old_devices_have_none() -> None:
    found, usual = evaluated(75, "1", precisions="float32"), evaluated(80, None)
    ((message, category, _),) = found["float32"]["said"]
    assert category == "RuntimeWarning"
    assert "compute capability 8.0, and CUDA device 0" in message
    assert "has 7.5" in message
    assert found["float32"]["tried"] == 0
    assert found["float32"]["forces"] == usual["float32"]["forces"]


WHOLE = "float32 or (order and published_medium) or (parity_with and (base or published_medium or g1g1 or fparam))"


@pytest.mark.slow
def test_whole_models_are_as_good_as_without() -> None:
    """Tests of test_parity.py once more: deepmd-kit's numbers, its own error in single precision, and the same bits."""
    file = Path(__file__).parent / "test_parity.py"
    words = ["-W", "error::RuntimeWarning", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow"]
    variables = {**os.environ, "DPA2_TEST_ARCHITECTURE": "80", "DPA2_CUDA_TENSOR": "1"}
    command = [sys.executable, "-m", "pytest", *words, str(file), "-k", WHOLE]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 10


def test_other_values_are_refused() -> None:
    variables = {**os.environ, **environment(), "PYTHONPATH": str(TESTS), "DPA2_CUDA_TENSOR": "yes"}
    code = "import dpa2; from gpu_models import full_model; dpa2.Model(full_model(), device='cuda')"
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert 'InputError: DPA2_CUDA_TENSOR is "yes": it must be 1' in done.stderr


@needs.library
def test_c_programs_are_told(tmp_path: Path) -> None:
    """The call that loads a model: the first one, not the second."""
    code = """
import sys
from pathlib import Path
from c_library import load, message
from dpa2.files import write_safetensors
from gpu_models import full_model
path = Path(sys.argv[1])
write_safetensors(path, full_model())
for _ in range(2):
    model = load(path, "float32", device="cuda")
    print(message("last_warning"))
"""
    variables = {**os.environ, **environment(), "PYTHONPATH": str(TESTS), "DPA2_CUDA_TENSOR": "1"}
    command = [sys.executable, "-c", code, str(tmp_path / "model.safetensors")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = done.stdout.splitlines()
    assert "need compute capability 8.0" in first
    assert second == ""
