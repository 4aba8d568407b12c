"""Hessians of deepmd-kit: which models and structures, declared once; `golden/generate_hessians.py` makes the files.

Needs NumPy alone, like `cases`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from cases import GOLDEN

HESSIANS = GOLDEN / "hessians"

#: golden cases, and systems of theirs; of the first frame
CASES: dict[str, tuple[str, ...]] = {
    "base": ("bulk", "open", "tiny"),
    **dict.fromkeys(
        (
            "strip", "published_medium", "no_three_body", "h2_no_gate", "h2_without_attn", "out_both_false", "res_avg",
            "rough_no_sqrt", "direct_dist_davg", "env_protection", "tebd_skip_double", "davg", "davg_rough_strip",
            "exclude_all", "virtual_davg", "fparam_aparam", "linear_fitting_parameters", "act_softplus", "act_gelu",
            "act_silut", "random_03",
        ),
        ("open", "tiny"),
    ),
    "binding_sel": ("open",),
}  # fmt: skip

#: model files in deepmd-kit's hessian_mode: `trained` by a training run with Hessians, `parameters` saved as one
FILES = ("trained", "parameters")
TYPES = np.array([0, 1, 1, 0, 1])
_ATOMS = np.array([[0.1, 0.0, 0.2], [1.0, 0.1, 0.0], [-0.3, 0.9, 0.3], [1.6, 1.7, 1.1], [0.2, 2.1, 3.0]])
FRAMES = _ATOMS + np.random.default_rng(43).normal(scale=0.08, size=(2, 5, 3))
CELLS = np.array([np.diag([4.6, 4.9, 5.2]), [[5.1, 0.2, 0.0], [0.7, 4.8, 0.1], [-0.4, 0.5, 5.3]]])
PARAMETERS = {"fparam": np.array([[0.3, -1.1], [0.6, -1.9]]), "aparam": np.linspace(-0.7, 0.9, 10).reshape(2, 5, 1)}

#: calls of DeepPot.eval: the file, the arguments
CALLS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "open": ("trained", (FRAMES, None, TYPES), {}),
    "one": ("trained", (FRAMES[0], CELLS[0], TYPES), {}),
    "atomic": ("trained", (FRAMES, CELLS, TYPES), {"atomic": True}),
    "parameters": ("parameters", (FRAMES, CELLS, TYPES), PARAMETERS),
}


def packed(matrix: np.ndarray) -> np.ndarray:
    """The upper triangle of a symmetric matrix."""
    return matrix[np.triu_indices(len(matrix))]


@cache
def _answers() -> dict[str, np.ndarray]:
    with np.load(HESSIANS / "answers.npz", allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


def hessian_of(case: str, system: str) -> np.ndarray:
    """(3 natoms, 3 natoms) deepmd-kit's Hessian of the first frame of a system, eV/angstrom^2."""
    flat = _answers()[f"{case}/{system}"]
    n = int(np.sqrt(2 * len(flat)))
    out = np.zeros((n, n))
    out[np.triu_indices(n)] = flat
    return out + np.triu(out, 1).T


def answers_of(call: str) -> list[np.ndarray]:
    """What deepmd-kit's DeepPot.eval returned for a call."""
    found, start = [], f"call/{call}/"
    for name, value in _answers().items():
        if name.startswith(start):
            found.append(value)
    return found
