"""dpa2.jax against dpa2 itself, its gradients against central differences (``jax.test_util.check_grads``), jax-md."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
from api_models import BOX, COORDS, TYPES, frames, make_model
from helpers import relative
from kind_models import CASES, kind, kind_model
from kind_models import frames as frames_of
from pages import run_page

jax = needs.package("jax")
import dpa2.jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

pytestmark = [needs.native, pytest.mark.filterwarnings("ignore:.*from its nearest neighbour")]

SAME = 1e-12
NAMES = ("energy", "atom_energy", "descriptor", "rot_mat")
SLAB = (True, True, False)
QUICK = ("property", "dipole_virtual", "polar", "zbl")


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def function(outputs: Any = NAMES, **options: Any) -> Any:
    return dpa2.jax.Function(make_model("cpu", **options), outputs)


def energy(**options: Any) -> Any:
    return dpa2.jax.energy_fn(make_model("cpu"), TYPES, **options)


def assert_values(found: Any, coords: Any, box: Any = None, pbc: Any = None) -> None:
    """Against what dpa2 says itself."""
    model = make_model("cpu")
    result = model.evaluate(coords, TYPES, box, pbc)
    descriptor, rot_mat = model.descriptor(coords, TYPES, box, pbc, rot_mat=True)
    expected = dict(zip(NAMES, (result.energy, result.atom_energy, descriptor, rot_mat), strict=True))
    assert set(found) == set(expected)
    for name, rows in expected.items():
        assert relative(found[name], rows) <= SAME, name


# -------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("coords", [COORDS, frames(3)], ids=["structure", "frames"])
@pytest.mark.parametrize(("box", "pbc"), [(None, None), (BOX, None), (BOX, SLAB)], ids=["open", "box", "slab"])
def test_values_are_those_of_dpa2(coords: np.ndarray, box: Any, pbc: Any) -> None:
    values = partial(function(), pbc=pbc)
    x, h = jnp.asarray(coords), None if box is None else jnp.asarray(box)
    assert_values(values(x, TYPES, h), coords, box, pbc)
    assert_values(jax.jit(values)(x, jnp.asarray(TYPES), h), coords, box, pbc)
    if coords.ndim == 3:
        assert_values(jax.vmap(lambda one: values(one, TYPES, h))(x), coords, box, pbc)


@pytest.mark.parametrize("name", needs.mostly_slow(CASES, QUICK))
def test_values_and_gradients_of_other_kinds(name: str) -> None:
    model = kind_model(name)
    of = dpa2.jax.Function(model)
    system = min(kind(name).systems, key=lambda s: len(s.atype))
    frame = frames_of(system)[0]
    parameters = {key: jnp.asarray(frame[key]) for key in ("fparam", "aparam") if key in frame}
    box = [jnp.asarray(np.reshape(frame["box"], (3, 3)))] if "box" in frame else []

    def values(coords: Any, *cell: Any) -> Any:
        return of(coords, frame["types"], *cell, **parameters)

    given = (jnp.asarray(frame["coords"]), *box)
    expected = model.evaluate(**frame, forces=False).outputs
    for key, rows in values(*given).items():
        assert relative(np.ravel(rows), np.ravel(expected[key])) <= SAME, key
    check_grads(values, given, order=1, modes=["rev"], eps=1e-5, atol=1e-5, rtol=1e-5)


def test_single_precision() -> None:
    exact = function("energy")(jnp.asarray(COORDS), TYPES, jnp.asarray(BOX))["energy"]
    gradient = jax.grad(energy(box=jnp.asarray(BOX.T)))(jnp.asarray(COORDS))
    jax.config.update("jax_enable_x64", False)
    coords, box = jnp.asarray(COORDS, jnp.float32), jnp.asarray(BOX, jnp.float32)
    found = jax.jit(function())(coords, TYPES, box)
    assert {rows.dtype for rows in found.values()} == {jnp.dtype("float32")}
    assert relative(found["energy"], exact) <= 1e-6
    rows = jax.jit(jax.grad(energy(box=box.T)))(coords)
    assert rows.dtype == jnp.float32
    assert relative(rows, gradient) <= 1e-5


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("outputs", ["energy", "atom_energy", "descriptor", "rot_mat", ("energy", "descriptor")])
@pytest.mark.parametrize("pbc", [True, SLAB], ids=["box", "slab"])
def test_check_grads(outputs: Any, pbc: Any) -> None:
    of = function(outputs)

    def values(coords: Any, box: Any) -> Any:
        return of(coords, TYPES, box, pbc=pbc)

    given = (jnp.asarray(COORDS), jnp.asarray(BOX))
    for one in (values, jax.jit(values)):
        check_grads(one, given, order=1, modes=["rev"], eps=1e-5, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("outputs", ["energy", "descriptor"])
def test_gradients_of_batches(outputs: str) -> None:
    """One gradient per structure, box and both, by ``vmap`` in every order, and of all frames at once."""
    of, x, h = function(outputs), jnp.asarray(frames(3)), jnp.asarray(np.stack([BOX, 1.1 * BOX, 1.2 * BOX]))

    def total(coords: Any, box: Any) -> Any:
        return jnp.sum(jnp.sin(of(coords, TYPES, box)[outputs]))

    by_hand = [jax.grad(total, (0, 1))(*one) for one in zip(x, h, strict=True)]
    for found in (
        jax.vmap(jax.grad(total, (0, 1)))(x, h),
        jax.jit(jax.vmap(jax.grad(total, (0, 1))))(x, h),
        jax.grad(total, (0, 1))(x, h),
        jax.grad(lambda *given: jnp.sum(jax.vmap(total)(*given)), (0, 1))(x, h),
    ):
        for k, rows in enumerate(by_hand):
            for one, wanted in zip(found, rows, strict=True):
                assert relative(one[k], wanted) <= SAME
    twice = jax.vmap(jax.vmap(total, (0, None)), (None, 0))(x, h)
    assert twice.shape == (3, 3)
    assert relative(twice[1, 2], total(x[2], h[1])) <= SAME


def test_forces_and_stress() -> None:
    wanted = make_model("cpu").evaluate(COORDS, TYPES, BOX)
    energy_of = energy(box=jnp.asarray(BOX.T))
    assert relative(energy_of(jnp.asarray(COORDS)), wanted.energy) <= SAME
    assert relative(-jax.grad(energy_of)(jnp.asarray(COORDS)), wanted.forces) <= SAME
    strained = jax.grad(lambda e: energy_of(jnp.asarray(COORDS), perturbation=jnp.eye(3) + e))(jnp.zeros((3, 3)))
    assert relative(-strained, wanted.virial) <= 1e-11
    fractional = dpa2.jax.energy_fn(make_model("cpu"), TYPES, BOX.T, fractional_coordinates=True)
    assert relative(fractional(jnp.asarray(COORDS @ np.linalg.inv(BOX))), wanted.energy) <= SAME
    assert (
        relative(
            energy_of(jnp.asarray(COORDS), box=6.0), make_model("cpu").evaluate(COORDS, TYPES, np.eye(3) * 6).energy
        )
        <= SAME
    )


@pytest.mark.parametrize("outputs", ["energy", "descriptor"])
def test_second_derivatives_are_refused(outputs: str) -> None:
    of = function(outputs)

    def total(coords: Any) -> Any:
        return jnp.sum(of(coords, TYPES, jnp.asarray(BOX))[outputs])

    for second in (
        jax.hessian(total),
        jax.jit(jax.hessian(total)),
        jax.grad(lambda x: jnp.sum(jax.grad(total)(x) ** 2)),
        lambda x: jax.jvp(jax.grad(total), (x,), (x,)),
    ):
        with pytest.raises(dpa2.SecondDerivativeError, match=r"Model\.hessian"):
            second(jnp.asarray(COORDS))


def test_parameters() -> None:
    model, rng = make_model("cpu", nf=2, na=1), np.random.default_rng(0)
    coords, fparam, aparam = frames(2), rng.normal(size=(2, 2)), rng.normal(size=(2, 5, 1))
    of = dpa2.jax.Function(model)
    found = jax.jit(of)(jnp.asarray(coords), TYPES, fparam=jnp.asarray(fparam), aparam=jnp.asarray(aparam))
    expected = model.evaluate(coords, TYPES, fparam=fparam, aparam=aparam)
    assert relative(found["energy"], expected.energy) <= SAME
    given = {"aparam": jnp.asarray(aparam[0])}
    gradient = jax.grad(lambda x: of(x, TYPES, fparam=jnp.asarray(fparam[0]), **given)["energy"])(
        jnp.asarray(coords[0])
    )
    assert relative(-gradient, expected.forces[0]) <= SAME
    with pytest.raises(dpa2.InputError, match="there are no derivatives by fparam"):
        jax.grad(lambda p: of(jnp.asarray(coords[0]), TYPES, fparam=p, **given)["energy"])(jnp.asarray(fparam[0]))


# ----------------------------------------------------------------------------------------------------------- bad input


WRONG = [
    ({"coords": np.zeros(15)}, r"coords must have shape .* got \(15,\)"),
    ({"coords": np.zeros((5, 3), int)}, "coords must be of a floating-point type, got int64"),
    ({"coords": "water"}, "coords cannot be read as an array"),
    ({"types": TYPES[:3]}, "types must have shape"),
    ({"types": np.array([0, 1, 1, 3, 0])}, "atom 3.* has type 3, but the model has 3 types"),
    ({"types": ["O", "H", "H", "Xx", "O"]}, "atom 3 .*is 'Xx', which the model does not know"),
    ({"box": None, "pbc": True}, "pbc asks for periodic boundaries, but there is no box"),
    ({"box": np.ones(3)}, r"box must have shape \(3, 3\)"),
    ({"box": np.ones((2, 3, 3))}, r"box must have shape \(3, 3\)"),
]
OF_NUMBERS = [
    ({"coords": np.full((5, 3), np.nan)}, "x = nan is not finite"),
    ({"box": np.zeros((3, 3))}, "box.* is singular"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG + OF_NUMBERS)
def test_wrong_input(changes: dict[str, Any], message: str) -> None:
    arguments = {"coords": COORDS, "types": TYPES, "box": BOX, **changes}
    with pytest.raises(dpa2.InputError, match=message):
        function("energy")(**arguments)


@pytest.mark.parametrize(("changes", "message"), OF_NUMBERS)
def test_wrong_numbers_show_in_the_callback(changes: dict[str, Any], message: str) -> None:
    arguments = {"coords": COORDS, "box": BOX, **changes}
    traced = jax.jit(lambda coords, box: function("energy")(coords, TYPES, box)["energy"])
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"InputError: .*{message}"):
        traced(arguments["coords"], arguments["box"]).block_until_ready()


def test_wrong_types_in_the_callback() -> None:
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"InputError: .*type 3, but the model has 3 types"):
        jax.block_until_ready(jax.jit(function("energy"))(COORDS, jnp.asarray([0, 1, 1, 3, 0]), BOX))


def test_wrong_outputs_and_boxes() -> None:
    with pytest.raises(dpa2.InputError, match="outputs: 'force' is none of those that have gradients"):
        function("force")
    with pytest.raises(dpa2.InputError, match="outputs: 'energy' is none of those"):
        dpa2.jax.energy_fn(kind_model("dipole"), TYPES)
    with pytest.raises(dpa2.InputError, match="fractional coordinates need a box"):
        energy(fractional_coordinates=True)(jnp.asarray(COORDS))
    with pytest.raises(dpa2.InputError, match="box must be a length"):
        energy(box=np.ones(4))(jnp.asarray(COORDS))


# -------------------------------------------------------------------------------------------------------------- jax-md


@pytest.mark.filterwarnings("ignore")  # of its imports
def test_dynamics_of_jax_md_conserve_energy() -> None:
    jax_md = needs.package("jax_md")
    import ase.io
    from ase import units

    atoms = ase.io.read(Path(__file__).parents[2] / "examples" / "water_192.extxyz")
    model = dpa2.load(precision="float64", threads=1)
    box = jnp.asarray(np.diag(atoms.cell.array))
    _, shift = jax_md.space.periodic(box)
    energy_of = dpa2.jax.energy_fn(model, list(atoms.symbols), box)
    init, apply = jax_md.simulate.nve(energy_of, shift, dt=0.25 * units.fs)
    mass = jnp.asarray(atoms.get_masses())
    state = init(jax.random.PRNGKey(0), jnp.asarray(atoms.positions), kT=300.0 * units.kB, mass=mass)
    assert (
        relative(
            energy_of(state.position), model.evaluate(atoms.positions, list(atoms.symbols), atoms.cell.array).energy
        )
        <= SAME
    )

    def total(state: Any) -> float:
        kinetic = jax_md.quantity.kinetic_energy(momentum=state.momentum, mass=state.mass)
        return float(energy_of(state.position) + kinetic), float(kinetic)

    step, (before, kinetic) = jax.jit(apply), total(state)
    changes = []
    for _ in range(100):
        state = step(state)
        changes.append(total(state)[0] - before)
    assert kinetic > 1.0
    assert np.abs(changes).max() <= 2e-3 * kinetic
    assert np.abs(np.asarray(state.position) - atoms.positions).max() > 0.01


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run_page("adapters.md", tmp_path, monkeypatch, "JAX")
    assert names["forces"].shape == names["coords"].shape
