"""A lower bound on the time of an evaluation on a GPU, kernel by kernel, from counted work and counted bytes alone.

    python bench/gpu_roofline.py
    python bench/gpu_roofline.py --copies 4 --peak 19.5 --bandwidth 1.55 --csv roofline.csv

NOTHING HERE IS MEASURED. The launches are those of the host code (`gpu_plan.py`) for the published medium model of
water in float32; the neighbours are those of the box of water. A launch takes at least the time of its multiply-adds
at the peak outside of tensor cores, and at least the time of its arrays, each read or written once, at the bandwidth
of the memory. What it really takes is more: latency, launches (a CUDA graph hides most of them), arrays that are read
again, and above all operands in shared memory, which a multiprocessor reads at a quarter of the rate of multiply-adds.

Work of a kernel: the multiply-adds that it executes by its own formulas, for mean numbers of neighbours (embedding
networks as networks; products that the backward computes again included); exponentials and the like count nothing.
`counted` is the least work of the model by `flops.py`, whatever a program executes. Products of matrices are cuBLAS's.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from common import copies, machine, read_structure, write_csv
from flops import Neighbors, count, measure, total, unordered
from gpu_plan import Planned, planned_evaluation, planned_search, water_model

PEAK, BANDWIDTH = 67.0, 3.35  # TFLOP/s in float32 and TB/s of an H100 SXM
GOAL = 1.0  # microseconds per atom
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Sizes:
    """Mean neighbours of an atom, and the widths of a model."""

    near: Neighbors
    ng: int
    axis1: int
    net: float  # multiply-adds of the repinit's embedding of an edge
    n3: int
    net3: float  # of the three-body embedding of a pair
    n1: int
    n2: int
    axis: int
    heads1: int
    heads2: int
    width: int


def sizes_of(config: Mapping[str, Any], near: Neighbors) -> Sizes:
    """From the canonical configuration."""
    a, b = config["descriptor"]["repinit"], config["descriptor"]["repformer"]

    def net(neuron: list[int]) -> float:
        return float(sum(rows * columns for rows, columns in pairwise([1, *neuron])))  # types are tables

    return Sizes(
        *(near, a["neuron"][-1], a["axis_neuron"], net(a["neuron"]), a["three_body_neuron"][-1]),
        *(net(a["three_body_neuron"]), b["g1_dim"], b["g2_dim"], b["axis_neuron"], b["attn1_nhead"], b["attn2_nhead"]),
        config["fitting_net"]["neuron"][-1],
    )


def work(launch: Planned, s: Sizes) -> float:
    """Multiply-adds per atom of a launch."""
    n, squared = s.near.repformer, s.near.repformer_squared
    if launch.kernel.startswith("symmetrization"):
        moments = 3.0 * (n + s.axis) * (launch.shared // (3 * FLOAT))  # its shared memory is one row of moments
        return 2 * moments if launch.kernel.endswith("backward") else moments
    moments1 = 4.0 * s.ng * (s.near.repinit + s.axis1)
    pairs3 = unordered(s.near.three_body, s.near.three_body_squared)
    maps, pairs = s.heads2 * n * s.n2**2, s.heads2 * squared
    table = {
        "repinit": s.near.repinit * s.net + moments1,
        "repinit_backward": 2 * (s.near.repinit * s.net + moments1),
        "three_body": pairs3 * (s.net3 + s.n3 + 3),
        "three_body_backward": pairs3 * (2 * s.net3 + 2 * s.n3 + 6),
        "g2_embed": n * s.n2,
        "g2_embed_backward": n * s.n2,
        "conv": n * (s.n1 * s.n2 + s.n1 + s.n2),
        "conv_backward": n * (2 * s.n1 * s.n2 + 2 * (s.n1 + s.n2)),
        "conv_node": 2.0 * n * s.n2,
        "conv_node_backward": 4.0 * n * s.n2,
        "g1g1": n * s.n1 * (s.n2 + 2),
        "g1g1_backward": n * s.n1 * (s.n2 + 4),
        "pair_attention": 2 * maps + pairs * (2 * s.n2 + 4),
        "pair_attention_backward": 4 * maps + pairs * (5 * s.n2 + 11),
        "local_attention": n * s.heads1 * (2 * s.n1 + 4),
        "local_attention_backward": n * s.heads1 * (5 * s.n1 + 11),
        "layer_norm": 3.0 * n * s.n2,
        "layer_norm_backward": 4.0 * n * s.n2,
        "sum_incoming": 0.5 * n * s.n1,
        "fitting_energy": float(s.width),
        "assemble": 12.0 * s.near.repinit,
        "env_mat": 10.0 * launch.threads * launch.blocks,
        "env_mat_backward": 20.0 * launch.threads * launch.blocks,
    }
    return table.get(launch.kernel, 0.0)


def traffic(launch: Planned, s: Sizes, natoms: int) -> float:
    """Bytes that a launch must move: every array once, but only those columns and rows that it touches."""
    moments = launch.shared // (3 * FLOAT)
    edges = launch.blocks * launch.threads
    touched = {
        ("symmetrization", "gram"): natoms * s.axis * moments * FLOAT,
        ("symmetrization_backward", "dgram"): natoms * s.axis * moments * FLOAT,
        ("env_mat", "d"): 24 * edges,
        ("env_mat", "r"): 8 * edges,
        ("env_mat", "centre"): 4 * edges,
        ("env_mat_backward", "d"): 24 * edges,
        ("env_mat_backward", "r"): 8 * edges,
        ("env_mat_backward", "centre"): 4 * edges,
        ("env_mat_backward", "gamma"): 3 * FLOAT * edges,
        ("three_body", "D"): natoms * s.n3 * FLOAT,
        ("three_body_backward", "dD"): natoms * s.n3 * FLOAT,
        ("repinit", "D"): natoms * s.ng * s.axis1 * FLOAT,
        ("repinit_backward", "dD"): natoms * s.ng * s.axis1 * FLOAT,
        ("three_body", "j"): 4 * edges,
        ("three_body_backward", "j"): 4 * edges,
    }
    columns = natoms * s.n1 * FLOAT if launch.kernel == "copy_columns" else None
    most = (
        (min(size, touched.get((launch.kernel, name), size)) if columns is None else min(size, columns))
        for name, size in launch.arrays
    )
    return float(sum(most))


@dataclass
class Line:
    """What launches of one name need together, per atom."""

    launches: int = 0
    flops: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0


def table_of(launches: list[Planned], s: Sizes, natoms: int, peak: float, bandwidth: float) -> dict[str, Line]:
    """Lines by kernel; peak in FLOP/s, bandwidth in bytes/s."""
    lines: dict[str, Line] = {}
    for launch in launches:
        per_atom = launch.flops / natoms if launch.flops else 2.0 * work(launch, s)
        if launch.kernel.startswith("env_mat"):
            per_atom /= natoms  # counted by threads
        moved = traffic(launch, s, natoms) / natoms
        line = lines.setdefault(launch.kernel, Line())
        line.launches += 1
        line.flops += per_atom
        line.bytes += moved
        line.seconds += max(per_atom / peak, moved / bandwidth)
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Roofline bound of an evaluation on a GPU. Nothing is measured.")
    parser.add_argument("--copies", type=copies, nargs="+", default=[(1, 1, 1), (4, 4, 4), (8, 8, 8)], metavar="N")
    parser.add_argument("--peak", type=float, default=PEAK, help="TFLOP/s in float32 (default: H100, 67)")
    parser.add_argument("--bandwidth", type=float, default=BANDWIDTH, help="TB/s (default: H100, 3.35)")
    parser.add_argument(
        "--search", action="store_true", help="also the neighbour lists, as if they were built each step"
    )
    parser.add_argument("--csv", help="append the rows to this file")
    args = parser.parse_args()
    peak, bandwidth = 1e12 * args.peak, 1e12 * args.bandwidth
    model, rows, here = water_model(), [], machine()
    config: dict[str, Any] = model.config
    print("A BOUND FROM COUNTED WORK, NOT A MEASUREMENT: no kernel takes less time than this, all take more.")
    print(f"medium model of water, float32, energy + forces + virial; {args.peak:g} TFLOP/s, {args.bandwidth:g} TB/s")
    for times in args.copies:
        structure = read_structure(None, times, config["type_map"])
        natoms = len(structure.types)
        near = measure(config, structure.coords, structure.types, structure.box)
        launches = planned_evaluation(model, "float32", structure)
        if args.search:
            launches = [*planned_search(model, structure), *launches]
        lines = table_of(launches, sizes_of(config, near), natoms, peak, bandwidth)
        print(f"\n{natoms} atoms; neighbours: repinit {near.repinit:.1f}, repformer {near.repformer:.1f}")
        print(f"{'kernel':<26}{'launches':>9}{'kFLOP/atom':>12}{'kB/atom':>9}{'FLOP/byte':>11}{'ns/atom':>9}  bound")
        for name, line in sorted(lines.items(), key=lambda item: -item[1].seconds):
            bound = "multiply-adds" if line.flops / peak >= line.bytes / bandwidth else "memory"
            print(
                f"{name:<26}{line.launches:>9}{line.flops / 1e3:>12.1f}{line.bytes / 1e3:>9.2f}"
                f"{line.flops / line.bytes:>11.1f}{1e9 * line.seconds:>9.2f}  {bound}"
            )
            rows.append(
                {
                    **here,
                    "kind": "bound, not measured",
                    "atoms": natoms,
                    "kernel": name,
                    "launches": line.launches,
                    "flops_per_atom": f"{line.flops:.6g}",
                    "bytes_per_atom": f"{line.bytes:.6g}",
                    "ns_per_atom": f"{1e9 * line.seconds:.5g}",
                    "bound": bound,
                }
            )
        seconds = sum(line.seconds for line in lines.values())
        counted = total(count(config, near)).flops
        print(
            f"{'sum':<26}{len(launches):>9}{sum(line.flops for line in lines.values()) / 1e3:>12.1f}"
            f"{sum(line.bytes for line in lines.values()) / 1e3:>9.2f}{'':>11}{1e9 * seconds:>9.2f}"
        )
        print(
            f"bound {1e6 * seconds:.3f} us per atom (goal: {GOAL:g}); counted work alone {1e6 * counted / peak:.3f} "
            f"({counted / 1e6:.1f} MFLOP per atom)"
        )
    structure = read_structure(None, (1, 1, 1), config["type_map"])
    fewer = planned_evaluation(water_model(config["descriptor"]["repformer"]["nlayers"] - 1), "float32", structure)
    more = planned_evaluation(model, "float32", structure)
    search = planned_search(model, structure)
    print(
        f"\n{len(more)} launches a step: {len(more) - len(fewer)} for each layer (goal: at most 25), "
        f"{len(search)} more where the neighbour lists are built; copies and fills by the array library are not counted"
    )
    if args.csv:
        write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
