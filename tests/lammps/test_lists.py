"""Neighbour lists from which LAMMPS leaves pairs out: completed for bonded atoms, refused where a line asks for it."""

from __future__ import annotations

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
    engine_of,
    measure,
    prepare,
    python_model,
    refusal,
    succeed,
    systems,
    table,
    tensor_data,
    tensors,
)

SYSTEM = next(system for system in systems() if system.name == "orthogonal")


def bonds_of(system: Cluster) -> list[tuple[int, int]]:
    """Every atom bonded to the nearest one before it: trees, with neighbours of all three kinds."""
    images = np.array([[a, b, c] for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]) @ system.box
    found = []
    for i in range(1, len(system.coords)):
        distances = [np.linalg.norm(images + system.coords[i] - x, axis=1).min() for x in system.coords[:i]]
        if min(distances) < 3.0:
            found.append((int(np.argmin(distances)), i))
    return found


def write_bonded(folder: Path, system: Cluster) -> None:
    """``name.data`` for ``atom_style bond``; atoms 1 to 10 are molecule 1, and so on."""
    system.write(folder)
    path = folder / f"{system.name}.data"
    head, atoms = path.read_text(encoding="ascii").split("Atoms # atomic\n")
    bonds = bonds_of(system)
    assert len(bonds) > len(system.coords) // 2
    head = head.replace("atom types\n", f"atom types\n{len(bonds)} bonds\n1 bond types\n")
    rows = [line.split() for line in atoms.splitlines() if line]
    lines = [" ".join([row[0], str((int(row[0]) - 1) // 10 + 1), *row[1:]]) for row in rows]
    lines += ["", "Bonds", "", *[f"{k + 1} 1 {i + 1} {j + 1}" for k, (i, j) in enumerate(bonds)]]
    path.write_text(head + "Atoms # bond\n\n" + "\n".join(lines) + "\n", encoding="ascii")


#: energy, box and atoms at the end of a run
END = [
    'print "$(pe:%.17g)" file energy',
    'print "$(lx:%.17g) $(ly:%.17g) $(lz:%.17g)" file box',
    "write_dump all custom end.dump id type x y z fx fy fz modify sort id format float %.17g",
]
BOND = ["bond_style zero nocoeff", "bond_coeff *"]


def bonded(system: str, special: str, newton: str = "on", before: tuple[str, ...] = (), **words: object) -> list[str]:
    setup = Setup(system, newton, before, after_box=[*BOND, special], **words)  # type: ignore[arg-type]
    return [line.replace("atom_style atomic", "atom_style bond") for line in setup.lines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    for system in systems():
        if system.name in ("orthogonal", "triclinic", "tiny"):
            write_bonded(tmp_path, system)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "newton", "before"),
    [(1, "on", ()), (1, "off", ()), (2, "on", ("neighbor 1.0 nsq",)), (4, "off", ("atom_modify map hash",))],
)
def test_special_factors_do_not_matter(folder: Path, ranks: int, newton: str, before: tuple[str, ...]) -> None:
    """Factors of 0 keep pairs out of LAMMPS's lists, others do not; images of bonded atoms are in the lists anyway."""
    lines, names = [], []
    for system in ("orthogonal", "triclinic", "tiny"):
        for k, factors in enumerate(
            ["", "lj/coul 0 1 0.5", "lj 0 0 1 coul 0 1 0", "lj/coul 1e-50 1e-50 0.5"][: 5 - ranks]
        ):
            special = f"special_bonds {factors}" if factors else "# the default is 0 0 0"
            names.append((system, f"{system}{k}"))
            lines += bonded(system, special, newton, before) + measure(names[-1][1])
    succeed(folder, lines, ranks)
    for system, name in names:
        assert_python_engine(answer(folder, name), system)


def test_bonded_neighbors_of_a_compute(folder: Path) -> None:
    """Whose lists are its own, and completed at every evaluation."""
    write_safetensors(folder / "dipole.safetensors", tensor_data("dipole"))
    words = {"style": "zero 1.0", "coeff": ["pair_coeff * *"]}
    lines = [*bonded("triclinic", "special_bonds lj/coul 0 0 1", "off", **words), "comm_modify cutoff 6.0"]
    lines += ["compute t all dpa2/tensor/atom dipole.safetensors O H C", *tensors("t", 3, "bonded")]
    succeed(folder, lines, ranks=2)
    (system,) = [s for s in systems() if s.name == "triclinic"]
    expected = engine_of(tensor_data("dipole")).evaluate(system.coords, system.types, system.box).outputs["dipole"]
    assert difference(table(folder / "bonded.dump")[:, 2:], expected) < 1e-10


def test_factors_that_change_between_runs(folder: Path) -> None:
    lines = [*bonded("orthogonal", "special_bonds lj/coul 1 1 1"), "run 0", "special_bonds lj/coul 0 0 0"]
    succeed(folder, [*lines, *measure("a"), "special_bonds lj/coul 0 1 0", "run 0", END[0]])
    assert_python_engine(answer(folder, "a"), "orthogonal")
    assert float((folder / "energy").read_text()) == pytest.approx(answer(folder, "a").energy, rel=1e-12)


def test_bonds_that_are_deleted(folder: Path) -> None:
    """With and without the word special: the lists of special neighbours stay without it."""
    lines = []
    for name in ("special", ""):
        lines += [*bonded("orthogonal", "# 0 0 0"), f"delete_bonds all multi remove {name}", *measure(f"x{name}")]
    succeed(folder, lines, ranks=2)
    for name in ("xspecial", "x"):
        assert_python_engine(answer(folder, name), "orthogonal")


def end_of(folder: Path) -> float:
    """How far the forces of ``end.dump`` are from those of the Python engine for its atoms."""
    rows = table(folder / "end.dump")
    box = np.diag([float(x) for x in (folder / "box").read_text(encoding="ascii").split()])
    expected = python_model().evaluate(rows[:, 2:5], rows[:, 1].astype(int) - 1, box)
    assert difference(float((folder / "energy").read_text(encoding="ascii")), expected.energy) < 1e-10
    return difference(rows[:, 5:8], expected.forces)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_bonds_that_are_made_on_the_way(folder: Path, ranks: int) -> None:
    data = folder / "orthogonal.data"
    head, _, _ = data.read_text(encoding="ascii").partition("\nBonds")
    head = "\n".join(line for line in head.splitlines() if not line.endswith(" bonds")) + "\n"
    data.write_text(head.replace("1 bond types", "1 bond types\n6 extra bond per atom\n30 extra special per atom"))
    lines = bonded("orthogonal", "special_bonds lj/coul 0 0 0")
    lines += ["fix 1 all bond/create 1 1 2 2.5 1", "fix 2 all nve", "timestep 1e-5", "run 3", *END]
    succeed(folder, [*lines, 'print "$(f_1[2])" file created'], ranks)
    assert float((folder / "created").read_text()) > 0
    assert end_of(folder) < 1e-10


@pytest.mark.slow
def test_molecules_that_are_deposited(folder: Path) -> None:
    (folder / "water.mol").write_text(
        "water\n\n3 atoms\n2 bonds\n\nCoords\n\n1 0 0 0\n2 0.9 0 0\n3 -0.3 0.9 0\n\n"
        "Types\n\n1 1\n2 2\n3 2\n\nBonds\n\n1 1 1 2\n2 1 1 3\n",
        encoding="ascii",
    )
    lines = ["clear", "units metal", "boundary p p f", "atom_style bond", "region box block 0 12 0 12 0 25"]
    lines += ["create_box 3 box bond/types 1 extra/bond/per/atom 4 extra/special/per/atom 6", "mass * 16.0"]
    lines += [
        "lattice fcc 4.0",
        "region slab block 0 2 0 2 0.25 0.8",
        "create_atoms 3 region slab",
        "molecule wat water.mol",
    ]
    lines += [*BOND, "pair_style dpa2 model.safetensors", COEFF, "fix 1 all nve", "timestep 1e-5", "group w type 1 2"]
    lines += ["region ins block 4 8 4 8 14 18 units box", "fix d w deposit 1 0 1 4711 region ins near 2.0 mol wat"]
    succeed(folder, [*lines, "run 3", *END], ranks=2)
    assert np.count_nonzero(table(folder / "end.dump")[:, 1] == 2) == 2
    assert end_of(folder) < 1e-10


def test_molecules_of_a_template(folder: Path) -> None:
    """Where the special neighbours are the template's, and atoms have none of their own."""
    counts = {1: (1, 1, 1), 2: (2, 1, 0), 3: (2, 1, 0), 4: (1, 1, 1)}
    partners = {1: "2 3 4", 2: "1 3 4", 3: "2 4 1", 4: "3 2 1"}
    (folder / "chain.mol").write_text(
        "chain\n\n4 atoms\n3 bonds\n\nTypes\n\n1 1\n2 2\n3 3\n4 1\n\nBonds\n\n1 1 1 2\n2 1 2 3\n3 1 3 4\n\n"
        "Special Bond Counts\n\n"
        + "".join(f"{i} {a} {b} {c}\n" for i, (a, b, c) in counts.items())
        + "\nSpecial Bonds\n\n"
        + "".join(f"{i} {text}\n" for i, text in partners.items()),
        encoding="ascii",
    )
    system = Cluster("chains", SYSTEM.box, SYSTEM.coords, np.tile([0, 1, 2, 0], 10))
    system.write(folder)
    head, atoms = (folder / "chains.data").read_text(encoding="ascii").split("Atoms # atomic\n")
    rows = [line.split() for line in atoms.splitlines() if line]
    lines = [" ".join([r[0], str(k // 4 + 1), "1", str(k % 4 + 1), *r[1:]]) for k, r in enumerate(rows)]
    head = head.replace("atom types\n", "atom types\n1 bond types\n")
    (folder / "chains.data").write_text(head + "Atoms # template\n\n" + "\n".join(lines) + "\n", encoding="ascii")
    script = []
    for ranks in ("on", "off"):
        setup = Setup("chains", ranks, ["molecule chain chain.mol"], after_box=["special_bonds lj/coul 0 0 0.5"])
        setup_lines = [line.replace("atom_style atomic", "atom_style template chain") for line in setup.lines()]
        molecule = setup_lines.index("molecule chain chain.mol")
        setup_lines.insert(1, setup_lines.pop(molecule))
        script += [*setup_lines, *measure(ranks)]
    succeed(folder, script, ranks=2)
    expected = python_model().evaluate(system.coords, system.types, system.box)
    for name in ("on", "off"):
        found = answer(folder, name)
        assert difference(found.energy, expected.energy) < 1e-10
        assert difference(found.forces, expected.forces) < 1e-10


@pytest.mark.parametrize("newton", ["on", "off"])
def test_a_force_field_on_top_keeps_its_factors(folder: Path, newton: str) -> None:
    overlay = {
        "style": "hybrid/overlay dpa2 model.safetensors lj/cut 3.0",
        "coeff": ["pair_coeff * * dpa2 O H C", "pair_coeff * * lj/cut 0.01 1.5"],
    }
    modified = {**overlay, "coeff": [*overlay["coeff"], "pair_modify pair dpa2 special lj/coul 1 1 1"]}
    lines = []
    for name, factors in (("zero", "0 0 0.5"), ("tiny", "1e-50 1e-50 0.5")):
        special = f"special_bonds lj/coul {factors}"
        words = modified if name == "tiny" else overlay
        force_field = {"style": "lj/cut 3.0", "coeff": ["pair_coeff * * 0.01 1.5"]}
        lines += bonded("triclinic", special, newton, **words) + measure(name)
        lines += bonded("triclinic", special, newton, **force_field)
        lines += [line for line in measure(f"{name}_lj") if "c_c" not in line or line.startswith("write")]
    succeed(folder, lines, ranks=2)
    (system,) = [s for s in systems() if s.name == "triclinic"]
    expected = python_model().evaluate(system.coords, system.types, system.box)
    for name in ("zero", "tiny"):
        both, other = answer(folder, name), answer(folder, f"{name}_lj")
        assert abs(other.energy) > 1e-6
        assert difference(both.energy - other.energy, expected.energy) < 1e-10
        assert difference(both.forces - other.forces, expected.forces) < 1e-10


MISSING = "The model needs all neighbors of the atoms that it evaluates"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("neigh_modify exclude type 1 2", "'neigh_modify exclude type 1 2'"),
        ("neigh_modify exclude group some rest", "'neigh_modify exclude group some rest'"),
        ("neigh_modify exclude group some all", "'neigh_modify exclude group some all'"),
        ("neigh_modify exclude molecule/intra some", "'neigh_modify exclude molecule/intra some'"),
        ("neigh_modify exclude molecule/inter all", "'neigh_modify exclude molecule/inter all'"),
        ("neigh_modify include some", "'neigh_modify include some'"),
        ("comm_modify group some", "'comm_modify group some'"),
        ("pair_coeff 1 3 lj/cut 0.01 1.5", "gives pairs of the atom types 1 and 3 to another pair style"),
    ],
)
def test_pairs_that_are_kept_out_of_the_lists(folder: Path, line: str, named: str) -> None:
    hybrid = {
        "style": "hybrid dpa2 model.safetensors lj/cut 3.0",
        "coeff": ["pair_coeff * * dpa2 O H C", "pair_coeff 1 3 lj/cut 0.01 1.5"],
    }
    words = hybrid if "lj/cut" in line else {}
    lines = bonded("orthogonal", "special_bonds lj/coul 1 1 1", **words)
    if "comm" in line:  # LAMMPS would miss atoms of bonds
        lines = Setup("empty").lines()
    groups = ["group some id 1:10", "group rest subtract all some"]
    if " include " in line or "comm" in line:
        groups.append("atom_modify first some")
    if line.startswith("neigh_modify exclude t") or "inter" in line:
        groups.append("run 0")  # the line comes between two runs
    message = refusal(folder, [*lines, *groups, *([] if words else [line]), "run 0"], ranks=2 if "some" in line else 1)
    assert named in message
    assert MISSING in message


def test_pairs_that_no_model_sees_may_be_left_out(folder: Path) -> None:
    """Pairs with atoms that are called NULL, and groups of them."""
    style = {"coeff": ["pair_coeff * * O H NULL"]}
    lines = [*bonded("orthogonal", "special_bonds lj/coul 0 0 0", **style), "group c type 3", "group some id 1:20"]
    lines += ["group with_model type 1 2", "atom_modify first with_model"]
    for pair in ("type 1 3", "type 3 3", "group c some", "group some c", "molecule/intra c", "molecule/inter c"):
        lines.append(f"neigh_modify exclude {pair}")
    succeed(folder, [*lines, "neigh_modify include with_model", *measure("a")], ranks=2)
    types = np.where(SYSTEM.types == 2, -1, SYSTEM.types)
    expected = python_model().evaluate(SYSTEM.coords, types, SYSTEM.box)
    found, seen = answer(folder, "a"), types >= 0  # LAMMPS does not clear forces outside of an included group
    assert difference(found.energy, expected.energy) < 1e-10
    assert difference(found.forces[seen], expected.forces[seen]) < 1e-10


def test_a_trial_deletion_leaves_no_free_atom_behind(folder: Path) -> None:
    """fix gcmc takes the atom out of the lists: the energy is then that without it, not that and a free atom's."""
    box = np.diag([20.0, 20.0, 20.0])
    coords = np.array([[3.0, 3, 3], [4.5, 3, 3], [3, 4.6, 3], [12, 12, 12]])
    types = np.array([0, 1, 0, 2])
    Cluster("gas", box, coords, types).write(folder)
    free = float(python_model().evaluate(coords[3:], types[3:], box).energy)
    # Where the atom's energy is above the chemical potential it goes and none comes; where it is below, it stays: only
    # the energy of a free atom decides.
    assert abs(free) > 0.2
    for name, mu in (("low", free - 0.5 * abs(free)), ("high", free + 0.5 * abs(free))):
        lines = [*Setup("gas").lines(), "mass * 12.0", "group gas type 3", "timestep 1e-5", "fix 1 all nve"]
        lines.append(f"fix g gas gcmc 1 12 0 3 4711 20.0 {mu:.10g} 0.1 full_energy max 1")
        succeed(folder, [*lines, "thermo_style custom step atoms pe", "run 2", *END, f'print "$(atoms)" file {name}'])
        assert end_of(folder) < 1e-10
    assert int((folder / "low").read_text()) == 3
    assert int((folder / "high").read_text()) == 4
