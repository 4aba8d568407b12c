"""Make the golden files: random-weight DPA-2 models evaluated with deepmd-kit 3.2.0 (PyTorch backend, CPU, float64).

Run by hand in an environment that has deepmd-kit:

    python tests/golden/generate.py            # every case of tests/cases.py
    python tests/golden/generate.py base davg  # these only

Each `<case>.npz` holds the canonical configuration and weights, the inputs, and deepmd-kit's answers, so that reading
it needs NumPy alone. The layout is that of `cases.load_golden`.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepmd.pt.model.model import get_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cases import ModelCase, golden_cases

BLOCKS = (
    ("repinit", "rcut", "nsel", "repinit"),
    ("repinit", "three_body_rcut", "three_body_sel", "repinit_three_body"),
    ("repformer", "rcut", "nsel", "repformers"),
)


# ------------------------------------------------------------------------------------------------- the model


def deepmd_input(config: dict[str, Any]) -> dict[str, Any]:
    """The `model` section of a deepmd-kit input with exactly the options of a canonical configuration."""
    descriptor = copy.deepcopy(config["descriptor"])
    descriptor["seed"] = 1
    fitting = copy.deepcopy(config["fitting_net"])
    fitting["seed"] = 1
    if not fitting["atom_ener"]:
        del fitting["atom_ener"]
    return {
        "type_map": config["type_map"],
        "descriptor": descriptor,
        "fitting_net": fitting,
        "pair_exclude_types": config["pair_exclude_types"],
        "atom_exclude_types": config["atom_exclude_types"],
    }


def draw(name: str, shape: tuple[int, ...], rng: np.random.Generator, davg: float) -> np.ndarray:
    """Random values of order one for the parameter called `name`."""
    leaf = name.rpartition(".")[2]
    if leaf == "mean":
        row = rng.normal(0.0, 1.0, (shape[0], 1, 4)) * davg
        return np.broadcast_to(row, shape)
    if leaf == "stddev":  # four different components
        return np.broadcast_to(rng.uniform(0.3, 1.2, (shape[0], 1, 4)), shape)
    if "_residual." in name:
        return rng.normal(0.3, 0.5, shape)
    if name.endswith("attn2_lm.matrix") or leaf == "idt":
        return rng.normal(1.0, 0.3, shape)
    if leaf.endswith("inv_std") or leaf == "out_std":
        return rng.uniform(0.5, 2.0, shape)
    if leaf == "bias_atom_e":
        return rng.normal(0.0, 2.0, shape)
    if leaf == "matrix":
        return rng.normal(0.0, 1.0, shape) / math.sqrt(shape[0])
    return rng.normal(0.0, 0.3, shape)  # biases, fparam_avg, aparam_avg, out_bias


def build(case: ModelCase, rng: np.random.Generator) -> torch.nn.Module:
    """deepmd-kit's model of a case, all parameters and buffers drawn at random."""
    model = get_model(deepmd_input(case.config)).eval()
    atomic = model.atomic_model
    values: dict[str, np.ndarray] = {}
    for name, tensor in atomic.state_dict().items():
        if "._networks." in name or ".compress_" in name or tensor.numel() == 0:
            continue
        if name.endswith(("case_embd", "default_fparam_tensor")):
            continue
        value = draw(name, tuple(tensor.shape), rng, case.davg)
        if name.startswith("fitting_net.filter_layers") and tensor.shape[-1:] == (1,) and value.ndim == 2:
            value = 4.0 * value  # forces of order one
        if not case.weights64:
            value = value.astype(np.float32).astype(np.float64)
        values[name] = value
    load_values(model, values)
    if case.case_index is not None:
        atomic.fitting_net.set_case_embd(case.case_index)
    return model


def load_values(model: torch.nn.Module, values: dict[str, np.ndarray]) -> None:
    """Overwrite the named entries of the state dict, aliases included."""
    state = model.atomic_model.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            for key in {name, name.replace(".networks.", "._networks.")} & state.keys():
                state[key].copy_(torch.tensor(np.ascontiguousarray(value)))


def canonical_weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The weights under their canonical names: no aliases, one row of statistics per type."""
    weights: dict[str, np.ndarray] = {}
    for name, tensor in model.atomic_model.state_dict().items():
        if "._networks." in name or "compress_" in name or name.endswith("type_embd_data"):
            continue
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        value = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        if name.startswith("descriptor.") and name.endswith((".mean", ".stddev")):
            value = value[:, 0, :]
        weights[name] = value
    embedding = model.atomic_model.descriptor.type_embedding.embedding
    if embedding.econf_tebd is not None:
        weights["descriptor.econf_tebd"] = embedding.econf_tebd.detach().numpy()
    return weights


# ------------------------------------------------------------------------------------------------- the systems


def packed(rng: np.random.Generator, box: np.ndarray, natoms: int, images: bool, spacing: float) -> np.ndarray:
    """Random positions in a cell, no two closer than `spacing` (with images if asked)."""
    shifts = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]) @ box
    if not images:
        shifts = np.zeros((1, 3))
    points: list[np.ndarray] = []
    while len(points) < natoms:
        point = rng.random(3) @ box
        if all(np.linalg.norm(point - other + shifts, axis=1).min() > spacing for other in points):
            points.append(point)
    return np.array(points)


def make_systems(case: ModelCase, rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    """Inputs: two periodic frames, one open frame, and a cell smaller than the cutoff."""
    orthorhombic = np.diag([5.6, 5.9, 6.4])
    triclinic = np.array([[6.1, 0.0, 0.0], [1.3, 5.7, 0.0], [-0.9, 1.1, 6.0]])
    # rotated away from the axes, so that no element of the cell matrix is zero
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    triclinic = triclinic @ (turn * np.sign(np.linalg.det(turn)))
    tiny = np.array([[3.1, 0.2, -0.3], [0.6, 2.9, 0.1], [-0.4, 0.7, 3.3]])
    layout = {
        "bulk": (14, [orthorhombic, triclinic], True, 1.15),
        "open": (9, [np.diag([4.2, 4.0, 3.8])], False, 1.15),
        "tiny": (3, [tiny], True, 1.1),
    }
    ntypes = len(case.config["type_map"])
    fitting = case.config["fitting_net"]
    systems = {}
    for name in case.systems:
        natoms, boxes, periodic, spacing = layout[name]
        atype = np.concatenate([np.arange(natoms) % ntypes])
        rng.shuffle(atype)
        if case.virtual:
            atype[[0, natoms // 2]] = -1
        coord = np.array([packed(rng, box, natoms, periodic, spacing) for box in boxes])
        system: dict[str, np.ndarray] = {"atype": atype}
        if periodic:
            box = np.array(boxes)
            # some atoms outside the cell, by up to two cell vectors
            shift = rng.integers(-2, 3, coord.shape) * (rng.random((len(boxes), natoms, 1)) < 0.4)
            coord = coord + shift @ box
            system["box"] = box
        system["coord"] = coord
        if fitting["numb_fparam"] and fitting["default_fparam"] is None:
            system["fparam"] = rng.normal(size=(len(boxes), fitting["numb_fparam"]))
        if fitting["numb_aparam"]:
            system["aparam"] = rng.normal(size=(len(boxes), natoms, fitting["numb_aparam"]))
            if fitting["use_aparam_as_mask"]:
                system["aparam"] = np.ones_like(system["aparam"])
        systems[name] = system
    return systems


def check_neighbours(case: ModelCase, systems: dict[str, dict[str, np.ndarray]]) -> None:
    """nsel must bind exactly where the case says so, and never between neighbours at the same distance."""
    binds = False
    descriptor = case.config["descriptor"]
    for system in systems.values():
        real = system["atype"] >= 0
        for frame, coord in enumerate(system["coord"]):
            shifts = np.zeros((1, 3))
            if "box" in system:
                n = np.arange(-4, 5)
                x = coord @ np.linalg.inv(system["box"][frame])
                coord = (x - np.floor(x)) @ system["box"][frame]
                shifts = np.stack(np.meshgrid(n, n, n), -1).reshape(-1, 3) @ system["box"][frame]
            for center in coord[real]:
                r = np.linalg.norm(coord[real][:, None] + shifts - center, axis=-1).ravel()
                r = np.sort(r[(r > 1e-9) & (r < descriptor["repinit"]["rcut"])])
                for block, rcut, nsel, _ in BLOCKS:
                    if "three" in rcut and not descriptor["repinit"]["use_three_body"]:
                        continue
                    inside = r[r < descriptor[block][rcut]]
                    sel = descriptor[block][nsel]
                    if len(inside) > sel:
                        binds = True
                        assert inside[sel] - inside[sel - 1] > 1e-6, f"{case.name}: a tie at the end of the list"
    assert binds == case.binding, f"{case.name}: nsel {'binds' if binds else 'does not bind'}"


# ------------------------------------------------------------------------------------------------- the answers


def evaluate(model: torch.nn.Module, system: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """deepmd-kit's energy, derivatives, descriptor and rotation matrix of every frame."""
    caught: list[Any] = []
    hook = model.atomic_model.descriptor.register_forward_hook(lambda _m, _i, out: caught.append(out))
    nframes, natoms = system["coord"].shape[:2]

    def tensor(key: str) -> torch.Tensor | None:
        return torch.tensor(system[key]) if key in system else None

    coord = torch.tensor(system["coord"].reshape(nframes, -1), requires_grad=True)
    atype = torch.tensor(np.tile(system["atype"], (nframes, 1)))
    box = torch.tensor(system["box"].reshape(nframes, 9)) if "box" in system else None
    out = model(coord, atype, box, fparam=tensor("fparam"), aparam=tensor("aparam"), do_atomic_virial=True)
    hook.remove()
    descriptor, rot_mat = caught[-1][:2]
    answers = {
        "energy": out["energy"].reshape(nframes),
        "atom_energy": out["atom_energy"].reshape(nframes, natoms),
        "force": out["force"].reshape(nframes, natoms, 3),
        "virial": out["virial"].reshape(nframes, 3, 3),
        "atom_virial": out["atom_virial"].reshape(nframes, natoms, 3, 3),
        "descriptor": descriptor.reshape(nframes, natoms, -1),
        "rot_mat": rot_mat.reshape(nframes, natoms, -1, 3),
    }
    result = {key: value.detach().to(torch.float64).numpy() for key, value in answers.items()}
    assert all(np.isfinite(value).all() for value in result.values())
    return result


def float32_errors(
    case: ModelCase, weights: dict[str, np.ndarray], systems: dict[str, dict[str, np.ndarray]], answers: dict[str, Any]
) -> dict[str, tuple[float, float]]:
    """(largest, root mean square) error of deepmd-kit in float32 with the same weights, over all systems."""
    config = case.config
    config["descriptor"]["precision"] = config["fitting_net"]["precision"] = "float32"
    model = get_model(deepmd_input(config)).eval()
    load_values(model, expand(model, weights))
    differences: dict[str, list[np.ndarray]] = {}
    for name, system in systems.items():
        for key, value in evaluate(model, system).items():
            differences.setdefault(key, []).append((value - answers[name][key]).ravel())
    joined = {key: np.concatenate(parts) for key, parts in differences.items()}
    return {key: (float(np.abs(d).max()), float(np.sqrt(np.mean(d * d)))) for key, d in joined.items()}


def expand(model: torch.nn.Module, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Canonical weights with the statistics repeated along the slot axis, as the state dict has them."""
    state = model.atomic_model.state_dict()
    values = {}
    for name, value in weights.items():
        if name in state:
            full = tuple(state[name].shape)
            values[name] = np.broadcast_to(value[:, None, :], full) if value.shape != full else value
    return values


def generate(case: ModelCase) -> dict[str, Any]:
    """Everything of one golden file."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    torch.manual_seed(0)
    model = build(case, rng)
    systems = make_systems(case, rng)
    check_neighbours(case, systems)
    weights = canonical_weights(model)
    answers = {name: evaluate(model, system) for name, system in systems.items()}
    errors = float32_errors(case, weights, systems, answers) if case.float32 else {}
    return content(case.config, weights, systems, answers, errors)


def content(
    config: dict[str, Any],
    weights: dict[str, np.ndarray],
    systems: dict[str, dict[str, np.ndarray]],
    answers: dict[str, dict[str, np.ndarray]],
    errors: dict[str, tuple[float, float]],
) -> dict[str, Any]:
    """The arrays of a golden file by name."""
    entries: dict[str, Any] = {
        "config": json.dumps(config),
        "systems": json.dumps(list(systems)),
        "float32_error": json.dumps(errors),
        "made_with": "deepmd-kit 3.2.0",
    }
    # one flat array and an index: a zip entry per weight would double the size of the file
    flat = np.concatenate([value.ravel().astype(np.float64) for value in weights.values()])
    small = flat.astype(np.float32)
    entries["weights"] = small if np.array_equal(small, flat) else flat
    entries["weight_shapes"] = json.dumps({name: value.shape for name, value in weights.items()})
    for name, system in systems.items():
        for key, value in {**system, **answers[name]}.items():
            entries[f"{name}/{key}"] = value
    return entries


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:]
    for case in golden_cases():
        if names and case.name not in names:
            continue
        entries = generate(case)
        np.savez_compressed(case.golden, **entries)
        force = max(np.abs(entries[f"{name}/force"]).max() for name in case.systems)
        energy = max(np.abs(entries[f"{name}/energy"]).max() for name in case.systems)
        print(f"{case.name:24s} {case.golden.stat().st_size / 1024:6.1f} kB  |E| {energy:8.2f} eV  |F| {force:8.3f}")


if __name__ == "__main__":
    main()
