"""Make `kinds/`: models of other kinds with deepmd-kit's answers, their files, and what `dp test` says of them.

Run by hand in an environment that has deepmd-kit:

    python tests/golden/generate_kinds.py            # everything, into tests/golden/kinds
    python tests/golden/generate_kinds.py OUTDIR     # into another folder

The cases are those of `kind_cases`. Weights are drawn as generate.py draws them, statistics and biases of every child
among them. The `code/` entries of TorchScript files are taken out.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import generate
import numpy as np
import torch
from datasets import TENSOR_SYSTEMS, write_tensors
from deepmd.entrypoints.convert_backend import convert_backend
from deepmd.pt.entrypoints.main import freeze
from deepmd.pt.model.model import get_model
from deepmd.pt.train.wrapper import ModelWrapper
from generate_data_errors import printed
from generate_files import without_code
from kind_cases import KIND_CASES, KINDS, KindCase, Table, blocks, networks

#: the model that `dp test` is run with for a kind, and its head; `dp test` gives tensor models no parameters
TESTED = {"dipole": ("dipole_excluded", None), "polar": ("polar", None), "dos": ("dos", None),
          "property": ("multitask", "gap")}  # fmt: skip


# ------------------------------------------------------------------------------------------------- the model


def network_input(child: dict[str, Any], number: int = 0) -> dict[str, Any]:
    """Descriptor, fitting net and type map of a network, as deepmd-kit's input has them."""
    whole = generate.deepmd_input({"pair_exclude_types": [], "atom_exclude_types": [], **child})
    if whole["fitting_net"]["type"] not in ("ener", "property"):
        whole["fitting_net"].pop("atom_ener", None)
        if not whole["fitting_net"]["use_aparam_as_mask"]:
            del whole["fitting_net"]["use_aparam_as_mask"]  # no argument of every fitting net
    whole["fitting_net"]["seed"] = 1 + number
    return {key: whole[key] for key in ("type_map", "descriptor", "fitting_net")}


def deepmd_input(case: KindCase, precision: str | None = None) -> dict[str, Any]:
    """The `model` section of a deepmd-kit input for a case, with all networks in another precision if one is given."""
    config = case.config
    for child in networks(config):
        for block in blocks(child):
            block["precision"] = precision or block["precision"]
    exclusions = {key: config[key] for key in ("pair_exclude_types", "atom_exclude_types")}
    if not case.children:
        model = network_input(config)
        for key, value in case.written.items():
            model["fitting_net"][key] = value
            if value is None:
                del model["fitting_net"][key]
        return model | exclusions
    if config["type"] == "zbl":
        keys = {key: config[key] for key in ("sw_rmin", "sw_rmax", "smin_alpha")}
        return network_input(config["models"][0]) | {"use_srtab": table_file(1)} | keys | case.written | exclusions
    models = []
    for number, (child, made) in enumerate(zip(config["models"], case.children, strict=True)):
        if "descriptor" in child:
            models.append(network_input(child, number))
        else:
            keys = {"type": "pairtab", "tab_file": table_file(number), "rcut": made.rcut, "sel": made.sel}
            models.append(keys | {"type_map": child["type_map"]})
    whole = {"type": "linear_ener", "type_map": config["type_map"], "weights": config["weights"], "models": models}
    return whole | case.written | exclusions


def table_file(number: int) -> str:
    return f"table{number}.txt"


def write_tables(case: KindCase) -> None:
    """The tables of a case as text files in the working directory, where deepmd-kit looks for them."""
    for number, child in enumerate(case.children):
        if isinstance(child.table, Table):
            np.savetxt(table_file(number), child.table.values(len(child.type_map)), fmt="%.12e")


def build(case: KindCase, shared: torch.nn.Module | None) -> torch.nn.Module:
    """deepmd-kit's model with random weights; with the descriptor of `shared` if given."""
    model = get_model(deepmd_input(case)).eval()
    atomic = model.atomic_model
    values = {}
    last = len(networks(case.config)[0]["fitting_net"]["neuron"])
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    for name, tensor in atomic.state_dict().items():
        if "._networks." in name or ".compress_" in name or tensor.numel() == 0 or "tab_" in name:
            continue
        if name.endswith(("case_embd", "default_fparam_tensor")) or not tensor.is_floating_point():
            continue
        value = generate.draw(name.split("models.", 1)[-1], tuple(tensor.shape), rng, case.davg)
        if re.search(rf"fitting_net.filter_layers.networks.0.layers.{last}.matrix", name):
            value *= 20.0 if tensor.shape[-1] == 1 else 4.0  # outputs and forces of order one
        values[name] = value.astype(np.float32).astype(np.float64)
    generate.load_values(model, values)
    if case.case_index is not None:
        atomic.fitting_net.set_case_embd(case.case_index)
    if shared is not None:
        atomic.descriptor = shared.atomic_model.descriptor
    if case.formats:
        model.min_nbor_dist = torch.tensor(0.75, dtype=torch.float64)
    return model


def canonical_weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The weights under their canonical names: no aliases, one row of statistics per type."""
    weights = {}
    for name, tensor in model.atomic_model.state_dict().items():
        if "._networks." in name or "compress_" in name or name.endswith(("type_embd_data", "tab_info")):
            continue
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        value = tensor.detach().numpy()
        if "descriptor." in name and name.endswith((".mean", ".stddev")):
            value = value[:, 0, :]
        weights[name] = value
    return weights


def check_tables(model: torch.nn.Module, config: dict[str, Any]) -> None:
    """The tables are what the canonical configuration says."""
    for number, child in enumerate(config.get("models", [])):
        if "rmin" in child:
            info = model.atomic_model.models[number].tab_info.numpy()
            stated = [child["rmin"], child["step"], child["nspline"], len(child["type_map"])]
            assert np.array_equal(info, stated), f"{info} is not {stated}"


# ------------------------------------------------------------------------------------------------- the systems


def make_systems(case: KindCase) -> dict[str, dict[str, np.ndarray]]:
    """Inputs as those of generate.py; `sparse` is an open system for the switch between network and table."""
    rng = np.random.default_rng([zlib.crc32(case.name.encode()), 1])
    config = case.config
    fitting = networks(config)[0]["fitting_net"]
    like = {"type_map": config["type_map"], "fitting_net": fitting}
    names = tuple(name for name in case.systems if name != "sparse")
    systems = generate.make_systems(SimpleNamespace(config=like, systems=names, virtual=case.virtual), rng)
    if "sparse" in case.systems:
        # a close pair, an atom in the middle of the switch, one at 4.85 from its only neighbour, and one alone
        coord = np.array([[0.0, 0.0, 0.0], [0.1, 0.6, -0.2], [1.4, -0.5, 0.3], [5.95, -2.0, 1.05], [0.0, 30.0, 0.0]])
        coord[3] = coord[2] + 4.85 * (coord[3] - coord[2]) / np.linalg.norm(coord[3] - coord[2])
        system = {"atype": np.array([0, 1, 0, 0, 0]), "coord": coord[None]}
        for key, shape in (("fparam", (1, fitting["numb_fparam"])), ("aparam", (1, 5, fitting["numb_aparam"]))):
            if shape[-1]:
                system[key] = rng.normal(size=shape)
        systems["sparse"] = system
    return systems


def distances(system: dict[str, np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of every real atom of every frame: distances to all atoms and images, itself among them, and their types."""
    real = system["atype"] >= 0
    for frame, coord in enumerate(system["coord"]):
        shifts = np.zeros((1, 3))
        if "box" in system:
            n = np.arange(-4, 5)
            x = coord @ np.linalg.inv(system["box"][frame])
            coord = (x - np.floor(x)) @ system["box"][frame]
            shifts = np.stack(np.meshgrid(n, n, n), -1).reshape(-1, 3) @ system["box"][frame]
        types = np.repeat(system["atype"][real], len(shifts))
        for center in coord[real]:
            yield np.linalg.norm(coord[real][:, None] + shifts - center, axis=-1).ravel(), types


def check_neighbours(case: KindCase, systems: dict[str, dict[str, np.ndarray]]) -> None:
    """Lists are cut exactly where the case says so, and never between neighbours at the same distance."""
    lists = []
    for child in case.config.get("models", [case.config]):
        if "descriptor" not in child:
            lists.append((child["rcut"], child["sel"]))
            continue
        for block, rcut, nsel, _ in generate.BLOCKS:
            options = child["descriptor"][block]
            if "three" not in rcut or options["use_three_body"]:
                lists.append((options[rcut], options[nsel]))
    binds = False
    for system in systems.values():
        for r, _ in distances(system):
            r = np.sort(r[r > 1e-9])
            for rcut, nsel in lists:
                if (r < rcut).sum() > nsel:
                    binds = True
                    assert r[nsel] - r[nsel - 1] > 1e-6, f"{case.name}: a tie at the end of the list"
    assert binds == case.binding, f"{case.name}: a list {'is' if binds else 'is not'} cut"


# ------------------------------------------------------------------------------------------------- the answers


def evaluate(model: torch.nn.Module, case: KindCase, system: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What deepmd-kit computes: its outputs, and descriptor and rotation matrix of the first network."""
    caught: list[Any] = []
    children = getattr(model.atomic_model, "models", [model.atomic_model])
    first = next(child for child in children if hasattr(child, "descriptor"))
    hook = first.descriptor.register_forward_hook(lambda _m, _i, out: caught.append(out))
    nframes, natoms = system["coord"].shape[:2]

    def tensor(key: str) -> torch.Tensor | None:
        return torch.tensor(system[key]) if key in system else None

    coord = torch.tensor(system["coord"].reshape(nframes, -1), requires_grad=True)
    atype = torch.tensor(np.tile(system["atype"], (nframes, 1)))
    box = torch.tensor(system["box"].reshape(nframes, 9)) if "box" in system else None
    out = model(coord, atype, box, fparam=tensor("fparam"), aparam=tensor("aparam"), do_atomic_virial=True)
    hook.remove()
    answers = {name: out[name] for name in (*case.answers, "mask")}
    answers["descriptor"] = caught[-1][0].reshape(nframes, natoms, -1)
    answers["rot_mat"] = caught[-1][1].reshape(nframes, natoms, -1, 3)
    mask = answers.pop("mask").detach().numpy().astype(np.int32).reshape(nframes, natoms)
    result = {key: value.detach().to(torch.float64).numpy() for key, value in answers.items()}
    assert all(np.isfinite(value).all() for value in result.values())
    return result | {"mask": mask}


def float32_errors(
    case: KindCase,
    weights: dict[str, np.ndarray],
    systems: dict[str, dict[str, np.ndarray]],
    answers: dict[str, dict[str, np.ndarray]],
) -> dict[str, tuple[float, float]]:
    """(largest, root mean square) error of deepmd-kit in float32 with the same weights, over all systems."""
    model = get_model(deepmd_input(case, "float32")).eval()
    state, values = model.atomic_model.state_dict(), {}
    for name, value in weights.items():
        full = tuple(state[name].shape)
        values[name] = np.broadcast_to(value[:, None, :], full) if value.shape != full else value
    generate.load_values(model, values)
    differences: dict[str, list[np.ndarray]] = {}
    for name, system in systems.items():
        for key, value in evaluate(model, case, system).items():
            differences.setdefault(key, []).append((value - answers[name][key]).ravel())
    del differences["mask"]
    joined = {key: np.concatenate(parts) for key, parts in differences.items()}
    return {key: (float(np.abs(d).max()), float(np.sqrt(np.mean(d * d)))) for key, d in joined.items()}


def largest(answers: dict[str, dict[str, np.ndarray]]) -> str:
    """The largest magnitudes of the answers, to look at."""
    names = [name for name in next(iter(answers.values())) if name not in ("descriptor", "mask")]
    return " ".join(f"{name} {max(np.abs(system[name]).max() for system in answers.values()):.2g}" for name in names)


# ------------------------------------------------------------------------------------------------- files


def write_files(heads: list[tuple[KindCase, torch.nn.Module]], folder: Path) -> None:
    """A checkpoint, frozen and converted, of several heads with all of them; in the directory where the tables are."""
    first, model = heads[0]
    folder.mkdir(parents=True, exist_ok=True)
    if len(heads) == 1:
        wrapper = ModelWrapper(model, model_params=deepmd_input(first))
    else:
        names = {case.name.partition("_")[2]: (case, each) for case, each in heads}
        params = {"model_dict": {name: deepmd_input(case) for name, (case, _) in names.items()}}
        wrapper = ModelWrapper({name: each for name, (_, each) in names.items()}, model_params=params)
    torch.save({"model": wrapper.state_dict()}, "model.pt")
    if len(heads) == 1:
        freeze(model="model.pt", output="model.pth")
        for suffix in {"dp", "yaml"} & set(first.formats):
            convert_backend(INPUT="model.pt", OUTPUT=f"model.{suffix}")
    else:
        for name in names:
            freeze(model="model.pt", output=f"{name}.pth", head=name)
    for path in Path().glob("*.pth"):
        without_code(path)
    for path in Path().glob("*.*"):
        if path.suffix[1:] in first.formats:
            shutil.copy(path, folder)


@contextmanager
def working_directory(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def generate_case(case: KindCase, out: Path, shared: torch.nn.Module | None) -> torch.nn.Module:
    """The golden file of a case, with the working directory where its tables are."""
    write_tables(case)
    model = build(case, shared)
    config = case.config
    check_tables(model, config)
    systems = make_systems(case)
    check_neighbours(case, systems)
    weights = canonical_weights(model)
    answers = {name: evaluate(model, case, system) for name, system in systems.items()}
    errors = float32_errors(case, weights, systems, answers)
    path = out / f"{case.name}.npz"
    np.savez_compressed(path, **generate.content(config, weights, systems, answers, errors))
    print(f"{case.name:20s} {path.stat().st_size / 1024:6.1f} kB  {largest(answers)}", flush=True)
    return model


def generate_models(out: Path) -> None:
    """All golden files, and the model files below `files`."""
    groups: dict[str, list[KindCase]] = {}
    for case in KIND_CASES:
        groups.setdefault(case.folder or case.name, []).append(case)
    for name, cases in groups.items():
        with tempfile.TemporaryDirectory() as work, working_directory(Path(work)):
            made: list[tuple[KindCase, torch.nn.Module]] = []
            for case in cases:
                made.append((case, generate_case(case, out, made[0][1] if made else None)))
            if cases[0].formats:
                write_files(made, out / "files" / name)


def generate_tests(out: Path) -> None:
    """What `dp test` prints and writes, with and without `-a`."""
    folder = out / "dp_test"
    folder.mkdir()
    with tempfile.TemporaryDirectory() as work, working_directory(Path(work)):
        write_tensors(Path())
        Path("systems.txt").write_text("".join(f"{name}\n" for name in TENSOR_SYSTEMS))
        for kind, (name, head) in TESTED.items():
            model = str(out / "files" / name / "model.pt")
            for suffix, atomic in (("", False), ("_atomic", True)):
                detail = f"{kind}{suffix}"
                options = {"model": model, "head": head, "datafile": "systems.txt"}
                printed(detail, folder, detail_file=detail, atomic=atomic, **options)
        for path in Path().glob("*.out*"):
            shutil.copy(path, folder)


def main() -> None:
    torch.set_num_threads(1)
    out = Path(sys.argv[1] if len(sys.argv) > 1 else KINDS).resolve()
    for made in ("files", "dp_test"):
        shutil.rmtree(out / made, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    generate_models(out)
    generate_tests(out)
    for path in sorted((out / "files").rglob("*.*")):
        print(f"{path.stat().st_size / 1024:8.1f} kB  {path.relative_to(out)}")


if __name__ == "__main__":
    main()
