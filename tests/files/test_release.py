"""Native files of releases load for ever, and give deepmd-kit's numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dpa2
import pytest
from cases import GOLDEN, TOLERANCE, load_golden
from dpa2.files import read, write_safetensors
from helpers import evaluate, relative
from releases import COMPRESSED, SOURCES

RELEASES = GOLDEN / "release"
FILES = sorted(str(path.relative_to(RELEASES)) for path in RELEASES.glob("*/*.safetensors"))


def test_every_release_has_every_file() -> None:
    assert {Path(name).stem for name in FILES if name.startswith("0.1.0/")} == set(SOURCES)


@pytest.mark.parametrize("name", FILES)
def test_the_model_is_the_same(name: str) -> None:
    """What a configuration of that time does not say is what it meant then."""
    found, expected = read(RELEASES / name), load_golden(GOLDEN / SOURCES[Path(name).stem])
    config = {key: value for key, value in found.config.items() if key != "compression"}
    apart = {"head": None, "min_nbor_dist": None}  # which not every golden file has
    assert {**config, **apart} == {**expected.config, **apart}
    assert found.config["head"] == ("water" if Path(name).stem == "head" else None)
    for key, value in expected.weights.items():
        assert found.weights[key].dtype == value.dtype
        assert (found.weights[key] == value).all()


@pytest.mark.parametrize("name", FILES)
def test_files_are_written_as_then(name: str, tmp_path: Path) -> None:
    """So that the release reads them: not one option more."""
    write_safetensors(tmp_path / "again.safetensors", read(RELEASES / name))
    (header, body), (expected, numbers) = (split(path) for path in (tmp_path / "again.safetensors", RELEASES / name))
    assert header == expected
    assert body == numbers


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a native file, and its numbers."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


@pytest.mark.filterwarnings("ignore::dpa2.ClosePairWarning")  # one system goes below the tables, on purpose
@pytest.mark.parametrize("name", FILES)
def test_answers(name: str) -> None:
    stem = Path(name).stem
    expected = load_golden(GOLDEN / SOURCES[stem])
    # the bound of the tables, and what the derivatives make of it; deepmd-kit's own float32
    tolerance = 1e-6 if stem in COMPRESSED else 1e-5 if stem.endswith("single") else TOLERANCE["float64"]
    model = dpa2.load(RELEASES / name, threads=1, on_overflow="ignore")
    for system in expected.systems:
        for quantity, value in evaluate(model, system).items():
            assert relative(value, system.expected[quantity]) <= tolerance, quantity
