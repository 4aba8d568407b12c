"""Training data: the data sets, orders and models of which deepmd-kit's answers are in `golden/training/data.json`.

`golden/generate_data.py` makes the file, the tests read it. The data sets are those of `datasets`, written anew.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cases import GOLDEN
from datasets import BOX, labels, scattered, write_all, write_arrays, write_words

FILE = GOLDEN / "training" / "data.json"
TYPE_MAP = ["O", "H", "Cu"]


def write_long(folder: Path) -> None:
    """Eleven frames of three atoms, for passes of many batches; with parameters, and labels of every kind."""
    rng = np.random.default_rng(21)
    write_words(folder / "type.raw", [1, 0, 1])
    write_words(folder / "type_map.raw", ["O", "H"])
    for k, nframes in enumerate((7, 4)):
        arrays = {
            "coord": scattered(rng, nframes, 3).reshape(nframes, 9),
            "box": np.tile(BOX.ravel(), (nframes, 1)),
            "fparam": rng.normal(size=(nframes, 2)),
            "aparam": rng.normal(size=(nframes, 3)),
            "dipole": rng.normal(size=(nframes, 3)),
            "polarizability": rng.normal(size=(nframes, 9)),
            "dos": rng.normal(size=(nframes, 4)),
            "atom_dos": rng.normal(size=(nframes, 12)),
            "gap": rng.normal(size=(nframes, 2)),
            **labels(rng, nframes, 3),
        }
        write_arrays(folder / f"set.{k:03d}", arrays)


def write_close(folder: Path) -> None:
    """Like the long one, with two atoms close to each other across the boundary in every other frame."""
    rng = np.random.default_rng(22)
    write_words(folder / "type.raw", [0, 1, 0])
    write_words(folder / "type_map.raw", ["O", "H"])
    coord = scattered(rng, 8, 3)
    coord[::2, 1] = coord[::2, 0] + BOX[0] + [0.3, 0.0, 0.1]
    arrays = {"coord": coord.reshape(8, 9), "box": np.tile(BOX.ravel(), (8, 1)), **labels(rng, 8, 3)}
    write_arrays(folder / "set.000", arrays)


def write(folder: Path) -> None:
    """All data sets, below ``folder``."""
    write_all(folder)
    write_long(folder / "long")
    write_close(folder / "close")


#: orders: systems and batch sizes of training and validation data, the seed, streams, batches for statistics, and what
#: is asked for then, `t` a batch of training and `v` one of validation
ORDERS: dict[str, dict[str, Any]] = {
    f"{name}, {workers}": {"training": training, "validation": validation, "seed": seed, "workers": workers,
                           "sample": sample, "asked": asked}
    for workers in (0, 1, 2, 4)
    for name, training, validation, seed, sample, asked in (
        ("plain", {"systems": ["long", "standard", "mixed"], "batch_size": [2, 1, 3]}, None, 10, 10, 90 * "t"),
        ("validation", {"systems": ["standard", "long"], "batch_size": 3, "auto_prob": "prob_uniform"},
         {"systems": ["long", "open"], "batch_size": "auto:6"}, 1234567890123, 2, "tvv" + 12 * "tttttvv"),
        ("given", {"systems": ["open", "long", "standard"], "batch_size": 4, "sys_probs": [0.2, -1, -1]},
         {"systems": ["long"], "batch_size": 1}, 0, 0, 5 * "ttttttttv"),
    )
}  # fmt: skip

#: batches of each system, and what is said about their probabilities
PROBABILITIES: list[dict[str, Any]] = [
    {"lengths": [4, 1, 7]},
    {"lengths": [4, 1, 7], "auto_prob": "prob_uniform"},
    {"lengths": [4, 1, 7, 3], "auto_prob": "prob_sys_size;0:2:0.3;2:4:0.9"},
    {"lengths": [4, 1, 7, 3], "auto_prob": "prob_sys_size;0:2:1;3:4:2"},
    {"lengths": [4, 1, 7], "sys_probs": [0.3, -1.0, -2.0]},
    {"lengths": [4, 1, 7], "sys_probs": [0.5, 0.5, 0.0]},
]

RULES: list[Any] = [3, "auto", "auto:7", "auto:6", "max:13", "max:2", "filter:5", "filter:6"]

_DESCRIPTOR: dict[str, Any] = {
    "type": "dpa2",
    "repinit": {"tebd_dim": 4, "rcut": 5.0, "rcut_smth": 1.0, "nsel": 14, "neuron": [4], "axis_neuron": 2,
                "use_three_body": True, "three_body_neuron": [2], "three_body_rcut": 4.0, "three_body_rcut_smth": 0.5,
                "three_body_sel": 9, "set_davg_zero": False},
    "repformer": {"rcut": 3.5, "rcut_smth": 2.5, "nsel": 5, "nlayers": 1, "g1_dim": 4, "g2_dim": 2, "axis_neuron": 2,
                  "attn1_hidden": 2, "attn1_nhead": 1, "attn2_hidden": 2, "attn2_nhead": 1, "set_davg_zero": False},
    "precision": "float64", "seed": 1,
}  # fmt: skip
_ENERGY: dict[str, Any] = {"type": "ener", "neuron": [4], "precision": "float64", "seed": 1}


def _model(fitting: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"type_map": TYPE_MAP, "descriptor": _DESCRIPTOR, "fitting_net": _ENERGY | (fitting or {}), **more}


_PROPERTY: dict[str, Any] = {"type": "property", "property_name": "gap", "task_dim": 2}
#: statistics: a model, the systems, and what is said about the data besides
STATISTICS: dict[str, dict[str, Any]] = {
    "standard": {"model": _model(), "systems": ["standard"]},
    "open": {"model": _model(), "systems": ["open"]},
    "mixed": {"model": _model(atom_exclude_types=[1]), "systems": ["mixed"]},
    "two": {"model": _model(pair_exclude_types=[[0, 1]]), "systems": ["standard", "long"]},
    "preset": {"model": _model(preset_out_bias={"energy": [None, -3.5, None]}), "systems": ["standard", "long"]},
    "atom_ener": {"model": _model({"atom_ener": [1.5, None, None]}), "systems": ["mixed"]},
    "excluded": {
        "model": _model() | {"descriptor": _DESCRIPTOR | {"exclude_types": [[1, 1]], "env_protection": 0.05}},
        "systems": ["long"],
    },
    "davg_zero": {
        "model": _model() | {"descriptor": _DESCRIPTOR | {"repinit": _DESCRIPTOR["repinit"] | {"set_davg_zero": True}}},
        "systems": ["long"],
    },
    "close": {"model": _model(), "systems": ["close", "long"], "min_pair_dist": 0.5},
    "parameters": {
        "model": _model({"numb_fparam": 2, "numb_aparam": 1}, data_stat_protect=0.9),
        "systems": ["long"],
    },
    "dipole": {"model": _model({"type": "dipole"}), "systems": ["long"]},
    "polar": {"model": _model({"type": "polar"}), "systems": ["long"]},
    "dos": {"model": _model({"type": "dos", "numb_dos": 4}), "systems": ["long"]},
    "property": {"model": _model(_PROPERTY), "systems": ["long"]},
    "intensive": {"model": _model(_PROPERTY | {"intensive": True}), "systems": ["long"]},
    "distinguished": {"model": _model(_PROPERTY | {"distinguish_types": True}), "systems": ["long"]},
}
#: labels of models that are none of energies: name, numbers, of atoms
LABELS: dict[str, list[tuple[str, int, bool]]] = {
    "ener": [("energy", 1, False), ("force", 3, True), ("virial", 9, False)],
    "dipole": [("dipole", 3, False)],
    "polar": [("polarizability", 9, False)],
    "dos": [("dos", 4, False), ("atom_dos", 4, True)],
    "property": [("gap", 2, False)],
}
#: numbers of neighbours, of the systems together
NEIGHBORS = ["standard", "open", "long"]


#: an LMDB data set with frames of three sizes and of three systems, the last four without a virial
LMDB = GOLDEN / "training" / "frames.lmdb"
#: of it: sections without the path, and how many batches are asked for
LMDB_ORDERS: dict[str, tuple[dict[str, Any], int | None, int]] = {
    "plain": ({"batch_size": 2}, 11, 40),
    "auto": ({"batch_size": "auto:8"}, 0, 40),
    "max": ({"batch_size": "max:8"}, 3, 40),
    "filter": ({"batch_size": "filter:5"}, 2**40 + 5, 40),
    "mix": ({"batch_size": "mix:16"}, 7, 40),
    "blocks": ({"batch_size": 2, "auto_prob": "prob_sys_size;0:1:0.6;1:3:0.4"}, 5, 60),
    "one block": ({"batch_size": "mix:40", "auto_prob": "prob_sys_size;2:3:3;0:1:1"}, 5, 30),
}


def lmdb_frames() -> list[dict[str, Any]]:
    """The frames of the LMDB data set, with deepmd-kit's names for such data sets."""
    rng = np.random.default_rng(31)
    frames = []
    for k in range(21):
        natoms, system = ((3, 0), (5, 1), (60 if k == 4 else 3, 2))[(k * k + k // 4) % 3]
        frames.append(
            {
                "system": system,
                "atom_types": rng.integers(0, 2, size=natoms),
                "coords": scattered(rng, 1, natoms)[0] if natoms < 9 else rng.uniform(size=(natoms, 3)) @ (4.0 * BOX),
                "cells": BOX if natoms < 9 else 4.0 * BOX,
                "energies": np.asarray(rng.normal()),
                "forces": rng.normal(size=(natoms, 3)).astype(np.float32),
                **({"virials": rng.normal(size=(3, 3))} if k < 17 else {}),
            }
        )
    return frames


@cache
def expected() -> dict[str, Any]:
    """deepmd-kit's answers."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found
