"""What the benchmarks share: structures, the machine and the commit they ran on, tables and CSV files."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from dpa2.cli.bench import replicate, water_box
from dpa2.data import Frame, read_structures
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Structure:
    """Atoms in a box: coords (n, 3) and box (3, 3) in angstrom, types (n,) as indices into a model's type map."""

    coords: NDArray[np.float64]
    types: NDArray[np.int32]
    box: NDArray[np.float64] | None
    name: str

    def save(self, path: Path) -> None:
        """As .npz, for another interpreter."""
        arrays: dict[str, Any] = {"coords": self.coords, "types": self.types}
        if self.box is not None:
            arrays["box"] = self.box
        np.savez(path, **arrays)


def stricter(known: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """New limits of a kernel of which none is easier to keep than before: shares are at least, all else is at most.

    An exception that the kernel had before and needs no more is left out, one that it did not have is not made.
    """
    out: dict[str, Any] = {}
    for name, value in found.items():
        if name not in known:
            continue
        if isinstance(value, Mapping):
            out[name] = {key: max(share, known[name][key]) for key, share in value.items() if key in known[name]}
        else:
            out[name] = max(value, known[name]) if name == "fma_share" else min(value, known[name])
    return out


def copies(text: str) -> tuple[int, int, int]:
    """The argument of --replicate: "2", or "2x2x3"."""
    found = [int(word) for word in text.split("x")]
    if len(found) not in (1, 3) or min(found) < 1:
        raise ValueError(f"copies are 2 or 2x2x3, not {text}")
    return (found[0], found[0], found[0]) if len(found) == 1 else (found[0], found[1], found[2])


def add_structure_options(parser: argparse.ArgumentParser) -> None:
    """The structure and ``--replicate``."""
    parser.add_argument(
        "structure",
        nargs="?",
        help="first frame of .extxyz, deepmd/npy or .npz (coord, box, atype, type_map); default: 192 atoms of water",
    )
    parser.add_argument("--replicate", type=copies, default=(1, 1, 1), metavar="N", help="copies: 2, or 2x2x3")


def read_npz(path: str) -> Frame:
    """The first frame of an .npz file with coord, atype and, if there are any, box and type_map."""
    with np.load(path, allow_pickle=False) as z:
        coords = np.asarray(z["coord"], dtype=np.float64)
        coords = (coords[0] if coords.ndim == 3 or coords.shape[-1] != 3 else coords).reshape(-1, 3)
        box = np.asarray(z["box"], dtype=np.float64).reshape(-1, 9)[0].reshape(3, 3) if "box" in z else None
        names = tuple(str(name) for name in z["type_map"]) if "type_map" in z else None
        types = np.asarray(z["atype"], dtype=np.int32).reshape(-1)[: len(coords)]
    return Frame(coords, types, names, box, (box is not None,) * 3, where=path)


def read_structure(path: str | None, times: tuple[int, int, int], type_map: Sequence[str]) -> Structure:
    """The structure of a benchmark, replicated."""
    if path is None:
        frame = water_box()
    elif path.endswith(".npz"):
        frame = read_npz(path)
    else:
        frame = next(iter(read_structures(path)[0]))
    types, name = frame.types_in(type_map), "water_192" if path is None else Path(path).name
    if times == (1, 1, 1):
        return Structure(frame.coords, types, frame.box, name)
    if frame.box is None:
        raise SystemExit("a structure without a box cannot be replicated")
    coords, box = replicate(frame.coords, frame.box, times)
    nx, ny, nz = times
    return Structure(coords, np.tile(types, nx * ny * nz), box, f"{name} {nx}x{ny}x{nz}")


def processor() -> str:
    """The name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the source tree, with "-dirty" when files differ from it; "unknown" where there is no git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def machine() -> dict[str, Any]:
    """The columns that every CSV file begins with."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def write_csv(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a CSV file; a new file gets a header, an old one must have the same."""
    if not rows:
        return
    target, fields = Path(path), list(rows[0])
    new = not target.exists() or target.stat().st_size == 0
    if not new:
        with target.open(newline="") as handle:
            if next(csv.reader(handle)) != fields:
                raise SystemExit(f"{path} has other columns; write to another file")
    with target.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, fields)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def default_build() -> str | None:
    """A folder with the native programs: $DPA2_BENCH_BUILD, or build/ or builddir/ of the source tree."""
    for folder in (os.environ.get("DPA2_BENCH_BUILD"), ROOT / "build", ROOT / "builddir"):
        if folder and (Path(folder) / "bench" / "peak").exists():
            return str(folder)
    return None


class Service:
    """A program that is asked over and over again: a line in, a line of JSON out. What else it prints is ignored."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.messages = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.messages,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def answer(self) -> dict[str, Any]:
        """The next answer; ends the benchmark when the program is gone."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        self.fail()

    def fail(self) -> NoReturn:
        """End the benchmark with the last words of the program."""
        status = self.process.wait()
        self.messages.seek(0)
        raise SystemExit(f"{self.messages.read()[-4000:]}\n{self.name} ended with status {status}")

    def ask(self, line: str = "") -> dict[str, Any]:
        """One question and its answer."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.fail()
        return self.answer()

    def close(self) -> None:
        """Let it end."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self.process.wait()
        self.messages.close()
