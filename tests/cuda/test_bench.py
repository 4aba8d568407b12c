"""The GPU benchmarks without a GPU: planned launches, the roofline bound, refusals."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from dpa2.cuda.engine import CudaEngine

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("gpu_plan")


def small_model(plan: Any, everything: bool) -> Any:
    """The structure of the medium model, small enough for the emulation."""
    config = plan.water_model(2, everything).config
    config["descriptor"]["repinit"] |= {"neuron": [2, 4, 8], "axis_neuron": 2, "rcut": 4.0, "three_body_rcut": 3.0}
    config["descriptor"]["repinit"] |= {"rcut_smth": 0.5, "three_body_rcut_smth": 1.0}
    config["descriptor"]["repformer"] |= {"g1_dim": 8, "g2_dim": 4, "rcut": 3.0, "rcut_smth": 1.0}
    names = ("repinit", "repformer")
    options: dict[str, Any] = {name: config["descriptor"][name] for name in names}
    found = plan.random_model(np.random.default_rng(0), ntypes=2, fitting={"neuron": [6, 6]}, **options)
    return plan.ModelData(*found)


@pytest.mark.slow
@pytest.mark.parametrize("everything", [False, True])
def test_what_is_planned_is_what_is_launched(plan: Any, everything: bool) -> None:
    """Launch by launch: kernel, blocks, threads, shared memory. The plan takes its neighbour lists from the CPU."""
    from common import Structure

    rng = np.random.default_rng(1)
    box = np.eye(3) * 7.0
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3) * (7.0 / 3)
    coords = grid + rng.normal(scale=0.1, size=grid.shape)
    structure = Structure(coords, rng.integers(0, 2, 27).astype(np.int32), box, "test")
    model = small_model(plan, everything)
    device = EmulatedDevice()
    engine = CudaEngine(model, "float64", device)
    device.launches.clear()
    engine.evaluate_arrays(structure.coords, structure.types, box, (True, True, True))
    real = [(one.source, one.kernel.split()[0], one.grid[0], one.block, one.shared) for one in device.launches]
    searched = plan.planned_search(model, structure)
    planned = [*searched, *plan.planned_evaluation(model, "float64", structure)]
    assert [(one.source, one.kernel.split()[0], one.blocks, one.threads, one.shared) for one in planned] == real
    sizes = {(one.source, one.kernel): one.arrays for one in planned}
    assert dict(sizes[("neighbors.cu", "wrap_atoms")])["x"] == 27 * 3 * 8


def test_roofline(
    plan: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A bound below the goal, from every kernel of the model, and said to be a bound."""
    roofline = importlib.import_module("gpu_roofline")
    table = tmp_path / "roofline.csv"
    monkeypatch.setattr(sys, "argv", ["gpu_roofline.py", "--copies", "1", "2", "--search", "--csv", str(table)])
    roofline.main()
    text = capsys.readouterr().out
    assert "NOT A MEASUREMENT" in text
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert {row["kind"] for row in rows} == {"bound, not measured"}
    assert {row["atoms"] for row in rows} == {"192", "1536"}
    model = [row for row in rows if row["atoms"] == "1536"]
    known = set().union(*(plan.kernels_of(source) for source in plan.sources()))
    assert {row["kernel"] for row in model if not row["kernel"].startswith("gemm")} <= known
    assert 0.3 < 1e-3 * sum(float(row["ns_per_atom"]) for row in model) < roofline.GOAL
    # The whole is more than the least work of the model, and not several times as much.
    assert 1.0 < sum(float(row["flops_per_atom"]) for row in model) / 18.1e6 < 2.0


def test_launches_of_a_layer(plan: Any) -> None:
    from common import read_structure

    structure = read_structure(None, (1, 1, 1), ("O", "H"))
    for everything in (False, True):
        more, fewer = (
            len(plan.planned_evaluation(plan.water_model(layers, everything), "float32", structure))
            for layers in (4, 3)
        )
        assert more - fewer <= (34 if everything else 25)


def test_a_bound_is_the_larger_of_two(plan: Any) -> None:
    roofline = importlib.import_module("gpu_roofline")
    s = roofline.sizes_of(plan.water_model().config, importlib.import_module("flops").Neighbors(89, 26, 700, 26, 700))
    product = plan.Planned("", "gemm 8x8", 1, 0, 0, (("a", 1000), ("b", 500), ("out", 500)), 4000.0)
    for peak, bandwidth, seconds in ((1e3, 1e9, 4.0), (1e9, 1e3, 2.0)):
        line = roofline.table_of([product], s, 1, peak, bandwidth)["gemm 8x8"]
        assert (line.launches, line.flops, line.bytes, line.seconds) == (1, 4000.0, 2000.0, seconds)


def test_config_is_json(plan: Any) -> None:
    """The plan's model is a model like any other."""
    assert json.loads(json.dumps(plan.water_model().config))["descriptor"]["repformer"]["nlayers"] == 6
