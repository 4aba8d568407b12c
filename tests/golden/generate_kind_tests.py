"""Make `kind_tests/`: what deepmd-kit 3.2.0 prints and writes for the data sets of tests/tensor_sets.py.

Combinations of models, which have energies, are tested with those of tests/datasets.py.

Run by hand in an environment that has deepmd-kit, after generate_kinds.py:

    python tests/golden/generate_kind_tests.py

deepmd-kit takes all frames of a system of mixed type for frames of the first one's types when a model is one of dipoles
or polarizabilities. What it should say is the average over the frames as systems of their own, which it is asked for.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent
sys.path.insert(0, str(GOLDEN.parent))

from datasets import SYSTEMS, write_all  # noqa: E402
from generate_data_errors import printed  # noqa: E402
from generate_kinds import TESTED, write_tables  # noqa: E402
from kind_cases import KIND_CASES  # noqa: E402
from tensor_sets import MORE_TENSORS, write_more_tensors, write_split_tensors  # noqa: E402

FILES = GOLDEN / "kinds" / "files"
OUT = GOLDEN / "kind_tests"


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_more_tensors(Path())
        split = write_split_tensors(Path("split"))
        Path("systems.txt").write_text("".join(f"{name}\n" for name in MORE_TENSORS))
        Path("split.txt").write_text("".join(f"split/{name}\n" for name in split))
        for kind, (name, head) in TESTED.items():
            options = {"model": str(FILES / name / "model.pt"), "head": head}
            frames = {"datafile": "split.txt"} if kind in ("dipole", "polar") else {"system": "mixed"}
            for suffix, atomic in (("", False), ("_atomic", True)):
                detail = f"{kind}{suffix}"
                printed(detail, OUT, detail_file=detail, atomic=atomic, datafile="systems.txt", **options)
                printed(f"{kind}_mixed{suffix}", OUT, atomic=atomic, **frames, **options)
            printed(f"{kind}_two", OUT, datafile="systems.txt", numb_test=2, **options)
        write_all(Path("energies"))
        os.chdir("energies")
        Path("systems.txt").write_text("".join(f"{name}\n" for name in SYSTEMS))
        for name in ("zbl", "linear"):
            write_tables(next(case for case in KIND_CASES if case.name == name))  # which deepmd-kit reads again
            printed(name, OUT, datafile="systems.txt", model=str(FILES / name / "model.pt"))
        os.chdir("..")
        for path in Path().glob("*.out*"):
            shutil.copy(path, OUT)


if __name__ == "__main__":
    main()
