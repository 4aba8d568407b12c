"""Whole evaluations by what NVIDIA's compiler makes of the kernels: its PTX on the CPU. It does not replace a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import needs
import pytest

CHOSEN = "(test_parity_with and (published_medium or base or g1g1)) or ((float32 or order) and published_medium)"


@pytest.mark.slow
def test_what_the_compiler_makes_passes_the_tests_of_the_source() -> None:
    """Tests of test_parity.py once more, in a process of its own; all of them: DPA2_TEST_KERNELS=ptx pytest FILE."""
    needs.nvidia_compilers()
    file = Path(__file__).parent / "test_parity.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file), "-k", CHOSEN]
    variables = {**os.environ, "DPA2_TEST_KERNELS": "ptx"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 5
