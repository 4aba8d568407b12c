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
        self.wrong: list[str] = []
        self.eager = False  # what was wrong is found at the next evaluation already
        self.void, self.looks = False, 0

    def say(self) -> None:
        if self.wrong:
            raise dpa2.InputError(f"{self.wrong.pop(0)} is wrong")

    def run(self, name: str, void: int = 0, wrong: bool = False) -> Callable[[], None]:
        left = [void]

        def evaluate() -> None:
            if self.eager:
                self.say()
            self.ran.append(name)
            self.void |= left[0] > 0
            left[0] -= 1
            if wrong:
                self.wrong.append(name)

        return evaluate

    def check(self) -> tuple[bool, list[Any]]:
        self.looks += 1
        self.say()
        stands, self.void = not self.void, False
        return stands, [((), (0, 1, float(len(self.ran))))]


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def queued(core: Core) -> Callable[..., Pending]:
    queue = Queue(core)

    def put(name: str, said: list[Any] | None = None, **options: Any) -> Pending:
        run = core.run(name, **options)
        pending = Pending(queue, run, (said if said is not None else []).extend)
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
    assert not queued.queue.check()
    assert queued.queue.check()
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
    assert said == []
    for _ in range(2):
        last.check()
        assert said == [Remarks((), (0, 1, 2.0))]
    queued("c", said)
    kept = queued("d", said)
    assert queued.queue.check()
    assert said[1:] == [Remarks((), (0, 1, 4.0))]
    kept.check()
    assert len(said) == 2


def test_nothing_is_kept_of_results_that_stand(core: Core, queued: Any) -> None:
    class Kept:
        """What was evaluated."""

    held, gone = Kept(), []
    run, queue = core.run("a"), queued.queue

    def evaluate(what: Any = held) -> None:
        run()

    import weakref

    weakref.finalize(held, lambda: gone.append(True))

    def say(remarks: Any, what: Any = held) -> None:
        pass

    pending = Pending(queue, evaluate, say)
    queue.put(pending, evaluate)
    pending.check()
    del held, evaluate, say
    gc.collect()
    assert gone


@pytest.mark.parametrize("eager", [False, True])
def test_two_that_are_wrong(core: Core, queued: Any, eager: bool) -> None:
    first, second, good = queued("a", wrong=True), queued("b", wrong=True), queued("c")
    core.eager = eager
    for _ in range(2):
        for result, name in ((second, "b"), (first, "a")):
            with pytest.raises(dpa2.InputError, match=f"{name} is wrong"):
                result.check()
        good.check()


def test_the_next_evaluation_finds_what_was_wrong(core: Core, queued: Any) -> None:
    core.eager = True
    good, bad = queued("a"), queued("b", wrong=True)
    with pytest.raises(dpa2.InputError, match="b is wrong"):
        queued("c")
    assert core.ran == ["a", "b"]
    good.check()
    with pytest.raises(dpa2.InputError, match="b is wrong"):
        bad.check()
    queued("d").check()


def test_arrays_of_the_host_are_not_told_of_others(core: Core, queued: Any) -> None:
    core.eager = True
    bad = queued("a", wrong=True)
    answer = core.run("host")
    assert queued.queue.pass_by(lambda: (answer(), 7)[1]) == 7
    with pytest.raises(dpa2.InputError, match="a is wrong"):
        bad.check()

    def fails() -> None:
        raise dpa2.InputError("of its own")

    queued("b")
    for _ in range(2):
        with pytest.raises(dpa2.InputError, match="of its own"):
            queued.queue.pass_by(fails)
