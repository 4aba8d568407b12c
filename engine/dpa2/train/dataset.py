"""A data section of the input: its systems, how large batches are, how often each system is drawn."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..inputs import Float
from .batch import Label
from .order import Draw
from .systems import Batch, System, batch_neighbors, find, where

#: systems whose files are kept open
_MOST_OPEN = 64
_ATOMS = re.compile(r"[1-9][0-9]{0,8}")


class DataSet:
    """The systems of ``training_data`` or ``validation_data``.

    Args:
        section: in deepmd-kit's names, defaults filled in: ``systems``, ``rglob_patterns``, ``batch_size``,
            ``auto_prob``, ``sys_probs`` and, of training data, ``min_pair_dist``.
        type_map: the names of the model's types.
        labels: that the training reads; :func:`labels_of` has those of a model and its loss.
        name: the key of the section, for messages.
        key: where the paths of the systems are given, for messages; by default the section's ``systems``.
        shares: of how many processes a batch is, each of which has as many frames as ``batch_size`` says.

    Attributes:
        systems: in order. ``sizes``: frames of a batch of each. ``lengths``: batches of each.
        probabilities: (nsystems,) that a batch is one of the system's.
        min_pair_dist: frames with atoms that are closer, angstrom, are left out of batches; 0: none.

    Raises:
        InputError: no such systems, or what is wrong with them or with a key of the section.
    """

    def __init__(
        self,
        section: Mapping[str, Any],
        type_map: Sequence[str],
        labels: Sequence[Label],
        name: str = "training.training_data",
        key: str | None = None,
        shares: int = 1,
    ) -> None:
        paths = find(section["systems"], section.get("rglob_patterns"), key or f"{name}.systems")
        systems = [System(path, type_map, labels) for path in paths]
        rule = section.get("batch_size", "auto")
        sizes = batch_sizes(rule, [system.natoms for system in systems], f"{name}.batch_size")
        self.type_map = list(type_map)
        self.systems = [system for system, size in zip(systems, sizes, strict=True) if size]
        self.sizes = [shares * size for size in sizes if size]
        if not self.systems:
            raise InputError(f"{name}.batch_size: {rule!r} leaves no system: every one has more atoms")
        for system, size in zip(self.systems, self.sizes, strict=True):
            if size > 1:
                system.check_labels_of_batches()
        self.lengths = [math.ceil(s.nframes / size) for s, size in zip(self.systems, self.sizes, strict=True)]
        self.probabilities = probabilities(self.lengths, section.get("auto_prob"), section.get("sys_probs"), name)
        self.min_pair_dist = float(section.get("min_pair_dist") or 0.0)
        self._open: OrderedDict[int, System] = OrderedDict()

    @property
    def frames(self) -> list[int]:
        """Of each system."""
        return [system.nframes for system in self.systems]

    @property
    def epoch(self) -> int:
        """Batches after which every system is expected to have been drawn as often as it has batches."""
        lengths, drawn = np.array(self.lengths), self.probabilities > 0
        return math.ceil(float((lengths[drawn] / self.probabilities[drawn]).max()))

    def found(self, label: str) -> list[str]:
        """The paths of the systems that have a label."""
        return [system.path for system in self.systems if system.found.get(label)]

    def read(self, draw: Draw) -> Batch | None:
        """A batch; None if all its frames have atoms that are too close to each other.

        Raises:
            InputError: what is wrong with a frame, which is named.
        """
        system = self._opened(draw.system)
        batch = system.batch(draw.frames)
        batch["system"], batch["frames"] = draw.system, np.asarray(draw.frames)
        keep = left_frames(batch, self.min_pair_dist, len(self.type_map))
        return select(batch, keep) if keep else None

    def where(self, draw: Draw) -> str:
        """Which frames a batch has, for messages."""
        return where(self.systems[draw.system].path, draw.frames)

    def _opened(self, k: int) -> System:
        """A system whose files stay open for a while."""
        system = self._open.pop(k, None)
        if system is None:
            system = self.systems[k]
            system.__enter__()
        self._open[k] = system
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].__exit__()
        return system

    def close(self) -> None:
        """Close the files; what is read later opens them again."""
        while self._open:
            self._open.popitem()[1].__exit__()


def left_frames(batch: Batch, min_pair_dist: float, ntypes: int) -> list[int]:
    """The frames of a batch without two atoms that are closer than this; 0: all."""
    rows = range(len(batch["coord"]))
    return list(rows) if min_pair_dist <= 0.0 else [f for f in rows if not _too_close(batch, f, min_pair_dist, ntypes)]


def _too_close(batch: Batch, f: int, distance: float, ntypes: int) -> bool:
    found = batch_neighbors(batch, f, distance, ntypes)
    centre = np.repeat(np.arange(batch["atype"].shape[1]), np.diff(found["start"]))
    others = found["j"] != centre  # an image of the atom itself is no pair
    return bool((found["r"][others] < distance).any())


def select(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some frames of a batch."""
    if len(rows) == len(batch["coord"]):
        return batch
    return {
        name: value[list(rows)] if isinstance(value, np.ndarray) and value.ndim else value
        for name, value in batch.items()
    }


def batch_rule(rule: str, name: str = "batch_size") -> tuple[str, int]:
    """The kind of a rule, "auto", "max", "filter" or "mix", and its number of atoms.

    Args:
        rule: "auto", which is of 32 atoms, "auto:N", "max:N", "filter:N", and of LMDB data sets "mix:N".
        name: of the key, for messages.

    Raises:
        InputError: it is none of these.
    """
    kind, colon, word = rule.partition(":")
    if kind == "mixed":
        raise InputError(f'{name}: "mixed:N" is not there: batches are of one system; "max:N" is near it')
    if kind not in ("auto", "max", "filter", "mix") or (not colon and kind != "auto"):
        raise InputError(
            f'{name} must be a number, a list, "auto", "auto:N", "max:N", "filter:N" or of an LMDB data set "mix:N", '
            f"got {rule!r}"
        )
    if colon and not _ATOMS.fullmatch(word):
        hint = "" if len(word) < 10 else ", below 1e9"
        raise InputError(f"{name}: {kind}: must be followed by a positive integer{hint}, got {rule!r}")
    return kind, int(word) if colon else 32


def batch_sizes(rule: Any, natoms: Sequence[int], name: str = "batch_size") -> list[int]:
    """Frames of a batch of each system; 0 for a system that is left out.

    Args:
        rule: an integer, a list of one per system, or "auto", "auto:N", "max:N" or "filter:N".
        natoms: of each system.
        name: of the key, for messages.

    Raises:
        InputError: no such rule.
    """
    if isinstance(rule, (list, tuple)):
        if len(rule) != len(natoms):
            raise InputError(f"{name} has {len(rule)} entries, but there are {len(natoms)} systems")
        return [_checked_size(size, f"{name}[{k}]") for k, size in enumerate(rule)]
    if not isinstance(rule, str):
        return [_checked_size(rule, name)] * len(natoms)
    kind, most = batch_rule(rule, name)
    if kind == "mix":
        raise InputError(f'{name}: "mix:N" is for LMDB data sets alone, got {rule!r}')
    if kind == "auto":
        return [math.ceil(most / n) for n in natoms]
    return [0 if kind == "filter" and n > most else max(1, most // n) for n in natoms]


def _checked_size(size: Any, name: str) -> int:
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise InputError(f"{name} must be a positive number of frames, got {size!r}")
    return int(size)


def probabilities(
    lengths: Sequence[int], auto_prob: str | None = None, sys_probs: Sequence[float] | None = None, name: str = "data"
) -> Float:
    """How likely a batch is one of each system's: (nsystems,).

    Args:
        lengths: batches of each system.
        auto_prob: "prob_uniform", "prob_sys_size" (as many batches as there are) or "prob_sys_size;a:b:w;...", where
            the systems from ``a`` to before ``b`` share a weight.
        sys_probs: goes before it: one number per system; those with a negative one share what is left, by their
            batches.
        name: of the section, for messages.

    Raises:
        InputError: numbers that are no probabilities of so many systems.
    """
    sizes = np.array(lengths, dtype=np.float64)
    if sys_probs is not None:
        return _given_probabilities(sizes, sys_probs, f"{name}.sys_probs")
    style = auto_prob or "prob_sys_size"
    if style == "prob_uniform":
        return np.full(len(sizes), 1.0 / len(sizes))
    if style == "prob_sys_size":
        style = f"prob_sys_size;0:{len(sizes)}:1.0"
    key = f"{name}.auto_prob"
    blocks = blocks_of(style, len(sizes), key)
    total = sum(weight for _, _, weight in blocks)
    out = np.zeros(len(sizes))
    for begin, end, weight in blocks:
        part = sizes[begin:end]
        out[begin:end] = part / part.sum() * (weight / total)
    return out


def blocks_of(style: str, nsystems: int, key: str) -> list[tuple[int, int, float]]:
    """Begin, end and weight of the parts of "prob_sys_size;begin:end:weight;...".

    Raises:
        InputError: it is something else, parts overlap, or no weight is positive.
    """
    if not style.startswith("prob_sys_size;"):
        wanted = '"prob_uniform", "prob_sys_size" or "prob_sys_size;begin:end:weight;..."'
        raise InputError(f"{key} must be {wanted}, got {style!r}")
    blocks = [_block(text, nsystems, key) for text in style.split(";")[1:]]
    if not sum(weight for _, _, weight in blocks) > 0.0:
        raise InputError(f"{key}: the weights of {style!r} are all zero")
    seen: set[int] = set()
    for begin, end, _ in blocks:
        twice = seen & set(range(begin, end))
        if twice:
            raise InputError(f"{key}: system {min(twice)} is in two parts of {style!r}")
        seen |= set(range(begin, end))
    return blocks


def _block(text: str, nsystems: int, key: str) -> tuple[int, int, float]:
    words = text.split(":")
    try:
        begin, end, weight = int(words[0]), int(words[1]), float(":".join(words[2:]))
    except (ValueError, IndexError):
        raise InputError(f"{key}: {text!r} must be begin:end:weight") from None
    if not 0 <= begin < end <= nsystems:
        raise InputError(f"{key}: {text!r} asks for systems {begin} to {end}, but there are {nsystems}")
    if not (math.isfinite(weight) and weight >= 0.0):
        raise InputError(f"{key}: the weight in {text!r} must be a number that is not negative")
    return begin, end, weight


def _given_probabilities(sizes: Float, given: Sequence[float], key: str) -> Float:
    if len(given) != len(sizes):
        raise InputError(f"{key} has {len(given)} entries, but there are {len(sizes)} systems")
    values = np.array(given, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{key}: {values[~np.isfinite(values)][0]:g} is no probability")
    fixed = values >= 0.0
    total = float((fixed * values).sum())
    rest = 1.0 - total
    if total > 1.0 + 1e-8:
        raise InputError(f"{key}: the probabilities that are given add up to {total:g}, which is more than 1")
    if np.isclose(rest, 0.0):
        return np.where(fixed, values, 0.0)
    if fixed.all():
        raise InputError(f"{key}: the probabilities add up to {total:g}; they must add up to 1, or one be negative")
    shares = np.where(fixed, 0.0, sizes)
    return np.asarray(rest * shares / shares.sum() + fixed * values, dtype=np.float64)
