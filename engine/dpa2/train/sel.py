"""How many neighbours a model has to have room for, and how close atoms come: a walk through all training frames."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..blocks import descriptor_blocks
from ..errors import InputError
from ..neighbors import NeighborStatistics
from .dataset import DataSet
from .lmdb import LmdbSet
from .processes import Alone
from .systems import System, frame_of

#: how much more room than neighbours "auto" gives
_RATIO = 1.1
_AUTO = re.compile(r"auto(?::([0-9]+\.?[0-9]*|\.[0-9]+))?")


class Neighbors(NamedTuple):
    """What the walk found.

    Attributes:
        model: the section with numbers in place of "auto".
        min_nbor_dist: the smallest distance of two atoms, angstrom; the largest cutoff if none are so near.
        warnings: about numbers of neighbours for which the data have too many, each a line.
    """

    model: dict[str, Any]
    min_nbor_dist: float
    warnings: list[str]


def neighbor_statistics(model: Mapping[str, Any], data: DataSet | LmdbSet, processes: Alone | None = None) -> Neighbors:
    """Count the neighbours in all frames, and look at all their labels.

    Args:
        model: the section in deepmd-kit's names, defaults filled in.
        data: the training systems.
        processes: that share the frames.

    Raises:
        InputError: atoms at the same place, or what else is wrong with a frame, which is named; a number of neighbours
            that is none.
    """
    processes = Alone() if processes is None else processes
    descriptor = model["descriptor"]
    blocks = descriptor_blocks(descriptor)
    keys = [f"model.descriptor.{block.section}.{block.sel}" for block in blocks]
    ratios = [ratio_of(descriptor[block.section][block.sel], key) for block, key in zip(blocks, keys, strict=True)]
    rcuts = [float(descriptor[block.section][block.rcut]) for block in blocks]
    found = NeighborStatistics(data.type_map, rcuts)
    systems: Sequence[System | LmdbSet] = data.systems
    for system in systems:
        for batch in system.walk(processes.rank, processes.size):
            found.add(frame_of(batch, 0))
            if found.closest == 0.0:
                raise InputError(f"{found.closest_where} are at the same place: take this frame out of the data")
    for numbers, places, distance in processes.gather((found.most, found.where, found.closest)):
        found.closest = min(found.closest, distance)
        for c, number in enumerate(numbers):
            if number > found.most[c]:
                found.most[c], found.where[c] = number, places[c]
    changed, warnings = copy.deepcopy(dict(model)), []
    for block, key, ratio, most, where in zip(blocks, keys, ratios, found.most, found.where, strict=True):
        section = changed["descriptor"][block.section]
        if ratio is not None:
            section[block.sel] = max(4, 4 * ((math.floor(ratio * most) + 3) // 4))
        elif section[block.sel] < most:
            warnings.append(
                f"{key} is {section[block.sel]}, but atoms have up to {most} neighbours ({where}): the farthest "
                f'are dropped; at least {most}, or "auto", keeps all'
            )
    closest = found.closest if math.isfinite(found.closest) else max(rcuts)
    return Neighbors(changed, closest, warnings)


def ratio_of(sel: Any, key: str) -> float | None:
    """How much more room than neighbours "auto" or "auto:r" gives; None for a number of neighbours.

    Raises:
        InputError: it is neither; ``key`` is its place.
    """
    if isinstance(sel, int) and not isinstance(sel, bool) and sel > 0:
        return None
    if isinstance(sel, str) and (found := _AUTO.fullmatch(sel)):
        ratio = _RATIO if found[1] is None else float(found[1])
        if 0.0 < ratio < math.inf:
            return ratio
    raise InputError(f'{key} must be a positive integer, "auto" or "auto:r" with a positive number r, got {sel!r}')
