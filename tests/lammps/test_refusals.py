"""What cannot go well ends with a message and a status, on every rank, and soon."""

from __future__ import annotations

from pathlib import Path

import pytest
from dpa2.files import write_safetensors
from lammps_runs import Cluster, Setup, model_data, prepare, refusal, run, systems

SYSTEM = next(system for system in systems() if system.name == "orthogonal")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "short.safetensors").write_bytes(content[:-100])
    (tmp_path / "text.safetensors").write_text("this is no model at all", encoding="ascii")
    for name in ("model.pth", "model.pt"):
        (tmp_path / name).write_bytes(b"PK")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dpa2", "pair_style dpa2 needs a model file"),
        ("dpa2 nothing.safetensors", "cannot read the model file 'nothing.safetensors'"),
        ("dpa2 short.safetensors", "truncated or corrupt file"),
        ("dpa2 text.safetensors", "its safetensors header claims"),
        (
            "dpa2 model.pth",
            "'model.pth' is not in the native format. Convert it once: dpa2 convert model.pth model.safetensors",
        ),
        ("dpa2 model.pt", "Convert it once: dpa2 convert model.pt model.safetensors"),
        ("dpa2 model.safetensors outfreq 10", "'outfreq' is no model file (.safetensors) and no keyword"),
        ("dpa2 out_freq 10", "the first word must be a model file, not the keyword 'out_freq'"),
        ("dpa2 model.safetensors out_freq", "out_freq needs a value"),
        ("dpa2 model.safetensors out_freq -1", "out_freq must not be negative"),
        ("dpa2 model.safetensors out_freq ten", "Expected integer"),
        ("dpa2 model.safetensors relative -2", "the value of relative must not be negative"),
        ("dpa2 model.safetensors precision float16", "precision must be float64 or float32"),
        ("dpa2 model.safetensors threads 0", "threads must be 1 or more"),
        ("dpa2 model.safetensors overflow maybe", "overflow must be warn, error or ignore, not 'maybe'"),
        ("dpa2 model.safetensors fparam 1.0", "the model has no such parameters"),
        ("dpa2 model.safetensors threads 1 again", "unknown keyword 'again'"),
        (
            "dpa2 model.safetensors model.safetensors out_file no/such/folder/devi.out",
            "cannot write 'no/such/folder/devi.out'",
        ),
    ],
)
def test_pair_style(folder: Path, words: str, message: str) -> None:
    # what is read on one rank only concerns the others as well
    ranks = 2 if "file" in message else 1
    assert message in refusal(folder, Setup("orthogonal", style=words, coeff=[]).lines(), ranks)


@pytest.mark.parametrize(
    ("coeff", "message"),
    [
        ("pair_coeff * * O H", "pair_coeff names 2 elements for 3 atom types"),
        ("pair_coeff * * O H Xx", "does not know the element Xx of pair_coeff; it knows O H C"),
        ("pair_coeff 1 1 O H C", "Pair_coeff must start with * * for pair style dpa2"),
    ],
)
def test_pair_coeff(folder: Path, coeff: str, message: str) -> None:
    assert message in refusal(folder, Setup("orthogonal", coeff=[coeff]).lines())


def test_more_types_than_the_model_has(folder: Path) -> None:
    Cluster("four", SYSTEM.box, SYSTEM.coords, SYSTEM.types, (1.0, 1.0, 1.0, 1.0)).write(folder)
    assert "there are 4 atom types, but the model model.safetensors knows only O H C" in refusal(
        folder, Setup("four", coeff=["pair_coeff * *"]).lines()
    )


def test_units_without_angstrom(folder: Path) -> None:
    assert "'units lj' has no angstrom" in refusal(folder, [*Setup("orthogonal", units="lj").lines(), "run 0"])


@pytest.mark.parametrize("ranks", [1, 4])
def test_an_error_on_one_rank_ends_them_all(folder: Path, ranks: int) -> None:
    coords = SYSTEM.coords.copy()
    coords[7] = coords[3]
    Cluster("overlap", SYSTEM.box, coords, SYSTEM.types).write(folder)
    message = refusal(folder, [*Setup("overlap").lines(), "run 0"], ranks)
    assert "are at the same place: the model is not defined at distance 0" in message
    assert "atoms 4 and 8 " in message or "atoms 8 and 4 " in message


def test_coordinates_that_are_not_finite(folder: Path) -> None:
    lines = [
        *Setup("orthogonal").lines(),
        "neigh_modify delay 100 every 100 check no",
        "variable much equal exp(1000)",
        "group one id 5",
        "fix 1 all nve",
        "fix 2 one addforce v_much 0.0 0.0",
        "run 3",
    ]
    assert "of atom 5 is not finite" in refusal(folder, lines, ranks=2)


def test_more_neighbors_than_sel_on_request(folder: Path) -> None:
    write_safetensors(folder / "small.safetensors", model_data(nsel=12))
    lines = [*Setup("orthogonal", style="dpa2 small.safetensors overflow error").lines(), "run 0"]
    assert "more than its sel of" in refusal(folder, lines, ranks=2)


def test_a_deviation_file_that_cannot_grow(folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    lines = [*Setup("orthogonal", style="dpa2 model.safetensors model.safetensors out_file /dev/full").lines(), "run 0"]
    done = run(folder, lines)
    assert done.returncode != 0
    assert "cannot write" in done.stdout + done.stderr
