"""Whole evaluations by what NVIDIA's compiler makes of the kernels: its PTX on the CPU. It does not replace a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import needs
import pytest

#: one of each way to give the types and to join the blocks, and the functions of the activations
CASES = (
    "published_medium", "base", "davg_strip", "one_side", "g1g1", "res_incr", "fparam_aparam_case", "act_relu6",
    "act_gelu", "act_silut", "random_02", "random_07", "random_10",
)  # fmt: skip


@pytest.mark.slow
def test_what_the_compiler_makes_passes_the_tests_of_the_source() -> None:
    """The tests of test_parity.py once more, in a process of its own."""
    needs.nvidia_compilers()
    chosen = f"test_float32 or test_the_order or (test_parity_with and ({' or '.join(CASES)}))"
    file = Path(__file__).parent / "test_parity.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file), "-k", chosen]
    variables = {**os.environ, "DPA2_TEST_KERNELS": "ptx"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= len(CASES)
