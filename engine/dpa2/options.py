"""Options of models and of evaluations, checked."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from .errors import InputError

Precision: TypeAlias = Literal["float64", "float32"]
OnOverflow: TypeAlias = Literal["warn", "error", "ignore"]
Atomic: TypeAlias = bool | Literal["edge", "deepmd"]

_ATOMIC = {False: 0, True: 1, "edge": 1, "deepmd": 2}


def choice(value: Any, allowed: Sequence[str], name: str, hint: str = "") -> str:
    """One of these words; ``hint`` ends the message."""
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}{hint}")
    return value


def checked_device(value: Any) -> str:
    """ "cpu", "cuda", "cuda:N" or "reference"."""
    if not (isinstance(value, str) and re.fullmatch(r"cpu|reference|cuda(:(0|[1-9][0-9]{0,3}))?", value)):
        hint = "; CUDA_VISIBLE_DEVICES says which GPUs there are" if str(value).startswith(("cuda", "gpu")) else ""
        raise InputError(f"device must be one of 'cpu', 'cuda', 'cuda:N', 'reference', got {value!r}{hint}")
    return value


def atomic_mode(atomic: Any) -> int:
    """The number of an atomic virial: 0 none, 1 that of edges, 2 deepmd-kit's."""
    if not isinstance(atomic, (bool, np.bool_, str)) or atomic not in _ATOMIC:
        raise InputError(f'atomic must be False, True, "edge" or "deepmd", got {atomic!r}')
    return _ATOMIC[atomic]


def checked_flag(value: Any, name: str) -> bool:
    """True or False, and nothing that merely counts as one of them."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def checked_amount(value: Any, name: str) -> float:
    """A finite number that is not negative."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if isinstance(value, np.floating):  # comparing would turn the limit into its type
        value = float(value)
    if not (number and 0 <= value <= sys.float_info.max):
        raise InputError(f"{name} must be a number that is finite and not negative, got {value!r}")
    return float(value)


def checked_skin(skin: Any, rcut: float) -> float:
    """A length between 0 and the cutoff, angstrom."""
    number = isinstance(skin, (int, float, np.integer, np.floating)) and not isinstance(skin, bool)
    if not (number and 0.0 <= skin <= rcut):
        raise InputError(
            f"skin must be a length between 0 and the cutoff of the model, {rcut:g} angstrom, got {skin!r}"
        )
    return float(skin)
