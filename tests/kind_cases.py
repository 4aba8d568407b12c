"""Every model of another kind than energies of one network, declared once: as `cases.MODELS`, for the same readers.

A case of one network is written as differences from `cases.BASE` and what its fitting net has of its own. A combination
has children: networks, written as such differences, and pair tables. Cases of one `folder` are heads that share their
descriptor.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cases import ALWAYS_FLOAT64, BASE, GOLDEN, STRIP, TOLERANCE, Golden, System, apply_options

KINDS = GOLDEN / "kinds"
FILES = KINDS / "files"

#: what `generate_kinds.py` stores of an evaluation, under deepmd-kit's names and in its shapes, by fitting type
ANSWERS: dict[str, tuple[str, ...]] = {
    "ener": ("energy", "atom_energy", "force", "virial", "atom_virial"),
    "dipole": ("global_dipole", "dipole", "force", "virial", "atom_virial"),
    "polar": ("global_polar", "polar"),
    "dos": ("dos", "atom_dos"),
    "population": ("population",),
}


@dataclass(frozen=True)
class Table:
    """A pair table as a text file: `rmin`, `rmin + step`, ..., `rmax`, one column per pair of types.

    `end` is "value" (it ends where the function is), or a distance from which on all values are zero.
    """

    rmin: float
    step: float
    rmax: float
    end: str | float = "value"

    def values(self, ntypes: int) -> np.ndarray:
        """(rows, 1 + pairs) distance and energies, angstrom and eV."""
        r = self.rmin + self.step * np.arange(round((self.rmax - self.rmin) / self.step) + 1)
        pairs = [(a, b) for a in range(ntypes) for b in range(a, ntypes)]
        columns = [
            (9.0 + 3.0 * a + 2.0 * b) * np.exp(-(1.6 + 0.2 * a) * r) / r + 0.1 * (1 + b) * np.sin(1.1 * r + a)
            for a, b in pairs
        ]
        if not isinstance(self.end, str):
            columns = [np.where(r < self.end, column * (1.0 - r / self.end) ** 2, 0.0) for column in columns]
        return np.stack([r, *columns], axis=1)


@dataclass(frozen=True)
class Child:
    """A part of a combination: a network (`options`), or a table with its own `rcut` and `sel`."""

    type_map: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    table: Table | None = None
    rcut: float = 0.0
    sel: int | list[int] = 0
    nspline: int = 0  # what deepmd-kit makes of the table

    @property
    def config(self) -> dict[str, Any]:
        if self.table is None:
            whole = apply_options(BASE, {**self.options, "type_map": list(self.type_map)})
            return {key: whole[key] for key in ("type_map", "descriptor", "fitting_net")}
        return {
            "type": "pairtab", "type_map": list(self.type_map), "rcut": self.rcut, "sel": int(np.sum(self.sel)),
            "rmin": self.table.rmin, "step": self.table.step, "nspline": self.nspline,
        }  # fmt: skip


@dataclass(frozen=True)
class KindCase:
    """A model of another kind with random weights, and how its golden file is made."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fitting: Mapping[str, Any] = field(default_factory=dict)  # the type and the options that this type alone has
    combination: Mapping[str, Any] = field(default_factory=dict)  # the type and what else a combination has of its own
    children: tuple[Child, ...] = ()
    written: Mapping[str, Any] = field(default_factory=dict)  # what deepmd-kit's input says in place of this
    davg: float = 0.0
    virtual: bool = False
    case_index: int | None = None
    binding: bool = False
    systems: tuple[str, ...] = ("bulk", "open", "tiny")
    folder: str = ""  # below FILES
    formats: tuple[str, ...] = ()  # of the files there

    @property
    def golden(self) -> Path:
        return KINDS / f"{self.name}.npz"

    @property
    def config(self) -> dict[str, Any]:
        """The complete canonical configuration of the case."""
        config = apply_options(BASE, self.options)
        if self.formats:
            config["min_nbor_dist"] = 0.75
        if not self.children:
            config["fitting_net"] |= copy.deepcopy(dict(self.fitting))
            return config
        for key in ("descriptor", "fitting_net", "precision"):
            del config[key]
        config |= copy.deepcopy(dict(self.combination))
        config["models"] = [child.config for child in self.children]
        used = {block["precision"] for child in networks(config) for block in blocks(child)}
        config["precision"] = "float64" if "float64" in used else "float32"
        return config

    @property
    def answers(self) -> tuple[str, ...]:
        """The names of its outputs, without descriptor and rotation matrix."""
        kind = self.fitting.get("type", "ener")
        if kind == "property":
            name = self.fitting["property_name"]
            return (name, f"atom_{name}")
        return ANSWERS[kind]

    @property
    def tolerance(self) -> float:
        """Bound on the difference from deepmd-kit when evaluated in float64."""
        used = {block["precision"] for child in networks(self.config) for block in blocks(child)}
        return TOLERANCE["float32" if "float32" in used else "float64"]


def networks(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The networks that a model consists of: itself, or the children of a combination that are no tables."""
    return [child for child in config.get("models", [dict(config)]) if "descriptor" in child]


def blocks(network: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of a network has a precision of its own: its descriptor, or those that stand in it, and its fitting net."""

    def within(descriptor: dict[str, Any]) -> list[dict[str, Any]]:
        members = descriptor.get("list", [])
        return [one for member in members for one in within(member)] or [descriptor]

    return [*within(network["descriptor"]), network["fitting_net"]]


_TYPES = ["O", "H", "Cu"]
#: two layers with all terms
_TWO: dict[str, Any] = {
    "type_map": _TYPES,
    "repinit.rcut": 3.0, "repinit.nsel": 26, "repinit.neuron": [2, 4], "repinit.axis_neuron": 2, "repinit.tebd_dim": 3,
    "repinit.three_body_neuron": [2], "repinit.three_body_rcut": 2.5, "repinit.three_body_sel": 16,
    "repformer.rcut": 2.6, "repformer.nsel": 18, "repformer.nlayers": 2, "repformer.g1_dim": 4, "repformer.g2_dim": 3,
    "repformer.attn1_hidden": 2, "repformer.attn2_hidden": 2, "fitting.neuron": [4, 4],
}  # fmt: skip
#: few and small tensors, for files; what a block would have that is not there is as the readers fill it in
_ONE = _TWO | {
    "repformer.nlayers": 1, "repinit.use_three_body": False, "repinit.three_body_neuron": [2, 4, 8],
    "repinit.three_body_rcut": 4.0, "repinit.three_body_rcut_smth": 0.5, "repinit.three_body_sel": 40,
}  # fmt: skip
_GAP = {"type": "property", "property_name": "gap", "task_dim": 2, "intensive": True, "distinguish_types": True}
_HEADS = {"folder": "multitask", "formats": ("pt", "pth"), "systems": ("open",)}
_WIDE = {"repinit.rcut": 5.0, "repinit.nsel": 70, "type_map": ["O", "H"]}

KIND_CASES: tuple[KindCase, ...] = (
    KindCase("dipole", _TWO | {"fitting.numb_fparam": 2, "fitting.numb_aparam": 1}, {"type": "dipole"},
             folder="dipole", formats=("pt", "pth", "dp")),
    KindCase("dipole_excluded", _ONE | STRIP | {
        "atom_exclude_types": [1], "pair_exclude_types": [[0, 2]], "smooth": False, "fitting.resnet_dt": False,
        "repformer.activation_function": "gelu", "fitting.activation_function": "silut:1.5",
    }, {"type": "dipole"}, davg=0.3, folder="dipole_excluded", formats=("pt",)),
    KindCase("dipole_virtual", _TWO | {
        "repformer.direct_dist": True, "repinit.use_three_body": False, "repformer.use_sqrt_nnei": False,
        "fitting.default_fparam": [0.4], "fitting.numb_fparam": 1, "fitting.dim_case_embd": 2, "fitting.neuron": [],
    }, {"type": "dipole"}, virtual=True, case_index=1),
    KindCase("polar", _ONE | {
        "fitting.numb_fparam": 2, "fitting.default_fparam": [0.5, -1.0], "fitting.dim_case_embd": 2,
    }, {"type": "polar", "fit_diag": True, "shift_diag": True, "scale": [0.7, 1.3, -0.4]}, case_index=0,
        folder="polar", formats=("pt", "dp")),
    KindCase("polar_full", _ONE | {
        "fitting.numb_aparam": 1, "fitting.use_aparam_as_mask": True, "repformer.g2_dim": 4, "repformer.axis_neuron": 3,
    }, {"type": "polar", "fit_diag": False, "shift_diag": True, "scale": [0.6] * 3}, written={"scale": 0.6},
        folder="polar_full", formats=("dp",)),
    KindCase("polar_plain", _TWO | {
        "atom_exclude_types": [0], "exclude_types": [[1, 2]], "smooth": False, "repformer.update_style": "res_avg",
    }, {"type": "polar", "fit_diag": True, "shift_diag": False, "scale": [1.0] * 3}, written={"scale": None}, davg=0.3),
    KindCase("dos", _ONE | {
        "fitting.numb_fparam": 1, "repinit.nsel": 9, "repformer.nsel": 6, "repformer.rcut": 2.8,
        "repinit.activation_function": "softplus", "atom_exclude_types": [2],
    }, {"type": "dos", "numb_dos": 7}, binding=True, systems=("bulk", "open"), folder="dos", formats=("pt", "pth")),
    KindCase("property", _ONE | {
        "atom_exclude_types": [1], "fitting.atom_ener": [None, 0.5, -1.0], "fitting.numb_aparam": 2,
        "fitting.activation_function": "gelu",
    }, _GAP | {"task_dim": 3}, folder="property", formats=("pt", "pth", "yaml")),
    KindCase("property_extensive", _TWO | {"repinit.resnet_dt": True, "fitting.neuron": [6]} | STRIP, {
        "type": "property", "property_name": "volume", "task_dim": 1, "intensive": False, "distinguish_types": False,
    }, virtual=True),
    KindCase("population", _ONE | {"fitting.precision": "float32", "atom_exclude_types": [2]}, {"type": "population"},
             folder="population", formats=("pt", "dp")),
    KindCase("population_double", _TWO | {"fitting.numb_fparam": 1}, {"type": "population"}, virtual=True),
    KindCase("zbl", {"type_map": ["O", "H"]}, combination={
        "type": "zbl", "sw_rmin": 1.2, "sw_rmax": 2.1, "smin_alpha": 0.1,
    }, children=(
        Child(("O", "H"), _ONE | _WIDE),
        Child(("O", "H"), table=Table(0.25, 0.125, 3.0), rcut=5.0, sel=70, nspline=37),
    ), written={"smin_alpha": 0.2}, systems=("bulk", "sparse", "tiny"), folder="zbl", formats=("pt", "pth", "dp")),
    KindCase("zbl_excluded", {
        "type_map": ["O", "H"], "pair_exclude_types": [[0, 0]], "atom_exclude_types": [1],
    }, combination={"type": "zbl", "sw_rmin": 0.8, "sw_rmax": 1.7, "smin_alpha": 0.1}, children=(
        Child(("O", "H"), _TWO | _WIDE | STRIP | {
            "fitting.numb_fparam": 1, "fitting.numb_aparam": 1, "fitting.atom_ener": [0.5, None],
            "descriptor.exclude_types": [[0, 1]],
        }),
        Child(("O", "H"), table=Table(0.25, 0.125, 5.5, end=5.2), rcut=5.0, sel=70, nspline=42),
    ), davg=0.3, virtual=True, systems=("bulk", "sparse")),
    KindCase("linear", {"type_map": _TYPES}, combination={"type": "linear_ener", "weights": [0.7, -0.4]}, children=(
        Child(("Cu", "O", "H"), _ONE),
        Child(("H", "N", "O", "Cu"), _ONE | STRIP | {
            "repinit.rcut": 3.4, "repinit.nsel": 34, "repformer.g1_dim": 5, "repinit.tebd_dim": 2,
        }),
    ), folder="linear", formats=("pt", "pth", "dp")),
    KindCase("linear_table", {"type_map": _TYPES, "atom_exclude_types": [1]}, combination={
        "type": "linear_ener", "weights": [0.5, 0.5],
    }, children=(
        Child(("O", "H", "Cu"), _ONE | {"fitting.numb_fparam": 1, "fitting.default_fparam": [0.3]}),
        Child(("Cu", "H", "O"), table=Table(0.25, 0.25, 4.0), rcut=3.3, sel=[20, 10, 4], nspline=15),
    ), written={"weights": "mean"}, folder="linear_table", formats=("pt", "pth", "dp")),
    # the first child has no descriptor, the lists are cut from one another, one table ends early, one late
    KindCase("linear_three", {"type_map": _TYPES, "pair_exclude_types": [[0, 1]]}, combination={
        "type": "linear_ener", "weights": [1.0, 1.0, 1.0],
    }, children=(
        Child(("O", "H", "Cu"), table=Table(0.25, 0.25, 3.0, end=2.9), rcut=3.6, sel=20, nspline=14),
        Child(("H", "Cu", "O"), _TWO | {
            "repinit.nsel": 14, "repinit.three_body_sel": 7, "repformer.nsel": 7, "fitting.numb_aparam": 1,
            "descriptor.exclude_types": [[2, 2]],
        }),
        Child(("O", "H", "Cu"), table=Table(0.25, 0.25, 3.5, end=3.2), rcut=2.7, sel=6, nspline=13),
    ), written={"weights": "sum"}, davg=0.3, binding=True, systems=("bulk", "open")),
    # a network without parameters does not look at those that others take
    KindCase("linear_parameters", {"type_map": ["O", "H"]}, combination={
        "type": "linear_ener", "weights": [0.6, 0.4],
    }, children=(
        Child(("O", "H"), _ONE | {"fitting.numb_fparam": 2, "fitting.numb_aparam": 1}),
        Child(("H", "O"), _ONE),
    ), systems=("bulk", "open")),
    KindCase("multitask_energy", _ONE, {"type": "ener"}, **_HEADS),
    KindCase("multitask_dipole", _ONE | {"fitting.neuron": [5]}, {"type": "dipole"}, **_HEADS),
    KindCase("multitask_gap", _ONE, _GAP, **_HEADS),
)  # fmt: skip


def load_kind(case: KindCase) -> Golden:
    """Read the golden file of a case. The answers of its systems have deepmd-kit's names and shapes."""
    return read_golden(case.golden)


def read_golden(path: Path) -> Golden:
    """Read a golden file whose answers have deepmd-kit's names and shapes."""
    with np.load(path, allow_pickle=False) as data:
        config = json.loads(str(data["config"]))
        weights, start, flat = {}, 0, data["weights"]
        for name, shape in json.loads(str(data["weight_shapes"])).items():
            stop = start + int(np.prod(shape))
            weights[name] = flat[start:stop].reshape(shape).astype(dtype_of(name, config))
            start = stop
        systems = []
        for name in json.loads(str(data["systems"])):
            content = {key.partition("/")[2]: data[key] for key in data.files if key.startswith(f"{name}/")}
            inputs = {key: content.pop(key, None) for key in ("coord", "atype", "box", "fparam", "aparam")}
            systems.append(System(name=name, expected=content, **inputs))  # type: ignore[arg-type]
        errors = {key: (float(a), float(b)) for key, (a, b) in json.loads(str(data["float32_error"])).items()}
    return Golden(config, weights, tuple(systems), errors)


def dtype_of(name: str, config: Mapping[str, Any]) -> type:
    """What deepmd-kit keeps a weight in."""
    part: Mapping[str, Any] = config
    if name.startswith("models."):
        _, number, name = name.split(".", 2)
        part = config["models"][int(number)]
    if name in ALWAYS_FLOAT64 or name == "tab_data":
        return np.float64
    block = part["descriptor" if name.startswith("descriptor.") else "fitting_net"]
    while "list" in block:
        _, _, number, name = name.split(".", 3)
        block, name = block["list"][int(number)], f"descriptor.{name}"
    return np.float64 if block["precision"] == "float64" else np.float32
