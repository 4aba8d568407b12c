"""Small random models in any combination of options, and random structures to evaluate them on.

``random_model(rng, **options)`` returns the canonical ``(config, weights)`` of a model; ``draw_options(rng)`` draws
such options at random; ``random_structure`` draws atoms in a cubic, triclinic, left-handed, tiny, partially periodic
or no box.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from dpa2.files import schema
from numpy.typing import NDArray

Array = NDArray[np.float64]
Config = dict[str, Any]
Weights = dict[str, NDArray[Any]]

SYMBOLS = ["O", "H", "C", "N", "Si", "Fe", "U", "Cl", "Na", "Au"]
ACTIVATIONS = [
    "tanh",
    "relu",
    "relu6",
    "sigmoid",
    "softplus",
    "gelu",
    "gelu_tf",
    "silu",
    "silut",
    "silut:1.0",
    "custom_silu:0.5",
    "linear",
    "none",
]
BOUNDED = ["tanh", "relu6", "sigmoid"]

#: what the models have in other sizes than deepmd-kit's defaults
SMALL: dict[str, Config] = {
    "descriptor": {},
    "repinit": {
        "rcut": 4.0, "rcut_smth": 0.6, "nsel": 80, "neuron": [4, 8, 16], "axis_neuron": 3, "tebd_dim": 5,
        "use_three_body": True, "three_body_neuron": [2, 4, 5], "three_body_rcut": 3.2,
    },
    "repformer": {
        "rcut": 3.2, "rcut_smth": 0.5, "nsel": 40, "g1_dim": 10, "g2_dim": 6, "axis_neuron": 3, "attn1_hidden": 5,
        "attn1_nhead": 2, "attn2_hidden": 4, "attn2_nhead": 3, "attn2_has_gate": True,
        "update_style": "res_residual",
    },
    "fitting_net": {"neuron": [9, 9, 9]},
}  # fmt: skip


#: options of the types of fitting nets that have no default, or another size
SMALL_TYPES: dict[str, Config] = {"dos": {"numb_dos": 7}, "property": {"property_name": "gap", "task_dim": 3}}


def _section(name: str, *options: Config | None, of_type: str = "") -> Config:
    """The complete options of a section: defaults, those of small models, and the given ones.

    ``of_type``: the type of a fitting net, which may have options of its own.
    """
    known = dict(schema.section(name))
    if of_type in ("polar", "dos", "property"):
        known |= schema.section(f"{name}.{of_type}")
    out = {key: option.default for key, option in known.items()} | SMALL[name] | SMALL_TYPES.get(of_type, {})
    for given in options:
        out |= given or {}
    if set(out) != set(known):
        raise KeyError(f"unknown {name} options {sorted(set(out) - set(known))}")
    return out


def _draw(rng: np.random.Generator, weight: schema.Weight, config: Config, davg: float, vector: bool) -> Array:
    """Random numbers of the size that they have in a trained model."""

    def normal(scale: float, mean: float = 0.0) -> Array:
        return rng.normal(mean, scale, weight.shape)

    name, role = weight.name, weight.role
    if role == "environment_mean":
        mean = davg * normal(1.0)
        if not vector:
            mean[:, 1:] = 0.0
        return mean
    if role == "environment_stddev":
        return rng.uniform(0.15, 0.6, weight.shape)
    if name.endswith(".econf_tebd"):
        return np.where(rng.random(weight.shape) < 0.5, -1.0, 1.0) / np.sqrt(weight.shape[1])
    if name.endswith(".case_embd"):
        return np.eye(weight.shape[0])[rng.integers(weight.shape[0])]
    if name.endswith(".default_fparam_tensor"):
        part = config["models"][int(name.split(".")[1])] if name.startswith("models.") else config
        return np.asarray(part["fitting_net"]["default_fparam"], dtype=np.float64)
    if name.endswith(("_inv_std", "out_std")):
        return rng.uniform(0.5, 2.0, weight.shape)
    sizes = {"_avg": 0.5, ".bias_atom_e": 2.0, "out_bias": 1.0, "attn2_lm.bias": 0.4, ".bias": 0.5}
    for end, size in sizes.items():
        if name.endswith(end):
            return normal(size)
    if ".type_embedding." in name:
        return normal(0.7)
    if name.endswith(".attn2_lm.matrix"):
        return normal(0.4, 1.0)
    if name.endswith(".matrix"):
        return normal((3.0 if "g1_shape_tranform" in name else 1.0) / np.sqrt(weight.shape[0]))
    return normal(0.3, 0.6) if name.endswith(".idt") else normal(0.5, 0.3)  # the others are the residuals'


def random_model(
    rng: np.random.Generator,
    *,
    ntypes: int = 3,
    descriptor: Config | None = None,
    repinit: Config | None = None,
    repformer: Config | None = None,
    fitting: Config | None = None,
    pair_exclude_types: list[list[int]] | None = None,
    atom_exclude_types: list[int] | None = None,
    davg: float = 0.0,
    davg_vector: bool = False,
    precision: str = "float64",
) -> tuple[Config, Weights]:
    """The canonical config and the float64 weights of a random model.

    ``descriptor``, ``repinit``, ``repformer`` and ``fitting`` override single options of the four groups, the type of
    the fitting net among them; ``davg`` is the standard deviation of the random ``mean`` statistics (component 0 only
    unless ``davg_vector``).
    """
    both = {"precision": precision}
    kind = (fitting or {}).get("type", "ener")
    scale = {"scale": [float(v) for v in rng.uniform(0.5, 2.0, ntypes)]} if kind == "polar" else {}
    config: Config = {
        "format_version": schema.format_version(),
        "type_map": SYMBOLS[:ntypes],
        "precision": precision,
        "descriptor": {
            **_section("descriptor", both, descriptor),
            "repinit": _section("repinit", repinit),
            "repformer": _section("repformer", repformer),
        },
        "fitting_net": _section("fitting_net", both, scale, fitting, of_type=kind),
        "pair_exclude_types": pair_exclude_types or [],
        "atom_exclude_types": atom_exclude_types or [],
        "min_nbor_dist": None,
        "head": None,
    }
    return config, random_weights(rng, config, davg, davg_vector)


def random_weights(rng: np.random.Generator, config: Config, davg: float = 0.0, davg_vector: bool = False) -> Weights:
    """The float64 weights of a random model with this canonical configuration, of any kind."""
    expected = schema.expected_weights(config)
    return {name: _draw(rng, weight, config, davg, davg_vector) for name, weight in expected.items()}


def draw_options(rng: np.random.Generator) -> dict[str, Any]:
    """Random options for :func:`random_model`: any combination that deepmd-kit accepts, in small sizes."""

    def flip(probability: float = 0.5) -> bool:
        return bool(rng.random() < probability)

    def pick(values: list[Any]) -> Any:
        return values[int(rng.integers(len(values)))]

    def pairs(n: int) -> list[list[int]]:
        return [[int(a), int(b)] for a, b in rng.integers(0, n, (int(rng.integers(1, n)), 2))]

    ntypes = int(rng.integers(1, 5))
    rcut3, rcut2 = float(rng.uniform(2.4, 3.6)), float(rng.uniform(2.4, 3.6))
    rcut1 = max(rcut3, rcut2) + float(rng.uniform(0.1, 1.0))
    sel2, sel3 = 45, 45
    if flip(0.3):
        rcut3 = rcut2
    elif flip(0.2):
        rcut3 = rcut1 + 0.4  # accepted by deepmd-kit: the list then ends at the repinit cutoff
    if flip(0.35):
        sel2, sel3 = int(rng.integers(3, 20)), int(rng.integers(3, 20))
    if rcut3 == rcut2:
        sel3 = sel2
    elif (rcut3 < rcut2) == (sel3 > sel2):
        sel2, sel3 = sel3, sel2
    sel1 = max(sel2, sel3) + int(rng.integers(1, 30))
    three_body = flip(0.7)
    if rcut3 > rcut1:
        sel3 = sel1 + 5
    g1_dim, neuron = int(rng.integers(4, 13)), pick([[4, 8, 16], [5], [6, 6], [3, 7], [1, 2, 4, 4]])
    axis = int(rng.integers(1, min(4, neuron[-1]) + 1))
    neuron3 = pick([[2, 4, 8], [1, 2, 2], [3], [4, 4]])
    if flip(0.15):
        g1_dim = neuron[-1] * axis + (neuron3[-1] if three_body else 0)
    g2_dim, has_grrg, has_drrd, has_conv = int(rng.integers(3, 8)), flip(0.7), flip(0.7), flip(0.7)
    out_conv, out_mlp = flip(0.7), flip(0.7)
    if not (has_grrg or has_drrd or not out_mlp or (has_conv and not out_conv)):
        has_grrg = True
    nf = pick([0, 0, 1, 3])
    phi, nlayers = pick(ACTIVATIONS) if flip(0.4) else "tanh", int(rng.integers(1, 5))
    if phi not in BOUNDED:  # every layer squares g1: without bounds four layers leave any number format
        nlayers = min(nlayers, 2)
    return {
        "ntypes": ntypes,
        "descriptor": {
            "smooth": flip(0.7),
            "exclude_types": pairs(ntypes) if ntypes > 1 and flip(0.25) else [],
            "env_protection": pick([0.0, 0.0, 0.0, 0.1]),
            "concat_output_tebd": flip(0.7),
            "add_tebd_to_repinit_out": flip(0.3),
            "use_econf_tebd": flip(0.25),
            "use_tebd_bias": flip(0.3),
        },
        "repinit": {
            "rcut": rcut1,
            "rcut_smth": float(rng.uniform(0.3, 0.8)) * rcut1,
            "nsel": sel1,
            "neuron": neuron,
            "axis_neuron": axis,
            "tebd_dim": pick([ntypes, 2 * ntypes, 3, 5, 8]),
            "tebd_input_mode": pick(["concat", "strip"]),
            "activation_function": pick(ACTIVATIONS) if flip(0.4) else "tanh",
            "resnet_dt": flip(0.3),
            "type_one_side": flip(0.3),
            "use_three_body": three_body,
            "three_body_neuron": neuron3,
            "three_body_rcut": rcut3,
            "three_body_rcut_smth": float(rng.uniform(0.2, 0.8)) * rcut3,
            "three_body_sel": sel3,
        },
        "repformer": {
            "rcut": rcut2,
            "rcut_smth": float(rng.uniform(0.2, 0.8)) * rcut2,
            "nsel": sel2,
            "nlayers": nlayers,
            "g1_dim": g1_dim,
            "g2_dim": g2_dim,
            "axis_neuron": int(rng.integers(1, min(g1_dim, g2_dim) + 1)),
            "direct_dist": flip(0.2),
            "update_g1_has_conv": has_conv,
            "update_g1_has_drrd": has_drrd,
            "update_g1_has_grrg": has_grrg,
            "update_g1_has_attn": flip(),
            "update_g2_has_g1g1": flip(),
            "update_g2_has_attn": flip(0.7),
            "update_h2": flip(0.4),
            "attn1_hidden": int(rng.integers(1, 7)),
            "attn1_nhead": int(rng.integers(1, 4)),
            "attn2_hidden": int(rng.integers(1, 7)),
            "attn2_nhead": int(rng.integers(1, 4)),
            "attn2_has_gate": flip(),
            "activation_function": phi,
            "update_style": pick(["res_residual", "res_residual", "res_avg", "res_incr"]),
            "use_sqrt_nnei": flip(),
            "g1_out_conv": out_conv,
            "g1_out_mlp": out_mlp,
            "ln_eps": pick([1e-5, 1e-5, 1e-3]),
        },
        "fitting": {
            "neuron": pick([[9, 9, 9], [6, 12], [8], [2, 4, 8]]),
            "activation_function": pick(ACTIVATIONS) if flip(0.3) else "tanh",
            "resnet_dt": flip(),
            "numb_fparam": nf,
            "numb_aparam": pick([0, 0, 2]),
            "default_fparam": [float(v) for v in rng.normal(size=nf)] if nf and flip(0.4) else None,
            "dim_case_embd": pick([0, 0, 3]),
            "use_aparam_as_mask": flip(0.2),
            "atom_ener": [float(v) for v in rng.normal(size=ntypes)] if flip(0.2) else [],
        },
        "pair_exclude_types": pairs(ntypes) if ntypes > 1 and flip(0.25) else [],
        "atom_exclude_types": [int(rng.integers(ntypes))] if ntypes > 1 and flip(0.2) else [],
        "davg": 0.3 if flip(0.35) else 0.0,
        "davg_vector": flip(),
    }


STRUCTURES = ["cubic", "triclinic", "left_handed", "tiny", "open", "mixed"]


def random_structure(
    rng: np.random.Generator, ntypes: int, natoms: int = 12, kind: str | None = None, virtual: bool = False
) -> tuple[Array, NDArray[np.int32], Array | None, tuple[bool, bool, bool]]:
    """Random ``(coords, types, box, pbc)``: 12 cubic angstrom per atom, no close pairs, atoms also outside the box."""
    kind = kind or STRUCTURES[int(rng.integers(len(STRUCTURES)))]
    if kind == "tiny":
        natoms = min(natoms, 3)
    edge = 3.3 if kind == "tiny" else (12.0 * natoms) ** (1.0 / 3.0)
    box = np.eye(3) * edge
    if kind != "cubic":
        box = box + rng.uniform(-0.2, 0.2, (3, 3)) * edge
    if kind == "left_handed":
        box = box[[1, 0, 2]]
    # Atoms sit on a jittered grid in fractional coordinates: a minimum distance without rejection loops.
    per_edge = int(np.ceil(natoms ** (1.0 / 3.0) - 1e-9))
    grid = np.stack(np.meshgrid(*[np.arange(per_edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    sites = grid[rng.permutation(len(grid))[:natoms]]
    jitter = rng.uniform(-0.22, 0.22, (natoms, 3))
    coords = ((sites + 0.5 + jitter) / per_edge) @ box
    pbc = (True, True, True)
    if kind == "mixed":
        pbc = (bool(rng.random() < 0.5), bool(rng.random() < 0.5), bool(rng.random() < 0.5))
    if kind != "open":
        shifts = rng.integers(-1, 2, (natoms, 3)) * np.asarray(pbc)
        coords = coords + shifts @ box
    types = rng.integers(0, ntypes, natoms).astype(np.int32)
    if virtual and natoms > 2:
        types[rng.integers(0, natoms)] = -1
    if kind == "open":
        return coords, types, None, (False, False, False)
    return coords, types, box, pbc


def random_parameters(rng: np.random.Generator, config: Config, natoms: int) -> tuple[Array | None, Array | None]:
    """Random ``(fparam, aparam)`` of the sizes that the model wants, None where it wants none (or has a default)."""
    opt = config["fitting_net"]
    nf, na = opt["numb_fparam"], opt["numb_aparam"]
    fparam = rng.normal(size=nf) if nf and not (opt["default_fparam"] is not None and rng.random() < 0.5) else None
    aparam = rng.normal(size=(natoms, na)) if na else None
    return fparam, aparam
