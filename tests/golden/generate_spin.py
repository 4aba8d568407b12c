"""Make `spin/`: spin models with deepmd-kit's answers, and their files.

Run by hand in an environment that has deepmd-kit:

    python tests/golden/generate_spin.py            # into tests/golden/spin
    python tests/golden/generate_spin.py OUTDIR     # into another folder

The cases are those of `spin_cases`. Weights are drawn as generate.py draws them. The first atom but one of every system
has no spin. The `code/` entries of TorchScript files are taken out.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import generate
import numpy as np
import torch
from deepmd.entrypoints.convert_backend import convert_backend
from deepmd.pt.entrypoints.main import freeze
from deepmd.pt.model.model import get_model
from deepmd.pt.train.wrapper import ModelWrapper
from generate_files import without_code
from generate_kinds import network_input, working_directory
from spin_cases import ANSWERS, SPIN_CASES, SPINS, SpinCase, expanded


def deepmd_input(case: SpinCase, precision: str = "float64") -> dict[str, Any]:
    """The `model` section of a deepmd-kit input for a case."""
    config = case.plain
    for block in ("descriptor", "fitting_net"):
        config[block]["precision"] = precision
    exclusions = {key: config[key] for key in ("pair_exclude_types", "atom_exclude_types")}
    return network_input(config) | exclusions | {"spin": dict(case.section)}


def build(case: SpinCase) -> torch.nn.Module:
    """deepmd-kit's model with random weights."""
    model = get_model(deepmd_input(case)).eval()
    backbone = model.backbone_model
    values = {}
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    for name, tensor in backbone.atomic_model.state_dict().items():
        if "._networks." in name or ".compress_" in name or tensor.numel() == 0:
            continue
        if name.endswith("default_fparam_tensor") or not tensor.is_floating_point():
            continue
        value = generate.draw(name, tuple(tensor.shape), rng, case.davg)
        if name.startswith("fitting_net.filter_layers") and tensor.shape[-1:] == (1,) and value.ndim == 2:
            value = 4.0 * value  # forces of order one
        values[name] = value.astype(np.float32).astype(np.float64)
    generate.load_values(backbone, values)
    if case.formats:
        backbone.min_nbor_dist = torch.tensor(0.75, dtype=torch.float64)
    return model


def make_systems(case: SpinCase) -> dict[str, dict[str, np.ndarray]]:
    """Inputs as those of generate.py, with spins."""
    rng = np.random.default_rng([zlib.crc32(case.name.encode()), 1])
    plain = case.plain
    systems = generate.make_systems(SimpleNamespace(config=plain, systems=case.systems, virtual=case.virtual), rng)
    for system in systems.values():
        system["spin"] = rng.normal(size=system["coord"].shape)
        system["spin"][:, 1] = 0.0
    return systems


def check_neighbours(case: SpinCase, systems: dict[str, dict[str, np.ndarray]]) -> None:
    """No list is cut: an atom without a spin and its virtual atom are at the same distance from everybody."""
    config = case.config
    whole = {}
    for name, system in systems.items():
        rows = [
            expanded(x, system["atype"], s, case.scales, len(config["type_map"]))
            for x, s in zip(system["coord"], system["spin"], strict=True)
        ]
        whole[name] = {**system, "coord": np.array([x for x, _ in rows]), "atype": rows[0][1]}
    generate.check_neighbours(SimpleNamespace(config=config["models"][0], name=case.name, binding=False), whole)


def evaluate(model: torch.nn.Module, system: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What deepmd-kit computes: its outputs, and descriptor and rotation matrix of the atoms."""
    caught: list[Any] = []
    descriptor = model.backbone_model.atomic_model.descriptor
    hook = descriptor.register_forward_hook(lambda _m, _i, out: caught.append(out))
    nframes, natoms = system["coord"].shape[:2]

    def tensor(key: str) -> torch.Tensor | None:
        return torch.tensor(system[key]) if key in system else None

    coord = torch.tensor(system["coord"].reshape(nframes, -1), requires_grad=True)
    atype = torch.tensor(np.tile(system["atype"], (nframes, 1)))
    box = torch.tensor(system["box"].reshape(nframes, 9)) if "box" in system else None
    spin = torch.tensor(system["spin"], requires_grad=True)
    parameters = {"fparam": tensor("fparam"), "aparam": tensor("aparam")}
    out = model(coord, atype, spin, box, **parameters, do_atomic_virial=True)
    hook.remove()
    answers = {name: out[name] for name in (*ANSWERS, "mask") if name in out}
    # with atomic virials deepmd-kit's mask is another: that of the types with spins, whatever their scales
    answers["mask_mag"] = model(coord, atype, spin, box, **parameters)["mask_mag"]
    answers["descriptor"] = caught[-1][0].reshape(nframes, 2 * natoms, -1)[:, :natoms]
    answers["rot_mat"] = caught[-1][1].reshape(nframes, 2 * natoms, -1, 3)[:, :natoms]
    result = {key: value.detach().numpy() for key, value in answers.items()}
    for key, value in result.items():
        if value.dtype == np.float32:
            result[key] = value.astype(np.float64)
        assert np.isfinite(result[key]).all()
    return result


def canonical_weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The weights under their canonical names."""
    own = generate.canonical_weights(model.backbone_model)
    return {f"models.0.{name}": value for name, value in own.items()}


def float32_errors(
    case: SpinCase,
    weights: dict[str, np.ndarray],
    systems: dict[str, dict[str, np.ndarray]],
    answers: dict[str, dict[str, np.ndarray]],
) -> dict[str, tuple[float, float]]:
    """(largest, root mean square) error of deepmd-kit in float32 with the same weights, over all systems."""
    model = get_model(deepmd_input(case, "float32")).eval()
    own = {name.removeprefix("models.0."): value for name, value in weights.items()}
    generate.load_values(model.backbone_model, generate.expand(model.backbone_model, own))
    differences: dict[str, list[np.ndarray]] = {}
    for name, system in systems.items():
        for key, value in evaluate(model, system).items():
            if value.dtype == np.float64:
                differences.setdefault(key, []).append((value - answers[name][key]).ravel())
    joined = {key: np.concatenate(parts) for key, parts in differences.items()}
    return {key: (float(np.abs(d).max()), float(np.sqrt(np.mean(d * d)))) for key, d in joined.items()}


def write_files(case: SpinCase, model: torch.nn.Module, folder: Path) -> None:
    """A checkpoint, frozen and converted; and one of several tasks, this model the second of them."""
    folder.mkdir(parents=True, exist_ok=True)
    params = deepmd_input(case)
    torch.save({"model": ModelWrapper(model, model_params=params).state_dict()}, "model.pt")
    freeze(model="model.pt", output="model.pth")
    for suffix in {"dp", "yaml"} & set(case.formats):
        convert_backend(INPUT="model.pt", OUTPUT=f"model.{suffix}")
    without_code(Path("model.pth"))
    for suffix in case.formats:
        shutil.copy(f"model.{suffix}", folder)
    if "yaml" in case.formats:  # one case is enough
        plain = {key: value for key, value in params.items() if key != "spin"}
        torch.manual_seed(0)
        heads = {"plain": get_model(plain).eval(), "mag": model}
        wrapper = ModelWrapper(heads, model_params={"model_dict": {"plain": plain, "mag": params}})
        torch.save({"model": wrapper.state_dict()}, folder / "heads.pt")


def main() -> None:
    torch.set_num_threads(1)
    out = Path(sys.argv[1] if len(sys.argv) > 1 else SPINS).resolve()
    shutil.rmtree(out / "files", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    for case in SPIN_CASES:
        torch.manual_seed(0)
        model = build(case)
        systems = make_systems(case)
        check_neighbours(case, systems)
        weights = canonical_weights(model)
        answers = {name: evaluate(model, system) for name, system in systems.items()}
        errors = float32_errors(case, weights, systems, answers)
        path = out / f"{case.name}.npz"
        np.savez_compressed(path, **generate.content(case.config, weights, systems, answers, errors))
        sizes = {
            key: max(float(np.abs(a[key]).max()) for a in answers.values()) for key in ("energy", "force", "force_mag")
        }
        print(f"{case.name:16} {path.stat().st_size / 1024:6.1f} kB  {sizes}", flush=True)
        if case.formats:
            with tempfile.TemporaryDirectory() as work, working_directory(Path(work)):
                write_files(case, model, out / "files" / case.name)
    for path in sorted((out / "files").rglob("*.*")):
        print(f"{path.stat().st_size / 1024:8.1f} kB  {path.relative_to(out)}")


if __name__ == "__main__":
    main()
