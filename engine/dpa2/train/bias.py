"""The bias of a model's output, changed so that data are met best: least squares on what it misses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import ModelData
from ..model import Model
from ..quantities import weighable
from .statistics import Output, Parameters


def change_bias(
    data: ModelData, section: Mapping[str, Any], batches: Iterable[Mapping[str, Any]], threads: int | None = None
) -> dict[str, NDArray[Any]]:
    """``out_bias`` and ``out_std`` that a model gets from data.

    Args:
        data: the model.
        section: its ``model`` section, defaults filled in; biases that it fixes are those of what is added.
        batches: of the data, with labels.
        threads: of the evaluations.

    Returns:
        The old bias and what is to be added to it; the deviation of what the model then misses; in the shapes and
        precisions of the model. Nothing if no frame has a label.

    Raises:
        InputError: frames that cannot be evaluated, which are named.
    """
    model, found = Model(data, threads=threads, on_overflow="ignore"), Output(section)
    atoms = next(output for output in model.outputs if weighable(output))
    frame = next((output for output in model.outputs if output.of == atoms.name and output.reduction), None)
    for batch in batches:
        fparam, aparam = (batch.get(name) if _takes(section, name) else None for name in ("fparam", "aparam"))
        structures = batch["coord"], batch["atype"], batch.get("box")
        try:
            result = model.evaluate(*structures, fparam=fparam, aparam=aparam, forces=False)
        except InputError as error:
            raise InputError(f"{batch.get('where', 'data')}: {error}") from None
        nframes = len(batch["coord"])
        outputs = {name: np.asarray(value, float).reshape(nframes, -1) for name, value in result.outputs.items()}
        predicted = None if frame is None else outputs[frame.name]
        found.add(dict(batch), predicted, outputs[atoms.name].reshape(nframes, -1, found.width))
    solved = found.solve()
    if solved is None:
        return {}
    out = {}
    for name, value, old in (("out_bias", solved[0], data.weights["out_bias"]), ("out_std", solved[1], 0.0)):
        weight = data.weights[name]
        out[name] = (old + value.reshape(weight.shape)).astype(weight.dtype)
    return out


def set_bias(
    data: ModelData, section: Mapping[str, Any], batches: Iterable[Mapping[str, Any]]
) -> dict[str, NDArray[Any]]:
    """``out_bias``, ``out_std`` and the statistics of parameters that follow from data alone.

    Arguments and errors are those of :func:`change_bias`.
    """
    parts = Output(section), Parameters(section, "fparam"), Parameters(section, "aparam")
    for batch in batches:
        for part in parts:
            part.add(dict(batch))
    out = {}
    for part in parts:
        for name, value in part.weights().items():
            weight = data.weights[name]
            out[name] = value.astype(weight.dtype).reshape(weight.shape)
    return out


def put(data: ModelData, found: Mapping[str, NDArray[Any]]) -> str:
    """Give a model the weights that were found; returns a line about the bias, empty if it is not among them."""
    line = ""
    if "out_bias" in found:
        names = list(data.config["type_map"])
        old, new = (array.ravel()[: len(names)].tolist() for array in (data.weights["out_bias"], found["out_bias"]))
        line = f"Change output bias of {names} from {old} to {new}."
    data.weights.update(found)
    return line


def _takes(section: Mapping[str, Any], name: str) -> bool:
    return bool(section["fitting_net"].get(f"numb_{name}"))
