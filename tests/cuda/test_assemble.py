"""Forces, virials and totals on the emulated device, against the sums as they are defined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedDevice
from entry_kernels import Edges, draw_edges
from helpers import relative

WARPS, COLUMNS = 4, 10


def incoming(j: np.ndarray, atoms: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(j, kind="stable").astype(np.int32)
    return np.searchsorted(j[order], np.arange(atoms + 1)).astype(np.int32), order


class Case:
    """Random gradients of edges."""

    def __init__(self, edges: Edges, precision: str, seed: int | None = 11, failed: bool = False) -> None:
        rng = np.random.default_rng(3)
        self.edges, self.precision, self.device = edges, precision, EmulatedDevice(seed)
        self.real: Any = np.float64 if precision == "double" else np.float32
        self.gamma, self.seeded = (rng.normal(size=(edges.number, 3)).astype(self.real) for _ in range(2))
        self.wrapped, self.energies = rng.normal(size=(edges.atoms, 3)), rng.normal(size=edges.centres)
        self.failed = np.array([int(failed)], np.int32)
        begin, order = incoming(edges.j, edges.atoms)
        self.ends = {"d": edges.d, "start": edges.start.astype(np.int32), "begin": begin, "incoming": order,
                     "failed": self.failed, "centres": edges.centres, "atoms": edges.atoms}  # fmt: skip

    def launch(self, kernel: str, blocks: int, threads: int, struct: str, values: Any) -> None:
        self.device.start("assemble.cu", kernel, blocks, threads, struct, values, 0, {"real": self.precision})

    def assemble(self, atomic: bool = True, components: int = 1) -> tuple[Any, Any, Any]:
        """Of several components the first, in front of the rows of the others."""
        empty, edges = self.device.empty, self.edges
        force, virial = empty((edges.atoms, components, 3), np.float64), empty((edges.centres, 9), np.float64)
        atom_virial = empty((edges.atoms, components, 9), np.float64) if atomic else None
        values = {"force": force, "virial": virial, "atom_virial": atom_virial, "gamma": self.gamma, "ends": self.ends,
                  "components": components, "unused": 0}  # fmt: skip
        self.launch("assemble", -(-edges.atoms // WARPS), 32 * WARPS, "AssembleArgs", values)
        if components == 1:
            force, atom_virial = force[:, 0], None if atom_virial is None else atom_virial[:, 0]
        return force, virial, atom_virial

    def totals(self, virials: Any, components: int = 1) -> tuple[Any, Any]:
        frames = self.edges.frames
        energy, virial = self.device.empty(frames, np.float64), self.device.empty((frames, components, 9), np.float64)
        values = {"energy": energy, "virial": virial if virials is not None else None, "atom_energy": self.energies,
                  "virials": virials, "failed": self.failed, "per_frame": self.edges.centres // frames,
                  "components": components}  # fmt: skip
        self.launch("totals", COLUMNS * frames, 256, "TotalsArgs", values)
        return energy, virial[:, 0] if components == 1 else virial

    def shares(self) -> np.ndarray:
        return -np.einsum("ek,el->ekl", self.gamma.astype(np.float64), self.edges.d).reshape(-1, 9)


def ends(edges: Edges, out: Any, at_neighbour: Any) -> np.ndarray:
    """Rows of edges added to their centres, others to their neighbours."""
    total = np.zeros((edges.atoms, out.shape[1]))
    np.add.at(total, edges.centre(), out)
    np.add.at(total, edges.j, at_neighbour)
    return total


CASES = {
    "one": draw_edges(1, [[3, 0, 7, 40]]),
    "frames": draw_edges(2, [[5, 1], [0, 0], [70, 3]]),
    "ghosts": draw_edges(3, [[9, 33, 0]], ghosts=6),
}


@pytest.mark.parametrize("precision", ["double", "float"])
@pytest.mark.parametrize("name", CASES)
def test_forces_and_virials(name: str, precision: str) -> None:
    case = Case(CASES[name], precision)
    edges, gamma, shares = case.edges, case.gamma.astype(np.float64), case.shares()
    force, virial, atom_virial = case.assemble()
    assert relative(force, ends(edges, gamma, -gamma)) <= 1e-14
    assert relative(atom_virial, ends(edges, 0.5 * shares, 0.5 * shares)) <= 1e-14
    assert relative(virial, ends(edges, shares, 0 * shares)[: edges.centres]) <= 1e-14
    again = case.assemble(atomic=False)
    assert again[0].tobytes() == force.tobytes()
    energy, total = case.totals(virial)
    whole = (edges.frames, edges.centres // edges.frames)
    assert relative(energy, case.energies.reshape(whole).sum(axis=1)) <= 1e-14
    assert relative(total, virial.reshape(*whole, 9).sum(axis=1)) <= 1e-14


def test_one_component_of_several() -> None:
    """The rows of the others are left alone."""
    case = Case(CASES["frames"], "double")
    wanted = case.assemble()
    force, virial, atom_virial = case.assemble(components=3)
    np.testing.assert_array_equal(force[:, 0], wanted[0])
    np.testing.assert_array_equal(virial, wanted[1])
    np.testing.assert_array_equal(atom_virial[:, 0], wanted[2])
    total = case.totals(virial, components=3)[1]
    np.testing.assert_array_equal(total[:, 0], case.totals(virial)[1])
    for rows in (force, atom_virial, total):
        assert np.isnan(rows[:, 1:]).all()


def test_totals_of_many_atoms() -> None:
    case = Case(draw_edges(4, [[0] * 3000, [0] * 3000]), "double")
    case.totals(None)
    virials = np.random.default_rng(5).normal(size=(6000, 9))
    energy, total = case.totals(virials)
    assert relative(energy, case.energies.reshape(2, -1).sum(axis=1)) <= 1e-13
    assert relative(total, virials.reshape(2, -1, 9).sum(axis=1)) <= 1e-13


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_virials_of_deepmd_kit(name: str, weighted: bool) -> None:
    """-sum of (gradient with weights x - x of the end times gradient) over the edges of an atom as either end."""
    case = Case(CASES[name], "double")
    weights = case.energies if weighted else None
    edges, x = case.edges, case.wrapped
    found = case.device.empty((edges.atoms, 9), np.float64)
    for axis in range(3):
        seed = case.device.empty(edges.centres, np.float64)
        values = {"out": seed, "wrapped": x, "weights": weights, "centres": edges.centres, "axis": axis}
        case.launch("coordinate", 1, 128, "CoordinateArgs", values)
        np.testing.assert_array_equal(seed, x[: edges.centres, axis] * (1.0 if weights is None else weights))
        values = {"atom_virial": found, "seeded": case.seeded, "plain": case.gamma, "wrapped": x,
                  "centre": edges.centre().astype(np.int32), "ends": case.ends, "axis": axis,
                  "components": 1}  # fmt: skip
        case.launch("assemble_deepmd", -(-edges.atoms // WARPS), 128, "AssembleDeepmdArgs", values)
    here = x[edges.centre()]
    out = -(case.seeded[:, :, None] - here[:, None, :] * case.gamma[:, :, None])
    back = case.seeded[:, :, None] - (here + edges.d)[:, None, :] * case.gamma[:, :, None]
    assert relative(found, ends(edges, out.reshape(-1, 9), back.reshape(-1, 9))) <= 1e-13


def test_an_evaluation_that_failed_is_not_a_number() -> None:
    case = Case(CASES["ghosts"], "double", failed=True)
    force, virial, atom_virial = case.assemble()
    energy, total = case.totals(virial)
    for array in (force, virial, atom_virial, energy, total, case.energies):
        assert np.isnan(array).all()


def test_one_answer_whatever_the_schedule() -> None:
    seen = set()
    for seed in (None, 1, 2):
        case = Case(CASES["frames"], "float", seed)
        force, virial, atom_virial = case.assemble()
        seen.add(b"".join(a.tobytes() for a in (force, virial, atom_virial, *case.totals(virial))))
    assert len(seen) == 1
