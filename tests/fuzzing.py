"""Mutated files, read in a child process that is watched: what dies, hangs, raises foreign errors, takes memory.

The child imports a reader by its name, ``module:function`` below this folder, and calls it with one path after the
other. What becomes of a path is one of `OUTCOMES`; only "read" and "refused" are right. A reader returns, or raises
one of `Reader.allowed`. Used by hand (see `main`) and, for a few files, by tests.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

#: what can become of a file, the right ones first
OUTCOMES = ("read", "refused", "foreign", "crash", "hang", "memory")
SECONDS = 10.0
#: the most that a file may add to the peak memory of the process, and the limit that keeps the machine alive
MOST_MEMORY = 2**30
LIMIT = 4 * 2**30
_RESTART_AFTER = 2000  # files of one child, so that what it keeps cannot be blamed on a file

#: writes a mutated input below an empty folder; returns its kind, for the counts, and its path
Make = Callable[[np.random.Generator, Path], tuple[str, str]]


# ------------------------------------------------------------------------------------------------------- mutations

_NUMBERS = (
    b"0", b"-1", b"1", b"2", b"3", b"1e999", b"nan", b"-inf", b"1e-320", b"2147483648", b"4294967295", b"1000000000",
    b"9223372036854775807", b"18446744073709551616", b"99999999999999999999", b"9" * 400, b"9" * 5000, b"1_0", b"0x10",
    b"", b"+", b".", b"1e5", b"3.0", b"\xd9\xa3", b"\xc2\xb2",
)  # fmt: skip
_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF, 0x0A, 0x20, 0x22, 0x27, 0x28, 0x29, 0x3D, 0x5B, 0x7B)


def _number(rng: np.random.Generator, data: bytearray) -> None:
    """Another number in place of one that stands there as text."""
    digits = [k for k, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if not digits:
        return
    start = end = int(rng.choice(digits))
    while start > 0 and (data[start - 1 : start].isalnum() or data[start - 1] in b".+-_"):
        start -= 1
    while end < len(data) and (data[end : end + 1].isalnum() or data[end] in b".+-_"):
        end += 1
    data[start:end] = _NUMBERS[rng.integers(len(_NUMBERS))]


def _integer(rng: np.random.Generator, data: bytearray) -> None:
    """Another binary integer somewhere."""
    width = int(rng.choice([1, 2, 4, 8]))
    values = (0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), int(rng.integers(256)))
    at = int(rng.integers(max(1, len(data) - width)))
    data[at : at + width] = values[rng.integers(len(values))].to_bytes(width, "little" if rng.random() < 0.8 else "big")


def _span(rng: np.random.Generator, size: int) -> slice:
    length = int(rng.integers(1, 2 ** int(rng.integers(1, 10))))
    start = int(rng.integers(max(1, size)))
    return slice(start, min(size, start + length))


def mutate(rng: np.random.Generator, original: bytes, other: bytes = b"") -> bytes:
    """A few random changes; ``other`` is what pieces may come from besides the file itself."""
    data = bytearray(original)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 6]))):
        kind = rng.integers(11)
        if kind == 0 and data:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        elif kind == 1 and data:
            data[rng.integers(len(data))] = _BYTES[rng.integers(len(_BYTES))]
        elif kind in (2, 3):
            _number(rng, data)
        elif kind == 4:
            _integer(rng, data)
        elif kind == 5:
            del data[_span(rng, len(data))]
        elif kind == 6:
            part = data[_span(rng, len(data))]
            at = int(rng.integers(len(data) + 1))
            data[at:at] = part * int(rng.choice([1, 1, 2, 50]))
        elif kind == 7 and rng.random() < 0.4:
            del data[int(rng.integers(len(data) + 1)) :]
        elif kind == 8 and other:
            at = int(rng.integers(len(data) + 1))
            data[at:at] = other[_span(rng, len(other))]
        elif kind == 9:  # a line doubled, moved or gone
            lines = data.split(b"\n")
            line = lines[rng.integers(len(lines))] if rng.random() < 0.5 else lines.pop(rng.integers(len(lines)))
            if rng.random() < 0.7:
                lines.insert(int(rng.integers(len(lines) + 1)), line)
            data = bytearray(b"\n".join(lines))
        elif kind == 10:  # a word in place of another
            words = data.split(b" ")
            words[rng.integers(len(words))] = words[rng.integers(len(words))]
            data = bytearray(b" ".join(words))
    return bytes(data)


# ----------------------------------------------------------------------------------------------------------- child


def _status(name: str) -> int:
    """A size of this process in bytes, from the kernel."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def serve(reader: str, allowed: Sequence[str]) -> None:
    """Read paths from stdin, one a line; answer each with its outcome and a detail."""
    import warnings

    module, _, function = reader.partition(":")
    read = getattr(importlib.import_module(module), function)
    errors: list[type[BaseException]] = []
    for name in allowed:
        package, _, attribute = name.rpartition(".")
        errors.append(getattr(importlib.import_module(package), attribute))
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what readers print is no answer
        os.dup2(nowhere, stream)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (_status("VmData") + LIMIT,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        _reset_peak()
        before = _status("VmRSS")
        kind, detail = "read", ""
        try:
            read(line.rstrip("\n"))
        except tuple(errors) as error:
            kind, detail = "refused", f"{type(error).__name__}: {error}"
        except MemoryError as error:
            kind, detail = "memory", f"MemoryError: {error}"
        except BaseException as error:
            kind, detail = "foreign", f"{type(error).__name__}: {error}"
        grown = _status("VmHWM") - before
        if grown > MOST_MEMORY:
            kind, detail = "memory", f"{grown / 2**20:.0f} MB"
        answers.write(f"{kind}\t{detail[:300]!r}\n")
        answers.flush()


class Child:
    """The process that reads; started anew when it has ended."""

    def __init__(self, reader: str, allowed: Sequence[str]) -> None:
        self.command = [sys.executable, __file__, "--serve", reader, *allowed]
        self.process: subprocess.Popen[str] | None = None
        self.files = 0

    def _start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        folder = str(Path(__file__).parent)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            self.command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the reader does not start: {' '.join(self.command)}")
        return process

    def outcome(self, path: str) -> tuple[str, str]:
        """What becomes of a path, and details."""
        if self.files >= _RESTART_AFTER:
            self.end()
        if self.process is None:
            self.process, self.files = self._start(), 0
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        self.files += 1
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], SECONDS)[0]:
            self.end()
            return "hang", f"no answer within {SECONDS:g} s"
        line = process.stdout.readline()
        if not line:
            status = process.wait()
            self.end()
            return "crash", f"the process ended with status {status}"
        kind, _, detail = line.rstrip("\n").partition("\t")
        if kind == "memory":  # it may have grown for good
            self.end()
        return kind, detail

    def end(self) -> None:
        """Kill it, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


# ---------------------------------------------------------------------------------------------------------- driver


@dataclass
class Report:
    """Outcomes by kind of file, and the files that fared wrong."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[tuple[str, str, str, str]] = field(default_factory=list)  # kind, outcome, detail, path

    def lines(self) -> list[str]:
        """A table."""
        kinds = sorted({kind for kind, _ in self.counts})
        head = f"{'kind':24}" + "".join(f"{name:>9}" for name in OUTCOMES)
        rows = [(kind, [self.counts[kind, name] for name in OUTCOMES]) for kind in kinds]
        rows.append(("all", [sum(column) for column in zip(*(row for _, row in rows), strict=True)]))
        return [head, *(f"{kind:24}" + "".join(f"{number:9d}" for number in row) for kind, row in rows)]


def fuzz(
    reader: str,
    make: Make,
    seeds: Iterable[int],
    allowed: Sequence[str] = ("dpa2.Error", "builtins.OSError"),
    keep: Path | None = None,
) -> Report:
    """Read one mutated input per seed.

    Args:
        reader: ``module:function``, as importable from this folder.
        make: writes an input; the same seed gives the same one.
        allowed: full names of the errors that are no fault.
        keep: a folder for the inputs that fared wrong.
    """
    report, child = Report(), Child(reader, allowed)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for seed in seeds:
                folder = Path(scratch) / f"{seed}"
                folder.mkdir()
                kind, path = make(np.random.default_rng(seed), folder)
                outcome, detail = child.outcome(path)
                report.counts[kind, outcome] += 1
                if outcome not in ("read", "refused"):
                    if keep is not None:
                        shutil.copytree(folder, keep / f"{seed}", dirs_exist_ok=True, symlinks=True)
                        path = path.replace(str(folder), str(keep / f"{seed}"))
                    report.wrong.append((kind, outcome, detail, path))
                shutil.rmtree(folder)
    finally:
        child.end()
    return report


def main(reader: str, make: Make, description: str) -> int:
    """The command line of a script that fuzzes: how many files, from which seed on."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("files", type=int, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the first one (default: 0)")
    parser.add_argument("--keep", type=Path, help="a folder for the files that fare wrong")
    args = parser.parse_args()
    start = time.monotonic()
    report = fuzz(reader, make, range(args.seed, args.seed + args.files), keep=args.keep)
    print("\n".join(report.lines()))
    print(f"{time.monotonic() - start:.0f} s")
    for kind, outcome, detail, path in report.wrong:
        print(f"{outcome}: {kind}: {path}: {detail}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    assert sys.argv[1] == "--serve"
    serve(sys.argv[2], sys.argv[3:])
