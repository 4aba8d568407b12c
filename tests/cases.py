"""Every model case of the tests, declared once; the single operations are in `operations`.

The golden-file generator, the tests and the benchmarks draw from the two lists. The modules need NumPy and the
standard library alone, so that the generator can import them in an environment without dpa2.

Model cases are written as differences from `BASE`: a small model with every update term switched on. A dotted name
is an option of a block ("repinit.neuron", "repformer.nlayers", "fitting.resnet_dt"); a plain name is an option of the
descriptor or of the model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"

# --------------------------------------------------------------------------------------------- tolerances

#: largest difference from the golden value, relative to max(1, largest golden magnitude)
TOLERANCE = {"float64": 1e-10, "float32": 2e-4}
#: differences between threads, instruction sets and repeated formats of one model
SAME = 1e-12
#: central differences: 4th order, step in angstrom (or strain), bound in eV/angstrom (or eV)
STEP, DIFFERENCE = 1e-4, 1e-7

# --------------------------------------------------------------------------------------------- model cases

BASE: dict[str, Any] = {
    "format_version": 1,
    "type_map": ["O", "H", "Cu"],
    "precision": "float64",
    "descriptor": {
        "type": "dpa2",
        "precision": "float64",
        "smooth": True,
        "exclude_types": [],
        "env_protection": 0.0,
        "concat_output_tebd": True,
        "add_tebd_to_repinit_out": False,
        "use_econf_tebd": False,
        "use_tebd_bias": False,
        "repinit": {
            "rcut": 4.0,
            "rcut_smth": 0.5,
            "nsel": 64,
            "neuron": [4, 8, 16],
            "axis_neuron": 3,
            "tebd_dim": 4,
            "tebd_input_mode": "concat",
            "activation_function": "tanh",
            "resnet_dt": False,
            "type_one_side": False,
            "use_three_body": True,
            "three_body_neuron": [2, 4, 8],
            "three_body_rcut": 3.0,
            "three_body_rcut_smth": 1.8,
            "three_body_sel": 28,
        },
        "repformer": {
            "rcut": 3.0,
            "rcut_smth": 1.5,
            "nsel": 28,
            "nlayers": 3,
            "g1_dim": 8,
            "g2_dim": 5,
            "axis_neuron": 2,
            "direct_dist": False,
            "update_g1_has_conv": True,
            "update_g1_has_drrd": True,
            "update_g1_has_grrg": True,
            "update_g1_has_attn": True,
            "update_g2_has_g1g1": True,
            "update_g2_has_attn": True,
            "update_h2": True,
            "attn1_hidden": 3,
            "attn1_nhead": 2,
            "attn2_hidden": 3,
            "attn2_nhead": 2,
            "attn2_has_gate": True,
            "activation_function": "tanh",
            "update_style": "res_residual",
            "use_sqrt_nnei": True,
            "g1_out_conv": True,
            "g1_out_mlp": True,
            "ln_eps": 1e-5,
        },
    },
    "fitting_net": {
        "type": "ener",
        "neuron": [12, 12],
        "activation_function": "tanh",
        "resnet_dt": True,
        "numb_fparam": 0,
        "numb_aparam": 0,
        "default_fparam": None,
        "dim_case_embd": 0,
        "use_aparam_as_mask": False,
        "atom_ener": [],
        "precision": "float64",
    },
    "pair_exclude_types": [],
    "atom_exclude_types": [],
    "min_nbor_dist": None,
    "head": None,
}


@dataclass(frozen=True)
class ModelCase:
    """A model with random weights: how its options differ from `BASE`, and how its golden file is made and judged."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    davg: float = 0.0  # standard deviation of the random davg, all four components
    virtual: bool = False  # some atoms have type -1, the first one among them
    case_index: int | None = None  # the hot entry of the case embedding
    binding: bool = False  # nsel cuts real neighbours off
    float32: bool = False  # the golden file also holds the errors of deepmd-kit's own float32
    weights64: bool = False  # weights with a full 53-bit mantissa (others are exact in float32, to halve the files)
    systems: tuple[str, ...] = ("bulk", "open", "tiny")

    @property
    def golden(self) -> Path:
        return GOLDEN / f"{self.name}.npz"

    @property
    def config(self) -> dict[str, Any]:
        """The complete canonical configuration of the case."""
        return apply_options(BASE, self.options)

    @property
    def tolerance(self) -> float:
        """Bound on the difference from deepmd-kit when evaluated in float64."""
        low = "float32" in (self.config["descriptor"]["precision"], self.config["fitting_net"]["precision"])
        return TOLERANCE["float32" if low else "float64"]


def apply_options(base: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of `base` with `options` set; raises KeyError for a name that `base` does not have."""
    config: dict[str, Any] = copy.deepcopy(dict(base))
    blocks = {
        "repinit": config["descriptor"]["repinit"],
        "repformer": config["descriptor"]["repformer"],
        "fitting": config["fitting_net"],
        "descriptor": config["descriptor"],
    }
    for name, value in options.items():
        block, _, key = name.rpartition(".")
        target = blocks[block] if block else config["descriptor"] if name in config["descriptor"] else config
        if key not in target:
            raise KeyError(f"no option {name!r}")
        target[key] = copy.deepcopy(value)
    both = (config["descriptor"]["precision"], config["fitting_net"]["precision"])
    config["precision"] = "float64" if "float64" in both else "float32"
    return config


STRIP = {"repinit.tebd_input_mode": "strip"}
ROUGH = {"smooth": False}
PUBLISHED = {
    "repformer.update_g1_has_attn": False,
    "repformer.update_g2_has_g1g1": False,
    "repformer.update_h2": False,
}
SHALLOW = {"repformer.nlayers": 2}


def _activation(name: str) -> dict[str, Any]:
    blocks = ("repinit", "repformer", "fitting")
    return {f"{block}.activation_function": name for block in blocks} | SHALLOW


MODELS: tuple[ModelCase, ...] = (
    ModelCase("base", float32=True, weights64=True),
    ModelCase("strip", STRIP, float32=True),
    # the published family: small, medium, compressible
    ModelCase("published_medium", PUBLISHED, float32=True),
    ModelCase("published_small", PUBLISHED | {"repformer.update_g2_has_attn": False}, float32=True),
    ModelCase("published_strip", PUBLISHED | STRIP | {"repformer.update_g2_has_attn": False}, float32=True),
    # which terms are there
    ModelCase("no_three_body", {"repinit.use_three_body": False}),
    ModelCase("no_three_body_strip", {"repinit.use_three_body": False} | STRIP),
    ModelCase("h2_without_attn", {"repformer.update_g2_has_attn": False, "repformer.update_g1_has_attn": False}),
    ModelCase("h2_no_gate", {"repformer.attn2_has_gate": False, "repformer.ln_eps": 1e-3}),
    ModelCase("no_h2", {"repformer.update_h2": False}),
    ModelCase("g1_attn", PUBLISHED | {"repformer.update_g1_has_attn": True}),
    ModelCase("g1g1", PUBLISHED | {"repformer.update_g2_has_g1g1": True, "repformer.update_g2_has_attn": False}),
    ModelCase("no_conv_no_grrg", {"repformer.update_g1_has_conv": False, "repformer.update_g1_has_grrg": False}),
    ModelCase("no_drrd", {"repformer.update_g1_has_drrd": False}),
    ModelCase("only_drrd", PUBLISHED | {
        "repformer.update_g1_has_conv": False, "repformer.update_g1_has_grrg": False, "repformer.g1_out_mlp": False,
    }),
    ModelCase("out_conv_false", {"repformer.g1_out_conv": False}),
    ModelCase("out_mlp_false", {"repformer.g1_out_mlp": False}),
    ModelCase("out_both_false", {"repformer.g1_out_conv": False, "repformer.g1_out_mlp": False}),
    ModelCase("out_conv_false_rough", {"repformer.g1_out_conv": False, "repformer.use_sqrt_nnei": False} | ROUGH),
    ModelCase("res_avg", {"repformer.update_style": "res_avg"}),
    ModelCase("res_avg_no_h2", PUBLISHED | {"repformer.update_style": "res_avg"}),
    ModelCase("res_incr", {"repformer.update_style": "res_incr"}),
    ModelCase("res_incr_no_g2_attn", {"repformer.update_style": "res_incr", "repformer.update_g2_has_attn": False}),
    # how they are weighted
    ModelCase("rough", ROUGH),
    ModelCase("rough_strip", ROUGH | STRIP),
    ModelCase("rough_no_sqrt", ROUGH | {"repformer.use_sqrt_nnei": False}),
    ModelCase("no_sqrt", {"repformer.use_sqrt_nnei": False}),
    ModelCase("direct_dist", {"repformer.direct_dist": True}),
    ModelCase("direct_dist_davg", {"repformer.direct_dist": True}, davg=0.3),
    ModelCase("env_protection", {"env_protection": 0.1}),
    # embedding nets and type embedding
    ModelCase("one_side", {"repinit.type_one_side": True}),
    ModelCase("one_side_strip", {"repinit.type_one_side": True} | STRIP),
    ModelCase("resnet_dt", {"repinit.resnet_dt": True, "fitting.resnet_dt": False}),
    ModelCase("resnet_dt_strip", {"repinit.resnet_dt": True} | STRIP),
    ModelCase("add_tebd", {"add_tebd_to_repinit_out": True}),
    ModelCase("no_concat_tebd", {"concat_output_tebd": False}),
    ModelCase("econf", {"use_econf_tebd": True}),
    ModelCase("econf_bias", {"use_econf_tebd": True, "use_tebd_bias": True}),
    ModelCase("tebd_bias", {"use_tebd_bias": True}),
    ModelCase("tebd_skip_equal", {"repinit.tebd_dim": 3}),
    ModelCase("tebd_skip_double", {"repinit.tebd_dim": 6}),
    ModelCase("first_layer_skip", {"repinit.neuron": [9, 9, 18], "repinit.resnet_dt": True}),
    ModelCase("three_body_skip_strip", {"repinit.three_body_neuron": [1, 2, 2]} | STRIP),
    ModelCase("identity_shape", {
        "repinit.neuron": [2, 4], "repinit.axis_neuron": 2, "repinit.three_body_neuron": [2], "repformer.g1_dim": 10,
    }),
    ModelCase("odd_widths", {
        "repinit.neuron": [7, 13, 11], "repinit.axis_neuron": 5, "repinit.three_body_neuron": [3, 5],
        "repformer.g1_dim": 21, "repformer.g2_dim": 10, "repformer.axis_neuron": 3, "repformer.nlayers": 2,
        "repformer.attn1_hidden": 5, "repformer.attn1_nhead": 3,
        "repformer.attn2_hidden": 5, "repformer.attn2_nhead": 3, "fitting.neuron": [17, 9],
    }),
    ModelCase("one_layer", {"repformer.nlayers": 1}),
    ModelCase("four_layers", {"repformer.nlayers": 4, "repformer.g1_dim": 8}),
    ModelCase("one_type", {"type_map": ["Cu"]}),
    ModelCase("seven_types", {"type_map": ["H", "C", "N", "O", "Si", "Cl", "Fe"]} | STRIP),
    # neighbours
    ModelCase("exclude_types", {"exclude_types": [[0, 1], [2, 2]]}),
    ModelCase("exclude_types_strip", {"exclude_types": [[0, 1], [2, 2]]} | STRIP),
    ModelCase("pair_exclude", {"pair_exclude_types": [[1, 1], [0, 2]]}),
    ModelCase("atom_exclude", {"atom_exclude_types": [1]}),
    ModelCase("exclude_all", {
        "exclude_types": [[0, 1]], "pair_exclude_types": [[1, 2]], "atom_exclude_types": [2],
    }, davg=0.3),
    ModelCase("virtual", virtual=True),
    ModelCase("virtual_davg", virtual=True, davg=0.3),
    ModelCase("binding_sel", {
        "repinit.nsel": 15, "repinit.three_body_sel": 7, "repformer.nsel": 7,
    }, binding=True, systems=("bulk", "open")),
    ModelCase("binding_sel_strip", {
        "repinit.nsel": 14, "repinit.three_body_sel": 6, "repformer.nsel": 8, "repformer.rcut": 3.2,
    } | STRIP, binding=True, systems=("bulk", "open")),
    ModelCase("binding_sel_exclude", {
        "repinit.nsel": 15, "repinit.three_body_sel": 7, "repformer.nsel": 7,
        "exclude_types": [[0, 1]], "pair_exclude_types": [[1, 2]],
    }, binding=True, systems=("bulk", "open")),
    ModelCase("three_cutoffs", {
        "repinit.three_body_rcut": 2.6, "repinit.three_body_rcut_smth": 1.2, "repinit.three_body_sel": 24,
        "repformer.rcut": 3.3, "repformer.nsel": 36,
    }),
    ModelCase("three_body_beyond", {
        "repinit.three_body_rcut": 4.4, "repinit.three_body_rcut_smth": 3.0, "repinit.three_body_sel": 70,
    }),
    # statistics
    ModelCase("davg", davg=0.3),
    ModelCase("davg_strip", STRIP, davg=0.3),
    ModelCase("davg_rough", ROUGH, davg=0.3),
    ModelCase("davg_rough_strip", ROUGH | STRIP, davg=0.3),
    ModelCase("davg_exclude", ROUGH | STRIP | {"exclude_types": [[0, 1], [2, 2]]}, davg=0.3),
    # fitting net
    ModelCase("fparam_aparam", SHALLOW | {"fitting.numb_fparam": 2, "fitting.numb_aparam": 3}),
    ModelCase("default_fparam", SHALLOW | {"fitting.numb_fparam": 2, "fitting.default_fparam": [0.4, -1.5]}),
    ModelCase("aparam_mask", SHALLOW | {"fitting.numb_aparam": 2, "fitting.use_aparam_as_mask": True}),
    ModelCase("case_embd", SHALLOW | {"fitting.dim_case_embd": 3}, case_index=1),
    ModelCase("fparam_aparam_case", SHALLOW | {
        "fitting.numb_fparam": 1, "fitting.numb_aparam": 2, "fitting.dim_case_embd": 4,
    }, case_index=2),
    ModelCase("atom_ener", SHALLOW | {
        "fitting.atom_ener": [-1.5, None, 0.25], "fitting.numb_fparam": 1, "fitting.dim_case_embd": 2,
    }, case_index=0),
    ModelCase("linear_fitting", SHALLOW | {"fitting.neuron": []}),
    ModelCase("linear_fitting_parameters", SHALLOW | {
        "fitting.neuron": [], "fitting.numb_fparam": 2, "fitting.numb_aparam": 1, "fitting.dim_case_embd": 2,
        "fitting.atom_ener": [None, 0.5, -1.0], "atom_exclude_types": [2],
    }, case_index=1),
    # activations
    *(ModelCase(f"act_{name}", _activation(name)) for name in (
        "relu", "relu6", "softplus", "sigmoid", "gelu", "silu", "silut", "linear",
    )),
    ModelCase("act_thresholds", SHALLOW | {
        "repinit.activation_function": "silut:1.0", "repformer.activation_function": "custom_silu:0.5",
        "fitting.activation_function": "silut:0.7",
    }),
    ModelCase("act_aliases", SHALLOW | {
        "repinit.activation_function": "gelu_tf", "repformer.activation_function": "none",
        "fitting.activation_function": "Tanh",
    }),
    # precision of the file
    ModelCase("file_float32", {"descriptor.precision": "float32", "fitting.precision": "float32"}),
    ModelCase("file_mixed", {"descriptor.precision": "float32"}),
)  # fmt: skip


def draw_case(seed: int) -> ModelCase:
    """A case with options drawn at random from everything that a model may have."""
    rng = np.random.default_rng([2024, seed])

    def flip(probability: float = 0.5) -> bool:
        return bool(rng.random() < probability)

    def pick(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    activations = ("tanh", "tanh", "relu", "softplus", "sigmoid", "gelu", "silu", "silut:0.8")
    width = int(rng.integers(3, 5))
    options: dict[str, Any] = {
        "smooth": flip(0.7),
        "concat_output_tebd": flip(),
        "add_tebd_to_repinit_out": flip(),
        "use_econf_tebd": flip(0.3),
        "use_tebd_bias": flip(0.3),
        "env_protection": pick(0.0, 0.0, 0.05),
        "exclude_types": pick([], [], [[0, 2]], [[1, 1], [0, 1]]),
        "pair_exclude_types": pick([], [], [[0, 0]]),
        "atom_exclude_types": pick([], [], [0]),
        "repinit.neuron": pick([width, 2 * width, 4 * width], [width, width], [7, 5]),
        "repinit.axis_neuron": pick(1, 2, 3),
        "repinit.tebd_dim": pick(2, 3, 4, 6),
        "repinit.tebd_input_mode": pick("concat", "strip"),
        "repinit.activation_function": pick(*activations),
        "repinit.resnet_dt": flip(),
        "repinit.type_one_side": flip(),
        "repinit.use_three_body": flip(0.7),
        "repinit.three_body_neuron": pick([2, 4], [1, 2, 4], [3, 3]),
        "repformer.nlayers": pick(1, 2, 3),
        "repformer.g1_dim": pick(6, 8, 11),
        "repformer.g2_dim": pick(3, 4, 7),
        "repformer.axis_neuron": pick(1, 2, 3),
        "repformer.direct_dist": flip(0.3),
        "repformer.attn1_hidden": pick(2, 5),
        "repformer.attn1_nhead": pick(1, 3),
        "repformer.attn2_hidden": pick(2, 5),
        "repformer.attn2_nhead": pick(1, 3),
        "repformer.activation_function": pick(*activations),
        "repformer.update_style": pick("res_residual", "res_avg", "res_incr"),
        "fitting.neuron": pick([8, 8], [6, 12], [9]),
        "fitting.activation_function": pick(*activations),
        "fitting.resnet_dt": flip(),
        "fitting.numb_fparam": pick(0, 0, 2),
        "fitting.numb_aparam": pick(0, 0, 1),
    }
    for name in (
        "update_g1_has_conv", "update_g1_has_drrd", "update_g1_has_attn", "update_g2_has_g1g1", "update_g2_has_attn",
        "update_h2", "attn2_has_gate", "use_sqrt_nnei", "g1_out_conv", "g1_out_mlp",
    ):  # fmt: skip
        options[f"repformer.{name}"] = flip()
    options["repformer.update_g1_has_grrg"] = flip() or not options["repformer.update_g1_has_drrd"]
    davg = pick(0.0, 0.3)
    return ModelCase(f"random_{seed:02d}", options, davg=davg, virtual=flip(0.2))


RANDOM: tuple[ModelCase, ...] = tuple(draw_case(seed) for seed in range(12))


def golden_cases() -> tuple[ModelCase, ...]:
    """Every model case that has a golden file, in a fixed order with unique names."""
    return MODELS + RANDOM


# --------------------------------------------------------------------------------------------- model files

_SMALL: dict[str, Any] = {
    "type_map": ["O", "H"],
    "repinit.rcut": 3.0, "repinit.nsel": 12, "repinit.neuron": [2, 4], "repinit.axis_neuron": 2, "repinit.tebd_dim": 3,
    "repinit.three_body_neuron": [2], "repinit.three_body_rcut": 2.5, "repinit.three_body_sel": 8,
    "repformer.rcut": 2.5, "repformer.nsel": 8, "repformer.nlayers": 2, "repformer.g1_dim": 4, "repformer.g2_dim": 3,
    "repformer.attn1_hidden": 2, "repformer.attn2_hidden": 2, "fitting.neuron": [4, 4],
}  # fmt: skip

#: models that tests/golden/files/<name>/ holds as complete files of every format, with the golden file <name>.npz there
FILE_MODELS: tuple[ModelCase, ...] = (
    ModelCase("trained", _SMALL, systems=("open",)),
    ModelCase("strip", _SMALL | STRIP | {
        "use_econf_tebd": True, "use_tebd_bias": True, "add_tebd_to_repinit_out": True, "exclude_types": [[0, 0]],
        "pair_exclude_types": [[0, 1]], "atom_exclude_types": [1], "env_protection": 0.05, "smooth": False,
        "concat_output_tebd": False,
        "repinit.activation_function": "gelu", "repformer.activation_function": "silut:2.0",
        "repformer.update_style": "res_avg", "repformer.direct_dist": True, "repformer.g1_out_conv": False,
        "fitting.numb_fparam": 2, "fitting.default_fparam": [0.5, -2.0], "fitting.numb_aparam": 1,
        "fitting.dim_case_embd": 2, "fitting.atom_ener": [-1.0, None], "fitting.activation_function": "softplus",
    }, davg=0.3, case_index=1, systems=("open",)),
    ModelCase("bfloat16", _SMALL | {
        "descriptor.precision": "bfloat16", "fitting.precision": "float32", "repinit.resnet_dt": True,
    }, systems=("open",)),
    # as a file of deepmd-kit 3.0 has it, whose descriptor is of version 1
    ModelCase("version1", _SMALL | {
        "repinit.use_three_body": False, "repinit.three_body_neuron": [2, 4, 8], "repinit.three_body_rcut": 4.0,
        "repinit.three_body_rcut_smth": 0.5, "repinit.three_body_sel": 40, "use_tebd_bias": True,
        "repformer.use_sqrt_nnei": False, "repformer.update_style": "res_avg",
        "repformer.g1_out_conv": False, "repformer.g1_out_mlp": False,
    }, systems=("open",)),
)  # fmt: skip

# --------------------------------------------------------------------------------------------- golden files


#: weights that deepmd-kit keeps in float64 whatever the precision of the block
ALWAYS_FLOAT64 = ("out_bias", "out_std", "fitting_net.bias_atom_e")


@dataclass(frozen=True)
class System:
    """Frames of one system and deepmd-kit's answers for them (angstrom, eV; the first axis is the frame).

    coord (f, n, 3), atype (n,), box (f, 3, 3) or None, fparam (f, nf) or None, aparam (f, n, na) or None;
    expected: descriptor (f, n, dim), rot_mat (f, n, g2_dim, 3), energy (f,), atom_energy (f, n), force (f, n, 3),
    virial (f, 3, 3), atom_virial (f, n, 3, 3).
    """

    name: str
    coord: np.ndarray
    atype: np.ndarray
    box: np.ndarray | None
    fparam: np.ndarray | None
    aparam: np.ndarray | None
    expected: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Golden:
    """A golden file: the canonical model and what deepmd-kit computed with it."""

    config: dict[str, Any]
    weights: dict[str, np.ndarray]
    systems: tuple[System, ...]
    #: {quantity: (largest, root mean square) error of deepmd-kit's own float32}, empty if not measured
    float32_error: dict[str, tuple[float, float]]


def load_golden(case: ModelCase | Path) -> Golden:
    """Read the golden file of a case, or any file of that layout. Raises FileNotFoundError if it is missing."""
    with np.load(case.golden if isinstance(case, ModelCase) else case, allow_pickle=False) as data:
        config = json.loads(str(data["config"]))
        weights, start, flat = {}, 0, data["weights"]
        for name, shape in json.loads(str(data["weight_shapes"])).items():
            stop = start + int(np.prod(shape))
            block = config["descriptor"] if name.startswith("descriptor.") else config["fitting_net"]
            double = block["precision"] == "float64" or name in ALWAYS_FLOAT64
            weights[name] = flat[start:stop].reshape(shape).astype(np.float64 if double else np.float32)
            start = stop
        systems = []
        for name in json.loads(str(data["systems"])):
            content = {key.partition("/")[2]: data[key] for key in data.files if key.startswith(f"{name}/")}
            inputs = {key: content.pop(key, None) for key in ("coord", "atype", "box", "fparam", "aparam")}
            assert inputs["coord"] is not None
            assert inputs["atype"] is not None
            systems.append(System(name=name, expected=content, **inputs))  # type: ignore[arg-type]
        errors = {key: (float(a), float(b)) for key, (a, b) in json.loads(str(data["float32_error"])).items()}
    return Golden(config, weights, tuple(systems), errors)
