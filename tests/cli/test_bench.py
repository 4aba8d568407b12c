"""``dpa2 bench``: what it prints, that copies are checked against the small box, how it fails."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import dpa2
import numpy as np
import pytest
from api_models import BOX, COORDS, SYMBOLS, work_in
from dpa2.cli import bench, main
from dpa2.data import read_structures, write_frame
from dpa2.embedded import default_model

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "water_192.extxyz"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small model and a structure for it, as the working directory."""
    work_in(tmp_path, monkeypatch)
    with open("one.xyz", "w") as handle:
        write_frame(handle, COORDS, SYMBOLS, BOX)
    with open("open.xyz", "w") as handle:
        write_frame(handle, COORDS, SYMBOLS)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    status = main(["bench", *args])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    assert captured.err == ""
    return captured.out


def fail(capsys: pytest.CaptureFixture[str], status: int, *args: str) -> str:
    assert main(["bench", *args]) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("dpa2: error: ")
    return captured.err


def test_water_with_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "--atoms", "300", "--steps", "1", "--threads", "2")
    lines = {line[:11].strip(): line[12:] for line in out.splitlines()}
    assert list(lines) == ["model", "structure", "load", "step", "per atom", "peak memory", "energy", "forces"]
    assert lines["model"].startswith("embedded water model: float32, cpu, 2 threads, instruction set ")
    assert lines["structure"] == "water, 1 x 1 x 2 boxes: 384 atoms"
    assert "median of 1" in lines["step"]
    frame = bench.water_box()
    model = default_model()
    energy = model.evaluate(frame.coords, frame.types_in(model.type_map), frame.box).energy / 192
    assert float(lines["energy"].split()[0]) == pytest.approx(energy, rel=1e-6)


def test_numbers_for_programs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(run(capsys, "-m", "model.safetensors", "one.xyz", "--atoms", "41", "--steps", "3", "--json"))
    assert set(report) == set(bench.Report.__dataclass_fields__)
    assert (report["atoms"], report["copies"], report["threads"]) == (45, [1, 3, 3], 1)
    assert (report["model"], report["precision"], report["structure"]) == ("model.safetensors", "float64", "one.xyz")
    assert len(report["step_times"]) == 3
    assert report["step"] == sorted(report["step_times"])[1]
    assert report["per_atom"] == pytest.approx(report["step"] / 45)
    assert report["energy_error"] < 1e-12
    assert report["force_error"] < 1e-10
    assert report["peak_memory"] > 1e7
    assert report["peak_memory_per_atom"] == pytest.approx(report["peak_memory"] / 45)
    model = dpa2.load("model.safetensors")
    assert report["energy_per_atom"] == pytest.approx(model.evaluate(COORDS, SYMBOLS, BOX).energy / 5)


def test_default_number_of_steps(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["-m", "model.safetensors", "one.xyz", "--json"]
    assert len(json.loads(run(capsys, *arguments))["step_times"]) == bench.MOST_STEPS
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    assert len(json.loads(run(capsys, *arguments))["step_times"]) == 1


def test_parameters(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["-m", "params.safetensors", "one.xyz", "--atoms", "10", "--steps", "1", "--json"]
    report = json.loads(run(capsys, *base, "--fparam=0.1,0.2", "--aparam=0.5"))
    expected = dpa2.load("params.safetensors").evaluate(COORDS, SYMBOLS, BOX, fparam=[0.1, 0.2], aparam=[0.5])
    assert report["energy_per_atom"] == pytest.approx(expected.energy / 5)
    assert "give 2 numbers with --fparam" in fail(capsys, 2, *base)
    with open("own.xyz", "w") as handle:
        write_frame(
            handle, COORDS, SYMBOLS, BOX, arrays={"aparam": np.arange(5.0)}, info={"fparam": np.array([0.1, 0.2])}
        )
    report = json.loads(run(capsys, "-m", "params.safetensors", "own.xyz", "--atoms", "10", "--steps", "1", "--json"))
    own = dpa2.load("params.safetensors").evaluate(COORDS, SYMBOLS, BOX, fparam=[0.1, 0.2], aparam=np.arange(5.0))
    assert report["energy_per_atom"] == pytest.approx(own.energy / 5)


def test_a_wrong_result_is_an_error(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = dpa2.Model.evaluate

    def wrong(self: dpa2.Model, coords: np.ndarray, *args: object, **keywords: object) -> dpa2.Result:
        result = exact(self, coords, *args, **keywords)  # type: ignore[arg-type]
        if len(coords) > 5:
            result.forces[-1, 2] += 1e-4
        return result

    monkeypatch.setattr(dpa2.Model, "evaluate", wrong)
    base = ["-m", "model.safetensors", "one.xyz", "--steps", "1"]
    message = fail(capsys, 1, *base, "--atoms", "10")
    assert "do not have the energy and forces of the small box" in message
    assert "1.0e-04 eV/angstrom" in message
    run(capsys, *base)


def test_failures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not periodic" in fail(capsys, 2, "-m", "model.safetensors", "open.xyz")
    assert "C" in fail(capsys, 2, "one.xyz", "--steps", "1")  # the embedded model knows O and H
    fail(capsys, 2, "missing.xyz")
    for arguments in (["--atoms", "0"], ["--steps", "-1"]):
        with pytest.raises(SystemExit):
            main(["bench", *arguments])


@pytest.mark.parametrize("atoms", [1, 5, 192, 193, 1000, 1536, 10_000, 99_999, 1_000_000])
def test_copies(atoms: int) -> None:
    copies = bench.copies_for(atoms, 192)
    count = int(np.prod(copies))
    assert count * 192 >= atoms
    assert max(copies) <= 3 * min(copies)
    assert count * 192 < max(193, 1.7 * atoms + 192)
    if atoms >= 100_000:
        assert count * 192 < 1.01 * atoms


@pytest.mark.parametrize("atoms", [10**11, 10**16, 10**30, 10**300, 10**4000])
def test_boxes_that_fit_nowhere_are_refused_at_once(
    atoms: int, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPA2_MEMORY_LIMIT", "4G")
    message = fail(capsys, 1, "-m", "model.safetensors", "one.xyz", "--atoms", str(atoms))
    assert f"a box of {atoms:,} atoms needs at least " in message
    assert "but DPA2_MEMORY_LIMIT leaves " in message
    assert "GiB: give fewer --atoms" in message


def test_replicate_keeps_the_neighbourhood() -> None:
    box = np.array([[4.0, 0.5, 0.0], [0.0, 5.0, 0.2], [0.3, 0.0, 6.0]])
    coords = np.random.default_rng(1).uniform(0, 4, (3, 3))
    large, cell = bench.replicate(coords, box, (2, 1, 3))
    assert large.shape == (18, 3)
    np.testing.assert_array_equal(large[:3], coords)
    np.testing.assert_allclose(cell, box * np.array([[2], [1], [3]]))
    shifts = (large.reshape(6, 3, 3) - coords)[:, 0] @ np.linalg.inv(box)
    assert {tuple(row) for row in np.round(shifts, 9).tolist()} == {(i, 0, k) for i in range(2) for k in range(3)}


def test_the_packaged_box() -> None:
    frame = bench.water_box()
    model = dpa2.Model(default_model()._data, on_overflow="error")
    result = model.evaluate(frame.coords, frame.types_in(model.type_map), frame.box, frame.pbc)
    assert np.linalg.norm(result.forces, axis=1).max() < 10
    assert (len(frame), sorted(frame.names or ())) == (192, ["H", "O"])
    assert np.bincount(frame.types).tolist() in ([64, 128], [128, 64])
    assert frame.volume is not None
    assert 64 * 18.015 / 0.602214076 / frame.volume == pytest.approx(1.0, abs=0.05)  # g/cm^3
    ((example,),) = read_structures(str(EXAMPLE))
    np.testing.assert_array_equal(example.coords, frame.coords)


def test_peak_memory_grows() -> None:
    before = bench.peak_memory()
    block = np.ones(60_000_000 // 8 + before // 8)
    assert bench.peak_memory() >= before
    assert bench.peak_memory() >= block.nbytes


def test_options_are_documented() -> None:
    parser = argparse.ArgumentParser()
    bench.add_command(parser.add_subparsers())
    args = parser.parse_args(["bench", "--atoms", "7"])
    assert (args.atoms, args.steps, args.structure, args.json, args.run) == (7, None, None, False, bench.run)
