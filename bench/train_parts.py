"""Where the time of a training step goes: seconds per step by part.

    python bench/train_parts.py input.json --precision float32 --threads 2 --csv parts.csv

The input is that of `dpa2 train`; its lines, curve and checkpoints are left out. The parts of a step follow one
another: waiting for the batch, the gradient (forward, forces, loss, and back through all of them), the optimizer with
the bound on the norm, and the new parameters in the engine (folds, packing, series). Beside them stand two
yardsticks, of the same frames and interleaved with the steps: an evaluation with forces and virials, and the gradient
of a loss of energies alone, which needs no second derivatives.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import dpa2
from common import machine, write_csv
from dpa2 import train
from train_run import shortened

ENERGIES = {"type": "ener", **{f"{end}_pref_{key}": float(key == "e") for end in ("start", "limit") for key in "efv"}}
PARTS = ("batch", "gradient", "optimizer", "parameters")


class Times:
    """Seconds of every call, by name."""

    def __init__(self) -> None:
        self.found: defaultdict[str, list[float]] = defaultdict(list)

    def of(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose time is noted."""

        def noted(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = call(*args, **kwargs)
            self.found[name].append(time.perf_counter() - start)
            return result

        return noted

    def median(self, name: str) -> float:
        """Of all but the first third, in which memory is still being taken."""
        return statistics.median(self.found[name][len(self.found[name]) // 3 :])


def measure(path: Path, steps: int, precision: str | None, threads: int) -> Times:
    """Do steps of a training, each of them followed by the yardsticks."""
    times = Times()
    preparation = train.from_input(shortened(path, steps, precision))
    trainer = preparation.trainer(threads=threads)
    (task,), (engine,) = trainer.tasks.values(), trainer._engines.values()
    last: list[Any] = []

    def batch(call: Callable[[], Any] = task.training.next) -> Any:
        last[:] = [call()]
        return last[0]

    task.training.next = times.of("batch", batch)  # type: ignore[method-assign]
    plain = engine.gradient
    engine.gradient = times.of("gradient", plain)  # type: ignore[method-assign]
    trainer.optimizer.step = times.of("optimizer", trainer.optimizer.step)  # type: ignore[method-assign]
    trainer._assign = times.of("parameters", trainer._assign)  # type: ignore[method-assign]
    step = times.of("step", trainer.step)
    energies = times.of("gradient of energies", plain)
    model = dpa2.Model(task.data, precision=cast(Any, precision), threads=threads)
    evaluate = times.of("evaluation", model.evaluate)
    for _ in range(steps):
        step()
        energies(last[0], ENERGIES, 1e-3)
        evaluate(last[0]["coord"], last[0]["atype"][0], last[0]["box"])
    return times


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="The parts of a step of dpa2 train.")
    parser.add_argument("input", type=Path, help="input of deepmd-kit, .json")
    parser.add_argument("--precision", choices=("float64", "float32"), help="of the model (default: as the input says)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--csv", help="append a row to this file")
    args = parser.parse_args()
    args.input = args.input.resolve()
    times = measure(args.input, args.steps, args.precision, args.threads)
    whole = times.median("step")
    seconds = {name: times.median(name) for name in PARTS}
    seconds["rest"] = whole - sum(seconds.values())
    print(f"step {whole:.4f} s")
    for name, value in seconds.items():
        print(f"  {name:<12} {value:8.4f} s {100 * value / whole:5.1f} %")
    yardsticks = {name: times.median(name) for name in ("evaluation", "gradient of energies")}
    for name, value in yardsticks.items():
        print(f"{name} {value:.4f} s: the gradient takes {seconds['gradient'] / value:.2f} times as long")
    if args.csv:
        row: dict[str, Any] = {**machine(), "input": args.input.name, "precision": args.precision or "as given"}
        row |= {"threads": args.threads, "step_s": round(whole, 5)}
        row |= {f"{name.replace(' ', '_')}_s": round(value, 5) for name, value in (seconds | yardsticks).items()}
        write_csv(args.csv, [row])


if __name__ == "__main__":
    main()
