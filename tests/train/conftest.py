"""What several tests of training stand on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import training_checks as checks
import training_runs as runs
from data_cases import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data sets of :mod:`data_cases`, which tests do not change."""
    path = tmp_path_factory.mktemp("data")
    write(path)
    return path


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with the data of :mod:`training_runs`, in which runs are; none outlives its test."""
    runs.write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUM_WORKERS", str(runs.STREAMS))
    yield tmp_path
    while checks.started:
        process = checks.started.pop()
        process.kill()
        process.wait()
