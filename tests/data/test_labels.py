"""Labels under all their names: energies, forces, virials and stresses of extended XYZ and of ASE's formats."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import dpa2
import needs
import numpy as np
import pytest
from cli_runs import run_command
from dpa2.cli import main
from dpa2.data import Frame, read_structures

VOLUME = 240.0
LATTICE = 'Lattice="5 0 0 1 6 0 0 2 8" Properties=species:S:1:pos:R:3'
VIRIAL = np.array([[1.0, 0.5, 0.25], [0.5, 2.0, -0.75], [0.25, -0.75, 3.0]])
NINE = " ".join(repr(float(x)) for x in VIRIAL.ravel())
STRESS = -VIRIAL / VOLUME
STRESS_NINE = " ".join(repr(float(x)) for x in STRESS.ravel())
VOIGT = [STRESS[0, 0], STRESS[1, 1], STRESS[2, 2], STRESS[1, 2], STRESS[0, 2], STRESS[0, 1]]
STRESS_SIX = " ".join(repr(float(x)) for x in VOIGT)


def frames(folder: Path, comments: list[str], columns: str = "", values: str = "", **options: str) -> list[Frame]:
    """The frames of two atoms with these comments."""
    path = folder / "some.extxyz"
    path.write_text("".join(f"2\n{comment}{columns}\nO 0 0 0{values}\nH 1 0 0{values}\n" for comment in comments))
    (source,) = read_structures(path, **options)  # type: ignore[arg-type]
    return list(source)


def frame(folder: Path, entries: str, columns: str = "", values: str = "", **options: str) -> Frame:
    (found,) = frames(folder, [f"{entries} {LATTICE}"], columns, values, **options)
    return found


@pytest.mark.parametrize(
    "name", ["energy", "Energy", "free_energy", "REF_energy", "ref_energy", "dft_energy", "DFT_energy"]
)
def test_names_of_energies(name: str, tmp_path: Path) -> None:
    found = frame(tmp_path, f"{name}=-1.5 other_energy=3")
    assert found.energy == -1.5
    assert found.info.pop("other_energy") == "3"
    assert list(found.info) == ([name] if "_" in name and name != "free_energy" else [])  # references go on


@pytest.mark.parametrize("name", ["forces", "force", "Forces", "REF_forces", "dft_force"])
def test_names_of_forces(name: str, tmp_path: Path) -> None:
    found = frame(tmp_path, "", f":{name}:R:3:charge:R:1", " .1 .2 .3 1")
    assert found.forces.tolist() == [[0.1, 0.2, 0.3]] * 2
    assert found.unread == ("species", "pos", "charge") or "charge" in found.unread


@pytest.mark.parametrize(
    "entry",
    [
        f'virial="{NINE}"',
        f'virials="{NINE}"',
        f"REF_virial=[[{NINE[:12]}], [{NINE[12:]}]]",
        f'stress="{STRESS_NINE}"',
        f'stress="{STRESS_SIX}"',
        f'REF_stress="{STRESS_SIX}"',
        f'Stress="{STRESS_NINE}" virials="{NINE}"',
    ],
)
def test_virials_and_stresses(entry: str, tmp_path: Path) -> None:
    """A virial is -volume times the stress; Voigt's order is xx yy zz yz xz xy."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = frame(tmp_path, entry)
    np.testing.assert_allclose(found.virial, VIRIAL, rtol=1e-12)


def test_keys_of_the_user(tmp_path: Path) -> None:
    entries = f'energy=1 pbe=2 virial="{NINE}" sigma="{" ".join(["0.125"] * 9)}"'
    found = frame(
        tmp_path,
        entries,
        ":forces:R:3:grad:R:3",
        " 1 2 3 4 5 6",
        energy_key="pbe",
        forces_key="grad",
        stress_key="sigma",
    )
    assert found.energy == 2.0
    assert found.forces.tolist() == [[4, 5, 6]] * 2
    np.testing.assert_allclose(found.virial, np.full((3, 3), -0.125 * VOLUME), rtol=1e-13)
    assert "energy" in found.info
    assert frame(tmp_path, "energy=1 pbe=2").energy == 1.0


@pytest.mark.parametrize("what", ["energy", "forces", "virial", "stress"])
def test_a_key_that_no_frame_has(what: str, tmp_path: Path) -> None:
    with pytest.raises(dpa2.InputError, match=rf"no frame has 'absent', which --{what}-key names"):
        frame(tmp_path, "energy=1", **{f"{what}_key": "absent"})
    found = frames(tmp_path, [f"absent=1 {LATTICE}", f"energy=2 {LATTICE}"], energy_key="absent")
    assert [part.energy for part in found] == [1.0, None]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("energy=1 REF_energy=2", "energy and REF_energy differ; energy is taken .--energy-key REF_energy takes"),
        (f'virial="{NINE}" stress="{NINE}"', r"the virial and -volume \* stress differ by up to"),
        (f'virial="{NINE}" virials="{STRESS_NINE}"', "virial and virials differ; virial is taken"),
        (f'stress="{STRESS_SIX}" REF_stress="{NINE}"', "stress and REF_stress differ; stress is taken"),
    ],
)
def test_labels_that_contradict_each_other_are_said(entries: str, message: str, tmp_path: Path) -> None:
    with pytest.warns(dpa2.ReadingWarning, match=message) as record:
        found = frames(tmp_path, [f"{entries} {LATTICE}"] * 2)
    assert len(record) == 1
    assert found[0].energy == (1.0 if "energy" in entries else None)
    assert found[0].virial is None or np.allclose(found[0].virial, VIRIAL)


def test_two_columns_of_forces_that_differ(tmp_path: Path) -> None:
    with pytest.warns(dpa2.ReadingWarning, match="forces and REF_forces differ; forces is taken"):
        found = frame(tmp_path, "", ":REF_forces:R:3:forces:R:3", " 1 2 3 4 5 6")
    assert found.forces.tolist() == [[4, 5, 6]] * 2


def test_free_energy_beside_the_energy_is_no_contradiction(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frame(tmp_path, "free_energy=2 energy=1").energy == 1.0


def test_stress_of_an_open_structure(tmp_path: Path) -> None:
    with pytest.warns(dpa2.ReadingWarning, match="stress is not read: a stress needs a box that is periodic"):
        found = frame(tmp_path, f'stress="{STRESS_SIX}" pbc="T T F"')
    assert found.virial is None


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ('virial="1 2 3 4 5 6"', "virial must be 9 numbers, found 6"),
        ('stress="1 2 3"', "stress must be 6 or 9 numbers, found 3"),
        ("REF_energy=low", "REF_energy must be numbers, found 'low'"),
        ('energy="1 2"', "energy must be 1 number, found 2"),
        ("free_energy=1_0", "free_energy must be numbers, found '1_0'"),
    ],
)
def test_malformed_labels(entries: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        frame(tmp_path, entries)


def test_forces_of_another_width(tmp_path: Path) -> None:
    with pytest.raises(dpa2.InputError, match=r"forces must have 3 columns, found shape \(2, 2\)"):
        frame(tmp_path, "", ":forces:R:2", " 1 2")


@pytest.mark.parametrize("suffix", ["traj", "json", "db"])
def test_labels_through_ase(suffix: str, tmp_path: Path) -> None:
    ase = needs.package("ase")
    from ase import io
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = ase.Atoms("OH", [[0, 0, 0], [1, 0, 0]], cell=[[5, 0, 0], [1, 6, 0], [0, 2, 8]], pbc=True)
    results = {"energy": -2.5, "free_energy": -2.75, "forces": np.eye(3)[:2], "stress": VOIGT}
    of_atoms = {"energies": np.ones(2), "stresses": np.ones((2, 6)), "charges": np.ones(2)}
    atoms.calc = SinglePointCalculator(atoms, **results, **of_atoms)
    io.write(tmp_path / f"some.{suffix}", atoms)
    ((found,),) = read_structures(tmp_path / f"some.{suffix}")
    assert found.energy == -2.5
    assert found.forces.tolist() == np.eye(3)[:2].tolist()
    np.testing.assert_allclose(found.virial, VIRIAL, rtol=1e-12)


def test_labels_of_info_through_ase(tmp_path: Path) -> None:
    ase = needs.package("ase")
    from ase import io

    atoms = ase.Atoms("OH", [[0, 0, 0], [1, 0, 0]], cell=[[5, 0, 0], [1, 6, 0], [0, 2, 8]], pbc=True)
    atoms.info.update({"REF_energy": -3.5, "REF_stress": STRESS, "note": "x"})
    io.write(tmp_path / "some.traj", atoms)
    ((found,),) = read_structures(tmp_path / "some.traj")
    assert found.energy == -3.5
    np.testing.assert_allclose(found.virial, VIRIAL, rtol=1e-12)


def test_what_ase_writes_of_a_calculation(tmp_path: Path) -> None:
    """Extended XYZ of ASE has the stress, in Voigt's order or as nine numbers, and energy beside free_energy."""
    ase = needs.package("ase")
    from ase import io
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = ase.Atoms("OH", [[0, 0, 0], [1, 0, 0]], cell=[[5, 0, 0], [1, 6, 0], [0, 2, 8]], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-2.5, free_energy=-2.75, forces=np.eye(3)[:2], stress=VOIGT)
    io.write(tmp_path / "some.extxyz", atoms)
    ((found,),) = read_structures(tmp_path / "some.extxyz")
    assert found.energy == -2.5
    np.testing.assert_allclose(found.virial, VIRIAL, rtol=1e-6)


@pytest.mark.parametrize(("name", "value"), [("virials", VIRIAL), ("REF_virial", VIRIAL), ("dft_stress", STRESS)])
def test_matrices_that_ase_writes_as_json(name: str, value: object, tmp_path: Path) -> None:
    """ASE writes a 3 x 3 array of ``info`` as ``name="_JSON [[...], ...]"``, except under the names that it knows."""
    ase = needs.package("ase")
    from ase.io import write

    atoms = ase.Atoms("OH", [[0, 0, 0], [1, 0, 0]], cell=[[5, 0, 0], [1, 6, 0], [0, 2, 8]], pbc=True)
    atoms.info[name] = value
    write(tmp_path / "some.extxyz", atoms)
    assert "_JSON [[" in (tmp_path / "some.extxyz").read_text()
    (source,) = read_structures(tmp_path / "some.extxyz")
    (found,) = source
    np.testing.assert_allclose(found.virial, VIRIAL, rtol=1e-12)


def test_arrays_of_deepmd_systems_by_key(tmp_path: Path) -> None:
    folder = tmp_path / "set.000"
    folder.mkdir()
    (tmp_path / "type.raw").write_text("0 1")
    arrays = {"coord": np.ones((2, 6)), "box": np.ones((2, 9)), "energy": np.ones(2), "energy_pbe": np.arange(2.0)}
    for name, array in {**arrays, "grad": np.full((2, 6), 3.0)}.items():
        np.save(folder / f"{name}.npy", array)
    (source,) = read_structures(tmp_path, energy_key="energy_pbe", forces_key="grad", types=("H", "O"))
    found = list(source)
    assert [part.energy for part in found] == [0.0, 1.0]
    assert found[0].forces.tolist() == [[3, 3, 3]] * 2
    assert found[0].names == ("H", "O")
    assert "energy_pbe" not in found[0].labels
    with pytest.raises(dpa2.InputError, match="no set has an array 'absent', which --virial-key names"):
        list(read_structures(tmp_path, virial_key="absent")[0])
    with pytest.raises(dpa2.InputError, match="has virials and no stresses: leave --stress-key out"):
        read_structures(tmp_path, stress_key="stress")


# -------------------------------------------------------------------------------- commands


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A structure of water in the working directory, evaluated by the embedded model with the answers as labels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    atoms = "O 1 1 1\nH 1.9 1 1\nH 1 1.9 1\nO 4 4 4\nH 4.9 4 4\nH 4 4.9 4\n"
    Path("bare.xyz").write_text(f'6\nLattice="9 0 0 1 9 0 0 0 9" Properties=species:S:1:pos:R:3\n{atoms}')
    assert main(["eval", "bare.xyz", "-o", "all.extxyz"]) == 0
    return tmp_path


def errors(text: str) -> dict[str, float]:
    """The root mean square errors of a report of one system."""
    lines = [
        line.split(" : ") if " : " in line else line.split(": ")
        for line in text.split("weighted average")[0].split("\n")
    ]
    return {line[0].strip(): float(line[1].split()[0]) for line in lines if "RMSE" in line[0]}


@pytest.mark.parametrize("kind", ["stress", "virials", "REF_virial"])
def test_report_is_the_same_by_whatever_name(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels that are the model's own answers: the errors are 0 but for rounding, and none is left out."""
    text = Path("all.extxyz").read_text()
    virial, stress = (re.search(rf' {name}="[^"]*"', text)[0] for name in ("virial", "stress"))  # type: ignore[index]
    chosen = {"stress": stress, "virials": virial.replace("virial", "virials"), "REF_virial": f" REF_{virial[1:]}"}
    text = text.replace(virial, "").replace(stress, chosen[kind])
    text = text.replace(" energy=", " free_energy=") if kind == "virials" else text
    Path("some.extxyz").write_text(text)
    capsys.readouterr()
    found = errors(run_command(capsys, "test", "-s", "some.extxyz"))
    assert set(found) >= {"Energy RMSE", "Force  RMSE", "Virial RMSE", "Stress RMSE"}
    assert max(found.values()) < 1e-9


@pytest.mark.filterwarnings("default::dpa2.ReadingWarning")
def test_no_labels_at_all(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["test", "-s", "bare.xyz"]) == 2
    captured = capsys.readouterr()
    assert "no labels to test against, neither energy nor forces, virial or stress: bare.xyz (1 frame)" in captured.err
    assert "weighted average" not in captured.out
    assert captured.out.splitlines()[-2] == "# no labels to test against"
    assert main(["test", "-s", "bare.xyz", "all.extxyz"]) == 0
    captured = capsys.readouterr()
    assert "dpa2: warning: no labels to test against" in captured.err
    assert "# number of systems : 2" in captured.out


@pytest.mark.filterwarnings("default::dpa2.ReadingWarning")
def test_labels_under_unknown_names_are_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("all.extxyz").read_text()
    Path("mace.extxyz").write_text(text.replace(" energy=", " MACE_energy="))
    capsys.readouterr()
    assert main(["test", "-s", "mace.extxyz"]) == 0
    captured = capsys.readouterr()
    assert "mace.extxyz: not read as labels: MACE_energy (--energy-key NAME" in captured.err
    assert "Energy" not in captured.out
    out = run_command(capsys, "test", "-s", "mace.extxyz", "--energy-key", "MACE_energy")
    assert errors(out)["Energy RMSE"] < 1e-9
    assert main(["test", "-s", "mace.extxyz", "--energy-key", "other"]) == 2
    assert "no frame has 'other', which --energy-key names" in capsys.readouterr().err
