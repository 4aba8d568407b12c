"""How long ``--device reference`` will take, said before the work."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import numpy as np

from ..errors import Error
from . import common

if TYPE_CHECKING:
    from ..model import Model

#: seconds; of less nothing is said
LONG = 10.0
# Times of the reference grow with the square of the number of atoms. This is a little more than a slow machine takes,
# in seconds, and serves to measure only where it may be worth it.
_MOST = 0.02
# The grid that is timed: as dense as water.
_SIDE, _SPACING = 2, 2.15


def say_time(model: Model, walk: common.Walk) -> None:
    """A line about the time, if the model is evaluated by the reference and it will be long.

    Taken from a grid of a few atoms, which is evaluated, for frames as large as the first one.
    """
    if model.device != "reference":
        return
    try:
        first = next(itertools.chain.from_iterable(walk.sources), None)
        if first is None or len(first) ** 2 * _MOST * (walk.total or 1) < LONG:
            return
        natoms, seconds = len(first), _measured(model)
    except Error:  # what is wrong is said by what follows
        return
    each = seconds * (natoms / _SIDE**3) ** 2
    frames = walk.total or 1
    if each * frames >= LONG:
        much = f"a frame of {natoms} atoms takes about {_words(each)}"
        common.say(much + (f", {frames} of them {_words(each * frames)}" if frames > 1 else "") + " with the reference")


def _measured(model: Model) -> float:
    """Seconds of one evaluation of the grid."""
    from ..files.schema import parameters

    grid = np.stack(np.meshgrid(*[np.arange(_SIDE)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    takes, natoms = parameters(model.config), len(grid)
    fparam, aparam = np.zeros(int(takes["numb_fparam"])), np.zeros((natoms, int(takes["numb_aparam"])))
    start = time.perf_counter()
    model.evaluate(
        _SPACING * grid,
        np.arange(natoms) % len(model.type_map),
        _SPACING * _SIDE * np.eye(3),
        fparam=fparam if fparam.size else None,
        aparam=aparam if aparam.size else None,
        spin=np.zeros((natoms, 3)) if model.kind == "spin" else None,
        hessian=False,
    )
    return time.perf_counter() - start


def _words(seconds: float) -> str:
    for unit, size in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}s"
    return f"{seconds:.0f} seconds" if seconds >= 9.5 else f"{seconds:.1g} seconds"
