"""Messages that say what to pass to a function, in the words of the command line."""

from __future__ import annotations

import re
from collections.abc import Container

#: what is said of Python, and of commands
_WORDS = (
    (re.compile(r"choose one with head=\.\.\."), "choose one with --head NAME"),
    (re.compile(r"pass threads="), "give --threads"),
    (re.compile(r'load (?:it|the model) with device="cpu"'), "give --device cpu"),
)
_PARAMETERS = re.compile(r"pass (fparam|aparam)=, shape \((?:\d+, ?)?(\d+),?\)")


def of_commands(text: str, options: Container[str]) -> str:
    """A message, where it names arguments of functions, with options in their place.

    Args:
        text: the message.
        options: the names of what the command takes, as ``fparam``.
    """

    def parameters(found: re.Match[str]) -> str:
        name, count = found.groups()
        numbers = f"{count} number{'' if count == '1' else 's'}"
        if name in options:
            return f"give {numbers} with --{name}"
        own = 'fparam="..." of a frame' if name == "fparam" else "a column aparam"
        return f"give {numbers} with the structures, in {name}.npy of a deepmd system or as {own} in extended XYZ"

    for pattern, words in _WORDS:
        text = pattern.sub(words, text)
    return _PARAMETERS.sub(parameters, text)
