"""A short, fixed slice of `fuzz_data.py`, and the driver of it."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

import fuzz_data
import numpy as np
import pytest
from fuzzing import MOST_MEMORY, fuzz, mutate

WRITTEN = ("read", "refused", "foreign", "crash", "memory")


@pytest.mark.filterwarnings("ignore")
def test_sound_files_are_read(tmp_path: Path) -> None:
    """What is mutated is sound to begin with."""
    kinds = fuzz_data.originals()
    assert len(kinds) > 20
    for kind, files in kinds.items():
        for name, data in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        fuzz_data.read(str(tmp_path / kind.rstrip("/")))


def test_mutated_files() -> None:
    report = fuzz("fuzz_data:read", fuzz_data.make, range(400))
    assert report.wrong == []
    assert sum(report.counts.values()) == 400
    assert sum(count for (_, outcome), count in report.counts.items() if outcome == "read") > 50


def misbehave(path: str) -> None:
    """Does what stands in the file."""
    word = Path(path).read_text()
    if word == "refused":
        raise FileNotFoundError(path)
    if word == "foreign":
        raise ZeroDivisionError(path)
    if word == "crash":
        ctypes.string_at(0)
    if word == "memory":
        taken = bytearray(MOST_MEMORY + 2**26)
        taken[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(range(0, len(taken), os.sysconf("SC_PAGE_SIZE")))
    if word == "hang":
        time.sleep(3600)


def test_driver_sees_what_goes_wrong(tmp_path: Path) -> None:
    def make(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
        word = WRITTEN[int(rng.bit_generator.seed_seq.entropy)]  # type: ignore[attr-defined]
        (folder / "x").write_text(word)
        return word, str(folder / "x")

    report = fuzz("data.test_fuzz:misbehave", make, range(len(WRITTEN)), keep=tmp_path)
    assert dict(report.counts) == {(word, word): 1 for word in WRITTEN}
    assert [outcome for _, outcome, _, _ in report.wrong] == ["foreign", "crash", "memory"]
    assert (tmp_path / "2" / "x").read_text() == "foreign"
    assert report.lines()[0].split() == ["kind", *("read", "refused", "foreign", "crash", "hang", "memory")]


def test_driver_sees_a_reader_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    import fuzzing

    def make(rng: np.random.Generator, folder: Path) -> tuple[str, str]:
        (folder / "x").write_text("hang")
        return "hang", str(folder / "x")

    monkeypatch.setattr(fuzzing, "SECONDS", 0.2)
    report = fuzz("data.test_fuzz:misbehave", make, [0])
    assert dict(report.counts) == {("hang", "hang"): 1}


def test_mutations_are_those_of_the_seed() -> None:
    text = b"3\nwater 1.5\nO 0 0 0\n" * 5
    assert mutate(np.random.default_rng(5), text, text) == mutate(np.random.default_rng(5), text, text)
    assert len({mutate(np.random.default_rng(seed), text, text) for seed in range(50)}) > 40
