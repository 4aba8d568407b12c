"""Which weights tasks share: links from those of one task to those of the one that has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..files import ModelData
from .checkpoint import full_name
from .gradient import PREFIX
from .layout import layout
from .tasks import SharedPart

#: by kind and level the weights that are shared; the transformation of the type embedding never is
_SHARED = {
    ("descriptor", 0): r"atomic_model\.descriptor\.(?!tebd_transform\.)",
    ("descriptor", 1): r"atomic_model\.descriptor\.type_embedding\.",
    ("fitting_net", 0): r"atomic_model\.fitting_net\.(filter_layers\.|[fa]param_)",
}


def links(parts: Sequence[SharedPart], tasks: Mapping[str, ModelData]) -> dict[str, str]:
    """Of every tensor that another task has: the full name of that one.

    Args:
        parts: as :func:`dpa2.train.tasks.expand` finds them.
        tasks: the models, in order.
    """
    found: dict[str, str] = {}
    for part in parts:
        base = part.links[0][0]
        for task, level in part.links[1:]:
            pattern = re.compile(_SHARED[part.kind, level])
            for name in layout(tasks[task].config):
                if pattern.match(name):
                    found[full_name(task, name)] = full_name(base, name)
    return found


def share(linked: Mapping[str, str], tasks: Mapping[str, ModelData]) -> None:
    """Give every task the weights that it shares as those of the task that has them."""
    for task, data in tasks.items():
        for name in data.weights:
            full = full_name(task, PREFIX + name)
            if full in linked:
                owner, own = linked[full].removeprefix("model.").split(f".{PREFIX}")
                data.weights[name] = tasks[owner].weights[own]
