"""``deepmd.calculator``: the calculator for ASE under deepmd-kit's name and with its arguments. Needs ASE."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dpa2.ase import DPA2Calculator
from dpa2.embedded import DEFAULT_SKIN

from .evaluator import load_by_head
from .potential import DeepPot

__all__ = ["DP"]

_OF_LOADING = ("precision", "threads", "device", "on_overflow")


class DP(DPA2Calculator):
    """:class:`dpa2.ase.DPA2Calculator` as deepmd-kit's class ``DP`` is called; its properties are the same and more.

    Args:
        model: the path of a model file.
        label, kwargs: as every calculator of ASE takes them; and those of :class:`dpa2.ase.DPA2Calculator`.
        type_dict: what chemical symbols are in the model, {symbol: index of a type}; others go by their name.
        neighbor_list, nlist_backend: taken and not used: dpa2 looks for neighbours by itself.
        head: which model of a multi-task file, by the rules of :class:`DeepPot`.
    """

    name = "DP"

    def __init__(
        self,
        model: str | os.PathLike[str],
        label: str = "DP",
        type_dict: Mapping[str, int | str] | None = None,
        neighbor_list: Any = None,
        head: str | int | None = None,
        nlist_backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        skin = kwargs.pop("skin", None)
        options = {name: kwargs.pop(name) for name in _OF_LOADING if kwargs.get(name) is not None}
        loaded = load_by_head(model, head, {"skin": DEFAULT_SKIN if skin is None else skin, **options})
        self._file, self._head = model, head
        self._potential: DeepPot | None = None
        super().__init__(loaded, label=label, type_dict=type_dict, **kwargs)

    @property
    def dp(self) -> DeepPot:
        """The potential, loaded when it is first asked for."""
        if self._potential is None:
            self._potential = DeepPot(self._file, head=self._head)
        return self._potential
