"""pair_style dpa2/spin: the numbers of the Python engine on any ranks, deviations, and what is refused."""

from __future__ import annotations

from pathlib import Path

import needs
import numpy as np
import pytest
from dpa2.files import ModelData, write_safetensors
from lammps_runs import (
    COEFF,
    DIVISIONS,
    HBAR,
    NKTV2P,
    ORDER,
    SYMBOLS,
    Cluster,
    Setup,
    answer,
    assert_python_spins,
    difference,
    divided,
    engine_of,
    measure_spins,
    model_data,
    refusal,
    spin_data,
    succeed,
    systems,
    systems_of,
    table,
    tensor_data,
    tensors,
)
from spin_cases import spin_golden

SYSTEM = next(system for system in systems() if system.name == "triclinic")


def spins_of(system: Cluster) -> np.ndarray:
    """(natoms, 3); hydrogen has spins as well, which the model does not look at."""
    return np.random.default_rng(len(system.types)).normal(size=(len(system.types), 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in (7, 8, 9):
        write_safetensors(tmp_path / f"spin{seed}.safetensors", spin_data(seed))
    write_safetensors(tmp_path / "model.safetensors", model_data())
    for system in systems():
        system.write(tmp_path, spins=spins_of(system))
    return tmp_path


def setup(system: str = "triclinic", style: str = "dpa2/spin spin7.safetensors", *coeff: str) -> Setup:
    return Setup(system, style=style, coeff=coeff or [COEFF], atom_style="spin")


def check_engine(folder: Path, name: str, system: Cluster) -> None:
    assert_python_spins(folder, name, system, engine_of(spin_data()), spins_of(system))


@pytest.mark.parametrize("division", needs.mostly_slow(DIVISIONS, {"2 ranks, newton off"}))
def test_division_of_space(folder: Path, division: str) -> None:
    script: list[str] = []
    for system in systems_of(division):
        divisions = divided(division, system)
        divisions.style, divisions.atom_style = "dpa2/spin spin7.safetensors", "spin"
        script += [*divisions.lines(), *measure_spins(system)]
    succeed(folder, script, DIVISIONS[division][0])
    for system in systems():
        if system.name in systems_of(division):
            check_engine(folder, system.name, system)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_deepmd_kits_numbers(folder: Path, ranks: int) -> None:
    """Its golden answers, in a cell that LAMMPS can have and without one; an atom has no spin."""
    golden = spin_golden("spin")
    write_safetensors(folder / "golden.safetensors", ModelData(golden.config, golden.weights))
    script, expected = [], {}
    for system in golden.systems:
        if system.name == "tiny":  # its first vector is not along x
            continue
        coords, spins = system.coord[0], system.expected["spin"][0]
        half = float(np.abs(coords).max()) + 6.0
        box = 2.0 * half * np.eye(3) if system.box is None else system.box[0].reshape(3, 3)
        coords = coords + half if system.box is None else coords
        Cluster(system.name, box, coords, system.atype, (16.0, 1.0, 63.5)).write(folder, spins=spins)
        of_golden = setup(system.name, "dpa2/spin golden.safetensors", "pair_coeff * * O H Cu")
        of_golden.before_box = ["boundary f f f"] if system.box is None else []
        script += [*of_golden.lines(), *measure_spins(system.name)]
        expected[system.name] = {name: array[0] for name, array in system.expected.items()}
    said = succeed(folder, script, ranks)
    assert "have no spin" in said
    assert set(expected) == {"bulk", "open"}
    for name, theirs in expected.items():
        found = answer(folder, name)
        assert difference(found.energy, theirs["energy"]) < 1e-10, name
        assert difference(found.forces, theirs["force"]) < 1e-10, name
        assert difference(found.atom_energy, theirs["atom_energy"][:, 0]) < 1e-10, name
        lengths = np.linalg.norm(theirs["spin"], axis=1)[:, None]
        assert difference(table(folder / f"{name}.fm")[:, 1:], theirs["force_mag"] * lengths / HBAR) < 1e-10, name
        virial = theirs["virial"].reshape(3, 3) * NKTV2P
        assert difference(-found.centroid.sum(axis=0)[:6], np.array([virial[index] for index in ORDER])) < 1e-10, name


def test_names_types_and_hybrid_styles(folder: Path) -> None:
    """deepmd-kit's name; types by position; beside another style; atoms that take no part."""
    script = [*setup("triclinic", "deepspin spin7.safetensors", "pair_coeff * *").lines(), *measure_spins("deepspin")]
    both = ["pair_coeff * * dpa2/spin O H C", "pair_coeff * * zero"]
    script += [*setup("triclinic", "hybrid/overlay dpa2/spin spin7.safetensors zero 2.0", *both).lines()]
    script += measure_spins("hybrid")
    part = setup("triclinic", "dpa2/spin spin7.safetensors precision float64", "pair_coeff * * O NULL C")
    script += [*part.lines(), *measure_spins("part")]
    succeed(folder, script, ranks=2)
    for name in ("deepspin", "hybrid"):
        check_engine(folder, name, SYSTEM)
    types = np.where(SYSTEM.types == 1, -1, SYSTEM.types)
    expected = engine_of(spin_data()).evaluate(SYSTEM.coords, types, SYSTEM.box, spin=spins_of(SYSTEM))
    assert difference(answer(folder, "part").energy, expected.energy) < 1e-10
    assert difference(answer(folder, "part").forces, expected.forces) < 1e-10
    assert np.all(table(folder / "part.fm")[SYSTEM.types == 1, 1:] == 0.0)


@pytest.mark.parametrize("ranks", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_deviations(folder: Path, ranks: int) -> None:
    """Of forces and magnetic forces, under deepmd-kit's titles."""
    files = " ".join(f"spin{seed}.safetensors" for seed in (7, 8, 9))
    script = [
        *setup("triclinic", f"dpa2/spin {files} out_freq 1 out_file plain atomic").lines(),
        *measure_spins("first"),
    ]
    script += [*setup("triclinic", f"deepspin {files} out_freq 1 out_file relative relative 0.3").lines(), "run 0"]
    succeed(folder, script, ranks)
    check_engine(folder, "first", SYSTEM)
    where = (SYSTEM.coords, SYSTEM.types, SYSTEM.box)
    results = [engine_of(spin_data(seed)).evaluate(*where, spin=spins_of(SYSTEM)) for seed in (7, 8, 9)]

    def spread(rows: list[np.ndarray], eps: float | None = None) -> np.ndarray:
        forces = np.array(rows)
        found = np.sqrt(((forces - forces.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
        return found if eps is None else found / (np.linalg.norm(forces.mean(axis=0), axis=1) + eps)

    def row(name: str) -> np.ndarray:
        header, *rows = (folder / name).read_text(encoding="ascii").splitlines()
        titles = " ".join(f"{which}_devi_{what}" for what in ("v", "fr", "fm") for which in ("max", "min", "avg"))
        assert " ".join(header.split()) == f"# step {titles}" + (" atm_devi_f(N)" if name == "plain" else "")
        assert len(rows) == 1
        return np.array(rows[0].split(), dtype=float)

    virial = np.array([result.virial / len(SYSTEM.types) for result in results]).std(axis=0)
    expected = [virial.max(), virial.min(), np.sqrt((virial**2).mean())]
    plain, relative = row("plain"), row("relative")
    for start, rows in ((4, [r.forces for r in results]), (7, [r.magnetic_forces for r in results])):
        for found, eps in ((plain, None), (relative, 0.3)):
            of_atoms = spread(rows, eps)
            wanted = [of_atoms.max(), of_atoms.min(), of_atoms.mean()]
            assert np.allclose(found[start : start + 3], wanted, rtol=1e-8, atol=1e-12)
    assert np.allclose(plain[1:4], expected, rtol=1e-8, atol=1e-12)
    assert np.allclose(plain[10:], spread([r.forces for r in results]), rtol=1e-8, atol=1e-12)


def test_the_file_of_deviations_is_continued(folder: Path) -> None:
    files = "spin7.safetensors spin8.safetensors out_freq 1"
    script = [
        *setup("triclinic", f"dpa2/spin {files}").lines(),
        "run 0",
        "write_restart rst",
        "clear",
        "read_restart rst",
    ]
    succeed(folder, [*script, "run 0", "displace_atoms all random 0.1 0.1 0.1 1", "run 0"])
    steps = np.loadtxt(folder / "model_devi.out", ndmin=2)
    assert steps.shape == (2, 10)  # the state after the restart is in it already


def test_descriptors(folder: Path) -> None:
    """Those of the atoms: compute dpa2/descriptor/atom takes the spins of the atoms."""
    model = engine_of(spin_data())
    script = [*setup("triclinic", "zero 1.0", "pair_coeff * *").lines(), "comm_modify cutoff 9.0"]
    script += ["compute t all dpa2/descriptor/atom spin7.safetensors O H C", *tensors("t", model.descriptor_dim, "d")]
    succeed(folder, script, ranks=2)
    expected = model.descriptor(SYSTEM.coords, SYSTEM.types, SYSTEM.box, spin=spins_of(SYSTEM))
    assert difference(table(folder / "d.dump")[:, 2:], expected) < 1e-10


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("dpa2/spin", "pair_style dpa2/spin needs a model file: pair_style dpa2/spin model.safetensors"),
        ("dpa2/spin model.safetensors", "is one without spins: pair_style dpa2 is for it"),
        ("deepspin dipole.safetensors", "pair_style deepspin: the model dipole.safetensors is of the kind 'dipole'"),
        ("dpa2 spin7.safetensors", "is one with spins: pair_style dpa2/spin is for it"),
        (
            "deepspin spin.pth",
            "This is the style deepspin of dpa2; that of deepmd-kit needs 'plugin unload pair deepspin'",
        ),
        ("deepspin spin7.safetensors ttm 1", "the keyword ttm of deepmd-kit is not known here"),
    ],
)
def test_wrong_models(folder: Path, style: str, message: str) -> None:
    write_safetensors(folder / "dipole.safetensors", tensor_data("dipole"))
    assert message in refusal(folder, [*setup("triclinic", style).lines(), "run 0"])


def test_atoms_that_do_not_fit(folder: Path) -> None:
    SYSTEM.write(folder)
    plain = setup()
    plain.atom_style = "atomic"
    assert "needs spins, which atoms have with 'atom_style spin'" in refusal(folder, [*plain.lines(), "run 0"], ranks=2)
    SYSTEM.write(folder, spins=spins_of(SYSTEM))
    other = setup()
    other.units = "real"
    assert "needs 'units metal', as all that LAMMPS has for spins does" in refusal(folder, [*other.lines(), "run 0"])


def test_atoms_without_a_spin_are_a_warning(folder: Path) -> None:
    """Of magnetic types, once; their magnetic forces are frequencies of nothing."""
    spins = spins_of(SYSTEM)
    magnetic = np.flatnonzero(SYSTEM.types != 1)
    spins[magnetic[:3]] = 0.0
    SYSTEM.write(folder, spins=spins)
    said = succeed(folder, [*setup().lines(), "run 0", *measure_spins("few")], ranks=2)
    assert said.count(f"3 of the {len(magnetic)} atoms of magnetic types have no spin") == 1
    expected = engine_of(spin_data()).evaluate(SYSTEM.coords, SYSTEM.types, SYSTEM.box, spin=spins)
    assert difference(answer(folder, "few").forces, expected.forces) < 1e-10
    assert np.all(table(folder / "few.fm")[magnetic[:3], 1:] == 0.0)


def test_fix_nve_spin_is_refused(folder: Path) -> None:
    """It would leave the spins as they are; without steps it does nothing."""
    lines = [*setup("orthogonal", "deepspin spin7.safetensors").lines(), "fix 1 all nve/spin lattice moving"]
    lines.insert(4, "atom_modify map array")
    succeed(folder, [*lines, "run 0"])
    assert "pair_style deepspin: fix nve/spin turns spins in the fields of pair styles" in refusal(
        folder, [*lines, "run 1"]
    )


def test_spins_that_grow(folder: Path) -> None:
    """What lists were made for no longer reaches: an error, and no other numbers."""
    lines = [*setup().lines(), "variable long equal 40.0", "fix 1 all nve", "run 0 post no"]
    assert SYMBOLS[0] == "O"
    message = refusal(folder, [*lines, "set type 1 spin/atom ${long} 0 0 1", "run 1 pre no"], ranks=2)
    assert "model spin7.safetensors" in message


@pytest.mark.parametrize("length", ["1000", "1e8"])
def test_spins_of_another_unit(folder: Path, length: str) -> None:
    """Ghosts that reach so far would fill the memory."""
    message = refusal(folder, [*setup().lines(), f"set type 1 spin/atom {length} 0 0 1", "run 0"], ranks=2)
    assert "beyond the cutoff of the model" in message
    assert "are the spins in the unit of the data that it was trained on?" in message
