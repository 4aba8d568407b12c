"""A lower bound on the time of an evaluation on a GPU, kernel by kernel, from what warps execute.

    python bench/gpu_roofline.py
    python bench/gpu_roofline.py --model medium --multiprocessors 108 --clock 1.41 --bandwidth 1.55 --csv roofline.csv

NOTHING HERE IS MEASURED. What a kernel executes is counted (`gpu_counts.py`) for 192 atoms of an equilibrated box of
water, in the form that kernels take for large systems; that lasts some minutes. A kernel takes at least as long as the
busiest of:

issue     all instructions of its warps, four per clock and multiprocessor;
fma       its multiply-adds, four warps of them per clock (two in double precision);
tensor    its products by tensor cores (with DPA2_CUDA_TENSOR=1), dense: m16n8k8 of tf32 one per clock, m8n8k4 of
          double one per two clocks, as on an H100; three of the former stand for one product of floats;
shared    its wavefronts of shared memory, one per clock;
special   exponentials, roots and reciprocals, half a warp per clock;
memory    its bytes of the device's memory, each once per launch, at the bandwidth.

What it really takes is more: latency, launches (a CUDA graph hides most of them), what caches do not hold. The last
line says what a step takes where kernels reach 60 or 75 % of the bound, as good ones do.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from common import machine, write_csv
from gpu_cases import MODELS, PRECISIONS
from gpu_counts import count

MULTIPROCESSORS, CLOCK, BANDWIDTH = 132, 1.98, 3.35  # of an H100 SXM; GHz, TB/s
GOAL = 1.0  # microseconds per atom
COUNTED = ("instructions", "fma", "tensor", "wavefronts", "special", "traffic")


@dataclass(frozen=True)
class Card:
    """What the bound depends on."""

    multiprocessors: int = MULTIPROCESSORS
    clock: float = CLOCK  # GHz
    bandwidth: float = BANDWIDTH  # TB/s

    def nanoseconds(self, row: dict[str, float], double: bool) -> dict[str, float]:
        """For each part of a multiprocessor, the time of what one atom needs of it."""
        clocks = {
            "issue": row["instructions"] / 4.0,
            "fma": row["fma"] / (2.0 if double else 4.0),
            "tensor": row["tensor"] * (2.0 if double else 1.0),
            "shared": row["wavefronts"],
            "special": 2.0 * row["special"],
        }
        times = {name: number / (self.multiprocessors * self.clock) for name, number in clocks.items()}
        return times | {"memory": row["traffic"] / (1e3 * self.bandwidth)}


def per_atom(name: str, precision: str) -> dict[str, dict[str, float]]:
    """What each kernel needs for an atom."""
    return {
        row.kernel: {key: getattr(row, key) for key in COUNTED} | {"launches": float(row.launches)}
        for row in count(name, precision, real=True).rows[1:]
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Lower bound of an evaluation on a GPU. Nothing is measured.")
    parser.add_argument("--model", choices=MODELS, default="medium")
    parser.add_argument("--precision", choices=PRECISIONS, default="float")
    parser.add_argument("--multiprocessors", type=int, default=MULTIPROCESSORS, help="default: H100, 132")
    parser.add_argument("--clock", type=float, default=CLOCK, help="GHz (default: H100, 1.98)")
    parser.add_argument("--bandwidth", type=float, default=BANDWIDTH, help="TB/s (default: H100, 3.35)")
    parser.add_argument("--csv", help="append the rows to this file")
    args = parser.parse_args()
    card = Card(args.multiprocessors, args.clock, args.bandwidth)
    print("A BOUND FROM COUNTED INSTRUCTIONS, NOT A MEASUREMENT: no kernel takes less time than this, all take more.")
    rows: list[dict[str, Any]] = []
    bounds = {}
    for kernel, row in per_atom(args.model, args.precision).items():
        times = card.nanoseconds(row, args.precision == "double")
        bounds[kernel] = (max(times.values()), max(times, key=lambda part: times[part]), times, row)
    print(f"{'kernel':<28}{'launches':>9}{'ns/atom':>9}  bound by   {'of it fma':>9}{'kB/atom':>9}")
    for kernel, (bound, part, times, row) in sorted(bounds.items(), key=lambda item: -item[1][0]):
        share = times["fma"] / bound if bound else 0.0
        print(f"{kernel:<28}{row['launches']:>9.0f}{bound:>9.2f}  {part:<10}{share:>10.0%}{row['traffic'] / 1e3:>9.2f}")
        rows.append(
            {
                **machine(),
                "kind": "bound, not measured",
                "model": args.model,
                "precision": args.precision,
                "kernel": kernel,
                "launches": int(row["launches"]),
                "ns_per_atom": f"{bound:.5g}",
                "bound": part,
                **{f"{name}_per_atom": f"{row[name]:.6g}" for name in COUNTED},
            }
        )
    whole = sum(bound for bound, *_ in bounds.values())
    fma = sum(times["fma"] for _, _, times, _ in bounds.values())
    launches = sum(row["launches"] for *_, row in bounds.values())
    print(f"{launches:.0f} launches; at least {whole / 1e3:.3f} us per atom (goal: {GOAL:g})", end="")
    print(f", of multiply-adds alone {fma / 1e3:.3f}")
    print(f"estimated, at 75 to 60 % of the bound: {whole / 750:.2f} to {whole / 600:.2f} us per atom")
    if args.csv:
        write_csv(args.csv, rows)


if __name__ == "__main__":
    main()
