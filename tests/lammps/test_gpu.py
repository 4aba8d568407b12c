"""Models on GPUs: the numbers of the Python engine on any number of ranks, with rows of ghosts in the memory of the GPU
or of the host; what cannot go well ends all ranks. The GPUs are emulated."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from cuda_emulator.build import program as built
from cuda_emulator.driver import environment
from dpa2.files import write_safetensors
from lammps_runs import (
    COEFF,
    DIVISIONS,
    Cluster,
    Setup,
    answer,
    assert_python_engine,
    combination_data,
    difference,
    divided,
    engine_of,
    measure,
    model_data,
    prepare,
    python_model,
    refusal,
    run,
    spin_data,
    succeed,
    systems,
    systems_of,
    table,
    tensor_data,
    tensors,
)
from lammps_runs import environment as variables
from lammps_runs import program as lammps

SYSTEM = next(system for system in systems() if system.name == "orthogonal")
WORDS = "device cuda gpu_aware"
STYLE = f"dpa2 model.safetensors {WORDS}"
DYNAMICS = ["velocity all create 600 1", "fix 1 all nve"]
END = "write_dump all custom end.dump id type x y z fx fy fz modify sort id format float %.17g"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models and systems; LAMMPS finds two GPUs."""
    use_emulation(monkeypatch, devices=2)
    prepare(tmp_path)
    return tmp_path


def use_emulation(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    for name, value in environment(**options).items():
        monkeypatch.setenv(name, value)


def check_division(folder: Path, division: str, gpu_aware: str, names: list[str] | None = None) -> str:
    """Systems in a division of space, in one run of LAMMPS, against the Python engine; what LAMMPS said."""
    lines, names = [], names or systems_of(division)
    for system in names:
        setup = divided(division, system)
        setup.style = f"{STYLE} {gpu_aware}"
        lines += [*setup.lines(), *measure(system)]
    said = succeed(folder, lines, DIVISIONS[division][0])
    for system in names:
        assert_python_engine(answer(folder, system), system)
    return said


# ------------------------------------------------------------------------------------------- divisions of space

QUICK = {("1 rank", "off"), ("2 ranks, newton off", "on"), ("slabs thinner than the cutoff", "off"), ("tiled", "on")}


@pytest.mark.parametrize(
    "case",
    needs.mostly_slow([(division, aware) for division in DIVISIONS for aware in ("off", "on")], QUICK),
    ids=": ".join,
)
def test_division_of_space(folder: Path, case: tuple[str, str]) -> None:
    """With one atom, and with ranks that have none; "on" hands device pointers to MPI, which here are the host's."""
    division, gpu_aware = case
    said = check_division(folder, division, gpu_aware)
    ranks, place = DIVISIONS[division][0], "GPU" if gpu_aware == "on" else "host"
    assert ("go to MPI in memory of the" in said) == (ranks > 1)
    assert (f"go to MPI in memory of the {place}" in said) == (ranks > 1)
    assert f"model.safetensors computes on GPU{' 0' if ranks == 1 else 's 0 1'}" in said
    assert "1 neighbor lists, perpetual/occasional/extra = 0 1 0" in said  # which nobody makes


@pytest.mark.parametrize("gpu_aware", needs.mostly_slow(["off", "on"], {"off"}))
def test_streams_that_wait_and_memory_that_nobody_else_touches(folder: Path, monkeypatch: Any, gpu_aware: str) -> None:
    """Work in any order that its events allow; the host, without MPI on the device, ends if it reads the device's."""
    for seed in (1,) if gpu_aware == "off" else (2, 3):
        use_emulation(monkeypatch, devices=2, deferred=True, seed=seed, only_kernels=gpu_aware == "off")
        check_division(folder, "2 ranks", gpu_aware, ["orthogonal", "tiny"])


def test_what_mpi_says_of_itself(folder: Path) -> None:
    """`auto` asks; one that knows nothing of GPUs gets rows of the host."""
    setup = divided("2 ranks", "orthogonal")
    setup.style = "dpa2 model.safetensors device cuda:1"
    lines = [*setup.lines(), "run 0"]
    said = succeed(folder, lines, 2)
    assert "go to MPI in memory of the host" in said
    assert "computes on GPUs 1 1 of the node" in said
    source = folder / "aware.cpp"
    source.write_text('extern "C" int MPIX_Query_cuda_support() { return 1; }\n', encoding="ascii")
    library = built("aware", [source], [], ["-O1", "-shared", "-fPIC"])
    done = run(folder, lines, 2, preload=[library])
    assert done.returncode == 0, done.stderr
    assert "go to MPI in memory of the GPU" in done.stdout


# ------------------------------------------------------------------------------------------- what the style can do


@pytest.mark.parametrize("gpu_aware", needs.mostly_slow(["off", "on"], {"on"}))
def test_atoms_that_move_and_change_ranks(folder: Path, gpu_aware: str) -> None:
    """Rebuilds in every step, in boxes that change: ghosts, owners and numbers of atoms are others each time."""
    setup = divided("4 ranks", "triclinic")
    setup.style = f"{STYLE} {gpu_aware}"
    lines = [*setup.lines(), "neigh_modify every 1 delay 0 check no", *DYNAMICS, "timestep 0.02", "run 3", END]
    succeed(folder, [*lines, 'print "$(pe:%.17g)" file energy'], 4)
    rows, system = table(folder / "end.dump"), next(one for one in systems() if one.name == "triclinic")
    assert np.abs(rows[:, 2:5] - system.coords).max() > 0.05
    expected = python_model().evaluate(rows[:, 2:5], rows[:, 1].astype(int) - 1, system.box)
    assert difference(rows[:, 5:8], expected.forces) < 1e-10
    assert difference(float((folder / "energy").read_text()), expected.energy) < 1e-10


def test_minimisation(folder: Path) -> None:
    lines = [*Setup("orthogonal", style=f"{STYLE} on").lines(), "minimize 0.0 1.0e-3 3 20", END]
    succeed(folder, [*lines, 'print "$(pe:%.17g)" file energy'], 2)
    rows, first = table(folder / "end.dump"), python_model().evaluate(SYSTEM.coords, SYSTEM.types, SYSTEM.box)
    expected = python_model().evaluate(rows[:, 2:5], rows[:, 1].astype(int) - 1, SYSTEM.box)
    assert difference(rows[:, 5:8], expected.forces) < 1e-10
    assert float((folder / "energy").read_text()) < float(first.energy) - 0.1


@pytest.mark.parametrize("ranks", needs.mostly_slow([1, 2], {2}))
def test_model_deviation_is_that_of_the_cpu(folder: Path, ranks: int) -> None:
    write_safetensors(folder / "other.safetensors", model_data(seed=8))
    files, found = "dpa2 model.safetensors other.safetensors out_freq 1", {}
    for name, words in (("cpu", ""), ("gpu", f"{WORDS} off")):
        style = f"{files} out_file {name}.out atomic {words}"
        lines = [*Setup("empty", "off" if ranks > 1 else "on", style=style).lines(), *DYNAMICS]
        succeed(folder, [*lines, "timestep 1e-4", "run 1"], ranks)
        text = (folder / f"{name}.out").read_text(encoding="ascii").splitlines()
        found[name] = np.array([line.split() for line in text[1:]], dtype=float)
    assert found["gpu"].shape == (2, 7 + 20)
    assert difference(found["gpu"], found["cpu"]) < 1e-10


def test_parameters(folder: Path) -> None:
    write_safetensors(folder / "model.safetensors", model_data(nf=2, na=1))
    source = "fparam 0.3 -0.2 aparam_from_compute a"
    setup = Setup("orthogonal", style=f"{STYLE} on {source}", after_box=["compute a all property/atom id"])
    succeed(folder, [*setup.lines(), *measure("a")], 2)
    numbers = np.arange(1.0, len(SYSTEM.types) + 1)[:, None]
    given = {"fparam": np.array([0.3, -0.2]), "aparam": numbers}
    assert_python_engine(answer(folder, "a"), "orthogonal", python_model(nf=2, na=1), **given)


@pytest.mark.parametrize("ranks", needs.mostly_slow([1, 4], {4}))
def test_hybrid_styles(folder: Path, ranks: int) -> None:
    """Atoms without a model; another style on top of a restart; two lists of one style of each device."""
    hybrid = Setup(
        "orthogonal", style=f"hybrid {STYLE} on lj/cut 3.0",
        coeff=["pair_coeff * * dpa2 O H NULL", "pair_coeff * 3 lj/cut 0.0 1.0"],
    )  # fmt: skip
    plain = Setup("orthogonal", style=f"{STYLE} off", coeff=["pair_coeff * * O H NULL"])
    over = "hybrid/overlay dpa2 model.safetensors device cuda dpa2 model.safetensors"
    both = Setup("orthogonal", style=over, coeff=["pair_coeff * * dpa2 1 O H C", "pair_coeff * * dpa2 2 O H C"])
    lines = [*hybrid.lines(), *measure("hybrid"), *plain.lines(), *measure("plain"), *both.lines(), "run 0"]
    lines += ['print "$(pe:%.17g)" file both', "write_restart rst", "clear", "read_restart rst"]
    lines += [f"pair_style {over}", *both.coeff, "run 0", 'print "$(pe:%.17g)" file again']
    succeed(folder, lines, ranks)
    types = np.where(SYSTEM.types == 2, -1, SYSTEM.types)
    expected = python_model().evaluate(SYSTEM.coords, types, SYSTEM.box)
    for name in ("hybrid", "plain"):
        assert difference(answer(folder, name).energy, expected.energy) < 1e-10
        assert difference(answer(folder, name).forces, expected.forces) < 1e-10
    whole = python_model().evaluate(SYSTEM.coords, SYSTEM.types, SYSTEM.box).energy
    for name in ("both", "again"):
        assert difference(float((folder / name).read_text()), 2 * whole) < 1e-10


def test_a_restart_keeps_the_device(folder: Path) -> None:
    """On as many ranks and GPUs as there are then."""
    succeed(folder, [*Setup("orthogonal", style=f"{STYLE} off").lines(), "run 0", "write_restart rst"], 1)
    said = succeed(folder, ["read_restart rst", *measure("a")], 2)
    assert "computes on GPUs 0 1 of the node" in said
    assert_python_engine(answer(folder, "a"), "orthogonal")


@pytest.mark.parametrize("kind", needs.mostly_slow(["dipole", "polar"], {"dipole"}))
def test_tensors(folder: Path, kind: str) -> None:
    write_safetensors(folder / "tensor.safetensors", tensor_data(kind))
    columns, lines = 3 if kind == "dipole" else 9, []
    styles = [("zero 1.0", "pair_coeff * *", "comm_modify cutoff 6.0"), (f"{STYLE} on", COEFF, "")]
    styles = styles[: 1 if kind == "dipole" else 2]
    for style, coeff, ghosts in styles:
        name = style.split()[0]
        words = f"compute t all dpa2/tensor/atom tensor.safetensors O H C {WORDS} on"
        lines += [*Setup("orthogonal", style=style, coeff=[coeff]).lines(), ghosts, words, *tensors("t", columns, name)]
    lines += [f"compute d all dpa2/descriptor/atom model.safetensors O H C {WORDS} off"]
    lines += ["run 0", "write_dump all custom descriptor.dump id type c_d[1] c_d[5] modify sort id format float %.17g"]
    succeed(folder, lines, ranks=2)
    given = (SYSTEM.coords, SYSTEM.types, SYSTEM.box)
    expected = engine_of(tensor_data(kind)).evaluate(*given).outputs[kind].reshape(-1, columns)
    for name in ("zero", "dpa2")[: len(styles)]:
        assert difference(table(folder / f"{name}.dump")[:, 2:], expected) < 1e-10
    descriptor = python_model().descriptor(*given)
    assert difference(table(folder / "descriptor.dump")[:, 2:], descriptor[:, [0, 4]]) < 1e-10


@pytest.mark.parametrize("kind", needs.mostly_slow(["zbl", "linear_ener"], {"zbl"}))
def test_models_that_are_made_of_several(folder: Path, kind: str) -> None:
    data = combination_data(kind)
    write_safetensors(folder / "model.safetensors", data)
    lines = []
    for gpu_aware in ("off", "on"):
        lines += [*Setup("triclinic", style=f"{STYLE} {gpu_aware}").lines(), *measure(gpu_aware)]
    succeed(folder, lines, ranks=2)
    for gpu_aware in ("off", "on"):
        assert_python_engine(answer(folder, gpu_aware), "triclinic", engine_of(data))


@pytest.mark.parametrize("ranks", needs.mostly_slow([1, 2], {2}))
def test_single_precision(folder: Path, ranks: int) -> None:
    succeed(folder, [*Setup("orthogonal", style=f"{STYLE} on precision float32").lines(), *measure("a")], ranks)
    exact = python_model().evaluate(SYSTEM.coords, SYSTEM.types, SYSTEM.box)
    assert 1e-9 < np.abs(answer(folder, "a").forces - exact.forces).max() / np.abs(exact.forces).max() < 1e-4


def test_partitions_share_the_gpus(folder: Path) -> None:
    """One process each: the second partition computes on the second GPU."""
    lines = [*Setup("orthogonal", style=f"{STYLE} off").lines(), "run 0", "variable w world a b"]
    lines += ['print "$(pe:%.17g)" file energy_${w}']
    done = run(folder, lines, 2, ["-partition", "1", "1"])
    assert done.returncode == 0, done.stdout + done.stderr
    said = [(folder / f"screen.{k}").read_text(encoding="ascii") for k in range(2)]
    assert [f"computes on GPU {k} of the node" in said[k] for k in range(2)] == [True, True]
    assert (folder / "energy_a").read_text() == (folder / "energy_b").read_text()


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("device", "device must be cpu, cuda or cuda:N with the number of a GPU, not ''"),
        ("device gpu", "device must be cpu, cuda or cuda:N with the number of a GPU, not 'gpu'"),
        ("device cuda:x", "device must be 'cpu', 'cuda' or 'cuda:N' with the number of a GPU, not 'cuda:x'"),
        ("device cuda:2", "there is no CUDA device 2: this machine has 0 to 1"),
        ("device cuda gpu_aware maybe", "gpu_aware must be on, off or auto, not 'maybe'"),
        ("device cpu gpu_aware on", "gpu_aware is about models on a GPU: it needs device cuda"),
        ("gpu_aware on", "gpu_aware is about models on a GPU: it needs device cuda"),
        ("device cuda gpu_aware", "gpu_aware needs a value"),
    ],
)
def test_words(folder: Path, words: str, message: str) -> None:
    lines = Setup("orthogonal", style=f"dpa2 model.safetensors {words}", coeff=[]).lines()
    assert message in refusal(folder, lines, 2)


def check_refusal(folder: Path, style: str, message: str, ranks: int = 4) -> None:
    """One message, the status 1, and no rank that waits for ever."""
    done = run(folder, Setup("orthogonal", style=style).lines(), ranks, timeout=60)
    assert done.returncode == 1, (done.returncode, done.stdout[-1000:], done.stderr[-1000:])
    said = done.stdout + done.stderr
    assert message in " ".join(said.split())
    assert said.count("ERROR: pair_style dpa2") == 1


@pytest.mark.parametrize("word", ["cuda", "cuda:0"])
def test_no_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("DPA2_CUDA_DRIVER", "/no/such/libcuda.so")
    check_refusal(folder, f"dpa2 model.safetensors device {word}", "a GPU needs NVIDIA's driver, whose library cannot")


@pytest.mark.parametrize("word", ["cuda", "cuda:0"])
def test_no_device(folder: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    use_emulation(monkeypatch, devices=0)
    check_refusal(
        folder, f"dpa2 model.safetensors device {word}", "NVIDIA's driver does not start, CUDA_ERROR_NO_DEVICE"
    )


@pytest.mark.parametrize(
    ("variable", "messages"),
    [
        ("DPA2_CUDA_DRIVER=/no/such/libcuda.so", ["whose library cannot be loaded", "(process 2)"]),
        ("DPA2_EMULATED_MEMORY=900000", ["ERROR on proc 2", "the device has no memory for"]),  # in the first step
    ],
)
def test_what_one_rank_lacks_ends_them_all(folder: Path, variable: str, messages: list[str]) -> None:
    (folder / "in.test").write_text(
        "\n".join([*Setup("orthogonal", style=f"{STYLE} off").lines(), "run 0"]) + "\n", encoding="ascii"
    )
    lmp, more = lammps()
    env = {**variables(), **more, **needs.patience()}
    script = f'test "$PMI_RANK" = 2 && export {variable}; exec "{lmp}" -in in.test -log none'
    command = [shutil.which("mpirun", path=env["PATH"]) or "mpirun", "-n", "3", "sh", "-c", script]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1
    assert [message for message in messages if message not in said] == []


@pytest.mark.parametrize("ranks", [1, 4])
def test_an_error_on_one_rank_ends_them_all(folder: Path, ranks: int) -> None:
    coords = SYSTEM.coords.copy()
    coords[7] = coords[3]
    Cluster("overlap", SYSTEM.box, coords, SYSTEM.types).write(folder)
    message = refusal(folder, [*Setup("overlap", style=f"{STYLE} off").lines(), "run 0"], ranks)
    assert "are at the same place: the model is not defined at distance 0" in message
    assert "atoms 4 and 8 " in message or "atoms 8 and 4 " in message


def test_kinds_that_gpus_do_not_have(folder: Path) -> None:
    write_safetensors(folder / "spin.safetensors", spin_data())
    setup = Setup("orthogonal", style="dpa2/spin spin.safetensors device cuda", coeff=[])
    assert "spin models are evaluated on the CPU only" in refusal(folder, setup.lines(), 2)


def test_pairs_that_are_kept_out_of_the_lists(folder: Path) -> None:
    """The lists are not made, but what they would leave out is known."""
    setup = Setup(
        "orthogonal", style=f"hybrid {STYLE} off lj/cut 3.0",
        coeff=["pair_coeff * * dpa2 O H C", "pair_coeff 1 2 lj/cut 0.0 1.0"],
    )  # fmt: skip
    message = refusal(folder, [*setup.lines(), "run 0"], 2)
    assert "a pair_coeff line gives pairs of the atom types 1 and 2 to another pair style" in message
    lines = [*Setup("orthogonal", style=f"{STYLE} off").lines(), "neigh_modify exclude type 1 3", "run 0"]
    assert "'neigh_modify exclude type 1 3' takes pairs out" in refusal(folder, lines, 2)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_trials_of_monte_carlo(folder: Path, ranks: int) -> None:
    """Atoms that come and go within a step, and one that a trial does without, are those of the CPU."""
    write_safetensors(folder / "model.safetensors", model_data(softness=0.02))
    coords = np.array([[3.0, 3, 3], [4.5, 3, 3], [3, 4.6, 3], [5.0, 5.0, 4.0]])
    Cluster("gas", 14.0 * np.eye(3), coords, np.array([0, 1, 0, 2])).write(folder)
    energies = []
    for name, words in (("cpu", ""), ("gpu", f"{WORDS} on")):
        setup = Setup("gas", style=f"dpa2 model.safetensors {words}", before_box=["atom_modify map yes"])
        lines = [*setup.lines(), "mass * 12.0", "group gas type 3", *DYNAMICS, "timestep 1e-4"]
        lines += ["fix g gas gcmc 1 6 3 3 4711 9000.0 0.0 1.0 full_energy max 4", "thermo_style custom step atoms pe"]
        succeed(folder, [*lines, "run 3", f'print "$(pe:%.17g) $(atoms) $(f_g[4]+f_g[6])" file {name}'], ranks)
        energies.append([float(word) for word in (folder / name).read_text(encoding="ascii").split()])
    assert energies[0][2] > 0
    assert energies[1][1:] == energies[0][1:]
    assert difference(energies[1][0], energies[0][0]) < 1e-9
