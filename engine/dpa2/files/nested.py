"""Arrays and trees written as text: JSON objects, and nested lists that become arrays within a budget."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpa2.errors import ModelFileError

MAX_DIMENSIONS = 8


def load_json(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises :class:`ModelFileError` for anything else, deep nesting included."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelFileError(f"corrupt file: {what[:100]} is not valid JSON") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"corrupt file: {what[:100]} is not a JSON object")
    return value


class Budget:
    """How many numbers may still be made: repeated references could otherwise multiply what a file holds."""

    def __init__(self, numbers: int) -> None:
        self.left = numbers

    def spend(self, numbers: int) -> None:
        """Take from the budget, or raise."""
        self.left -= numbers
        if self.left < 0:
            raise ModelFileError("hostile file: its arrays have more numbers than the file can hold")


class NestedTensor:
    """Nested lists of numbers with a dtype name; the shape is that of the first element of each level."""

    __slots__ = ("_budget", "_dtype", "_name", "_value", "shape")

    def __init__(self, value: Any, dtype: Any, budget: Budget, name: str) -> None:
        if not isinstance(dtype, str) or dtype not in ("float64", "float32", "float16", "bfloat16"):
            shown = repr(dtype[:20]) if isinstance(dtype, str) else type(dtype).__name__
            raise ModelFileError(f"corrupt file: {name!r} is of dtype {shown}, not floating point")
        shape: list[int] = []
        level = value
        while isinstance(level, list):
            shape.append(len(level))
            if len(shape) > MAX_DIMENSIONS:
                raise ModelFileError(f"corrupt file: the array {name!r} has too many dimensions")
            level = level[0] if level else None
        self.shape = tuple(shape)
        self._value, self._budget, self._name = value, budget, name
        self._dtype = "float64" if dtype == "float64" else "float32"

    def numpy(self) -> NDArray[Any]:
        """The array; float32 for the half-precision types."""
        count = 1
        for n in self.shape:
            count *= max(n, 1)  # empty lists may be repeated as well
        self._budget.spend(count)
        flat: list[Any] = [self._value]
        for n in self.shape:
            if not all(isinstance(row, list) and len(row) == n for row in flat):
                raise ModelFileError(f"corrupt file: the lists of the array {self._name!r} differ in length")
            flat = [item for row in flat for item in row]
        if not all(type(item) is float or type(item) is int for item in flat):
            raise ModelFileError(f"corrupt file: the array {self._name!r} holds something else than numbers")
        try:
            return np.array(flat, dtype=self._dtype).reshape(self.shape)
        except OverflowError:
            raise ModelFileError(f"corrupt file: a number of the array {self._name!r} is too large") from None
