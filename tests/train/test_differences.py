"""Gradients of losses to parameters against differences of the loss itself, which predictions of the model give.

The loss of energies is written down here once more; of other kinds it is that of `dpa2._native.loss`, which is compared
with deepmd-kit elsewhere. The model is loaded anew for every value.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import dpa2
import numpy as np
import pytest
import random_model as rm
from cases import Golden, System, golden_cases, load_golden
from dpa2 import _native, train
from dpa2.errors import InputError
from dpa2.files import ModelData, schema
from dpa2.inputs import counted
from dpa2.train.gradient import PREFIX
from kind_cases import KIND_CASES, load_kind, networks

#: central differences of fourth order: steps, tried until one fits, and bound as a part of the norm of the gradient
STEPS, TOLERANCE = (3e-4, 1e-4, 3e-5, 1e-5, 3e-6), 1e-8
#: where an activation has kinks, which a step must not cross
KINKED_STEPS, KINKED = (2e-7, 2e-8, 2e-6, 2e-5, 2e-4), 3e-6
_KINKS = ("relu", "relu6", "silut", "custom_silu")
#: slopes below this part of the whole gradient are measured by that
FLOOR = 1e-3
LR = 1e-3
DELTA = [0.9, 0.9, 0.9]

_TERMS = {f"{end}_pref_{term}": weight for end in ("start", "limit") for term, weight in
          (("e", 0.7), ("f", 1.3), ("v", 0.4), ("ae", 0.9))}  # fmt: skip
#: losses of energies by name
LOSSES: dict[str, dict[str, Any]] = {
    "energy": {"start_pref_e": 1.0, "limit_pref_e": 1.0, "start_pref_f": 0.0, "limit_pref_f": 0.0},
    "squares": _TERMS,
    "mae": _TERMS | {"loss_func": "mae"},
    "huber": _TERMS | {"use_huber": True, "huber_delta": DELTA},
}
#: of other kinds: all of whose terms are there
OTHERS: dict[str, dict[str, Any]] = {
    "dipole": {"type": "tensor", "pref": 0.7, "pref_atomic": 1.3},
    "polar": {"type": "tensor", "pref": 0.7, "pref_atomic": 1.3},
    "dos": {"type": "dos", **{f"{end}_pref_{term}": weight for end in ("start", "limit") for term, weight in
                              (("dos", 0.3), ("cdf", 0.2), ("ados", 0.5), ("acdf", 0.6))}},
    "property": {"type": "property", "loss_func": "mse"},
    "population": {"type": "population", "loss_func": "rmse", "start_pref_spin": 0.5, "start_pref_pop": 0.7},
}  # fmt: skip


@pytest.fixture(autouse=True)
def networks_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rounding of a table in the differences."""
    monkeypatch.setenv("DPA2_SERIES", "off")


class Case(NamedTuple):
    """A model, structures of one number of atoms, and who counts."""

    config: dict[str, Any]
    weights: dict[str, np.ndarray]
    system: System
    kinks: bool

    @property
    def counted(self) -> np.ndarray:
        types = np.broadcast_to(self.system.atype, self.system.coord.shape[:2])
        return counted(types, self.config["atom_exclude_types"])

    @property
    def kind(self) -> str:
        """The type of the fitting net; a combination is one of energies."""
        return str(self.config["fitting_net"]["type"]) if "fitting_net" in self.config else "ener"


def _case(config: dict[str, Any], weights: Mapping[str, np.ndarray], system: System) -> Case:
    blocks = []
    for part in networks(config):
        blocks += [part["descriptor"]["repinit"], part["descriptor"]["repformer"], part["fitting_net"]]
    kinks = any(block["activation_function"].partition(":")[0].lower() in _KINKS for block in blocks)
    return Case(config, {name: np.array(array, np.float64) for name, array in weights.items()}, system, kinks)


def golden_case(golden: Golden, system: str = "") -> Case:
    for part in networks(golden.config):
        for block in (golden.config, part["descriptor"], part["fitting_net"]):
            block["precision"] = "float64"
    return _case(golden.config, golden.weights, next(s for s in golden.systems if system in ("", s.name)))


def random_case(seed: int, kind: str = "ener") -> Case:
    """Two frames of a random model, with excluded types, placeholders, and atoms beyond their box."""
    rng = np.random.default_rng([17, seed])
    options = rm.draw_options(rng)
    options["fitting"] |= {"type": kind}
    if kind == "polar":
        options["fitting"] |= {"fit_diag": bool(rng.integers(2)), "shift_diag": bool(rng.integers(2))}
    if kind == "property":
        options["fitting"] |= {"intensive": bool(rng.integers(2)), "distinguish_types": bool(rng.integers(2))}
    if kind != "ener":
        options["fitting"].pop("atom_ener")
    config, weights = rm.random_model(rng, **options)
    shape = ("cubic", "triclinic", "left_handed", "tiny", "open")[seed % 5]
    ntypes, natoms = options["ntypes"], 3 if shape == "tiny" else int(rng.integers(5, 10))
    frames = [rm.random_structure(rng, ntypes, natoms, shape, virtual=seed % 3 == 0) for _ in range(2)]
    extra = [rm.random_parameters(rng, config, natoms) for _ in range(2)]
    rows = [np.stack([frame[k] for frame in frames]) if frames[0][k] is not None else None for k in range(3)]
    with_fparam = all(e[0] is not None for e in extra)
    system = System(
        "random", rows[0], rows[1], rows[2], np.stack([e[0] for e in extra]) if with_fparam else None,
        np.stack([e[1] for e in extra]) if extra[0][1] is not None else None, {},
    )  # fmt: skip
    case = _case(config, weights, system)
    try:
        predictions(case)
    except InputError:  # its numbers leave the range of a double
        return random_case(seed + 10_000, kind)
    return case


def predictions(case: Case, moved: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """What the model says of the structures: atoms (f, n, width), and of energies force and virial."""
    weights = case.weights | dict(moved or {})
    model = dpa2.Model(ModelData(case.config, weights), precision="float64", threads=1, on_overflow="ignore")
    s = case.system
    result = model.evaluate(s.coord, s.atype, s.box, fparam=s.fparam, aparam=s.aparam, atomic=True)
    nframes, natoms = s.coord.shape[:2]
    if case.kind == "ener":
        return {"atoms": result.atom_energy, "force": result.forces, "virial": result.virial.reshape(nframes, 9)}
    name = {"dipole": "dipole", "polar": "polar", "dos": "atom_dos", "population": "population"}.get(
        case.config["fitting_net"]["type"], "atom_" + case.config["fitting_net"].get("property_name", "")
    )
    return {"atoms": np.asarray(result.outputs[name]).reshape(nframes, natoms, -1)}


def _offsets(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Deviations on both sides of the kinks at 0 and DELTA, and away from them."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    size = np.where(rng.random(shape) < 0.5, rng.uniform(0.3, 0.6, shape), rng.uniform(1.2, 1.6, shape))
    return np.where(rng.random(shape) < 0.5, -size, size)


def labels_of(case: Case, predicted: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    fitting, mask = case.config.get("fitting_net", {}), case.counted
    nframes, natoms = mask.shape
    atoms = predicted["atoms"]
    sums = (atoms * mask[..., None] if atoms.ndim == 3 else (atoms * mask)[..., None]).sum(axis=1)
    n = mask.sum(axis=1)
    if case.kind == "ener":
        return {
            "energy": sums[:, 0] + n * _offsets("energy", (nframes,)),
            "force": predicted["force"] + _offsets("force", (nframes, natoms, 3)),
            "virial": predicted["virial"] + n[:, None] * _offsets("virial", (nframes, 9)),
            "atom_ener": atoms.reshape(nframes, natoms) + _offsets("atom_ener", (nframes, natoms)),
        }
    frame, atom = {"dipole": ("dipole", "atom_dipole"), "polar": ("polarizability", "atom_polarizability"),
                   "dos": ("dos", "atom_dos"), "population": ("", "atom_population"),
                   "property": (fitting.get("property_name"), "")}[fitting["type"]]  # fmt: skip
    out = {}
    if frame:
        out[frame] = sums + _offsets("frame", sums.shape)
    if atom:
        out[atom] = atoms + _offsets("atom", atoms.shape)
    return out


def energy_loss(section: Mapping[str, Any], case: Case, predicted: Mapping[str, np.ndarray],
                labels: Mapping[str, np.ndarray]) -> float:  # fmt: skip
    """The loss of deepmd-kit's kind "ener": squares of energies and virials are divided by the atoms once only."""
    mask = case.counted
    n = mask.sum(axis=1)
    once = not (section.get("use_huber") or section.get("loss_func") == "mae")

    def cost(x: np.ndarray) -> np.ndarray:
        if section.get("loss_func") == "mae":
            return np.abs(x)
        if section.get("use_huber"):
            return np.where(np.abs(x) <= DELTA[0], 0.5 * x * x, DELTA[0] * (np.abs(x) - 0.5 * DELTA[0]))
        return x * x

    atoms = predicted["atoms"].reshape(mask.shape)
    per_frame = n if once else np.ones_like(n)
    energy = (np.where(mask, atoms, 0.0).sum(axis=1) - labels["energy"]) / n
    virial = (predicted["virial"] - labels["virial"]) / n[:, None]
    terms = {
        "e": np.mean(per_frame * cost(energy)),
        "f": np.mean(cost((predicted["force"] - labels["force"])[mask])),
        "v": np.mean(per_frame[:, None] * cost(virial)),
        "ae": np.mean(cost((atoms - labels["atom_ener"])[mask])),
    }
    return float(sum(section.get(f"limit_pref_{name}", 0.0) * term for name, term in terms.items()))


def other_loss(section: Mapping[str, Any], case: Case, predicted: Mapping[str, np.ndarray],
               labels: Mapping[str, np.ndarray]) -> float:  # fmt: skip
    statistics = {name: case.weights[name] for name in ("out_bias", "out_std")}
    return float(_native.loss(
        json.dumps(case.config), statistics, json.dumps(section), LR, case.counted, dict(predicted), dict(labels),
    )[0])  # fmt: skip


def directions(gradient: Mapping[str, np.ndarray], each: bool) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Of all parameters at once, and then one array at a time."""
    along = {}
    for name, array in gradient.items():
        along[name] = np.random.default_rng(zlib.crc32(name.encode())).normal(size=array.shape)
    yield "all parameters", along
    if each:
        yield from ((name, {name: direction}) for name, direction in along.items())


def check_case(case: Case, each: bool) -> None:
    kind = case.kind
    losses = LOSSES if kind == "ener" else {kind: OTHERS[kind]}
    loss_of = energy_loss if kind == "ener" else other_loss
    if not case.counted.any(axis=1).all():
        pytest.skip("a frame without atoms has no energy per atom")
    base = predictions(case)
    labels = labels_of(case, base)
    s = case.system
    batch = {"coord": s.coord, "atype": s.atype, "box": s.box, "fparam": s.fparam, "aparam": s.aparam, **labels}
    model = dpa2.Model(ModelData(case.config, case.weights), precision="float64", threads=1, on_overflow="ignore")
    found = {name: train.gradient(model, batch, section, LR) for name, section in losses.items()}
    for name, section in losses.items():
        value = loss_of(section, case, base, labels)
        assert abs(found[name]["value"] - value) <= 1e-10 * max(1.0, abs(value)), name
    trained = {n for n, w in schema.expected_weights(case.config).items() if w.role == "parameter"}
    gradients = {name: found[name]["gradient"] for name in losses}
    for gradient in gradients.values():
        assert {name.removeprefix(PREFIX) for name in gradient} == {n for n in trained if case.weights[n].size}
    whole = {name: np.sqrt(sum(np.vdot(g, g) for g in gradient.values())) for name, gradient in gradients.items()}
    steps, tolerance = (KINKED_STEPS, KINKED) if case.kinks else (STEPS, TOLERANCE)
    for what, along in directions(next(iter(gradients.values())), each):

        def values(t: float, along: Mapping[str, np.ndarray] = along) -> dict[str, float]:
            moved = {name.removeprefix(PREFIX): case.weights[name.removeprefix(PREFIX)] + t * direction
                     for name, direction in along.items()}  # fmt: skip
            predicted = predictions(case, moved)
            return {name: loss_of(section, case, predicted, labels) for name, section in losses.items()}

        best = dict.fromkeys(losses, np.inf)
        for step in steps:
            sides = [values(k * step) for k in (1, -1, 2, -2)]
            for name in losses:
                near, far = sides[0][name] - sides[1][name], sides[2][name] - sides[3][name]
                slope = (8.0 * near - far) / (12.0 * step)
                gradient = gradients[name]
                own = sum(float(np.vdot(gradient[k], direction)) for k, direction in along.items())
                norm = np.sqrt(sum(np.vdot(gradient[k], gradient[k]) for k in along))
                size = max(norm, FLOOR * whole[name], FLOOR)
                best[name] = min(best[name], abs(own - slope) / size)
            if max(best.values()) <= tolerance:
                break
        assert max(best.values()) <= tolerance, f"{what}: parts of the norm {best}"


GOLDEN = {case.name: case for case in golden_cases()}
KINDS = {case.name: case for case in KIND_CASES if not case.combination or case.combination["type"] == "zbl"}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    """Of every option, along one direction of all parameters."""
    check_case(golden_case(load_golden(GOLDEN[name])), each=False)


@pytest.mark.parametrize("seed", [0, 1, 2, *range(100, 160)])
def test_random(seed: int) -> None:
    """In 105 silu sees numbers so far below zero that exp(-x) times a tangent overflows."""
    check_case(random_case(seed), each=False)


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("seed", [1, *range(200, 206)])
def test_other_kinds(kind: str, seed: int) -> None:
    check_case(random_case(seed, kind), each=False)


@pytest.mark.parametrize("name", KINDS)
def test_golden_of_other_kinds(name: str) -> None:
    check_case(golden_case(load_kind(KINDS[name])), each=False)


# The same, one array of parameters at a time: an array whose gradients are small is measured by its own.


@pytest.mark.minutes
@pytest.mark.parametrize("name", GOLDEN)
def test_every_array(name: str) -> None:
    check_case(golden_case(load_golden(GOLDEN[name])), each=True)


@pytest.mark.minutes
@pytest.mark.parametrize("seed", range(100, 160))
def test_every_array_of_random_models(seed: int) -> None:
    check_case(random_case(seed), each=True)


@pytest.mark.minutes
@pytest.mark.parametrize("name", KINDS)
def test_every_array_of_other_kinds(name: str) -> None:
    check_case(golden_case(load_kind(KINDS[name])), each=True)


@pytest.mark.minutes
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("seed", range(200, 206))
def test_every_array_of_random_kinds(kind: str, seed: int) -> None:
    check_case(random_case(seed, kind), each=True)
