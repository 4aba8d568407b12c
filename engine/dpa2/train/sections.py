"""The keys of the sections of a training input, with deepmd-kit's names and defaults.

What a model may be is asked of the core, which states it once for everybody (:mod:`dpa2.files.schema`). Here is what
only training knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..files import schema
from .averages import DECAY
from .keys import ABSENT, REQUIRED, Key

_OPTIONAL_NUMBER = ("number", "null")
_OPTIONAL_SEED = Key("seed", ("integer", "null"), lowest=0)
_SEL = ("integer", "text")

#: options of the core that an input has in another form than a model: their kinds and defaults
_INPUT_FORMS: dict[str, tuple[tuple[str, ...], Any]] = {
    "precision": (("text",), "default"),
    "nsel": (_SEL, REQUIRED),
    "three_body_sel": (_SEL, 40),
    "ln_eps": (_OPTIONAL_NUMBER, None),
    "scale": (("number", "numbers"), 1.0),
}
_ALIASES = {
    "add_tebd_to_repinit_out": ("repformer_add_type_ebd_to_seq",),
    "neuron": ("n_neuron",),
}
_TRAINED: dict[str, list[Key]] = {
    "repinit": [Key("set_davg_zero", ("boolean",), True)],
    "repformer": [
        Key("update_residual", ("number",), 0.001),
        Key("update_residual_init", ("text",), "norm", choices=("norm", "const")),
        Key("set_davg_zero", ("boolean",), True),
        Key("trainable_ln", ("boolean",), True),
    ],
    "descriptor": [
        Key("repinit", ("section",), REQUIRED),
        Key("repformer", ("section",), REQUIRED),
        Key("trainable", ("boolean",), True),
        _OPTIONAL_SEED,
    ],
}
#: which options of the core the fitting net of a kind has in an input; the others have all of them
_WITHOUT: dict[str, tuple[str, ...]] = {
    "ener": (),
    "population": ("atom_ener", "use_aparam_as_mask", "default_fparam"),
}
_RCOND = Key("rcond", _OPTIONAL_NUMBER, None)
_TRAINABLE = Key("trainable", ("boolean", "booleans"), True)
_FITTED: dict[str, list[Key]] = {
    "ener": [_TRAINABLE, _RCOND, Key("layer_name", ("texts",))],
    "dos": [_TRAINABLE, _RCOND],
    "property": [_TRAINABLE],
    "population": [_TRAINABLE],
    "polar": [Key("sel_type", ("null", "integer", "integers"), aliases=("pol_type",))],
    "dipole": [Key("sel_type", ("null", "integer", "integers"), aliases=("dipole_type",))],
}
_FITTING_DEFAULTS: dict[tuple[str, str], Any] = {
    ("population", "neuron"): [128, 128, 128],
    ("dos", "precision"): "float64",
}


def _option(option: schema.Option) -> Key:
    """An option of the core as a key of an input."""
    kinds: tuple[str, ...] = ("text",) if option.kind in ("choice", "activation") else (option.kind,)
    default = REQUIRED if option.presence == "required" else option.default
    if option.null:
        kinds = (*kinds, "null")
    if option.key in _INPUT_FORMS:
        kinds, default = _INPUT_FORMS[option.key]
    choices = () if option.key == "precision" else tuple(option.choices)
    if option.kind == "integer":
        lowest = 0.0 if option.lowest is None else option.lowest
        return Key(option.key, kinds, default, _ALIASES.get(option.key, ()), lowest=lowest, highest=option.highest)
    return Key(option.key, kinds, default, _ALIASES.get(option.key, ()), choices)


def descriptor(name: str) -> list[Key]:
    """The keys of ``descriptor``, or of its sections ``repinit`` and ``repformer``."""
    return [_option(option) for option in schema.section(name).values()] + _TRAINED[name]


def fitting_net(kind: str) -> list[Key]:
    """The keys of a fitting net of a kind."""
    options = [option for name in schema.fitting_sections(kind) for option in schema.section(name).values()]
    without = _WITHOUT.get(kind, ("atom_ener", "use_aparam_as_mask"))
    keys = [_option(option) for option in options if option.key not in without]
    changed = [
        Key(key.name, key.kinds, _FITTING_DEFAULTS.get((kind, key.name), key.default), key.aliases, key.choices)
        if (kind, key.name) in _FITTING_DEFAULTS
        else key
        for key in keys
    ]
    return [*changed, _OPTIONAL_SEED, *_FITTED[kind]]


_TYPES = schema.section("model")
MODEL = [
    Key("type_map", ("texts",), REQUIRED),
    Key("data_stat_nbatch", ("integer",), 10, lowest=1),
    Key("data_stat_protect", ("number",), 0.01, lowest=0),
    Key("data_bias_nsample", ("integer",), 10),
    _option(_TYPES["pair_exclude_types"]),
    _option(_TYPES["atom_exclude_types"]),
    Key("preset_out_bias", ("null", "section"), None),
    Key("srtab_add_bias", ("boolean",), True),
    Key("finetune_head", ("text",)),
    Key("type", ("text",), "standard"),
    Key("descriptor", ("section",), REQUIRED),
    Key("fitting_net", ("section",), REQUIRED),
    Key("model_branch_alias", ("texts",), []),
    Key("info", ("section",), {}),
    Key("bridging_method", ("text",), "None"),
    Key("bridging_r_inner", ("number",), 0.5),
    Key("bridging_r_outer", ("number",), 0.8),
]

_RATES: dict[str, list[Key]] = {
    "exp": [
        Key("decay_steps", ("integer",), 5000, lowest=1),
        Key("decay_rate", _OPTIONAL_NUMBER, None, above=0, highest=1),
        Key("smooth", ("boolean",), False),
    ],
    "cosine": [],
    "wsd": [
        Key("decay_phase_ratio", ("number",), 0.1, above=0, highest=1),
        Key("decay_type", ("text",), "inverse_linear", choices=("inverse_linear", "cosine", "linear")),
    ],
}
_RATE = [
    Key("start_lr", ("number",), REQUIRED, above=0),
    Key("stop_lr", _OPTIONAL_NUMBER, None, lowest=0),
    Key("stop_lr_ratio", _OPTIONAL_NUMBER, None, lowest=0),
    Key("warmup_steps", ("integer",), 0, lowest=0),
    Key("warmup_ratio", _OPTIONAL_NUMBER, None, lowest=0, below=1),
    Key("warmup_start_factor", ("number",), 0.0, lowest=0),
    Key("scale_by_worker", ("text",), "linear"),
]
_BETAS = [
    Key("adam_beta1", ("number",), 0.9, lowest=0, below=1),
    Key("adam_beta2", ("number",), 0.999, lowest=0, below=1),
]
# The schema of deepmd-kit has 0.001 for AdamW, but what reads old inputs fills 0 in before.
_ADAM = [*_BETAS, Key("weight_decay", ("number",), 0.0, lowest=0)]


def _prefactors(defaults: Mapping[str, tuple[float, float]]) -> list[Key]:
    return [
        Key(f"{when}_pref_{name}", ("number",), value)
        for name, pair in defaults.items()
        for when, value in zip(("start", "limit"), pair, strict=True)
    ]


_REGRESSION = [
    Key("loss_func", ("text",), "smooth_mae"),
    Key("metric", ("texts",), ["mae"]),
    Key("beta", ("number",), 1.0),
]
_LOSSES: dict[str, list[Key]] = {
    "ener": [
        *_prefactors({"e": (0.02, 1.0), "f": (1000, 1.0)}),
        *_prefactors(dict.fromkeys(("v", "h", "ae", "pf", "gf"), (0.0, 0.0))),
        Key("use_default_pf", ("boolean",), False),
        Key("relative_f", _OPTIONAL_NUMBER),
        Key("enable_atom_ener_coeff", ("boolean",), False),
        Key("numb_generalized_coord", ("integer",), 0, lowest=0),
        Key("use_huber", ("boolean",), False),
        Key("loss_func", ("text",), "mse", choices=("mse", "mae")),
        Key("f_use_norm", ("boolean",), False),
        Key("huber_delta", ("number", "numbers"), 0.01),
        Key("intensive_ener_virial", ("boolean",), False),
    ],
    "dos": _prefactors({"dos": (0.0, 0.0), "cdf": (0.0, 0.0), "ados": (1.0, 1.0), "acdf": (0.0, 0.0)}),
    "tensor": [
        Key("pref", ("number",), REQUIRED),
        Key("pref_atomic", ("number",), REQUIRED),
        Key("enable_atomic_weight", ("boolean",), False),
    ],
    "property": _REGRESSION,
    "population": [
        *_prefactors(
            dict.fromkeys(("spin", "spin_total", "pop", "pop_alpha_total", "pop_beta_total"), (1.0, 1.0)),
        ),
        *_REGRESSION,
    ],
}
#: sections whose key ``type`` says which keys there are: those of all types, those of each, and the default type
VARIANTS: dict[str, tuple[list[Key], dict[str, list[Key]], str]] = {
    "learning_rate": (_RATE, _RATES, "exp"),
    "optimizer": ([], {"Adam": _ADAM, "AdamW": _ADAM}, "Adam"),
    "loss": ([], _LOSSES, "ener"),
}

_DATA = [
    Key("systems", ("text", "texts"), REQUIRED),
    Key("rglob_patterns", ("null", "texts"), None),
    Key("batch_size", ("integer", "integers", "text"), "auto", lowest=1),
    Key("auto_prob", ("text",), "prob_sys_size", aliases=("auto_prob_style",)),
    Key("sys_probs", ("null", "numbers"), None, aliases=("sys_weights",)),
]
TRAINING_DATA = [*_DATA, Key("min_pair_dist", ("number",), 0.0, lowest=0)]
VALIDATION_DATA = [*_DATA, Key("numb_btch", ("integer",), 1, aliases=("numb_batch",), lowest=1)]
TASK_DATA = [
    Key("training_data", ("section",), REQUIRED),
    Key("validation_data", ("null", "section"), None),
    Key("stat_file", ("text",)),
    Key("stat_file_mode", ("text",), "update", choices=("update", "read")),
]
_LOOP = [
    Key("mixed_precision", ("section",)),
    Key("numb_steps", ("integer",), aliases=("stop_batch", "num_step", "num_steps", "numb_step"), lowest=0),
    Key("numb_epoch", ("number",), aliases=("num_epochs", "num_epoch", "numb_epochs"), above=0),
    Key("seed", ("integer", "null"), lowest=0),
    Key("disp_file", ("text",), "lcurve.out"),
    Key("disp_freq", ("integer",), 1000, lowest=1),
    Key("save_freq", ("integer",), 1000, lowest=0),
    Key("save_dir", ("null", "text"), None),
    Key("save_ckpt", ("text",), "model.ckpt"),
    Key("max_ckpt_keep", ("integer",), 5),
    Key("ckpt_keep_ratio", _OPTIONAL_NUMBER, None, above=0, below=1),
    Key("enable_ema", ("boolean",), False),
    DECAY,
    Key("ema_ckpt_keep", ("integer", "null"), None, lowest=1),
    Key("change_bias_after_training", ("boolean",), False),
    Key("disp_training", ("boolean",), True),
    Key("time_training", ("boolean",), True),
    Key("disp_avg", ("boolean",), False),
    Key("profiling", ("boolean",), False),
    Key("profiling_file", ("text",), "timeline.json"),
    Key("enable_profiler", ("boolean",), False),
    Key("tensorboard", ("boolean",), False),
    Key("tensorboard_log_dir", ("text",), "log"),
    Key("tensorboard_freq", ("integer",), 1),
    Key("gradient_max_norm", ("number",), lowest=0),
    Key("acc_freq", ("integer",), 1),
    Key("zero_stage", ("integer",), 0),
    Key("neighbor_graph_method", ("text",), "auto", choices=("auto", "dense", "nv")),
    Key("enable_compile", ("boolean",), False),
    Key("enable_tf32", ("boolean",), False),
]
TRAINING = [*TASK_DATA, *_LOOP]
TRAINING_OF_TASKS = [
    Key("model_prob", ("section",), {}),
    Key("num_epoch_dict", ("section",), {}),
    Key("data_dict", ("section",), REQUIRED),
    *_LOOP,
]
MIXED_PRECISION = [Key("output_prec", ("text",), "float32"), Key("compute_prec", ("text",), REQUIRED)]
VALIDATING = [
    Key("full_validation", ("boolean",), False),
    Key("ema_full_validation", ("boolean",), False),
    Key("validation_freq", ("integer",), 5000, lowest=1),
    Key("save_best", ("boolean",), True),
    Key("save_best_dir", ("null", "text"), None),
    Key("max_best_ckpt", ("integer",), 1, lowest=1),
    Key("validation_metric", ("text",), "E:MAE"),
    Key("full_val_file", ("text",), "val.log"),
    Key("full_val_start", ("number",), 0.5, lowest=0),
    Key("compiled_infer", ("boolean",), False),
    Key("tf32_infer", ("boolean",), False),
    Key("amp_infer", ("boolean",), False),
]
_WHOLE = [
    Key("learning_rate", ("section",), REQUIRED),
    Key("optimizer", ("section",), {}),
    Key("training", ("section",), REQUIRED),
    Key("validating", ("section",), {}),
]
INPUT = [Key("model", ("section",), REQUIRED), *_WHOLE, Key("loss", ("section",), REQUIRED)]
INPUT_OF_TASKS = [Key("model", ("section",), REQUIRED), *_WHOLE, Key("loss_dict", ("section",), REQUIRED)]
MODEL_OF_TASKS = [Key("model_dict", ("section",), REQUIRED), Key("shared_dict", ("section",), {})]

#: keys of deepmd-kit that are refused by name, and why
REFUSED: dict[str, str] = {
    "nvnmd": "a training for the hardware of NVNMD is not there",
    "model.spin": "there are no spin models",
    "model.use_srtab": "a model with a ZBL table is evaluated, but not trained",
    "model.smin_alpha": "it belongs to use_srtab, and a model with a ZBL table is not trained",
    "model.sw_rmin": "it belongs to use_srtab, and a model with a ZBL table is not trained",
    "model.sw_rmax": "it belongs to use_srtab, and a model with a ZBL table is not trained",
    "model.modifier": "there are no modifiers of data",
    "model.compress": "a model is compressed after its training, by dpa2 compress",
    "model.type_embedding": "a DPA-2 descriptor has its own; set descriptor.repinit.tebd_dim",
    "model.lora": "there is no adapter training; train the whole model, or set descriptor.trainable to false",
}
REFUSED_TYPES: dict[tuple[str, str], str] = {
    ("optimizer", "LKF"): "its steps use random numbers without a seed",
    ("optimizer", "AdaMuon"): "its iteration in bfloat16 cannot be compared",
    ("optimizer", "HybridMuon"): "its iteration in bfloat16 cannot be compared",
    ("loss", "ener_spin"): "there are no spin models",
    ("loss", "dens"): "there are no models that denoise",
    ("loss", "denoise"): "there are no models that denoise",
}
#: keys that are taken and have no effect here, and few of them in deepmd-kit's PyTorch backend, with their defaults
UNREAD: dict[str, Any] = {
    "model.data_bias_nsample": 10,
    "model.srtab_add_bias": True,
    "model.fitting_net.sel_type": None,
    "model.fitting_net.layer_name": ABSENT,
    "learning_rate.scale_by_worker": "linear",
    "training.mixed_precision": ABSENT,
    "training.acc_freq": 1,
    "training.profiling": False,
    "training.enable_profiler": False,
    "training.tensorboard": False,
    "training.neighbor_graph_method": "auto",
    "training.enable_compile": False,
    "training.enable_tf32": False,
}
