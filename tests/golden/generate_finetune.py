"""Make `training/finetune.npz`: short fine-tuning runs of deepmd-kit, as `tuning_runs` declares them.

Run by hand in an environment that has deepmd-kit, after generate.py:

    python tests/golden/generate_finetune.py            # into tests/golden/training
    python tests/golden/generate_finetune.py OUTDIR     # into another folder
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import training_cases as training
import training_runs as runs
import tuning_runs as tuned
from generate_runs import arrays_of


def deepmd(folder: Path, config: dict[str, Any], *options: str) -> None:
    """Train in a folder."""
    (folder / "input.json").write_text(json.dumps(config))
    command = [str(Path(sys.executable).with_name("dp")), "--pt", "train", "input.json", "--skip-neighbor-stat"]
    environment = os.environ | {"NUM_WORKERS": str(runs.STREAMS), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *options], cwd=folder, env=environment, check=True, capture_output=True)


def main() -> None:
    out: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tuned.write_data(folder)
        deepmd(folder, runs.RUNS[tuned.START])
        (folder / "model.ckpt.pt").resolve().rename(folder / tuned.CHECKPOINT)
        for case, (config, options) in tuned.TUNED.items():
            for path in [*folder.glob("model.ckpt*"), folder / "lcurve.out"]:
                path.unlink()
            deepmd(folder, config, "--finetune", tuned.CHECKPOINT, *options)
            content = arrays_of(torch.load(folder / "model.ckpt.pt", weights_only=True))
            arrays, stated = runs.summary(content)
            numbers = {key: training.fingerprint(key, array) for key, array in arrays.items()}
            found = {"curve": (folder / "lcurve.out").read_text(), "content": stated, "tensors": list(numbers)}
            out[f"{case} stated"] = np.frombuffer(json.dumps(found).encode(), np.uint8)
            out[f"{case} numbers"] = np.array(list(numbers.values()))
            print(case, found["curve"], sep="\n")
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else training.TRAINING
    np.savez_compressed(target / "finetune.npz", **out)


if __name__ == "__main__":
    main()
