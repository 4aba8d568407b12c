"""Every spin model of the tests, declared once; as `kind_cases`, whose golden files have the same layout.

A case is written as differences of its network from `cases.BASE`, with the types of the model; what spins imply of the
network is here as well, for it stands in the canonical configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cases import BASE, GOLDEN, TOLERANCE, Golden, apply_options
from kind_cases import STRIP, read_golden

SPINS = GOLDEN / "spin"
FILES = SPINS / "files"

#: what `generate_spin.py` stores of an evaluation, under deepmd-kit's names and in its shapes
ANSWERS = ("energy", "atom_energy", "force", "force_mag", "mask_mag", "virial", "atom_virial")


@dataclass(frozen=True)
class SpinCase:
    """A spin model with random weights, and how its golden file is made.

    `section` is the section of deepmd-kit's input; `magnetic` and `scales` are what it means: the types that have
    spins, and how far their virtual atoms are, of all types.
    """

    name: str
    section: Mapping[str, Any]
    magnetic: tuple[int, ...]
    scales: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    davg: float = 0.0
    virtual: bool = False
    systems: tuple[str, ...] = ("bulk", "open", "tiny")
    formats: tuple[str, ...] = ()  # of the files below FILES

    @property
    def golden(self) -> Path:
        return SPINS / f"{self.name}.npz"

    @property
    def plain(self) -> dict[str, Any]:
        """The configuration without spins."""
        config = apply_options(BASE, self.options)
        if self.formats:
            config["min_nbor_dist"] = 0.75
        return config

    @property
    def config(self) -> dict[str, Any]:
        """The complete canonical configuration of the case."""
        config = self.plain
        network = {key: config.pop(key) for key in ("descriptor", "fitting_net")}
        network["descriptor"]["env_protection"] = network["descriptor"]["env_protection"] or 0.01
        network["type_map"] = [*config["type_map"], *(f"{name}_spin" for name in config["type_map"])]
        return config | {
            "type": "spin",
            "use_spin": list(self.magnetic),
            "virtual_scale": list(self.scales),
            "models": [network],
        }

    @property
    def tolerance(self) -> float:
        """Bound on the difference from deepmd-kit when evaluated in float64."""
        return TOLERANCE["float64"]


_SMALL: dict[str, Any] = {
    "repinit.rcut": 3.0, "repinit.nsel": 60, "repinit.neuron": [2, 4], "repinit.axis_neuron": 2, "repinit.tebd_dim": 3,
    "repinit.three_body_neuron": [2], "repinit.three_body_rcut": 2.5, "repinit.three_body_sel": 40,
    "repformer.rcut": 2.6, "repformer.nsel": 44, "repformer.nlayers": 2, "repformer.g1_dim": 4, "repformer.g2_dim": 3,
    "repformer.attn1_hidden": 2, "repformer.attn2_hidden": 2, "fitting.neuron": [4, 4],
}  # fmt: skip
#: one layer; what a block would have that is not there is as the readers fill it in
_ONE = _SMALL | {
    "repformer.nlayers": 1, "repinit.use_three_body": False, "repinit.three_body_neuron": [2, 4, 8],
    "repinit.three_body_rcut": 4.0, "repinit.three_body_rcut_smth": 0.5, "repinit.three_body_sel": 40,
}  # fmt: skip

SPIN_CASES: tuple[SpinCase, ...] = (
    # O and Cu have spins
    SpinCase("spin", {"use_spin": [True, False, True], "virtual_scale": [0.3, 0.5]}, (0, 2), (0.3, 0.0, 0.5), _SMALL,
             formats=("pt", "dp")),
    # all have; on one the virtual atom is on the other side, and its mask is false
    SpinCase("spin_parameters", {"use_spin": ["Cu", "O", "H"], "virtual_scale": [0.35, -0.2, 0.4]}, (0, 1, 2),
             (0.35, -0.2, 0.4), _ONE | STRIP | {
                 "fitting.numb_fparam": 1, "fitting.default_fparam": [0.4], "fitting.numb_aparam": 2, "smooth": False,
                 "repformer.update_style": "res_avg", "atom_exclude_types": [1], "pair_exclude_types": [[0, 2]],
             }, davg=0.3, systems=("bulk", "open"), formats=("pt", "pth", "dp", "yaml")),
    SpinCase("spin_virtual", {"use_spin": [1], "virtual_scale": 0.4}, (1,), (0.0, 0.4, 0.0), _SMALL | {
        "repformer.direct_dist": True, "env_protection": 0.2, "fitting.numb_fparam": 1, "repinit.type_one_side": True,
    }, virtual=True),
)  # fmt: skip

CASES = {case.name: case for case in SPIN_CASES}


@cache
def spin_golden(name: str) -> Golden:
    """The golden file of the case called `name`, read once; what its systems expect holds `spin` as well."""
    return read_golden(CASES[name].golden)


def spin_frames(name: str, where: str) -> list[dict[str, Any]]:
    """The frames of a system one by one, as arguments of `Model.evaluate`; tests may change them."""
    system = next(s for s in spin_golden(name).systems if s.name == where)
    given = {
        "box": system.box, "fparam": system.fparam, "aparam": system.aparam, "spin": system.expected["spin"],
    }  # fmt: skip
    return [
        {
            "coords": coords.copy(),
            "types": system.atype.copy(),
            **{key: v[f].copy() for key, v in given.items() if v is not None},
        }
        for f, coords in enumerate(system.coord)
    ]


def expanded(coord: np.ndarray, atype: np.ndarray, spin: np.ndarray, scales: Any, ntypes: int) -> tuple[Any, Any]:
    """Coordinates (..., 2 n, 3) and types (2 n) of atoms and, behind them all, their virtual atoms."""
    shift = np.where(atype < 0, 0.0, np.asarray(scales)[atype])[:, None] * spin
    virtual = np.where(atype < 0, -1, atype + ntypes)
    return np.concatenate([coord, coord + shift], axis=-2), np.concatenate([atype, virtual])
