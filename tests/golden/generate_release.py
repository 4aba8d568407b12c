"""Make ``release/<version>/``: native files as a release of dpa2 writes them, which every later one must read.

Run once per release, in an environment that has it: ``python tests/golden/generate_release.py``.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dpa2
from cases import load_golden
from dpa2.compress import compress
from dpa2.files import ModelData, read, write_safetensors
from releases import COMPRESSED, CONVERTED, PLAIN

HERE = Path(__file__).parent


def main() -> None:
    """Write the files that are not there."""
    folder = HERE / "release" / dpa2.__version__
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    models = {}
    for name, file in PLAIN.items():
        golden = load_golden(HERE / file)
        models[name] = ModelData(golden.config, golden.weights)
    models |= {name: read(HERE / file, head) for name, (file, head, _) in CONVERTED.items()}
    models |= {name: compress(read(HERE / file, head))[0] for name, (file, head, _) in COMPRESSED.items()}
    for name, model in models.items():
        if not (folder / f"{name}.safetensors").exists():
            write_safetensors(folder / f"{name}.safetensors", model)


if __name__ == "__main__":
    main()
