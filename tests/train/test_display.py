"""What a run shows: rows of its learning curve, lines, times."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from dpa2.errors import InputError
from dpa2.plots import draw_curve
from dpa2.train.display import Clock, Curve, Results, lines, nan_task, read_curve

VALUES = {"rmse_f": 0.123456, "rmse": 12.3456, "rmse_e": math.nan}


def test_lines() -> None:
    """As deepmd-kit prints them; names are sorted."""
    results = Results(20, 0.001, {"Default": VALUES}, {"Default": {"rmse": 3.0}})
    assert lines(results) == [
        "Batch      20: trn: rmse = 1.23e+01, rmse_e =      nan, rmse_f = 1.23e-01, lr = 1.00e-03",
        "Batch      20: val: rmse = 3.00e+00",
    ]
    several = Results(1, 0.001, {"a": {"rmse": 1.0}, "b": {"rmse": 2.0}}, {"a": {}, "b": {"rmse": 3.0}})
    assert [line.partition(": rmse")[0] for line in lines(several)] == [
        "Batch       1: a_trn", "Batch       1: b_trn", "Batch       1: b_val",
    ]  # fmt: skip


def test_curve(tmp_path: Path) -> None:
    """A header once for every part of a run; a row that was cut off stays a line of its own."""
    path = tmp_path / "lcurve.out"
    results = Results(3, 0.001, {"Default": {"rmse": 12.3456, "rmse_e": math.nan}})
    row = "      3      1.23e+01           nan    1.0e-03"
    curve = Curve(path, ["Default"])
    curve.add(results)
    curve.add(results)
    curve.close()
    head, note, *rows = path.read_text().splitlines()
    assert head == "# step       rmse_trn    rmse_e_trn   lr      "
    assert note == "# If there is no available reference data, rmse_*_{val,trn} will print nan"
    assert rows == [row, row]
    path.write_text(path.read_text()[:-10])
    curve = Curve(path, ["Default"], append=True)
    curve.add(results)
    curve.close()
    assert path.read_text().splitlines() == [head, note, row, row[:-9], head, note, row]
    with pytest.raises(OSError, match=str(tmp_path)):
        Curve(tmp_path, ["Default"])


def test_reading_a_curve(tmp_path: Path) -> None:
    """Columns by name; steps that were done again after a restart count once, rows that were cut off do not."""
    path = tmp_path / "lcurve.out"
    for append, steps in ((False, (1, 2, 3)), (True, (3, 4))):
        curve = Curve(path, ["Default"], append)
        for step in steps:
            values = {"rmse": step + 10.0 * append, "rmse_v": math.nan}
            curve.add(Results(step, 0.5, {"Default": values}, {"Default": {**values, "rmse": 7.0}}))
        curve.close()
    with path.open("a") as handle:
        handle.write("      5      1.2")
    columns = read_curve(path)
    assert list(columns) == ["step", "rmse_val", "rmse_trn", "rmse_v_val", "rmse_v_trn", "lr"]
    assert columns["step"].tolist() == [1, 2, 3, 4]
    assert columns["rmse_trn"].tolist() == [1, 2, 13, 14]
    assert columns["rmse_val"].tolist() == [7.0] * 4
    path.write_text("# step  rmse_trn  lr\n")
    with pytest.raises(InputError, match="no learning curve with rows"):
        read_curve(path)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_picture(suffix: str, tmp_path: Path) -> None:
    """A panel for every quantity that has values, and one for the learning rate; axes have plain numbers."""
    pytest.importorskip("matplotlib")
    steps = np.arange(1.0, 60.0)
    columns = {"step": steps, "rmse_val_a": 1 / steps, "rmse_trn_a": 2 / steps, "rmse_trn_b": 0 * steps}
    columns |= {"rmse_v_trn_a": np.full(59, np.nan), "rmse_f_trn_a": 0.3 + 0.001 * steps, "lr": 0.01 / steps}
    path = tmp_path / f"curve.{suffix}"
    draw_curve(str(path), columns)
    content = path.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])
    if suffix == "svg":
        for text in (
            "rmse", "rmse_f: force, eV/Å", "learning rate", "validation, a", "training, b", "0.005", "0.315",
        ):  # fmt: skip
            assert f"<!-- {text} -->".encode() in content
        assert b"rmse_v" not in content


def test_nan_task() -> None:
    assert nan_task(Results(1, 0.1, {"a": {"rmse": 1.0, "rmse_v": math.nan}})) is None
    assert nan_task(Results(1, 0.1, {"a": {"rmse": 1.0}, "b": {"rmse": math.nan}})) == "b"
    assert nan_task(Results(1, 0.1, {"a": {"rmse": 1.0}}, {"a": {"rmse": math.nan}})) == "a"


def test_clock() -> None:
    """No end is told from the first interval, and the average leaves it out in a long run."""
    now = [0.0]
    clock = Clock(0, 100, 10, lambda: now[0])
    assert clock.average() is None
    for step, seconds in ((1, 50.0), (10, 9.0), (20, 5.0), (30, 7.0)):
        now[0] += seconds
        line = clock.line(step)
        if step == 1:
            assert line == "Batch       1: total wall time = 50.00 s"
    assert re.fullmatch(
        r"Batch      30: total wall time = 7\.00 s, eta = 0:00:49 at \d{4}-\d\d-\d\d \d\d:\d\d", line
    )  # seventy steps like the last ten
    assert clock.average() == "average training time: 0.6000 s/batch (80 batches excluded)"
    short = Clock(0, 20, 10, lambda: now[0])
    now[0] += 2.0
    short.line(1)
    assert short.average() == "average training time: 2.0000 s/batch (19 batches excluded)"
