"""An LMDB data set to train on: frames of any composition, in batches of frames with as many atoms.

Batches are drawn as deepmd-kit draws them, with NumPy's generator: every pass shuffles the frames of each group, cuts
them into batches, and shuffles the batches of all groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.lmdb_frames import LmdbFrames
from ..errors import InputError
from ..inputs import Float
from .batch import Label
from .dataset import batch_rule, batch_sizes, blocks_of, left_frames, probabilities, select
from .order import Draw
from .random import Generator
from .systems import Batch, finite, types_in, where

Numbers = NDArray[np.int64]
#: frames that are looked at to see whether all have the same labels
_PROBED = 256
#: labels without which deepmd-kit takes ones
_ONES = ("atom_ener_coeff",)
#: numbers of neighbours are counted in so many frames at most, which are drawn with this seed
_COUNTED, _COUNTED_SEED = 2000, 42


class LmdbSet:
    """What :class:`~dpa2.train.dataset.DataSet` is for systems, for one LMDB data set.

    The arguments are the same. ``systems`` are groups of frames that can be in one batch: of as many atoms, and with
    the same labels. ``batch_size`` may be "mix:N" as well: frames of different size, with places without atoms, of at
    most N places together.

    Raises:
        InputError: no such data set, or what is wrong with it or with a key of the section.
    """

    def __init__(
        self,
        section: Mapping[str, Any],
        type_map: Sequence[str],
        labels: Sequence[Label],
        name: str = "training.training_data",
        shares: int = 1,
    ) -> None:
        path = section["systems"]
        self.source = LmdbFrames(path)
        self.type_map, self.labels = list(type_map), list(labels)
        self.min_pair_dist = float(section.get("min_pair_dist") or 0.0)
        rule = section.get("batch_size", "auto")
        self.mixed = isinstance(rule, str) and rule.startswith("mix:")
        counts = np.unique(self.source.natoms)
        if isinstance(rule, (list, tuple)):
            raise InputError(f"{name}.batch_size: an LMDB data set has one batch size, got a list")
        if counts[0] == 0:
            frame = int(np.argmin(self.source.natoms))
            raise InputError(f"{self.source.where(frame)}: a frame without atoms cannot be trained on")
        budget = batch_rule(rule, f"{name}.batch_size")[1] if self.mixed else 0
        self._budget = shares * budget
        rule_of_size = f"max:{budget}" if self.mixed else rule  # of statistics, whose batches are of one size
        sizes = batch_sizes(rule_of_size, counts.tolist(), f"{name}.batch_size")
        size_of = dict(zip(counts.tolist(), sizes, strict=True))
        if not any(sizes):
            raise InputError(f"{name}.batch_size: {rule!r} leaves no frame: every one has more atoms")
        kept = np.flatnonzero(np.array([size_of[n] > 0 for n in self.source.natoms.tolist()]))
        self._natoms = self.source.natoms
        groups = [kept[self._natoms[kept] == n] for n in counts if size_of[int(n)]]
        signatures = self._signatures(kept)
        self.groups = [part for group in groups for part in _split(group, signatures)]
        self.sizes = [shares * size_of[int(self._natoms[group[0]])] for group in self.groups]
        self.lengths = [math.ceil(len(group) / size) for group, size in zip(self.groups, self.sizes, strict=True)]
        self.probabilities = np.array(self.lengths) / sum(self.lengths)
        self._mixable = _split(kept, signatures)
        self._copies = _copies(section.get("auto_prob"), self.source.systems, kept, name)

    @property
    def epoch(self) -> int:
        """Batches of a pass."""
        return len(self.pass_over(0))

    @property
    def frames(self) -> list[int]:
        """Of each group."""
        return [len(group) for group in self.groups]

    @property
    def systems(self) -> list[LmdbSet]:
        """Itself alone."""
        return [self]

    def _signatures(self, kept: Numbers) -> NDArray[np.int64] | None:
        """Of each frame a number for the labels that it has; None if all have the same ones."""
        tracked = [label.name for label in self.labels if not label.required and label.name not in _ONES]
        if not tracked:
            return None

        def has(number: int) -> tuple[bool, ...]:
            frame = self.source.frame(number)
            return tuple(_available(frame, label) for label in tracked)

        count = min(len(kept), _PROBED)
        if len({has(int(kept[len(kept) * k // count])) for k in range(count)}) == 1:
            return None
        known: dict[tuple[bool, ...], int] = {}
        out = np.full(self.source.nframes, -1, dtype=np.int64)
        for number in kept:
            out[number] = known.setdefault(has(int(number)), len(known))
        return out

    def found(self, label: str) -> list[str]:
        """The path, if the first frame of any group has a label."""
        any_has = any(_available(self.source.frame(int(group[0])), label) for group in self.groups)
        return [self.source.path] if any_has else []

    def pass_over(self, seed: int | None) -> list[Numbers]:
        """The batches of a pass, in order, as deepmd-kit draws them with this seed."""
        random = np.random.default_rng(seed)
        parts = self._mixable if self.mixed else self.groups
        targets = [None] * len(parts) if self._copies is None else self._copies.targets(parts)
        of_parts = []
        sizes = [0] * len(parts) if self.mixed else self.sizes
        for part, size, target in zip(parts, sizes, targets, strict=True):
            numbers = part if self._copies is None or target is None else self._copies.expanded(part, target, random)
            numbers = random.permutation(numbers)
            if self.mixed:
                of_parts.append(self._mixed_batches(numbers))
            else:
                of_parts.append([numbers[k : k + size] for k in range(0, len(numbers), size)])
        batches = [part[k] for k in range(max(map(len, of_parts))) for part in of_parts if k < len(part)]
        random.shuffle(batches)
        return batches

    def _mixed_batches(self, numbers: Numbers) -> list[Numbers]:
        """Batches of frames of similar size, each filled up to the size of its largest."""
        numbers = numbers[np.argsort(self._natoms[numbers], kind="stable")]
        batches, start = [], 0
        for k, natoms in enumerate(self._natoms[numbers].tolist()):
            if k > start and (k - start + 1) * natoms > self._budget:
                batches.append(numbers[start:k])
                start = k
        return [*batches, numbers[start:]]

    def read(self, draw: Draw) -> Batch | None:
        """A batch; None if all its frames have atoms that are too close to each other.

        Raises:
            InputError: what is wrong with a frame, which is named.
        """
        frames = [self._frame(int(number)) for number in draw.frames]
        natoms = max(len(frame["atype"]) for frame in frames)
        boxes = [frame["box"] for frame in frames if "box" in frame]
        if 0 < len(boxes) < len(frames):
            numbers = [int(number) for number in draw.frames]
            raise InputError(
                f"{self.source.path}: of the frames {numbers} in a batch some have a box and some have not"
            )
        batch: Batch = {
            "coord": np.stack([_filled(frame["coord"], natoms, 0.0) for frame in frames]),
            "atype": np.stack([_filled(frame["atype"], natoms, -1) for frame in frames]),
            "box": np.stack(boxes) if boxes else None,
            "where": self.where(draw),
            "system": draw.system,
            "frames": np.asarray(draw.frames),
        }
        for label in self.labels:
            # a label that a frame lacks is missing in the whole batch
            rows = [frame[label.name] for frame in frames if label.name in frame]
            batch[f"find_{label.name}"] = float(len(rows) == len(frames))
            if len(rows) == len(frames):
                batch[label.name] = np.stack([_filled(row, natoms, 0.0) if label.per_atom else row for row in rows])
        keep = left_frames(batch, self.min_pair_dist, len(self.type_map))
        return select(batch, keep) if keep else None

    def where(self, draw: Draw) -> str:
        """Which frames a batch has, for messages."""
        return where(self.source.path, draw.frames)

    def _frame(self, number: int) -> dict[str, Any]:
        raw, where = self.source.frame(number), self.source.where(number)
        types = self._types_of(raw["atype"], where)
        frame: dict[str, Any] = {"atype": types}
        box = raw.get("box")
        wanted = [
            Label("coord", 3, True, True),
            *([] if box is None or not np.any(box) else [Label("box", 9, False, False)]),
        ]
        for label in [*wanted, *self.labels]:
            if not _available(raw, label.name):
                if label.required:
                    raise InputError(f"{where}: no {label.name}, which the model cannot be trained without")
                continue
            frame[label.name] = self._numbers(raw[label.name], label, len(types), where)
        if "box" in frame:
            frame["box"] = frame["box"].reshape(3, 3)
        return frame

    def _numbers(self, value: NDArray[Any], label: Label, natoms: int, where: str) -> Float:
        count = label.width * (natoms if label.per_atom else 1)
        single = label.may_be_single and value.size == natoms
        if value.size != count and not single:
            raise InputError(f"{where}: {label.name} must be {count} numbers, found shape {value.shape}")
        shape = (natoms, 1 if single else label.width) if label.per_atom else (label.width,)
        rows = np.asarray(value, dtype=np.float64).reshape(shape)
        finite(rows, f"{where}: {label.name}", label.per_atom)
        return label.widened(rows) if label.per_atom else rows

    def _types_of(self, value: NDArray[Any], where: str) -> NDArray[np.int32]:
        types, names = np.asarray(value).ravel(), self.source.type_map
        most = len(self.type_map if names is None else names)
        if types.dtype.kind not in "iu" or not ((types >= -1) & (types < most)).all():
            raise InputError(f"{where}: types must be integers from -1 to {most - 1}")
        return types_in(self.type_map, types.astype(np.int32), names, where)

    def walk(self, first: int = 0, step: int = 1) -> Iterator[Batch]:
        """The frames in which neighbours are counted, one by one: at most 2000, as deepmd-kit draws them.

        Of these all, or those from the first one on in such steps.
        """
        numbers = np.arange(self.source.nframes)
        if len(numbers) > _COUNTED:
            random = np.random.RandomState(_COUNTED_SEED)
            numbers = np.sort(random.choice(len(numbers), _COUNTED, replace=False))
        for number in numbers[first::step]:
            frame = self._frame(int(number))
            one = {name: value[None] for name, value in frame.items()}
            yield {"box": None, **one, "where": self.source.where(int(number))}

    def close(self) -> None:
        """Nothing has to be closed between batches."""


class _Group:
    """The batches of a group from the front, as statistics take them."""

    def __init__(self, group: Numbers, size: int) -> None:
        self._group, self._size, self._at = group, size, 0

    def next(self) -> Numbers:
        batch = self._group[self._at : self._at + self._size]
        self._at = self._at + self._size if self._at + self._size < len(self._group) else 0
        return batch


class LmdbOrder:
    """What :class:`~dpa2.train.order.Order` is for systems: pass ``k`` is drawn with ``seed + k``.

    Args:
        data: the data set.
        generator: the global one, which statistics draw from.
        seed: ``training.seed``; None: one that the generator draws.
    """

    def __init__(self, data: LmdbSet, generator: Generator, seed: int | None) -> None:
        self._data, self._generator = data, generator
        self._seed = generator.bits64() >> 1 if seed is None else seed
        self._epoch, self._served = -1, 0
        self._batches: list[Numbers] = []

    def passes(self, k: int) -> _Group:
        """The batches of a group from the front."""
        self._generator.bits64()  # deepmd-kit makes an iterator, which draws
        return _Group(self._data.groups[k], self._data.sizes[k])

    def next(self) -> Draw:
        """What the next batch is made of."""
        if self._served == len(self._batches):
            self._epoch, self._served = self._epoch + 1, 0
            self._batches = self._data.pass_over(self._seed + self._epoch)
        batch = self._batches[self._served]
        self._served += 1
        return Draw(0, batch)

    @property
    def state(self) -> dict[str, Any]:
        """Where the order stands: ``place`` (3,), the seed, the pass and batches of it that were served."""
        return {"place": np.array([self._seed, self._epoch, self._served], dtype=np.int64)} if self._batches else {}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        """Raises InputError: it is the state of other data."""
        if not state:
            return
        if "place" not in state:
            raise InputError("the order of the data was kept for systems, but this is an LMDB data set")
        self._seed, self._epoch, served = (int(number) for number in state["place"])
        self._batches = self._data.pass_over(self._seed + self._epoch)
        if served > len(self._batches):
            raise InputError("the order of the data was kept for more frames: the data have changed")
        self._served = served


def _available(frame: Mapping[str, Any], label: str) -> bool:
    flag = frame.get(f"find_{label}")
    return label in frame and (flag is None or bool(np.any(flag)))


def _filled(rows: NDArray[Any], natoms: int, value: float) -> NDArray[Any]:
    """Rows of atoms with places without an atom behind them."""
    if len(rows) == natoms:
        return rows
    out = np.full((natoms, *rows.shape[1:]), value, dtype=rows.dtype)
    out[: len(rows)] = rows
    return out


def _split(group: Numbers, signatures: NDArray[np.int64] | None) -> list[Numbers]:
    """Frames of a group with the same labels."""
    if signatures is None:
        return [group]
    return [part for k in range(int(signatures.max()) + 1) if len(part := group[signatures[group] == k])]


class _Copies:
    """Frames of which blocks of systems are repeated until each block has its share."""

    def __init__(self, block_of_frame: NDArray[np.int64], goals: list[int]) -> None:
        self._block, self._goals = block_of_frame, goals

    def targets(self, parts: Sequence[Numbers]) -> list[list[int]]:
        """How many frames of each block every part has to have: what is added is shared by largest remainder."""
        counts = [[int((self._block[part] == b).sum()) for b in range(len(self._goals))] for part in parts]
        out = [list(row) for row in counts]
        for b, goal in enumerate(self._goals):
            total = sum(row[b] for row in counts)
            if total == 0:
                continue
            shares = [divmod((goal - total) * row[b], total) for row in counts]
            for row, (whole, _) in zip(out, shares, strict=True):
                row[b] += whole
            left = goal - total - sum(whole for whole, _ in shares)
            ranked = sorted((k for k, row in enumerate(counts) if row[b]), key=lambda k: (-shares[k][1], k))
            for k in ranked[:left]:
                out[k][b] += 1
        return out

    def expanded(self, part: Numbers, target: Sequence[int], random: np.random.Generator) -> Numbers:
        """The frames of a part, those of every block repeated."""
        blocks = self._block[part]
        out = [part[blocks < 0]]
        for b, goal in enumerate(target):
            mine = part[blocks == b]
            if len(mine) == 0:
                continue
            more = goal - len(mine)
            out.append(np.tile(mine, 1 + more // len(mine)))
            if more % len(mine):
                out.append(random.choice(mine, size=more % len(mine), replace=False))
        return np.concatenate(out)


def _copies(style: str | None, systems: NDArray[np.int32] | None, kept: Numbers, name: str) -> _Copies | None:
    """What ``auto_prob`` asks for; None where frames are drawn as often as each other."""
    if not style or ";" not in style or systems is None:
        return None
    nsystems = int(systems.max()) + 1
    counts = np.bincount(systems[kept], minlength=nsystems)
    blocks = [block for block in blocks_of(style, nsystems, f"{name}.auto_prob") if counts[block[0] : block[1]].sum()]
    if not sum(weight for _, _, weight in blocks) > 0.0:
        raise InputError(f"{name}.auto_prob: {style!r} leaves no frames")
    left = "prob_sys_size;" + ";".join(f"{begin}:{end}:{weight}" for begin, end, weight in blocks)
    single = probabilities(counts.tolist(), left).tolist()
    shares = [sum(single[begin:end]) for begin, end, _ in blocks]
    numbers = [int(counts[begin:end].sum()) for begin, end, _ in blocks]
    ratios = [n / share if share > 0 else 0.0 for n, share in zip(numbers, shares, strict=True)]
    whole = math.ceil(max(ratios))
    goals = [max(round(whole * share), n) for n, share in zip(numbers, shares, strict=True)]
    if goals == numbers:
        return None
    block_of_system = np.full(nsystems, -1, dtype=np.int64)
    for b, (begin, end, _) in enumerate(blocks):
        block_of_system[begin:end] = b
    return _Copies(block_of_system[systems], goals)
