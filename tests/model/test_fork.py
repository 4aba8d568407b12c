"""A forked child can evaluate although its parent has used threads: OpenMP's workers do not survive a fork."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from helpers import case_system, golden, model_of
model = model_of(golden(sys.argv[2]), threads=2)
system = case_system(sys.argv[2], "bulk")
run = lambda: model.evaluate(system.coord, system.atype, system.box, fparam=system.fparam, aparam=system.aparam).forces
before = run()
child = os.fork()
if child == 0:
    os._exit(0 if (run() == before).all() else 3)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_child_of_a_threaded_parent_evaluates() -> None:
    arguments = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(Path(__file__).parents[1]), "act_gelu"]
    finished = subprocess.run(arguments, timeout=60, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
