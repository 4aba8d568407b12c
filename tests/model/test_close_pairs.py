"""A pair that no training data knows, as of coordinates in nm: one warning that names it, and the unit."""

from __future__ import annotations

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, DEVICES, TYPES, frames, model_data
from c_library import Parts, assert_ok, call, evaluate, load, message, new_domain
from dpa2.files import ModelData, write_safetensors
from dpa2.model import Model

OVERFLOW, CLOSE_PAIR = 1, 2
every_device = pytest.mark.parametrize("device", DEVICES)


def data(least: float | None = None, **config: Any) -> ModelData:
    """The small model with another distance in its training data."""
    plain = model_data()
    return dataclasses.replace(plain, config={**plain.config, "min_nbor_dist": least, **config})


def with_pair(distance: float, first: int = 1, second: int = 3) -> np.ndarray:
    coords = COORDS.copy()
    coords[second] = coords[first] + np.array([0.6, 0.0, 0.8]) * distance
    return coords


def assert_silent(model: Model, *structure: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.evaluate(*structure)
        model.descriptor(*structure)


@every_device
@pytest.mark.parametrize("method", ["evaluate", "descriptor"])
def test_one_warning_names_the_pair(device: str, method: str) -> None:
    model = Model(data(), threads=1, device=device)
    assert_silent(model, with_pair(0.501), TYPES, BOX)
    said = re.escape("atoms 1 (H) and 3 (C) are 0.499 angstrom from each other, closer than 0.5 angstrom: the energy")
    with pytest.warns(dpa2.ClosePairWarning, match=f"^{said}.* not in angstrom .in nm.*once per model") as record:
        getattr(model, method)(with_pair(0.499), TYPES, BOX)
    assert len(record) == 1
    assert record[0].filename == __file__
    assert_silent(model, with_pair(0.3), TYPES, BOX)


@every_device
def test_frames_are_named_and_images_found(device: str) -> None:
    coords = np.stack([*frames(2), with_pair(0.4) + np.arange(5)[:, None] * BOX[1]])
    with pytest.warns(dpa2.ClosePairWarning, match=r"^atoms 1 \(H\) and 3 \(C\) of frame 2 are 0.4 angstrom") as record:
        Model(data(), threads=2, device=device).evaluate(coords, TYPES, BOX)
    assert len(record) == 1
    with pytest.warns(dpa2.ClosePairWarning, match=r"^atom 0 \(H\) and its own periodic image are 0.45 angstrom"):
        Model(data(), threads=1, device=device, on_overflow="ignore").evaluate(
            [[1.0, 2, 3]], [1], np.diag([0.45, 5, 5])
        )


@every_device
def test_half_of_what_the_training_data_had(device: str) -> None:
    model = Model(data(1.6), threads=1, device=device)
    assert_silent(model, with_pair(0.81, 0, 4), TYPES, BOX)
    said = "0.79 angstrom from each other, closer than 0.8 angstrom, half of the least distance in the model's training"
    with pytest.warns(dpa2.ClosePairWarning, match=re.escape(said)):
        model.evaluate(with_pair(0.79, 0, 4), TYPES, BOX)
    assert_silent(Model(data(0.5), threads=1, device=device), with_pair(0.26), TYPES, BOX)


@every_device
def test_nanometres(device: str) -> None:
    """Overflow and close pairs are said apart; `on_overflow` speaks of overflow alone."""
    model = Model(data(), threads=1, device=device, on_overflow="ignore")
    with pytest.warns(dpa2.ClosePairWarning) as record:
        model.evaluate(0.1 * COORDS, TYPES, 0.1 * np.diag([30.0, 30, 30]))
    assert [w.category for w in record] == [dpa2.ClosePairWarning]
    model = Model(dataclasses.replace(model_data(nsel=6)), threads=1, device=device)
    with pytest.warns(dpa2.ClosePairWarning), pytest.warns(dpa2.NeighborOverflowWarning):
        model.evaluate(0.1 * COORDS, TYPES, 0.1 * np.diag([30.0, 30, 30]))
    strict = Model(data(), threads=1, device=device, on_overflow="error")
    with pytest.warns(dpa2.ClosePairWarning):
        strict.evaluate(with_pair(0.3), TYPES, BOX)


@every_device
def test_atoms_that_do_not_interact_may_be_close(device: str) -> None:
    kinds = TYPES.copy()
    kinds[3] = -1
    assert_silent(Model(data(), threads=1, device=device), with_pair(0.2), kinds, BOX)
    assert_silent(Model(data(pair_exclude_types=[[1, 2]]), threads=1, device=device), with_pair(0.2), TYPES, BOX)


def test_with_a_skin_as_without() -> None:
    model = Model(data(), threads=2, skin=1.0)
    assert_silent(model, with_pair(0.6), TYPES, BOX)
    with pytest.warns(dpa2.ClosePairWarning, match=r"atoms 1 \(H\) and 3 \(C\) are 0.4 "):
        model.evaluate(with_pair(0.4), TYPES, BOX)


def test_numbers_are_the_callers_in_large_systems() -> None:
    """Where the engine has an order of its own."""
    grid = np.stack(np.meshgrid(*[np.arange(11)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 2.0
    grid[1200] = grid[77] + np.array([0.0, 0.0, 0.31])
    with pytest.warns(dpa2.ClosePairWarning, match=r"^atoms 77 \(O\) and 1200 \(O\) are 0.31 angstrom"):
        Model(data(), threads=2, on_overflow="ignore").descriptor(grid, np.zeros(len(grid), int))


@needs.library
def test_c_interface(tmp_path: Path) -> None:
    def said() -> tuple[str, ...]:
        kinds = tuple(call("last_warning_of", kind).decode() for kind in (OVERFLOW, CLOSE_PAIR))
        assert message("last_warning") == "\n".join(text for text in kinds if text)
        return kinds

    write_safetensors(tmp_path / "model.safetensors", data(1.6))
    write_safetensors(tmp_path / "few.safetensors", model_data(nsel=6))
    model, few = load(tmp_path / "model.safetensors"), load(tmp_path / "few.safetensors")
    evaluate(model, COORDS, TYPES, BOX)
    assert said() == ("", "")
    coords = with_pair(0.7)
    evaluate(model, coords, TYPES, BOX)
    expected = "atoms 1 and 3 are 0.7 angstrom from each other, closer than 0.8 angstrom, half of the least distance in"
    assert said()[1].startswith(expected)
    assert "in nm" in said()[1]
    assert said()[0] == ""
    evaluate(few, with_pair(0.45), TYPES, BOX)
    assert "more than its sel of" in said()[0]
    assert said()[1].startswith("atoms 1 and 3 are 0.45 angstrom from each other, closer than 0.5 angstrom: ")
    parts, domain = Parts(coords, TYPES, BOX, call("model_rcut", model.address)), new_domain()
    assert_ok(parts.set(domain))
    parts.evaluate(domain, model)
    assert said()[1].startswith("atoms 1 and 3 are 0.7 angstrom from each other")
    evaluate(model, COORDS, TYPES, BOX)
    assert said() == ("", "")
    assert call("last_warning_of", 9) == b""
