"""Exponential moving averages of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .keys import Key

Array = NDArray[np.floating[Any]]
#: the key of an input that says how averages fade
DECAY = Key("ema_decay", ("number",), 0.999, lowest=0, below=1)


class MovingAverage:
    """Averages of parameters over the steps of a run; older values fade by ``decay`` from step to step.

    They start from the first values and are not corrected for that. Each is in the precision of its parameter.

    Args:
        decay: the weight of what was, at least 0 and below 1.
        parameters: the first values by name.

    Raises:
        InputError: no such decay.
    """

    def __init__(self, decay: float, parameters: Mapping[str, Array]) -> None:
        DECAY.check(decay, "training.ema_decay")
        self.decay = float(decay)
        self.values: dict[str, Array] = {name: value.copy() for name, value in parameters.items()}

    def update(self, parameters: Mapping[str, Array]) -> None:
        """Take in the parameters after a step."""
        weight = 1 - self.decay
        for name, value in self.values.items():
            difference = parameters[name] - value
            if weight < 0.5:
                difference *= weight
                value += difference
            else:  # so that a weight of 1 gives the parameter itself
                difference *= 1 - weight
                np.subtract(parameters[name], difference, out=value)

    def restore(self, values: Mapping[str, Array]) -> None:
        """Go on from what :attr:`values` were."""
        for name, value in self.values.items():
            value[...] = values[name]
