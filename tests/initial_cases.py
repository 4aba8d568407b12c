"""Models whose initial weights are compared with deepmd-kit's: options of the golden cases, with and without seeds."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from cases import GOLDEN, golden_cases
from kind_cases import KIND_CASES
from training_cases import fingerprint

#: of the golden cases those whose options say which weights there are
NAMES = (
    *("base", "strip", "no_three_body", "no_three_body_strip", "h2_without_attn", "no_h2", "no_conv_no_grrg"),
    *("only_drrd", "out_conv_false", "out_mlp_false", "out_both_false", "res_avg", "res_incr_no_g2_attn", "rough"),
    *("resnet_dt", "resnet_dt_strip", "add_tebd", "econf_bias", "tebd_bias", "first_layer_skip", "identity_shape"),
    *("three_body_skip_strip", "odd_widths", "one_layer", "seven_types", "default_fparam", "fparam_aparam_case"),
    *("linear_fitting", "file_float32", "file_mixed", "random_00", "random_03", "published_small"),
    *("dipole", "polar", "dos", "property", "population", "population_double"),
)
#: seeds of descriptor and fitting net
SEEDS: dict[str, tuple[int | None, int | None]] = {"seeds": (3, 4), "none": (None, None), "fitting": (None, 2**40)}
#: of the global generator
GLOBAL = 1234567


@dataclass(frozen=True)
class InitialCase:
    """A model and its seeds."""

    name: str
    seeds: str
    constant: bool = False  # residual vectors start with the same number everywhere
    square: bool = False  # edges are as wide as atoms

    @property
    def key(self) -> str:
        return f"{self.name}_{self.seeds}" + "_constant" * self.constant + "_square" * self.square

    @property
    def section(self) -> dict[str, Any]:
        """The model section of an input."""
        cases = {case.name: case for case in (*golden_cases(), *KIND_CASES)}
        config = copy.deepcopy(cases[self.name].config)
        descriptor, fitting = config["descriptor"], config["fitting_net"]
        descriptor["seed"], fitting["seed"] = SEEDS[self.seeds]
        if self.square:
            descriptor["repformer"]["g2_dim"] = descriptor["repformer"]["g1_dim"]
        descriptor["repformer"]["update_residual"] = 0.01
        descriptor["repformer"]["update_residual_init"] = "const" if self.constant else "norm"
        if fitting["type"] not in ("ener", "property"):
            for key in ("atom_ener", "use_aparam_as_mask"):
                fitting.pop(key, None)
        return {"type_map": config["type_map"], "descriptor": descriptor, "fitting_net": fitting}


CASES = (
    *(InitialCase(name, seeds) for name in NAMES for seeds in ("seeds", "none")),
    InitialCase("base", "fitting"),
    InitialCase("base", "seeds", constant=True),
    InitialCase("base", "none", constant=True),
    InitialCase("base", "seeds", square=True),
    InitialCase("out_conv_false", "seeds", square=True),
)


def fingerprints(weights: dict[str, np.ndarray]) -> np.ndarray:
    """Norm and product with a fixed vector of every weight: (weights, 2), in the order of the names."""
    return np.array([fingerprint(name, np.asarray(weights[name], dtype=np.float64)) for name in sorted(weights)])


class Expected(NamedTuple):
    """What deepmd-kit starts with: the names, their fingerprints, the next number of the global generator."""

    names: list[str]
    fingerprints: np.ndarray
    following: float


@cache
def expected() -> dict[str, Expected]:
    """By the keys of the cases."""
    out, start = {}, 0
    with np.load(GOLDEN / "training" / "initial.npz", allow_pickle=False) as data:
        stated, numbers, following = json.loads(data["stated"].tobytes()), data["fingerprints"], data["following"]
    for (key, names), number in zip(stated.items(), following.tolist(), strict=True):
        out[key] = Expected(names, numbers[start : start + len(names)], number)
        start += len(names)
    return out
