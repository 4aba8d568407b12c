"""A batch of structures and labels as deepmd-kit names them, checked, in the arrays of the core."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..files import schema
from ..inputs import Batch, Float, check_finite, check_input, to_array, to_floats


class Label(NamedTuple):
    """A label that a loss reads: ``width`` numbers of a frame, or of each of its atoms."""

    name: str
    width: int
    per_atom: bool
    required: bool

    @property
    def may_be_single(self) -> bool:
        """Whether an atom may have one weight for its three components."""
        return self.name == "atom_pref"

    def widened(self, values: Float) -> Float:
        """Numbers of atoms, (..., natoms, width); of one weight as many as there are components."""
        single = self.may_be_single and values.shape[-1] == 1
        return np.repeat(values, self.width, axis=-1) if single else values


#: labels that say how others count
WEIGHTS = ("atom_pref", "atom_ener_coeff", "atom_weight", "drdq")


def loss_labels_of(config: dict[str, Any], loss: Mapping[str, Any]) -> list[Label]:
    """The labels that a loss of a model reads, asked of the core.

    Args:
        config: the model's canonical configuration.
        loss: the section.

    Raises:
        InputError, UnsupportedModelError: the model cannot have this loss.
    """
    from .._native import loss_labels

    shapes = {name: weight.shape for name, weight in schema.expected_weights(config).items()}
    statistics = {"out_bias": np.zeros(shapes["out_bias"]), "out_std": np.ones(shapes["out_std"])}
    return [Label(*entry) for entry in loss_labels(json.dumps(config), statistics, json.dumps(loss))]


def parameter_labels(takes: Mapping[str, Any]) -> list[Label]:
    """The parameters of frames and atoms that a model takes, by its ``numb_fparam``, ``default_fparam``, ..."""
    out = []
    if count := takes.get("numb_fparam"):
        out.append(Label("fparam", count, False, takes.get("default_fparam") is None))
    if count := takes.get("numb_aparam"):
        out.append(Label("aparam", count, True, True))
    return out


def check_batch(config: dict[str, Any], batch: Any) -> Batch:
    """The structures of a batch.

    Raises:
        InputError: naming the entry whose shape or numbers are wrong.
    """
    if not isinstance(batch, Mapping):
        raise InputError(f"batch must be a dict of arrays by deepmd-kit's names of them, got {type(batch).__name__}")
    for name in ("coord", "atype"):
        if batch.get(name) is None:
            raise InputError(f"the batch has no {name!r}")
    types = to_array(batch["atype"], "atype")
    coords = to_floats(batch["coord"], "coord")
    natoms = types.shape[-1] if types.ndim else 0
    frames = coords.shape[0] if coords.ndim else 0
    agree = coords.shape in ((frames, natoms, 3), (frames, 3 * natoms)) and types.shape in ((natoms,), (frames, natoms))
    if not agree:
        raise InputError(
            "coord must have shape (nframes, natoms, 3) or (nframes, 3 natoms), and atype (nframes, natoms) or "
            f"(natoms,), got {coords.shape} and {types.shape}"
        )
    if frames == 0:
        raise InputError("the batch has no frames")
    takes = schema.parameters(config)
    fparam = batch.get("fparam") if takes["numb_fparam"] else None
    aparam = batch.get("aparam") if takes["numb_aparam"] else None
    if aparam is not None:
        rows, width = to_floats(aparam, "aparam"), takes["numb_aparam"]
        aparam = rows.reshape(frames, natoms, width) if rows.shape == (frames, natoms * width) else rows
    coords = coords.reshape(frames, natoms, 3)
    try:
        return check_input(config, coords, types, batch.get("box"), None, fparam, aparam)
    except InputError as error:
        raise InputError(f"in the batch, {error}") from None


def check_labels(batch: Mapping[str, Any], wanted: list[Label], nframes: int, natoms: int) -> dict[str, Float]:
    """Those of the wanted labels that a batch has, (nframes, ...) in the widths that the core asks for.

    Raises:
        InputError: none is there, or one has the wrong shape or numbers that are not finite.
    """
    out: dict[str, Float] = {}
    switched_off = False
    for label in wanted:
        name, found = _entry(batch, label.name)
        if found is False or (found is None and batch.get(name) is None):
            switched_off = switched_off or found is False
            continue
        if batch.get(name) is None:
            raise InputError(f"the batch has no {name!r}, but find_{name} says that it has")
        out[label.name] = _rows(batch[name], name, label, nframes, natoms)
    compared = [label.name for label in wanted if label.name not in WEIGHTS]
    if compared and not switched_off and not any(name in out for name in compared):
        raise InputError(f"the batch has no label that the loss compares with: {', '.join(compared)}")
    return out


def _entry(batch: Mapping[str, Any], label: str) -> tuple[str, bool | None]:
    """Under which name a batch has a label, and what its flag says; None: it has no flag."""
    names = [label]
    if label.startswith("atom_"):
        names.append("atomic_" + label.removeprefix("atom_"))
    if label == "atom_ener":
        names.append("atom_energy")
    name = next((name for name in names if batch.get(name) is not None), label)
    flags = [batch[f"find_{each}"] for each in names if batch.get(f"find_{each}") is not None]
    if not flags:
        return name, None
    flag = to_array(flags[0], f"find_{name}").ravel()
    if flag.size == 0 or not np.isin(flag, (0, 1)).all() or not (flag == flag[0]).all():
        raise InputError(f"find_{name} must be 0 or 1, got {flags[0]!r}")
    return name, bool(flag[0])


def _rows(value: Any, name: str, label: Label, nframes: int, natoms: int) -> Float:
    array = to_floats(value, name)
    check_finite(array, name)
    if label.may_be_single and array.shape in ((nframes, natoms), (nframes, natoms, 1)):
        array = label.widened(array.reshape(nframes, natoms, 1))
    shapes = _shapes(label, nframes, natoms)
    if array.shape not in shapes:
        if label.may_be_single:
            shapes.insert(0, (nframes, natoms))
        raise InputError(f"{name} must have shape {' or '.join(map(str, shapes))}, got {array.shape}")
    return array.reshape((nframes, natoms, label.width) if label.per_atom else (nframes, label.width))


def _shapes(label: Label, nframes: int, natoms: int) -> list[tuple[int, ...]]:
    """The shapes that a label may have."""
    width = label.width
    if not label.per_atom:
        others: dict[int, tuple[int, ...]] = {1: (nframes,), 9: (nframes, 3, 3)}
        return [(nframes, width), *([others[width]] if width in others else [])]
    shapes: list[tuple[int, ...]] = [(nframes, natoms, width), (nframes, natoms * width)]
    if label.name == "drdq":
        shapes.append((nframes, 3 * natoms, width // 3))
    elif width == 9:
        shapes.append((nframes, natoms, 3, 3))
    return shapes
