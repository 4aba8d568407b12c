"""Model files: every format of deepmd-kit that keeps the weights, and the native ``.safetensors``, without PyTorch.

Nothing in a file is executed. A file that is truncated, corrupt, hostile or inconsistent raises
:class:`dpa2.errors.ModelFileError`; one that is sound but holds a kind of model that is not supported raises
:class:`dpa2.errors.UnsupportedModelError`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dpa2.errors import Error, InputError, ModelFileError
from dpa2.files import folder, mistaken
from dpa2.files._data import ModelData
from dpa2.files.assembly import assemble
from dpa2.files.detect import FORMATS, detect

__all__ = ["FORMATS", "ModelData", "checked_path", "detect", "guarded", "heads", "read", "write_safetensors"]

_Path = str | os.PathLike[str]
_T = TypeVar("_T")


def checked_path(path: object) -> Path:
    """The path of a model file. Raises :class:`InputError` for anything but a str or os.PathLike that can be one."""
    try:
        name = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        name = path
    if not isinstance(name, str):
        raise InputError(f"the path of a model file must be a str or os.PathLike, got {type(name).__name__}")
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        encoded = b""
    if not encoded or b"\0" in encoded:
        raise InputError(f"the path of a model file is empty or not one that a file can have: {name[:200]!r}")
    return Path(name)


def guarded(path: _Path, action: Callable[[Path], _T]) -> _T:
    """Run a reader so that whatever a damaged file makes it trip over becomes a :class:`ModelFileError`."""
    where = folder.found(checked_path(path))
    try:
        return action(where)
    except Error as err:
        raise type(err)(f"{where}: {err}") from None
    except FileNotFoundError:
        meant = mistaken.with_suffix(where, FORMATS)
        meant = meant or folder.advice(where)
        raise ModelFileError(f"{where}: there is no such file" + (f"; {meant}" if meant else "")) from None
    except OSError as err:
        raise ModelFileError(f"{where}: the file cannot be read: {err.strerror or str(err)[:300]}") from None
    except (MemoryError, RecursionError):
        raise ModelFileError(f"{where}: the file asks for more memory than there is, or nests too deeply") from None
    except Exception as err:
        raise ModelFileError(f"{where}: the file cannot be read ({type(err).__name__}: {str(err)[:300]})") from err


def read(path: _Path, head: str | None = None) -> ModelData:
    """Read a model from a file of any supported format, recognised by content.

    Args:
        path: the file; a name without a folder is looked for in those of ``DPA2_MODELS`` as well.
        head: the branch of a multi-task checkpoint, by name or alias.

    Raises:
        ModelFileError: the file is missing, damaged or hostile.
        UnsupportedModelError: it holds something that is not supported; the message says what is.
        InputError: ``head`` is missing or unknown, and the message lists the heads; or an argument is of a wrong kind.
    """
    if head is not None and not isinstance(head, str):
        raise InputError(f"head must be the name of a model in a multi-task file or None, got {type(head).__name__}")
    return guarded(path, lambda where: _read(where, head))


def heads(path: _Path) -> list[str]:
    """The heads of a multi-task file, empty for a single-task one. Raises as :func:`read`."""
    return guarded(path, _heads)


def write_safetensors(path: _Path, data: ModelData) -> None:
    """Write a model in the native format. Raises :class:`ModelFileError` if ``data`` is incomplete or inconsistent."""
    from dpa2.files import native

    native.write(Path(path), data)


def _heads(path: Path) -> list[str]:
    kind = detect(path)
    if kind == "pt":
        from dpa2.files import pt
        from dpa2.files.torch_zip import TorchArchive

        with TorchArchive(path) as archive:
            return pt.heads(archive)
    return []


def _read(path: Path, head: str | None) -> ModelData:
    kind = detect(path)
    if kind == "safetensors":
        from dpa2.files import native

        with native.NativeFile(path) as file:
            return assemble(file.model(head))
    if kind in ("pt", "pth"):
        from dpa2.files import pt, pth
        from dpa2.files.torch_zip import TorchArchive

        with TorchArchive(path) as archive:
            return assemble((pt if kind == "pt" else pth).read(archive, head))
    from dpa2.files import serialized

    return serialized.read(path, kind, head)
