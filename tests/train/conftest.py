"""What several tests of training stand on."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_cases import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data sets of :mod:`data_cases`, which tests do not change."""
    path = tmp_path_factory.mktemp("data")
    write(path)
    return path
