"""Results that are queued on a device, and the looks at all of them together."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import dpa2
import pytest
from dpa2.cuda.gpu import Pending, Queue
from dpa2.remarks import Remarks


class Core:
    """Evaluations as the compiled core has them: what is said of them, and when a look at them says something."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self._void, self._wrong, self.looks = False, "", 0

    def run(self, name: str, void: int = 0, wrong: bool = False) -> Callable[[], None]:
        left = [void]

        def evaluate() -> None:
            self.ran.append(name)
            self._void |= left[0] > 0
            left[0] -= 1
            if wrong:
                self._wrong = f"{name} is wrong"

        return evaluate

    def check(self) -> tuple[bool, list[Any]]:
        self.looks += 1
        if words := self._wrong:
            self._wrong = ""
            raise dpa2.InputError(words)
        stands, self._void = not self._void, False
        return stands, [((), (0, 1, float(len(self.ran))))]


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def queued(core: Core) -> Callable[..., Pending]:
    queue = Queue(core)

    def put(name: str, said: list[Any] | None = None, **options: Any) -> Pending:
        run = core.run(name, **options)
        pending = Pending(queue, run, (lambda remarks: None) if said is None else said.append)
        queue.put(pending, run)
        return pending

    put.queue = queue  # type: ignore[attr-defined]
    return put


def test_one_look_is_enough_for_all(core: Core, queued: Any) -> None:
    results = [queued(name) for name in "abc"]
    for _ in range(2):
        for result in results:
            result.check()
    assert (core.ran, core.looks) == (["a", "b", "c"], 1)


def test_void_results_are_repeated(core: Core, queued: Any) -> None:
    """Of which of several results the core does not say: each is repeated by its own check."""
    first, second = queued("a", void=2), queued("b")
    first.check()
    assert core.ran == ["a", "b", "a", "a"]
    second.check()
    assert core.ran == ["a", "b", "a", "a", "b"]
    third = queued("c")
    third.check()
    assert core.ran[5:] == ["c"]


def test_a_check_of_everything(core: Core, queued: Any) -> None:
    result = queued("a", void=1)
    assert not queued.queue.settle()
    assert queued.queue.settle()
    result.check()
    assert core.ran == ["a", "a"]


def test_no_end_of_repeats_is_an_error(queued: Any) -> None:
    with pytest.raises(dpa2.Error, match="stays void"):
        queued("a", void=100).check()


def test_errors_are_those_of_the_result(core: Core, queued: Any) -> None:
    good, bad, other = queued("a"), queued("b", wrong=True), queued("c")
    good.check()
    other.check()
    for _ in range(2):
        with pytest.raises(dpa2.InputError, match="b is wrong"):
            bad.check()
    assert core.ran[:3] == ["a", "b", "c"]


def test_an_error_of_a_result_that_is_gone(queued: Any) -> None:
    bad, good = queued("a", wrong=True), queued("b")
    del bad
    gc.collect()
    good.check()
    alone = queued("c", wrong=True)
    with pytest.raises(dpa2.InputError, match="c is wrong"):
        alone.check()


def test_remarks_are_those_of_the_last_evaluation(queued: Any) -> None:
    said: list[Any] = []
    first, last = queued("a", said), queued("b", said)
    first.check()
    assert said == [[Remarks((), (0, 1, 2.0))]]
    last.check()
    assert len(said) == 1


def test_nothing_is_kept_of_results_that_stand(core: Core, queued: Any) -> None:
    class Kept:
        """What was evaluated."""

    held, gone = Kept(), []
    run, queue = core.run("a"), queued.queue

    def evaluate(what: Any = held) -> None:
        run()

    import weakref

    weakref.finalize(held, lambda: gone.append(True))
    pending = Pending(queue, evaluate, lambda remarks: None)
    queue.put(pending, evaluate)
    pending.check()
    del held, evaluate
    gc.collect()
    assert gone
