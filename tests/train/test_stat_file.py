"""Files of statistics: those of deepmd-kit are read, and ours hold the same."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import dpa2
import h5py
import numpy as np
import pytest
from cases import GOLDEN
from data_cases import TYPE_MAP, expected, write
from dpa2.train.batch import Label
from dpa2.train.loading import Loader, open_section, order_of
from dpa2.train.random import Generator
from dpa2.train.stat_file import StatisticsFile
from dpa2.train.statistics import Statistics

FILE = GOLDEN / "training" / "statistics.hdf5"
LABELS = [Label("energy", 1, False, False), Label("fparam", 2, False, True), Label("aparam", 1, True, True)]


def model() -> dict[str, Any]:
    return copy.deepcopy(expected()["statistics"]["parameters"]["section"])


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Statistics:
    folder = tmp_path_factory.mktemp("data")
    write(folder)
    data = open_section({"systems": str(folder / "long"), "batch_size": 1}, TYPE_MAP, LABELS)
    return Statistics(model()).add(Loader(data, order_of(data, Generator(0), 1, 0)).sample(10**6))


def check_same(one: Statistics, other: dict[str, Any]) -> None:
    weights = one.weights()
    assert weights.keys() == other.keys()
    for name, value in other.items():
        np.testing.assert_allclose(weights[name], value, rtol=1e-12, atol=1e-14, err_msg=name)


def datasets(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


def test_a_file_of_deepmd_kit_is_read() -> None:
    found = StatisticsFile(str(FILE), model(), "read").load()
    assert found is not None
    wanted = expected()["statistics"]["parameters"]
    check_same(found, wanted["weights"])
    assert found.observed_type == wanted["observed_type"]


def test_what_is_written_is_what_deepmd_kit_writes(computed: Statistics, tmp_path: Path) -> None:
    path = tmp_path / "new" / "statistics.h5"
    StatisticsFile(str(path), model()).save(computed)
    found, wanted = datasets(path), datasets(FILE)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        assert found[name].dtype == value.dtype
        if value.dtype.kind == "S":
            assert found[name].tolist() == value.tolist()
        else:
            np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("name", ["folder", "file.hdf5"])
def test_what_was_written_is_read(computed: Statistics, tmp_path: Path, name: str) -> None:
    file = StatisticsFile(str(tmp_path / name), model())
    assert file.load() is None
    file.save(computed)
    file.save(computed)  # once more over what is there
    found = StatisticsFile(str(tmp_path / name), model(), "read").load()
    assert found is not None
    check_same(found, computed.weights())
    assert found.observed_type == computed.observed_type
    assert (tmp_path / name).is_dir() == (name == "folder")


def test_other_groups_stay(computed: Statistics, tmp_path: Path) -> None:
    path = tmp_path / "statistics.hdf5"
    shutil.copyfile(FILE, path)
    other = model() | {"type_map": ["H", "O", "N"]}
    StatisticsFile(str(path), other).save(computed)
    found = datasets(path)
    assert {name.split("/")[0] for name in found} == {"O H Cu", "H O N"}
    first = StatisticsFile(str(path), model(), "read").load()
    assert first is not None


def test_other_cutoffs_are_other_statistics(tmp_path: Path) -> None:
    changed = model()
    changed["descriptor"]["repinit"]["rcut"] = 4.9
    assert StatisticsFile(str(FILE), changed).load() is None
    with pytest.raises(
        dpa2.InputError, match=r"statistics\.hdf5: the statistics have no O H Cu/\w{40}/r_0; with stat_file"
    ):
        StatisticsFile(str(FILE), changed, "read").load()
    with pytest.raises(dpa2.InputError, match="the statistics have no"):
        StatisticsFile(str(tmp_path / "missing"), model(), "read").load()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "statistics.hdf5"
    path.write_bytes(FILE.read_bytes()[:3000])
    with pytest.raises(dpa2.InputError, match="not a readable HDF5 file"):
        StatisticsFile(str(path), model()).load()
    for name, value in (("fparam", np.ones((3, 3))), ("bias_atom_energy", np.full((3, 1), np.nan))):
        shutil.copyfile(FILE, path)
        with h5py.File(path, "a") as file:
            del file["O H Cu"][name]
            file["O H Cu"][name] = value
        with pytest.raises(dpa2.InputError, match=rf"O H Cu/{name} must be finite numbers of shape"):
            StatisticsFile(str(path), model()).load()
