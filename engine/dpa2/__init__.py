"""DPA-2 interatomic potentials, evaluated from deepmd-kit model files without a deep-learning framework.

>>> import dpa2
>>> model = dpa2.load("model.pth")                              # doctest: +SKIP
>>> result = model.evaluate(coords, ["O", "H", "H"], box)       # doctest: +SKIP
>>> result.energy, result.forces, result.virial                 # doctest: +SKIP
>>> dpa2.compute_descriptor(coords, ["O", "H", "H"], box).shape  # doctest: +SKIP
(3, 72)

Lengths are in angstrom, energies in eV. Everything but the error classes is imported on first use, so that
``import dpa2`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    ClosePairWarning,
    Error,
    EvaluationError,
    InputError,
    ModelFileError,
    NeighborOverflowWarning,
    OutOfMemoryError,
    ReadingWarning,
    SecondDerivativeError,
    TableEnergyWarning,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from .embedded import compute_descriptor
    from .model import Model, load
    from .results import Result

    __version__: str

__all__ = [
    "ClosePairWarning",
    "Error",
    "EvaluationError",
    "InputError",
    "Model",
    "ModelFileError",
    "NeighborOverflowWarning",
    "OutOfMemoryError",
    "ReadingWarning",
    "Result",
    "SecondDerivativeError",
    "TableEnergyWarning",
    "UnsupportedModelError",
    "__version__",
    "compute_descriptor",
    "load",
]

_LAZY = {"Model": "model", "Result": "results", "load": "model", "compute_descriptor": "embedded"}


def _version() -> str:
    """The version that the build wrote, or the installed distribution's; a bare source tree has neither."""
    import importlib

    try:
        return str(importlib.import_module("._version", __name__).__version__)
    except ImportError:
        pass
    from importlib import metadata

    try:
        return metadata.version("dpa2")
    except metadata.PackageNotFoundError:
        return "0+source"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _LAZY:
        import importlib

        value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
