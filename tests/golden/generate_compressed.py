"""Make the golden files of compressed models: what `dp compress` of deepmd-kit 3.2.0 makes of tiny models.

Run by hand in an environment that has deepmd-kit with its compiled operators:

    python tests/golden/generate_compressed.py

`compressed/<case>.pth` is the file (without its code), `<case>.npz` holds the networks and deepmd-kit's answers for the
compressed file in the layout of the cases. The steps are coarse, so that the tables differ visibly from the networks
that the files hold as well. The system `close` has two atoms nearer to each other than the tables reach.
"""

from __future__ import annotations

import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

import generate
import generate_files
import numpy as np
import torch
from cases import GOLDEN, STRIP, ModelCase
from deepmd.infer import DeepPot

FOLDER = GOLDEN / "compressed"
STEP = 0.2

SMALL: dict[str, Any] = STRIP | {
    "repinit.rcut": 3.0, "repinit.nsel": 12, "repinit.neuron": [2, 4], "repinit.axis_neuron": 2, "repinit.tebd_dim": 3,
    "repinit.three_body_neuron": [2], "repinit.three_body_rcut": 2.5, "repinit.three_body_sel": 8,
    "repformer.rcut": 2.5, "repformer.nsel": 8, "repformer.nlayers": 2, "repformer.g1_dim": 4, "repformer.g2_dim": 3,
    "repformer.attn1_hidden": 2, "repformer.attn2_hidden": 2, "fitting.neuron": [4, 4],
}  # fmt: skip
CASES = (
    ModelCase("smooth", SMALL),
    ModelCase("rough", SMALL | {"smooth": False, "exclude_types": [[0, 2]]}, davg=0.3),
    ModelCase("one_side", SMALL | {"repinit.type_one_side": True, "repinit.use_three_body": False}, davg=0.3),
    ModelCase("single", SMALL | {"descriptor.precision": "float32", "fitting.precision": "float32"}),
)


def systems(case: ModelCase) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(zlib.crc32(f"compressed {case.name}".encode()))
    types = np.array([0, 1, 2, 0, 1, 2])
    bulk = generate.packed(rng, np.eye(3) * 3.4, 6, True, 1.1)
    free = generate.packed(rng, np.eye(3) * 2.8, 6, False, 1.1)
    close = free.copy()
    close[1] = close[0] + [0.02, 0.012, 0.016]
    return {
        "bulk": {"atype": types, "coord": bulk[None], "box": (np.eye(3) * 3.4)[None]},
        "open": {"atype": types, "coord": free[None]},
        "close": {"atype": types, "coord": close[None]},
    }


def evaluate(model: DeepPot, system: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    coord, atype, box = system["coord"], system["atype"], system.get("box")
    cells = None if box is None else box.reshape(len(coord), 9)
    energy, force, virial, atom_energy, atom_virial = model.eval(coord, cells, atype, atomic=True)
    frames, natoms = coord.shape[:2]
    return {
        "energy": energy.reshape(frames),
        "force": force.reshape(frames, natoms, 3),
        "virial": virial.reshape(frames, 3, 3),
        "atom_energy": atom_energy.reshape(frames, natoms),
        "atom_virial": atom_virial.reshape(frames, natoms, 3, 3),
        "descriptor": model.eval_descriptor(coord, cells, atype).reshape(frames, natoms, -1),
    }


def build_case(case: ModelCase, scratch: Path) -> None:
    model = generate.build(case, np.random.default_rng(zlib.crc32(f"compressed {case.name}".encode())))
    model.min_nbor_dist = torch.tensor(0.75, dtype=torch.float64)
    generate_files.save_checkpoint(model, case, scratch / "model.pt")
    frozen, target = scratch / "model.pth", FOLDER / f"{case.name}.pth"
    generate_files.dp("--pt", "freeze", "-c", scratch / "model.pt", "-o", frozen)
    compressed = scratch / "compressed.pth"
    if not generate_files.dp("--pt", "compress", "-i", frozen, "-o", compressed, "-s", STEP, cwd=scratch):
        raise SystemExit(1)
    potential = DeepPot(str(compressed))
    answers = {name: evaluate(potential, system) for name, system in systems(case).items()}
    content = generate.content(case.config, generate.canonical_weights(model), systems(case), answers, {})
    np.savez_compressed(FOLDER / f"{case.name}.npz", **content)
    shutil.copy(compressed, target)
    generate_files.without_code(target)


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for case in CASES:
        with tempfile.TemporaryDirectory() as scratch:
            build_case(case, Path(scratch))
        print(case.name)


if __name__ == "__main__":
    main()
