"""info, convert, compress and neighbor-stat with models of all kinds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_runs import run_command
from dpa2.cli import main
from dpa2.data import write_frame
from dpa2.files import read, write_safetensors
from kind_files import KINDS, make_linear, make_zbl
from model_files import assert_same, make, write_pt

#: what `dpa2 info` says of a kind, among the rest
SAID: dict[str, list[str]] = {
    "dipole": [
        "kind           dipole",
        "outputs        global_dipole 3, virial 3 x 9",
        "of atoms       dipole 3, force 3 x 3 1/angstrom, atom_virial 3 x 9",
        "units          those of the data",
    ],
    "polar": [
        "kind           polar: diagonal, shifted by the mean of each type, scaled by 0.7 1.3 -0.4",
        "polar 3 x 3",
    ],
    "polar_full": ["kind           polar: full matrix\n", "outputs        global_polar 3 x 3\n"],
    "dos": ["outputs        dos 5 1/eV", "of atoms       atom_dos 5 1/eV"],
    "property": ["kind           property gap, the mean of the atoms", "outputs        gap 2\n"],
    "property_energy": ["kind           property energy, a sum of atoms", "of atoms       atom_energy\n"],
    "population": ["kind           population", "of atoms       population 2"],
    "zbl": [
        "kind           energy: a network, and below 1.25 angstrom more and more the table, from 0.5 down nothing else",
        "outputs        energy eV, virial 9 eV",
        "models[0]      network\n",
        "models[1]      table of pairs\n",
        "range          0.25 to 1.125 angstrom in 7 pieces; closer pairs are an error",
        "cutoff         rcut 4 angstrom, 80 neighbours",
    ],
    "linear": [
        "kind           energy: a linear combination of 3 models",
        "models[0]      network of the types C H O Fe, times 0.75",
        "models[1]      table of pairs of the types H C O, times 1",
        "models[2]      network, times -0.5",
    ],
    "linear_excluded": ["atoms left out H\n", "pairs left out O-C, H-H\n"],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_info(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = KINDS[kind]()
    write_safetensors("m.safetensors", model)
    out = run_command(capsys, "info", "m.safetensors")
    for text in SAID[kind]:
        assert text in out
    facts = json.loads(run_command(capsys, "info", "m.safetensors", "--json"))
    assert facts["config"] == model.config
    assert facts["kind"] == ("energy" if "models" in model.config else kind.partition("_")[0])


def test_info_says_what_else_is_needed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fitting = {"numb_fparam": 2, "default_fparam": [0.5, 1.0], "numb_aparam": 3}
    write_safetensors("m.safetensors", make(fitting=fitting))
    out = run_command(capsys, "info", "m.safetensors")
    assert "frame params   2, default [0.5, 1.0]" in out
    assert "atomic params  3" in out


def test_convert_heads_of_all_kinds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {name: model() for name, model in KINDS.items()}
    write_pt(here / "m.pt", models)
    for name, model in models.items():
        out = run_command(capsys, "convert", "m.pt", f"{name}.safetensors", "--head", name)
        assert out.startswith(f"{name}.safetensors: {name.partition('_')[0] + ' of ' if name in FITTED else ''}O H C, ")
        assert_same(read(f"{name}.safetensors"), model, name)


FITTED = {name for name in KINDS if not name.startswith(("zbl", "linear"))}


def test_compress_parts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_linear()
    write_pt(here / "m.pt", {"a": model, "b": make()})
    command = ["compress", "m.pt", "-o", "c.safetensors", "--head", "a", "--max-error", "1e-3"]
    assert main(command) == 0
    out = capsys.readouterr().out
    for block in ("models.0.repinit", "models.2.repinit", "models.2.three_body"):
        assert f"{block} " in out
    assert "models.0.three_body" not in out
    parts = read("c.safetensors").config["models"]
    assert [part.get("compression", {}).get("max_error") for part in parts] == [1e-3, None, 1e-3]
    assert run_command(capsys, "info", "c.safetensors").count("compressed     repinit in ") == 2


def test_neighbours_of_parts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_safetensors("m.safetensors", make_zbl())
    with open("two.xyz", "w") as handle:
        write_frame(handle, np.array([[0.0, 0.0, 0.0], [3.5, 0.0, 0.0]]), ["O", "H"])
    out = run_command(capsys, "neighbor-stat", "-m", "m.safetensors", "-s", "two.xyz")
    for line in ("repinit 0      rcut 4 angstrom, sel 80", "repformer 0    rcut 3.2", "table 1        rcut 4 angstrom"):
        assert line in out
    assert out.count("max_nbor_size: [1]") == 2  # repinit and table
