"""The parts of a descriptor that have neighbours of their own: under which names their options and weights are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Block(NamedTuple):
    """A part of the descriptor.

    Attributes:
        name: for people.
        section: of its options, below ``descriptor``.
        rcut, rcut_smth, sel: the keys there of its cutoff, of where its switch begins, and of how many neighbours it
            takes.
        weights: how the names of its weights begin.
    """

    name: str
    section: str
    rcut: str
    rcut_smth: str
    sel: str
    weights: str


THREE_BODY = Block(
    "three_body",
    "repinit",
    "three_body_rcut",
    "three_body_rcut_smth",
    "three_body_sel",
    "descriptor.repinit_three_body.",
)
#: those that a descriptor can have, in order
BLOCKS = (
    Block("repinit", "repinit", "rcut", "rcut_smth", "nsel", "descriptor.repinit."),
    THREE_BODY,
    Block("repformer", "repformer", "rcut", "rcut_smth", "nsel", "descriptor.repformers."),
)


def descriptor_blocks(descriptor: Mapping[str, Any]) -> list[Block]:
    """The parts that a descriptor has, by its options, every default filled in."""
    return [block for block in BLOCKS if block != THREE_BODY or descriptor["repinit"]["use_three_body"]]
