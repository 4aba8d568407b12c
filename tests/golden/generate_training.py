"""Make `training/`: losses of predictions and gradients of losses, as deepmd-kit computes them.

Run by hand in an environment that has deepmd-kit:

    python tests/golden/generate_training.py            # both files, into tests/golden/training
    python tests/golden/generate_training.py OUTDIR     # into another folder

The cases are those of `training_cases`, the models those of the golden files that are there already. deepmd-kit
computes the prefactors and numbers of atoms of a loss in float32; here the default type of PyTorch is float64 while a
loss is computed, and the flags of its labels are numbers of Python, so that it does not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import generate
import generate_kinds
import numpy as np
import torch
import training_cases as training
from cases import Golden, System
from deepmd.pt.model.model import get_model
from deepmd.pt.train.training import get_loss
from deepmd.utils.argcheck import loss_args

Outputs = dict[str, torch.Tensor]


class Answered:
    """A model that has been asked already: a loss calls it, and looks at its statistics."""

    def __init__(self, outputs: Outputs, statistics: dict[str, torch.Tensor]) -> None:
        self.outputs = outputs
        self.atomic_model = SimpleNamespace(**statistics)

    def __call__(self, **_: Any) -> Outputs:
        return dict(self.outputs)


@contextmanager
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def loss_section(section: dict[str, Any]) -> dict[str, Any]:
    """A section with deepmd-kit's defaults."""
    given = {"type": "ener", **section}
    argument = loss_args()
    normal: dict[str, Any] = argument.normalize_value(given)
    argument.check_value(normal, strict=True)
    return normal


def loss_object(section: dict[str, Any], fitting: dict[str, Any]) -> Any:
    """deepmd-kit's loss for a fitting net."""
    kind = fitting["type"]
    name = {"ener": "energy", "polar": "polarizability", "property": fitting.get("property_name")}.get(kind, kind)
    size = {"dipole": 3, "polar": 9, "dos": fitting.get("numb_dos")}.get(kind, 1)
    model = SimpleNamespace(
        model_output_def=lambda: {name: SimpleNamespace(output_size=size)},
        model_output_type=lambda: [name, "mask"],
        get_task_dim=lambda: fitting["task_dim"],
        get_var_name=lambda: fitting["property_name"],
        get_intensive=lambda: fitting["intensive"],
    )
    return get_loss(loss_section(section), training.STARTER, 2, model)


def loss_of(
    section: dict[str, Any], fitting: dict[str, Any], model: Answered, labels: dict[str, np.ndarray], natoms: int
) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss, and what deepmd-kit displays of it."""
    given: dict[str, Any] = {f"find_{name}": 1.0 for name in labels}
    given |= {name: torch.tensor(array) for name, array in labels.items()}
    with doubles():
        _, loss, more = loss_object(section, fitting)({}, model, given, natoms, training.RATE)
    return loss, {name: float(value) for name, value in more.items() if not name.startswith("l2_")}


# ------------------------------------------------------------------------------------------ losses of predictions


def outputs_of(kind: str, fitting: dict[str, Any], predicted: Outputs, mask: torch.Tensor) -> Outputs:
    """What a model with these atoms' values would answer."""
    atoms = predicted["atoms"] * mask[..., None]
    out: Outputs = {"mask": mask.to(torch.int32)}
    if kind == "ener":
        return out | {
            "energy": atoms.sum(1), "atom_energy": atoms, "force": predicted["force"], "virial": predicted["virial"]
        }  # fmt: skip
    if kind == "population":
        return out | {"population": atoms}
    if kind in ("dipole", "polar"):
        return out | {kind: atoms, f"global_{kind}": atoms.sum(1)}
    name = "dos" if kind == "dos" else fitting["property_name"]
    count = mask.sum(1, keepdim=True) if fitting.get("intensive") else 1.0
    return out | {f"atom_{name}": atoms, name: atoms.sum(1) / count}


def losses() -> dict[str, Any]:
    """Value, displayed parts and derivatives of every loss, of made-up predictions."""
    result: dict[str, Any] = {}
    mask = torch.tensor(training.COUNTED, dtype=torch.float64)
    nframes, natoms = mask.shape
    for name, fitting in training.KINDS.items():
        kind = fitting["type"]
        labels = training.labels({"fitting_net": fitting}, nframes, natoms)
        width = training.width_of(fitting)
        predicted = {
            key: torch.tensor(value, requires_grad=True)
            for key, value in training.predictions(kind, width, nframes, natoms).items()
        }
        statistics = {key: torch.tensor(value) for key, value in training.STATISTICS.items()}
        for loss, section in training.LOSSES[kind].items():
            model = Answered(outputs_of(kind, fitting, predicted, mask), statistics)
            given = {key: array.copy() for key, array in labels.items()}
            value, parts = loss_of(section, fitting, model, given, natoms)
            seeds = torch.autograd.grad(value, list(predicted.values()), allow_unused=True)
            entry = {"value": float(value), "parts": parts}
            for key, seed in zip(predicted, seeds, strict=True):
                if seed is not None:
                    entry[key] = [float(f"{x:.15g}") for x in seed.ravel().tolist()]
            result[f"{name}/{loss}"] = entry
            print(f"{name:10s} {loss:14s} {float(value):12.5g} {parts}")
    return result


# ------------------------------------------------------------------------------------------ gradients of parameters


def build(case: training.TrainingCase, golden: Golden) -> torch.nn.Module:
    """deepmd-kit's model with the weights of the golden file, ready for second derivatives."""
    section = generate_kinds.deepmd_input(case.kind) if case.kind else generate.deepmd_input(golden.config)
    model = get_model(section).train()
    state, values = model.atomic_model.state_dict(), {}
    for name, value in golden.weights.items():
        full = tuple(state[name].shape) if name in state else value.shape
        values[name] = np.broadcast_to(value[:, None, :], full) if value.shape != full else value
    generate.load_values(model, values)
    return model


def answer(model: torch.nn.Module, system: System) -> Outputs:
    nframes, natoms = system.coord.shape[:2]

    def tensor(rows: np.ndarray | None, *shape: int) -> torch.Tensor | None:
        return None if rows is None else torch.tensor(rows.reshape(nframes, *shape))

    coord = torch.tensor(system.coord.reshape(nframes, -1), requires_grad=True)
    atype = torch.tensor(np.tile(system.atype, (nframes, 1)))
    fparam, aparam = tensor(system.fparam, -1), tensor(system.aparam, natoms, -1)
    out: Outputs = model(coord, atype, tensor(system.box, 9), fparam=fparam, aparam=aparam)
    return out


def gradients(case: training.TrainingCase) -> tuple[list[str], dict[str, tuple[float, np.ndarray]]]:
    """Names of the parameters, and per loss its value and the fingerprint (parameters, 2) of each gradient."""
    golden = case.load()
    system = next(s for s in golden.systems if s.name == case.system)
    nframes, natoms = system.coord.shape[:2]
    fitting = golden.config["fitting_net"]
    model = build(case, golden)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad and p.numel()}
    outputs = answer(model, system)
    statistics = {name: getattr(model.atomic_model, name) for name in ("out_bias", "out_std")}
    rows: dict[str, tuple[float, np.ndarray]] = {}
    for loss in case.losses:
        section = training.LOSSES[fitting["type"]][loss]
        labels = training.labels(golden.config, nframes, natoms)
        value, _ = loss_of(section, fitting, Answered(outputs, statistics), labels, natoms)
        found = torch.autograd.grad(value, list(named.values()), retain_graph=True, allow_unused=True)
        prints = [
            training.fingerprint(name, np.zeros(1) if g is None else g.numpy())
            for name, g in zip(named, found, strict=True)
        ]
        rows[loss] = float(value), np.array(prints)
        assert np.isfinite(rows[loss][1]).all(), f"{case.name} {loss}: not finite"
    return list(named), rows


def main(out: Path) -> None:
    out.mkdir(exist_ok=True)
    (out / "losses.json").write_text(json.dumps(losses(), indent=None, separators=(",", ":")) + "\n")
    stated: dict[str, Any] = {}
    prints: list[np.ndarray] = []
    for case in training.CASES:
        names, rows = gradients(case)
        stated[case.name] = {"names": names, "values": {loss: value for loss, (value, _) in rows.items()}}
        prints += [row for _, row in rows.values()]
        print(f"{case.name:26s} {len(names):4d} parameters, {len(rows):2d} losses", flush=True)
    norms, products = np.concatenate(prints).T
    text = np.frombuffer(json.dumps(stated).encode(), np.uint8)
    np.savez_compressed(out / "gradients.npz", stated=text, norms=norms.astype(np.float32), products=products)
    for path in sorted(out.iterdir()):
        print(f"{path.name:16s} {path.stat().st_size / 1024:6.1f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else training.TRAINING)
