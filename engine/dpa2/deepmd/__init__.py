"""The Python interface of deepmd-kit on top of dpa2: scripts switch by changing one import.

>>> from dpa2.deepmd import DeepEval, DeepPot                   # doctest: +SKIP
>>> energy, force, virial = DeepPot("model.pth").eval(coords, cells, atom_types)  # doctest: +SKIP
>>> DeepEval("dipole.pth").eval(coords, cells, atom_types)      # doctest: +SKIP

Names, arguments, shapes and types of numbers are those of ``deepmd.infer`` of deepmd-kit 3.2.0; its classes stand in
modules of their own there, and all in this one here.
"""

from __future__ import annotations

from typing import Any

from .evaluator import DeepEval
from .potential import DeepPot
from .tensor import DeepDipole, DeepGlobalPolar, DeepPolar, DeepWFC
from .values import DeepDOS, DeepPopulation, DeepProperty

__all__ = [
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
]


def DeepPotential(*args: Any, **kwargs: Any) -> DeepEval:
    """What :class:`DeepEval` makes of a file of any kind, under an older name."""
    return DeepEval(*args, **kwargs)
