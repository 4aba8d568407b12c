"""Make `kinds/deepeval.npz`: what the classes of deepmd-kit 3.2.0 for models of all kinds are and answer.

Run by hand in an environment that has deepmd-kit, after generate_kinds.py:

    python tests/golden/generate_deepeval.py
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import deepeval_calls
import torch
from deepeval_calls import CALLS, MODELS, OWN_QUERIES, QUERIES, case_of
from deepmd.infer import DeepEval
from deeppot_calls import save_answers
from generate_deeppot import query
from generate_kinds import working_directory, write_tables
from kind_cases import FILES


def signatures(kind: type) -> dict[str, list[tuple[str, str, Any]]]:
    """The parameters of the methods that evaluate: name, kind, default."""
    found = {}
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if name.startswith("eval"):
            parameters = list(inspect.signature(method).parameters.values())[1:]
            empty = inspect.Parameter.empty
            found[name] = [(p.name, p.kind.name, "" if p.default is empty else p.default) for p in parameters]
    return found


def main() -> None:
    torch.set_num_threads(1)
    answers, queries = {}, {}
    with tempfile.TemporaryDirectory() as folder, working_directory(Path(folder)):
        models = {}
        for name, (source, head) in MODELS.items():
            write_tables(case_of(name))  # deepmd-kit reads them again to load a checkpoint
            models[name] = model = DeepEval(str(FILES / source), head=head)
            kind = type(model).__name__
            asked = {what: query(model, what) for what in (*QUERIES, *OWN_QUERIES.get(kind, ()))}
            queries[name] = {"class": kind, "signatures": signatures(type(model)), **asked}
        for call in CALLS:
            found = getattr(models[call.model], call.method)(*call.args, **call.kwargs)
            answers[call.name] = found if isinstance(found, tuple) else (found,)
    save_answers(answers, queries, deepeval_calls.ANSWERS)
    print(f"{len(CALLS)} calls, {deepeval_calls.ANSWERS.stat().st_size / 1024:.1f} kB")


if __name__ == "__main__":
    main()
