"""Laws that hold whatever the weights: symmetries, derivatives, locality, reproducibility."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dpa2
import numpy as np
import pytest
from cases import DIFFERENCE, SAME, STEP, Golden, System
from helpers import case_system, evaluate, golden, model_of, relative

# smooth models in which no padded slot carries a type: energies are continuous and know no order of atoms
SMOOTH = ["base", "strip", "published_medium", "published_small", "h2_no_gate", "direct_dist", "resnet_dt_strip"]
# every part of the backward pass, also where the energy is only piecewise smooth
DIFFERENTIABLE = [*SMOOTH, "davg", "davg_strip", "out_both_false", "exclude_types", "env_protection", "act_silut"]

smooth = pytest.mark.parametrize("name", SMOOTH)


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.linalg.det(q)))


def isotropic(data: Golden) -> Golden:
    """The model with one dstd for all three vector components, and no davg for them."""
    weights = {key: value.copy() for key, value in data.weights.items()}
    for key, value in weights.items():
        if key.startswith("descriptor.") and key.endswith(".stddev"):
            value[:, 2:] = value[:, 1:2]
        elif key.startswith("descriptor.") and key.endswith(".mean"):
            value[:, 1:] = 0.0
    return replace(data, weights=weights)


def bulk(name: str, frame: int = 1) -> tuple[dpa2.Model, np.ndarray, np.ndarray, np.ndarray]:
    system = case_system(name, "bulk")
    assert system.box is not None
    return model_of(golden(name)), system.coord[frame], system.atype, system.box[frame]


# --------------------------------------------------------------------------------------------------- symmetries


@smooth
def test_rotation(name: str) -> None:
    """With statistics that know no direction, as those of real models; the golden models have four random ones."""
    _, coord, types, box = bulk(name)
    model, q = model_of(isotropic(golden(name))), rotation(3)
    a, b = model.evaluate(coord, types, box), model.evaluate(coord @ q.T, types, box @ q.T)
    assert relative(b.energy, a.energy) <= SAME
    assert relative(b.forces, a.forces @ q.T) <= SAME
    assert relative(b.virial, q @ a.virial @ q.T) <= 10 * SAME
    assert relative(a.virial, a.virial.T) <= 10 * SAME
    d, rot_mat = model.descriptor(coord, types, box, rot_mat=True)
    e, turned = model.descriptor(coord @ q.T, types, box @ q.T, rot_mat=True)
    assert relative(e, d) <= SAME
    assert relative(turned, rot_mat @ q.T) <= SAME


@smooth
def test_translation(name: str) -> None:
    model, coord, types, box = bulk(name)
    a, b = (
        model.evaluate(coord, types, box, atomic=True),
        model.evaluate(coord + np.array([3.1, -7.7, 0.4]), types, box, atomic=True),
    )
    for field in ("energy", "forces", "virial", "atom_energy", "atom_virial"):
        assert relative(getattr(b, field), getattr(a, field)) <= SAME, field


@smooth
def test_permutation(name: str) -> None:
    model, coord, types, box = bulk(name)
    order = np.random.default_rng(8).permutation(len(types))
    a = model.evaluate(coord, types, box, atomic=True)
    b = model.evaluate(coord[order], types[order], box, atomic=True)
    assert relative(b.energy, a.energy) <= SAME
    for field in ("forces", "atom_energy", "atom_virial"):
        assert relative(getattr(b, field), getattr(a, field)[order]) <= SAME, field


@smooth
def test_atoms_moved_by_lattice_vectors(name: str) -> None:
    model, coord, types, box = bulk(name)
    shift = np.random.default_rng(4).integers(-3, 4, coord.shape) @ box
    a, b = model.evaluate(coord, types, box, atomic=True), model.evaluate(coord + shift, types, box, atomic=True)
    for field in ("energy", "forces", "virial", "atom_energy", "atom_virial"):
        assert relative(getattr(b, field), getattr(a, field)) <= SAME, field


@pytest.mark.parametrize("order", [[1, 0, 2], [2, 1, 0], [0, 2, 1]])
def test_left_handed_box_is_the_same_lattice(order: list[int]) -> None:
    for frame in (0, 1):
        model, coord, types, box = bulk("base", frame)
        assert np.linalg.det(box[order]) < 0
        a, b = model.evaluate(coord, types, box, atomic=True), model.evaluate(coord, types, box[order], atomic=True)
        for field in ("energy", "forces", "virial", "atom_energy", "atom_virial"):
            assert relative(getattr(b, field), getattr(a, field)) <= SAME, field


def test_equivalent_cells_of_one_lattice() -> None:
    model, coord, types, box = bulk("strip")
    skewed = np.array([[1, 0, 0], [1, 1, 0], [-2, 1, 1]]) @ box
    a, b = model.evaluate(coord, types, box), model.evaluate(coord, types, skewed)
    assert relative(b.energy, a.energy) <= SAME
    assert relative(b.forces, a.forces) <= SAME


# --------------------------------------------------------------------------------------------------- derivatives


def slope(energy: Callable[[float], float], step: float = STEP) -> float:
    """4th-order central difference at 0."""
    return (8 * (energy(step) - energy(-step)) - (energy(2 * step) - energy(-2 * step))) / (12 * step)


def frames(system: System) -> list[tuple[np.ndarray, np.ndarray | None]]:
    boxes = [None] * len(system.coord) if system.box is None else list(system.box)
    return list(zip(system.coord, boxes, strict=True))


@pytest.mark.parametrize("where", ["open", "tiny", "bulk"])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_forces_are_slopes_of_the_energy(name: str, where: str) -> None:
    model, system = model_of(golden(name)), case_system(name, where)
    coord, box = frames(system)[-1]
    forces = model.evaluate(coord, system.atype, box).forces
    numerical = np.zeros_like(forces)
    for atom in range(len(coord)):
        for axis in range(3):

            def energy(h: float, atom: int = atom, axis: int = axis) -> float:
                moved = coord.copy()
                moved[atom, axis] += h
                return float(model.evaluate(moved, system.atype, box).energy)

            numerical[atom, axis] = -slope(energy)
    assert np.abs(forces - numerical).max() <= DIFFERENCE * max(1.0, np.abs(forces).max())


@pytest.mark.parametrize("where", ["open", "tiny", "bulk"])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_virial_is_the_slope_against_strain(name: str, where: str) -> None:
    model, system = model_of(golden(name)), case_system(name, where)
    coord, box = frames(system)[-1]
    virial = model.evaluate(coord, system.atype, box).virial
    numerical = np.zeros((3, 3))
    for k in range(3):
        for axis in range(3):

            def energy(h: float, k: int = k, axis: int = axis) -> float:
                strain = np.eye(3)
                strain[k, axis] += h
                strained = None if box is None else box @ strain.T
                return float(model.evaluate(coord @ strain.T, system.atype, strained).energy)

            numerical[k, axis] = -slope(energy)
    assert np.abs(virial - numerical).max() <= DIFFERENCE * max(1.0, np.abs(virial).max())


@pytest.mark.parametrize("pbc", [(True, False, False), (False, True, True), (True, False, True)])
def test_mixed_periodicity(pbc: tuple[bool, bool, bool]) -> None:
    """Forces are slopes, and directions that are not periodic are those of a cell with room around the atoms."""
    model, coord, types, box = bulk("base")
    inside = coord @ np.linalg.inv(box)
    coord = (inside - np.floor(inside)) @ box
    result = model.evaluate(coord, types, box, pbc=pbc)
    atom, axis = 2, 1

    def energy(h: float) -> float:
        moved = coord.copy()
        moved[atom, axis] += h
        return float(model.evaluate(moved, types, box, pbc=pbc).energy)

    assert abs(result.forces[atom, axis] + slope(energy)) <= DIFFERENCE * max(1.0, np.abs(result.forces).max())
    wide = box.copy()
    for direction in range(3):
        if not pbc[direction]:
            normal = np.cross(box[direction - 2], box[direction - 1])
            wide[direction] = box[direction] + 20.0 * normal / np.linalg.norm(normal)
    a = model.evaluate(coord, types, wide)
    assert relative(result.energy, a.energy) <= SAME
    assert relative(result.forces, a.forces) <= SAME
    assert relative(result.virial, a.virial) <= 10 * SAME


@pytest.mark.parametrize("where", ["open", "tiny", "bulk"])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_sums(name: str, where: str) -> None:
    """Shares add up to the whole, forces to nothing."""
    model, system = model_of(golden(name)), case_system(name, where)
    for atomic in (True, "edge", "deepmd"):
        answers = evaluate(model, system, atomic=atomic)
        assert relative(answers["atom_virial"].sum(axis=1), answers["virial"]) <= 10 * SAME
        assert relative(answers["atom_energy"].sum(axis=1), answers["energy"]) <= SAME
        assert np.abs(answers["force"].sum(axis=1)).max() <= 10 * SAME * max(1.0, np.abs(answers["force"]).max())


# --------------------------------------------------------------------------------------------------- locality


@smooth
def test_supercell(name: str) -> None:
    model, coord, types, box = bulk(name)
    repeat = (2, 1, 2)
    shifts = np.array([(i, j, k) for i in range(2) for j in range(1) for k in range(2)]) @ box
    one = model.evaluate(coord, types, box)
    many = model.evaluate(
        np.concatenate([coord + shift for shift in shifts]), np.tile(types, 4), box * np.array(repeat)[:, None]
    )
    assert relative(many.energy, 4 * one.energy) <= SAME
    assert relative(many.forces, np.tile(one.forces, (4, 1))) <= SAME
    assert relative(many.virial, 4 * one.virial) <= 10 * SAME


@smooth
def test_parts_beyond_the_cutoff_do_not_see_each_other(name: str) -> None:
    model, system = model_of(golden(name)), case_system(name, "open")
    coord, types = system.coord[0], system.atype
    far = coord @ rotation(1).T + [0.0, 200.0, 0.0]
    one, two = model.evaluate(coord, types), model.evaluate(far, types)
    both = model.evaluate(np.concatenate([coord, far]), np.concatenate([types, types]))
    assert relative(both.energy, one.energy + two.energy) <= SAME
    assert relative(both.forces, np.concatenate([one.forces, two.forces])) <= SAME


@pytest.mark.parametrize("name", [*SMOOTH, "rough", "davg", "davg_rough_strip", "no_sqrt"])
def test_isolated_atoms(name: str) -> None:
    model = model_of(golden(name))
    alone = [model.evaluate(np.zeros((1, 3)), [kind]) for kind in range(3)]
    assert all(np.isfinite(result.energy) for result in alone)
    for result in alone:
        assert np.array_equal(result.forces, np.zeros((1, 3)))
        assert np.array_equal(result.virial, np.zeros((3, 3)))
    for atomic in ("edge", "deepmd"):
        shares = model.evaluate(np.zeros((1, 3)), [0], atomic=atomic).atom_virial
        assert np.array_equal(shares, np.zeros((1, 3, 3)))
    boxed = model.evaluate([[0.3, 0.2, 9.0]], [1], np.eye(3) * 30.0)
    assert relative(boxed.energy, alone[1].energy) <= SAME
    if "davg" not in name:  # there, padded slots carry the type of the first atom
        apart = model.evaluate(np.diag([0.0, 50.0, 100.0]), [0, 1, 2])
        assert relative(apart.atom_energy, [result.energy for result in alone]) <= SAME


def test_no_atoms() -> None:
    model = model_of(golden("base"))
    for box in (None, np.eye(3) * 10.0):
        result = model.evaluate(np.zeros((0, 3)), np.zeros(0, dtype=int), box, atomic="deepmd")
        assert result.energy == 0.0
        assert result.forces.shape == (0, 3)
        assert np.array_equal(result.virial, np.zeros((3, 3)))
        assert result.atom_energy.shape == (0,)
        assert result.atom_virial is not None
        assert result.atom_virial.shape == (0, 3, 3)
        assert model.descriptor(np.zeros((0, 3)), np.zeros(0, dtype=int), box).shape == (0, model.descriptor_dim)


@smooth
def test_smooth_at_every_cutoff(name: str) -> None:
    """An atom that crosses a cutoff changes neither energy nor force by more than the way it went."""
    model = model_of(golden(name))
    descriptor = model.config["descriptor"]
    cluster = np.array([[0.0, 0.0, 0.0], [0.9, 0.7, 0.1], [0.4, -0.8, 1.0]])
    for rcut in {
        descriptor["repinit"]["rcut"],
        descriptor["repinit"]["three_body_rcut"],
        descriptor["repformer"]["rcut"],
    }:
        way = 1e-7
        inside, outside = (
            model.evaluate(np.concatenate([cluster, [[-(rcut + sign * way), 0.0, 0.0]]]), [0, 1, 2, 1])
            for sign in (-1, 1)
        )
        scale = max(1.0, float(np.abs(inside.forces).max()))
        assert abs(inside.energy - outside.energy) <= 4 * way * scale
        assert np.abs(inside.forces - outside.forces).max() <= 1e3 * way * scale


# ---------------------------------------------------------------------------------------------- reproducibility


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("threads", [1, 2])
def test_same_bits_from_run_to_run(precision: str, threads: int) -> None:
    for name in ("base", "strip"):
        system = case_system(name, "bulk")
        runs = [
            evaluate(model_of(golden(name), precision=precision, threads=threads), system, atomic=True)
            for _ in range(3)
        ]
        for run in runs[1:]:
            for quantity, value in run.items():
                assert np.array_equal(value, runs[0][quantity]), quantity


@pytest.mark.parametrize("name", ["base", "strip", "published_small", "davg", "virtual", "rough"])
def test_threads_change_rounding_only(name: str) -> None:
    system = case_system(name, "bulk")
    one = evaluate(model_of(golden(name), threads=1), system, atomic="deepmd")
    for threads in (2, 3):
        other = evaluate(model_of(golden(name), threads=threads), system, atomic="deepmd")
        for quantity, value in other.items():
            assert relative(value, one[quantity]) <= SAME, quantity


_ISA_SCRIPT = """
import sys, numpy as np
from helpers import case_system, evaluate, golden, model_of
from dpa2 import _native
out = {"isa": np.array(_native.isa())}
for name in ("base", "strip", "odd_widths"):
    for precision in ("float64", "float32"):
        model = model_of(golden(name), precision=precision)
        for quantity, value in evaluate(model, case_system(name, "bulk"), atomic=True).items():
            out[f"{name}/{precision}/{quantity}"] = value
np.savez(sys.argv[1], **out)
"""


def test_instruction_sets_change_rounding_only(tmp_path: Path) -> None:
    from dpa2 import _native

    levels = _native.isa_levels()
    assert _native.isa() in levels
    results = {}
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *(path for path in sys.path if path)])
    for level in levels:
        target = tmp_path / f"{level}.npz"
        environment = {**os.environ, "DPA2_ISA": level, "PYTHONPATH": paths}
        subprocess.run([sys.executable, "-c", _ISA_SCRIPT, str(target)], check=True, env=environment)
        with np.load(target) as data:
            results[level] = {key: data[key] for key in data.files}
        assert str(results[level].pop("isa")) == level
    first = results[levels[0]]
    for level, result in results.items():
        for key, value in result.items():
            bound = SAME if "float64" in key else 2e-4
            assert relative(value, first[key]) <= bound, f"{level}: {key}"
