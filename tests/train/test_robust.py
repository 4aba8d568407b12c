"""Gradients of losses where it is tight: threads, order, placeholders, little memory, numbers out of all proportion."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import dpa2
import needs
import numpy as np
import pytest
import random_model as rm
import training_cases as training
from dpa2 import train
from dpa2.errors import InputError
from dpa2.files import ModelData
from dpa2.train.gradient import LossGradient

LOSS = training.ENERGY_LOSSES["mix"] | {"start_pref_ae": 0.5, "limit_pref_ae": 1.0}
#: of threads, and of frames and atoms in another order, as a part of the norm
ROUNDING = 1e-13
#: of float32
SINGLE = 3e-6

Batch = dict[str, np.ndarray]


@cache
def drawn(seed: int) -> tuple[dpa2.Model, Batch]:
    """A random model, and two frames with labels."""
    rng = np.random.default_rng([5, seed])
    options = rm.draw_options(rng)
    options["fitting"] |= {"numb_fparam": 0, "default_fparam": None}
    config, weights = rm.random_model(rng, **options)
    shape, natoms = ("triclinic", "open", "tiny")[seed % 3], 3 if seed % 3 == 2 else 9
    frames = [rm.random_structure(rng, options["ntypes"], natoms, shape) for _ in range(2)]
    config["atom_exclude_types"] = []
    batch = {"coord": np.stack([f[0] for f in frames]), "atype": np.stack([f[1] for f in frames])}
    if frames[0][2] is not None:
        batch["box"] = np.stack([f[2] for f in frames if f[2] is not None])
    if config["fitting_net"]["numb_aparam"]:
        batch["aparam"] = rng.normal(size=(2, natoms, config["fitting_net"]["numb_aparam"]))
    batch |= training.labels(config, 2, natoms)
    return dpa2.Model(ModelData(config, weights), precision="float64", threads=1, on_overflow="ignore"), batch


def gradient(seed: int, change: Batch | None = None, **options: Any) -> LossGradient:
    model, batch = drawn(seed)
    return train.gradient(model, change or batch, LOSS, 1e-3, **options)


def flat(found: LossGradient) -> np.ndarray:
    return np.concatenate([array.ravel() for array in found["gradient"].values()])


def apart(found: LossGradient, expected: LossGradient) -> float:
    """The difference of the gradients, as a part of the norm."""
    wanted = flat(expected)
    return float(np.linalg.norm(flat(found) - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("seed", range(4))
def test_threads(seed: int) -> None:
    """The same bits from run to run for any number of them, also more than there are atoms; each other to rounding."""
    one = gradient(seed, threads=1)
    for threads in (2, 3, 5, 40):
        first, again = gradient(seed, threads=threads), gradient(seed, threads=threads)
        assert np.array_equal(flat(first), flat(again))
        assert first["value"] == again["value"]
        assert apart(first, one) <= ROUNDING


@pytest.mark.parametrize("seed", range(4))
def test_order(seed: int) -> None:
    """Frames, and atoms behind the first one, in another order; placeholders among them."""
    _, batch = drawn(seed)
    expected = gradient(seed)
    assert apart(gradient(seed, {name: rows[::-1] for name, rows in batch.items()}), expected) <= ROUNDING
    of_frames = ("box", "energy", "virial")
    natoms = batch["atype"].shape[1]
    order = np.concatenate([[0], 1 + np.random.default_rng(seed).permutation(natoms - 1)])
    others = {name: rows if name in of_frames else rows[:, order] for name, rows in batch.items()}
    assert apart(gradient(seed, others), expected) <= ROUNDING
    more = {}
    for name, rows in batch.items():
        filling = np.full_like(rows[:, :1], -7 if name == "atype" else 0.3) if name not in of_frames else None
        more[name] = rows if filling is None else np.concatenate([rows[:, :1], filling, rows[:, 1:], filling], axis=1)
    assert apart(gradient(seed, more), expected) <= ROUNDING


@pytest.mark.parametrize("seed", range(6))
def test_float32(seed: int) -> None:
    """As near as that, or as the positions of float32 alone let it be."""
    _, batch = drawn(seed)
    expected = gradient(seed)
    rounded = apart(gradient(seed, batch | {"coord": batch["coord"].astype(np.float32)}), expected)
    assert 0.0 < apart(gradient(seed, precision="float32"), expected) <= max(SINGLE, 5.0 * rounded)


def test_callers_in_several_threads() -> None:
    """One engine for all: what they get is what one of them gets alone."""
    model, batch = drawn(0)
    engine = train.GradientEngine(model, threads=2)
    expected, values, wrong = flat(engine.gradient(batch, LOSS, 1e-3)), engine.parameters, []

    def call(number: int) -> None:
        for _ in range(3):
            if number == 0:
                engine.assign(values)
            found = flat(engine.gradient(batch, LOSS, 1e-3))
            if np.abs(found - expected).max() > ROUNDING * np.abs(expected).max():
                wrong.append(number)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.parametrize("label", ["energy", "force", "virial", "atom_ener"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_labels_out_of_all_proportion(label: str, precision: str) -> None:
    _, batch = drawn(1)
    with pytest.raises(InputError, match="the loss of the batch is not finite, but inf: its labels, prefactors or"):
        gradient(1, batch | {label: np.full_like(batch[label], 1e200)}, precision=precision)


def test_float32_overflows() -> None:
    """A loss that a double holds, whose derivatives a float does not."""
    _, batch = drawn(1)
    large = batch | {"force": 1e60 * batch["force"]}
    assert np.isfinite(flat(gradient(1, large))).all()
    with pytest.raises(InputError, match=r"the gradient to '.*' is not finite, the loss is .*: labels, prefactors or"):
        gradient(1, large, precision="float32")


@pytest.mark.parametrize("change", [
    {"start_pref_e": 10**400}, {"start_pref_e": "\ud800"}, {"\ud800": 1}, {"starter_learning_rate": 1e-320},
])  # fmt: skip
def test_losses_out_of_all_proportion(change: dict[str, Any]) -> None:
    model, batch = drawn(1)
    with pytest.raises(InputError, match=r"the loss section is not a JSON object|the loss of the batch is not finite"):
        train.gradient(model, batch, LOSS | change, 1e-3)


def test_bad_parameters() -> None:
    """Refused with their names, and nothing is taken of the good ones beside them."""
    model, batch = drawn(1)
    engine = train.GradientEngine(model, threads=1)
    expected, values = engine.gradient(batch, LOSS, 1e-3), engine.parameters
    name, *others = values
    good = {name: values[name] + 1.0}
    for wrong, message in (
        (None, "parameters must be a dict of arrays by name, got NoneType"),
        ([name], "parameters must be a dict of arrays by name, got list"),
        (good | {"x": 1.0}, "the model has no parameter 'x' that is trained"),
        ({name.removeprefix("atomic_model."): values[name]}, "the model has no parameter 'descriptor"),
        ({"atomic_model.out_bias": 0.0}, "the model has no parameter 'atomic_model.out_bias' that is trained"),
        (good | {others[0]: values[others[0]].ravel()[:-1]}, f"{others[0]} must have shape"),
        (good | {others[0]: np.full_like(values[others[0]], np.nan)}, r"\] = nan is not finite"),
        (good | {others[0]: "one"}, f"{others[0]} must be an array of real numbers"),
    ):
        with pytest.raises(InputError, match=message):
            engine.assign(wrong)  # type: ignore[arg-type]
        assert np.array_equal(flat(engine.gradient(batch, LOSS, 1e-3)), flat(expected))
        assert np.array_equal(engine.parameters[name], values[name])
    last = others[-2]  # the matrix in front of the energies
    engine.assign({last: np.full_like(values[last], 1e300)})
    with pytest.raises(InputError, match="is not finite"):
        engine.gradient(batch, LOSS, 1e-3)
    engine.assign({last: values[last]})
    assert apart(engine.gradient(batch, LOSS, 1e-3), expected) <= ROUNDING


def test_assigned_arrays_are_copied() -> None:
    model, batch = drawn(1)
    engine = train.GradientEngine(model, threads=1)
    name = next(iter(engine.parameters))
    mine = engine.parameters[name] + 0.125
    moved = mine.copy()
    engine.assign({name: mine})
    mine[...] = np.nan
    engine.parameters[name][...] = np.nan
    weights = model._data.weights | {name.removeprefix("atomic_model."): moved}
    other = dpa2.Model(ModelData(model._data.config, weights), threads=1, on_overflow="ignore")
    expected = train.gradient(other, batch, LOSS, 1e-3)
    assert apart(engine.gradient(batch, LOSS, 1e-3), expected) <= ROUNDING
    assert np.array_equal(engine.parameters[name], moved)


BEGINNING = """
import os, resource, sys
sys.path[:0] = sys.argv[1:3]
import numpy as np
from api_models import lattice
from dpa2 import train
from test_robust import LOSS, drawn, flat
import training_cases as training
model, batch = drawn(int(sys.argv[3]))
engine = train.GradientEngine(model, threads=2)
found = lambda loss=LOSS: flat(engine.gradient(batch, loss, 1e-3))
expected = found()
"""

CHILD = """
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(found(), expected) else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

LIMIT = """
coords, types, box = lattice(20)
large = {"coord": coords[None], "atype": np.zeros((1, len(coords)), int), "box": np.asarray(box).reshape(1, 9)}
if "aparam" in batch:
    large["aparam"] = np.zeros((1, len(coords), batch["aparam"].shape[2]))
large |= {"energy": np.zeros(1), "force": np.zeros((1, len(coords), 3))}
energy = training.ENERGY_LOSSES["energy"]
before = found(energy)
for loss in (energy, LOSS):
    os.environ["DPA2_MEMORY_LIMIT"] = "30M"
    try:
        engine.gradient(large, loss, 1e-3)
        sys.exit("it fits")
    except MemoryError as error:
        print(error)
    del os.environ["DPA2_MEMORY_LIMIT"]
    assert np.array_equal(found(), expected)
    assert np.array_equal(found(energy), before)  # what was kept is computed again, to the same bits
"""

ASSIGN = """
values = engine.parameters
results = []
for kilobytes in (-8192, -4096, -1024, 0, 200):  # what an engine gives back it may not have again
    held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + kilobytes * 1024, resource.RLIM_INFINITY))
    try:
        engine.assign({name: value + 0.01 for name, value in values.items()})
        results.append("taken")
    except MemoryError:
        results.append("refused")
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if results[-1] == "taken":
        engine.assign(values)
    assert np.abs(found() - expected).max() <= 1e-13 * np.abs(expected).max()
assert "refused" in results, results
"""


def check_script(text: str, seed: int = 0) -> str:
    here = Path(__file__).parent
    command = [sys.executable, "-W", "ignore", "-c", BEGINNING + text, str(here.parent), str(here), str(seed)]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_child_of_a_threaded_parent() -> None:
    check_script(CHILD)


@needs.linux
def test_too_little_memory() -> None:
    """An error in time; and what an engine of little memory computes again has the same bits."""
    printed = check_script(LIMIT).splitlines()
    assert len(printed) == 2
    assert all("8000 atoms needs" in line and "DPA2_MEMORY_LIMIT leaves" in line for line in printed)


@needs.linux
def test_too_little_memory_for_other_parameters() -> None:
    """Wherever it ends, the engine goes on with the old ones."""
    check_script(ASSIGN)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 60))
def test_many_models(seed: int) -> None:
    test_order(seed)
    test_threads(seed)
    test_float32(seed)
