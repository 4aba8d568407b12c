"""Make `training/initial.npz`: the weights that deepmd-kit's models start with, in the cases of `initial_cases`.

Run by hand in an environment that has deepmd-kit:

    python tests/golden/generate_initial.py            # into tests/golden/training
    python tests/golden/generate_initial.py OUTDIR     # into another folder

Of every case there are the names of the weights, a fingerprint of each, and the next number of the global generator.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import generate
import numpy as np
import torch
from deepmd.pt.model.model import get_model
from initial_cases import CASES, GLOBAL, fingerprints


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "training"
    names, numbers, following = {}, [], []
    for case in CASES:
        torch.manual_seed(GLOBAL)
        weights = generate.canonical_weights(get_model(case.section))
        names[case.key] = sorted(weights)
        numbers.append(fingerprints(weights))
        following.append(torch.rand(1, dtype=torch.float64).item())
    stated = np.frombuffer(json.dumps(names).encode(), np.uint8)
    np.savez_compressed(
        folder / "initial.npz", stated=stated, fingerprints=np.concatenate(numbers), following=following
    )


if __name__ == "__main__":
    main()
