"""`dpa2 test` of models of other kinds against what deepmd-kit's `dp --pt test` printed and wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import dpa2
import needs
import numpy as np
import pytest
from cases import GOLDEN
from cli_runs import figures_and_files, run_command
from datasets import SYSTEMS, TENSOR_SYSTEMS, write_all, write_tensors
from dpa2 import cli
from dpa2.accuracy import Accuracy
from dpa2.comparisons import comparison_of
from dpa2.data import Frame, read_structures
from tensor_sets import MORE_TENSORS, mixed_arrays, write_more_tensors

FILES = GOLDEN / "kinds" / "files"
#: where the texts of a list of systems are
ANSWERS = {TENSOR_SYSTEMS: GOLDEN / "kinds" / "dp_test", MORE_TENSORS: GOLDEN / "kind_tests"}
MORE = ANSWERS[MORE_TENSORS]
#: the options that choose the model of a kind
MODELS = {
    "dipole": ["-m", str(FILES / "dipole_excluded" / "model.pt")],
    "polar": ["-m", str(FILES / "polar" / "model.pt")],
    "dos": ["-m", str(FILES / "dos" / "model.pt")],
    "property": ["-m", str(FILES / "multitask" / "model.pt"), "--head", "gap"],
}
KINDS = list(MODELS)
LABELS = {"dipole": "dipole", "polar": "polarizability", "dos": "dos", "property": "gap"}


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the data sets."""
    folder = tmp_path_factory.mktemp("systems")
    write_tensors(folder)
    write_more_tensors(folder)
    return folder


@pytest.fixture
def here(systems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of the data sets in the working directory."""
    shutil.copytree(systems, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def leave_out_parameters(kind: str) -> None:
    """Those of the data are for other models; deepmd-kit tests this one of polarizabilities with its default ones."""
    if kind == "polar":
        for path in Path().glob("*/set.*/fparam.npy"):
            path.unlink()


def run(capsys: pytest.CaptureFixture[str], kind: str, *args: str) -> str:
    """Run ``dpa2 test`` that must succeed; its stdout."""
    leave_out_parameters(kind)
    return run_command(capsys, "test", *MODELS[kind], *args)


def fail(capsys: pytest.CaptureFixture[str], status: int, *args: str) -> str:
    """Run ``dpa2 test`` that must fail; its message."""
    assert cli.main(["test", *args]) == status
    captured = capsys.readouterr()
    assert "dpa2: error: " in captured.err
    return captured.err


@pytest.mark.parametrize("systems_of", list(ANSWERS), ids="-".join)
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_prints_and_writes_what_deepmd_kit_does(
    kind: str, atomic: bool, systems_of: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, answers = kind + ("_atomic" if atomic else ""), ANSWERS[systems_of]
    out = run(capsys, kind, "-s", *systems_of, "-d", name, *(["-a"] if atomic else []))
    written = sorted(path.name for path in answers.glob(f"{name}.*") if path.suffix != ".txt")
    assert written
    assert figures_and_files(out) == ((answers / f"{name}.txt").read_text(), written)
    assert sorted(path.name for path in Path().glob(f"{name}.*")) == written
    for path in written:
        ours, theirs = Path(path).read_text().splitlines(), (answers / path).read_text().splitlines()
        assert ours[0] == theirs[0]
        assert [len(line.split()) for line in ours] == [len(line.split()) for line in theirs]
        assert {len(word) for word in ours[1].split()} <= {24, 25}  # as many digits
        np.testing.assert_allclose(np.loadtxt(ours), np.loadtxt(theirs), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_some_frames_of_each_system(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, kind, "-s", *MORE_TENSORS, "-n", "2") == (MORE / f"{kind}_two.txt").read_text()


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("kind", ["dos", "property"])
def test_mixed_type(kind: str, atomic: bool, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suffix, option = ("_atomic", ["-a"]) if atomic else ("", [])
    assert run(capsys, kind, "-s", "mixed", *option) == (MORE / f"{kind}_mixed{suffix}.txt").read_text()


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("kind", ["dipole", "polar"])
def test_tensors_of_mixed_type(kind: str, atomic: bool, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """deepmd-kit takes all frames for the first one's types; of the frames as systems of their own it is right."""
    suffix, option = ("_atomic", ["-a"]) if atomic else ("", [])
    theirs = (MORE / f"{kind}_mixed{suffix}.txt").read_text().splitlines()
    ours = run(capsys, kind, "-s", "mixed", *option).splitlines()
    assert ours[-4:-2] == ["# number of systems : 1", theirs[-3]]
    assert theirs[-3].startswith(("Dipole  RMSE", "Polarizability  RMSE"))


@pytest.mark.parametrize("name", ["zbl", "linear"])
def test_combinations_are_tested_as_energies(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_all(tmp_path)
    out = run_command(capsys, "test", "-m", str(FILES / name / "model.pt"), "-s", *SYSTEMS)
    assert out == (MORE / f"{name}.txt").read_text()


def test_processes_find_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "dipole", "-s", *MORE_TENSORS, "--workers", "2")
    assert out == (MORE / "dipole.txt").read_text()


def test_rows_of_frames_with_other_atoms(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every change of the number of selected atoms has a line of words of its own."""
    run(capsys, "dipole", "-s", "mixed", "-a", "-d", "detail")
    lines = Path("detail.out").read_text().splitlines()
    # the map of types is H Cu O; hydrogen is excluded
    counts = [int(np.sum(types > 0)) for types in mixed_arrays()["real_atom_types"]]
    assert counts == [4, 2, 4, 0]
    widths = [4, 4, 2, 2, 4, 4]
    assert [len(line.removeprefix("#").split()) for line in lines] == [6 * n for n in widths]
    assert [line.startswith("# data_x1 ") for line in lines] == [True, False] * 3


def test_parameters_are_passed_to_tensor_models(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """deepmd-kit does not pass them."""
    path = str(FILES / "dipole" / "model.pt")
    rng, folder = np.random.default_rng(1), Path("tensors_periodic/set.000")
    fparam, aparam = rng.normal(size=(2, 2)), rng.normal(size=(2, 6))
    np.save(folder / "fparam.npy", fparam)
    np.save(folder / "aparam.npy", aparam)
    out = run_command(capsys, "test", "-m", path, "-s", "tensors_periodic")
    model = dpa2.load(path)
    (source,) = read_structures("tensors_periodic")
    away = []
    for f, frame in enumerate(source):
        parameters = {"fparam": fparam[f], "aparam": aparam[f][:, None]}
        result = model.evaluate(frame.coords, frame.types_in(model.type_map), frame.box, **parameters)
        away.append(result.outputs["global_dipole"] - np.load(folder / "dipole.npy")[f])
    assert f"Dipole  RMSE       : {np.sqrt(np.mean(np.square(away))):e}" in out.splitlines()


def test_label_of_another_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path().glob("*/set.*/*dipole.npy"):
        path.rename(path.with_name(path.name.replace("dipole", "moment")))
    args = ["-s", *TENSOR_SYSTEMS, "--label-key", "moment"]
    assert run(capsys, "dipole", *args) == (ANSWERS[TENSOR_SYSTEMS] / "dipole.txt").read_text()
    assert run(capsys, "dipole", *args, "-a") == (ANSWERS[TENSOR_SYSTEMS] / "dipole_atomic.txt").read_text()
    message = fail(capsys, 2, "-m", str(FILES / "zbl" / "model.pt"), "-s", "mixed", "--label-key", "moment")
    assert "this is an energy model, with --energy-key NAME" in message


def test_population_is_refused_in_deepmd_kits_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fail(capsys, 2, "-m", str(FILES / "population" / "model.pt"), "-s", "metal")
    assert message == "dpa2: error: Testing is not supported for DeepPopulation.\n"


@pytest.mark.filterwarnings("default::dpa2.ReadingWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_are_missing(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = LABELS[kind]
    leave_out_parameters(kind)
    for path in Path("metal").glob(f"set.*/{label}.npy"):
        path.unlink()
    message = fail(capsys, 2, *MODELS[kind], "-s", "metal")
    assert f"no labels to test against, no {label} and no atom_{label}: metal (3 frames); labels" in message
    assert "--label-key NAME" in message
    assert cli.main(["test", *MODELS[kind], "-s", "metal", "tensors_open"]) == 0
    captured = capsys.readouterr()
    assert "dpa2: warning: no labels to test against" in captured.err
    assert "# no labels to test against" in captured.out
    assert "# number of systems : 2" in captured.out
    for path in Path("metal").glob(f"set.*/*_{label}.npy"):
        path.unlink()
    message = fail(capsys, 2, *MODELS[kind], "-s", "metal", "-a")
    assert f"metal, frame 0: there is no {label} of atoms to compare with (atom_{label}.npy)" in message


@pytest.mark.parametrize(
    ("kind", "name", "columns", "args", "message"),
    [
        ("dipole", "dipole", 15, [], "metal, frame 0: dipole must be 3 numbers, found 15; values of atoms are read"),
        ("dipole", "atom_dipole", 4, ["-a"], "atom_dipole must be 3 x the 5 atoms or of the 3 of the model's selected"),
        ("polar", "polarizability", 6, [], "polarizability must be 9 numbers, found 6"),
        ("dos", "dos", 6, [], "dos must be 7 numbers, found 6"),
        ("dos", "atom_dos", 7, ["-a"], "atom_dos must be 7 x the 5 atoms, found 7 numbers; a value of the frame"),
        ("property", "gap", 3, [], "gap must be 2 numbers, found 3"),
        ("property", "atom_gap", 5, ["-a"], "atom_gap must be 2 x the 5 atoms, found 5 numbers"),
    ],
)
def test_labels_of_the_wrong_size(
    kind: str, name: str, columns: int, args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_out_parameters(kind)
    shutil.rmtree("metal/set.001")
    np.save(f"metal/set.000/{name}.npy", np.zeros((2, columns)))
    assert message in fail(capsys, 2, *MODELS[kind], "-s", "metal", *args)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_without_a_label_are_not_counted(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor are they zeros in detail files, as energies are."""
    label = LABELS[kind]
    Path(f"metal/set.001/{label}.npy").unlink()
    out, _ = figures_and_files(run(capsys, kind, "-s", "metal", "-d", "detail"))
    shutil.rmtree("metal/set.001")
    assert out.replace("data : 3", "data : 2") == run(capsys, kind, "-s", "metal")
    third = {"dos": "dos.out.2", "property": "property.out.2"}.get(kind, "out")
    rows = np.loadtxt(f"detail.{third}")
    labels, predictions = (rows[-1, : rows.shape[1] // 2], rows[-1, rows.shape[1] // 2 :])
    if third != "out":
        labels, predictions = rows.T
    assert np.isnan(labels).all()
    assert np.isfinite(predictions).all()


@pytest.mark.filterwarnings("default::dpa2.ReadingWarning")
def test_labels_under_unknown_names_are_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'Properties=species:S:1:pos:R:3 my_dipole="1 2 3"'
    Path("some.extxyz").write_text(f"2\n{text}\nO 0 0 0\nO 0 0 1.2\n2\n{text} dipole='1 2 3'\nO 0 0 0\nO 0 0 1.2\n")
    assert cli.main(["test", *MODELS["dipole"], "-s", "some.extxyz"]) == 0
    captured = capsys.readouterr()
    assert "some.extxyz: not read as labels: my_dipole (--label-key NAME: the names of labels)" in captured.err
    one = captured.out.splitlines()[3]
    assert run(capsys, "dipole", "-s", "some.extxyz", "--label-key", "my_dipole").splitlines()[3] == one


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", ["extxyz", "standard", "mixed"])
def test_what_eval_writes_is_without_errors(
    kind: str, output: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {
        "extxyz": ["-o", "out.extxyz"],
        "standard": ["--save-deepmd", "out"],
        "mixed": ["--save-deepmd", "out", "--mixed-type"],
    }[output]
    leave_out_parameters(kind)
    run_command(capsys, "eval", *MODELS[kind], "metal", "tensors_open" if output == "extxyz" else "mixed", *options)
    path = "out.extxyz" if output == "extxyz" else "out"
    out = run(capsys, kind, "-s", path, "-a") + run(capsys, kind, "-s", path)
    errors = [float(line.partition(":")[2].split()[0]) for line in out.splitlines() if "MAE" in line or "RMSE" in line]
    assert len(errors) >= 4
    assert max(errors) < 1e-10
    assert out.count("# number of systems") == 2


def test_parity_plot(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = needs.package("matplotlib.image")
    for kind in sorted(KINDS, key=lambda kind: kind == "polar"):
        run(capsys, kind, "-s", "metal", "--plot", f"{kind}.png")
        picture = image.imread(f"{kind}.png")
        assert picture.shape[0] > 400
        assert 0.01 < (picture[:, :, :3].min(axis=2) < 0.9).mean() < 0.2
        shutil.rmtree("empty", ignore_errors=True)
        shutil.copytree("metal", "empty")
        for path in Path("empty").glob(f"set.*/{LABELS[kind]}.npy"):
            path.unlink()
        assert f"no {LABELS[kind]} and no" in fail(capsys, 2, *MODELS[kind], "-s", "empty", "--plot", "empty.png")


def test_errors_of_parts_add_up(here: Path) -> None:
    model = dpa2.load(FILES / "dipole_excluded" / "model.pt")
    comparison = comparison_of(model)
    whole, parts = Accuracy(comparison), [Accuracy(comparison) for _ in range(2)]
    for name in ("metal", "mixed"):
        (source,) = read_structures(name)
        for k, frame in enumerate(source):
            result = model.evaluate(frame.coords, frame.types_in(model.type_map), frame.box)
            whole.add(frame, result)
            parts[k % 2].add(frame, result)
    parts[0].merge(parts[1])
    assert (whole.frames, whole.labelled) == (parts[0].frames, parts[0].labelled) == (7, 7)
    assert whole.errors["rmse"].rmse == pytest.approx(parts[0].errors["rmse"].rmse, rel=1e-13)
    assert len(whole.lines()) == 4
    assert Accuracy(comparison).lines() == []
    frame = Frame(np.zeros((1, 3)), np.zeros(1, dtype=np.int32), ("O",))
    whole.add(frame, model.evaluate(frame.coords, ["O"]))
    assert (whole.frames, whole.labelled) == (8, 7)
