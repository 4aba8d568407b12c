"""The random numbers of PyTorch's generator on the CPU, with NumPy alone: the same seeds give the same training.

The generator is the Mersenne Twister MT19937. How PyTorch makes doubles, normal deviates and permutations of its
outputs was read off what it returns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..inputs import Float

#: an integer, or the path of one: the indices that lead to a part of a model, the innermost first, then the integer
Seed: TypeAlias = int | Sequence[int]
Shape: TypeAlias = int | tuple[int, ...]
DType: TypeAlias = Literal["float64", "float32"]

_WORD = (1 << 64) - 1
#: a fill of at least so many normal deviates is made in blocks of this size
_BLOCK = 16


def mix(entries: Sequence[int]) -> int:
    """One seed of several integers, as deepmd-kit makes it: the hash of NumPy's SeedSequence with 64-bit words.

    Args:
        entries: not negative, at least one.

    Returns:
        A number of 64 bits; of one entry, its hash.
    """
    if len(entries) == 0 or any(entry < 0 for entry in entries):
        raise InputError(f"a seed must be made of integers that are not negative, got {list(entries)}")
    mixed = _hashed(entries[0])
    for entry in entries[1:]:
        word = (0xCA01F9DD * mixed - 0x4973F715 * _hashed(entry)) & _WORD
        mixed = word ^ (word >> 16)
    return mixed


def _hashed(entry: int) -> int:
    word = ((entry ^ 0x43B0D7E5) * 0x43B0D7E5) & _WORD
    return word ^ (word >> 16)


def child(seed: Seed | None, index: int) -> list[int] | None:
    """The seed of a part of what has this seed; None, which is drawing from a global generator, stays None."""
    if seed is None:
        return None
    return [index, seed] if isinstance(seed, int) else [index, *seed]


def fresh_seed() -> int:
    """Of what has no seed: another one each time."""
    return int(np.random.SeedSequence().generate_state(1)[0])


class Generator:
    """PyTorch's generator on the CPU.

    Args:
        seed: an integer is taken as it is, of which 32 bits count; several are mixed first.
    """

    def __init__(self, seed: Seed) -> None:
        self._bits = np.random.MT19937()
        self._kept: float | None = None
        self.seed(seed)

    def seed(self, seed: Seed) -> None:
        """Start anew."""
        start = seed if isinstance(seed, int) else mix(seed)
        if start < 0:
            raise InputError(f"a seed must not be negative, got {start}")
        # only the legacy generator is started as the Mersenne Twister was published
        key = np.random.RandomState(start & 0xFFFFFFFF).get_state(legacy=False)["state"]
        self.state = {**key, "kept": None}

    @property
    def state(self) -> dict[str, Any]:
        """Where it stands: ``key`` (624,) uint32, ``pos``, and ``kept``, a normal deviate or None."""
        inner = self._bits.state["state"]
        return {"key": np.array(inner["key"], dtype=np.uint32), "pos": int(inner["pos"]), "kept": self._kept}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        key = np.asarray(state["key"], dtype=np.uint32)
        self._bits.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": int(state["pos"])}}
        self._kept = None if state["kept"] is None else float(state["kept"])

    def bits32(self, count: int) -> NDArray[np.uint64]:
        """``count`` outputs of 32 bits."""
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def bits64(self) -> int:
        """64 bits: the first output is the upper half."""
        high, low = (int(word) for word in self.bits32(2))
        return high << 32 | low

    def doubles(self, count: int) -> Float:
        """Numbers in [0, 1), each of the lower 53 of 64 bits."""
        halves = self.bits32(2 * count).reshape(count, 2)
        lower = (halves[:, 0] << np.uint64(32) | halves[:, 1]) & np.uint64((1 << 53) - 1)
        return np.asarray(lower.astype(np.float64) * 2.0**-53)

    def _unit(self, count: int, dtype: DType) -> NDArray[Any]:
        """Numbers in [0, 1) of a type: those in single precision take one output each, of which 24 bits count."""
        if dtype == "float64":
            return self.doubles(count)
        lower = self.bits32(count) & np.uint64((1 << 24) - 1)
        return np.asarray(lower.astype(np.float32) * np.float32(2.0**-24))

    def uniform(self, shape: Shape, a: float = 0.0, b: float = 1.0, dtype: DType = "float64") -> NDArray[Any]:
        """Numbers in [a, b), in the order of memory; a rounding from PyTorch's, which may round once less."""
        kind = np.dtype(dtype).type
        numbers = self._unit(math.prod(_sides(shape)), dtype).astype(np.float64)
        return (numbers * float(kind(b - a)) + float(kind(a))).astype(dtype).reshape(shape)

    def normal(self, shape: Shape, mean: float = 0.0, std: float = 1.0, dtype: DType = "float64") -> NDArray[Any]:
        """Normal deviates, in the order of memory.

        Fewer than 16 are made in pairs, in double precision, of which the second is kept for the next such fill. In
        single precision the logarithms and angles of longer fills are those of NumPy, a rounding from PyTorch's.
        """
        count = math.prod(_sides(shape))
        kind = np.dtype(dtype).type
        if count < _BLOCK:
            few = np.array([self._deviate() * std + mean for _ in range(count)], dtype=dtype)
            return few.reshape(shape)
        numbers = self._unit(count, dtype)
        whole = count - count % _BLOCK
        numbers[:whole] = _deviates(numbers[:whole])
        if whole < count:
            # the last block is not filled up but drawn again, over the end of the block before it
            numbers[-_BLOCK:] = _deviates(self._unit(_BLOCK, dtype))
        return np.asarray(numbers * kind(std) + kind(mean)).reshape(shape)

    def _deviate(self) -> float:
        if self._kept is not None:
            kept, self._kept = self._kept, None
            return kept
        first, second = (float(number) for number in self.doubles(2))
        radius, angle = math.sqrt(-2.0 * math.log1p(-second)), 2.0 * math.pi * first
        self._kept = radius * math.sin(angle)
        return radius * math.cos(angle)


def _sides(shape: Shape) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _deviates(numbers: NDArray[Any]) -> NDArray[Any]:
    """Box and Muller's transform in blocks: the first half of a block gives radii, the second one angles."""
    blocks = numbers.reshape(-1, 2, _BLOCK // 2)
    kind = numbers.dtype.type
    radius = np.sqrt(kind(-2.0) * np.log(kind(1.0) - blocks[:, 0]))
    angle = kind(2.0 * math.pi) * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
