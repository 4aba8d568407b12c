"""docs/scaling.md: its tables are those of bench/gpu_scaling.py, and what they count is what the library exchanges."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import c_library
import needs
import numpy as np
import pytest
from dpa2.files import ModelData, write_safetensors
from helpers import case_system
from pages import ROOT
from random_model import random_model


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("gpu_scaling")


def test_the_page_has_what_the_script_computes(scaling: Any) -> None:
    page = scaling.PAGE.read_text(encoding="utf-8")
    assert page == scaling.written(page)
    assert "**Nothing on this page was measured on several GPUs.**" in page
    assert all(make() in page for make in scaling.TABLES.values())


def test_shells_of_ghosts(scaling: Any) -> None:
    """As many as points of a lattice of that density around a cube."""
    spacing = scaling.DENSITY ** (-1 / 3)
    for n, layers in ((40, 3), (10, 1), (5, 20)):
        assert scaling.ghosts(n**3, layers * spacing) == pytest.approx((n + 2 * layers) ** 3 - n**3)
    assert scaling.ghosts(1000, 0.0) == pytest.approx(0.0, abs=1e-6)


def test_numbers_by_hand(scaling: Any) -> None:
    """The published medium model: six layers with 128 numbers of four bytes."""
    descriptor = scaling.model()
    assert (scaling.row_bytes(descriptor), scaling.exchanges(descriptor)) == (512, 12)
    assert scaling.step_bytes(descriptor) == 6144
    assert scaling.cutoffs(descriptor) == {"repinit": 6.0, "repformer": 4.0}
    assert scaling.compute(98_304) == pytest.approx(98_304 * 1.2329e-6)
    assert scaling.compute(5_000_000) == pytest.approx(5_000_000 * 1.2198e-6)
    one = scaling.row(scaling.NETWORK, 10**6)
    assert one.own == 15_625
    assert one.exchange == pytest.approx(12 * 40e-6 + one.ghosts * 6144 / 25e9)
    assert one.through_host == pytest.approx(one.exchange + 2 * one.ghosts * 6144 / 32e9)


@needs.library
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_library_exchanges_what_is_counted(scaling: Any, precision: str, tmp_path: Path) -> None:
    """A row of 64 numbers is whole vectors of every processor, as one of 128 is; others are filled up to that."""
    system, size = case_system("base", "bulk"), 4 if precision == "float32" else 8
    data = ModelData(*random_model(np.random.default_rng(3), repformer={"nlayers": 2, "g1_dim": 64, "nsel": 60}))
    write_safetensors(tmp_path / "model.safetensors", data)
    model, domain = c_library.load(tmp_path / "model.safetensors", precision), c_library.new_domain()
    reach = float(c_library.call("model_rcut", model.address))
    parts = c_library.Parts(system.coord[0], system.atype, np.reshape(system.box[0], (3, 3)), reach)
    c_library.assert_ok(parts.set(domain))
    parts.evaluate(domain, model)
    descriptor = data.config["descriptor"]
    assert [name for name, _, _ in parts.calls] == ["forward"] * 2 + ["reverse"] * 2
    assert len(parts.calls) == scaling.exchanges(descriptor)
    assert {width * number for _, width, number in parts.calls} == {scaling.row_bytes(descriptor, size)}
