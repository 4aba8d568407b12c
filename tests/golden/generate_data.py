"""Make `training/data.json`: orders of training data, batches and statistics, as deepmd-kit has them.

`training/frames.lmdb`, an LMDB data set that deepmd-kit reads, and `training/statistics.hdf5`, a file of statistics
that it writes, are made as well.

Run by hand in an environment that has deepmd-kit:

    python tests/golden/generate_data.py            # into tests/golden/training
    python tests/golden/generate_data.py OUTDIR     # into another folder

Orders come from deepmd-kit's loaders, each in a process of its own, whose variable NUM_WORKERS says how many processes
load data; no weights are drawn between the loaders and the batches.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import data_cases as cases
import numpy as np


def loader(section: dict[str, Any], seed: int | None, labels: list[tuple[str, int, bool]]) -> Any:
    """deepmd-kit's loaders of the systems of a section."""
    from deepmd.pt.utils.dataloader import DpLoaderSet
    from deepmd.utils.data import DataRequirementItem

    found = DpLoaderSet(
        section["systems"], section.get("batch_size", 1), cases.TYPE_MAP, None if seed is None else [0, seed % 2**32]
    )
    items = [DataRequirementItem(name, width, atomic=of_atoms, must=False) for name, width, of_atoms in labels]
    found.add_data_requirement(items)
    return found


def batches(data: Any, section: dict[str, Any]) -> Any:
    """The endless batches of a section, as deepmd-kit's trainer takes them."""
    import torch
    from deepmd.pt.utils.dataloader import get_sampler_from_params
    from deepmd.pt.utils.env import NUM_WORKERS

    filled = {"auto_prob": "prob_sys_size", "sys_probs": None} | section
    sampler = get_sampler_from_params(data, filled)
    found = torch.utils.data.DataLoader(
        data, sampler=sampler, batch_size=None, num_workers=NUM_WORKERS, collate_fn=lambda batch: batch
    )
    while True:
        yield from iter(found)


def order(case: dict[str, Any]) -> list[list[Any]]:
    """What an order is: system and frames of the batches that are asked for."""
    from deepmd.pt.utils.stat import make_stat_input

    training = loader(case["training"], case["seed"], [])
    validation = case["validation"] and loader(case["validation"], case["seed"], [])
    make_stat_input(training.systems, training.dataloaders, case["sample"])
    streams = {"t": batches(training, case["training"])}
    if validation:
        streams["v"] = batches(validation, case["validation"])
    asked = ((which, next(streams[which])) for which in case["asked"])
    return [[which, int(batch["sid"]), [int(frame) for frame in batch["fid"]]] for which, batch in asked]


def model_section(section: dict[str, Any]) -> dict[str, Any]:
    """A model section with deepmd-kit's defaults."""
    from deepmd.utils.argcheck import model_args

    argument = model_args()
    normal: dict[str, Any] = argument.normalize_value(section)
    argument.check_value(normal, strict=True)
    return normal


def statistics(case: dict[str, Any]) -> dict[str, Any]:
    """All statistics of all frames."""
    from deepmd.pt.model.model import get_model
    from deepmd.pt.train.training import get_additional_data_requirement
    from deepmd.pt.utils.stat import make_stat_input
    from deepmd.utils.data import DataRequirementItem
    from deepmd.utils.stat_file import StatFileSpec, open_stat_file

    section = model_section(case["model"])
    closest = case.get("min_pair_dist", 0.0)
    data = loader({"systems": case["systems"]}, 1, cases.LABELS[section["fitting_net"]["type"]])
    model = get_model(json.loads(json.dumps(section)))
    items = get_additional_data_requirement(model)
    if closest:
        items.append(DataRequirementItem("min_pair_dist", ndof=1, default=closest, source_policy="derived"))
    data.add_data_requirement(items)
    sampled = make_stat_input(data.systems, data.dataloaders, 10**6, closest)
    with open_stat_file(StatFileSpec(case.get("stat_file"))) as path:
        model.atomic_model.compute_or_load_stat(lambda: sampled, path)
    state = model.atomic_model.state_dict()
    found = {}
    for name, value in state.items():
        if name.endswith((".mean", ".stddev")):
            found[name] = value[:, 0].numpy().tolist()
        elif name.startswith("out_") or name.endswith(("param_avg", "param_inv_std")):
            found[name] = value.numpy().tolist()
    return {"section": section, "weights": found, "observed_type": model.atomic_model.observed_type}


def neighbors() -> dict[str, Any]:
    """Sel and the smallest distance."""
    from deepmd.pt.model.model.model import BaseModel
    from deepmd.utils.data_system import get_data

    section = model_section(cases.STATISTICS["standard"]["model"])
    repinit = section["descriptor"]["repinit"]
    repinit["nsel"], repinit["three_body_sel"] = "auto", "auto:1.9"
    section["descriptor"]["repformer"]["nsel"] = "auto:0.5"
    given = json.loads(json.dumps(section))
    data = get_data({"systems": cases.NEIGHBORS, "batch_size": 1}, 0, cases.TYPE_MAP, None)
    changed, closest = BaseModel.update_sel(data, cases.TYPE_MAP, section)
    return {"section": given, "descriptor": changed["descriptor"], "min_nbor_dist": float(closest)}


def probability(case: dict[str, Any]) -> dict[str, Any]:
    """Probabilities of systems, and batches of an epoch."""
    from types import SimpleNamespace

    from deepmd.dpmodel.utils.training_utils import compute_total_numb_batch
    from deepmd.pt.utils.dataloader import get_sampler_from_params

    lengths = case["lengths"]

    class Data(SimpleNamespace):
        def __len__(self) -> int:
            return len(lengths)

    data = Data(index=lengths, total_batch=sum(lengths))
    given = {"auto_prob": "prob_sys_size", "sys_probs": None} | {k: v for k, v in case.items() if k != "lengths"}
    weights = get_sampler_from_params(data, given).weights.numpy()
    return {"probabilities": weights.tolist(), "epoch": int(compute_total_numb_batch(lengths, weights))}


def sizes(rule: Any) -> dict[str, Any]:
    """Batch sizes of systems of different numbers of atoms, and which systems are left."""
    try:
        data = loader({"systems": ["mixed", "long", "standard"], "batch_size": rule}, None, [])
    except ValueError as error:
        return {"error": str(error)}
    return {"systems": [system.system for system in data.systems], "sizes": [int(size) for size in data.batch_sizes]}


def one_batch(system: str) -> dict[str, Any]:
    """All frames of a system in one batch, in the order of their numbers."""
    import torch

    labels = [*cases.LABELS["ener"], ("atom_ener", 1, True)]
    data = loader({"systems": [system], "batch_size": 100}, 3, labels)
    batch = data[0]
    rows = np.argsort(batch["fid"])
    found: dict[str, Any] = {}
    for name in ("coord", "atype", "box", *(name for name, _, _ in labels)):
        value = batch[name]
        found[name] = value.numpy()[rows].tolist() if isinstance(value, torch.Tensor) else None
        if f"find_{name}" in batch:
            found[f"find_{name}"] = float(batch[f"find_{name}"])
    return found


def write_lmdb(path: Path) -> None:
    """The LMDB data set; arrays are packed as deepmd-kit unpacks them."""
    import lmdb
    import msgpack

    def packed(array: Any) -> dict[str, Any]:
        array = np.asarray(array)
        return {"nd": None, "type": array.dtype.str, "shape": list(array.shape), "data": array.tobytes()}

    frames = cases.lmdb_frames()
    contents = {
        "nframes": len(frames), "frame_idx_fmt": "06d", "type_map": ["H", "O"],
        "frame_nlocs": [len(frame["atom_types"]) for frame in frames],
        "frame_system_ids": [frame["system"] for frame in frames],
        "system_info": {"natoms": [1, 2]},
    }  # fmt: skip
    path.mkdir()
    environment = lmdb.open(str(path), map_size=2**24)
    with environment.begin(write=True) as transaction:
        transaction.put(b"__metadata__", msgpack.packb(contents))
        for k, frame in enumerate(frames):
            arrays = {name: packed(array) for name, array in frame.items() if name != "system"}
            transaction.put(f"{k:06d}".encode(), msgpack.packb(arrays))
    environment.close()
    (path / "lock.mdb").unlink()


def lmdb_answers(path: str) -> dict[str, Any]:
    """Orders, statistics and numbers of neighbours of the LMDB data set."""
    from deepmd.dpmodel.utils.lmdb_data import LmdbBatchSampler, make_neighbor_stat_data
    from deepmd.pt.model.model import get_model
    from deepmd.pt.model.model.model import BaseModel
    from deepmd.pt.utils.lmdb_dataset import LmdbDataset
    from deepmd.pt.utils.stat import make_stat_input
    from deepmd.utils.data import DataRequirementItem

    def dataset(section: dict[str, Any]) -> Any:
        data = LmdbDataset(path, cases.TYPE_MAP, section["batch_size"], section.get("auto_prob"))
        labels = cases.LABELS["ener"]
        data.add_data_requirement([DataRequirementItem(name, n, atomic=of, must=False) for name, n, of in labels])
        return data

    orders = {}
    for name, (section, seed, count) in cases.LMDB_ORDERS.items():
        data = dataset(section)
        sampler = LmdbBatchSampler(data._reader, shuffle=True, seed=seed, block_targets=data._block_targets)
        found: list[list[int]] = []
        while len(found) < count:
            found += [data._reader.original_keys(batch) for batch in sampler]
        orders[name] = [[int(key) for key in keys] for keys in found[:count]]
    data = dataset({"batch_size": 2})
    groups = [[batch["fid"] for batch in loader] for loader in data.dataloaders]
    section = model_section(cases.STATISTICS["standard"]["model"])
    model = get_model(json.loads(json.dumps(section)))
    sampled = make_stat_input(data.systems, data.dataloaders, 2, 0.0)
    model.atomic_model.compute_or_load_stat(lambda: sampled)
    state = model.atomic_model.state_dict()
    weights = {name: state[name].numpy().tolist() for name in ("out_bias", "out_std")}
    weights["descriptor.repinit.stddev"] = state["descriptor.repinit.stddev"][:, 0].numpy().tolist()
    section["descriptor"]["repinit"]["nsel"] = "auto"
    changed, closest = BaseModel.update_sel(make_neighbor_stat_data(path, cases.TYPE_MAP), cases.TYPE_MAP, section)
    sel = changed["descriptor"]["repinit"]["nsel"]
    return {"orders": orders, "groups": groups, "weights": weights, "nsel": sel, "min_nbor_dist": float(closest)}


def one_order(name: str) -> list[list[Any]]:
    """An order from a process of its own."""
    text = f"import json, generate_data as g; print(json.dumps(g.order(g.cases.ORDERS[{name!r}])))"
    here = Path(__file__).resolve().parent
    environment = os.environ | {
        "NUM_WORKERS": str(cases.ORDERS[name]["workers"]), "PYTHONPATH": f"{here}{os.pathsep}{here.parent}",
    }  # fmt: skip
    found = subprocess.run([sys.executable, "-c", text], env=environment, check=True, capture_output=True, text=True)
    answer: list[list[Any]] = json.loads(found.stdout.splitlines()[-1])
    return answer


def main() -> None:
    folder = (Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "training").resolve()
    with tempfile.TemporaryDirectory() as name:
        cases.write(Path(name))
        write_lmdb(Path(name) / "frames.lmdb")
        os.chdir(name)
        answers = {
            "orders": {case: one_order(case) for case in cases.ORDERS},
            "statistics": {case: statistics(section) for case, section in cases.STATISTICS.items()},
            "neighbors": neighbors(),
            "probabilities": [probability(case) for case in cases.PROBABILITIES],
            "sizes": [sizes(rule) for rule in cases.RULES],
            "lmdb": lmdb_answers("frames.lmdb"),
            "batches": {system: one_batch(system) for system in ("standard", "open", "mixed")},
        }
        (folder / "statistics.hdf5").unlink(missing_ok=True)  # deepmd-kit would read it
        statistics(cases.STATISTICS["parameters"] | {"stat_file": str(folder / "statistics.hdf5")})
        shutil.copytree("frames.lmdb", folder / "frames.lmdb", dirs_exist_ok=True)
        os.chdir(folder)
    (folder / "data.json").write_text(json.dumps(answers) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
