"""Make `training/random.json`: what PyTorch's generator returns for some seeds, and seeds of several integers.

Run by hand in an environment that has deepmd-kit:

    python tests/golden/generate_random.py            # into tests/golden/training
    python tests/golden/generate_random.py OUTDIR     # into another folder
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from deepmd.pt.utils.utils import get_generator, mix_entropy

SEEDS = [0, 1, 2**32 - 1, 2**32 + 5, 2**63 - 1]
PATHS = [[7], [0, 1], [3, 1], [1, 0, 2, 1], [2**32 - 1, 5], [0, 2**40]]
#: of which kind, how many, two numbers, in which type; in this order from one generator
FILLS = [
    ("normal", 5, 0.5, 2.0, "float64"),
    ("normal", 16, 0.0, 1.0, "float64"),
    ("normal", 4, 0.0, 1.0, "float64"),
    ("normal", 37, 0.1, 0.001, "float64"),
    ("uniform", 4, -2.0, 3.0, "float64"),
    ("uniform", 4, -0.3, 0.7, "float32"),
    ("normal", 21, 0.0, 0.5, "float32"),
    ("normal", 3, 0.0, 1.0, "float32"),
    ("normal", 1, 0.0, 1.0, "float64"),
    ("permutation", 9, 0, 0, "int64"),
    ("permutation", 1, 0, 0, "int64"),
    ("uniform", 2, 0.0, 1.0, "float64"),
]


def fill(generator: torch.Generator, kind: str, count: int, first: float, second: float, dtype: str) -> list[Any]:
    if kind == "permutation":
        return torch.randperm(count, generator=generator).tolist()
    numbers = torch.empty(count, dtype=getattr(torch, dtype))
    return getattr(numbers, f"{kind}_")(first, second, generator=generator).tolist()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "training"
    streams = []
    for seed in SEEDS:
        generator = torch.Generator()
        generator.manual_seed(seed)
        streams.append({"seed": seed, "fills": [[*one, fill(generator, *one)] for one in FILLS]})
    mixed = [
        {"path": path, "mixed": mix_entropy(path), "first": fill(get_generator(path), *FILLS[4])} for path in PATHS
    ]
    text = json.dumps({"streams": streams, "paths": mixed}, indent=1)
    (folder / "random.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
