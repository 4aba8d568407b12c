"""Training data: which systems there are, what their batches hold, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dpa2
import numpy as np
import pytest
from data_cases import LABELS, PROBABILITIES, RULES, TYPE_MAP, expected
from datasets import write_arrays, write_hdf5, write_words
from dpa2.embedded import default_model_path
from dpa2.train import gradient
from dpa2.train.batch import Label
from dpa2.train.dataset import DataSet, batch_sizes, probabilities
from dpa2.train.loading import Loader, missing_labels
from dpa2.train.order import Draw, Order
from dpa2.train.random import Generator
from dpa2.train.systems import System, find

ENERGY = [Label(*label, False) for label in LABELS["ener"]]
ATOM_ENER = Label("atom_ener", 1, True, False)


def small(path: Path, nframes: int = 3, **change: Any) -> Path:
    """A system of two atoms; arrays by name are put in, or taken out where they are None."""
    rng = np.random.default_rng(1)
    write_words(path / "type.raw", [1, 0])
    write_words(path / "type_map.raw", ["O", "H"])
    arrays: dict[str, Any] = {
        "coord": rng.normal(size=(nframes, 6)),
        "box": np.tile(8.0 * np.eye(3).ravel(), (nframes, 1)),
        "energy": rng.normal(size=nframes),
        "force": rng.normal(size=(nframes, 6)),
    }
    write_arrays(path / "set.000", {name: array for name, array in (arrays | change).items() if array is not None})
    return path


def dataset(*paths: Path, labels: list[Label] = ENERGY, **section: Any) -> DataSet:
    return DataSet({"systems": [str(path) for path in paths], "batch_size": 1} | section, TYPE_MAP, labels)


# ----------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("name", ["standard", "open", "mixed"])
def test_batches_are_those_of_deepmd_kit(folder: Path, name: str) -> None:
    system = System(str(folder / name), TYPE_MAP, [*ENERGY, ATOM_ENER])
    found = system.batch(range(system.nframes))
    for key, value in expected()["batches"][name].items():
        if key in ("find_coord", "find_box"):
            continue
        if key.startswith("find_"):
            assert found[key] == value, key
        elif value is None:
            assert found[key] is None
        elif expected()["batches"][name].get(f"find_{key}", 1.0):
            np.testing.assert_array_equal(found[key].reshape(np.shape(value)), value, err_msg=key)
        else:
            assert key not in found


def test_hdf5_is_read_as_folders_are(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "all.hdf5"
    for name in ("standard", "mixed"):
        write_hdf5(path, f"/below/{name}", folder / name)
    (mixed, standard) = find(str(path))
    assert (mixed, standard) == (f"{path}#/below/mixed", f"{path}#/below/standard")
    for group, name in ((mixed, "mixed"), (standard, "standard")):
        one, other = (System(where, TYPE_MAP, ENERGY) for where in (group, str(folder / name)))
        assert one.nframes == other.nframes
        numbers = [one.nframes - 1, 0, 1]
        wanted = other.batch(numbers)
        with one:
            for key, value in one.batch(numbers).items():
                if key != "where":
                    np.testing.assert_array_equal(value, wanted[key], err_msg=key)


def test_rows_are_read_in_any_order(tmp_path: Path) -> None:
    """Of files that are larger than a block of them, and through several sets."""
    rng = np.random.default_rng(3)
    write_words(tmp_path / "type.raw", [0] * 400)
    write_words(tmp_path / "type_map.raw", ["O"])
    coords = rng.normal(size=(400, 1200))
    for k, rows in enumerate((coords[:150], coords[150:151], coords[151:])):
        write_arrays(tmp_path / f"set.{k:03d}", {"coord": rows, "box": np.ones((len(rows), 9))})
    system = System(str(tmp_path), TYPE_MAP, [])
    for numbers in (rng.permutation(400)[:150], np.arange(400), np.arange(399, -1, -7)):
        np.testing.assert_array_equal(system.batch(numbers)["coord"].reshape(-1, 1200), coords[numbers])


def test_memory_does_not_grow_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows alone are read, whatever order they are asked for in."""
    rng = np.random.default_rng(3)
    write_words(tmp_path / "type.raw", [0] * 100)
    write_words(tmp_path / "type_map.raw", ["O"])
    nframes = 2000
    write_arrays(tmp_path / "set.000", {"coord": rng.normal(size=(nframes, 300)), "box": np.ones((nframes, 9))})
    system = System(str(tmp_path), TYPE_MAP, [])
    read: list[int] = []
    from dpa2.data.deepmd_stores import NpyRows

    whole = NpyRows._read

    def counted(self: NpyRows, first: int, count: int) -> Any:
        read.append(count * self.dtype.itemsize)
        return whole(self, first, count)

    monkeypatch.setattr(NpyRows, "_read", counted)
    system.batch(rng.permutation(nframes)[:50])
    assert sum(read) < 50 * 400 * 8 + 2 * 2**20
    assert max(read) <= 2**20


def test_one_frame_without_its_axis(tmp_path: Path) -> None:
    path = small(tmp_path, 1)
    flat = {name: np.load(path / "set.000" / f"{name}.npy")[0] for name in ("coord", "box", "force")}
    wanted = System(str(path), TYPE_MAP, ENERGY).batch([0])
    for name, array in flat.items():
        np.save(path / "set.000" / f"{name}.npy", array)
    found = System(str(path), TYPE_MAP, ENERGY).batch([0])
    for key in ("coord", "box", "force", "energy"):
        np.testing.assert_array_equal(found[key], wanted[key])


def test_types_without_names_are_the_models(tmp_path: Path) -> None:
    path = small(tmp_path)
    (path / "type_map.raw").unlink()
    assert System(str(path), ["H", "O"], []).batch([0])["atype"].tolist() == [[0, 1]]
    with pytest.raises(dpa2.InputError, match="atom 0 has type 1, but the model has 1 types"):
        System(str(path), ["H"], [])


@pytest.mark.parametrize("width", [2, 6])
def test_weights_of_atoms_are_one_or_three(tmp_path: Path, width: int) -> None:
    weights = np.arange(3.0 * width).reshape(3, width)
    found = System(str(small(tmp_path, atom_pref=weights)), TYPE_MAP, [Label("atom_pref", 3, True, False)]).batch([2])
    wanted = np.repeat(weights[2].reshape(2, -1), 6 // width, axis=1)[[1, 0]]
    np.testing.assert_array_equal(found["atom_pref"], wanted[None])


def test_labels_go_with_their_atoms_and_into_a_gradient(tmp_path: Path) -> None:
    """Their other names are known; what a batch has is what the gradient takes."""
    rng = np.random.default_rng(4)
    drdq, energies = rng.normal(size=(3, 12)), rng.normal(size=(3, 2))
    path = small(tmp_path, drdq=drdq, atomic_ener=energies)
    batch = System(str(path), TYPE_MAP, [*ENERGY, ATOM_ENER, Label("drdq", 6, True, False)]).batch([1])
    np.testing.assert_array_equal(batch["drdq"][0], drdq[1].reshape(2, 6)[::-1])
    np.testing.assert_array_equal(batch["atom_ener"][0, :, 0], energies[1][::-1])
    assert (batch["find_virial"], batch["find_force"]) == (0.0, 1.0)
    loss = {"start_pref_e": 1.0, "start_pref_f": 1.0, "limit_pref_f": 1.0, "limit_pref_e": 1.0}
    batch["atype"] = np.minimum(batch["atype"], 1)
    with default_model_path() as model:
        found = gradient(model, batch, loss, 1e-3)
    assert np.isfinite(found["value"])


def test_finding_systems(folder: Path, tmp_path: Path) -> None:
    for name in ("b/deep/one", "a", "b"):
        small(tmp_path / name)
    at = str(tmp_path)
    assert find(at) == [f"{at}/a", f"{at}/b", f"{at}/b/deep/one"]
    assert find([f"{at}/b", f"{at}/a"]) == [f"{at}/b/deep/one", f"{at}/b", f"{at}/a"]
    assert find(at, ["o*", "one", "a"]) == [f"{at}/a", f"{at}/b/deep/one"]


# ----------------------------------------------------------------------------------- sizes, probabilities, distances


@pytest.mark.parametrize(("rule", "wanted"), list(zip(RULES, expected()["sizes"], strict=True)), ids=str)
def test_batch_sizes_are_those_of_deepmd_kit(folder: Path, rule: Any, wanted: dict[str, Any]) -> None:
    names = ["mixed", "long", "standard"]
    data = dataset(*(folder / name for name in names), labels=[], batch_size=rule)
    assert [Path(system.path).name for system in data.systems] == wanted["systems"]
    assert data.sizes == wanted["sizes"]
    assert data.lengths == [-(-n // size) for n, size in zip(data.frames, data.sizes, strict=True)]


def test_a_list_of_batch_sizes() -> None:
    assert batch_sizes([2, 1], [5, 6]) == [2, 1]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("mixed:64", '"mixed:N" is not there'),
        ("mix:64", '"mix:N" is for LMDB data sets alone'),
        ("maximum:3", r'must be a number, a list, "auto"'),
        ("max", r'must be a number, a list, "auto"'),
        ("max:", "must be followed by a positive integer"),
        ("auto:0", "must be followed by a positive integer"),
        ("auto:many", "must be followed by a positive integer"),
        (0, "must be a positive number of frames, got 0"),
        (-3, "must be a positive number of frames"),
        (2.5, "must be a positive number of frames"),
        (True, "must be a positive number of frames"),
        (None, "must be a positive number of frames"),
        ([1, 2, 3], "has 3 entries, but there are 2 systems"),
        ([1, 0], r"batch_size\[1\] must be a positive number of frames"),
    ],
)
def test_batch_sizes_that_are_none(rule: Any, message: str) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        batch_sizes(rule, [5, 6])


@pytest.mark.parametrize(("case", "wanted"), list(zip(PROBABILITIES, expected()["probabilities"], strict=True)))
def test_probabilities_are_those_of_deepmd_kit(case: dict[str, Any], wanted: dict[str, Any], tmp_path: Path) -> None:
    np.testing.assert_allclose(probabilities(**case), wanted["probabilities"], rtol=1e-15)
    said = {key: value for key, value in case.items() if key != "lengths"}
    paths = [small(tmp_path / str(k), length) for k, length in enumerate(case["lengths"])]
    assert dataset(*paths, **said).epoch == wanted["epoch"]


def test_nothing_is_left_for_systems_without_a_probability() -> None:
    assert probabilities([4, 1, 7], sys_probs=[1.0, -1.0, 0.0]).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"sys_probs": [0.5, 0.2]}, "has 2 entries, but there are 3 systems"),
        ({"sys_probs": [0.7, 0.5, -1]}, "add up to 1.2, which is more than 1"),
        ({"sys_probs": [0.2, 0.5, 0.2]}, "they must add up to 1, or one be negative"),
        ({"sys_probs": [float("nan"), 0.5, 0.5]}, "nan is no probability"),
        ({"auto_prob": "prob_sys"}, "must be "),
        ({"auto_prob": "prob_sys_size;0:4:1"}, "asks for systems 0 to 4, but there are 3"),
        ({"auto_prob": "prob_sys_size;2:1:1"}, "asks for systems 2 to 1"),
        ({"auto_prob": "prob_sys_size;0:2"}, "must be begin:end:weight"),
        ({"auto_prob": "prob_sys_size;0:two:1"}, "must be begin:end:weight"),
        ({"auto_prob": "prob_sys_size;0:2:-1;2:3:2"}, "must be a number that is not negative"),
        ({"auto_prob": "prob_sys_size;0:3:0"}, "are all zero"),
        ({"auto_prob": "prob_sys_size;0:2:1;1:3:1"}, "system 1 is in two parts"),
    ],
)
def test_probabilities_that_are_none(said: dict[str, Any], message: str) -> None:
    with pytest.raises(dpa2.InputError, match=message):
        probabilities([4, 1, 7], **said)


def test_frames_with_close_atoms_are_left_out(folder: Path) -> None:
    """Across the boundary as well: every other frame has a pair at 0.32 angstrom."""
    data = dataset(folder / "close", batch_size=3, min_pair_dist=0.5)
    batch = data.read(Draw(0, np.array([0, 1, 3])))
    assert batch is not None
    assert batch["frames"].tolist() == [1, 3]
    assert len(batch["coord"]) == len(batch["energy"]) == len(batch["box"]) == 2
    assert data.read(Draw(0, np.array([2, 4]))) is None
    whole = dataset(folder / "close", batch_size=3, min_pair_dist=0.3).read(Draw(0, np.array([0, 1, 3])))
    assert whole is not None
    assert len(whole["coord"]) == 3


def test_a_cell_that_is_short_is_no_close_pair(tmp_path: Path) -> None:
    """An atom and its own image are no pair."""
    coord = np.tile([0.0, 0.0, 0.0, 0.6, 0.0, 0.0], (3, 1))
    path = small(tmp_path, coord=coord, box=np.tile(np.diag([1.2, 9.0, 9.0]).ravel(), (3, 1)))
    assert dataset(path, min_pair_dist=0.59).read(Draw(0, np.array([0]))) is not None
    assert dataset(path, min_pair_dist=0.61).read(Draw(0, np.array([0]))) is None
    short = small(tmp_path / "short", coord=coord, box=np.tile(np.diag([9.0, 0.5, 9.0]).ravel(), (3, 1)))
    assert dataset(short, min_pair_dist=0.55).read(Draw(0, np.array([0]))) is not None


def test_no_frame_is_far_enough_apart(folder: Path) -> None:
    data = dataset(folder / "close", min_pair_dist=50.0)
    loader = Loader(data, Order(data, Generator(0), 1, 2))
    message = r"min_pair_dist: in 8 batches, all that there are, every frame has atoms that are closer than 50 angstrom"
    with pytest.raises(dpa2.InputError, match=message):
        loader.next()
    assert list(loader.sample(5)) == []


# ------------------------------------------------------------------------------------------------------- bad input


def nan_label(path: Path) -> None:
    forces = np.zeros((3, 6))
    forces[1, 4] = np.nan
    small(path, force=forces)


def nan_energy(path: Path) -> None:
    small(path, energy=np.array([0.0, np.inf, 1.0]))


def nan_coord(path: Path) -> None:
    coord = np.zeros((3, 6))
    coord[1, 3] = np.nan
    small(path, coord=coord)


def wrong_type(path: Path) -> None:
    write_words(small(path) / "type.raw", [0, 2])


def unknown_name(path: Path) -> None:
    write_words(small(path) / "type_map.raw", ["O", "Xe"])


def unknown_name_mixed(path: Path) -> None:
    write_words(small(path, real_atom_types=np.array([[0, 0], [0, 1], [0, 0]])) / "type_map.raw", ["O", "Xe"])


def no_names_mixed(path: Path) -> None:
    (small(path, real_atom_types=np.zeros((3, 2))) / "type_map.raw").unlink()


def no_types(path: Path) -> None:
    (small(path) / "type.raw").write_text("")


def short_file(path: Path) -> None:
    file = small(path) / "set.000" / "force.npy"
    file.write_bytes(file.read_bytes()[:-8])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no coordinates": (lambda path: small(path, coord=None), r"set\.000/coord\.npy: this file is missing"),
    "no box": (lambda path: small(path, box=None), r"set\.000/box\.npy: this file is missing"),
    "no frames": (lambda path: small(path, 0), r"bad: no frames in this system"),
    "no atoms": (no_types, r"type\.raw: a system without atoms cannot be trained on"),
    "shape of forces": (
        lambda path: small(path, force=np.zeros((3, 5))),
        r"set\.000/force\.npy: force must have shape \(3, 6\), found \(3, 5\)",
    ),
    "frames of energies": (lambda path: small(path, energy=np.zeros(2)), r"energy\.npy: energy must have shape"),
    "shape of coordinates": (lambda path: small(path, coord=np.zeros((3, 7))), r"coord\.npy: coord must have shape"),
    "text": (lambda path: small(path, energy=np.array(["a", "b", "c"])), r"energy must be an array of numbers"),
    "short file": (short_file, r"force\.npy: not a readable \.npy file"),
    "nan force": (nan_label, r"force\.npy, row 1 \(frame 1 of .*bad\), atom 1: found nan where a finite number"),
    "inf energy": (nan_energy, r"energy\.npy, row 1 \(frame 1 of .*bad\): found inf where a finite number"),
    "nan coordinate": (nan_coord, r"coord\.npy, row 1 \(frame 1 of .*bad\), atom 1: found nan"),
    "type without a name": (wrong_type, r"atom 1 has type 2, but type_map\.raw has 2 names"),
    "unknown name": (unknown_name, r"bad: atom 0 is 'Xe', which the model does not know; its type_map is O H Cu"),
    "unknown name, mixed": (unknown_name_mixed, r"real_atom_types\.npy, row 1: atom 1 is 'Xe'"),
    "mixed without names": (no_names_mixed, r"a system of mixed type needs a file type_map\.raw"),
}


def read_all(path: Path) -> None:
    data = dataset(path)
    for frame in range(3):
        data.read(Draw(0, np.array([frame])))


@pytest.mark.parametrize("name", BAD)
def test_bad_data_are_named(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path / "bad")
    with pytest.raises(dpa2.InputError, match=message):
        read_all(tmp_path / "bad")


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ("missing", r"systems: there is no folder .*missing"),
        (["there", "missing"], r"systems\[1\]: there is no folder .*missing"),
        ([], "must be the path of a folder, or a list of paths"),
        (3, "must be the path of a folder, or a list of paths"),
        ("empty", "no system in .*empty: no folder with a file type.raw in it or below it"),
        ("file.txt", "is neither the folder of a system nor an HDF5 file"),
        ("text.hdf5", "not a readable HDF5 file"),
    ],
)
def test_systems_that_are_none(tmp_path: Path, systems: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small(tmp_path / "there")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "text.hdf5").write_text("text")
    with pytest.raises(dpa2.InputError, match=message):
        find(systems)
    with pytest.raises(dpa2.InputError, match=re.escape("nothing that matches ['x*']")):
        find("there", ["x*"])


def test_labels_that_the_model_needs(tmp_path: Path) -> None:
    labels = [*ENERGY, Label("fparam", 2, False, True)]
    with pytest.raises(
        dpa2.InputError, match=r"set\.000 has no fparam\.npy, which the model cannot be trained without"
    ):
        dataset(small(tmp_path / "one"), labels=labels)
    with pytest.raises(dpa2.InputError, match=r"fparam\.npy: fparam must have shape \(3, 2\), found \(3, 3\)"):
        dataset(small(tmp_path / "three", fparam=np.ones((3, 3))), labels=labels)
    assert dataset(small(tmp_path / "two", fparam=np.ones((3, 2))), labels=labels).systems[0].found["fparam"]


def test_labels_of_some_sets_alone(tmp_path: Path) -> None:
    """In batches of one frame each has its own flag; in larger ones those that lack would count as zero."""
    path = small(tmp_path)
    arrays = {name: np.load(path / "set.000" / f"{name}.npy") for name in ("coord", "box", "energy")}
    write_arrays(path / "set.001", arrays)
    data = dataset(path)
    assert [data.read(Draw(0, np.array([k])))["find_force"] for k in (0, 5)] == [1.0, 0.0]  # type: ignore[index]
    assert data.found("force") == []
    assert data.found("energy") == [str(path)]
    message = r"set\.000 has force\.npy and set\.001 has not, so that a batch may have frames with and without it"
    with pytest.raises(dpa2.InputError, match=message):
        dataset(path, batch_size=2)


def test_labels_that_lack(tmp_path: Path) -> None:
    both, energy, none = (small(tmp_path / name, **dict.fromkeys(lacking)) for name, lacking in (
        ("both", []), ("energy", ["force"]), ("none", ["force", "energy"])
    ))  # fmt: skip
    assert missing_labels(dataset(both), ENERGY[:2]) == []
    lines = missing_labels(dataset(both, energy, none), ENERGY, "data")
    wanted = ["1 of 3 systems lack energy", "2 of 3 systems lack force", "no system has virial"]
    assert lines == [f"data: {text}: its term of the loss is left out in their batches" for text in wanted]
    with pytest.raises(dpa2.InputError, match="no system has any label that the loss compares with: energy, force, vi"):
        missing_labels(dataset(none), [*ENERGY, Label("atom_pref", 3, True, False)])


def test_filter_leaves_a_system(folder: Path) -> None:
    with pytest.raises(dpa2.InputError, match="leaves no system: every one has more atoms"):
        dataset(folder / "long", batch_size="filter:2")


def test_a_file_that_becomes_shorter(tmp_path: Path) -> None:
    data = dataset(small(tmp_path, 3))
    data.read(Draw(0, np.array([2])))
    file = tmp_path / "set.000" / "energy.npy"
    file.write_bytes(file.read_bytes()[:-16])
    with pytest.raises(dpa2.InputError, match=r"energy\.npy: .*become shorter"):
        data.read(Draw(0, np.array([1])))


def test_many_systems_do_not_stay_open(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpa2.train.dataset._MOST_OPEN", 2)
    paths = []
    for k in range(4):
        write_hdf5(tmp_path / f"{k}.hdf5", "/one", folder / "long")
        paths.append(tmp_path / f"{k}.hdf5")
    data = dataset(*paths)
    for k in (0, 1, 2, 3, 0, 2):
        assert data.read(Draw(k, np.array([k]))) is not None
        assert sum(system.source.store.group is not None for system in data.systems) <= 2
    data.close()
    assert all(system.source.store.group is None for system in data.systems)
    assert data.read(Draw(1, np.array([2]))) is not None


def test_an_error_of_reading_ahead_comes_with_its_batch(tmp_path: Path) -> None:
    nan_energy(tmp_path / "bad")
    data = dataset(tmp_path / "bad")
    loader = Loader(data, Order(data, Generator(0), 3, 0))
    order = Order(data, Generator(0), 3, 0)
    for draw in [order.next() for _ in range(3)]:
        loader.ahead()
        loader.ahead()  # once is enough
        if draw.frames[0] == 1:
            with pytest.raises(dpa2.InputError, match="row 1"):
                loader.next()
        else:
            assert loader.next()["frames"] == draw.frames
    loader.ahead()
    loader.close()
