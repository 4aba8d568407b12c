"""How many neighbours a model has to have room for, and how close atoms come: a walk through all training frames."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import InputError
from ..neighbors import NeighborStatistics
from .dataset import DataSet
from .lmdb import LmdbSet
from .systems import System, frame_of

#: how much more room than neighbours "auto" gives
_RATIO = 1.1


class _Sel(NamedTuple):
    """Where a number of neighbours stands in the input, and its cutoff."""

    section: str
    rcut: str
    sel: str

    @property
    def key(self) -> str:
        return f"model.descriptor.{self.section}.{self.sel}"


_REPINIT = _Sel("repinit", "rcut", "nsel")
_THREE_BODY = _Sel("repinit", "three_body_rcut", "three_body_sel")
_REPFORMER = _Sel("repformer", "rcut", "nsel")


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


def neighbor_statistics(model: Mapping[str, Any], data: DataSet | LmdbSet) -> Neighbors:
    """Count the neighbours in all frames, and look at all their labels.

    Args:
        model: the section in deepmd-kit's names, defaults filled in.
        data: the training systems.

    Raises:
        InputError: atoms at the same place, or what else is wrong with a frame, which is named; a number of neighbours
            that is none.
    """
    descriptor = model["descriptor"]
    with_three_body = descriptor["repinit"]["use_three_body"]
    places = [_REPINIT, *([_THREE_BODY] if with_three_body else []), _REPFORMER]
    ratios = [_ratio(descriptor[place.section][place.sel], place.key) for place in places]
    rcuts = [float(descriptor[place.section][place.rcut]) for place in places]
    found = NeighborStatistics(data.type_map, rcuts)
    systems: Sequence[System | LmdbSet] = data.systems
    for system in systems:
        for batch in system.walk():
            found.add(frame_of(batch, 0))
            if found.closest == 0.0:
                raise InputError(f"{found.closest_where} are at the same place: take this frame out of the data")
    changed, warnings = copy.deepcopy(dict(model)), []
    for place, ratio, most, where in zip(places, ratios, found.most, found.where, strict=True):
        section = changed["descriptor"][place.section]
        if ratio is not None:
            section[place.sel] = max(4, 4 * ((math.floor(ratio * most) + 3) // 4))
        elif section[place.sel] < most:
            warnings.append(
                f"{place.key} is {section[place.sel]}, but atoms have up to {most} neighbours ({where}): the farthest "
                f'are dropped; at least {most}, or "auto", keeps all'
            )
    closest = found.closest if math.isfinite(found.closest) else max(rcuts)
    return Neighbors(changed, closest, warnings)


def _ratio(sel: Any, key: str) -> float | None:
    """Of an "auto" or "auto:r"; None for a number."""
    if isinstance(sel, int) and not isinstance(sel, bool) and sel > 0:
        return None
    if isinstance(sel, str):
        kind, colon, word = sel.partition(":")
        try:
            ratio = float(word) if colon else _RATIO
        except ValueError:
            ratio = math.nan
        if kind == "auto" and 0.0 < ratio < math.inf:
            return ratio
    raise InputError(f'{key} must be a positive integer, "auto" or "auto:r" with a positive number r, got {sel!r}')
