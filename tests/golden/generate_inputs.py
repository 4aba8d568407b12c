"""Make `training/inputs.json`: what deepmd-kit makes of the inputs of `training_inputs`.

Run by hand in an environment that has deepmd-kit:

    python tests/golden/generate_inputs.py            # into tests/golden/training
    python tests/golden/generate_inputs.py OUTDIR     # into another folder
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deepmd.pt.utils.multi_task import preprocess_shared_params
from deepmd.utils.argcheck import normalize
from deepmd.utils.compat import update_deepmd_input
from training_inputs import CASES


def made(given: dict[str, Any], folder: str) -> dict[str, Any]:
    """What `dp --pt train` writes of an input, and which parts are shared."""
    config, links = copy.deepcopy(given), {}
    several = "model_dict" in config["model"]
    if several:
        config["model"], links = preprocess_shared_params(config["model"])
    compatible = f"{folder}/input_v2_compat.json"
    config = update_deepmd_input(config, warning=False, dump=compatible)
    shared = {
        name: [[link["model_key"], link["shared_level"]] for link in part["links"]] for name, part in links.items()
    }
    text = Path(compatible).read_text(encoding="utf-8")
    return {"compatible": json.loads(text), "out": normalize(config, multi_task=several), "shared": shared}


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "training"
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"{json.dumps(name)}: {json.dumps(made(given, folder))}" for name, given in CASES.items()]
    (target / "inputs.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
