"""Adam and AdamW: parameters and their moments, changed in place step by step, each in its own precision.

Parameters lie one behind the other in one array per precision, so that a step is a few passes over pieces that fit into
the cache of a core. Those of a step without a gradient (of another task) stay as they are, moments and counts of steps
as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

#: what keeps a step finite where gradients vanish
EPSILON = 1e-8
#: the same for the norm that gradients are divided by
_NORM_EPSILON = 1e-6
#: numbers that are worked on at a time
_PIECE = 1 << 15

Array = NDArray[np.floating[Any]]


class Moments(NamedTuple):
    """What the optimizer keeps of a parameter: how often it was changed, and the averages of gradient and square."""

    step: int
    mean: Array
    square: Array


class _Place(NamedTuple):
    """Where a parameter lies: in which block, and from where to where."""

    block: int
    begin: int
    end: int
    shape: tuple[int, ...]


class _Block:
    """All parameters of one precision, one behind the other."""

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        self.values: Array = np.zeros(size, dtype)
        self.mean: Array = np.zeros(size, dtype)
        self.square: Array = np.zeros(size, dtype)
        self.gradient: Array = np.zeros(size, dtype)
        self.scratch: Array = np.empty(min(size, _PIECE), dtype)
        self.divisor: Array = np.empty(min(size, _PIECE), dtype)


class Adam:
    """Adam, or AdamW, with an optional bound of the norm of the gradient.

    Args:
        section: the ``optimizer`` section of an input: ``type`` "Adam" or "AdamW", ``adam_beta1``, ``adam_beta2``,
            ``weight_decay``. AdamW shrinks parameters in proportion to the learning rate, Adam adds to the gradient.
        parameters: the first values by name, float64 or float32 arrays, which decide the precision.
        max_norm: gradients whose Euclidean norm over all parameters is larger are scaled down to it; 0: none is.

    Raises:
        InputError: an optimizer of another type, or numbers that it cannot work with.
    """

    def __init__(self, section: Mapping[str, Any], parameters: Mapping[str, Array], max_norm: float = 0.0) -> None:
        kind = section.get("type", "Adam")
        if kind not in ("Adam", "AdamW"):
            raise InputError(f"optimizer.type must be Adam or AdamW, got {kind!r}")
        self.decoupled = kind == "AdamW"
        self.betas = (_beta(section, "adam_beta1", 0.9), _beta(section, "adam_beta2", 0.999))
        self.decay = float(section.get("weight_decay") or 0.0)
        if not (math.isfinite(self.decay) and self.decay >= 0):
            raise InputError(f"optimizer.weight_decay must be finite and not negative, got {self.decay!r}")
        self.max_norm = float(max_norm)
        if not (math.isfinite(self.max_norm) and self.max_norm >= 0):
            raise InputError(f"training.gradient_max_norm must be finite and not negative, got {self.max_norm!r}")
        self._places: dict[str, _Place] = {}
        self._blocks: list[_Block] = []
        self._steps: dict[str, int] = dict.fromkeys(parameters, 0)
        for dtype in sorted({value.dtype for value in parameters.values()}, key=str):
            at = 0
            for name, value in parameters.items():
                if value.dtype == dtype:
                    self._places[name] = _Place(len(self._blocks), at, at + value.size, value.shape)
                    at += value.size
            self._blocks.append(_Block(at, dtype))
        self._parameters = {name: self._view(name, "values") for name in parameters}
        self.assign(parameters)

    @property
    def parameters(self) -> Mapping[str, Array]:
        """The parameters as they are now, by name: views, which every step changes."""
        return self._parameters

    @property
    def blocks(self) -> list[Array]:
        """All parameters of each precision in one array, which may be written to."""
        return [block.values for block in self._blocks]

    def assign(self, parameters: Mapping[str, Array]) -> None:
        """Other values of some parameters; moments stay."""
        for name, value in parameters.items():
            self._parameters[name][...] = value

    def moments(self) -> dict[str, Moments]:
        """What is kept of those parameters that have been changed, as views."""
        return {
            name: Moments(step, self._view(name, "mean"), self._view(name, "square"))
            for name, step in self._steps.items()
            if step
        }

    def restore(self, moments: Mapping[str, Moments]) -> None:
        """Go on from what :meth:`moments` was; parameters that are not named begin anew."""
        for name in self._steps:
            found = moments.get(name)
            self._steps[name] = found.step if found else 0
            self._view(name, "mean")[...] = found.mean if found else 0
            self._view(name, "square")[...] = found.square if found else 0

    def step(self, gradient: Mapping[str, Array], rate: float) -> float:
        """Change the parameters that have a gradient; returns its norm.

        Raises:
            InputError: the norm is not finite. Nothing has been changed then.
        """
        for name, value in gradient.items():
            self._view(name, "gradient")[...] = value
        spans = list(self._spans(gradient))
        norm = self._norm(spans)
        if not math.isfinite(norm):
            worst = next((name for name, value in gradient.items() if not np.isfinite(value).all()), None)
            where = f"the gradient of {worst} has entries that are not finite" if worst else f"its norm is {norm}"
            raise InputError(f"the gradient of the loss cannot be used: {where}")
        factor = min(1.0, self.max_norm / (norm + _NORM_EPSILON)) if self.max_norm > 0 else 1.0
        for block, begin, end, count in spans:
            self._update(self._blocks[block], begin, end, count, factor, rate)
        for name in gradient:
            self._steps[name] += 1
        return norm

    def _view(self, name: str, what: str) -> Array:
        place = self._places[name]
        whole: Array = getattr(self._blocks[place.block], what)
        return whole[place.begin : place.end].reshape(place.shape)

    def _spans(self, names: Mapping[str, Any]) -> Iterator[tuple[int, int, int, int]]:
        """Pieces (block, begin, end, count of steps) that lie together, of parameters that are changed together."""
        block = begin = end = count = -1
        for name, place in self._places.items():
            steps = self._steps[name] + 1
            if name in names and (place.block, place.begin, steps) == (block, end, count):
                end = place.end
                continue
            if end > begin:
                yield block, begin, end, count
            block = begin = end = count = -1
            if name in names:
                block, begin, end, count = place.block, place.begin, place.end, steps
        if end > begin:
            yield block, begin, end, count

    def _norm(self, spans: list[tuple[int, int, int, int]]) -> float:
        """The Euclidean norm, summed in float64."""
        total = 0.0
        for block, begin, end, _ in spans:
            for at in range(begin, end, _PIECE):
                piece = self._blocks[block].gradient[at : min(at + _PIECE, end)].astype(np.float64)
                np.multiply(piece, piece, out=piece)
                total += float(piece.sum())  # not by a library whose order of sums its threads decide
        return math.sqrt(total)

    def _update(self, block: _Block, begin: int, end: int, count: int, factor: float, rate: float) -> None:
        first, second = self.betas
        size = rate / (1 - first**count)
        root = math.sqrt(1 - second**count)
        for at in range(begin, end, _PIECE):
            piece = slice(at, min(at + _PIECE, end))
            values, mean, square = block.values[piece], block.mean[piece], block.square[piece]
            gradient = block.gradient[piece]
            scratch, divisor = block.scratch[: len(values)], block.divisor[: len(values)]
            if factor != 1.0:
                gradient *= factor
            if self.decay and self.decoupled:
                values *= 1 - rate * self.decay
            elif self.decay:
                np.multiply(values, self.decay, out=scratch)
                gradient += scratch
            np.subtract(gradient, mean, out=scratch)
            scratch *= 1 - first
            mean += scratch
            np.multiply(gradient, 1 - second, out=scratch)
            scratch *= gradient
            square *= second
            square += scratch
            np.sqrt(square, out=divisor)
            divisor /= root
            divisor += EPSILON
            np.multiply(mean, -size, out=scratch)
            scratch /= divisor
            values += scratch


def _beta(section: Mapping[str, Any], key: str, default: float) -> float:
    value = section.get(key)
    value = default if value is None else float(value)
    if not 0 <= value < 1:
        raise InputError(f"optimizer.{key} must be at least 0 and below 1, got {value!r}")
    return value
