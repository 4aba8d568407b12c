"""Native files of releases load for ever, and give deepmd-kit's numbers."""

from __future__ import annotations

from pathlib import Path

import dpa2
import pytest
from cases import GOLDEN, TOLERANCE, load_golden
from dpa2.files import read
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
