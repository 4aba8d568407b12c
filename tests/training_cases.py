"""Gradients of losses: the models, the labels and the losses of the golden files, declared once.

`golden/generate_training.py` makes the files, the tests read them. Models and structures are those of the golden files
of `cases` and `kind_cases`. Labels follow from their names by a formula, so that no file has to hold them.

A file holds, for every gradient, its norm and its product with a vector that the name of the parameter draws: a wrong
gradient differs in one of the two.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from cases import GOLDEN, Golden, ModelCase, System, golden_cases, load_golden
from kind_cases import KIND_CASES, KindCase, load_kind

TRAINING = GOLDEN / "training"

#: the first learning rate of the schedule; losses are taken at another one, where prefactors are between their ends
STARTER, RATE = 1e-3, 4e-4

_NONE = {f"{end}_pref_{term}": 0.0 for end in ("start", "limit") for term in ("e", "f", "v")}
_MIX = {
    "start_pref_e": 0.02, "limit_pref_e": 1.0, "start_pref_f": 2.0, "limit_pref_f": 1.0,
    "start_pref_v": 0.05, "limit_pref_v": 1.0,
}  # fmt: skip


def _only(**terms: float) -> dict[str, float]:
    pairs = {f"{end}_pref_{term}": value for end in ("start", "limit") for term, value in terms.items()}
    return {**_NONE, **pairs}


#: losses of energies by name; they have labels of every kind
ENERGY_LOSSES: dict[str, dict[str, Any]] = {
    "energy": _only(e=1.0),
    "force": _only(f=1.0),
    "virial": _only(v=1.0),
    "atom_ener": _only(ae=0.7),
    "mix": _MIX,
    "intensive": _MIX | {"intensive_ener_virial": True},
    "huber": _MIX | {"use_huber": True, "huber_delta": [0.05, 0.6, 0.1], "start_pref_ae": 0.5, "limit_pref_ae": 1.0},
    "huber_norm": _MIX | {"use_huber": True, "huber_delta": 0.9, "f_use_norm": True},
    "mae": _MIX | {"loss_func": "mae", "start_pref_ae": 0.5, "limit_pref_ae": 1.0},
    "mae_norm": _MIX | {"loss_func": "mae", "f_use_norm": True, "start_pref_pf": 0.3, "limit_pref_pf": 1.0},
    "mae_huber": _MIX | {"loss_func": "mae", "use_huber": True},
    "relative": _MIX | {"relative_f": 0.3, "start_pref_pf": 0.3, "limit_pref_pf": 1.0},
    "coefficients": _MIX | {"enable_atom_ener_coeff": True},
    "pref": _MIX | {"start_pref_pf": 2.0, "limit_pref_pf": 1.0},
    "default_pref": _only(pf=1.0) | {"use_default_pf": True},
    "generalized": _MIX | {"start_pref_gf": 3.0, "limit_pref_gf": 1.0, "numb_generalized_coord": 2},
}

_TENSOR = {
    "frame": {"type": "tensor", "pref": 0.7, "pref_atomic": 0.0},
    "both": {"type": "tensor", "pref": 0.7, "pref_atomic": 1.3},
    "weighted": {"type": "tensor", "pref": 0.0, "pref_atomic": 1.3, "enable_atomic_weight": True},
}
_POPULATION = {
    "start_pref_spin": 0.5, "limit_pref_spin": 2.0, "start_pref_spin_total": 1.5, "limit_pref_spin_total": 0.3,
    "start_pref_pop": 0.7, "limit_pref_pop": 1.1, "start_pref_pop_alpha_total": 0.2, "limit_pref_pop_beta_total": 0.4,
}  # fmt: skip
_METRIC = {"metric": ["smooth_mae", "mae", "mse", "rmse", "mape"]}

#: losses by type of fitting net
LOSSES: dict[str, dict[str, dict[str, Any]]] = {
    "ener": ENERGY_LOSSES,
    "dipole": _TENSOR,
    "polar": _TENSOR,
    "dos": {
        "atoms": {"type": "dos"},
        "frame": {"type": "dos", **{f"{end}_pref_dos": 1.0 for end in ("start", "limit")},
                  "start_pref_ados": 0.0},
        "all": {"type": "dos", "start_pref_dos": 0.3, "limit_pref_dos": 1.0, "start_pref_cdf": 0.2,
                "limit_pref_cdf": 0.4, "start_pref_ados": 0.5, "limit_pref_ados": 1.5, "start_pref_acdf": 0.1,
                "limit_pref_acdf": 0.6},
    },
    "property": {
        name: {"type": "property", "loss_func": name, **_METRIC, **({"beta": 0.4} if name == "smooth_mae" else {})}
        for name in ("smooth_mae", "mae", "mse", "rmse", "mape")
    },
    "population": {
        name: {"type": "population", "loss_func": name, "metric": ["mae", "rmse"], **_POPULATION,
               **({"beta": 0.4} if name == "smooth_mae" else {})}
        for name in ("smooth_mae", "mae", "rmse")
    },
}  # fmt: skip

#: of these every loss of energies, of others one
_EVERY_LOSS = ("strip", "virtual_davg", "exclude_all")
#: of these also the open system, and the cell that is smaller than the cutoff
_EVERY_SYSTEM = ("base", "davg_rough_strip", "virtual_davg")


@dataclass(frozen=True)
class TrainingCase:
    """A model, a structure of its golden file, and the losses whose gradients are known."""

    model: str
    system: str
    losses: tuple[str, ...]
    kind: KindCase | None = None

    @property
    def name(self) -> str:
        return self.model if self.system == "bulk" else f"{self.model}-{self.system}"

    def load(self) -> Golden:
        case = self.kind
        return load_kind(case) if case else load_golden(next(c for c in golden_cases() if c.name == self.model))


def _exact(case: ModelCase | KindCase) -> bool:
    """Whether deepmd-kit computes it in float64: its gradients in float32 are no reference."""
    config = case.config
    return "models" not in config and {config[b]["precision"] for b in ("descriptor", "fitting_net")} == {"float64"}


def _cases() -> tuple[TrainingCase, ...]:
    out = []
    for case in filter(_exact, golden_cases()):
        out.append(TrainingCase(case.name, "bulk", tuple(ENERGY_LOSSES) if case.name in _EVERY_LOSS else ("mix",)))
        if case.name in _EVERY_SYSTEM:
            out += [TrainingCase(case.name, system, ("mix",)) for system in case.systems[1:]]
    for kind in filter(_exact, KIND_CASES):
        fitting = kind.fitting["type"]
        if fitting != "ener":
            out.append(TrainingCase(kind.name, kind.systems[0], tuple(LOSSES[fitting]), kind))
    return tuple(out)


CASES = _cases()


def wave(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers between -1 and 1 that the name draws, the same everywhere."""
    seed = zlib.crc32(name.encode())
    k = np.arange(1, int(np.prod(shape)) + 1)
    return np.sin((0.7 + (seed % 997) / 997.0) * k + (seed // 997) % 628 / 100.0).reshape(shape)


def labels(config: Mapping[str, Any], nframes: int, natoms: int) -> dict[str, np.ndarray]:
    """Labels of every kind that a model has, under deepmd-kit's names: flat behind the axes of frames and atoms."""
    fitting = config["fitting_net"]
    kind = fitting["type"]
    frame: dict[str, int] = {}
    atoms: dict[str, int] = {}
    if kind == "ener":
        frame = {"energy": 1, "virial": 9}
        atoms = {"force": 3, "atom_ener": 1, "atom_pref": 3, "atom_ener_coeff": 1, "drdq": 6}
    elif kind == "dos":
        frame, atoms = {"dos": fitting["numb_dos"]}, {"atom_dos": fitting["numb_dos"]}
    elif kind == "property":
        frame = {fitting["property_name"]: fitting["task_dim"]}
    elif kind == "population":
        atoms = {"atom_population": 2}
    else:
        name, width = ("dipole", 3) if kind == "dipole" else ("polarizability", 9)
        frame, atoms = {name: width}, {f"atom_{name}": width, "atom_weight": 1}
    out = {name: 3.0 * wave(name, (nframes, width)) for name, width in frame.items()}
    out |= {name: wave(name, (nframes, natoms, width)) for name, width in atoms.items()}
    for name in {"atom_pref", "atom_ener_coeff", "atom_weight"} & out.keys():
        out[name] += 1.2
    return out


def batch(case: Golden, system: System) -> dict[str, np.ndarray]:
    """The structure and all its labels, under deepmd-kit's names and in its shapes."""
    nframes, natoms = system.coord.shape[:2]
    out = labels(case.config, nframes, natoms)
    out |= {"coord": system.coord, "atype": np.tile(system.atype, (nframes, 1))}
    for name, rows in (("box", system.box), ("fparam", system.fparam), ("aparam", system.aparam)):
        if rows is not None:
            out[name] = rows
    return out


def fingerprint(name: str, gradient: np.ndarray) -> tuple[float, float]:
    """The norm of a gradient, and its product with a vector that the name of the parameter draws."""
    g = np.asarray(gradient, np.float64).ravel()
    return float(np.linalg.norm(g)), float(g @ wave(name, g.shape))


@dataclass(frozen=True)
class Expected:
    """What deepmd-kit computes for a loss: its value, and by parameter the norm (float32) and the product."""

    value: float
    norms: dict[str, float]
    products: dict[str, float]


@cache
def expected() -> dict[tuple[str, str], Expected]:
    """By names of case and loss."""
    out, start = {}, 0
    with np.load(TRAINING / "gradients.npz", allow_pickle=False) as data:
        stated = json.loads(data["stated"].tobytes())
        norms, products = data["norms"], data["products"]
    for case, content in stated.items():
        names = content["names"]
        for loss, value in content["values"].items():
            rows = slice(start, start := start + len(names))
            pairs = (dict(zip(names, numbers[rows].tolist(), strict=True)) for numbers in (norms, products))
            out[case, loss] = Expected(value, *pairs)
    return out


# ------------------------------------------------------------------------------------------ losses of predictions


def predictions(kind: str, width: int, nframes: int, natoms: int) -> dict[str, np.ndarray]:
    """Made-up answers of a model: of atoms (nframes, natoms, width); of energies also force and virial."""
    out = {"atoms": 0.8 * wave(f"{kind} atoms", (nframes, natoms, width))}
    if kind == "ener":
        out["force"] = wave("forces", (nframes, natoms, 3))
        out["virial"] = 2.0 * wave("virials", (nframes, 9))
        out["force"][0, 1] = labels({"fitting_net": {"type": "ener"}}, nframes, natoms)["force"][0, 1]  # no deviation
    return out


#: atoms that count, in frames of different numbers of them
COUNTED = np.array([[True] * 6, [True, False, True, True, True, False]])

#: models whose losses are computed from made-up predictions
KINDS: dict[str, dict[str, Any]] = {
    "ener": {"type": "ener"},
    "dipole": {"type": "dipole"},
    "polar": {"type": "polar"},
    "dos": {"type": "dos", "numb_dos": 5},
    "gap": {"type": "property", "property_name": "gap", "task_dim": 2, "intensive": True},
    "volume": {"type": "property", "property_name": "volume", "task_dim": 2, "intensive": False},
    "population": {"type": "population"},
}


def width_of(fitting: Mapping[str, Any]) -> int:
    """Numbers per atom."""
    fixed = {"ener": 1, "dipole": 3, "polar": 9, "population": 2}
    return int(fixed.get(fitting["type"]) or fitting.get("numb_dos") or fitting["task_dim"])


#: out_bias and out_std of properties, which their losses look at
STATISTICS = {"out_bias": np.array([[[0.3, -0.2], [1.0, 1.0]]]), "out_std": np.array([[[0.7, 1.6], [1.0, 1.0]]])}
