"""What restart files hold of the pair style, and warnings of masses that are those of other elements."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from dpa2.files import write_safetensors
from lammps_runs import (
    COEFF,
    Cluster,
    Setup,
    answer,
    assert_python_engine,
    difference,
    measure,
    model_data,
    prepare,
    python_model,
    refusal,
    succeed,
    systems,
)

pytestmark = pytest.mark.slow

SYSTEM = next(system for system in systems() if system.name == "triclinic")
STYLE = "dpa2 model.safetensors overflow error"
LJ = "lj/cut 2.0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_restart_restores_the_style(folder: Path, ranks: int) -> None:
    """Whatever of pair_style and pair_coeff is given again."""
    order = np.array([2, 0, 1])  # LAMMPS's types 1 2 3 are C O H
    Cluster("triclinic", SYSTEM.box, SYSTEM.coords, np.argsort(order)[SYSTEM.types]).write(folder)
    coeff = "pair_coeff * * C O H"
    lines = [*Setup("triclinic", style=STYLE, coeff=[coeff]).lines(), "run 0", "write_restart rst"]
    again = {"nothing": [], "style": [f"pair_style {STYLE}"], "coeff": [coeff], "both": [f"pair_style {STYLE}", coeff]}
    for name, words in again.items():
        lines += ["clear", "read_restart rst", *words, *measure(name)]
    output = succeed(folder, lines, ranks)
    assert output.count("restoring pair style dpa2 from restart") == len(again)
    for name in again:
        assert_python_engine(answer(folder, name), "triclinic")


def test_a_restart_keeps_the_keywords(folder: Path) -> None:
    write_safetensors(folder / "small.safetensors", model_data(nsel=12))
    style = "dpa2 small.safetensors precision float32 overflow ignore"
    lines = [*Setup("triclinic", style=style).lines(), *measure("a"), "write_restart rst"]
    lines += [
        "clear",
        "read_restart rst",
        *measure("b"),
        "pair_style dpa2 model.safetensors",
        "run 0",
        "write_restart r2",
    ]
    output = succeed(folder, [*lines, "clear", "read_restart r2", *measure("c")])
    assert "more than its sel" not in output
    a, b = answer(folder, "a"), answer(folder, "b")
    assert a.energy == b.energy
    assert np.array_equal(a.forces, b.forces)
    assert_python_engine(answer(folder, "c"), "triclinic")


def test_a_restart_keeps_the_scale(folder: Path) -> None:
    lines = [*Setup("triclinic").lines(), "variable half equal 0.5", "fix s all adapt 1 pair dpa2 scale * * v_half"]
    succeed(folder, [*lines, "run 0", "write_restart rst", "clear", "read_restart rst", *measure("half")])
    expected = python_model().evaluate(SYSTEM.coords, SYSTEM.types, SYSTEM.box)
    assert difference(answer(folder, "half").energy, 0.5 * float(expected.energy)) < 1e-10


def test_a_restart_of_hybrid_styles(folder: Path) -> None:
    """These keep the words of pair_style alone. A wide model: the exchange has to have room for it."""
    hybrid = f"hybrid/overlay {STYLE} {LJ}"
    coeff = ["pair_coeff * * dpa2 O H C", f"pair_coeff * * {LJ.split()[0]} 0.0 1.0"]
    lines = [*Setup("triclinic", style=hybrid, coeff=coeff).lines(), "run 0", "write_restart rst"]
    lines += ["clear", "read_restart rst", *coeff, *measure("a")]
    succeed(folder, [*lines, "clear", "read_restart rst", f"pair_style {hybrid}", *coeff, *measure("b")], ranks=2)
    for name in "ab":
        assert_python_engine(answer(folder, name), "triclinic")


def test_a_restart_without_its_model(folder: Path) -> None:
    write_safetensors(folder / "gone.safetensors", model_data(seed=9))
    lines = [*Setup("triclinic", style="dpa2 gone.safetensors").lines(), "run 0", "write_restart rst"]
    succeed(folder, lines)
    (folder / "gone.safetensors").unlink()
    message = refusal(folder, ["read_restart rst", "run 0"], ranks=2)
    assert "cannot read the model file 'gone.safetensors'" in message
    assert "pair_style and pair_coeff have to be given again" in message
    succeed(folder, ["read_restart rst", f"pair_style {STYLE}", *measure("a")])
    assert_python_engine(answer(folder, "a"), "triclinic")


def test_a_new_style_with_the_old_elements(folder: Path) -> None:
    """LAMMPS does not ask for pair_coeff a second time."""
    other = Setup("triclinic", style="dpa2 small.safetensors", coeff=[COEFF]).lines()
    write_safetensors(folder / "small.safetensors", model_data(nsel=12))
    succeed(folder, [*other, "run 0", f"pair_style {STYLE}", *measure("a")])
    assert_python_engine(answer(folder, "a"), "triclinic")


def warnings(output: str) -> list[str]:
    return re.findall(r"WARNING: pair_style dpa2: by pair_coeff, atom (.*?)\. Are the elements", output)


@pytest.mark.parametrize(
    ("masses", "elements", "said"),
    [
        ((15.999, 1.008, 12.011), "O H C", ""),
        ((16.0, 1.0, 12.0), "O H NULL", ""),
        ((18.0, 1.0, 13.0), "O H C", ""),
        ((1.008, 15.999, 12.011), "O H C", "1 is O (15.999 g/mol) but has a mass of 1.008, that of H; "
         "type 2 is H (1.008 g/mol) but has a mass of 15.999, that of O"),
        ((15.999, 2.014, 12.011), "O H C",
         "2 is H (1.008 g/mol) but has a mass of 2.014, that of deuterium or tritium"),
        ((15.999, 1.008, 55.845), "O H C", "3 is C (12.011 g/mol) but has a mass of 55.845, that of Fe"),
        ((15.999, 1.008, 55.845), "O H NULL", ""),
    ],
)  # fmt: skip
def test_masses_of_other_elements(folder: Path, masses: tuple[float, ...], elements: str, said: str) -> None:
    Cluster("triclinic", SYSTEM.box, SYSTEM.coords, SYSTEM.types, masses).write(folder)
    lines = Setup("triclinic", coeff=[f"pair_coeff * * {elements}"]).lines()
    found = warnings(succeed(folder, [*lines, "run 0", "run 0", "mass 2 1.1", "run 0"], ranks=2))
    said = f"type {said}" if said else ""
    assert found[:1] == ([said] if said else [])  # once
    assert len(found) <= 1 + ("type 2" in said and said.count("type") > 1)


@pytest.mark.parametrize(("units", "unit"), [("real", 1.0), ("si", 1.66053906660e-27), ("cgs", 1.66053906660e-24)])
def test_masses_in_other_units(folder: Path, units: str, unit: float) -> None:
    length = {"real": 1.0, "si": 1e-10, "cgs": 1e-8}[units]
    after = [f"neighbor {0.5 * length} bin"]
    for masses, count in (((16.0, 1.0, 12.0), 0), ((16.0, 12.0, 12.0), 1)):
        scaled = [mass * unit for mass in masses]
        Cluster("triclinic", SYSTEM.box, SYSTEM.coords, SYSTEM.types, scaled).write(folder, length)
        output = succeed(folder, [*Setup("triclinic", units=units, after_box=after).lines(), "run 0"])
        assert len(warnings(output)) == count


def test_masses_of_atoms(folder: Path) -> None:
    """Atom styles with a mass for every atom."""
    data = folder / "triclinic.data"
    text = re.sub(r"Masses\n\n(\d+ .*\n)+\n", "", data.read_text(encoding="ascii")).replace("# atomic", "# sphere")
    head, atoms = text.split("sphere\n\n")
    rows = [line.split() for line in atoms.splitlines()]
    body = "\n".join(" ".join([row[0], row[1], "1.0", "1.0", *row[2:]]) for row in rows)
    data.write_text(head + "sphere\n\n" + body + "\n", encoding="ascii")
    lines = [line.replace("atomic", "sphere") for line in Setup("triclinic").lines()]
    right = [f"set type {t} mass {m}" for t, m in ((1, 16.0), (2, 1.0), (3, 12.0))]
    assert warnings(succeed(folder, [*lines, *right, "run 0"], ranks=2)) == []
    said = warnings(succeed(folder, [*lines, *right, "set type 3 mass 14.5", "run 0"], ranks=2))
    assert said == ["type 3 is C (12.011 g/mol) but has a mass of 14.5, that of N"]
