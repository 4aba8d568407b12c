"""Hybrid descriptors: several beside each other, each with a list of its own (theory 16).

    desc_i, R_i = those of the descriptors one after the other, in the order of the file

All lists are cut from one: within the largest cutoff, as long as the longest of them. Its slots are the neighbours in
the order of distances.

* dpa2 takes the first nsel slots, and of them those within its cutoff, as by itself.
* dpa1 takes the first nsel slots. Those beyond its cutoff are padded slots with the type of their neighbour; pairs that
  the model excludes, and slots that are not there, padded slots with the type of atom 0.
* se_e2_a takes, of every type a, the first sel[a] of the slots with such a neighbour that the model does not exclude;
  those beyond its cutoff, and what is missing of sel[a], are padded slots with the type a.

Pairs that a descriptor excludes take their slots and add nothing, not even padding. A hybrid descriptor in another one
sees the first slots of it, as many as its own longest list has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpa2.errors import InputError
from dpa2.remarks import Remarks

from . import neighbors
from .common import Array, Config, IntArray, Weights
from .network import Network
from .se_block import se_block
from .type_embedding import type_embedding


@dataclass(frozen=True)
class Lists:
    """The lists of all descriptors, and their edges one after the other."""

    parts: list[neighbors.Edges]
    pads: list[IntArray | None]  # (n, ntypes) of each that is no dpa2
    remarks: Remarks

    def _joined(self, name: str) -> Array:
        return np.concatenate([getattr(edges, name) for edges in self.parts])

    @property
    def centre(self) -> IntArray:
        return self._joined("centre")

    @property
    def j(self) -> IntArray:
        return self._joined("j")

    @property
    def d(self) -> Array:
        return self._joined("d")


class Block:
    """se_e2_a or dpa1 in a hybrid descriptor; ``config`` has its options under "descriptor"."""

    def __init__(self, config: Config, weights: Weights, kept: int) -> None:
        self.config, self.kept = config, kept
        renamed = {
            name.replace("descriptor.sea.", "descriptor.repinit.").replace(
                "descriptor.se_atten.", "descriptor.repinit."
            ): w
            for name, w in weights.items()
        }
        self.weights = Weights(renamed, weights.prefix)
        self.option = option = config["descriptor"]
        self.tebd = type_embedding(config, weights) if option["type"] == "dpa1" else None
        sel = option["sel"]
        self.reach: tuple[float, int] = (option["rcut"], sel if isinstance(sel, int) else sum(sel))
        self.concat = self.tebd is not None and option["concat_output_tebd"]

    @property
    def descriptor_dim(self) -> int:
        own = self.option["neuron"][-1] * self.option["axis_neuron"]
        return int(own + (self.option["tebd_dim"] if self.concat else 0))

    def lists(
        self, slots: tuple[Array, ...], types: IntArray, exclude: list[list[int]]
    ) -> tuple[neighbors.Edges, IntArray]:
        """Its list and its pads, from slots of the whole: centre, neighbour, image, displacement, distance, rank."""
        centre, j, image, d, r, rank = slots
        n, ntypes, option = len(types), len(self.config["type_map"]), self.option
        a = types[j]
        by_model = neighbors.exclusion_mask(exclude, ntypes)[types[centre], a]
        by_descriptor = neighbors.exclusion_mask(option["exclude_types"], ntypes)[types[centre], a]
        near = r <= option["rcut"] + neighbors.DISTANCE_TOLERANCE
        seen = rank < (self.kept or len(rank) + 1)
        if isinstance(option["sel"], int):
            taken = seen & (rank < option["sel"])
            pads = np.zeros((n, ntypes), dtype=np.int64)
            used = np.bincount(centre[taken & ~by_model], minlength=n)
            if n:
                pads[:, max(0, int(types[0]))] = option["sel"] - used
            np.add.at(
                pads,
                (centre[taken & ~by_model & ~by_descriptor & ~near], a[taken & ~by_model & ~by_descriptor & ~near]),
                1,
            )
        else:
            seen &= ~by_model
            place = np.zeros(len(rank), dtype=np.int64)  # among those of its type
            for k in range(ntypes):
                own = seen & (a == k)
                count = np.cumsum(own)
                before = np.concatenate([[0], count])[np.searchsorted(centre, np.arange(n))] if n else count
                place[own] = count[own] - 1 - before[centre[own]]
            taken = seen & (place < np.asarray(option["sel"])[a])
            pads = np.tile(np.asarray(option["sel"]), (n, 1))
            np.add.at(pads, (centre[taken & (near | by_descriptor)], a[taken & (near | by_descriptor)]), -1)
        stored = taken & ~by_model & ~by_descriptor & near
        none = np.zeros(n, dtype=np.int64)
        if option["env_protection"] == 0.0 and (stored & (r <= neighbors.DISTANCE_TOLERANCE)).any():
            pair = int(np.argmax(stored & (r <= neighbors.DISTANCE_TOLERANCE)))
            raise InputError(f"atoms {centre[pair]} and {j[pair]} are at the same position")
        edges = neighbors.Edges(
            start=np.concatenate([[0], np.cumsum(np.bincount(centre[stored], minlength=n))]),
            j=j[stored], d=d[stored], r=r[stored], image=image[stored],
            n_three=none, n_repformer=none, pad_repinit=none, pad_three=none,
            remarks=Remarks(
                self._overflow(centre, a, near & seen, n, ntypes),
                neighbors.closest(centre[stored], j[stored], r[stored]),
            ),
        )  # fmt: skip
        return edges, pads

    def _overflow(
        self, centre: IntArray, a: IntArray, near: Array, n: int, ntypes: int
    ) -> list[tuple[str, int, int, int]]:
        sel = self.option["sel"]
        counts = np.zeros((n, ntypes), dtype=np.int64)
        np.add.at(counts, (centre[near], a[near]), 1)
        wanted = np.asarray(sel)[None, :] if not isinstance(sel, int) else np.array([[sel]])
        counts = counts if not isinstance(sel, int) else counts.sum(axis=1, keepdims=True)
        beyond = np.where(wanted > 0, counts - wanted, 0)
        if not n or beyond.max() <= 0:
            return []
        atom, column = divmod(int(beyond.argmax()), beyond.shape[1])
        return [(self.option["type"], atom, int(counts[atom, column]), int(wanted[0, column]))]

    def descriptor(self, edges: neighbors.Edges, pads: IntArray, types: IntArray, d: Array) -> tuple[Array, Array]:
        """As ``Network.descriptor``."""
        if len(types) == 0:
            return np.zeros((0, self.descriptor_dim)), np.zeros((0, self.option["neuron"][-1], 3))
        out, rotation = se_block(edges.edge_list(d), pads, types, self.tebd, self.option, self.weights)
        if self.concat and self.tebd is not None:
            out = np.concatenate([out, self.tebd[types]], axis=1)
        return out, rotation


class HybridNetwork(Network):
    """A hybrid descriptor and a fitting net on it; config with the pair_exclude_types of the whole model."""

    def __init__(self, config: Config, weights: Weights) -> None:
        self.config, self.weights = config, weights
        self.parts: list[Network | Block] = []
        self._add(config["descriptor"], "descriptor.", 0)
        reaches = [part.reach for part in self.parts]
        self.reach = (max(rcut for rcut, _ in reaches), max(nsel for _, nsel in reaches))

    def _add(self, hybrid: Config, prefix: str, kept: int) -> None:
        """Append the descriptors of a hybrid one, which sees ``kept`` slots, 0: all."""
        for k, member in enumerate(hybrid["list"]):
            name = f"{prefix}descrpt_list.{k}."
            if member["type"] == "hybrid":
                own = longest(member)
                self._add(member, name, min(own, kept) if kept else own)
                continue
            weights = Weights({f"descriptor.{key}": w for key, w in self.weights.part(name).items()}, name)
            config = {**self.config, "descriptor": member}
            self.parts.append(Network(config, weights) if member["type"] == "dpa2" else Block(config, weights, kept))

    @property
    def descriptor_dim(self) -> int:
        return sum(part.descriptor_dim for part in self.parts)

    def build(
        self, coords: Array, types: IntArray, box: Array | None, pbc: tuple[bool, bool, bool],
        others: Sequence[tuple[float, int]] = (),
    ) -> Lists:  # fmt: skip
        """The lists of all descriptors; arguments as for ``neighbors.build``."""
        rcut, nsel = self.reach
        # what has cut the list of the whole cuts the others
        beyond = [pair for pair in others if pair >= self.reach]
        centre, j, image, d, r, shell = neighbors.candidates(coords, types, box, pbc, rcut)
        rank = np.arange(len(centre)) - np.searchsorted(centre, np.arange(len(coords)))[centre]
        in_whole = (rank < nsel) & neighbors.not_cut(self.reach, beyond, rank, shell)
        slots = tuple(x[in_whole] for x in (centre, j, image, d, r, rank))
        parts: list[neighbors.Edges] = []
        pads: list[IntArray | None] = []
        for part in self.parts:
            if isinstance(part, Network):
                parts.append(neighbors.build(coords, types, box, pbc, part.config, beyond))
                pads.append(None)
            else:
                edges, own = part.lists(slots, types, self.config["pair_exclude_types"])
                parts.append(edges)
                pads.append(own)
        return Lists(parts, pads, self._remarks(parts, np.bincount(centre, minlength=len(coords))))

    def _remarks(self, parts: list[neighbors.Edges], count: IntArray) -> Remarks:
        """Of every kind of block the worst; the list of the whole where it is nobody's."""
        worst: dict[str, tuple[str, int, int, int]] = {}
        said = False
        for part, edges in zip(self.parts, parts, strict=True):
            for entry in edges.remarks.overflow:
                known = worst.get(entry[0])
                if known is None or entry[2] - entry[3] > known[2] - known[3]:
                    worst[entry[0]] = entry
                said |= entry[0] == "repinit" and part.reach[0] == self.reach[0]
        if len(count) and count.max() > self.reach[1] and not said:
            worst["hybrid"] = ("hybrid", int(count.argmax()), int(count.max()), self.reach[1])
        closest = [edges.remarks.closest for edges in parts if edges.remarks.closest is not None]
        return Remarks(list(worst.values()), min(closest, key=lambda pair: pair[2], default=None))

    def descriptor(self, edges: Any, types: IntArray, d: Array | None = None) -> tuple[Array, Array]:
        whole = edges.d if d is None else d
        ends = np.cumsum([len(own.j) for own in edges.parts])[:-1]
        out = []
        for part, own, pads, vectors in zip(self.parts, edges.parts, edges.pads, np.split(whole, ends), strict=True):
            if isinstance(part, Network):
                out.append(part.descriptor(own, types, vectors))
            else:
                out.append(part.descriptor(own, pads, types, vectors))
        return np.concatenate([one for one, _ in out], axis=1), np.concatenate([one for _, one in out], axis=1)


def longest(hybrid: Config) -> int:
    """The most slots of a descriptor in a hybrid one."""
    return max(
        longest(one)
        if one["type"] == "hybrid"
        else one["repinit"]["nsel"]
        if one["type"] == "dpa2"
        else int(np.sum(one["sel"]))
        for one in hybrid["list"]
    )
