"""Models of other kinds through the C interface: whole systems, images as ghosts, and parts that exchange rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from c_library import Handle, Parts, assert_ok, call, descriptions, doubles, load, named, new_domain
from c_ranks import Rank, World
from cases import SAME
from dpa2.files import ModelData, write_safetensors
from gpu_models import emulate
from helpers import relative
from kind_models import CASES, HYBRIDS, frames, kind, kind_model, outputs, system_of

pytestmark = [needs.library, pytest.mark.filterwarnings("ignore:.*from its nearest neighbour")]

QUICK = {"dipole", "polar_full", "property", "zbl", "linear_three", "hybrid_sides", "hybrid_dipole"}
MOST = pytest.mark.parametrize("name", needs.mostly_slow((*CASES, *HYBRIDS), QUICK, str))


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a model is; the GPU is emulated."""
    if request.param == "cuda":
        emulate(monkeypatch)
    return str(request.param)


def prepared(
    name: str, folder: Path, device: str | None = None
) -> tuple[Handle, dict[str, Any], dict[str, np.ndarray]]:
    """A model in C, a periodic frame if the case has one, and what is expected of it."""
    if device == "cuda" and name == "zbl_excluded":
        pytest.skip("refused on a GPU: its table sees pairs that the descriptor excludes")
    if device == "cuda" and name in HYBRIDS:
        pytest.skip("refused on a GPU: a hybrid descriptor")
    path = folder / f"{name}.safetensors"
    write_safetensors(path, ModelData(kind(name).config, kind(name).weights))
    python = kind_model(name, device="cpu")
    where = "bulk" if "bulk" in {system.name for system in kind(name).systems} else "open"
    frame = frames(system_of(name, where))[0]
    expected = outputs(python, frame, atomic=True)
    rows = python.descriptor(frame["coords"], frame["types"], frame.get("box"), rot_mat=True)
    del expected["mask"]
    return (
        load(path, "float64", device=device),
        frame,
        expected | dict(zip(("descriptor", "rot_mat"), rows, strict=True)),
    )


def places(model: Handle, nlocal: int, nall: int) -> dict[str, np.ndarray]:
    """NaN for every output; those that ghosts have a share of have rows for them, too."""
    found = {}
    for name, one in descriptions(model).items():
        rows = ((nall if one.ghosts else nlocal),) if one.per_atom else ()
        found[name] = np.full((*rows, *one.shape[: one.ndim]), np.nan)
    return found


def assert_expected(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert relative(value.reshape(expected[name].shape), expected[name]) <= 10 * SAME, name


@MOST
def test_whole_systems(name: str, tmp_path: Path) -> None:
    model, frame, expected = prepared(name, tmp_path)
    types = frame["types"].astype(np.intc)
    given = [doubles(frame.get(key)) for key in ("box", "fparam", "aparam")]
    arrays = places(model, len(types), len(types))
    inputs = (model.address, len(types), doubles(frame["coords"]), types, given[0], None, *given[1:], 1)
    assert_ok(call("compute", *inputs, *named(arrays)))
    assert_expected(arrays, expected)


@MOST
def test_images_as_ghosts(name: str, device: str, tmp_path: Path) -> None:
    model, frame, expected = prepared(name, tmp_path, device)
    domain, reach = new_domain(), call("model_rcut", model.address) + 0.2
    for threads in (1, 2):
        parts = Parts(frame["coords"], frame["types"], frame.get("box"), reach)
        assert_ok(parts.set(domain))
        arrays = places(model, parts.nlocal, parts.nall)
        given = (parts.types, int(parts.types[0]), doubles(frame.get("fparam")), doubles(frame.get("aparam")))
        inputs = (domain.address, model.address, *given, parts.exchange, threads)
        assert_ok(call("domain_compute", *inputs, *named(arrays)))
        for one, about in descriptions(model).items():
            if about.ghosts:
                np.add.at(arrays[one], parts.owner[parts.nlocal :], arrays[one][parts.nlocal :].copy())
                arrays[one] = arrays[one][: parts.nlocal]
        assert_expected(arrays, expected)


@MOST
def test_parts_have_the_numbers_of_the_whole(name: str, device: str, tmp_path: Path) -> None:
    """Three processes: two that share the atoms, and one without."""
    model, frame, expected = prepared(name, tmp_path, device)
    coords, types = frame["coords"], frame["types"].astype(np.intc)
    about = descriptions(model)
    world = World(
        coords, types, frame.get("box"), np.arange(len(types)) % 2, 3, call("model_rcut", model.address) + 0.2
    )
    answers: dict[int, dict[str, np.ndarray]] = {}

    def work(rank: Rank) -> None:
        domain = new_domain()
        answers[rank.number] = places(model, rank.nlocal, rank.nall)
        aparam = frame["aparam"][rank.local] if "aparam" in frame else None
        given = (rank.types, int(types[0]), doubles(frame.get("fparam")), doubles(aparam), rank.exchange, 1)
        assert_ok(rank.set(domain))
        assert_ok(call("domain_compute", domain.address, model.address, *given, *named(answers[rank.number])))

    world.each(work)
    found = [answers[number] for number in range(3)]
    order = np.concatenate([rank.local for rank in world.ranks])
    for one, description in about.items():
        parts = [answer[one] for answer in found]
        if description.ghosts:
            total = world.sum(parts)
        elif description.per_atom:
            total = np.zeros_like(np.concatenate(parts))
            total[order] = np.concatenate(parts)
        elif description.reduction == b"mean":
            continue  # of its own atoms: the caller knows how many there are
        else:
            total = np.sum(parts, axis=0)
        assert relative(total.reshape(expected[one].shape), expected[one]) <= 10 * SAME, one
