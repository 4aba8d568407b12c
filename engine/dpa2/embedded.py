"""The model that comes with the package: liquid water, small and in single precision; and which model is meant."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from .errors import InputError
from .inputs import Float
from .model import Model, load
from .options import Precision, checked_device

if TYPE_CHECKING:
    from ase import Atoms

DEFAULT_MODEL = "water.safetensors"
#: angstrom; a step of dynamics moves atoms by hundredths of one, so that a neighbour list lasts tens of steps
DEFAULT_SKIN = 1.0

_lock = threading.Lock()
_default: dict[tuple[str, str | None], Model] = {}


@contextmanager
def default_model_path() -> Iterator[Path]:
    """The embedded model as a file, for as long as the context lasts."""
    from importlib.resources import as_file, files

    with as_file(files("dpa2").joinpath("models").joinpath(DEFAULT_MODEL)) as path:
        yield path


def default_model(device: str = "cpu", precision: Precision | None = None) -> Model:
    """The embedded model; loaded on the first call, the same object afterwards. Safe to call from several threads."""
    with _lock:
        key = (device, precision)
        if key not in _default:
            _default[key] = load(precision=precision, device=device)
        return _default[key]


def model_of(model: str | os.PathLike[str] | Model | None, options: dict[str, Any], skin: float = 0.0) -> Model:
    """The model that an interface to another program was given.

    Args:
        model: a :class:`dpa2.Model`, the path of a file, or None for the embedded model.
        options: those of :func:`dpa2.load`; None is the same as left out.
        skin: that of a model which is read here, unless the options have one.

    Raises:
        InputError: options beside a :class:`dpa2.Model`. ModelFileError: see :func:`dpa2.load`.
    """
    options = {name: value for name, value in options.items() if value is not None}
    if isinstance(model, Model):
        if options:
            raise InputError(
                f"{', '.join(options)}: a dpa2.Model has its own; give them to dpa2.load, or pass a path in its place"
            )
        return model
    options = {"skin": skin, **options}
    return load(**options) if model is None else load(model, **options)


def compute_descriptor(
    coords: ArrayLike | Atoms,
    types: ArrayLike | None = None,
    box: ArrayLike | None = None,
    model: Model | str | os.PathLike[str] | None = None,
    pbc: bool | Sequence[bool] | None = None,
    device: str = "cpu",
    precision: Precision | None = None,
    spin: ArrayLike | None = None,
) -> Float:
    """The descriptor of every atom, (natoms, dim) or (nframes, natoms, dim), dimensionless.

    Args:
        coords, types, box, pbc, spin: as for :meth:`dpa2.Model.evaluate`. ``coords`` may be an ``ase.Atoms``, which
            says the others itself.
        model: a :class:`dpa2.Model`, the path of a model file (read on every call: load it once with
            :func:`dpa2.load` for many), or None for the embedded model of water, which knows O and H.
        device, precision: as for :func:`dpa2.load`; with a :class:`dpa2.Model` they must be left out.

    Raises:
        InputError: see :meth:`dpa2.Model.evaluate`. ModelFileError: see :func:`dpa2.load`.
    """
    if model is None:
        model = default_model(checked_device(device), precision)
    elif not isinstance(model, Model):
        model = load(model, precision=precision, device=device)
    elif device != "cpu" or precision is not None:
        raise InputError("device and precision are those that the model was loaded with: leave them out")
    return model.descriptor(coords, types, box, pbc, spin=spin)
