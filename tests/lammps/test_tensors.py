"""compute dpa2/tensor/atom: the numbers of the Python engine, whatever the pair style, the ranks and the units."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import needs
import numpy as np
import pytest
from dpa2.files import write_safetensors
from lammps_runs import (
    COEFF,
    DIVISIONS,
    SYMBOLS,
    Cluster,
    Setup,
    difference,
    divided,
    engine_of,
    refusal,
    run,
    succeed,
    systems,
    systems_of,
    table,
    tensor_data,
    tensors,
)
from lammps_runs import prepare as prepare_energies
from pages import ROOT, code_blocks

SYSTEM = next(system for system in systems() if system.name == "orthogonal")
COLUMNS = {"dipole": 3, "polar": 9}
ELEMENTS = " ".join(SYMBOLS)
#: a pair style that sees less far than the model, and ghosts that reach far enough
SHORT = {"style": "zero 1.0", "coeff": ["pair_coeff * *"]}
REACH = "comm_modify cutoff 6.0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare_energies(tmp_path)
    for kind in COLUMNS:
        write_safetensors(tmp_path / f"{kind}.safetensors", tensor_data(kind))
    return tmp_path


def by_python(kind: str, system: Cluster = SYSTEM, **inputs: object) -> np.ndarray:
    """(natoms, columns)"""
    model = engine_of(tensor_data(kind, nf=2, na=1) if inputs else tensor_data(kind))
    result = model.evaluate(system.coords, system.types, system.box, **inputs)  # type: ignore[arg-type]
    whole = result.outputs[f"global_{kind}"]
    per_atom = np.asarray(result.outputs[kind]).reshape(-1, COLUMNS[kind])
    assert difference(per_atom.sum(axis=0), np.asarray(whole).reshape(-1)) < 1e-12
    assert np.abs(per_atom).max() > 0.01 or len(per_atom) == 1
    return per_atom


def found_by(folder: Path, name: str) -> np.ndarray:
    """(natoms, columns), whose sums are those that LAMMPS has found."""
    values = table(folder / f"{name}.dump")[:, 2:]
    sums = np.array((folder / f"{name}.sums").read_text(encoding="ascii").split(), dtype=float)
    assert np.abs(values.sum(axis=0) - sums).max() <= 1e-12 * max(1.0, np.abs(values).sum())
    return values


@pytest.mark.parametrize("division", needs.mostly_slow(DIVISIONS, {"2 ranks"}))
def test_division_of_space(folder: Path, division: str) -> None:
    script: list[str] = []
    for system in systems_of(division):
        for kind in COLUMNS:
            setup = divided(division, system)
            setup.style, setup.coeff = "zero 1.0", ["pair_coeff * *"]
            script += [*setup.lines(), REACH, f"compute t all dpa2/tensor/atom {kind}.safetensors {ELEMENTS}"]
            script += tensors("t", COLUMNS[kind], f"{system}_{kind}")
    succeed(folder, script, DIVISIONS[division][0])
    for system in systems():
        for kind in COLUMNS:
            if system.name in systems_of(division):
                assert difference(found_by(folder, f"{system.name}_{kind}"), by_python(kind, system)) < 1e-10


#: name -> (pair style and coefficients, lines after the box)
PAIRS: dict[str, tuple[dict[str, object], list[str]]] = {
    "none": ({"style": "none", "coeff": []}, [REACH]),
    "one that sees farther": ({"style": "lj/cut 6.5", "coeff": ["pair_coeff * * 0.01 1.0"]}, []),
    "cutoffs by type": (
        {"style": "lj/cut 2.5", "coeff": ["pair_coeff * * 0.01 1.0", "pair_coeff 2 2 0.01 1.0 6.5"]},
        [],
    ),
    "the longest cutoff is that of the model": (
        {"style": "lj/cut 2.5", "coeff": ["pair_coeff * * 0.01 1.0", "pair_coeff 2 3 0.01 1.0 4.0"]},
        [],
    ),
    "full lists that end early for some types": (
        {
            "style": "hybrid/overlay lj/cut 2.5 dpa2 model.safetensors",
            "coeff": ["pair_coeff * * lj/cut 0.01 1.0", "pair_coeff * * dpa2 NULL NULL C"],
        },
        [],
    ),
    "dpa2": ({"style": "dpa2 model.safetensors", "coeff": [COEFF]}, []),
    "lists without bins": (SHORT, [REACH, "neighbor 2.0 nsq"]),
}  # fmt: skip


@pytest.mark.parametrize("newton", ["on", pytest.param("off", marks=pytest.mark.slow)])
def test_any_pair_style(folder: Path, newton: str) -> None:
    script: list[str] = []
    for k, (words, after) in enumerate(PAIRS.values()):
        setup = Setup("triclinic", newton, **words)  # type: ignore[arg-type]
        script += [*setup.lines(), *after, f"compute t all dpa2/tensor/atom dipole.safetensors {ELEMENTS}"]
        script += tensors("t", 3, f"pair{k}")
    succeed(folder, script, ranks=2)
    (system,) = [s for s in systems() if s.name == "triclinic"]
    expected = by_python("dipole", system)
    for k, name in enumerate(PAIRS):
        assert difference(found_by(folder, f"pair{k}"), expected) < 1e-10, name


def test_ghosts_that_do_not_reach(folder: Path) -> None:
    compute = f"compute t all dpa2/tensor/atom dipole.safetensors {ELEMENTS}"
    message = refusal(folder, [*Setup("orthogonal", **SHORT).lines(), compute, "run 0"])  # type: ignore[arg-type]
    assert "compute t dpa2/tensor/atom: ghost atoms reach as far as 3" in message
    assert "put 'comm_modify cutoff 6' in front" in message
    lines = [*Setup("orthogonal", **SHORT).lines(), REACH, "neighbor 2.0 multi", compute, "run 0"]  # type: ignore[arg-type]
    assert "use 'neighbor 2 bin' and 'comm_modify mode single cutoff 6'" in refusal(folder, lines)


def test_groups_and_types_that_take_no_part(folder: Path) -> None:
    order = np.array([2, 0, 1])  # LAMMPS's types 1 2 3 are C O H
    Cluster("permuted", SYSTEM.box, SYSTEM.coords, np.argsort(order)[SYSTEM.types]).write(folder)
    script = [*Setup("permuted", **SHORT).lines(), REACH, "group some id 3:17"]  # type: ignore[arg-type]
    script += ["compute t some dpa2/tensor/atom dipole.safetensors C O H", *tensors("t", 3, "some")]
    script += [*Setup("orthogonal", **SHORT).lines(), REACH]  # type: ignore[arg-type]
    script += ["compute t all dpa2/tensor/atom polar.safetensors O NULL C", *tensors("t", 9, "null")]
    script += [*Setup("orthogonal", **SHORT).lines(), REACH]  # type: ignore[arg-type]
    script += ["compute t all dpa2/tensor/atom polar.safetensors", *tensors("t", 9, "own")]
    succeed(folder, script, ranks=2)
    ids = np.arange(1, len(SYSTEM.types) + 1)
    inside = (ids >= 3) & (ids <= 17)
    assert difference(found_by(folder, "some"), by_python("dipole") * inside[:, None]) < 1e-10
    part = Cluster("part", SYSTEM.box, SYSTEM.coords, np.where(SYSTEM.types == 1, -1, SYSTEM.types))
    null = found_by(folder, "null")
    assert difference(null, by_python("polar", part)) < 1e-10
    assert np.all(null[SYSTEM.types == 1] == 0.0)
    assert difference(found_by(folder, "own"), by_python("polar")) < 1e-10


def test_parameters(folder: Path) -> None:
    write_safetensors(folder / "dipole.safetensors", tensor_data("dipole", nf=2, na=1))
    script: list[str] = []
    for name, words in (
        ("fixed", "fparam 0.3 -0.2 aparam 0.7"),
        ("asked", "fparam_from_compute f aparam_from_compute a"),
    ):
        script += [*Setup("orthogonal", **SHORT).lines(), REACH]  # type: ignore[arg-type]
        script += ["compute a all property/atom id", "compute f all reduce ave x y"]
        script += [f"compute t all dpa2/tensor/atom dipole.safetensors {ELEMENTS} {words}", *tensors("t", 3, name)]
    succeed(folder, script, ranks=2)
    fixed = by_python("dipole", fparam=[0.3, -0.2], aparam=[0.7])
    numbers = np.arange(1.0, len(SYSTEM.types) + 1)[:, None]
    asked = by_python("dipole", fparam=SYSTEM.coords[:, :2].mean(axis=0), aparam=numbers)
    assert difference(found_by(folder, "fixed"), fixed) < 1e-10
    assert difference(found_by(folder, "asked"), asked) < 1e-10
    assert difference(fixed, asked) > 1e-3


def test_units_and_precision(folder: Path) -> None:
    script: list[str] = []
    for units, length in (("real", 1.0), ("electron", 1.0 / 0.5291772109)):
        SYSTEM.write(folder, length)
        setup = Setup("orthogonal", units=units, style=f"zero {4.5 * length}", coeff=["pair_coeff * *"])
        script = [*setup.lines(), f"compute t all dpa2/tensor/atom dipole.safetensors {ELEMENTS}"]
        succeed(folder, [*script, *tensors("t", 3, units)])
    SYSTEM.write(folder)
    setup = Setup("orthogonal", style="zero 4.5", coeff=["pair_coeff * *"])
    words = f"{ELEMENTS} precision float32 threads 2"
    script = [*setup.lines(), f"compute t all dpa2/tensor/atom dipole.safetensors {words}"]
    succeed(folder, [*script, *tensors("t", 3, "float32")], ranks=2)
    expected = by_python("dipole")
    assert difference(found_by(folder, "real"), expected) < 1e-10
    assert difference(found_by(folder, "electron"), expected) < 1e-6  # LAMMPS's bohr
    assert 1e-9 < difference(found_by(folder, "float32"), expected) < 1e-3


@pytest.mark.parametrize("ranks", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_atoms_that_move(folder: Path, ranks: int) -> None:
    """Several computes of one model, asked every few steps between new lists, and again when the dump is read."""
    repulsive = {"style": "lj/cut 1.9", "coeff": ["pair_coeff * * 0.1 1.7"]}
    lines = [*Setup("orthogonal", "off", **repulsive).lines(), "neighbor 0.4 bin", "comm_modify cutoff 4.4"]  # type: ignore[arg-type]
    computes = [f"compute t all dpa2/tensor/atom dipole.safetensors {ELEMENTS}", "compute sum all reduce sum c_t[*]"]
    lines += [*computes, f"compute p all dpa2/tensor/atom polar.safetensors {ELEMENTS}"]
    lines += ["group half id 1:20", f"compute h half dpa2/tensor/atom dipole.safetensors {ELEMENTS}"]
    lines += ["velocity all create 2000 4711", "fix 1 all nve", "timestep 0.001", "thermo 60"]
    shown = " ".join(["id type x y z", *(f"c_t[{k}]" for k in (1, 2, 3)), *(f"c_h[{k}]" for k in (1, 2, 3)), "c_p[9]"])
    lines += ["fix s all ave/time 20 1 20 c_sum[*] file sums", f"dump d all custom 20 moving.dump {shown}"]
    lines += ["dump_modify d sort id format float %.17g", "run 60", 'print "$(step)" file end']
    again = [*Setup("orthogonal", **SHORT).lines(), REACH, *computes]  # type: ignore[arg-type]
    again += ["fix s all ave/time 20 1 20 c_sum[*] file again", "rerun moving.dump every 20 dump x y z"]
    succeed(folder, [*lines, *again], ranks)
    frames = (folder / "moving.dump").read_text(encoding="ascii").split("ITEM: ATOMS")[1:]
    sums, rerun = np.loadtxt(folder / "sums"), np.loadtxt(folder / "again")
    assert len(frames) == len(sums) == len(rerun) == 4
    start = np.zeros(0)
    for frame, row, other in zip(frames, sums, rerun, strict=True):
        numbers = [line.split() for line in frame.split("ITEM:")[0].splitlines()[1:]]
        atoms = np.array(numbers, dtype=float)
        system = Cluster("now", SYSTEM.box, atoms[:, 2:5], SYSTEM.types)
        expected = by_python("dipole", system)
        assert difference(atoms[:, 5:8], expected) < 1e-10
        assert difference(atoms[:, 8:11], expected * (np.arange(40) < 20)[:, None]) < 1e-10
        assert difference(atoms[:, 11], by_python("polar", system)[:, 8]) < 1e-10
        for found in (row, other):  # in six digits
            assert np.abs(found[1:] - expected.sum(axis=0)).max() < 1e-4 * np.abs(expected).sum()
        start = start if start.size else atoms
        end = atoms
    assert np.abs(end[:, 2:5] - start[:, 2:5]).max() > 0.4  # twice half of the skin: lists were new on the way


def test_the_page_on_spectra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines run in LAMMPS, and its command finds the wavenumber of an oscillation."""
    needs.package("matplotlib")
    monkeypatch.chdir(folder)
    Cluster("two", SYSTEM.box, SYSTEM.coords, SYSTEM.types % 2, (16.0, 1.0)).write(folder)
    (lines,), (command,) = code_blocks("docs/lammps.md", "lammps"), code_blocks("docs/lammps.md", "sh")
    setup = Setup("two", style="lj/cut 1.9", coeff=["pair_coeff * * 0.1 1.7"], after_box=[REACH])
    script = [*setup.lines(), *lines.splitlines(), "timestep 0.0005", "velocity all create 300 1", "fix 1 all nve"]
    succeed(folder, [*script, "run 80"])
    written = np.loadtxt("dipole.dat")
    assert written.shape == (21, 4)
    start = by_python("dipole", Cluster("two", SYSTEM.box, SYSTEM.coords, SYSTEM.types % 2))
    assert np.abs(written[0, 1:] - start.sum(axis=0)).max() < 1e-4 * np.abs(start).sum()

    def maxima() -> list[float]:
        program, path, *words = command.split()
        assert program == "python"
        done = subprocess.run([sys.executable, str(ROOT / path), *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [float(line.split()[0]) for line in done.stdout.splitlines() if line.endswith("1/cm")]

    assert len(maxima()) > 0
    time = 2e-15 * np.arange(4000)
    wave = np.cos(2 * np.pi * 2.99792458e10 * 1650.0 * time)
    np.savetxt("dipole.dat", np.column_stack([np.arange(4000), 0.2 * wave, 3.0 + 0.1 * wave, -wave]))
    assert maxima() == [1650.0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "compute t dpa2/tensor/atom needs a model file"),
        ("nothing.safetensors", "cannot read the model file 'nothing.safetensors'"),
        ("model.pth", "Convert it once: dpa2 convert model.pth model.safetensors"),
        ("model.safetensors O H C", "is one of energies and has no tensors: it is for pair_style dpa2"),
        ("dos.safetensors", "is of the kind 'dos', but this compute is for dipoles and polarizabilities"),
        ("dipole.safetensors O H", "the compute line names 2 elements for 3 atom types: O H"),
        ("dipole.safetensors O H Xx", "does not know the element Xx of the compute line; it knows O H C"),
        ("dipole.safetensors O H C precision float16", "precision must be float64 or float32"),
        ("dipole.safetensors O H C threads", "threads needs a value"),
        ("dipole.safetensors O H C threads 1 again", "unknown keyword 'again'"),
        ("dipole.safetensors O H C fparam 1.0", "the model has no such parameters"),
        ("dipole.safetensors O H C out_freq 10", "names 5 elements for 3 atom types: O H C out_freq 10"),
    ],
)  # fmt: skip
def test_refusals(folder: Path, words: str, message: str) -> None:
    dos = tensor_data("dipole")
    fitting = {**dos.config["fitting_net"], "type": "dos", "numb_dos": 4}
    weights = {**dos.weights, "out_bias": np.zeros((1, 3, 4)), "out_std": np.ones((1, 3, 4))}
    write_safetensors(folder / "dos.safetensors", type(dos)({**dos.config, "fitting_net": fitting}, weights))
    (folder / "model.pth").write_bytes(b"PK")
    lines = [*Setup("orthogonal", **SHORT).lines(), f"compute t all dpa2/tensor/atom {words}"]  # type: ignore[arg-type]
    assert message in refusal(folder, lines, ranks=2 if "nothing" in words else 1)


def test_models_for_the_other_style(folder: Path) -> None:
    lines = Setup("orthogonal", style="dpa2 dipole.safetensors").lines()
    assert (
        "the model dipole.safetensors is of the kind 'dipole' and has no energy: compute dpa2/tensor/atom is for it"
        in refusal(folder, lines)
    )


def test_pairs_that_are_kept_out_of_the_lists(folder: Path) -> None:
    lines = [*Setup("orthogonal", **SHORT).lines(), REACH, "neigh_modify exclude type 1 2"]  # type: ignore[arg-type]
    lines += [f"compute t all dpa2/tensor/atom dipole.safetensors {ELEMENTS}", *tensors("t", 3, "x")]
    assert "NULL in place of the element of one of the two types in the compute line" in refusal(folder, lines)


@pytest.mark.parametrize("ranks", [1, 4])
def test_an_error_on_one_rank_ends_them_all(folder: Path, ranks: int) -> None:
    coords = SYSTEM.coords.copy()
    coords[7] = coords[3]
    Cluster("overlap", SYSTEM.box, coords, SYSTEM.types).write(folder)
    lines = [*Setup("overlap", **SHORT).lines(), REACH]  # type: ignore[arg-type]
    lines += [f"compute t all dpa2/tensor/atom dipole.safetensors {ELEMENTS}", *tensors("t", 3, "x")]
    assert "are at the same place: the model is not defined at distance 0" in refusal(folder, lines, ranks)


def test_too_many_neighbors(folder: Path) -> None:
    write_safetensors(folder / "small.safetensors", tensor_data("dipole", nsel=12))
    start = [*Setup("orthogonal", **SHORT).lines(), REACH]  # type: ignore[arg-type]
    end = [*tensors("t", 3, "x"), "run 1"]
    said = run(folder, [*start, f"compute t all dpa2/tensor/atom small.safetensors {ELEMENTS}", *end]).stdout
    assert said.count("more than its sel of") == 1
    strict = f"compute t all dpa2/tensor/atom small.safetensors {ELEMENTS} overflow error"
    assert "more than its sel of" in refusal(folder, [*start, strict, *end])
