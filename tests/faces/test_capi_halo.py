"""Exchanges of packed rows through the C interface, on the CPU and on the emulated GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from c_halo import Halo, halos, integers
from c_library import (
    EXCHANGE,
    INVALID_INPUT,
    OK,
    Answer,
    Handle,
    Parts,
    assert_ok,
    call,
    doubles,
    load,
    message,
    named,
    new_domain,
)
from c_ranks import Rank, World
from dpa2.files import ModelData, write_safetensors
from gpu_models import emulate
from helpers import case_system, golden, model_of, relative
from random_model import random_model

pytestmark = needs.library

#: where models are, and the rows that callbacks get
PLACES = [("cpu", False), ("cuda", False), ("cuda", True)]


class Prepared:
    """A model of a golden file on a device, in a world of three ranks of which the last has no atoms."""

    def __init__(self, name: str, precision: str, folder: Path, device: str) -> None:
        path = folder / f"{name}.safetensors"
        write_safetensors(path, ModelData(golden(name).config, golden(name).weights))
        self.model = load(path, precision, device=device)
        system = case_system(name, "bulk")
        self.coords, self.types = system.coord[0], system.atype.astype(np.intc)
        self.box = system.box[0].reshape(3, 3)
        self.fparam, self.aparam = (None if rows is None else rows[0] for rows in (system.fparam, system.aparam))
        self.wanted = model_of(golden(name), device="cpu").evaluate(
            self.coords, self.types, self.box, fparam=self.fparam, aparam=self.aparam, atomic=True
        )

    def world(self, ranks: int = 3) -> World:
        rank_of = (self.coords[:, 0] > np.median(self.coords[:, 0])).astype(int) if ranks > 1 else 0 * self.types
        reach = call("model_rcut", self.model.address) + 0.2
        return World(self.coords, self.types, self.box, rank_of, ranks, reach)

    def evaluate(self, rank: Rank, domain: Handle, answer: Answer) -> int:
        mine = None if self.aparam is None else doubles(self.aparam[rank.local])
        given = (rank.types, int(self.types[0]), doubles(self.fparam), mine)
        return int(call("domain_evaluate", domain.address, self.model.address, *given, None, 1, *answer.places()))


def without_lists(rank: Parts, domain: Handle) -> int:
    given = (rank.coords, rank.owner, None, None, -1)
    return int(call("domain_set_atoms", domain.address, rank.nlocal, rank.nall, *given))


def check_world(case: Prepared, world: World, all_halos: list[Halo], device: str, bound: float, steps: int = 2) -> None:
    """Evaluations, of which all have the halo of the first, against the whole system."""
    answers: dict[int, Answer] = {}

    def work(rank: Rank) -> None:
        domain = new_domain()
        answers[rank.number] = Answer(rank.nall, rank.nlocal)
        for step in range(steps):
            assert_ok(rank.set(domain) if device == "cpu" else without_lists(rank, domain))
            if step == 0:
                assert_ok(all_halos[rank.number].set(domain))
            assert_ok(case.evaluate(rank, domain, answers[rank.number]))

    world.each(work)
    found, wanted = [answers[rank.number] for rank in world.ranks], case.wanted
    assert relative(np.sum([one.energy[0] for one in found]), wanted.energy) <= bound
    assert relative(np.sum([one.virial for one in found], axis=0), wanted.virial) <= bound
    assert relative(world.sum([one.forces for one in found]), wanted.forces) <= bound
    assert relative(world.sum([one.atom_virial for one in found]), wanted.atom_virial) <= bound
    energies = np.concatenate([one.atom_energy for one in found])
    assert relative(energies, wanted.atom_energy[np.concatenate([rank.local for rank in world.ranks])]) <= bound


@pytest.mark.parametrize(("name", "precision", "bound"), [("base", "float64", 1e-11), ("base", "float32", 2e-4),
                          pytest.param("fparam_aparam", "float64", 1e-11, marks=pytest.mark.slow)])  # fmt: skip
@pytest.mark.parametrize(("device", "on_device"), PLACES)
def test_packed_rows_have_the_numbers_of_the_whole(
    device: str, on_device: bool, name: str, precision: str, bound: float, tmp_path: Path, monkeypatch: Any
) -> None:
    if device == "cuda":
        emulate(monkeypatch)
    case = Prepared(name, precision, tmp_path, device)
    world = case.world()
    all_halos = halos(world, on_device)
    check_world(case, world, all_halos, device, bound)
    layers = golden(name).config["descriptor"]["repformer"]["nlayers"]
    width = call("model_exchange_width", case.model.address), 8 if precision == "float64" else 4
    steps = [("forward", *width)] * layers + [("reverse", *width)] * layers
    assert [halo.calls for halo in all_halos] == [2 * steps, 2 * steps, []]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_process_has_nothing_to_carry(device: str, tmp_path: Path, monkeypatch: Any) -> None:
    """All ghosts are images: no callback; on the GPU a steady step is one graph."""
    if device == "cuda":
        emulate(monkeypatch)
        from cuda_emulator.driver import driver

        graphs = driver().count("graph_launches")
    case = Prepared("base", "float64", tmp_path, device)
    world = case.world(1)
    all_halos = halos(world)
    check_world(case, world, all_halos, device, 1e-11, steps=4)
    assert all_halos[0].calls == []
    assert device == "cpu" or driver().count("graph_launches") == graphs + 2
    assert len(all_halos[0].lists["images"]) == world.ranks[0].nall - len(case.types)


def test_lists_that_outgrow_a_graph(tmp_path: Path, monkeypatch: Any) -> None:
    """Atoms that come closer in a steady step of one process have more neighbours than there is room for."""
    emulate(monkeypatch)
    case, model = Prepared("base", "float64", tmp_path, "cuda"), model_of(golden("base"), device="cpu")
    reach = 1.2 * call("model_rcut", case.model.address)
    world = World(case.coords, case.types, case.box, 0 * case.types, 1, reach)
    (halo,), (rank,), domain, first = halos(world), world.ranks, new_domain(), world.ranks[0].coords.copy()
    neighbours = []
    for scale in (1.0, 1.0, 1.0, 0.85, 1.0):
        rank.coords = scale * first
        assert_ok(without_lists(rank, domain))
        assert_ok(halo.set(domain))
        answer = Answer(rank.nall, rank.nlocal)
        assert_ok(case.evaluate(rank, domain, answer))
        wanted = model.evaluate(scale * case.coords, case.types, scale * case.box)
        assert relative(answer.energy[0], wanted.energy) <= 1e-11
        assert relative(world.sum([answer.forces]), wanted.forces) <= 1e-11
        distance = np.linalg.norm(rank.coords[: rank.nlocal, None] - rank.coords[None], axis=2)
        neighbours.append(int((distance <= call("model_rcut", case.model.address)).sum()))
    assert neighbours[3] > 1.2 * neighbours[2]


def test_only_packed_rows_leave_the_gpu(tmp_path: Path, monkeypatch: Any) -> None:
    """What is copied to the host in a steady step: the state of the lists, the results and a copy for each exchange;
    a callback that takes memory of the GPU needs none of these."""
    emulate(monkeypatch)
    from cuda_emulator.driver import driver

    case = Prepared("base", "float64", tmp_path, "cuda")
    layers = golden("base").config["descriptor"]["repformer"]["nlayers"]
    names, counts = ("copies_to_host", "copies_to_device", "synchronizations"), {}
    for on_device in (False, True):
        world = case.world(2)
        all_halos, domains = halos(world, on_device), [new_domain() for _ in range(2)]

        def work(rank: Rank, all_halos: Any = all_halos, domains: Any = domains) -> None:
            assert_ok(without_lists(rank, domains[rank.number]))
            assert_ok(all_halos[rank.number].set(domains[rank.number]))
            assert_ok(case.evaluate(rank, domains[rank.number], Answer(rank.nall, rank.nlocal)))

        world.each(work)
        before = [driver().count(name) for name in names]
        world.each(work)
        counts[on_device] = [driver().count(name) - b for name, b in zip(names, before, strict=True)]
    assert counts[False][:2] == [2 * (2 + 2 * layers), 2 * (1 + 2 * layers)]
    # one wait for each exchange; five of the step, of which three are for pinned memory that nothing uses any more
    assert counts[True] == [4, 2, 2 * (5 + 2 * layers)]


@pytest.mark.parametrize(("g1g1", "on_device"), [(False, False), (False, True), (True, True)])
def test_pairs_are_computed_while_rows_travel(g1g1: bool, on_device: bool, tmp_path: Path, monkeypatch: Any) -> None:
    """What has been queued last when a callback is called; forward only where pairs do not need the rows. The process
    sends its images to itself."""
    emulate(monkeypatch)
    from cuda_emulator.driver import driver

    config, weights = random_model(np.random.default_rng(5), repformer={"nlayers": 3, "update_g2_has_g1g1": g1g1})
    data, queued = ModelData(config, weights), list[str]()
    write_safetensors(tmp_path / "model.safetensors", data)
    case = Prepared("base", "float64", tmp_path, "cuda")
    case.model = load(tmp_path / "model.safetensors", "float64", device="cuda")
    case.wanted = dpa2.Model(data, on_overflow="ignore").evaluate(case.coords, case.types, case.box, atomic=True)
    world = case.world(1)
    (halo,) = halos(world, on_device)
    halo.lists |= {"send": halo.lists["owners"], "receive": halo.lists["images"], "owners": integers([])}
    halo.lists["images"] = halo.lists["owners"]
    halo.table.nsend = halo.table.nreceive = len(halo.lists["send"])
    halo.table.nimages = 0

    def carry(_: int, sent: int, received: int, width: int, size: int) -> int:
        ctypes.memmove(received, sent, halo.table.nsend * width * size)
        queued.append(driver().launches()[-1].kernel)
        return 0

    halo.table.forward = halo.table.reverse = type(halo.table.forward)(carry)
    halo.point()
    check_world(case, world, [halo], "cuda", 1e-11, steps=1)
    pairs = ["pack_rows" if g1g1 else "pair_layer"] * 2
    assert queued == [*pairs, "pack_rows", "pair_layer_backward", "pair_layer_backward", "pack_rows"]


def test_halos_that_make_no_sense(tmp_path: Path) -> None:
    case = Prepared("base", "float64", tmp_path, "cpu")
    world = case.world(2)
    (halo, _), domain, rank = halos(world), new_domain(), world.ranks[0]
    assert_ok(rank.set(domain))
    good = dict(halo.lists)
    bad: list[tuple[str, Any, str]] = [
        ("send", np.append(good["send"][:-1], rank.nlocal), f"is {rank.nlocal}, but there are {rank.nlocal} local"),
        ("owners", np.append(good["owners"][:-1], -1), "is -1, but there are"),
        ("receive", np.append(good["receive"][:-1], 0), "is 0, but ghosts have the rows from"),
        ("receive", np.append(good["receive"][:-1], good["receive"][0]), "is twice in the lists of ghosts"),
    ]
    for name, rows, text in bad:
        halo.lists = {**good, name: integers(rows)}
        halo.point()
        assert halo.set(domain) == INVALID_INPUT
        assert text in message()
    halo.lists = good
    halo.point()
    for name, value, text in (("nsend", -1, "is negative: -1"), ("send", None, "send is NULL"),
                              ("nreceive", len(good["receive"]) - 1, "that is neither received nor an image"),
                              ("forward", type(halo.table.forward)(), "a callback of the halo is NULL")):  # fmt: skip
        kept = getattr(halo.table, name)
        setattr(halo.table, name, value)
        assert halo.set(domain) == INVALID_INPUT
        assert text in message()
        setattr(halo.table, name, kept)
    assert call("domain_set_halo", None, ctypes.addressof(halo.table)) == INVALID_INPUT
    # other atoms
    halo = halos(world)[0]
    assert_ok(halo.set(domain))
    rank.nall -= 1
    assert_ok(without_lists(rank, domain))
    answer = Answer(rank.nall, rank.nlocal)
    assert case.evaluate(rank, domain, answer) == INVALID_INPUT
    assert "set the halo after the atoms" in message()
    assert call("domain_set_halo", domain.address, None) == OK
    assert case.evaluate(rank, domain, answer) == INVALID_INPUT
    assert "numneigh is NULL" in message()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_carrier_that_gives_up(device: str, tmp_path: Path, monkeypatch: Any) -> None:
    """The domain works again afterwards."""
    if device == "cuda":
        emulate(monkeypatch)
    case = Prepared("base", "float64", tmp_path, device)
    world = case.world(2)
    all_halos = halos(world)
    status = {}

    def work(rank: Rank) -> None:
        domain, halo = new_domain(), all_halos[rank.number]
        assert_ok(rank.set(domain))
        assert_ok(halo.set(domain))
        answer = Answer(rank.nall, rank.nlocal)
        halo.fail = 7
        status[rank.number] = case.evaluate(rank, domain, answer), message()
        halo.fail = 0
        assert_ok(case.evaluate(rank, domain, answer))
        assert np.isfinite(answer.forces).all()

    world.each(work)
    assert status == dict.fromkeys(range(2), (EXCHANGE, "the forward exchange failed with code 7"))


def test_models_in_memory_on_a_device(tmp_path: Path, monkeypatch: Any) -> None:
    emulate(monkeypatch)
    count, place = np.zeros(1, dtype=np.intc), np.zeros(1, dtype=np.uintp)
    assert_ok(call("device_count", count))
    assert count[0] == 2
    assert call("device_count", None) == INVALID_INPUT
    path = tmp_path / "base.safetensors"
    write_safetensors(path, ModelData(golden("base").config, golden("base").weights))
    data = path.read_bytes()
    assert_ok(call("model_load_buffer_device", data, len(data), b"x", b"float32", 0.0, b"cuda:1", place))
    model = int(place[0])
    assert call("model_device", model) == b"cuda:1"
    energy, x, types = np.zeros(1), np.array([[0.0, 0, 0], [1.0, 0, 0]]), np.array([0, 1], dtype=np.intc)
    assert_ok(call("compute", model, 2, x, types, *[None] * 4, 1, *named({"energy": energy})))
    assert relative(energy[0], model_of(golden("base"), device="cpu").evaluate(x, types).energy) <= 2e-4
    call("model_free", model)
    assert call("model_load_buffer_device", data, len(data), b"x", None, 0.0, b"cuda:7", place) == INVALID_INPUT
    assert "there is no CUDA device 7" in message()
