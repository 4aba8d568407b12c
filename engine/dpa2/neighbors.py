"""How many neighbours atoms have, and how close they come: what ``sel`` a model needs, and whether data are sound."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .blocks import descriptor_blocks
from .data import Frame
from .errors import EvaluationError, InputError
from .files import schema
from .inputs import Float, Int
from .model import Model


def cutoffs(model: Model) -> dict[str, tuple[float, int]]:
    """The blocks of a model: cutoff in angstrom, and how many neighbours it takes (``sel``).

    Those of a combination, and of a hybrid descriptor, have the number of the part in their names. In a spin model
    ``sel`` is for the virtual atoms as well, that of the atom itself among them: what is left for atoms is less than
    half.
    """
    config = model.config
    if config.get("type") == "spin":
        return {name: (rcut, (sel - 1) // 2) for name, (rcut, sel) in _cutoffs(config["models"][0]).items()}
    found: dict[str, tuple[float, int]] = {}
    for k, part in enumerate(config.get("models", [config])):
        own = _cutoffs(part)
        found |= {f"{name} {k}": limits for name, limits in own.items()} if "models" in config else own
    return found


def _cutoffs(part: dict[str, Any]) -> dict[str, tuple[float, int]]:
    if "descriptor" not in part:
        return {"table": (part["rcut"], part["sel"])}
    found: dict[str, tuple[float, int]] = {}
    for k, descriptor in enumerate(schema.descriptors(part)):
        own = {descriptor["type"]: (descriptor["rcut"], int(np.sum(descriptor["sel"])))} if "sel" in descriptor else {}
        if descriptor["type"] == "dpa2":
            own = {
                block.name: (descriptor[block.section][block.rcut], descriptor[block.section][block.sel])
                for block in descriptor_blocks(descriptor)
            }
        found |= {f"{name} {k}": limits for name, limits in own.items()} if schema.is_hybrid(part) else own
    return found


@dataclass
class NeighborStatistics:
    """What is gathered from frame after frame.

    Args:
        type_map: the names of the types.
        rcuts: cutoffs, angstrom.

    Attributes:
        frames: how many were added.
        most: the largest number of neighbours within each cutoff, and ``where`` (frame, atom).
        most_of: (ncutoffs, ntypes): how many of them are of each type at the most.
        mean: (ncutoffs,) neighbours of an atom on average.
        closest: the smallest distance between two atoms, angstrom, within the largest cutoff; infinite if no atoms are
            so near each other. ``closest_where``: the frame and the two atoms.
    """

    type_map: Sequence[str]
    rcuts: Sequence[float]
    frames: int = 0
    most: list[int] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    closest: float = float("inf")
    closest_where: str = ""

    def __post_init__(self) -> None:
        if not self.rcuts or not all(np.isfinite(rcut) and rcut > 0 for rcut in self.rcuts):
            raise InputError(f"cutoffs must be positive numbers, got {list(self.rcuts)}")
        self.most = [0] * len(self.rcuts)
        self.where = [""] * len(self.rcuts)
        self.most_of = np.zeros((len(self.rcuts), len(self.type_map)), dtype=np.int64)
        self._sums = np.zeros(len(self.rcuts))
        self._atoms = 0

    @property
    def mean(self) -> Float:
        return self._sums / max(1, self._atoms)

    def add(self, frame: Frame) -> None:
        """Count the neighbours in a frame. Virtual atoms have none and are nobody's.

        Raises:
            EvaluationError: an unknown type, a singular box, coordinates that are not finite.
        """
        types = frame.types_in(self.type_map)
        try:
            start, j, r = all_neighbors(frame, types, max(self.rcuts), len(self.type_map))
        except InputError as error:
            raise EvaluationError(f"{frame.where}: {error}") from error
        self.frames += 1
        self._atoms += int((types >= 0).sum())
        natoms = len(frame)
        centre = np.repeat(np.arange(natoms), np.diff(start))
        if len(r) and r.min() < self.closest:
            pair = int(r.argmin())
            self.closest = float(r[pair])
            self.closest_where = f"{frame.where}, atoms {centre[pair]} and {j[pair]}"
        for c, rcut in enumerate(self.rcuts):
            near = r <= rcut
            counts = np.bincount(centre[near], minlength=natoms)
            self._sums[c] += counts.sum()
            if natoms and counts.max() > self.most[c]:
                self.most[c] = int(counts.max())
                self.where[c] = f"{frame.where}, atom {int(counts.argmax())}"
            of_type = np.zeros((natoms, len(self.type_map)), dtype=np.int64)
            np.add.at(of_type, (centre[near], types[j[near]]), 1)
            self.most_of[c] = np.maximum(self.most_of[c], of_type.max(axis=0, initial=0))


def all_neighbors(frame: Frame, types: Int, rcut: float, ntypes: int) -> tuple[Any, Any, Float]:
    """All neighbours within ``rcut`` of every atom: start (natoms + 1), j (nedges), distance (nedges) angstrom."""
    found = neighbors_of(frame, types, rcut, ntypes)
    return found["start"], found["j"], found["r"]


def neighbors_of(frame: Frame, types: Int, rcut: float, ntypes: int) -> dict[str, Any]:
    """All neighbours within ``rcut`` of every atom, the nearest first.

    Returns:
        ``start`` (natoms + 1): where those of each atom begin; of each pair ``j`` (npairs), the neighbour, ``d``
        (npairs, 3), the vector to it, and ``r`` (npairs), its length, angstrom.
    """
    from ._native import neighbors
    from .inputs import check_input

    config = _configuration(rcut, ntypes)
    batch = check_input(config, frame.coords, types, frame.box, frame.pbc, with_parameters=False)
    box = None if batch.boxes is None else batch.boxes[0]
    return neighbors(batch.coords[0], batch.types[0], box, batch.pbc, json.dumps(config))


def _configuration(rcut: float, ntypes: int) -> dict[str, Any]:
    """That of a model which drops no neighbour."""
    from .embedded import default_model

    config = default_model().config
    config["type_map"] = [str(k) for k in range(ntypes)]
    config["pair_exclude_types"], config["atom_exclude_types"] = [], []
    descriptor = config["descriptor"]
    # env_protection: atoms at the same place are counted here, and not refused
    descriptor |= {"exclude_types": [], "env_protection": 1e-6}
    descriptor["repinit"] |= {"rcut": rcut, "rcut_smth": 0.1 * rcut, "nsel": 1_000_000, "use_three_body": False}
    descriptor["repformer"] |= {"rcut": 0.5 * rcut, "rcut_smth": 0.1 * rcut, "nsel": 999_999}
    return config
