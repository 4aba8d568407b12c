"""The dpa2 command: what it prints, what it writes, how it fails."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import dpa2
import numpy as np
import pytest
from api_models import BOX, COORDS, DEVICES, SYMBOLS, TYPES, frames, make_model, model_data, work_in
from cli_runs import interrupt, ordinary_signals, run_command
from dpa2 import embedded
from dpa2.cli import common, main
from dpa2.data import read_structures, write_frame
from dpa2.files import read, write_safetensors

every_device = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and structures, as the working directory."""
    work_in(tmp_path, monkeypatch)
    with open("one.xyz", "w") as handle:
        write_frame(handle, COORDS, SYMBOLS, BOX, info={"note": "first"})
    with open("three.xyz", "w") as handle:
        for coords in frames(3):
            write_frame(handle, coords, SYMBOLS, BOX)
    with open("small.xyz", "w") as handle:
        write_frame(handle, COORDS[:2], SYMBOLS[:2])
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run a command that must succeed; its stdout."""
    return run_command(capsys, *args)


def fail(capsys: pytest.CaptureFixture[str], status: int, *args: str) -> str:
    """Run a command that must fail with ``status``; its message."""
    assert main(list(args)) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("dpa2: error: ")
    assert "Traceback" not in captured.err
    return captured.err


@every_device
def test_eval_of_one_frame(device: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "eval", "-m", "model.safetensors", "--device", device, "one.xyz", "--descriptor")
    model = make_model(device)
    result = model.evaluate(COORDS, TYPES, BOX)
    pressure = np.trace(result.virial) / 3 / abs(np.linalg.det(BOX))
    norms = np.linalg.norm(result.forces, axis=1)
    lines = dict(line.split(None, 1) for line in out.splitlines() if not line.startswith(" "))
    assert lines["model"] == f"model.safetensors: O H C, float64, {device}, 1 thread"
    assert lines["structure"] == f"one.xyz: 5 atoms, volume {abs(np.linalg.det(BOX)):.3f} angstrom^3"
    assert lines["energy"] == f"{result.energy:.8f} eV"
    assert lines["per"] == f"atom    {result.energy / 5:.8f} eV"
    assert lines["forces"].startswith(f"max {norms.max():.6f} (atom {norms.argmax()}), rms ")
    assert lines["pressure"].startswith(f"{160.2176634 * pressure:.6f} GPa = {1602176.634 * pressure:.2f} bar")
    norm = np.linalg.norm(model.descriptor(COORDS, TYPES, BOX))
    assert lines["descriptor"] == f"shape (5, 11), norm {norm:.8f}"


@every_device
def test_eval_of_many_frames(device: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "eval", "-m", "model.safetensors", "--device", device, "three.xyz", "small.xyz", "-o", "out.npz")
    batch = make_model(device).evaluate(frames(3), TYPES, BOX)
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [row[:2] for row in rows] == [["0", "5"], ["1", "5"], ["2", "5"], ["0", "2"]]
    assert [row[2] for row in rows[:3]] == [f"{energy:.8f}" for energy in batch.energy]
    assert rows[3][-1] == "-"  # no pressure without a box
    assert "three.xyz" in out
    assert "written     out.npz (4 frames)" in out
    with np.load("out.npz") as npz:
        assert npz["natoms"].tolist() == [5, 5, 5, 2]
        np.testing.assert_array_equal(npz["energy"][:3], batch.energy)
        np.testing.assert_array_equal(npz["forces"][:15], batch.forces.reshape(15, 3))
        assert npz["virial"].shape == (4, 3, 3)
        assert npz["types"].tolist() == [*TYPES, *TYPES, *TYPES, 0, 1]


@every_device
def test_eval_writes_extended_xyz(device: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(
        capsys, "eval", "-m", "model.safetensors", "--device", device, "one.xyz", "-o", "out.extxyz", "--atomic", "edge"
    )
    ((frame,),) = read_structures("out.extxyz")
    result = make_model(device).evaluate(COORDS, TYPES, BOX)
    assert frame.energy == result.energy
    np.testing.assert_array_equal(frame.coords, COORDS)
    np.testing.assert_array_equal(frame.forces, result.forces)
    np.testing.assert_array_equal(frame.virial, result.virial)
    assert frame.info["note"] == "first"
    stress = np.array(frame.info["stress"].split(), dtype=float).reshape(3, 3)
    np.testing.assert_allclose(stress, -result.virial / abs(np.linalg.det(BOX)), rtol=1e-14)
    assert "atom_energy:R:1:atom_virial:R:9" in Path("out.extxyz").read_text()
    assert sorted(os.listdir()) == [
        "model.safetensors",
        "one.xyz",
        "out.extxyz",
        "params.safetensors",
        "small.xyz",
        "three.xyz",
    ]


@every_device
def test_eval_with_parameters(device: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model(device, nf=2, na=1)
    with open("own.xyz", "w") as handle:
        write_frame(
            handle, COORDS, SYMBOLS, BOX, arrays={"aparam": np.arange(5.0)}, info={"fparam": np.array([0.1, 0.2])}
        )
    base = ["eval", "-m", "params.safetensors", "--device", device]
    own = model.evaluate(COORDS, TYPES, BOX, fparam=[0.1, 0.2], aparam=np.arange(5.0))
    assert f"energy      {own.energy:.8f} eV" in run(capsys, *base, "own.xyz")
    given = model.evaluate(COORDS, TYPES, BOX, fparam=[1.0, -2.0], aparam=[0.5])
    assert f"energy      {given.energy:.8f} eV" in run(capsys, *base, "own.xyz", "--fparam=1,-2", "--aparam=0.5")
    plain = make_model(device).evaluate(COORDS, TYPES, BOX)  # takes none: the file's are left alone
    out = run(capsys, "eval", "-m", "model.safetensors", "--device", device, "own.xyz")
    assert f"energy      {plain.energy:.8f} eV" in out
    assert "give 2 numbers with --fparam" in fail(capsys, 2, *base, "one.xyz")


@every_device
def test_deepmd_folder(device: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("data/set.000")
    folder.mkdir(parents=True)
    Path("data/type.raw").write_text("1 0 0 2 1")
    Path("data/type_map.raw").write_text("H O C")
    np.save(folder / "coord.npy", frames(2).reshape(2, 15))
    np.save(folder / "box.npy", np.array([BOX, BOX]).reshape(2, 9))
    out = run(capsys, "eval", "-m", "model.safetensors", "--device", device, "data", "--descriptor")
    for energy in make_model(device).evaluate(frames(2), TYPES, BOX).energy:
        assert f" {energy:.8f} " in out


@every_device
def test_descriptor_to_npy(device: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["descriptor", "-m", "model.safetensors", "--device", device, "three.xyz"]
    expected = make_model(device).descriptor(frames(3), TYPES, BOX)
    assert "descriptor (3, 5, 11)" in run(capsys, *base, "-o", "out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), expected)
    run(capsys, *base, "-o", "mean.npy", "--pooling", "mean")
    np.testing.assert_array_equal(np.load("mean.npy"), expected.mean(axis=1))
    assert "needs equal numbers" in fail(capsys, 2, *base, "small.xyz", "-o", "bad.npy")
    assert not Path("bad.npy").exists()


@every_device
def test_descriptor_to_npz(device: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["descriptor", "-m", "model.safetensors", "--device", device]
    expected = make_model(device).descriptor(frames(3), TYPES, BOX)
    run(capsys, *base, "three.xyz", "-o", "same.npz")
    with np.load("same.npz") as npz:
        np.testing.assert_array_equal(npz["descriptor"], expected)
        assert npz["type_map"].tolist() == ["O", "H", "C"]
        assert npz["types"].tolist() == [TYPES.tolist()] * 3
    run(capsys, *base, "three.xyz", "small.xyz", "-o", "all.npz")
    with np.load("all.npz") as npz:
        np.testing.assert_array_equal(npz["descriptor"][:15], expected.reshape(15, 11))
        assert npz["descriptor"].shape == (17, 11)
        assert npz["natoms"].tolist() == [5, 5, 5, 2]
    run(capsys, *base, "three.xyz", "small.xyz", "-o", "mean.npz", "--pooling", "mean")
    with np.load("mean.npz") as npz:
        assert npz["descriptor"].shape == (4, 11)


def test_info(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "info", "model.safetensors")
    for text in ("model.safetensors (safetensors", "O H C", "11 numbers per atom", "2 layers", "rcut 4 angstrom"):
        assert text in out
    facts = json.loads(run(capsys, "info", "params.safetensors", "--json"))
    assert facts["config"] == model_data(nf=2, na=1).config
    assert facts["parameters"] == sum(array.size for array in model_data(nf=2, na=1).weights.values())
    assert facts["format"] == "safetensors"
    assert "frame params   2" in run(capsys, "info", "params.safetensors")


def test_convert(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "convert", "model.safetensors", "copy.safetensors")
    copy, data = read("copy.safetensors"), model_data()
    assert copy.config == data.config
    assert {name: array.tobytes() for name, array in copy.weights.items()} == {
        name: array.tobytes() for name, array in data.weights.items()
    }
    out = run(capsys, "convert", "model.safetensors", "half.safetensors", "--precision", "float32")
    assert out.startswith("half.safetensors: O H C, float32, ")
    half = json.loads(run(capsys, "info", "half.safetensors", "--json"))
    assert half["config"]["precision"] == half["config"]["descriptor"]["precision"] == "float32"
    assert half["bytes"] < 0.7 * os.path.getsize("model.safetensors")
    rounded = dpa2.load("half.safetensors", device="reference").evaluate(COORDS, TYPES, BOX)
    exact = make_model("reference").evaluate(COORDS, TYPES, BOX)
    assert 0 < abs(rounded.energy - exact.energy) < 1e-3 * abs(exact.energy)


def test_embedded_model_is_the_default(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "default_model_path", lambda: nullcontext(here / "model.safetensors"))
    out = run(capsys, "eval", "one.xyz", "--device", "reference")
    assert out.startswith("model       embedded water model: O H C")
    assert "embedded water model" in run(capsys, "info")


@pytest.mark.parametrize(
    ("status", "args", "message"),
    [
        (2, ["eval", "-m", "none.pth", "one.xyz"], "none.pth"),
        (2, ["eval", "-m", "one.xyz", "one.xyz"], "one.xyz"),
        (2, ["eval", "-m", "model.safetensors", "none.xyz"], "no such structure file or folder: none.xyz"),
        (2, ["eval", "-m", "model.safetensors", "one.xyz", "-o", "out.csv"], "must end in .extxyz or .xyz or .npz"),
        (
            2,
            ["eval", "-m", "model.safetensors", "one.xyz", "-o", "no/out.npz"],
            "the folder of the output does not exist: no",
        ),
        (2, ["eval", "-m", "model.safetensors", "one.xyz", "-o", "./one.xyz"], "would overwrite the input one.xyz"),
        (2, ["eval", "-m", "model.safetensors", "broken.xyz", "-o", "out.npz"], "broken.xyz, line 3"),
        (2, ["eval", "-m", "model.safetensors", "unknown.xyz"], "unknown.xyz, frame 0: atom 0 is 'Xe'"),
        (
            2,
            ["eval", "-m", "model.safetensors", "nan.xyz"],
            "nan.xyz, frame 0: coords of atom 0: x = nan is not finite",
        ),
        (2, ["eval", "-m", "model.safetensors", "one.xyz", "--fparam", "1"], "one.xyz, frame 0: fparam was given"),
        (
            2,
            ["descriptor", "-m", "model.safetensors", "one.xyz", "-o", "out.txt"],
            "must end in .npy or .npz or .h5 or .hdf5",
        ),
        (2, ["descriptor", "-m", "model.safetensors", "one.xyz", "--head", "x", "-o", "out.npy"], "head"),
        (2, ["convert", "model.safetensors", "out.pth"], "must end in .safetensors"),
        (2, ["convert", "model.safetensors", "model.safetensors"], "would overwrite the input"),
        (2, ["info", "none.pth"], "none.pth"),
        (2, ["info", "."], "."),
        (2, ["eval", "-m", "model.safetensors", "one.xyz", "--threads", "9999999999"], "positive integer up to 4096"),
    ],
)
def test_failures(status: int, args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.xyz").write_text("1\n\nO 0 0\n")
    Path("unknown.xyz").write_text("1\n\nXe 0 0 0\n")
    Path("nan.xyz").write_text("1\n\nO nan 0 0\n")
    before = sorted(os.listdir())
    if args[0] in ("eval", "descriptor"):
        args = [*args, "--device", "reference"]
    assert message in fail(capsys, status, *args)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (["eval"], "required: STRUCTURE"),
        (["eval", "one.xyz", "--threads", "0"], "invalid positive integer value: '0'"),
        (["eval", "one.xyz", "--precision", "float16"], "invalid choice: 'float16'"),
        (["eval", "one.xyz", "--fparam", "warm"], "invalid list of numbers value: 'warm'"),
        (["descriptor", "one.xyz"], "required: -o/--output"),
    ],
)
def test_wrong_usage(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        [],
        *(
            [name]
            for name in ("info", "eval", "descriptor", "convert", "compress", "test", "model-devi", "neighbor-stat")
        ),
    ],
)
def test_help_teaches(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"  dpa2 {command[0] if command else 'eval'} " in out
    assert max(map(len, out.splitlines())) <= 100


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"dpa2 {dpa2.__version__}\n"


@pytest.mark.filterwarnings("default::dpa2.NeighborOverflowWarning")
def test_overflow_is_a_short_warning(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_safetensors("few.safetensors", model_data(nsel=6))
    assert main(["eval", "-m", "few.safetensors", "--device", "reference", "three.xyz"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("dpa2: warning: atom ")
    assert err.count("\n") == 1


def test_interrupt(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(monkeypatch, "evaluate", call=1)
    args = ["eval", "-m", "model.safetensors", "--device", "reference", "three.xyz", "-o", "out.npz"]
    assert main([*args, "--save-deepmd", "out"]) == 130
    assert capsys.readouterr().err == "dpa2: interrupted\n"
    assert not [name for name in os.listdir() if "out" in name]


@pytest.mark.parametrize("output", ["out.npz", "out.extxyz"])
def test_interrupt_leaves_finished_frames(
    output: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, "evaluate", call=3)
    args = ["eval", "-m", "model.safetensors", "--device", "reference", "three.xyz", "-o", output]
    assert main([*args, "--save-deepmd", "saved"]) == 130
    kept = f"dpa2: 2 frames are kept in {output}.part; the same command goes on from there"
    assert capsys.readouterr().err == f"dpa2: {output} and saved: the 2 finished frames\n{kept}\ndpa2: interrupted\n"
    expected = make_model("reference").evaluate(frames(2), TYPES, BOX)
    for source in read_structures("saved"):
        assert [frame.energy for frame in source] == expected.energy.tolist()
    if output.endswith(".npz"):
        with np.load(output) as npz:
            np.testing.assert_array_equal(npz["energy"], expected.energy)
    else:
        assert Path(output).read_text().count("Lattice=") == 2
    assert [name for name in os.listdir() if "part" in name] == [f"{output}.part"]
    # Then the same command goes on, also over the folder that it has left; it prints and writes what a whole run does.
    calls: list[object] = []
    original = dpa2.Model.evaluate
    monkeypatch.setattr(dpa2.Model, "evaluate", lambda *a, **k: (calls.append(None), original(*a, **k))[1])
    out = run(capsys, *args, "--save-deepmd", "saved")
    assert len(calls) == 1
    assert out.startswith(f"{output}: going on after 2 frames\n")
    assert [line.split()[0] for line in out.splitlines() if line.strip()[:1].isdigit()] == ["0", "1", "2"]
    run(capsys, *args[:-1], f"whole{output}", "--save-deepmd", "wholesaved")
    assert Path(output).read_bytes() == Path(f"whole{output}").read_bytes()
    for name in ("coord", "box", "energy", "force", "virial", "atom_ener"):
        (found,), (whole,) = (list(Path(top).rglob(f"{name}.npy")) for top in ("saved", "wholesaved"))
        assert found.read_bytes() == whole.read_bytes()
    assert not [name for name in os.listdir() if "part" in name]


@pytest.mark.parametrize("mixed", [False, True])
def test_saved_data_set_reads_back(mixed: bool, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["eval", "-m", "model.safetensors", "--device", "reference", "three.xyz", "small.xyz"]
    out = run(capsys, *args, "--save-deepmd", "saved", *(["--mixed-type"] if mixed else []))
    assert "written     saved (4 frames)" in out
    names = ["2", "5"] if mixed else ["O1H1", "O2H2C1"]
    small, large = read_structures("saved")
    assert [Path(source.path).name for source in (small, large)] == names
    (open_frame,) = small
    assert open_frame.pbc == (False, False, False)
    expected = make_model("reference").evaluate(frames(3), TYPES, BOX)
    for k, frame in enumerate(large):
        np.testing.assert_array_equal(frame.coords, frames(3)[k])
        np.testing.assert_array_equal(frame.box, BOX)
        assert frame.types_in(["O", "H", "C"]).tolist() == TYPES.tolist()
        assert frame.energy == expected.energy[k]
        np.testing.assert_array_equal(frame.forces, expected.forces[k])
        np.testing.assert_array_equal(frame.virial, expected.virial[k])
        np.testing.assert_array_equal(frame.labels["atom_ener"], expected.atom_energy[k])
    again = run(capsys, "test", "-m", "model.safetensors", "--device", "reference", "-s", "saved")
    assert "Energy MAE         : 0.000000e+00 eV" in again
    assert "the folder to save to exists and is not empty: saved" in fail(capsys, 2, *args, "--save-deepmd", "saved")
    assert "does not exist: no" in fail(capsys, 2, *args, "--save-deepmd", "no/saved")


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        pytest.param(signal.SIGINT, 130, "interrupted", marks=pytest.mark.slow),
        (signal.SIGTERM, 143, "ended by SIGTERM"),
        pytest.param(signal.SIGHUP, 129, "ended by SIGHUP", marks=pytest.mark.slow),
    ],
)
def test_signals_leave_finished_frames(number: signal.Signals, status: int, words: str, here: Path) -> None:
    with open("long.xyz", "w") as handle:
        for coords in frames(20000):
            write_frame(handle, coords, SYMBOLS, BOX)
    args = [sys.executable, "-m", "dpa2", "descriptor", "-m", "model.safetensors", "--device", "reference", "long.xyz"]
    process = subprocess.Popen(
        [*args, "-o", "out.npy"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=ordinary_signals,
    )
    journal = Path("out.npy.part/journal")
    for _ in range(600):
        if journal.is_file() and journal.stat().st_size:
            break
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    count = json.loads(journal.read_text().splitlines()[-1])["frames"]
    assert count > 0
    note = f"dpa2: {count} frames are kept in out.npy.part; the same command goes on from there\n"
    said, *rest = err.splitlines(keepends=True)
    assert re.fullmatch(r"dpa2: a frame of 5 atoms takes about [\d.]+ seconds, 20000 .* with the reference\n", said)
    assert "".join(rest) == f"{note}dpa2: {words}\n"
    assert not Path("out.npy").exists()


def test_unwritable_outputs_are_found_before_anything_is_computed(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(*_: object, **__: object) -> None:
        raise AssertionError("evaluated")

    monkeypatch.setattr(dpa2.Model, "evaluate", computed)
    monkeypatch.setattr(dpa2.Model, "descriptor", computed)
    base = ["-m", "model.safetensors", "--device", "reference", "three.xyz"]
    for args in (["eval", *base, "-o", "/proc/out.npz"], ["descriptor", *base, "-o", "/proc/out.npz"]):
        assert fail(capsys, 2, *args) == "dpa2: error: /proc/out.npz: No such file or directory\n"
    assert "/proc/saved: " in fail(capsys, 2, "eval", *base, "--save-deepmd", "/proc/saved")
    long = "x" * 300 + ".npz"
    assert fail(capsys, 2, "eval", *base, "-o", long) == f"dpa2: error: {long}: File name too long\n"
    assert "the folder to save to is a file" in fail(capsys, 2, "eval", *base, "--save-deepmd", "one.xyz")


def test_full_disk_is_an_error_that_names_the_output(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def full(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if ".part" in path and "/." in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    base = ["eval", "-m", "model.safetensors", "--device", "reference", "three.xyz"]
    for name, options in (("out.npz", ["-o", "out.npz"]), ("saved", ["--save-deepmd", "saved"])):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert main([*base, *options]) == 2
        assert capsys.readouterr().err == (
            f"dpa2: 3 frames are kept in {name}.part; the same command goes on from there\n"
            f"dpa2: error: {name}: No space left on device\n"
        )
        assert not Path(name).exists()
        assert run(capsys, *base, *options).startswith(f"{name}: going on after 3 frames\n")


def test_full_stdout(here: Path) -> None:
    command = f"{sys.executable} -m dpa2 eval -m model.safetensors --device reference three.xyz > /dev/full"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == "dpa2: error: standard output: No space left on device\n"
    assert done.returncode == 2


@pytest.mark.parametrize("closed", ["1", "2", "0"])
def test_closed_standard_streams(closed: str, here: Path) -> None:
    command = f"{sys.executable} -m dpa2 eval -m model.safetensors --device reference three.xyz -o out.npz {closed}>&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with np.load("out.npz") as npz:
        assert npz["natoms"].tolist() == [5, 5, 5]


def test_no_frames_is_an_error(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common.Walk, "by_source", lambda self: iter([("x", iter([]))]))
    base = ["-m", "model.safetensors", "--device", "reference", "three.xyz"]
    for options in ([], ["-o", "o.npz"], ["-o", "o.xyz"], ["--save-deepmd", "o"]):
        assert "there are no frames in these structures" in fail(capsys, 2, "eval", *base, *options)
    assert "there are no frames in these structures" in fail(capsys, 2, "descriptor", *base, "-o", "o.npz")
    assert not [name for name in os.listdir() if name.startswith("o.") or name == "o"]


def test_unfinished_work_of_another_job(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = ["eval", "-m", "model.safetensors", "--device", "reference", "-o", "out.npz"]
    with monkeypatch.context() as patch:
        interrupt(patch, "evaluate", call=3)
        assert main([*base, "three.xyz"]) == 130
    capsys.readouterr()
    run(capsys, *base, "one.xyz")  # what was finished is in the output: that may be replaced as ever
    with open("bad.xyz", "w") as handle:
        write_frame(handle, COORDS, SYMBOLS, BOX)
        write_frame(handle, COORDS, ["Xe", *SYMBOLS[1:]], BOX)
    assert main([*base, "bad.xyz"]) == 2
    assert "1 frames are kept in out.npz.part" in capsys.readouterr().err
    assert "of another run (other structures): give --restart" in fail(capsys, 2, *base, "one.xyz")
    run(capsys, *base, "one.xyz", "--restart")
    assert not Path("out.npz.part").exists()


def test_reader_of_a_pipe_may_go_away(here: Path) -> None:
    command = f"{sys.executable} -m dpa2 eval -m model.safetensors --device reference three.xyz"
    done = subprocess.run(["sh", "-c", f"{command} | true"], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_progress_bar_on_a_terminal_only(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["eval", "-m", "model.safetensors", "--device", "reference", "three.xyz"]) == 0
    captured = capsys.readouterr()
    assert "/3 [" in captured.err
    assert "frame" in captured.out
    assert "[" not in captured.out
