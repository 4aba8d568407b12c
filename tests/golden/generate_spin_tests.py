"""Make `spin_tests/`: what deepmd-kit 3.2.0 prints and writes for the data sets of tests/spin_sets.py.

Run by hand in an environment that has deepmd-kit, after generate_spin.py:

    python tests/golden/generate_spin_tests.py
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parent
sys.path.insert(0, str(GOLDEN.parent))

from deepmd.infer import DeepPot  # noqa: E402
from generate_data_errors import printed  # noqa: E402
from spin_sets import SPIN_SYSTEMS, evaluated_frames, write_spins  # noqa: E402

MODEL = str(GOLDEN / "spin" / "files" / "spin" / "model.pt")
OUT = GOLDEN / "spin_tests"


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_spins(Path())
        Path("systems.txt").write_text("".join(f"{name}\n" for name in SPIN_SYSTEMS))
        printed("plain", OUT, detail_file="plain", datafile="systems.txt", model=MODEL)
        printed("atomic", OUT, atomic=True, datafile="systems.txt", model=MODEL)
        printed("mixed", OUT, system="mixed", model=MODEL)
        for path in Path().glob("plain.*.out"):
            shutil.copy(path, OUT)
    answers = DeepPot(MODEL).eval(**evaluated_frames(), atomic=True)
    np.savez_compressed(OUT / "deeppot.npz", *answers)


if __name__ == "__main__":
    main()
