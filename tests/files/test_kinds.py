"""Files of other kinds than energies of one network: every format gives the same model, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_files as mf
import pytest
from dpa2 import files
from kind_files import KIND_WRITERS, KINDS
from model_files import assert_same, make

Change = Callable[[dict[str, Any]], Any]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", KIND_WRITERS)
def test_every_format_gives_the_same_model(kind: str, suffix: str, tmp_path: Path) -> None:
    model = KINDS[kind]()
    path = KIND_WRITERS[suffix](tmp_path / f"model.{suffix}", model)
    assert_same(files.read(path), model)
    assert files.heads(path) == []


def test_heads_of_all_kinds(tmp_path: Path) -> None:
    models = {name: model() for name, model in KINDS.items()} | {"energy": make()}
    path = mf.write_pt(tmp_path / "m.pt", models)
    assert files.heads(path) == list(models)
    for name, model in models.items():
        assert_same(files.read(path, name), model, name)
