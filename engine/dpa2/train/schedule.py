"""Learning rates: how large the steps of an optimizer are, step by step, as deepmd-kit's schedules have them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InputError

#: below this no rate is aimed at when a decay is derived from where it ends
_LEAST_STOP = 1e-10


class Schedule:
    """The learning rate of every step of a run.

    A linear rise over the warm-up steps, then a decay: "exp", "cosine" or "wsd" (constant, then a decay of some form).

    Args:
        section: the ``learning_rate`` section of an input, defaults filled in or not.
        steps: how many steps the whole run has, those of the warm-up included.

    Attributes:
        start: the rate at the end of the warm-up. Prefactors of losses follow the ratio of the rate to it.
        stop: the rate that the decay ends at.
        warmup: the number of warm-up steps.

    Raises:
        InputError: what the section says cannot be followed; the message names the key.
    """

    def __init__(self, section: Mapping[str, Any], steps: int) -> None:
        check_ends(section)
        self.steps = steps
        self.start = _positive(section, "start_lr")
        self.stop = self._stop(section)
        self.warmup = self._warmup(section)
        given = section.get("warmup_start_factor")
        self._first = (0.0 if given is None else _amount(section, "warmup_start_factor")) * self.start
        self._length = steps - self.warmup
        kind = section.get("type", "exp")
        kinds: dict[str, Callable[[Mapping[str, Any]], Callable[[int], float]]]
        kinds = {"exp": self._exponential, "cosine": self._cosine, "wsd": self._stable_then_decay}
        if kind not in kinds:
            raise InputError(f"learning_rate.type must be one of {', '.join(kinds)}, got {kind!r}")
        self._decay = kinds[kind](section)

    def rate(self, step: int) -> float:
        """The learning rate of a step; the first step is 0. deepmd-kit takes it by way of its ratio to the first."""
        return self.start * (self._value(step) / self.start)

    def _value(self, step: int) -> float:
        if step < self.warmup:
            return self._first + (self.start - self._first) * (step / self.warmup)
        return self._decay(step - self.warmup)

    def _stop(self, section: Mapping[str, Any]) -> float:
        if section.get("stop_lr_ratio") is None:
            return _amount(section, "stop_lr")
        return self.start * _amount(section, "stop_lr_ratio")

    def _warmup(self, section: Mapping[str, Any]) -> int:
        steps, ratio = section.get("warmup_steps") or 0, section.get("warmup_ratio")
        if ratio is not None:
            steps = int(ratio * self.steps)
        if steps < 0 or (steps >= self.steps and steps > 0):
            name = "warmup_steps" if ratio is None else "warmup_ratio"
            raise InputError(
                f"learning_rate.{name} makes {steps} steps of warm-up; they must be fewer than the {self.steps} steps "
                "of the run, and not below 0"
            )
        return int(steps)

    def _exponential(self, section: Mapping[str, Any]) -> Callable[[int], float]:
        interval, rate = section.get("decay_steps", 5000), section.get("decay_rate")
        if not interval > 0:
            raise InputError(f"learning_rate.decay_steps must be above 0, got {interval!r}")
        if rate is None:
            if interval >= self._length:
                interval = 100 if self._length // 10 > 100 else self._length // 100 + 1
            ratio = max(self.stop, _LEAST_STOP) / self.start
            rate = math.exp(math.log(ratio) / (self._length / interval)) if self._length else 1.0
        else:
            rate = _positive(section, "decay_rate")
            if rate > 1:
                raise InputError(f"learning_rate.decay_rate must be at most 1, got {rate!r}")
        smooth = bool(section.get("smooth"))

        def value(step: int) -> float:
            exponent = step / interval if smooth else float(step // interval)
            return max(self.start * float(rate**exponent), self.stop)

        return value

    def _cosine(self, section: Mapping[str, Any]) -> Callable[[int], float]:
        least = self.stop / self.start

        def value(step: int) -> float:
            if self._length == 0:
                return self.start
            if step >= self._length:
                return self.start * least
            return self.start * (least + 0.5 * (1 - least) * (1 + math.cos(math.pi * (step / self._length))))

        return value

    def _stable_then_decay(self, section: Mapping[str, Any]) -> Callable[[int], float]:
        ratio, form = section.get("decay_phase_ratio", 0.1), section.get("decay_type", "inverse_linear")
        if not 0 < ratio <= 1:
            raise InputError(f"learning_rate.decay_phase_ratio must be above 0 and at most 1, got {ratio!r}")
        start, stop = self.start, self.stop
        forms: dict[str, Callable[[float], float]] = {
            "inverse_linear": lambda part: 1 / (part / stop + (1 - part) / start),
            "cosine": lambda part: stop + (start - stop) * 0.5 * (1 + math.cos(math.pi * part)),
            "linear": lambda part: start + (stop - start) * part,
        }
        if form not in forms:
            raise InputError(f"learning_rate.decay_type must be one of {', '.join(forms)}, got {form!r}")
        length = max(1, min(int(ratio * self.steps), self._length))
        stable = self._length - length

        def value(step: int) -> float:
            if step >= self._length:
                return stop
            if step < stable:
                return start
            return forms[form](min(1.0, max(0.0, (step - stable) / length)))

        return value


def check_ends(section: Mapping[str, Any]) -> None:
    """How the keys of a ``learning_rate`` section go together that say how rates begin and end.

    Raises:
        InputError: not one of ``stop_lr`` and ``stop_lr_ratio`` is given; two lengths of the warm-up are; a decay of
            type "wsd" ends at 0.
    """
    value, ratio = section.get("stop_lr"), section.get("stop_lr_ratio")
    if (value is None) == (ratio is None):
        both = "both are given" if value is not None else "neither is"
        raise InputError(f"learning_rate needs one of stop_lr and stop_lr_ratio, and {both}")
    if section.get("warmup_steps") and section.get("warmup_ratio") is not None:
        raise InputError("learning_rate takes one of warmup_steps and warmup_ratio, and both are given")
    if section.get("type") == "wsd" and 0 in (value, ratio):
        key = "stop_lr" if ratio is None else "stop_lr_ratio"
        raise InputError(f"learning_rate ends at 0, but type wsd needs one above: {key} must be above 0, got 0")


def _amount(section: Mapping[str, Any], key: str) -> float:
    """A number of the section that is finite and not negative."""
    value = section.get(key)
    sound = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if not sound:
        raise InputError(f"learning_rate.{key} must be a number that is finite and not negative, got {value!r}")
    assert value is not None
    return float(value)


def _positive(section: Mapping[str, Any], key: str) -> float:
    value = _amount(section, key)
    if value == 0:
        raise InputError(f"learning_rate.{key} must be above 0, got {value!r}")
    return value
