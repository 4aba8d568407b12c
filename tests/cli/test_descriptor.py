"""`dpa2 descriptor` on data sets: files of every kind, work taken up where it was killed, maps."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dpa2
import h5py
import needs
import numpy as np
import pytest
from api_models import BOX, SYMBOLS, TYPES, frames, make_model, work_in
from cli_runs import interrupt, ordinary_signals, run_command
from datasets import write_all
from dpa2 import streams
from dpa2.cli import main
from dpa2.data import write_frame
from dpa2.data.unfinished import Unfinished
from dpa2.maps import principal_components

DEVICE = "cpu" if needs.HAS_NATIVE else "reference"
BASE = ["descriptor", "-m", "model.safetensors", "--device", DEVICE]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, data sets, and 40 frames in an XYZ file, in the working directory."""
    work_in(tmp_path, monkeypatch)
    write_all(tmp_path / "data")
    write_long("long.xyz", 40)
    monkeypatch.setattr(streams, "TASK_ATOMS", 50)
    return tmp_path


def write_long(name: str, count: int) -> None:
    with open(name, "w") as handle:
        for coords in frames(count):
            write_frame(handle, coords, SYMBOLS, BOX)


def run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run a command that must succeed; its stdout."""
    return run_command(capsys, *BASE, *args)


def fail(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run a command that must fail; its message."""
    assert main([*BASE, *args]) in (1, 2)
    return capsys.readouterr().err


def expected(count: int = 40) -> np.ndarray:
    return make_model(DEVICE).descriptor(frames(count), TYPES, BOX)


def test_hdf5_holds_what_npz_holds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "data/mixed", "data/open", "long.xyz", "-o", "all.npz")
    run(capsys, "data/mixed", "data/open", "long.xyz", "-o", "all.h5")
    with np.load("all.npz") as npz, h5py.File("all.h5") as file:
        assert set(npz.files) == set(file) == {"descriptor", "natoms", "types", "source", "sources", "type_map"}
        for name in ("descriptor", "natoms", "types", "source"):
            np.testing.assert_array_equal(file[name][:], npz[name])
        assert file["sources"].asstr()[:].tolist() == npz["sources"].tolist() == ["data/mixed", "data/open", "long.xyz"]
        assert file["type_map"].asstr()[:].tolist() == ["O", "H", "C"]
        assert npz["natoms"].tolist() == [7] * 4 + [3] * 3 + [5] * 40
        assert npz["source"].tolist() == [0] * 4 + [1] * 3 + [2] * 40
        assert npz["descriptor"].shape == (28 + 9 + 200, 11)
        assert (npz["types"][:28] < 0).sum() == 7
        np.testing.assert_allclose(npz["descriptor"][37:].reshape(40, 5, 11), expected(), atol=1e-13)
        assert file.attrs["pooling"] == "none"


def test_single_precision_and_pooling(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "long.xyz", "-o", "single.npy", "--dtype", "float32")
    assert np.load("single.npy").dtype == np.float32
    np.testing.assert_array_equal(np.load("single.npy"), expected().astype(np.float32))
    run(capsys, "long.xyz", "-o", "both.npy", "--pooling", "mean+std")
    both = np.concatenate([expected().mean(axis=1), expected().std(axis=1)], axis=1)
    np.testing.assert_allclose(np.load("both.npy"), both, atol=1e-14)
    Path("list.txt").write_text("data/mixed\nlong.xyz\n")
    run(capsys, "-f", "list.txt", "-o", "mean.h5", "--pooling", "mean")
    with h5py.File("mean.h5") as file:
        assert file["descriptor"].shape == (44, 11)
        np.testing.assert_allclose(file["descriptor"][4:], both[:, :11], atol=1e-14)


def test_processes_write_the_same_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "long.xyz", "-o", "one.npz")
    run(capsys, "long.xyz", "-o", "two.npz", "--workers", "2")
    assert Path("one.npz").read_bytes() == Path("two.npz").read_bytes()


@pytest.mark.parametrize("output", needs.mostly_slow(["out.npz", "out.h5"], {"out.h5"}))
def test_killed_and_taken_up_again(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real SIGKILL in the middle; the same command then ends with the same bytes, without doing all again."""
    work_in(tmp_path, monkeypatch)
    write_long("long.xyz", 3000)
    command = [sys.executable, "-m", "dpa2", *BASE, "long.xyz", "--dtype", "float32"]
    subprocess.run([*command, "-o", f"whole{output}"], check=True, capture_output=True)
    slow = (
        "import sys, time; from dpa2 import cli, streams\n"
        "work = streams._descriptor_task\n"
        "streams._descriptor_task = lambda *a, **k: (time.sleep(0.1), work(*a, **k))[1]\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    process = subprocess.Popen([sys.executable, "-c", slow, *command[3:], "-o", output], stdout=subprocess.DEVNULL)
    journal = Path(f"{output}.part/journal")
    for _ in range(3000):
        if journal.is_file() and journal.read_bytes().count(b"\n") >= 5:
            break
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not Path(output).exists()
    done = json.loads(journal.read_text().splitlines()[-1])["frames"]
    assert 1000 < done < 3000
    with open(f"{output}.part/descriptor", "ab") as handle:
        handle.write(b"half a row")
    with open(journal, "ab") as handle:
        handle.write(b'{"frames": 29')
    again = subprocess.run([*command, "-o", output], check=True, capture_output=True, text=True)
    assert f"{output}: going on after {done} frames" in again.stdout
    assert Path(output).read_bytes() == Path(f"whole{output}").read_bytes()
    assert sorted(path.name for path in tmp_path.glob(f"{output}*")) == [output]


def test_interrupt_keeps_frames_for_the_same_command_alone(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, "descriptor", call=3)
    assert main([*BASE, "long.xyz", "-o", "out.npz"]) == 130
    assert "20 frames are kept in out.npz.part; the same command goes on" in capsys.readouterr().err
    message = fail(capsys, "long.xyz", "-o", "out.npz", "--pooling", "mean")
    assert "out.npz.part holds unfinished work of another run (other pooling): give --restart" in message
    assert "(other structures)" in fail(capsys, "long.xyz", "data/open", "-o", "out.npz")
    shutil.copytree("out.npz.part", "copy.npz.part")
    out = run(capsys, "long.xyz", "-o", "out.npz")
    assert out.startswith("out.npz: going on after 20 frames\n")
    with np.load("out.npz") as npz:
        np.testing.assert_array_equal(npz["descriptor"], expected())
    assert "going on" not in run(capsys, "long.xyz", "-o", "copy.npz", "--restart", "--pooling", "mean")
    with np.load("copy.npz") as npz:
        assert npz["descriptor"].shape == (40, 11)


def test_frame_that_cannot_be_evaluated_leaves_the_others(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("long.xyz").read_text().splitlines(keepends=True)
    text[7 * 25 + 3] = "Xe 0 0 0\n"
    Path("bad.xyz").write_text("".join(text))
    message = fail(capsys, "bad.xyz", "-o", "out.npy")
    assert "20 frames are kept in out.npy.part" in message
    assert "bad.xyz, frame 25: atom 1 is 'Xe', which the model does not know" in message
    assert not Path("out.npy").exists()


def test_unfinished_work(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    arrays = {"a": ("float32", (2,)), "b": ("int64", ())}
    store = Unfinished(output, {"k": 1}, arrays)
    for k in range(3):
        store.add({"a": np.ones((1, 2)), "b": np.array([k])})
    store.commit()
    store.add({"a": np.zeros((1, 2)), "b": np.array([7])})
    with pytest.raises(dpa2.InputError, match="another process is at work on this output"):
        Unfinished(output, {"k": 1}, arrays)
    with pytest.raises(ValueError, match=r"a: rows of shape \(2,\) expected, got \(3,\)"):
        store.add({"a": np.zeros((1, 3)), "b": np.array([7])})
    store.close()
    again = Unfinished(output, {"k": 1}, arrays)
    assert again.frames == 3
    np.testing.assert_array_equal(again.array("a"), np.ones((3, 2)))
    assert again.array("b").tolist() == [0, 1, 2]
    again.close()
    os.truncate(f"{output}.part/a", 8)
    with pytest.raises(dpa2.InputError, match=r"a: this file has lost rows: give --restart"):
        Unfinished(output, {"k": 1}, arrays)
    fresh = Unfinished(output, {"k": 2}, arrays, restart=True)
    assert fresh.frames == len(fresh.array("a")) == 0
    fresh.remove()
    assert not os.path.exists(f"{output}.part")


def test_signal_within_the_first_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the journal says is kept, although the commit did not come to its end."""
    output, arrays, sync = str(tmp_path / "out"), {"a": ("int64", ())}, os.fsync
    store = Unfinished(output, {"k": 1}, arrays)

    def signalled(number: int) -> None:
        sync(number)
        if number == store._journal.fileno():
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", signalled)
    said: list[str] = []
    store.add({"a": np.array([7])})
    with pytest.raises(KeyboardInterrupt), store.until_complete(said.append):
        store.commit()
    assert said == [f"1 frames are kept in {output}.part; the same command goes on from there"]
    again = Unfinished(output, {"k": 1}, arrays)
    assert again.array("a").tolist() == [7]
    again.close()


@pytest.mark.parametrize("text", ["[]", "nonsense", "[" * 5000, "7"])
def test_damaged_job(text: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.npz.part").mkdir()
    Path("out.npz.part/journal").write_text("")
    Path("out.npz.part/job.json").write_text(text)
    assert "out.npz.part/job.json is damaged: give --restart" in fail(capsys, "long.xyz", "-o", "out.npz")
    run(capsys, "long.xyz", "-o", "out.npz", "--restart")


@pytest.mark.parametrize("line", ["[]", "x", '{"frames": 1}', '{"frames": -1, "a": 0}', '{"frames": "1", "a": 1}'])
def test_damaged_journal(line: str, tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    Unfinished(output, {"k": 1}, {"a": ("float32", ())}).close()
    Path(f"{output}.part/journal").write_text(f"{line}\n")
    with pytest.raises(dpa2.InputError, match="journal is damaged: give --restart to begin anew"):
        Unfinished(output, {"k": 1}, {"a": ("float32", ())})


def test_what_is_in_the_way(tmp_path: Path) -> None:
    output, arrays = str(tmp_path / "out"), {"a": ("float32", ())}
    Path(f"{output}.part").write_text("mine")
    with pytest.raises(dpa2.InputError, match=r"out\.part is in the way"):
        Unfinished(output, {}, arrays)
    os.unlink(f"{output}.part")
    Path(f"{output}.part").mkdir()
    Path(f"{output}.part/mine").write_text("mine")
    with pytest.raises(dpa2.InputError, match=r"out\.part holds other files"):
        Unfinished(output, {}, arrays, restart=True)
    assert Path(f"{output}.part/mine").read_text() == "mine"


def test_frame_without_atoms(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("zero.xyz").write_text("0\n\n")
    for name in ("out.npz", "out.npy", "out.h5"):
        assert "zero.xyz, frame 0 has no atoms, and so no descriptor" in fail(capsys, "zero.xyz", "-o", name)


def test_full_disk_keeps_finished_frames(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        message = fail(capsys, "long.xyz", "-o", "out.npz")
    assert "40 frames are kept in out.npz.part" in message
    assert message.endswith("dpa2: error: out.npz: No space left on device\n")
    assert run(capsys, "long.xyz", "-o", "out.npz").startswith("out.npz: going on after 40 frames\n")


def processes_below(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").iterdir()  # a child is one of the thread that has started it
    children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    names = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [pid for pid, name in names.items() if b"spawn_main" in name]


#: the command, which never ends by itself: once frames are kept, its workers do their tasks over and over, until there
#: is a file "go". Each leaves a file of its number when it has begun to. They import this file.
ENDLESS = """
import os, sys
from dpa2 import cli, streams
work = streams._descriptor_task
def endless(*arguments, **keywords):
    while True:
        found = work(*arguments, **keywords)
        if os.path.getsize("out.npz.part/journal") == 0 or os.path.exists("go"):
            return found
        open(f"endless.{os.getpid()}", "w").close()
streams._descriptor_task = endless
if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
@needs.linux
@pytest.mark.parametrize("victim", ["worker", "parent by SIGTERM", "parent by SIGKILL"])
def test_workers_that_are_killed(victim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_in(tmp_path, monkeypatch)
    # Two tasks for each worker are handed out before the first frames are kept, and one worker may do them all but the
    # first. So there are enough for both to be at work after that.
    frames = 8 * streams.TASK_FRAMES
    write_long("long.xyz", frames)
    Path("endless.py").write_text(ENDLESS)
    command = [sys.executable, "endless.py", *BASE, "long.xyz", "--workers", "2", "-o", "out.npz"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=ordinary_signals)
    journal = Path("out.npz.part/journal")
    try:
        workers: list[int] = []
        for _ in range(6000):
            workers = processes_below(process.pid)
            if len(workers) == 2 and all(Path(f"endless.{pid}").exists() for pid in workers):
                break
            time.sleep(0.01)
        assert len(workers) == 2
        assert all(Path(f"endless.{pid}").exists() for pid in workers)
        if victim == "worker":
            os.kill(workers[1], signal.SIGKILL)
            Path("go").touch()  # results come in order, and that of the other worker may be the first
        else:
            process.send_signal(signal.SIGTERM if "TERM" in victim else signal.SIGKILL)
        err = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    done = json.loads(journal.read_text().splitlines()[-1])["frames"]
    assert 0 < done < frames
    if victim == "worker":
        assert process.returncode == 1
        assert f"{done} frames are kept in out.npz.part" in err
        assert "a worker ended while it was at work (it was ended by SIGKILL); if memory ran out" in err
    else:
        assert process.returncode == (143 if "TERM" in victim else -signal.SIGKILL)
    for _ in range(6000):
        if not any(os.path.exists(f"/proc/{pid}") for pid in workers):
            break
        time.sleep(0.01)
    assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]


# -------------------------------------------------------------------------------- maps


def test_principal_components() -> None:
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    points = rng.normal(size=(4000, 5)) * [5.0, 0.1, 2.0, 0.1, 0.1] @ basis.T + 7.0
    chosen = np.arange(4000) % 3 != 0
    points[~chosen] += 100.0
    mean, directions, shares = principal_components(points, chosen)
    np.testing.assert_allclose(mean, points[chosen].mean(axis=0), rtol=1e-12)
    assert abs(directions[:, 0] @ basis[:, 0]) > 0.999
    assert abs(directions[:, 1] @ basis[:, 2]) > 0.999
    np.testing.assert_allclose(shares, [25 / 29, 4 / 29], atol=0.02)
    with pytest.raises(dpa2.InputError, match="a map needs points of two dimensions"):
        principal_components(points, np.zeros(4000, dtype=bool))


def dataset_of(page: str) -> dict[str, object]:
    (found,) = re.findall(r'<script type="application/json" id="dataset">(.*?)</script>', Path(page).read_text())
    dataset: dict[str, object] = json.loads(found)
    return dataset


def test_page_to_explore(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs.package("chemiscope")
    out = run(capsys, "data/mixed", "long.xyz", "-o", "out.npz", "--map", "map.html", "--map-points", "120")
    assert out.endswith("map.html: written\n")
    data = dataset_of("map.html")
    assert [structure["size"] for structure in data["structures"]] == [7, 7] + [5] * 20  # every second frame
    assert len(data["environments"]) == 2 * 7 + 20 * 5
    (x, y), elements = [name for name in data["properties"] if name.startswith("PCA")], data["properties"]["element"]
    assert len(data["properties"][x]["values"]) == len(elements["values"]) == 114
    with np.load("out.npz") as npz:
        real = npz["types"] >= 0
        mean, directions, _ = principal_components(npz["descriptor"], real)
        place = ((npz["descriptor"][28:33] - mean) @ directions)[:, 1]
    np.testing.assert_allclose(data["properties"][y]["values"][14:19], place, atol=1e-6)
    assert elements["values"][14:19] == SYMBOLS
    assert data["structures"][2]["cell"] == BOX.ravel().tolist()
    text = Path("map.html").read_text()
    assert text.count("</script>") == 3  # nothing in the data or in the viewer ends a script early
    assert 'src="http' not in text.split('id="source"')[0]
    run(capsys, "long.xyz", "-o", "out.npz", "--map", "map.html", "--map-types", "H")
    data = dataset_of("map.html")
    assert set(data["properties"]["element"]["values"]) == {"H"}
    assert len(data["environments"]) == 80
    run(capsys, "data", "-o", "out.npz", "--map", "map.html", "--pooling", "mean")
    data = dataset_of("map.html")
    assert data["settings"]["target"] == "structure"
    assert data["properties"]["origin"]["values"][0] == "data/mixed, frame 0"


def test_map_as_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = needs.package("matplotlib.image")
    run(capsys, "long.xyz", "-o", "out.npy", "--map", "map.png")
    picture = image.imread("map.png")[:, :, :3]
    coloured = picture.max(axis=2) - picture.min(axis=2) > 0.3
    assert picture.shape[0] > 500
    assert 0.001 < coloured.mean() < 0.5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-o", "out.npz"], "no structures: name some, or a list of them with -f"),
        (["long.xyz", "-o", "out.npz", "--map", "map.txt"], "must end in .html or .png or .pdf or .svg"),
        (["long.xyz", "-o", "out.npz", "--map-types", "Xe"], "--map-types: the model does not know 'Xe'"),
        (["long.xyz", "-o", "out.npz", "--map-types", "O", "--pooling", "mean"], "with --pooling the map shows"),
        (["long.xyz", "data/open", "-o", "out.npy"], "has 3 atoms, the frames before it 5: a .npy file needs equal"),
        (["empty.xyz", "-o", "out.npy"], "empty.xyz: no frames in this file"),
    ],
)
def test_failures(args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.xyz").write_text("")
    assert message in fail(capsys, *args)
    assert not [name for name in os.listdir() if name.startswith("out")]


def test_missing_libraries_are_named(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("chemiscope", "matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    for suffix, extra in (("html", "map"), ("png", "plot")):
        message = fail(capsys, "long.xyz", "-o", "out.npy", "--map", f"map.{suffix}")
        assert f"pip install 'dpa2[{extra}]'" in message
