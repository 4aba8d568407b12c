"""Recognise the format of a model file by its content; the name serves only to explain a refusal."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

from dpa2.errors import ModelFileError, UnsupportedModelError
from dpa2.files import mistaken

FORMATS = (".pt", ".pth", ".dp", ".yaml", ".yml", ".pt2", ".pte", ".hlo", ".safetensors")
"""The suffixes of the formats that can be read."""

_SUPPORTED = "supported are " + ", ".join(FORMATS)
_REFUSED = {
    ".pb": "a frozen TensorFlow graph",
    ".pbtxt": "a TensorFlow graph",
    ".savedmodel": "a TensorFlow SavedModel",
    ".savedmodeltf": "a TensorFlow SavedModel",
    ".tf2": "a TensorFlow 2 model",
    ".jax": "a JAX checkpoint",
    ".pd": "a Paddle checkpoint",
    ".json": "a Paddle model",
    ".pdmodel": "a Paddle model",
    ".pdiparams": "a Paddle model",
}
_HINT = "convert it with deepmd-kit (dp convert-backend) to .dp or .pth first"


def detect(path: Path) -> str:
    """The kind of a model file: 'pt', 'pth', 'pt2', 'hdf5', 'yaml' or 'safetensors'.

    Raises:
        UnsupportedModelError: it is a format that is known, but cannot be read.
        ModelFileError: it is not a model file.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        what = _REFUSED.get(suffix, "a directory")
        if meant := mistaken.checkpoint_of(path):
            raise ModelFileError(f"this is {what}, no model file; {meant}")
        raise UnsupportedModelError(f"this is {what}, which cannot be read; {_HINT}; {_SUPPORTED}")
    size, head = _beginning(path)
    if size == 0:
        raise ModelFileError("the file is empty")
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if size > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return "safetensors"
    if mistaken.is_training_input(path):
        raise ModelFileError(
            "this is a training input, which has no weights; 'dpa2 train' makes a model of it (in Python: dpa2.train)"
        )
    if suffix in _REFUSED:
        raise UnsupportedModelError(f"this is {_REFUSED[suffix]}, which cannot be read; {_HINT}; {_SUPPORTED}")
    if suffix == ".safetensors":
        return "safetensors"
    if head.startswith(b"\x80"):
        raise UnsupportedModelError(f"this is a bare pickle (an old PyTorch or a Paddle file); {_HINT}; {_SUPPORTED}")
    if head.startswith((b"PK\x05\x06", b"PK")):
        raise ModelFileError("this is an empty or damaged zip archive")
    if _is_text(head):
        if meant := mistaken.pointed_by(path):
            raise ModelFileError(f"this is no model file; {meant}")
        return "yaml"
    raise ModelFileError(f"this is not a model file, or its beginning is damaged; {_SUPPORTED}")


def _beginning(path: Path) -> tuple[int, bytes]:
    """The size of a regular file and its first bytes. Nothing else is waited for: opening a pipe would block."""
    _refuse_irregular(os.stat(path).st_mode)
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as f:
        found = os.fstat(f.fileno())  # a path may lead elsewhere by now
        _refuse_irregular(found.st_mode)
        return found.st_size, f.read(4096)


def _refuse_irregular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = "a pipe (FIFO)" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise ModelFileError(
            f"this is {what}, no regular file: models are read in pieces, so copy it into a file first"
        )


def _is_text(head: bytes) -> bool:
    if any(byte < 9 or 13 < byte < 32 for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as err:
        return len(head) == 4096 and err.start > 4090  # a character cut by the end of the block
    return True


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except Exception as err:
        raise ModelFileError(f"the zip archive is truncated or corrupt ({str(err)[:200]})") from None
    roots = {name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl")}
    if any(root + "constants.pkl" in names for root in roots):
        return "pth"
    if any(name.endswith("extra/model.json") for name in names):
        return "pt2"
    if roots:
        return "pt"
    raise ModelFileError(f"this zip archive holds no model; {_SUPPORTED}")
