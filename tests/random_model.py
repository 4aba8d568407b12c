"""Small random models in any combination of options, and random structures to evaluate them on.

``random_model(rng, **options)`` returns the canonical ``(config, weights)`` of a model; ``draw_options(rng)`` draws
such options at random; ``random_structure`` draws atoms in a cubic, triclinic, left-handed, tiny, partially periodic
or no box.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Config = dict[str, Any]
Weights = dict[str, NDArray[Any]]

SYMBOLS = ["O", "H", "C", "N", "Si", "Fe", "U", "Cl", "Na", "Au"]
ECONF_COLUMNS = 118
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

DESCRIPTOR: Config = {
    "type": "dpa2",
    "precision": "float64",
    "smooth": True,
    "exclude_types": [],
    "env_protection": 0.0,
    "concat_output_tebd": True,
    "add_tebd_to_repinit_out": False,
    "use_econf_tebd": False,
    "use_tebd_bias": False,
}
REPINIT: Config = {
    "rcut": 4.0,
    "rcut_smth": 0.6,
    "nsel": 80,
    "neuron": [4, 8, 16],
    "axis_neuron": 3,
    "tebd_dim": 5,
    "tebd_input_mode": "concat",
    "activation_function": "tanh",
    "resnet_dt": False,
    "type_one_side": False,
    "use_three_body": True,
    "three_body_neuron": [2, 4, 5],
    "three_body_rcut": 3.2,
    "three_body_rcut_smth": 0.5,
    "three_body_sel": 40,
}
REPFORMER: Config = {
    "rcut": 3.2,
    "rcut_smth": 0.5,
    "nsel": 40,
    "nlayers": 3,
    "g1_dim": 10,
    "g2_dim": 6,
    "axis_neuron": 3,
    "direct_dist": False,
    "update_g1_has_conv": True,
    "update_g1_has_drrd": True,
    "update_g1_has_grrg": True,
    "update_g1_has_attn": True,
    "update_g2_has_g1g1": True,
    "update_g2_has_attn": True,
    "update_h2": False,
    "attn1_hidden": 5,
    "attn1_nhead": 2,
    "attn2_hidden": 4,
    "attn2_nhead": 3,
    "attn2_has_gate": True,
    "activation_function": "tanh",
    "update_style": "res_residual",
    "use_sqrt_nnei": True,
    "g1_out_conv": True,
    "g1_out_mlp": True,
    "ln_eps": 1e-5,
}
FITTING: Config = {
    "type": "ener",
    "neuron": [9, 9, 9],
    "activation_function": "tanh",
    "resnet_dt": True,
    "numb_fparam": 0,
    "numb_aparam": 0,
    "default_fparam": None,
    "dim_case_embd": 0,
    "use_aparam_as_mask": False,
    "atom_ener": [],
    "precision": "float64",
}


class _Draw:
    """Fills the weights dictionary with random tensors of the right names and shapes."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.weights: Weights = {}

    def normal(self, name: str, shape: tuple[int, ...], scale: float = 1.0, mean: float = 0.0) -> None:
        self.weights[name] = self.rng.normal(mean, scale, shape)

    def matrix(self, name: str, n_in: int, n_out: int, scale: float = 1.0) -> None:
        self.normal(name + ".matrix", (n_in, n_out), scale / np.sqrt(n_in))

    def linear(self, name: str, n_in: int, n_out: int) -> None:
        self.matrix(name, n_in, n_out)
        self.normal(name + ".bias", (n_out,), 0.5)

    def net(self, name: str, n_in: int, neuron: list[int], resnet_dt: bool) -> None:
        for layer, n_out in enumerate(neuron):
            self.linear(f"{name}.layers.{layer}", n_in, n_out)
            if resnet_dt and n_out in (n_in, 2 * n_in):
                self.normal(f"{name}.layers.{layer}.idt", (n_out,), 0.3, 0.6)
            n_in = n_out

    def statistics(self, name: str, ntypes: int, davg: float, vector: bool) -> None:
        mean = davg * self.rng.normal(size=(ntypes, 4))
        if not vector:
            mean[:, 1:] = 0.0
        self.weights[name + ".mean"] = mean
        self.weights[name + ".stddev"] = self.rng.uniform(0.15, 0.6, (ntypes, 4))


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

    ``descriptor``, ``repinit``, ``repformer`` and ``fitting`` override single options of the four groups; ``davg`` is
    the standard deviation of the random ``mean`` statistics (component 0 only unless ``davg_vector``).
    """
    config: Config = {
        "format_version": 1,
        "type_map": SYMBOLS[:ntypes],
        "precision": precision,
        "descriptor": {
            **DESCRIPTOR,
            "precision": precision,
            **(descriptor or {}),
            "repinit": {**REPINIT, **(repinit or {})},
            "repformer": {**REPFORMER, **(repformer or {})},
        },
        "fitting_net": {**FITTING, "precision": precision, **(fitting or {})},
        "pair_exclude_types": pair_exclude_types or [],
        "atom_exclude_types": atom_exclude_types or [],
        "min_nbor_dist": None,
        "head": None,
    }
    known = {"descriptor": {*DESCRIPTOR, "repinit", "repformer"}, "fitting_net": set(FITTING)}
    for group, keys in known.items():
        if set(config[group]) != keys:
            raise KeyError(f"unknown {group} options {sorted(set(config[group]) - keys)}")
    for group, base in (("repinit", REPINIT), ("repformer", REPFORMER)):
        if set(config["descriptor"][group]) != set(base):
            raise KeyError(f"unknown {group} options {sorted(set(config['descriptor'][group]) - set(base))}")
    draw = _Draw(rng)
    _type_embedding(draw, config)
    _repinit(draw, config, davg, davg_vector)
    draw.statistics("descriptor.repformers", ntypes, davg, davg_vector)
    draw.linear("descriptor.repformers.g2_embd", 1, config["descriptor"]["repformer"]["g2_dim"])
    nlayers = config["descriptor"]["repformer"]["nlayers"]
    for layer in range(nlayers):
        _repformer_layer(
            draw, f"descriptor.repformers.layers.{layer}", config["descriptor"]["repformer"], layer == nlayers - 1
        )
    _fitting(draw, config)
    draw.normal("out_bias", (1, ntypes, 1))
    draw.weights["out_std"] = rng.uniform(0.5, 2.0, (1, ntypes, 1))
    return config, draw.weights


def _type_embedding(draw: _Draw, config: Config) -> None:
    ntypes, desc = len(config["type_map"]), config["descriptor"]
    n_in, dim = ntypes, desc["repinit"]["tebd_dim"]
    if desc["use_econf_tebd"]:
        n_in = ECONF_COLUMNS
        signs = np.where(draw.rng.random((ntypes, ECONF_COLUMNS)) < 0.5, -1.0, 1.0)
        draw.weights["descriptor.econf_tebd"] = signs / np.sqrt(ECONF_COLUMNS)
    name = "descriptor.type_embedding.embedding.embedding_net.layers.0"
    draw.normal(name + ".matrix", (n_in, dim), 0.7)
    if desc["use_tebd_bias"]:
        draw.normal(name + ".bias", (dim,), 0.5)


def _repinit(draw: _Draw, config: Config, davg: float, davg_vector: bool) -> None:
    desc, ntypes = config["descriptor"], len(config["type_map"])
    opt = desc["repinit"]
    strip, tebd = opt["tebd_input_mode"] == "strip", opt["tebd_dim"]
    blocks = [("repinit", tebd if opt["type_one_side"] else 2 * tebd, opt["neuron"])]
    d_repinit = opt["neuron"][-1] * opt["axis_neuron"]
    if opt["use_three_body"]:
        blocks.append(("repinit_three_body", 2 * tebd, opt["three_body_neuron"]))
        d_repinit += opt["three_body_neuron"][-1]
    for block, type_dim, neuron in blocks:
        draw.statistics(f"descriptor.{block}", ntypes, davg, davg_vector)
        n_in = 1 if strip else 1 + type_dim
        draw.net(f"descriptor.{block}.filter_layers.networks.0", n_in, neuron, opt["resnet_dt"])
        if strip:
            draw.net(f"descriptor.{block}.filter_layers_strip.networks.0", type_dim, neuron, opt["resnet_dt"])
    g1_dim = desc["repformer"]["g1_dim"]
    if d_repinit != g1_dim:
        draw.matrix("descriptor.g1_shape_tranform", d_repinit, g1_dim, 3.0)
    if desc["add_tebd_to_repinit_out"]:
        draw.matrix("descriptor.tebd_transform", tebd, g1_dim)


def _repformer_layer(draw: _Draw, name: str, opt: Config, last: bool) -> None:
    n1, n2, axis = opt["g1_dim"], opt["g2_dim"], opt["axis_neuron"]
    conv, out_conv, out_mlp = opt["update_g1_has_conv"], opt["g1_out_conv"], opt["g1_out_mlp"]
    d1 = (0 if out_mlp else n1) + (n2 if conv and not out_conv else 0)
    d1 += (axis * n2 if opt["update_g1_has_grrg"] else 0) + (axis * n1 if opt["update_g1_has_drrd"] else 0)
    draw.linear(f"{name}.linear1", d1, n1)
    n_g1, n_g2, n_h2 = 1, 0, 0
    if out_mlp:
        draw.linear(f"{name}.g1_self_mlp", n1, n1)
        n_g1 += 1
    if conv:
        draw.matrix(f"{name}.proj_g1g2", *((n2, n1) if out_conv else (n1, n2)))
        n_g1 += int(out_conv)
    if opt["update_g1_has_attn"]:
        nh, nd = opt["attn1_nhead"], opt["attn1_hidden"]
        draw.matrix(f"{name}.loc_attn.mapq", n1, nd * nh)
        draw.matrix(f"{name}.loc_attn.mapkv", n1, (nd + n1) * nh)
        draw.linear(f"{name}.loc_attn.head_map", n1 * nh, n1)
        n_g1 += 1
    if not last:
        nh, nd = opt["attn2_nhead"], opt["attn2_hidden"]
        draw.linear(f"{name}.linear2", n2, n2)
        n_g2 += 1
        if opt["update_g2_has_g1g1"]:
            draw.matrix(f"{name}.proj_g1g1g2", n1, n2)
            n_g2 += 1
        if opt["update_g2_has_attn"] or opt["update_h2"]:
            draw.matrix(f"{name}.attn2g_map.mapqk", n2, 2 * nd * nh)
        if opt["update_g2_has_attn"]:
            draw.matrix(f"{name}.attn2_mh_apply.mapv", n2, n2 * nh)
            draw.linear(f"{name}.attn2_mh_apply.head_map", n2 * nh, n2)
            draw.normal(f"{name}.attn2_lm.matrix", (n2,), 0.4, 1.0)
            draw.normal(f"{name}.attn2_lm.bias", (n2,), 0.4)
            n_g2 += 1
        if opt["update_h2"]:
            draw.matrix(f"{name}.attn2_ev_apply.head_map", nh, 1)
            n_h2 += 1
    if opt["update_style"] == "res_residual":
        for kind, count, size in (("g1", n_g1, n1), ("g2", n_g2, n2), ("h2", n_h2, 1)):
            for k in range(count):
                draw.normal(f"{name}.{kind}_residual.{k}", (size,), 0.5, 0.3)


def _fitting(draw: _Draw, config: Config) -> None:
    opt, desc, rng = config["fitting_net"], config["descriptor"], draw.rng
    n_in = desc["repformer"]["g1_dim"] + (desc["repinit"]["tebd_dim"] if desc["concat_output_tebd"] else 0)
    nf, na, nc = opt["numb_fparam"], opt["numb_aparam"], opt["dim_case_embd"]
    for kind, n in (("fparam", nf), ("aparam", na)):
        if n:
            draw.normal(f"fitting_net.{kind}_avg", (n,), 0.5)
            draw.weights[f"fitting_net.{kind}_inv_std"] = rng.uniform(0.5, 2.0, n)
    if nf and opt["default_fparam"] is not None:
        draw.weights["fitting_net.default_fparam_tensor"] = np.asarray(opt["default_fparam"], dtype=np.float64)
    if nc:
        draw.weights["fitting_net.case_embd"] = np.eye(nc)[rng.integers(nc)]
    n_in += nf + (0 if opt["use_aparam_as_mask"] else na) + nc
    name = "fitting_net.filter_layers.networks.0"
    draw.net(name, n_in, opt["neuron"], opt["resnet_dt"])
    draw.linear(f"{name}.layers.{len(opt['neuron'])}", (opt["neuron"] or [n_in])[-1], 1)
    draw.normal("fitting_net.bias_atom_e", (len(config["type_map"]), 1), 2.0)


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
