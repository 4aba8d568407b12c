"""model_devi.out: one row per step, for the state that stays; nobody's rows are lost."""

from __future__ import annotations

import fcntl
from pathlib import Path

import numpy as np
import pytest
from dpa2.files import write_safetensors
from lammps_runs import (
    Cluster,
    Setup,
    model_data,
    prepare,
    python_model,
    refusal,
    run,
    succeed,
    systems,
)

pytestmark = pytest.mark.slow

SYSTEM = next(system for system in systems() if system.name == "orthogonal")
FILES = "soft.safetensors other.safetensors"
DYNAMICS = ["velocity all create 600 1", "fix 1 all nve"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    write_safetensors(tmp_path / "soft.safetensors", model_data(softness=0.02))
    write_safetensors(tmp_path / "other.safetensors", model_data(seed=8, softness=0.02))
    return tmp_path


def start(words: str = "out_freq 1", system: str = "orthogonal", files: str = FILES) -> list[str]:
    return Setup(system, before_box=["atom_modify map yes"], style=f"dpa2 {files} {words}").lines()


def rows_of(file: Path) -> np.ndarray:
    titles, *lines = file.read_text(encoding="ascii").splitlines()
    assert titles.split()[:3] == ["#", "step", "max_devi_v"]
    return np.array([[float(word) for word in line.split()[:7]] for line in lines]).reshape(-1, 7)


def steps_of(file: Path) -> list[int]:
    return rows_of(file)[:, 0].astype(int).tolist()


def frames(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Types and coordinates of every frame of a dump."""
    found = []
    for text in path.read_text(encoding="ascii").split("ITEM: ATOMS")[1:]:
        lines = text.split("ITEM:")[0].splitlines()[1:]
        table = np.array([line.split() for line in lines], dtype=float)
        found.append((table[:, 1].astype(int) - 1, table[:, 2:5]))
    return found


def expected(types: np.ndarray, coords: np.ndarray, box: np.ndarray) -> list[float]:
    """Largest, smallest and average deviation of the forces."""
    models = [python_model(softness=0.02), python_model(seed=8, softness=0.02)]
    forces = np.array([model.evaluate(coords, types, box).forces for model in models])
    deviation = np.sqrt(((forces - forces.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
    return [deviation.max(), deviation.min(), deviation.mean()]


DUMP = ["dump 1 all custom 1 all.dump id type x y z", "dump_modify 1 sort id format float %.17g"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_rows_of_monte_carlo_are_those_of_accepted_states(folder: Path, ranks: int) -> None:
    lines = [*start(), *DYNAMICS, "timestep 1e-4", *DUMP, "fix 2 all atom/swap 1 4 99 1.0 ke no types 1 3"]
    succeed(folder, [*lines, "run 4", 'print "$(f_2[1]) $(f_2[2])" file swaps'], ranks)
    tried, accepted = (float(word) for word in (folder / "swaps").read_text().split())
    assert 0 < accepted < tried  # of both kinds, also in last place
    rows, states = rows_of(folder / "model_devi.out"), frames(folder / "all.dump")
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 4]
    for row, (types, coords) in zip(rows, states, strict=True):
        assert np.allclose(row[4:], expected(types, coords, SYSTEM.box), rtol=1e-8)


def test_rows_of_trial_insertions(folder: Path) -> None:
    """Atoms come and go, and rows of all atoms have other lengths."""
    box = np.diag([14.0, 14.0, 14.0])
    coords = np.array([[3.0, 3, 3], [4.5, 3, 3], [3, 4.6, 3], [5.0, 5.0, 4.0]])
    Cluster("gas", box, coords, np.array([0, 1, 0, 2])).write(folder)
    lines = [*start("out_freq 1 atomic", "gas"), "mass * 12.0", "group gas type 3", *DYNAMICS, "timestep 1e-4", *DUMP]
    succeed(folder, [*lines, "fix g gas gcmc 1 6 3 3 4711 9000.0 0.0 1.0 full_energy max 4", "run 4"])
    states = frames(folder / "all.dump")
    lines = (folder / "model_devi.out").read_text(encoding="ascii").splitlines()[1:]
    assert [len(line.split()) - 7 for line in lines] == [len(types) for types, _ in states]
    assert len({len(types) for types, _ in states}) > 1
    for row, (types, coords) in zip(rows_of(folder / "model_devi.out"), states, strict=True):
        assert np.allclose(row[4:], expected(types, coords, box), rtol=1e-8)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_step_is_written_once(folder: Path, precision: str) -> None:
    """Where a run ends and the next begins; minimisers that try several lengths; fixes that displace atoms."""
    lines = [*start(f"out_freq 2 precision {precision}"), *DYNAMICS, "run 4", "run 0", "run 2", "run 2 pre no"]
    succeed(folder, [*lines, "fix d all numdiff 2 1e-4", "run 0", "unfix d", "minimize 0 1e-8 4 20", "run 1"], ranks=2)
    steps = steps_of(folder / "model_devi.out")
    assert steps[:5] == [0, 2, 4, 6, 8]
    assert len(steps) > 5
    assert steps == sorted(set(steps))


def test_another_state_of_the_same_step_has_a_row_of_its_own(folder: Path) -> None:
    lines = [*start(), "run 0", "displace_atoms all random 0.1 0.1 0.1 4711", "run 0", "run 0"]
    succeed(folder, lines)
    rows = rows_of(folder / "model_devi.out")
    assert rows[:, 0].tolist() == [0, 0]
    assert np.abs(rows[0, 1:] - rows[1, 1:]).max() > 1e-4


def test_the_file_of_an_earlier_program_is_replaced_when_the_first_run_begins(folder: Path) -> None:
    file = folder / "model_devi.out"
    file.write_text("mine\n", encoding="ascii")
    succeed(folder, start())
    refusal(folder, [*start(), "pair_coeff * * O H C", "neigh_modify exclude type 1 2", "run 0"])
    assert file.read_text(encoding="ascii") == "mine\n"
    succeed(folder, [*start(), "run 0", *start(), "run 0"])
    assert steps_of(file) == [0]


def test_a_device_instead_of_a_file(folder: Path) -> None:
    assert "max_devi_v" in succeed(folder, [*start("out_freq 1 out_file /dev/stdout"), *DYNAMICS, "run 2"])


OVERLAY = f"hybrid/overlay dpa2 {FILES} out_file {{}} dpa2 {FILES} out_file {{}}"
BOTH = ["pair_coeff * * dpa2 1 O H C", "pair_coeff * * dpa2 2 O H C"]


def test_two_styles_do_not_share_a_file(folder: Path) -> None:
    file = folder / "a.out"
    file.write_text("mine\n", encoding="ascii")
    (folder / "b.out").symlink_to(file)
    for names in (("a.out", "a.out"), ("a.out", "./a.out"), ("a.out", "b.out")):
        lines = [*Setup("orthogonal", style=OVERLAY.format(*names), coeff=BOTH).lines(), "run 0"]
        message = refusal(folder, lines, ranks=2)
        assert f"another pair style, partition or program is writing '{names[1]}'" in message
        assert "out_file NAME" in message
        assert file.read_text(encoding="ascii") == "mine\n"
    succeed(folder, [*Setup("orthogonal", style=OVERLAY.format("a.out", "c.out"), coeff=BOTH).lines(), "run 0"])
    assert (folder / "a.out").read_text() == (folder / "c.out").read_text()
    assert steps_of(file) == [0]


def test_another_program_has_the_file(folder: Path) -> None:
    file = folder / "model_devi.out"
    with file.open("w", encoding="ascii") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        assert "program is writing 'model_devi.out'" in refusal(folder, [*start(), "run 0"], ranks=2)
    succeed(folder, [*start(), "run 0"])


@pytest.mark.parametrize("ranks", [2, 4])
def test_two_partitions_do_not_share_a_file(folder: Path, ranks: int) -> None:
    """Nor one after the other: the fast one has its rows and is gone before the slow one begins."""
    arguments = ["-partition", f"2x{ranks // 2}", "-plog", "none", "-pscreen", "none"]
    waits = ['variable slow world "" "shell sleep 0.6"', *start()[1:], "run 2"]
    waits.insert(1, "${slow}")
    done = run(folder, waits, ranks, arguments)
    assert done.returncode != 0
    assert "is writing 'model_devi.out'" in done.stdout + done.stderr
    own = ["variable name world a b", *start("out_freq 1 out_file ${name}.out")[1:], "run 2"]
    succeed(folder, own, ranks, arguments)
    assert steps_of(folder / "a.out") == steps_of(folder / "b.out") == [0, 1, 2]


STYLES = {
    "plain": {"style": f"dpa2 {FILES} out_freq 2", "coeff": ["pair_coeff * * O H C"]},
    "hybrid": {
        "style": f"hybrid/overlay dpa2 {FILES} out_freq 2 lj/cut 2.0",
        "coeff": ["pair_coeff * * dpa2 O H C", "pair_coeff * * lj/cut 0.001 1.0"],
    },
}


@pytest.mark.parametrize("name", list(STYLES))
def test_a_restart_goes_on_behind_the_last_row(folder: Path, name: str) -> None:
    words = STYLES[name]
    again = [f"pair_style {words['style']}", *words["coeff"], "fix 1 all nve"]
    file = folder / "model_devi.out"
    succeed(folder, [*Setup("orthogonal", **words).lines(), *DYNAMICS, "restart 4 rst.*", "run 8"])  # type: ignore[arg-type]
    whole = file.read_text(encoding="ascii")
    assert steps_of(file) == [0, 2, 4, 6, 8]
    # The state of step 8 is in the file already; a row that a killed program has left half is none.
    file.write_text(whole + "          10   8.19962", encoding="ascii")
    succeed(folder, ["read_restart rst.8", *again, "run 4"], ranks=2)
    rows = file.read_text(encoding="ascii").splitlines()
    assert "\n".join(rows[:6]) + "\n" == whole
    assert rows[6] == "          10   8.19962"
    assert [int(row.split()[0]) for row in rows[7:]] == [8, 10, 12]
    file.write_text(whole, encoding="ascii")
    succeed(folder, ["read_restart rst.8", *again, "run 2", "pair_style none", *again[:-1], "run 2"], ranks=2)
    assert steps_of(file) == [0, 2, 4, 6, 8, 10, 12]
    # From an earlier step the rows of both are there; another system in the same script begins anew.
    succeed(folder, ["read_restart rst.4", *again, "run 2"])
    assert steps_of(file) == [0, 2, 4, 6, 8, 10, 12, 4, 6]
    fresh = [*Setup("orthogonal", **words).lines(), *DYNAMICS, "run 2"]  # type: ignore[arg-type]
    succeed(folder, ["read_restart rst.4", *again, "run 2", *fresh])
    assert steps_of(file) == [0, 2]
    file.unlink()
    succeed(folder, ["read_restart rst.4", *again, "run 0"])
    assert steps_of(file) == [4]
