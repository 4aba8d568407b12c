"""What an evaluation takes of a GPU's memory, buffer by buffer, without a GPU.

    python bench/gpu_memory.py
    python bench/gpu_memory.py --model medium --precision float --atoms 1000000

Energy, forces and virial of a periodic box of water, from the plan that an evaluation makes. The buffers are those that
are in use together where these take most; those of one name are one line. `slab` is what the plan takes for them: what
it is more than their sum is lost between them.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass

from gpu_cases import DENSITY, MODELS, PRECISIONS

ATOMS = 100_000  # of which the bytes per atom are those of large systems


@dataclass(frozen=True)
class Use:
    """Bytes."""

    constants: int
    given: int
    results: int
    slab: int
    pieces: list[tuple[str, int]]  # of the slab, at its fullest

    @property
    def total(self) -> int:
        return self.constants + self.given + self.results + self.slab


def use(name: str, precision: str, atoms: int = ATOMS, atomic: int = 0) -> Use:
    """Of a model of :data:`gpu_cases.MODELS`."""
    from dpa2._native import NativeGpuPlan
    from dpa2.files import schema

    data = MODELS[name].make()
    plan = NativeGpuPlan(json.dumps(data.config), data.weights, PRECISIONS[precision], data.checked)
    neighbors = DENSITY * 4.0 / 3.0 * math.pi * schema.rcut(data.config) ** 3
    (found,) = plan.memory(atoms, neighbors, atomic)
    return Use(*found)


def bytes_per_atom(name: str, precision: str) -> float:
    """In a large system."""
    return use(name, precision).total / ATOMS


def show(name: str, precision: str, atoms: int, atomic: int) -> None:
    """Print the table of a model."""
    found = use(name, precision, atoms, atomic)
    lines = sorted(found.pieces, key=lambda piece: -piece[1])
    print(f"\n{name}, {precision}, {atoms} atoms: {found.total / 1e9:.3f} GB; kB per atom")
    for words, size in [*lines, ("sum of these", sum(size for _, size in lines)), ("slab", found.slab),
                        ("input", found.given), ("results", found.results), ("constants", found.constants),
                        ("all", found.total)]:  # fmt: skip
        print(f"{words:<48}{size / 1e3 / atoms:>10.3f}")


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(description="Memory of an evaluation on a GPU, buffer by buffer, without one.")
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["float"])
    parser.add_argument("--atoms", type=int, default=ATOMS, help=f"of the box (default: {ATOMS})")
    parser.add_argument(
        "--atomic", type=int, choices=(0, 1, 2), default=0, help="atomic virials: of edges, deepmd-kit's"
    )
    args = parser.parse_args()
    for name in args.model:
        for precision in args.precision:
            show(name, precision, args.atoms, args.atomic)


if __name__ == "__main__":
    main()
