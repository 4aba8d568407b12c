"""What holds for all tests: markers by room, and what is skipped where LAMMPS or a GPU is missing.

``slow`` is given by cost, in the test files: a test of more than about two seconds, and, of long lists whose members
cost a few tenths each, all but a few. ``pytest -m "not slow"`` is for every change. Before a merge every test runs,
of long lists those few, but not the slow tests of the emulated GPU. The rest is by hand: ``pytest -m "slow and not
cuda"`` in ten minutes, ``pytest -m "slow and cuda"`` in half an hour. So is what takes ``minutes``, alone or with the
others of its list: ``pytest -m minutes``.
"""

from __future__ import annotations

import os
from pathlib import Path

import native_programs
import needs
import pytest

# Several processes of tests share the cores: a thread that waits for others of its process must not keep a core from
# them. Nobody has loaded OpenMP yet, which reads this once.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

TESTS = Path(__file__).parent
#: rooms whose tests all have the marker of that name
MARKED_ROOMS = {"lammps", "cuda"}


def function_of(item: pytest.Item) -> str:
    """The test without its parameters: the list that it is a member of."""
    return item.nodeid.split("[", 1)[0]


@pytest.hookimpl(tryfirst=True)  # before -m looks at markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        room = item.path.relative_to(TESTS).parts[0]
        if room in MARKED_ROOMS:
            item.add_marker(room)
    asked = config.getoption("markexpr") or config.getoption("keyword") or any("::" in name for name in config.args)
    if asked:
        return
    marks = {item: {mark.name for mark in item.iter_markers()} for item in items}
    quick = {function_of(item) for item in items if not marks[item] & {"slow", "minutes"}}
    by_hand = [
        item
        for item in items
        if "minutes" in marks[item] or ("slow" in marks[item] and ("cuda" in marks[item] or function_of(item) in quick))
    ]
    if by_hand:
        config.hook.pytest_deselected(items=by_hand)
        items[:] = [item for item in items if item not in set(by_hand)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: those of LAMMPS run it. A process finds its driver once, the emulated one or the GPU's."""
    if item.get_closest_marker("requires_gpu") and "requires_gpu" not in item.config.getoption("markexpr"):
        pytest.skip("NOTHING WAS RUN ON A GPU: that is for runs of their own, with -m requires_gpu")
    for marker, missing in (("lammps", needs.no_lammps), ("requires_gpu", needs.no_gpu)):
        if item.get_closest_marker(marker) and (why := missing()):
            pytest.skip(why)


@pytest.fixture(scope="session")
def native_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the native tests; ``DPA2_NATIVE_BUILD`` names an existing one, which is brought up to date."""
    if "DPA2_NATIVE_BUILD" in os.environ:
        return native_programs.build(Path(os.environ["DPA2_NATIVE_BUILD"]))
    if "PYTEST_XDIST_WORKER" in os.environ:  # one build for all workers
        return native_programs.build(tmp_path_factory.getbasetemp().parent / "native")
    return native_programs.build(tmp_path_factory.mktemp("native"))
