"""Spin models through the C interface: whole systems, images as ghosts, parts that exchange rows, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from c_library import (
    EXCHANGE,
    INVALID_INPUT,
    UNSUPPORTED,
    Handle,
    Parts,
    assert_ok,
    call,
    descriptions,
    doubles,
    load,
    message,
    named,
    new_domain,
)
from c_ranks import Rank, World
from cases import SAME
from dpa2.files import ModelData, write_safetensors
from helpers import golden, model_of, relative
from spin_cases import CASES, spin_frames, spin_golden

pytestmark = needs.library

#: largest spins of the golden files' atoms times their scales: what every reach below is more than
REACH = 3.0
BOUND = 100 * SAME  # magnetic forces are sums of terms of some hundred


class Case:
    """A model and a frame of it, as Python and as C see them."""

    def __init__(self, name: str, folder: Path, where: str = "bulk", precision: str = "float64") -> None:
        data = spin_golden(name)
        path = folder / f"{name}.safetensors"
        write_safetensors(path, ModelData(data.config, data.weights))
        self.model, self.python = load(path, precision), model_of(data, precision=precision, device="cpu")
        self.frame = spin_frames(name, where)[0]
        self.types = self.frame["types"].astype(np.intc)
        self.parameters = [doubles(self.frame.get(key)) for key in ("fparam", "aparam")]
        result = self.python.evaluate(**self.frame, atomic=True).outputs
        self.expected = {key: value for key, value in result.items() if key not in ("mask", "mask_mag")}
        rows = self.python.descriptor(*(self.frame.get(key) for key in ("coords", "types", "box")), rot_mat=True,
                                      spin=self.frame["spin"])  # fmt: skip
        self.expected |= dict(zip(("descriptor", "rot_mat"), rows, strict=True))

    def places(self, nlocal: int, nall: int) -> dict[str, np.ndarray]:
        """NaN for every output; those that ghosts have a share of have rows for them, too."""
        found = {}
        for name, one in descriptions(self.model).items():
            rows = ((nall if one.ghosts else nlocal),) if one.per_atom else ()
            found[name] = np.full((*rows, *one.shape[: one.ndim]), np.nan)
        return found

    def reach(self) -> float:
        return float(call("model_reach", self.model.address, len(self.types), self.types, doubles(self.frame["spin"])))


def check_expected(case: Case, found: dict[str, np.ndarray], bound: float = BOUND) -> None:
    assert found.keys() == case.expected.keys()
    for name, value in found.items():
        assert relative(value.reshape(case.expected[name].shape), case.expected[name]) <= bound, name


@pytest.mark.parametrize("name", CASES)
def test_whole_systems(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    model, n, frame = case.model.address, len(case.types), case.frame
    arrays = case.places(n, n)
    given = (model, n, doubles(frame["coords"]), case.types, doubles(frame["box"]), None, *case.parameters)
    assert_ok(call("compute_spin", *given, doubles(frame["spin"]), 2, *named(arrays)))
    check_expected(case, arrays, SAME)
    scales = [call("model_virtual_scale", model, t) for t in range(-1, 4)]
    assert scales == [0.0, *case.python.virtual_scale, 0.0]
    longest = np.abs(np.where(case.types < 0, 0.0, case.python.virtual_scale[case.types])[:, None] * frame["spin"])
    assert case.reach() == pytest.approx(case.python.rcut + 2 * np.linalg.norm(longest, axis=1).max())
    # one output alone, and one after the other
    for one in ("force_mag", "energy", "descriptor"):
        alone = {one: np.full_like(arrays[one], np.nan)}
        assert_ok(call("compute_spin", *given, doubles(frame["spin"]), 1, *named(alone)))
        assert relative(alone[one], arrays[one]) <= SAME


@pytest.mark.parametrize("name", CASES)
def test_images_as_ghosts(name: str, tmp_path: Path) -> None:
    case, domain = Case(name, tmp_path), new_domain()
    reach = case.reach() + 0.1
    assert reach < case.python.rcut + 2 * REACH
    for threads in (1, 2):
        parts = Parts(case.frame["coords"], case.types, case.frame["box"], reach)
        spins = doubles(case.frame["spin"][parts.owner])
        assert_ok(parts.set(domain))
        assert_ok(call("domain_set_spins", domain.address, spins, reach))
        arrays = case.places(parts.nlocal, parts.nall)
        given = (parts.types, int(case.types[0]), *case.parameters, parts.exchange, threads)
        assert_ok(call("domain_compute", domain.address, case.model.address, *given, *named(arrays)))
        widest = max(width for _, width, _ in parts.calls)
        assert widest <= call("model_exchange_width", case.model.address)
        for one, about in descriptions(case.model).items():
            if about.ghosts:
                np.add.at(arrays[one], parts.owner[parts.nlocal :], arrays[one][parts.nlocal :].copy())
                arrays[one] = arrays[one][: parts.nlocal]
        check_expected(case, arrays)


@pytest.mark.parametrize(
    ("name", "precision", "bound"),
    [("spin", "float64", BOUND), ("spin_parameters", "float64", BOUND), ("spin", "float32", 1e-4)],
)
def test_parts_have_the_numbers_of_the_whole(name: str, precision: str, bound: float, tmp_path: Path) -> None:
    """Three processes: two that share the atoms, and one without."""
    case = Case(name, tmp_path, precision=precision)
    about, reach = descriptions(case.model), case.reach()
    world = World(case.frame["coords"], case.types, case.frame["box"], np.arange(len(case.types)) % 2, 3, reach)
    answers: dict[int, dict[str, np.ndarray]] = {}

    def work(rank: Rank) -> None:
        domain = new_domain()
        answers[rank.number] = case.places(rank.nlocal, rank.nall)
        spins, aparam = doubles(case.frame["spin"][rank.owner]), case.parameters[1]
        mine = None if aparam is None else doubles(aparam[rank.local])
        given = (rank.types, int(case.types[0]), case.parameters[0], mine, rank.exchange, 1)
        assert_ok(rank.set(domain))
        assert_ok(call("domain_set_spins", domain.address, spins, reach))
        assert_ok(call("domain_compute", domain.address, case.model.address, *given, *named(answers[rank.number])))

    world.each(work)
    order = np.concatenate([rank.local for rank in world.ranks])
    for one, description in about.items():
        parts = [answers[number][one] for number in range(3)]
        if description.ghosts:
            total = world.sum(parts)
        elif description.per_atom:
            total = np.zeros_like(np.concatenate(parts))
            total[order] = np.concatenate(parts)
        else:
            total = np.sum(parts, axis=0)
        assert relative(total.reshape(case.expected[one].shape), case.expected[one]) <= bound, one


def test_two_models_share_atoms_with_their_own_virtual_ones(tmp_path: Path) -> None:
    """One after the other on the same atoms, and again: each sees its own virtual atoms."""
    first, other = Case("spin", tmp_path), Case("spin_virtual", tmp_path)
    wide = max(call("model_reach", case.model.address, len(first.types), first.types, doubles(first.frame["spin"]))
               for case in (first, other)) + 0.1  # fmt: skip
    parts, domain = Parts(first.frame["coords"], first.types, first.frame["box"], wide), new_domain()
    spins = doubles(first.frame["spin"][parts.owner])
    assert_ok(parts.set(domain))
    assert_ok(call("domain_set_spins", domain.address, spins, wide))
    for case in (first, other, first, other):
        energy = np.full(1, np.nan)
        given = (parts.types, int(first.types[0]), other.parameters[0], None, parts.exchange, 1)
        assert_ok(call("domain_compute", domain.address, case.model.address, *given, *named({"energy": energy})))
        parameters = {"fparam": other.parameters[0]} if case is other else {}
        wanted = case.python.evaluate(**{**first.frame, **parameters}).energy
        assert relative(energy[0], wanted) <= BOUND


# ----------------------------------------------------------------------------------------------------- refusals


def refused(status: int, wanted: int, text: str) -> None:
    assert status == wanted
    assert text in message()


def test_spins_are_asked_for(tmp_path: Path) -> None:
    case = Case("spin", tmp_path, "open")
    n, x, model = len(case.types), doubles(case.frame["coords"]), case.model.address
    rows = np.zeros((n, 9))
    system = (model, n, x, case.types, None, None, None, None)
    refused(call("compute", *system, 1, *named({"energy": rows})), INVALID_INPUT, "needs the spins of the atoms")
    refused(call("compute_spin", *system, None, 1, *named({"energy": rows})), INVALID_INPUT, "dpa2_compute_spin")
    refused(call("evaluate", *system, 1, rows, None, None, None, None), INVALID_INPUT, "dpa2_compute_spin")
    refused(call("descriptor", *system[:6], 1, rows, None), INVALID_INPUT, "dpa2_compute_spin")
    weights = named({"atom_energy": np.ones(n)})
    refused(call("vjp", *system, 1, *weights, rows, None), UNSUPPORTED, "no gradients of weighted sums")
    parts, domain = Parts(x, case.types, None, 9.0), new_domain()
    assert_ok(parts.set(domain))
    part = (domain.address, model, parts.types, int(parts.types[0]), None, None, None, 1)
    refused(call("domain_compute", *part, *named({"energy": rows})), INVALID_INPUT, "dpa2_domain_set_spins")
    refused(call("domain_evaluate", *part, rows, None, None, None, None), INVALID_INPUT, "dpa2_domain_set_spins")
    refused(call("domain_vjp", *part, *weights, rows, None), UNSUPPORTED, "no gradients of weighted sums")
    spins = doubles(case.frame["spin"])
    assert_ok(call("domain_set_spins", domain.address, spins, 9.0))
    assert_ok(call("domain_compute", *part, *named({"energy": rows[:1, :1].copy()})))
    assert_ok(parts.set(domain))  # new atoms have no spins yet
    refused(call("domain_compute", *part, *named({"energy": rows})), INVALID_INPUT, "dpa2_domain_set_spins")


def test_spins_of_other_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    write_safetensors(path, ModelData(golden("base").config, golden("base").weights))
    model, x = load(path), np.zeros((1, 3))
    given = (model.address, 1, x, np.zeros(1, dtype=np.intc), None, None, None, None)
    refused(call("compute_spin", *given, x, 1, *named({"energy": np.zeros(1)})), INVALID_INPUT, "of the kind 'energy'")
    assert_ok(call("compute_spin", *given, None, 1, *named({"energy": np.zeros(1)})))
    assert call("model_virtual_scale", model.address, 0) == 0.0
    assert call("model_reach", model.address, 1, None, None) == call("model_rcut", model.address)
    with pytest.raises(dpa2.InputError, match="the model has no spins"):
        model_of(golden("base")).evaluate(x, [0], spin=x)


def check_bad_spins(evaluate: Callable[[np.ndarray], int], spins: np.ndarray) -> None:
    for value, text in ((np.nan, "the spin of atom 2: component 1 is not finite"), (1e12, "out of all reach")):
        bad = spins.copy()
        bad[2, 1] = value
        refused(evaluate(bad), INVALID_INPUT, text)
    assert_ok(evaluate(spins))


def test_bad_spins_and_lists_that_are_too_short(tmp_path: Path) -> None:
    case = Case("spin", tmp_path, "open")
    case.types[2] = 0  # one that has a spin
    n, x, model, spins = len(case.types), doubles(case.frame["coords"]), case.model.address, doubles(case.frame["spin"])
    energy = np.zeros(1)

    def whole(given: np.ndarray) -> int:
        return int(call("compute_spin", model, n, x, case.types, *[None] * 4, given, 1, *named({"energy": energy})))

    check_bad_spins(whole, spins)
    parts, domain = Parts(x, case.types, None, 30.0), new_domain()

    def part(given: np.ndarray, reach: float = 30.0) -> int:
        assert_ok(parts.set(domain, names=False))
        assert_ok(call("domain_set_spins", domain.address, given, reach))
        inputs = (domain.address, model, parts.types, int(parts.types[0]), None, None, None, 1)
        return int(call("domain_compute", *inputs, *named({"energy": energy})))

    check_bad_spins(part, spins)
    assert_ok(part(spins, case.reach()))
    refused(part(spins, case.reach() - 1e-6), INVALID_INPUT, "lists and ghosts have to reach as far as the cutoff")
    refused(part(spins, call("model_rcut", model)), INVALID_INPUT, "angstrom, and they reach 3")
    for reach in (0.0, -1.0, np.nan):
        refused(call("domain_set_spins", domain.address, spins, reach), INVALID_INPUT, "the reach of the lists")
    refused(call("domain_set_spins", domain.address, None, 9.0), INVALID_INPUT, "spins is NULL")
    parts.owner = parts.owner + (1 << 30)
    assert_ok(parts.set(domain))
    assert_ok(call("domain_set_spins", domain.address, spins, 30.0))
    inputs: tuple[Any, ...] = (domain.address, model, parts.types, 0, None, None, None, 1)
    refused(call("domain_compute", *inputs, *named({"energy": energy})), INVALID_INPUT, "must be below 2^30")
    assert call("model_reach", model, -1, None, None) == -1.0
    assert call("model_reach", model, 1, np.array([3], dtype=np.intc), spins) == -1.0
    assert call("model_reach", None, 0, None, None) == -1.0


def test_remarks_name_atoms(tmp_path: Path) -> None:
    """A virtual atom on or beside its own is no close pair; two atoms are, under their own numbers."""
    case = Case("spin", tmp_path, "open")
    n, x, spins = len(case.types), doubles(case.frame["coords"]), doubles(case.frame["spin"])
    case.types[:] = 0
    given = (case.model.address, n)
    rest = (case.types, *[None] * 4, spins, 1, *named({"energy": np.zeros(1)}))
    assert_ok(call("compute_spin", *given, x, *rest))
    assert message("last_warning") == ""
    x[4] = x[7] + [0.0, 0.1, 0.0]
    assert_ok(call("compute_spin", *given, x, *rest))
    assert message("last_warning").startswith("atoms 4 and 7 are 0.1 angstrom from each other")
    parts, domain = Parts(x, case.types, None, 9.0), new_domain()
    parts.owner = parts.owner + 100
    assert_ok(parts.set(domain))
    assert_ok(call("domain_set_spins", domain.address, spins, 9.0))
    inputs = (domain.address, case.model.address, parts.types, 0, None, None, None, 1)
    assert_ok(call("domain_compute", *inputs, *named({"energy": np.zeros(1)})))
    assert message("last_warning").startswith("atoms 104 and 107 are 0.1 angstrom from each other")


def test_an_exchange_that_gives_up(tmp_path: Path) -> None:
    """The domain works again, with the spins that it has."""
    case = Case("spin", tmp_path)
    parts, domain = Parts(case.frame["coords"], case.types, case.frame["box"], case.reach()), new_domain()
    spins, force = doubles(case.frame["spin"][parts.owner]), np.zeros((parts.nall, 3))
    assert_ok(parts.set(domain))
    assert_ok(call("domain_set_spins", domain.address, spins, case.reach()))
    inputs = (domain.address, case.model.address, parts.types, 0, None, None, parts.exchange, 1)
    parts.fail = 7
    refused(call("domain_compute", *inputs, *named({"force_mag": force})), EXCHANGE, "failed with code 7")
    parts.fail = 0
    assert_ok(call("domain_compute", *inputs, *named({"force_mag": force})))
    np.add.at(force, parts.owner[parts.nlocal :], force[parts.nlocal :].copy())
    assert relative(force[: parts.nlocal], case.expected["force_mag"]) <= BOUND


def test_ghosts_without_an_exchange_are_refused(tmp_path: Path) -> None:
    case: Case = Case("spin", tmp_path)
    parts, domain = Parts(case.frame["coords"], case.types, case.frame["box"], case.reach()), new_domain()
    spins, energy = doubles(case.frame["spin"][parts.owner]), np.zeros(1)
    assert_ok(parts.set(domain))
    assert_ok(call("domain_set_spins", domain.address, spins, case.reach()))
    inputs = (domain.address, case.model.address, parts.types, 0, None, None, None, 1)
    refused(call("domain_compute", *inputs, *named({"energy": energy})), INVALID_INPUT, "is a ghost and somebody's")
    row = int(message().split()[1])
    assert parts.nlocal <= row < parts.nall
    model: Handle = case.model
    refused(call("domain_evaluate", *inputs, energy, None, None, None, None), INVALID_INPUT, "needs spins")
    assert call("model_ntypes", model.address) == 3
