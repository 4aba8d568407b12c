"""Make `dp_test/`: what deepmd-kit 3.2.0 prints and writes for the data sets of tests/datasets.py.

Run by hand in an environment that has deepmd-kit, after generate_files.py:

    python tests/golden/generate_data_errors.py
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent
sys.path.insert(0, str(GOLDEN.parent))

from data_cases import LMDB  # noqa: E402
from datasets import HDF5_GROUP, SYSTEMS, write_all  # noqa: E402
from deepmd.entrypoints.neighbor_stat import neighbor_stat  # noqa: E402
from deepmd.entrypoints.test import test  # noqa: E402
from deepmd.infer.model_devi import make_model_devi  # noqa: E402

FILES = GOLDEN / "files"
OUT = GOLDEN / "dp_test"
MODEL = str(FILES / "trained" / "model.pt")
MODELS = [MODEL, str(FILES / "trained" / "model_ema.pt"), str(FILES / "version1" / "model.pt")]
# not relative_v, with which deepmd-kit 3.2.0 divides arrays whose shapes do not fit
DEVIATIONS = {
    "plain": {},
    "atomic": {"atomic": True},
    "real": {"real_error": True, "relative": 0.5},
    "relative": {"relative": 1.0, "frequency": 5},
}


class Lines(logging.Handler):
    """Collects messages."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def printed(name: str, out: Path, **options: object) -> None:
    """Run the test command and keep its lines in a file of that name in `out`."""
    handler = Lines()
    logger = logging.getLogger("deepmd")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    defaults = {"system": None, "datafile": None, "numb_test": 0, "rand_seed": None, "shuffle_test": False}
    test(**{"model": MODEL, **defaults, "detail_file": None, "atomic": False, **options})
    logger.removeHandler(handler)
    start = handler.lines.index("# ---------------output of dp test--------------- ")
    (out / f"{name}.txt").write_text("".join(f"{line}\n" for line in handler.lines[start:]), encoding="utf-8")


def main() -> None:
    if OUT.is_dir():
        shutil.rmtree(OUT)
    OUT.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder))
        os.chdir(folder)
        Path("systems.txt").write_text("".join(f"{name}\n" for name in SYSTEMS))
        printed("all", OUT, datafile="systems.txt", detail_file="detail")
        printed("two_frames", OUT, datafile="systems.txt", numb_test=2)
        printed("shuffled", OUT, datafile="systems.txt", numb_test=2, shuffle_test=True, rand_seed=7)
        printed("atomic", OUT, system="standard", atomic=True)
        printed("hdf5", OUT, system=f"standard.hdf5#{HDF5_GROUP}")
        shutil.copytree(LMDB, LMDB.name)
        printed("lmdb", OUT, system=LMDB.name)
        for path in Path().glob("detail.*"):
            shutil.copy(path, OUT)
        for name, options in DEVIATIONS.items():
            for system in ("standard", "mixed"):
                output = str(OUT / f"devi_{name}_{system}.out")
                make_model_devi(**{"models": MODELS, "system": system, "output": output, "frequency": 1, **options})
        statistics = {}
        for system in ("open", "standard"):  # in "mixed" deepmd-kit takes the virtual atoms for real ones
            for rcut in (2.0, 4.0):
                found = neighbor_stat(system=system, rcut=rcut, type_map=["O", "H"], mixed_type=True, backend="pytorch")
                statistics[f"{system} {rcut:g}"] = [float(found[0]), int(found[1][0])]
        (OUT / "neighbors.json").write_text(json.dumps(statistics, indent=1) + "\n")


if __name__ == "__main__":
    main()
