"""Commands other than ``dpa2 test`` with models of other kinds: they write deepmd-kit's numbers and print what fits."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import dpa2
import numpy as np
import pytest
from cases import GOLDEN, System
from cli_runs import interrupt, run_command
from dpa2.cli import main
from dpa2.data import read_structures, write_frame
from dpa2.data.labels import label_of
from kind_cases import FILES, KIND_CASES, KindCase, load_kind

CASES = {case.name: case for case in KIND_CASES if case.formats}
#: names in ``.npz`` files of the outputs of energy models that have others than deepmd-kit's
FIELDS = {"force": "forces"}
#: one model of every kind
EVERY_KIND = ("dipole", "polar", "dos", "property", "population", "zbl", "linear")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def options(name: str) -> list[str]:
    """The model of a case."""
    case = CASES[name]
    head = ["--head", name.removeprefix("multitask_")] if case.folder == "multitask" else []
    return ["-m", str(FILES / case.folder / f"model.{case.formats[0]}"), *head]


def write_system(case: KindCase, system: System, path: str = "frames.extxyz") -> str:
    """The frames of a golden system with their parameters."""
    names = case.config["type_map"]
    with open(path, "w") as handle:
        for f, coords in enumerate(system.coord):
            types = system.atype if system.atype.ndim == 1 else system.atype[f]
            info = {} if system.fparam is None else {"fparam": system.fparam[f]}
            arrays = {} if system.aparam is None else {"aparam": system.aparam[f]}
            box = None if system.box is None else system.box[f]
            write_frame(handle, coords, [names[t] for t in types], box, arrays=arrays, info=info)
    return path


def bulk(name: str) -> System:
    return next(system for system in load_kind(CASES[name]).systems if system.name in ("bulk", "open"))


@pytest.mark.filterwarnings("ignore::dpa2.NeighborOverflowWarning")
@pytest.mark.filterwarnings("ignore::dpa2.ClosePairWarning")
@pytest.mark.parametrize("name", list(CASES))
def test_arrays_are_deepmd_kits(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    case, system = CASES[name], bulk(name)
    derivatives = "force" in system.expected
    atomic = ["--atomic", "deepmd"] if derivatives else []
    frames = write_system(case, system)
    assert main(["eval", *options(name), frames, "-o", "out.npz", "--descriptor", *atomic]) == 0
    capsys.readouterr()
    with np.load("out.npz") as npz:
        found = dict(npz)
    energies = "energy" in case.answers
    for output in (*case.answers, "descriptor"):
        if output not in system.expected:  # that of a combination is none of its own
            continue
        expected = system.expected[output]
        ours = found[FIELDS.get(output, output) if energies else output]
        assert ours.shape == expected.shape or energies
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(ours.reshape(expected.shape), expected, rtol=0, atol=case.tolerance * scale)
    names = {"natoms", "types", "descriptor"} | {FIELDS.get(o, o) if energies else o for o in case.answers}
    assert found.keys() == names | (set() if energies else {"mask"})
    if not energies:
        counted = ~np.isin(found["types"], case.config["atom_exclude_types"])
        np.testing.assert_array_equal(found["mask"], counted)
        assert found["mask"].dtype == np.int32
    if not derivatives:
        status = main(["eval", *options(name), frames, "--atomic", "edge"])
        assert status == 2
        assert "--atomic is for models with forces: a " in capsys.readouterr().err


@pytest.mark.parametrize(("name", "entry", "column"), [
    ("dipole", "dipole", "atom_dipole"),
    ("polar", "polarizability", "atom_polarizability"),
    ("dos", "dos", "atom_dos"),
    ("property", "gap", "atom_gap"),
    ("population", "", "atom_population"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::dpa2.NeighborOverflowWarning")
def test_extended_xyz(name: str, entry: str, column: str, capsys: pytest.CaptureFixture[str]) -> None:
    case, system = CASES[name], bulk(name)
    frames = write_system(case, system)
    assert main(["eval", *options(name), frames, "-o", "out.extxyz"]) == 0
    whole, per_atom = (case.answers[0], case.answers[1]) if entry else ("", case.answers[0])
    (source,) = read_structures("out.extxyz")
    for f, frame in enumerate(source):
        every = np.ones(len(frame), dtype=bool)
        expected = system.expected[per_atom][f]
        found = label_of(frame, column, expected.shape[1:], every)
        np.testing.assert_allclose(found, expected, rtol=0, atol=case.tolerance * max(1.0, np.abs(expected).max()))
        if entry:
            expected = system.expected[whole][f]
            np.testing.assert_allclose(label_of(frame, entry, expected.shape), expected, rtol=0, atol=1e-10)
        assert frame.forces is None  # nobody takes the derivatives of a dipole for forces
        assert frame.virial is None
    assert ("dipole_virial=" in Path("out.extxyz").read_text()) == (name == "dipole")
    assert (":dipole_force:R:9" in Path("out.extxyz").read_text()) == (name == "dipole")


@pytest.mark.filterwarnings("ignore::dpa2.NeighborOverflowWarning")
@pytest.mark.parametrize(("name", "pattern"), [
    ("dipole", r"dipole      (\S+) (\S+) (\S+), norm (\S+)\nderivative  max \S+ \(atom \d+\), rms \S+ per angstrom\n"),
    ("polar", r"polar {9}( +\S+){3}\n( +\S+){3}\n( +\S+){3}\nmean        \S+, anisotropy \S+\n"),
    ("dos", r"dos         7 numbers, sum \S+, largest \S+ \(number \d\)\nnumbers    ( \S+){7}\n"),
    ("property", r"gap         \S+ \S+ \S+\n"),
    ("population", r"population  alpha \S+, beta \S+, difference \S+ \(sums over atoms\)\n"),
    ("zbl", r"energy      (\S+) eV\n"),
    ("linear", r"energy      (\S+) eV\n"),
])  # fmt: skip
def test_what_is_printed(name: str, pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A summary of one frame, a table of several."""
    system = bulk(name)
    frames = write_system(CASES[name], system)
    assert main(["eval", *options(name), frames]) == 0
    table = capsys.readouterr().out.splitlines()
    first = np.array([float(word) for word in table[4].split()])
    write_frame_of(frames)
    assert main(["eval", *options(name), "one.extxyz"]) == 0
    out = capsys.readouterr().out
    found = re.search(pattern, out)
    assert found is not None
    assert first[:2].tolist() == [0.0, system.coord.shape[1]]
    expected = {
        "dipole": lambda e: [*e["global_dipole"], np.linalg.norm(e["global_dipole"]), np.abs(e["force"]).max()],
        "polar": lambda e: [*np.diag(e["global_polar"]), np.trace(e["global_polar"]) / 3],
        "dos": lambda e: [7, e["dos"].sum(), e["dos"].max(), e["dos"].argmax()],
        "property": lambda e: e["gap"],
        "population": lambda e: [*e["population"].sum(axis=0)],
        "zbl": lambda e: [e["energy"].item()],
        "linear": lambda e: [e["energy"].item()],
    }[name]({key: array[0] for key, array in system.expected.items()})
    tolerance = 1e-6 if CASES[name].tolerance < 1e-6 else 1e-3
    np.testing.assert_allclose(first[2 : 2 + len(expected)], expected, rtol=1e-6, atol=tolerance)


def write_frame_of(path: str) -> None:
    """The first frame of an extended XYZ file as a file of its own."""
    lines = Path(path).read_text().splitlines(keepends=True)
    Path("one.extxyz").write_text("".join(lines[: int(lines[0]) + 2]))


@pytest.mark.filterwarnings("ignore::dpa2.NeighborOverflowWarning")
@pytest.mark.parametrize("output", ["out.npz", "out.extxyz"])
@pytest.mark.parametrize("name", ["dipole", "dos"])
def test_interrupted_runs_go_on(
    name: str, output: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = write_system(CASES[name], bulk(name))
    base = ["eval", *options(name), frames]
    whole = ["-o", f"whole{output}", "--save-deepmd", "whole", "--descriptor"]
    assert main([*base, *whole]) == 0
    with monkeypatch.context() as patch:
        interrupt(patch, "evaluate", call=2)
        assert main([*base, "-o", output, "--save-deepmd", "saved", "--descriptor"]) == 130
    assert f"{output}.part" in os.listdir()
    capsys.readouterr()
    assert main([*base, "-o", output, "--save-deepmd", "saved", "--descriptor"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{output}: going on after 1 frames\n")
    assert Path(output).read_bytes() == Path(f"whole{output}").read_bytes()
    arrays = sorted(path.relative_to("whole") for path in Path("whole").rglob("*.npy"))
    assert len(arrays) >= 5
    for path in arrays:
        assert ("saved" / path).read_bytes() == ("whole" / path).read_bytes()


@pytest.mark.filterwarnings("ignore::dpa2.NeighborOverflowWarning")
@pytest.mark.parametrize("name", EVERY_KIND)
def test_descriptors(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    system = bulk(name)
    frames = write_system(CASES[name], system)
    assert main(["descriptor", *options(name), frames, "-o", "out.npy"]) == 0
    found = np.load("out.npy")
    expected = system.expected.get("descriptor")
    if expected is None:
        expected = system.expected["descriptor0"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=CASES[name].tolerance)


@pytest.mark.parametrize("name", ["dipole", "polar", "dos", "property", "population"])
def test_deviation_is_of_energy_models(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    frames = write_system(CASES["zbl"], bulk("zbl"))
    path, energies = options(name)[1], options("zbl")[1]
    assert main(["model-devi", "-m", energies, path, "-s", frames]) == 2
    kind = dpa2.load(path).kind
    words = f"{path}: this is a {kind} model; model-devi compares energies, forces and virials"
    assert words in capsys.readouterr().err
    assert not Path("model_devi.out").exists()


@pytest.mark.filterwarnings("ignore::dpa2.ClosePairWarning")
def test_deviation_of_combinations(capsys: pytest.CaptureFixture[str]) -> None:
    frames = write_system(CASES["zbl"], bulk("zbl"))
    path = options("zbl")[1]
    assert main(["model-devi", "-m", path, path, "-s", frames]) == 0
    assert "largest max_devi_f 0.000000e+00" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::dpa2.NeighborOverflowWarning")
@pytest.mark.filterwarnings("ignore::dpa2.ClosePairWarning")
@pytest.mark.parametrize("name", EVERY_KIND)
def test_bench(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    frames = write_system(CASES[name], bulk(name))
    arguments = ["bench", *options(name), frames, "--atoms", "20", "--steps", "1"]
    report = json.loads(run_command(capsys, *arguments, "--json"))
    energies = name in ("zbl", "linear")
    assert (report["energy_error"] is not None) == (report["force_error"] is not None) == energies
    assert (report["value_error"] is not None) == (not energies)
    assert (report["derivative_error"] is not None) == (name == "dipole")
    assert report["kind"] == ("energy" if energies else name)
    lines = [line.split()[0] for line in run_command(capsys, *arguments).splitlines()[6:]]
    assert lines == {"dipole": ["dipole", "derivative"]}.get(name, ["energy", "forces"] if energies else [name])
    if energies:
        return
    exact = dpa2.Model.evaluate

    def wrong(self: dpa2.Model, coords: np.ndarray, *args: object, **keywords: object) -> dpa2.Result:
        result = exact(self, coords, *args, **keywords)  # type: ignore[arg-type]
        values = next(output.name for output in self.outputs if output.per_atom and output.of == "")
        result.outputs[values][-1] += 1e-3 * len(coords)
        return result

    monkeypatch.setattr(dpa2.Model, "evaluate", wrong)
    assert main(arguments) == 1
    assert f"the copies do not have the values of the small box: difference of a number of an atom ({name})" in (
        capsys.readouterr().err
    )


def test_golden_models_are_where_they_are_looked_for() -> None:
    assert GOLDEN / "kinds" / "files" == FILES
    assert len(CASES) >= 12
