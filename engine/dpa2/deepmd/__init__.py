"""The Python interface of deepmd-kit on top of dpa2: scripts switch by changing one import.

>>> from dpa2.deepmd import DeepEval, DeepPot                   # doctest: +SKIP
>>> energy, force, virial = DeepPot("model.pth").eval(coords, cells, atom_types)  # doctest: +SKIP
>>> DeepEval("dipole.pth").eval(coords, cells, atom_types)      # doctest: +SKIP

Names, arguments, shapes and types of numbers are those of ``deepmd.infer`` of deepmd-kit 3.2.0; its classes stand in
modules of their own there, and all in this one here. So do the calculator for ASE, ``DP``, and the deviation of models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .deviations import calc_model_devi, calc_model_devi_e, calc_model_devi_f, calc_model_devi_v
from .evaluator import DeepEval
from .potential import DeepPot
from .tensor import DeepDipole, DeepGlobalPolar, DeepPolar, DeepWFC
from .values import DeepDOS, DeepPopulation, DeepProperty

if TYPE_CHECKING:
    from .calculator import DP

__all__ = [
    "DP",
    "DeepDOS",
    "DeepDipole",
    "DeepEval",
    "DeepGlobalPolar",
    "DeepPolar",
    "DeepPopulation",
    "DeepPot",
    "DeepPotential",
    "DeepProperty",
    "DeepWFC",
    "calc_model_devi",
    "calc_model_devi_e",
    "calc_model_devi_f",
    "calc_model_devi_v",
]


def DeepPotential(*args: Any, **kwargs: Any) -> DeepEval:
    """What :class:`DeepEval` makes of a file of any kind, under an older name."""
    return DeepEval(*args, **kwargs)


def __getattr__(name: str) -> Any:
    """The calculator, which needs ASE, when it is asked for."""
    if name != "DP":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .calculator import DP

    return DP
