"""Neighbour lists of the reference against an independent enumeration, one pair of atoms at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from dpa2.errors import InputError
from dpa2.reference.neighbors import Edges, build
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_model import STRUCTURES, draw_options, random_model, random_structure

OPEN = (False, False, False)
PERIODIC = (True, True, True)
SMALL: dict[str, Any] = {"ntypes": 3}


def config_of(rng: np.random.Generator, **options: Any) -> dict[str, Any]:
    return random_model(rng, **{**SMALL, **options})[0]


def plain_lists(
    coords: Any, types: Any, box: Any, pbc: Any, config: Any
) -> list[list[tuple[float, int, tuple[int, ...]]]]:
    """Per atom the sorted (distance, neighbour, image) within repinit.rcut, written without arrays or wrapping."""
    rcut = config["descriptor"]["repinit"]["rcut"]
    n = len(coords)
    span = max((math.dist(a, b) for a in coords for b in coords), default=0.0)
    reach = [0, 0, 0]
    if any(pbc):
        for a in range(3):
            normal = np.cross(box[(a + 1) % 3], box[(a + 2) % 3])
            height = abs(float(np.dot(box[a], normal))) / float(np.linalg.norm(normal))
            reach[a] = math.ceil((rcut + span) / height) if pbc[a] else 0
    out = []
    for i in range(n):
        found = []
        for j in range(n):
            if types[i] < 0 or types[j] < 0:
                continue
            base = coords[j] - coords[i]
            for n0 in range(-reach[0], reach[0] + 1):
                for n1 in range(-reach[1], reach[1] + 1):
                    for n2 in range(-reach[2], reach[2] + 1):
                        image = (n0, n1, n2)
                        d = base if box is None else base + n0 * box[0] + n1 * box[1] + n2 * box[2]
                        r = math.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
                        if r <= rcut and (i, image) != (j, (0, 0, 0)):
                            found.append((round(r, 9), j, image))
        out.append(sorted(found))
    return out


def assert_reference_lists(coords: Any, types: Any, box: Any, pbc: Any, config: Any) -> Edges:
    edges = build(coords, types, box, pbc, config)
    descriptor = config["descriptor"]
    repinit, repformer = descriptor["repinit"], descriptor["repformer"]
    blocks = [("repinit", repinit["rcut"], repinit["nsel"]), ("repformer", repformer["rcut"], repformer["nsel"])]
    if repinit["use_three_body"]:
        blocks.append(("three_body", repinit["three_body_rcut"], repinit["three_body_sel"]))
    by_model = {frozenset(pair) for pair in config["pair_exclude_types"]}
    by_descriptor = {frozenset(pair) for pair in descriptor["exclude_types"]}
    lists = plain_lists(coords, types, box, pbc, config)
    for i, found in enumerate(lists):
        # The chain of 1.3: from the largest block to the smallest, each list is a cut of the one before.
        kept, current = {}, found[: repinit["nsel"]]
        for name, rcut, nsel in sorted(blocks, key=lambda block: block[1:], reverse=True):
            current = [entry for entry in current[:nsel] if entry[0] <= rcut]
            kept[name] = current
        kept["repinit"] = found[: repinit["nsel"]]

        def real(entries: Any, excluded: Any, i: int = i) -> list[Any]:
            return [e for e in entries if frozenset((int(types[i]), int(types[e[1]]))) not in excluded]

        rows = slice(edges.start[i], edges.start[i + 1])
        expected = real(kept["repinit"], by_model | by_descriptor)
        got = list(zip(edges.j[rows].tolist(), map(tuple, edges.image[rows].tolist()), strict=True))
        assert got == [(j, image) for _, j, image in expected]
        np.testing.assert_allclose(edges.r[rows], [r for r, _, _ in expected], rtol=0, atol=1e-9)
        assert edges.n_repformer[i] == len(real(kept["repformer"], by_model | by_descriptor))
        assert edges.pad_repinit[i] == repinit["nsel"] - len(real(kept["repinit"], by_model))
        if "three_body" in kept:
            assert edges.n_three[i] == len(real(kept["three_body"], by_model | by_descriptor))
            assert edges.pad_three[i] == repinit["three_body_sel"] - len(real(kept["three_body"], by_model))
        else:
            assert edges.n_three[i] == edges.pad_three[i] == 0
    worst = {}
    for name, rcut, nsel in blocks:
        count = [sum(r <= rcut for r, _, _ in found) for found in lists]
        if count and max(count) > nsel:
            worst[name] = (name, count.index(max(count)), max(count), nsel)
    assert {entry[0]: entry for entry in edges.remarks.overflow} == worst
    shift = edges.image @ box if box is not None else np.zeros((len(edges.j), 3))
    np.testing.assert_allclose(edges.d, coords[edges.j] + shift - coords[edges.centre], rtol=0, atol=1e-12)
    np.testing.assert_allclose(edges.r, np.linalg.norm(edges.d, axis=1), rtol=1e-14)
    return edges


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(STRUCTURES), natoms=st.integers(1, 7), virtual=st.booleans()
)
@example(seed=0, kind="tiny", natoms=1, virtual=False)
def test_against_enumeration(seed: int, kind: str, natoms: int, virtual: bool) -> None:
    rng = np.random.default_rng(seed)
    config, _ = random_model(rng, **draw_options(rng))
    coords, types, box, pbc = random_structure(rng, len(config["type_map"]), natoms, kind, virtual)
    assert_reference_lists(coords, types, box, pbc, config)


@pytest.mark.parametrize("edge", [1.9, 2.5, 3.2])
def test_lattice_of_equal_distances(edge: float) -> None:
    """Whole shells of ties, some at the cutoffs: the order is by (j, image) and truncation is deterministic."""
    rng = np.random.default_rng(1)
    config = config_of(rng, repinit={"nsel": 41, "rcut": 4.0}, repformer={"nsel": 11})
    config["descriptor"]["repinit"]["three_body_sel"] = 11
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * edge
    assert_reference_lists(grid + 0.1, np.arange(8) % 3, np.eye(3) * 2 * edge, PERIODIC, config)


def test_lists_do_not_depend_on_the_cell_of_an_atom() -> None:
    rng = np.random.default_rng(2)
    config = config_of(rng)
    coords, types, box, pbc = random_structure(rng, 3, 9, "triclinic")
    assert box is not None
    one = build(coords, types, box, pbc, config)
    shifts = rng.integers(-50, 51, (9, 3))
    two = build(coords + shifts @ box, types, box, pbc, config)
    np.testing.assert_array_equal(one.j, two.j)
    np.testing.assert_array_equal(one.image, two.image + shifts[two.j] - shifts[two.centre])
    np.testing.assert_allclose(one.d, two.d, rtol=0, atol=1e-11)


def test_left_handed_box_is_the_same_crystal() -> None:
    rng = np.random.default_rng(3)
    config = config_of(rng)
    coords, types, box, pbc = random_structure(rng, 3, 9, "triclinic")
    assert box is not None
    one, two = build(coords, types, box, pbc, config), build(coords, types, box[[1, 0, 2]], pbc, config)
    np.testing.assert_allclose(one.r, two.r, rtol=1e-13)
    np.testing.assert_array_equal(one.j, two.j)
    np.testing.assert_array_equal(one.image[:, [1, 0, 2]], two.image)


def test_slab_with_a_missing_cell_vector() -> None:
    rng = np.random.default_rng(4)
    config = config_of(rng)
    coords, types, box, _ = random_structure(rng, 3, 8, "triclinic")
    assert box is not None
    pbc = (True, True, False)
    tall, missing = box.copy(), box.copy()
    tall[2] = 100.0 * np.cross(box[0], box[1]) / np.linalg.norm(np.cross(box[0], box[1]))
    missing[2] = 0.0
    one, two = build(coords, types, tall, PERIODIC, config), build(coords, types, missing, pbc, config)
    np.testing.assert_allclose(one.d, two.d, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(one.j, two.j)


def test_virtual_atoms_are_not_there() -> None:
    rng = np.random.default_rng(5)
    config = config_of(rng)
    coords, types, box, pbc = random_structure(rng, 3, 9, "cubic")
    types[4] = -1
    edges = build(coords, types, box, pbc, config)
    others = np.delete(np.arange(9), 4)
    without = build(coords[others], types[others], box, pbc, config)
    np.testing.assert_array_equal(edges.j, others[without.j])
    assert edges.start[4] == edges.start[5]
    assert edges.pad_repinit[4] == config["descriptor"]["repinit"]["nsel"]


def test_no_atoms_and_one_atom() -> None:
    config = config_of(np.random.default_rng(6))
    assert build(np.zeros((0, 3)), np.zeros(0, dtype=int), None, OPEN, config).start.tolist() == [0]
    assert build(np.zeros((1, 3)), np.zeros(1, dtype=int), None, OPEN, config).start.tolist() == [0, 0]
    assert len(build(np.zeros((1, 3)), np.zeros(1, dtype=int), np.eye(3) * 3.9, PERIODIC, config).j) == 6


BOX = np.eye(3) * 6.0


@pytest.mark.parametrize(
    ("coords", "types", "box", "pbc", "message"),
    [
        (np.zeros(3), [0], None, OPEN, "shape"),
        (np.zeros((2, 2)), [0, 0], None, OPEN, "shape"),
        (np.arange(6.0).reshape(2, 3), [0], None, OPEN, "types"),
        (np.arange(6.0).reshape(2, 3), [0.0, 1.0], None, OPEN, "integers"),
        (np.array([[0.0, 0, 0], [np.nan, 1, 1]]), [0, 0], None, OPEN, "atom 1"),
        (np.arange(6.0).reshape(2, 3), [0, 3], None, OPEN, "type 3 of atom 1"),
        (np.arange(6.0).reshape(2, 3), [0, 0], None, PERIODIC, "needs a box"),
        (np.arange(6.0).reshape(2, 3), [0, 0], np.zeros((3, 3)), PERIODIC, "singular"),
        (np.arange(6.0).reshape(2, 3), [0, 0], np.ones((3, 3)), PERIODIC, "singular"),
        (np.arange(6.0).reshape(2, 3), [0, 0], np.ones(9), PERIODIC, "shape"),
        (np.arange(6.0).reshape(2, 3), [0, 0], np.full((3, 3), np.inf), PERIODIC, "finite"),
        (np.ones((2, 3)), [0, 0], None, OPEN, "atoms 0 and 1"),
        (np.array([[0.0, 0, 0], [1, 1, 1], [7, 1, -5]]), [0, 0, 0], BOX, PERIODIC, "atoms 1 and 2 "),
    ],
)
def test_errors(coords: Any, types: Any, box: Any, pbc: Any, message: str) -> None:
    config = config_of(np.random.default_rng(7))
    with pytest.raises(InputError, match=message):
        build(coords, np.array(types), box, pbc, config)


def test_coinciding_atoms_that_the_model_can_take() -> None:
    rng = np.random.default_rng(8)
    coords, types = np.ones((2, 3)), np.array([0, 1])
    protected = config_of(rng, descriptor={"env_protection": 0.1})
    assert build(coords, types, None, OPEN, protected).r.tolist() == [0.0, 0.0]
    excluded = config_of(rng, pair_exclude_types=[[0, 1]])
    assert len(build(coords, types, None, OPEN, excluded).r) == 0
