"""Statistics of training data that a model is made with: its environment, its parameters, the bias of its output.

All follow from a sample of batches (:meth:`dpa2.train.loading.Loader.sample`), which is walked through once. Sums of
several tasks with one descriptor are merged. Models are sections in deepmd-kit's names, with every default filled in;
results are weights under their canonical names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..blocks import descriptor_blocks
from ..data.elements import atomic_number
from ..errors import InputError
from ..inputs import Float
from .systems import Batch, batch_neighbors

#: the smallest deviation of an environment, and that of a type which no frame has
_LEAST, _UNSEEN = 1e-2, 1e-1


class _Block(NamedTuple):
    """A part of the descriptor, and what its options say."""

    weights: str
    rcut: float
    rcut_smth: float
    nsel: int
    set_davg_zero: bool


def blocks(descriptor: Mapping[str, Any]) -> list[_Block]:
    """The parts of a descriptor, in order."""
    found = []
    for block in descriptor_blocks(descriptor):
        options = descriptor[block.section]
        limits = (options[block.rcut], options[block.rcut_smth], options[block.sel])
        found.append(_Block(block.weights, *limits, bool(options["set_davg_zero"])))
    return found


class Environment:
    """Mean and deviation of the environment matrix of every block and type, before its normalisation.

    Args:
        model: the section.

    Attributes:
        sums: (nblocks, ntypes, 2, 3): of each block and type, of radial entries and of those of vectors, how many there
            are, their sum, and the sum of their squares.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        descriptor = model["descriptor"]
        self._blocks = blocks(descriptor)
        self._ntypes = len(model["type_map"])
        self._protection = float(descriptor["env_protection"])
        self._kept = np.ones((self._ntypes, self._ntypes), dtype=bool)
        for a, b in [*model["pair_exclude_types"], *descriptor["exclude_types"]]:
            self._kept[a, b] = self._kept[b, a] = False
        self.sums = np.zeros((len(self._blocks), self._ntypes, 2, 3))

    def add(self, batch: Batch) -> None:
        """Count the frames of a batch in."""
        for f in range(len(batch["coord"])):
            self._add_frame(batch, f)

    def _add_frame(self, batch: Batch, f: int) -> None:
        types = batch["atype"][f]
        found = batch_neighbors(batch, f, max(block.rcut for block in self._blocks), self._ntypes)
        start, j, d, r = (found[name] for name in ("start", "j", "d", "r"))
        counts = np.diff(start)
        centre = np.repeat(np.arange(len(types)), counts)
        rank = np.arange(len(j)) - np.repeat(start[:-1], counts)
        kept = self._kept[types[centre], types[j]]
        atoms = np.bincount(types[types >= 0], minlength=self._ntypes)

        def of_types(values: Float, rows: NDArray[np.bool_]) -> Float:
            return np.asarray(
                np.bincount(types[centre[rows]], weights=values, minlength=self._ntypes), dtype=np.float64
            )

        for block, sums in zip(self._blocks, self.sums, strict=True):
            rows = (r <= block.rcut) & (rank < block.nsel) & kept
            q = r[rows] + self._protection
            radial = switch(r[rows], block.rcut_smth, block.rcut) / q
            vectors = (radial / q)[:, None] * d[rows]
            for k, values in enumerate((radial[:, None], vectors)):
                sums[:, k, 0] += atoms * block.nsel * values.shape[1]
                sums[:, k, 1] += of_types(values.sum(axis=1), rows)
                sums[:, k, 2] += of_types((values * values).sum(axis=1), rows)

    def merge(self, other: Environment) -> None:
        """Add the sums of another task with the same descriptor."""
        self.sums += other.sums

    def weights(self) -> dict[str, Float]:
        """``mean`` and ``stddev`` of every block: (ntypes, 4), the same for all neighbours."""
        number, total, squares = (self.sums[..., k] for k in range(3))
        seen = number > 0
        mean = np.divide(total, number, out=np.zeros_like(total), where=seen)
        square = np.divide(squares, number, out=np.zeros_like(total), where=seen)
        deviation = np.where(seen, np.maximum(np.sqrt(np.maximum(square - mean * mean, 0.0)), _LEAST), _UNSEEN)
        out: dict[str, Float] = {}
        for block, m, s in zip(self._blocks, mean, deviation, strict=True):
            radial = np.zeros(self._ntypes) if block.set_davg_zero else m[:, 0]
            out[f"{block.weights}mean"] = radial[:, None] * np.array([1.0, 0.0, 0.0, 0.0])
            out[f"{block.weights}stddev"] = s[:, [0, 1, 1, 1]]
        return out


def switch(r: Float, inner: float, outer: float) -> Float:
    """The smooth switch: 1 within ``inner``, 0 from ``outer`` on (theory 2)."""
    u = np.clip((r - inner) / (outer - inner), 0.0, 1.0)
    return 1.0 + u**3 * (-6.0 * u * u + 15.0 * u - 10.0)


class Parameters:
    """Mean and deviation of the parameters of frames or of atoms.

    Args:
        model: the section.
        name: "fparam" or "aparam".

    Attributes:
        sums: (3, width): how many there are, their sum, and the sum of their squares.
    """

    def __init__(self, model: Mapping[str, Any], name: str) -> None:
        fitting = model["fitting_net"]
        self.name, self.width = name, int(fitting.get(f"numb_{name}") or 0)
        self._protect = float(model["data_stat_protect"])
        self._default = fitting.get("default_fparam") if name == "fparam" else None
        self.sums = np.zeros((3, self.width))

    def add(self, batch: Batch) -> None:
        """Count the frames of a batch in; those without take the model's default."""
        if self.width == 0:
            return
        values = batch.get(self.name)
        if values is None:
            if self._default is None:
                raise InputError(f"{batch['where']}: no {self.name}, of which the model takes {self.width}")
            values = np.tile(self._default, (len(batch["coord"]), 1))
        rows = np.asarray(values, dtype=np.float64).reshape(-1, self.width)
        self.sums += np.stack([np.full(self.width, len(rows)), rows.sum(axis=0), (rows * rows).sum(axis=0)])

    def merge(self, other: Parameters, factor: float = 1.0) -> None:
        """Add the sums of another task, which counts ``factor`` times as much."""
        self.sums += factor * other.sums

    def weights(self) -> dict[str, Float]:
        """``avg`` and ``inv_std``: (width,); none without parameters."""
        if self.width == 0:
            return {}
        number, total, squares = self.sums
        mean = total / number
        deviation = np.sqrt(np.maximum(squares / number - mean * mean, 0.0))
        return {
            f"fitting_net.{self.name}_avg": mean,
            f"fitting_net.{self.name}_inv_std": 1.0 / np.where(deviation < self._protect, self._protect, deviation),
        }


#: what the output of a fitting net is called, where the net does not name it, and its numbers
_OUTPUTS = {
    "ener": ("energy", 1),
    "dipole": ("dipole", 3),
    "polar": ("polarizability", 9),
    "dos": ("dos", 0),  # as many as the net says
    "population": ("population", 2),
}


def output_of(model: Mapping[str, Any]) -> tuple[str, int]:
    """What a model computes: its name, which is that of the label of frames, and how many numbers per atom."""
    fitting = model["fitting_net"]
    kind = fitting["type"]
    if kind == "property":
        return str(fitting["property_name"]), int(fitting["task_dim"])
    name, width = _OUTPUTS[kind]
    return name, width or int(fitting["numb_dos"])


class Output:
    """The bias of a model's output: what follows from the numbers of atoms of each type alone.

    Args:
        model: the section.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        fitting = model["fitting_net"]
        self.name, self.width = output_of(model)
        self._ntypes = len(model["type_map"])
        self._rcond = fitting.get("rcond")
        self._excluded = list(model["atom_exclude_types"])
        is_property = fitting["type"] == "property"
        self._of_types = not is_property or bool(fitting.get("distinguish_types", False))
        self._intensive = is_property and bool(fitting.get("intensive", False))
        self._fixed = self._preset(model)
        self._rows: list[tuple[Float, Float]] = []  # numbers of atoms and output, of frames
        self._atoms: list[tuple[NDArray[np.int32], Float]] = []
        self._given: tuple[Float, Float] | None = None

    def give(self, bias: Float, deviation: Float) -> None:
        """What is known already: (ntypes, width) each."""
        self._given = bias, deviation

    def _preset(self, model: Mapping[str, Any]) -> Float:
        """The bias that the input fixes: (ntypes, width); NaN where it does not."""
        key = f"model.preset_out_bias.{self.name}"
        given = (model.get("preset_out_bias") or {}).get(self.name)
        out = np.full((self._ntypes, self.width), np.nan)
        if given is None:
            return out
        if len(given) != self._ntypes:
            raise InputError(f"{key} has {len(given)} entries, but the model has {self._ntypes} types")
        for a, value in enumerate(given):
            if value is not None:
                numbers = np.asarray(value, dtype=np.float64).ravel()
                if len(numbers) not in (1, self.width) or not np.isfinite(numbers).all():
                    raise InputError(f"{key}[{a}] must be {self.width} numbers, got {value!r}")
                out[a] = numbers
        return out

    def add(self, batch: Batch, predicted: Float | None = None, predicted_atoms: Float | None = None) -> None:
        """Take the labels of a batch in.

        Args:
            batch: with its labels; frames without the label do not count.
            predicted: (nframes, width) what a model says, which is taken off: the bias is then one to be added.
            predicted_atoms: (nframes, natoms, width) the same of atoms, for labels of atoms.
        """
        types, nframes = batch["atype"], len(batch["coord"])
        if batch.get(self.name) is not None:
            value = np.array(batch[self.name], dtype=np.float64).reshape(nframes, self.width)
            value = value if predicted is None else value - np.reshape(predicted, value.shape)
            counts = np.stack([(types == a).sum(axis=1) for a in range(self._ntypes)], axis=1).astype(np.float64)
            counts[:, self._excluded] = 0.0
            self._rows.append((counts, value))
        atoms = batch.get(f"atom_{self.name}")
        if atoms is not None:
            value = np.array(atoms, dtype=np.float64).reshape(*types.shape, self.width)
            value = value if predicted_atoms is None else value - np.reshape(predicted_atoms, value.shape)
            self._atoms.append((types.ravel(), value.reshape(-1, self.width)))

    def solve(self) -> tuple[Float, Float] | None:
        """Bias and deviation, (ntypes, width) each; None if no frame had a label.

        Those of atoms' labels, if there are any; of types without one those that follow from the frames.
        """
        if self._given is not None:
            return self._given
        frames = self._of_frames() if self._rows else None
        if not self._atoms:
            return frames
        bias, deviation = frames or (np.zeros((self._ntypes, self.width)), np.ones((self._ntypes, self.width)))
        types = np.concatenate([types for types, _ in self._atoms])
        values = np.concatenate([values for _, values in self._atoms])
        for a in range(self._ntypes):
            mine = values[types == a]
            if len(mine):
                bias[a], deviation[a] = mine.mean(axis=0), mine.std(axis=0)
        return bias, deviation

    def _of_frames(self) -> tuple[Float, Float]:
        counts = np.concatenate([counts for counts, _ in self._rows])
        values = np.concatenate([value for _, value in self._rows])
        if self._intensive or not self._of_types:
            total = counts.sum(axis=1, keepdims=True)
            if not total.all():
                raise InputError(f"a frame without atoms that count: it has no {self.name} per atom")
        if not self._of_types:
            if not self._intensive:
                values = values / total
            return self._for_all(values.mean(axis=0)), self._for_all(values.std(axis=0))
        if self._intensive:
            counts = counts / total
        fixed = ~np.isnan(self._fixed).any(axis=1)
        if fixed.any():
            values = values - counts[:, fixed] @ self._fixed[fixed]
            counts[:, fixed] = 0.0
        bias = np.linalg.lstsq(counts, values, rcond=self._rcond)[0]
        bias[fixed] = self._fixed[fixed]
        return bias, self._for_all((values - counts @ bias).std(axis=0))

    def _for_all(self, row: Float) -> Float:
        """The same numbers for every type."""
        return np.tile(row, (self._ntypes, 1))

    def weights(self) -> dict[str, Float]:
        """``out_bias`` and ``out_std``: (1, ntypes, width); none if no frame had a label."""
        found = self.solve()
        return {} if found is None else {"out_bias": found[0][None], "out_std": found[1][None]}


class Statistics:
    """All statistics of a task.

    Args:
        model: the section.

    Attributes:
        environment, fparam, aparam, output: the single ones. ``frames``: how many were counted in.
        seen: (ntypes,) whether a frame has a type.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._type_map = list(model["type_map"])
        self.environment = Environment(model)
        self.fparam, self.aparam = Parameters(model, "fparam"), Parameters(model, "aparam")
        self.output = Output(model)
        self.frames = 0
        self.seen = np.zeros(len(self._type_map), dtype=bool)

    def add(self, batches: Iterable[Batch]) -> Statistics:
        """Count batches in.

        Raises:
            InputError: a frame that cannot be trained on, which is named; no frame at all.
        """
        for batch in batches:
            for part in (self.environment, self.fparam, self.aparam, self.output):
                part.add(batch)
            self.frames += len(batch["coord"])
            types = batch["atype"]
            self.seen[types[types >= 0]] = True
        if self.frames == 0:
            raise InputError("no frame for statistics: min_pair_dist leaves none")
        return self

    @property
    def observed_type(self) -> list[str]:
        """The names of the types that were seen, elements by their numbers, others behind them."""
        names = [name for name, seen in zip(self._type_map, self.seen, strict=True) if seen]
        return sorted(names, key=lambda name: atomic_number(name) or np.inf)

    def weights(self) -> dict[str, Float]:
        """All weights that follow from data, by their canonical names."""
        parts: Sequence[Any] = (self.environment, self.fparam, self.aparam, self.output)
        return {name: value for part in parts for name, value in part.weights().items()}
