"""The last layer of a trained model, solved for by least squares: outputs are linear in its weights.

Training by steps brings the other layers to where they are good for; this takes the error of the last one away. Only
`make_models.py` uses it.
"""

from __future__ import annotations

from pathlib import Path

import dpa2
import numpy as np
from dpa2 import files
from dpa2.deepmd import DeepEval
from numpy.typing import NDArray

Float = NDArray[np.float64]
OUTPUTS = {"dipole": "dipole", "polar": "global_polar"}
SOFT = 0.1  # eV: frames of higher energies count less
LAST = "fitting_net.filter_layers.networks.0.layers.2"  # of two hidden layers


def hidden(evaluator: DeepEval, coords: Float, box: Float | None, types: list[int]) -> Float:
    """(frames, atoms, width + 1): what the last layer sees, and 1."""
    cells = None if box is None else np.tile(box.reshape(1, 9), (len(coords), 1))
    values = evaluator.eval_fitting_last_layer(coords, cells, types).astype(np.float64)
    return np.concatenate([values, np.ones((*values.shape[:2], 1))], axis=-1)


def design(kind: str, model: dpa2.Model, layer: Float, coords: Float, box: Float | None, types: list[int]) -> Float:
    """(rows, weights): how the outputs of frames depend on the weights (width + 1, K), one after the other.

    Of dipoles: the rows are frames, oxygens, components; of polarizabilities frames and xx xy xz yx ...
    """
    frames = np.broadcast_to(box, (len(coords), 3, 3)) if box is not None else None
    rotation = model.descriptor(coords, types, frames, rot_mat=True)[1]  # (frames, atoms, K, 3)
    if kind == "dipole":
        product = np.einsum("fik,ficx->fixkc", layer[:, ::3], rotation[:, ::3])
    else:
        product = np.einsum("fik,ficx,ficy->fxykc", layer, rotation, rotation, optimize=True)
    return product.reshape(-1, layer.shape[-1] * rotation.shape[2])


def correction(matrix: Float, missing: Float, softness: float = 1e-9) -> Float:
    """Weights (weights, columns) that add what is missing (rows, columns); small ones rather than exact ones."""
    square = matrix.T @ matrix
    square[np.diag_indices_from(square)] += softness * np.trace(square) / len(square)
    solved: Float = np.linalg.solve(square, matrix.T @ missing)
    return solved


def slopes(evaluator: DeepEval, coords: Float, types: list[int], step: float = 1e-3) -> Float:
    """(frames * atoms * 3, width + 1): minus the derivatives of the sums over atoms of what the last layer sees."""
    rows = []
    for k in range(coords[0].size):
        move = np.zeros(coords[0].size)
        move[k] = step
        move = move.reshape(coords[0].shape)
        ahead, behind = (hidden(evaluator, coords + s * move, None, types).sum(axis=1) for s in (1, -1))
        rows.append((behind - ahead) / (2.0 * step))
    return np.stack(rows, axis=1).reshape(-1, rows[0].shape[-1])


def refit(kind: str, path: Path, coords: Float, box: Float | None, types: list[int], labels: dict[str, Float]) -> None:
    """Correct the last layer of the model in a file: as the labels of frames want it.

    Args:
        kind: energy (labels ``energy``, ``force``), dipole (``atomic_dipole``), polar (``polarizability``) or dos
            (``atom_dos``).
        coords: (frames, atoms, 3). types: (atoms,).
    """
    data = files.read(path)
    model, evaluator = dpa2.load(path, precision="float64"), DeepEval(str(path), precision="float64")
    layer = hidden(evaluator, coords, box, types)
    frames = np.broadcast_to(box, (len(coords), 3, 3)) if box is not None else None
    found = model.evaluate(coords, types, frames).outputs
    count = len(coords)
    if kind == "energy":
        of_forces = 0.1  # eV/angstrom weigh as much as 0.1 eV
        matrix = np.concatenate([layer.sum(axis=1), of_forces * slopes(evaluator, coords, types)])
        energies = labels["energy"].ravel() - found["energy"].ravel()
        forces = labels["force"].ravel() - found["force"].ravel()
        missing = np.concatenate([energies, of_forces * forces])[:, None]
        weights = np.exp(-labels["energy"].ravel() / SOFT)[:, None]  # vibrations are about the minimum
        weights = np.concatenate([weights, np.repeat(weights, coords[0].size, axis=0)])
        matrix, missing = weights * matrix, weights * missing
    elif kind == "dos":
        matrix = layer.reshape(-1, layer.shape[-1])
        missing = (labels["atom_dos"].reshape(found["atom_dos"].shape) - found["atom_dos"]).reshape(len(matrix), -1)
    else:
        matrix = design(kind, model, layer, coords, box, types)
        known, now = labels["atomic_dipole" if kind == "dipole" else "polarizability"], found[OUTPUTS[kind]]
        difference = known.reshape(now.shape) - now
        missing = (difference[:, ::3] if kind == "dipole" else difference).reshape(-1, 1)
    solved = correction(matrix, missing).reshape(layer.shape[-1], -1)
    tensors = dict(data.weights)
    for name, part in ((f"{LAST}.matrix", solved[:-1]), (f"{LAST}.bias", solved[-1])):
        old = tensors[name]
        tensors[name] = (old + part.reshape(old.shape)).astype(old.dtype)
    files.write_safetensors(path, files.ModelData(data.config, tensors))
    print(f"last layer of {kind} fitted to {count} frames")
