"""How training finds the other processes of MPI, and what each of them takes of the machine."""

from __future__ import annotations

import copy
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import training_runs as runs
from dpa2.cli import common, main
from dpa2.errors import InputError
from dpa2.train.processes import Alone, Processes, join, launched


class Communicator:
    """The first process of so many."""

    def __init__(self, size: int) -> None:
        self._size = size

    def Get_rank(self) -> int:
        return 0

    def Get_size(self) -> int:
        return self._size


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without what a launcher has left."""
    for name in list(os.environ):
        if name.startswith(("OMPI_", "PMI", "MV2_", "SLURM_")):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(("variables", "place"), [
    ({}, None),
    ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "1"}, (1, 4)),
    ({"PMI_RANK": "0", "PMI_SIZE": "2"}, (0, 2)),
    ({"MV2_COMM_WORLD_RANK": "5", "MV2_COMM_WORLD_SIZE": "6"}, (5, 6)),
    ({"PMIX_RANK": "2", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3"}, (2, 3)),
    ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3"}, None),
    ({"PMI_RANK": "", "PMI_SIZE": "x"}, None),
])  # fmt: skip
def test_launchers(variables: dict[str, str], place: Any, environment: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert launched() == place


def test_no_mpi4py(environment: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is asked for where a launcher has started several processes, by the first of them, and nowhere else."""
    environment.setitem(sys.modules, "mpi4py", None)
    assert isinstance(join(), Alone)
    environment.chdir(tmp_path)
    runs.write_data(tmp_path)
    config = copy.deepcopy(runs.RUNS["plain"])
    config["training"]["numb_steps"] = 0
    Path("input.json").write_text(json.dumps(config))
    environment.setenv("PMI_RANK", "0")
    environment.setenv("PMI_SIZE", "2")
    assert main(["train", "input.json", "--threads", "1"]) == 2
    message = capsys.readouterr().err
    assert "mpi4py is missing, with which 2 processes of MPI train together: pip install 'dpa2[mpi]'" in message
    assert not list(tmp_path.glob("model*"))
    environment.setattr(common, "_silent", False)
    environment.setenv("PMI_RANK", "1")
    assert main(["train", "input.json", "--threads", "1"]) == 2
    assert capsys.readouterr().err == ""
    environment.setattr(common, "_silent", False)
    assert main(["train", "input.json", "--threads", "1", "--no-mpi"]) == 0
    environment.setenv("PMI_SIZE", "1")
    assert main(["train", "input.json", "--threads", "1"]) == 0


def stand_in(size: int) -> types.ModuleType:
    """An mpi4py whose MPI sees so many processes."""
    module, mpi = types.ModuleType("mpi4py"), types.ModuleType("mpi4py.MPI")
    mpi.COMM_WORLD = Communicator(size)  # type: ignore[attr-defined]
    mpi.Get_library_version = lambda: "Some MPI 4\nof somebody\0"  # type: ignore[attr-defined]
    module.MPI = mpi  # type: ignore[attr-defined]
    return module


def test_another_mpi(environment: pytest.MonkeyPatch) -> None:
    """Started by the mpirun of one MPI, with an mpi4py of another, each process would train alone."""
    environment.setitem(sys.modules, "mpi4py", stand_in(1))
    environment.setenv("OMPI_COMM_WORLD_RANK", "0")
    environment.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"4 processes of MPI, but mpi4py sees 1: it uses another MPI \(Some MPI 4\)"):
        join()
    assert join(False).size == 1
    environment.delenv("OMPI_COMM_WORLD_SIZE")
    assert join().size == 1
    with pytest.raises(InputError, match="no other processes of MPI: start them with mpirun"):
        join(True)


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of the cores that several may use; what is asked for goes before."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for sharing, wanted in (([3] * 8, 2), ([3] * 2, 1), ([1] * 4, 4), ([1, 1, 2, 2], 3), ([3] * 3, 1), ([], None)):
        team = Processes(Communicator(3), sharing)
        assert team.threads(None) == wanted
        assert team.threads(5) == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert Processes(Communicator(3), [3] * 8).threads(None) is None
