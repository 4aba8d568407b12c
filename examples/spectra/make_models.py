"""Make the models of this folder again: structures, labels, training with deepmd-kit, last layers, errors.

    python examples/spectra/make_models.py --work /tmp/spectra --dp dp                all of them
    python examples/spectra/make_models.py --work /tmp/spectra --dp dp dipole

The examples do not need it. It needs ASE, and deepmd-kit 3 (PyTorch) as the command `dp`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import labels
import numpy as np
from ase import units
from ase.md.langevin import Langevin
from ase.optimize import FIRE
from dpa2.ase import DPA2Calculator
from numpy.typing import NDArray
from refit import refit

Float = NDArray[np.float64]
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from make_water_box import equilibrate, place  # noqa: E402 -- the example beside this folder

TYPES = ["O", "H"]
BOXES, FRAMES, MOLECULES = 4, 50, 16


def liquid(rng: np.random.Generator) -> tuple[Float, Float]:
    """Positions (frames, natoms, 3) of small boxes of water at 330 K, every fourth with its atoms jolted; the box."""
    kept = []
    for _ in range(BOXES):
        atoms = place(MOLECULES, 0.993, rng)
        atoms.calc = DPA2Calculator()
        FIRE(atoms, logfile=None, maxstep=0.05).run(fmax=0.5, steps=100)
        equilibrate(atoms, 330.0, 0.5, 0.5, rng)
        dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=330.0, friction=0.02 / units.fs, fixcm=False, rng=rng)
        for _ in range(FRAMES):
            dynamics.run(30)
            kept.append(atoms.positions.copy())
    positions = np.array(kept)
    positions[::4] += rng.normal(scale=0.04, size=positions[::4].shape)
    return positions, atoms.cell.array


def molecules(count: int, rng: np.random.Generator) -> Float:
    """Positions (count, 3, 3) of single molecules, bent and stretched."""
    bond = rng.normal(labels.BOND, 0.06, size=(count, 2))
    half = np.radians(rng.normal(104.5, 9.0, size=count)) / 2.0
    side = np.stack([np.sin(half), np.cos(half), np.zeros(count)], axis=-1)
    other = side * [-1.0, 1.0, 1.0]
    return np.stack([np.zeros((count, 3)), bond[:, :1] * side, bond[:, 1:] * other], axis=1)


def write_system(folder: Path, positions: Float, box: Float | None, arrays: dict[str, Float]) -> None:
    """A deepmd system."""
    (folder / "set.000").mkdir(parents=True, exist_ok=True)
    frames, natoms = positions.shape[:2]
    np.savetxt(folder / "type.raw", np.tile([0, 1, 1], natoms // 3), fmt="%d")
    (folder / "type_map.raw").write_text("\n".join(TYPES) + "\n")
    for name, array in {"coord": positions, **arrays}.items():
        np.save(folder / "set.000" / f"{name}.npy", array.reshape(frames, -1))
    if box is None:
        (folder / "nopbc").touch()
        box = 20.0 * np.eye(3)
    np.save(folder / "set.000" / "box.npy", np.tile(box.reshape(1, 9), (frames, 1)))


def descriptor(sel: int, near: int) -> dict[str, Any]:
    """A small DPA-2 descriptor that sees as far as the formulas of the labels reach."""
    repinit = {"rcut": 3.5, "rcut_smth": 2.5, "nsel": sel, "neuron": [8, 16], "axis_neuron": 4, "tebd_dim": 4}
    repformer = {
        "rcut": 3.0,
        "rcut_smth": 2.0,
        "nsel": near,
        "nlayers": 2,
        "g1_dim": 24,
        "g2_dim": 16,
        "axis_neuron": 4,
        "attn2_hidden": 8,
        "attn2_nhead": 1,
        "update_g1_has_attn": False,
        "update_g2_has_attn": False,
        "update_g1_has_conv": True,
        "update_style": "res_residual",
        "update_residual": 0.1,
        "use_sqrt_nnei": True,
        "g1_out_conv": True,
        "g1_out_mlp": True,
    }
    common = {"precision": "float32", "seed": 1, "add_tebd_to_repinit_out": False}
    return {"type": "dpa2", "repinit": repinit, "repformer": repformer, **common}


#: what is particular to a kind: fitting net, loss, options of the model, neighbours within both cutoffs, steps
KINDS: dict[str, dict[str, Any]] = {
    "dipole": {
        "fitting_net": {"type": "dipole", "neuron": [32, 32]},
        "loss": {"type": "tensor", "pref": 0.0, "pref_atomic": 1.0},
        "model": {"atom_exclude_types": [1]},
        "sel": (32, 24),
        "batch": 1,
        "steps": 1200,
    },
    "energy": {
        "fitting_net": {"type": "ener", "neuron": [32, 32]},
        "loss": {
            "type": "ener",
            "start_pref_e": 1.0,
            "limit_pref_e": 1.0,
            "start_pref_f": 100.0,
            "limit_pref_f": 10.0,
        },
        "model": {},
        "sel": (8, 6),
        "batch": 32,
        "steps": 500,
    },
    "polar": {
        "fitting_net": {"type": "polar", "neuron": [32, 32]},
        "loss": {"type": "tensor", "pref": 1.0, "pref_atomic": 0.0},
        "model": {},
        "sel": (8, 6),
        "batch": 32,
        "steps": 4000,
    },
    "dos": {
        "fitting_net": {"type": "dos", "numb_dos": len(labels.ENERGIES), "neuron": [48, 48]},
        "loss": {
            "type": "dos",
            **{f"{when}_pref_{what}": 0.0 for when in ("start", "limit") for what in ("dos", "cdf", "acdf")},
            "start_pref_ados": 1.0,
            "limit_pref_ados": 1.0,
        },
        "model": {},
        "sel": (32, 24),
        "batch": 1,
        "steps": 1500,
    },
}


def write_data(kind: str, folder: Path, rng: np.random.Generator, structures: tuple[Float, Float] | None) -> None:
    """The systems ``train`` and ``test``."""
    if kind in ("energy", "polar"):
        positions, box = molecules(2200, rng), None
        energy, force = labels.energies(positions)
        of_energy = {"energy": energy, "force": force}
        arrays = of_energy if kind == "energy" else {"polarizability": labels.polarizabilities(positions, None)}
    else:
        assert structures is not None
        positions, box = structures
        if kind == "dipole":
            of_oxygen = np.array([labels.dipoles(x, box) for x in positions])
            of_atoms = np.zeros((*positions.shape[:2], 3))
            of_atoms[:, ::3] = of_oxygen
            arrays = {"atomic_dipole": of_atoms, "dipole": of_oxygen.sum(axis=1)}
        else:
            of_atoms = np.array([labels.densities_of_states(x, box) for x in positions])
            arrays = {"atom_dos": of_atoms, "dos": of_atoms.sum(axis=1)}
    order = rng.permutation(len(positions))
    tenth = len(positions) // 10
    for name, chosen in {"test": order[:tenth], "train": order[tenth:]}.items():
        write_system(folder / name, positions[chosen], box, {key: array[chosen] for key, array in arrays.items()})


def train(kind: str, folder: Path, dp: str, steps: int | None) -> None:
    """Train, convert, fit the last layer, test."""
    options = KINDS[kind]
    steps = steps or options["steps"]
    fitting = {**options["fitting_net"], "precision": "float32", "seed": 1, "resnet_dt": False}
    configuration = {
        "model": {
            "type_map": TYPES,
            "descriptor": descriptor(*options["sel"]),
            "fitting_net": fitting,
            **options["model"],
        },
        "loss": options["loss"],
        "learning_rate": {"type": "exp", "start_lr": 3e-3, "stop_lr": 1e-5, "decay_steps": max(1, steps // 60)},
        "training": {
            "training_data": {"systems": [str(folder / "train")], "batch_size": options["batch"]},
            "validation_data": {"systems": [str(folder / "test")], "batch_size": options["batch"]},
            "numb_steps": steps,
            "seed": 1,
            "disp_freq": 100,
            "save_freq": steps,
        },
    }
    (folder / "input.json").write_text(json.dumps(configuration, indent=2))
    result = HERE / "models" / f"water_{kind}.safetensors"
    result.parent.mkdir(exist_ok=True)
    commands = [
        [dp, "--pt", "train", "input.json", "--skip-neighbor-stat"],
        [sys.executable, "-m", "dpa2", "convert", f"model.ckpt-{steps}.pt", str(result)],
    ]
    for command in commands:
        subprocess.run(command, cwd=folder, check=True, env={**os.environ, "NUM_WORKERS": "0"})
    stored = {path.stem: np.load(path) for path in (folder / "train" / "set.000").iterdir()}
    coords = stored["coord"].reshape(len(stored["coord"]), -1, 3)
    box = None if (folder / "train" / "nopbc").exists() else stored["box"][0].reshape(3, 3)
    refit(kind, result, coords, box, [0, 1, 1] * (coords.shape[1] // 3), stored)
    tested = ["-a"] if kind in ("dipole", "dos") else []
    subprocess.run(
        [sys.executable, "-m", "dpa2", "test", "-m", str(result), "-s", "test", *tested], cwd=folder, check=True
    )


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description="Train the models of examples/spectra with deepmd-kit.")
    parser.add_argument("kinds", nargs="*", help=f"{', '.join(KINDS)} (default: all)")
    parser.add_argument("--work", type=Path, required=True, help="folder for data sets and training")
    parser.add_argument("--dp", default="dp", help="the command of deepmd-kit (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="of training (default: as the models were made)")
    args = parser.parse_args()
    unknown = set(args.kinds) - set(KINDS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no such model; there are {', '.join(KINDS)}")
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    stored = args.work / "liquid.npz"
    for kind in args.kinds or list(KINDS):
        structures = None
        if kind in ("dipole", "dos"):
            if not stored.is_file():
                positions, box = liquid(np.random.default_rng(1))
                np.savez(stored, positions=positions, box=box)
            arrays = np.load(stored)
            structures = (arrays["positions"], arrays["box"])
        write_data(kind, args.work / kind, np.random.default_rng(2), structures)
        train(kind, args.work / kind, args.dp, args.steps)


if __name__ == "__main__":
    main()
