"""A run that begins with the weights of a frozen model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelFileError
from ..files import ModelData, guarded, schema
from ..files._data import RawModel, to_array
from ..files.assembly import assemble
from ..files.detect import detect
from ..files.torch_zip import TorchArchive
from .checkpoint import SINGLE, Array
from .inputs import canonical_model

#: how the names of weights end that a model may have; others are constants of its code
_PARAMETER = re.compile(r"\.(matrix|bias|idt)$|_residual\.[0-9]+$")


class Frozen:
    """What a TorchScript file (``.pth``) holds.

    Weights that it lacks begin as they are drawn, those that the new model does not have are left aside; both are said.

    Args:
        path: of the file.
        say: takes lines for people.

    Attributes:
        definition: the model section that it was made with.

    Raises:
        ModelFileError: the file is missing, damaged or no frozen model.
    """

    def __init__(self, path: str | Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.path, self._say = Path(path), say
        raw = guarded(self.path, _read)
        self.definition: dict[str, Any] = raw.params
        self._raw = raw

    def model(self, task: str, section: Mapping[str, Any], fresh: Mapping[str, Array]) -> ModelData:
        """A model of this definition with the weights of the file.

        Raises:
            ModelFileError: weights have other shapes than the section asks for; the input has several tasks.
        """
        if task != SINGLE:
            raise ModelFileError(f"{self.path}: a frozen model has one task, but the input has {task!r} and others")
        expected = schema.expected_weights(canonical_model(section))
        missing = [name for name in expected if name not in self._raw.tensors and expected[name].role != "constant"]
        left = [name for name in self._raw.tensors if _PARAMETER.search(name) and name not in expected]
        for names, what in (
            (missing, "lacks, which begin as they are drawn"),
            (left, "has and the input does not ask for"),
        ):
            if names:
                self._say(f"warning: weights that {self.path} {what}: {', '.join(names)}")
        tensors = {name: self._raw.tensors.get(name, fresh[name]) for name in expected if name in fresh}
        try:
            return assemble(RawModel(dict(section), tensors, self._raw.min_nbor_dist, None, None))
        except ModelFileError as error:
            raise type(error)(f"{self.path}: {error}") from None


def _read(path: Path) -> RawModel:
    from ..files import pth

    if detect(path) != "pth":
        raise ModelFileError("the file is no frozen model (.pth) of deepmd-kit's PyTorch backend")
    with TorchArchive(path) as archive:
        raw = pth.read(archive, None)
        raw.tensors = {name: to_array(tensor) for name, tensor in raw.tensors.items()}
    return raw
