"""Parts of a system in threads that exchange rows through the C interface, on the CPU and on the emulated GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from c_library import (
    EXCHANGE,
    INVALID_INPUT,
    Answer,
    Handle,
    Parts,
    assert_ok,
    call,
    doubles,
    load,
    message,
    new_domain,
)
from c_ranks import Rank, World
from dpa2.files import ModelData, write_safetensors
from gpu_models import emulate
from helpers import case_system, golden, model_of, relative
from lammps_runs import engine_of, model_data

pytestmark = needs.library

#: a rectangular box, so small that atoms have many images within the cutoff, and atoms in it
BOX_OF_IMAGES = np.diag([3.1, 3.7, 4.4]), np.array([[0.2, 0.3, 0.1], [1.6, 1.9, 2.3], [0.4, 2.2, 3.5], [1.9, 0.2, 1.4]])


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a model is; the GPU is emulated."""
    if request.param == "cuda":
        emulate(monkeypatch)
    return str(request.param)


def prepared(name: str, folder: Path, device: str, precision: str) -> tuple[Handle, dpa2.Model, Any]:
    path = folder / f"{name}.safetensors"
    write_safetensors(path, ModelData(golden(name).config, golden(name).weights))
    return load(path, precision, device=device), model_of(golden(name), device="cpu"), case_system(name, "bulk")


@pytest.mark.parametrize(("name", "precision", "bound"), [("base", "float64", 1e-11), ("base", "float32", 2e-4),
                                                          ("fparam_aparam", "float64", 1e-11)])  # fmt: skip
def test_ranks_have_the_numbers_of_the_whole(
    name: str, precision: str, bound: float, device: str, tmp_path: Path
) -> None:
    """Two that share the atoms, and one without; all with one model, which must not make them wait for each other."""
    model, python, system = prepared(name, tmp_path, device, precision)
    coords, types = system.coord[0], system.atype.astype(np.intc)
    box = system.box[0].reshape(3, 3)
    fparam, aparam = (None if rows is None else rows[0] for rows in (system.fparam, system.aparam))
    wanted = python.evaluate(coords, types, box, fparam=fparam, aparam=aparam, atomic=True)
    for rank_of in (np.arange(len(types)) % 2, (coords[:, 0] > np.median(coords[:, 0])).astype(int)):
        world = World(coords, types, box, rank_of, 3, call("model_rcut", model.address) + 0.2)
        answers = {}

        def work(rank: Rank, world: World = world, answers: dict[int, Answer] = answers) -> None:
            domain = new_domain()
            answers[rank.number] = Answer(rank.nall, rank.nlocal)
            mine = None if aparam is None else doubles(aparam[rank.local])
            given = (rank.types, int(types[0]), doubles(fparam), mine)
            for _ in range(2):
                assert_ok(rank.set(domain))
                places = answers[rank.number].places()
                assert_ok(call("domain_evaluate", domain.address, model.address, *given, rank.exchange, 1, *places))

        world.each(work)
        found = [answers[number] for number in range(3)]
        assert relative(np.sum([one.energy[0] for one in found]), wanted.energy) <= bound
        assert relative(np.sum([one.virial for one in found], axis=0), wanted.virial) <= bound
        assert relative(world.sum([one.forces for one in found]), wanted.forces) <= bound
        assert relative(world.sum([one.atom_virial for one in found]), wanted.atom_virial) <= bound
        energies = np.concatenate([one.atom_energy for one in found])
        assert relative(energies, wanted.atom_energy[np.concatenate([rank.local for rank in world.ranks])]) <= bound


def turn_ghosts(rank: Rank) -> None:
    """The ghosts of a rank in the opposite order."""
    order = np.concatenate([np.arange(rank.nlocal), np.arange(rank.nlocal, rank.nall)[::-1]])
    rank.coords, rank.types, rank.owner = rank.coords[order], rank.types[order], rank.owner[order]
    rank.lists = [order[row].astype(np.intc) for row in rank.lists]  # the order is its own inverse
    rank.firstneigh = np.array([one.ctypes.data for one in rank.lists], dtype=np.uintp)


@pytest.mark.parametrize("ranks", [1, 3])
def test_images_of_one_atom_at_one_distance(ranks: int, device: str, tmp_path: Path) -> None:
    """Full lists that end between them: in every division and order of ghosts those of the whole system stay."""
    data, (box, coords) = model_data(nsel=7), BOX_OF_IMAGES
    write_safetensors(tmp_path / "few.safetensors", data)
    model, types = load(tmp_path / "few.safetensors", "float64", device=device), np.array([0, 1, 2, 0], dtype=np.intc)
    wanted = engine_of(data).evaluate(coords, types, box)
    world = World(coords, types, box, np.arange(4) % ranks, ranks, call("model_rcut", model.address) + 0.2)
    answers = {}

    def work(rank: Rank) -> None:
        domain, answer = new_domain(), Answer(rank.nall, rank.nlocal)
        turn_ghosts(rank)
        assert_ok(rank.set(domain))
        given = (rank.types, 0, None, None, rank.exchange, 1)
        assert_ok(call("domain_evaluate", domain.address, model.address, *given, *answer.places()))
        answers[rank.number] = answer

    world.each(work)
    assert relative(np.sum([answers[k].energy[0] for k in range(ranks)]), wanted.energy) <= 1e-11
    assert relative(world.sum([answers[k].forces for k in range(ranks)]), wanted.forces) <= 1e-11


def test_ghosts_without_an_exchange_are_refused(device: str, tmp_path: Path) -> None:
    model, python, system = prepared("base", tmp_path, device, "float64")
    coords, types, box = system.coord[0], system.atype.astype(np.intc), system.box[0].reshape(3, 3)
    parts, domain = Parts(coords, types, box, call("model_rcut", model.address)), new_domain()
    assert_ok(parts.set(domain))
    answer = Answer(parts.nall, parts.nlocal)
    given = (domain.address, model.address, parts.types, int(types[0]), None, None)
    assert call("domain_evaluate", *given, None, 1, *answer.places()) == INVALID_INPUT
    assert "is a ghost and somebody's neighbour, but there is no exchange to fill it" in message()
    assert np.isnan(answer.forces).all()
    # far ghosts are nobody's neighbours, and the domain works again
    parts.coords[parts.nlocal :] += 100.0
    parts.numneigh = np.array([np.sum(row < parts.nlocal) for row in parts.lists], dtype=np.intc)
    assert_ok(parts.set(domain))
    assert_ok(call("domain_evaluate", *given, None, 1, *answer.places()))
    wanted = python.evaluate(coords, types)
    assert relative(answer.forces[: parts.nlocal], wanted.forces) <= 1e-11
    assert not answer.forces[parts.nlocal :].any()


def test_an_exchange_that_gives_up(device: str, tmp_path: Path) -> None:
    model, python, system = prepared("base", tmp_path, device, "float64")
    coords, types, box = system.coord[0], system.atype.astype(np.intc), system.box[0].reshape(3, 3)
    parts, domain = Parts(coords, types, box, call("model_rcut", model.address)), new_domain()
    assert_ok(parts.set(domain))
    wanted = python.evaluate(coords, types, box)
    for calls in range(4):
        steps = iter([0] * calls + [7])
        forward, reverse = parts._forward, parts._reverse
        table = type(parts.table)(
            None,
            type(parts.table.forward)(lambda *a, f=forward, s=steps: f(*a) or next(s, 0)),
            type(parts.table.reverse)(lambda *a, f=reverse, s=steps: f(*a) or next(s, 0)),
        )
        answer = Answer(parts.nall, parts.nlocal)
        given = (domain.address, model.address, parts.types, int(types[0]), None, None)
        status = call("domain_evaluate", *given, ctypes.addressof(table), 1, *answer.places())
        assert status == EXCHANGE, (calls, message())
        assert relative(parts.evaluate(domain, model).forces, wanted.forces) <= 1e-11
