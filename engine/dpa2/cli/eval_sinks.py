"""Where ``dpa2 eval`` writes: extended XYZ, deepmd systems, ``.npz``."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .eval_values import spins_beside

if TYPE_CHECKING:
    from ..data import Frame
    from ..data.unfinished import Unfinished
    from .eval_values import Column, Values


SinkType = TypeVar("SinkType", bound="Sink")


class Sink(ABC):
    """Where results go, frame by frame."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self: SinkType) -> SinkType:
        return self

    def __exit__(self, *error: object) -> None:
        from ..outputs import finish

        if error[0] is None or isinstance(error[1], KeyboardInterrupt):
            finish(self.finish, self.spoil)

    @abstractmethod
    def add(self, frame: Frame, types: Any, values: Values) -> None:
        """One frame more, with the values of a model."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is left to be written; called again where it was interrupted."""

    def spoil(self) -> None:
        """Empty the output."""
        os.truncate(self.path, 0)


class StructureSink(Sink):
    """Structures with values beside them. ``names`` are those of the columns there, empty for what is left out."""

    def __init__(self, path: str, columns: tuple[Column, ...], names: Sequence[str]) -> None:
        super().__init__(path)
        self.all = columns
        self.columns = [(name, column) for name, column in zip(names, columns, strict=True) if name]

    def add(self, frame: Frame, types: Any, values: Values) -> None:
        of_frame = {name: values[column.name] for name, column in self.columns if not column.per_atom}
        of_atoms = {name: values[column.name] for name, column in self.columns if column.per_atom}
        self.write(frame, types, of_frame, of_atoms | spins_beside(self.all, frame))

    @abstractmethod
    def write(self, frame: Frame, types: Any, of_frame: Values, of_atoms: Values) -> None:
        """One frame more, with values under the names that they get."""


class XyzSink(StructureSink):
    """Extended XYZ, written as the frames come."""

    def __init__(self, path: str, columns: tuple[Column, ...], type_map: tuple[str, ...]) -> None:
        super().__init__(path, columns, [column.xyz for column in columns])
        self.names = [*type_map, "X"]  # the last one for virtual atoms, type -1

    def __enter__(self) -> XyzSink:
        from ..outputs import Blocks

        self.blocks = Blocks(self.path)
        return self

    def __exit__(self, *error: object) -> None:
        self.blocks.__exit__(*error)

    def finish(self) -> None:
        """Closing the blocks does it."""

    def write(self, frame: Frame, types: Any, of_frame: Values, of_atoms: Values) -> None:
        from ..data import write_frame

        info: dict[str, object] = {name: _plain(value) for name, value in of_frame.items()}
        if "virial" in info and frame.volume is not None:
            info["stress"] = -of_frame["virial"] / frame.volume
        info |= {key: value for key, value in frame.info.items() if key.lower() not in info}
        if frame.fparam is not None:
            info["fparam"] = frame.fparam
        symbols = [self.names[max(int(t), -1)] for t in types]
        text = io.StringIO()
        write_frame(text, frame.coords, symbols, frame.box, frame.pbc, of_atoms, info)
        self.blocks.add(text.getvalue())


class DeepmdSink(StructureSink):
    """deepmd/npy systems, whose labels are the results."""

    def __init__(self, path: str, columns: tuple[Column, ...], type_map: tuple[str, ...], mixed: bool) -> None:
        super().__init__(path, columns, [column.label for column in columns])
        from ..data import DeepmdWriter

        self.writer = DeepmdWriter(path, type_map, mixed)

    def finish(self) -> None:
        self.writer.flush()

    def spoil(self) -> None:
        import shutil

        for name in os.listdir(self.path):
            shutil.rmtree(os.path.join(self.path, name), ignore_errors=True)

    def write(self, frame: Frame, types: Any, of_frame: Values, of_atoms: Values) -> None:
        if frame.fparam is not None:
            of_frame = {**of_frame, "fparam": frame.fparam}
        if frame.aparam is not None:
            of_atoms = {**of_atoms, "aparam": frame.aparam}
        self.writer.add(frame.coords, types, frame.box, frame.pbc, of_frame, of_atoms)


class NpzSink(Sink):
    """Arrays of all frames, written at the end."""

    def __init__(self, path: str, columns: tuple[Column, ...], store: Unfinished) -> None:
        super().__init__(path)
        self.of_atoms = ["types", "descriptor", *(column.name for column in columns if column.per_atom)]
        self.store = store

    def add(self, frame: Frame, types: Any, values: Values) -> None:
        """The store has it."""

    def finish(self) -> None:
        import numpy as np

        if not self.store.added:
            return
        arrays: dict[str, Any] = {name: self.store.array(name) for name in self.store.names}
        natoms = arrays["natoms"]
        if (natoms == natoms[:1]).all():
            for name in self.of_atoms:
                if name in arrays:
                    shape = len(natoms), int(natoms[0]) if len(natoms) else 0, *arrays[name].shape[1:]
                    arrays[name] = arrays[name].reshape(shape)
        with open(self.path, "wb") as handle:  # a handle, so that NumPy does not append a suffix
            np.savez(handle, **arrays)


def _plain(value: Any) -> Any:
    """An array of one number as a number."""
    return value.item() if value.size == 1 else value
