"""What only a real device can show. Each test also runs on the emulated one, so that it is known to be a test.

Without CuPy and a GPU the half on the device is skipped, and says so: python -m pytest -m requires_gpu -rs
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cases import MODELS, load_golden
from cuda_emulator import EmulatedDevice
from device_lists import COMPARED, assert_same_lists, random_frame
from dpa2.cuda.device import CupyDevice
from dpa2.cuda.engine import CudaEngine
from dpa2.cuda.neighbors import NeighborSearch
from dpa2.files import ModelData

BENCH = Path(__file__).resolve().parents[2] / "bench"
CASES = {case.name: case for case in MODELS}


@pytest.fixture(params=["emulated", pytest.param("gpu", marks=pytest.mark.requires_gpu)])
def device(request: pytest.FixtureRequest) -> Any:
    return EmulatedDevice() if request.param == "emulated" else CupyDevice()


def many(device: Any, emulated: int, real: int) -> int:
    return emulated if isinstance(device, EmulatedDevice) else real


def test_neighbour_lists(device: Any) -> None:
    for seed in range(many(device, 4, 300)):
        assert_same_lists(device, *random_frame(seed))


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", needs.mostly_slow(["base", "published_medium", "rough_strip"], {"rough_strip"}))
def test_golden_models(device: Any, name: str, precision: str) -> None:
    golden = load_golden(CASES[name])
    engine = CudaEngine(ModelData(golden.config, golden.weights), precision, device)
    for system in golden.systems[: many(device, 1, 9)]:
        for frame in range(many(device, 1, len(system.coord))):
            box = None if system.box is None else system.box[frame]
            found = engine.evaluate_arrays(system.coord[frame], system.atype, box, (box is not None,) * 3)
            tolerance = CASES[name].tolerance if precision == "float64" else 2e-4
            for mine, theirs in (("energy", "energy"), ("forces", "force"), ("virial", "virial")):
                want = system.expected[theirs][frame]
                scale = max(1.0, float(np.abs(want).max()))
                np.testing.assert_allclose(
                    device.asnumpy(found[mine]).reshape(np.shape(want)), want, rtol=0, atol=tolerance * scale
                )


def test_every_run_is_the_same(device: Any) -> None:
    """Bit by bit: nothing is summed in the order in which threads happen to come."""
    golden = load_golden(CASES["base"])
    system = golden.systems[0]
    box = None if system.box is None else system.box[0]
    answers = set()
    for _ in range(many(device, 2, 20)):
        engine = CudaEngine(ModelData(golden.config, golden.weights), "float32", device)
        found = engine.evaluate_arrays(system.coord[0], system.atype, box, (box is not None,) * 3)
        answers.add(b"".join(device.asnumpy(found[name]).tobytes() for name in ("energy", "forces", "virial")))
    assert len(answers) == 1


def test_lists_are_the_same_in_every_run(device: Any) -> None:
    coords, types, box, pbc, config = random_frame(13)
    answers = set()
    for _ in range(many(device, 2, 50)):
        lists = NeighborSearch(device, config).build(device.asarray(coords), device.asarray(types), box, pbc, True)
        answers.add(b"".join(device.asnumpy(getattr(lists, name)).tobytes() for name in (*COMPARED, "d", "r")))
    assert len(answers) == 1


def test_bench(
    device: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """bench/gpu.py: the columns of the CPU's bench, and copies that agree with the small box."""
    from dpa2.data import write_frame

    monkeypatch.syspath_prepend(str(BENCH))
    gpu, scaling = importlib.import_module("gpu"), importlib.import_module("scaling")
    table, structure = tmp_path / "gpu.csv", tmp_path / "water.extxyz"
    coords = np.array([[0.0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]]) + 1.0
    with structure.open("w") as handle:
        write_frame(handle, coords, ["O", "H", "H"], np.eye(3) * 4.0)
    words = [str(structure), "--copies", "1", "2x1x1", "--steps", "1", "--kernels", "--csv", str(table)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    gpu.main(device)
    assert "pair_attention" in capsys.readouterr().out
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    found = {"atoms": 1, "step": 1, "peak_memory": 1, "model": "", "precision": "", "isa": "", "threads": 1}
    found |= {"step_times": [1], "first_step": 1, "energy_error": 0, "force_error": 0}
    names = [*gpu.machine(), *(name for name in scaling.row_of({}, found, None))]
    assert header.split(",") == names
    assert len(rows) == 2
    for row in rows:
        values = dict(zip(names, row.split(","), strict=True))
        assert float(values["energy_error"]) < 1e-6
        assert float(values["force_error"]) < 1e-4


def test_bench_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    if needs.no_gpu() is None:
        pytest.skip("there is a GPU")
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="NOTHING WAS MEASURED: device="):
        importlib.import_module("gpu").main()
