"""Training inputs for the tests: of every kind of model and loss, with old spellings, of several tasks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

Section = dict[str, Any]

_DESCRIPTOR: Section = {
    "type": "dpa2",
    "repinit": {"rcut": 6.0, "rcut_smth": 0.5, "nsel": 20},
    "repformer": {"rcut": 4.0, "rcut_smth": 3.5, "nsel": 10, "nlayers": 2},
}
BASE: Section = {
    "_comment": "water",
    "model": {
        "type_map": ["O", "H"],
        "descriptor": _DESCRIPTOR,
        "fitting_net": {"neuron": [24, 24, 24], "seed": 1, "_comment": "of the energy"},
    },
    "learning_rate": {"start_lr": 0.001, "stop_lr": 3.51e-8},
    "loss": {"type": "ener", "start_pref_e": 0.02},
    "training": {"training_data": {"systems": ["data_0", "data_1"], "batch_size": 1}, "numb_steps": 10},
}


def changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Section:
    """A copy with other values at places as "training.seed"; ... takes one out."""
    out = copy.deepcopy(dict(base))
    for where, value in changes.items():
        *sections, key = where.split(".")
        at = out
        for name in sections:
            at = at.setdefault(name, {})
        if value is ...:
            at.pop(key, None)
        else:
            at[key] = copy.deepcopy(value)
    return out


def _kind(fitting: Section, loss: Section) -> Section:
    return changed(BASE, {"model.fitting_net": fitting, "loss": loss})


def _data(**others: Any) -> Section:
    return {"training_data": {"systems": "data", "auto_prob_style": "prob_uniform"}, **others}


SEVERAL: Section = {
    "model": {
        "data_stat_nbatch": 5,
        "shared_dict": {"map": ["O", "H"], "shared": {**_DESCRIPTOR, "seed": 3}},
        "model_dict": {
            "one": {"type_map": "map", "descriptor": "shared", "fitting_net": {"dim_case_embd": 2}},
            "two": {"type_map": "map", "descriptor": "shared:1", "fitting_net": {"dim_case_embd": 2}},
            "three": {
                "type_map": "map",
                "descriptor": "shared",
                "fitting_net": {"type": "dipole", "dim_case_embd": 2},
                "data_stat_nbatch": 7,
            },
        },
    },
    "learning_rate": {"start_lr": 0.001, "stop_lr_ratio": 0.01},
    "loss_dict": {
        "one": {"type": "ener"},
        "two": {"start_pref_v": 0.1, "limit_pref_v": 1},
        "three": {"type": "tensor", "pref": 1, "pref_atomic": 0.0},
    },
    "training": {
        "model_prob": {"one": 0.5, "two": 0.25, "three": 1},
        "data_dict": {
            "one": _data(),
            "two": _data(stat_file="two.hdf5"),
            "three": _data(validation_data={"systems": "more", "numb_batch": 2}),
        },
        "stop_batch": 20,
    },
}

#: by name
CASES: dict[str, Section] = {
    "base": BASE,
    "rewritten": changed(
        BASE,
        {
            "model.descriptor.repformer_add_type_ebd_to_seq": True,
            "model.fitting_net": {"n_neuron": [8, 8]},
            "learning_rate.stop_lr": ...,
            "loss.type": "ener_hess",
            "training.numb_test": 5,
            "training.warmup_steps": 3,
            "training.warmup_start_factor": 0.1,
            "training.opt_type": "AdamW",
            "training.weight_decay": 0.01,
            "optimizer": {"weight_decay": 0.5, "adam_beta1": 0.8},
            "training.numb_steps": ...,
            "training.num_step": 7,
            "training.training_data.sys_weights": [0.25, 0.75],
        },
    ),
    "adamw": changed(BASE, {"optimizer": {"type": "AdamW"}}),
    "cosine": changed(BASE, {"learning_rate": {"type": "cosine", "start_lr": 1, "stop_lr_ratio": 1e-3}}),
    "wsd": changed(BASE, {"learning_rate": {"type": "wsd", "start_lr": 0.01, "warmup_ratio": 0.1}}),
    "sections": changed(
        BASE,
        {
            "model.preset_out_bias": {"energy": [None, -13.5]},
            "model.info": {"_kept": 1, "observed_type": ["H"]},
            "model.descriptor.repinit.nsel": "auto:1.2",
            "model.descriptor.repinit.three_body_sel": "auto",
            "model.fitting_net.atom_ener": [None, 1.5],
            "training.validation_data": {"systems": "data", "batch_size": "auto:64"},
            "training.mixed_precision": {"compute_prec": "float16"},
            "training.numb_steps": ...,
            "training.numb_epochs": 2.5,
            "training.seed": 7,
            "training.stat_file": "stat",
            "training.gradient_max_norm": 5.0,
            "validating": {"validation_freq": 10},
        },
    ),
    "dos": _kind({"type": "dos", "numb_dos": 8}, {"type": "dos", "limit_pref_cdf": 1}),
    "polar": _kind(
        {"type": "polar", "scale": [1.0, 2.0], "pol_type": [0]}, {"type": "tensor", "pref": 1, "pref_atomic": 0}
    ),
    "dipole": _kind({"type": "dipole", "numb_fparam": 2}, {"type": "tensor", "pref": 1.0, "pref_atomic": 1.0}),
    "property": _kind(
        {"type": "property", "property_name": "gap", "task_dim": 2}, {"type": "property", "metric": ["mae", "rmse"]}
    ),
    "population": _kind({"type": "population"}, {"type": "population", "beta": 2}),
    "several": SEVERAL,
    "epochs": changed(
        SEVERAL,
        {
            "training.stop_batch": ...,
            "training.model_prob": ...,
            "training.num_epoch_dict": {"one": 1, "two": 0.5, "three": 2},
        },
    ),
}
