"""Make `deeppot/answers.npz`: what deepmd-kit 3.2.0's `DeepPot` answers to the calls of tests/deeppot_calls.py.

Run by hand in an environment that has deepmd-kit, after generate.py and generate_files.py:

    python tests/golden/generate_deeppot.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import generate
import torch
from cases import GOLDEN, golden_cases, load_golden
from deepmd.infer import DeepPot
from deepmd.pt.model.model import get_model
from deepmd.pt.train.wrapper import ModelWrapper
from deeppot_calls import ANSWERS, CALLS, MODELS, QUERIES, save_answers


def checkpoint(name: str, folder: Path) -> Path:
    """The model of a golden file as a checkpoint."""
    case = next(case for case in golden_cases() if case.name == name)
    params = generate.deepmd_input(case.config)
    model = get_model(params).eval()
    generate.load_values(model, generate.expand(model, load_golden(case).weights))
    path = folder / f"{name}.pt"
    torch.save({"model": ModelWrapper(model, model_params=params).state_dict()}, path)
    return path


def query(model: Any, name: str) -> Any:
    found = getattr(model, name)
    return found() if callable(found) else found


def main() -> None:
    torch.set_num_threads(1)
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (source, options) in MODELS.items():
            path = GOLDEN / "files" / source if "/" in source else checkpoint(source, Path(folder))
            models[name] = DeepPot(str(path), **options)
    answers = {}
    for call in CALLS:
        found = getattr(models[call.model], call.method)(*call.args, **call.kwargs)
        answers[call.name] = found if isinstance(found, tuple) else (found,)
    save_answers(answers, {name: {what: query(model, what) for what in QUERIES} for name, model in models.items()})
    print(f"{len(CALLS)} calls, {ANSWERS.stat().st_size / 1024:.1f} kB")


if __name__ == "__main__":
    main()
