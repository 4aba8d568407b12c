"""Models of hybrid descriptors, declared once: as `kind_cases`, for the same readers.

A member of a hybrid is written as differences from the descriptor of `cases.BASE` (dpa2), from `SE_E2_A` or `DPA1`, or
is a tuple of members: a hybrid in it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cases import BASE, GOLDEN, STRIP, apply_options
from kind_cases import Child, KindCase

HYBRIDS = GOLDEN / "hybrids"
FILES = HYBRIDS / "files"

SE_E2_A: dict[str, Any] = {
    "type": "se_e2_a", "precision": "float64", "exclude_types": [], "env_protection": 0.0, "rcut": 3.2,
    "rcut_smth": 0.6, "sel": [18, 18, 18], "neuron": [3, 6], "axis_neuron": 2, "activation_function": "tanh",
    "resnet_dt": False, "type_one_side": True,
}  # fmt: skip
DPA1: dict[str, Any] = {
    "type": "dpa1", "precision": "float64", "exclude_types": [], "env_protection": 0.0, "smooth_type_embedding": True,
    "concat_output_tebd": True, "use_econf_tebd": False, "use_tebd_bias": False, "rcut": 3.4, "rcut_smth": 0.6,
    "sel": 40, "neuron": [3, 6], "axis_neuron": 2, "tebd_dim": 2, "tebd_input_mode": "concat",
    "activation_function": "tanh", "resnet_dt": False, "type_one_side": False, "attn_layer": 0,
}  # fmt: skip
#: a dpa2 of one layer
SMALL: dict[str, Any] = {
    "repinit.rcut": 3.0, "repinit.nsel": 30, "repinit.neuron": [2, 4], "repinit.axis_neuron": 2, "repinit.tebd_dim": 2,
    "repinit.use_three_body": False, "repinit.three_body_neuron": [2, 4, 8], "repinit.three_body_rcut": 4.0,
    "repinit.three_body_rcut_smth": 0.5, "repinit.three_body_sel": 40, "repformer.rcut": 2.6, "repformer.nsel": 20,
    "repformer.nlayers": 1, "repformer.g1_dim": 4, "repformer.g2_dim": 3, "repformer.attn1_hidden": 2,
    "repformer.attn2_hidden": 2,
}  # fmt: skip
#: two layers, with the three-body block
LARGER = SMALL | {
    "repformer.nlayers": 2, "repinit.use_three_body": True, "repinit.three_body_neuron": [2],
    "repinit.three_body_rcut": 2.5, "repinit.three_body_rcut_smth": 1.8, "repinit.three_body_sel": 18,
}  # fmt: skip

Member = Mapping[str, Any] | tuple[Any, ...]


def se_e2_a(**options: Any) -> dict[str, Any]:
    return {**SE_E2_A, **options}


def dpa1(**options: Any) -> dict[str, Any]:
    return {**DPA1, **options}


def descriptor(member: Member) -> dict[str, Any]:
    """The canonical configuration of a member."""
    if isinstance(member, tuple):
        return {"type": "hybrid", "list": [descriptor(one) for one in member]}
    if "type" in member:
        return copy.deepcopy(dict(member))
    made: dict[str, Any] = apply_options(BASE, member)["descriptor"]
    return made


@dataclass(frozen=True)
class HybridChild(Child):
    """A part of a combination with a hybrid descriptor."""

    members: tuple[Member, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"descriptor": descriptor(self.members)}


@dataclass(frozen=True)
class HybridCase(KindCase):
    """A model of a hybrid descriptor: `options` are those of the model and of the fitting net."""

    members: tuple[Member, ...] = ()

    @property
    def golden(self) -> Path:
        return HYBRIDS / f"{self.name}.npz"

    @property
    def config(self) -> dict[str, Any]:
        config = super().config
        if not self.children:
            config["descriptor"] = descriptor(self.members)
        return config


_FITTING = {"type_map": ["O", "H", "Cu"], "fitting.neuron": [4, 4]}

HYBRID_CASES: tuple[HybridCase, ...] = (
    # both kinds of se_e2_a, slots that are missing and such that are too few, exclusions of the model and of members
    HybridCase("hybrid_sides", _FITTING | {"pair_exclude_types": [[0, 2]]}, davg=0.3, virtual=True, binding=True,
        systems=("bulk", "open"), members=(
        SMALL | {"exclude_types": [[1, 2]]},
        se_e2_a(sel=[4, 4, 2], exclude_types=[[1, 1]], resnet_dt=True, neuron=[3, 3, 6]),
        se_e2_a(rcut=4.0, type_one_side=False, sel=[20, 24, 20], axis_neuron=3, neuron=[4, 4]),
    )),
    # the list of the whole is shorter than that of se_e2_a needs, and cuts it
    HybridCase("hybrid_energy", _FITTING | {"fitting.numb_fparam": 1, "atom_exclude_types": [2]}, binding=True,
        systems=("bulk", "open"), members=(
        se_e2_a(rcut=4.2, sel=[9, 9, 3], type_one_side=False, activation_function="gelu"), LARGER,
    ), folder="energy", formats=("pt", "pth", "dp", "yaml")),
    HybridCase("hybrid_dipole", _FITTING | {"fitting.numb_aparam": 1}, {"type": "dipole"}, members=(
        LARGER, SMALL | STRIP | {"repinit.rcut": 3.8, "repinit.nsel": 60, "concat_output_tebd": False},
        se_e2_a(rcut=3.0, activation_function="relu"),
    ), folder="dipole", formats=("pt", "dp")),
    HybridCase("hybrid_polar", _FITTING, {"type": "polar", "fit_diag": False, "shift_diag": True, "scale": [0.6] * 3},
        davg=0.3, systems=("bulk", "open"), members=(
        dpa1(rcut=2.8, exclude_types=[[0, 1]]), SMALL,
        dpa1(tebd_input_mode="strip", smooth_type_embedding=False, concat_output_tebd=False, type_one_side=True,
             sel=12),
    ), binding=True, folder="polar", formats=("pt", "pth", "dp")),
    # hybrids in one another: the innermost sees fewer neighbours
    HybridCase("hybrid_nested", _FITTING | {"pair_exclude_types": [[1, 1]]}, davg=0.3, binding=True,
        systems=("bulk", "open"), members=(
        (dpa1(tebd_input_mode="strip", resnet_dt=True, use_tebd_bias=True, rcut=3.6, sel=14), (
            dpa1(sel=10, use_econf_tebd=True), se_e2_a(sel=[8, 8, 8]),
        )),
        SMALL, se_e2_a(sel=[12, 12, 12], rcut=2.6),
    ), folder="nested", formats=("pt", "dp")),
    # in a linear model, whose lists are cut from one another: the longest is that of the other part
    HybridCase("hybrid_linear", {"type_map": ["O", "H", "Cu"], "pair_exclude_types": [[0, 1]]}, combination={
        "type": "linear_ener", "weights": [0.7, -0.4],
    }, children=(
        HybridChild(("H", "Cu", "O"), {"fitting.neuron": [4]}, members=(
            SMALL | {"repinit.rcut": 2.8, "repinit.nsel": 22}, se_e2_a(rcut=3.6, sel=[5, 5, 17]),
            dpa1(rcut=2.4, sel=24),
        )),
        Child(("O", "H", "Cu"), SMALL | {
            "repinit.rcut": 4.0, "repinit.nsel": 28, "fitting.neuron": [4],
        }),
    ), davg=0.3, binding=True, systems=("bulk", "open"), folder="linear", formats=("pt", "dp")),
)  # fmt: skip
