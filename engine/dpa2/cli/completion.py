"""``dpa2 completion``: what a shell completes, from the parsers themselves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import common

EPILOG = """\
examples:
  source <(dpa2 completion bash)                      in ~/.bashrc
  dpa2 completion zsh > ~/.zfunc/_dpa2                a folder of fpath, before compinit
  dpa2 completion fish > ~/.config/fish/completions/dpa2.fish

Commands, options and their choices are completed, and files elsewhere. Print it again after an
update of dpa2.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "completion",
        help="what bash, zsh or fish needs to complete commands and options",
        description="Print the completion of the dpa2 command for a shell.",
        epilog=EPILOG,
        formatter_class=common.HelpFormatter,
    )
    parser.add_argument("shell", choices=sorted(_SHELLS), help="the shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from . import make_parser

    print(_SHELLS[args.shell](list(_levels(make_parser()))), end="")


@dataclass(frozen=True)
class _Option:
    """An option: its names, its help, whether values follow it, and which ones if they are known."""

    flags: tuple[str, ...]
    help: str
    takes: bool
    choices: tuple[str, ...]


@dataclass(frozen=True)
class _Level:
    """What follows some words: commands by name with their help, options, and choices of what is no option."""

    words: tuple[str, ...]
    commands: dict[str, str]
    options: tuple[_Option, ...]
    choices: tuple[str, ...]


def _levels(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[_Level]:
    """The level of a parser, and those below it."""
    options: list[_Option] = []
    choices: list[str] = []
    commands: dict[str, str] = {}
    below: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:  # argparse has no other way to ask for them
        if isinstance(action, argparse._SubParsersAction):
            below = dict(action.choices)
            commands = {entry.dest: entry.help or "" for entry in action._choices_actions}
        elif action.option_strings:
            known = tuple(map(str, action.choices or ()))
            text = (action.help or "").partition(" (default")[0].replace("%%", "%").replace("\n", " ")
            options.append(_Option(tuple(action.option_strings), text, action.nargs != 0, known))
        else:
            choices += map(str, action.choices or ())
    yield _Level(words, commands, tuple(options), tuple(choices))
    for name, each in below.items():
        yield from _levels(each, (*words, name))


def _cases(levels: list[_Level]) -> Iterator[tuple[str, str, str]]:
    """Of every level: its words, what is completed as options, and what else."""
    for level in levels:
        flags = " ".join(flag for option in level.options for flag in option.flags)
        yield " ".join(level.words), flags, " ".join((*level.commands, *level.choices))


def _values(levels: list[_Level]) -> Iterator[tuple[str, str, str]]:
    """Of every option with known values: the words of its level, its flags, the values."""
    for level in levels:
        for option in level.options:
            if option.choices:
                yield " ".join(level.words), "|".join(option.flags), " ".join(option.choices)


def _bash(levels: list[_Level]) -> str:
    lines = [
        "# completion of dpa2 for bash",
        "_dpa2() {",
        '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" place="" k options others',
        '    local known=" ' + " ".join(_key(level) for level in levels if level.words) + ' "',
        "    for ((k = 1; k < COMP_CWORD; k++)); do",
        '        local next="${place:+${place}_}${COMP_WORDS[k]}"',
        '        [[ "$known" == *" $next "* ]] && place="$next"',
        "    done",
        '    case "$place/$before" in',
    ]
    for words, flags, values in _values(levels):
        patterns = "|".join(f'"{words.replace(" ", "_")}/{flag}"' for flag in flags.split("|"))
        lines.append(f'        {patterns}) COMPREPLY=($(compgen -W "{values}" -- "$word")); return ;;')
    lines += ["    esac", '    case "$place" in']
    for words, flags, others in _cases(levels):
        lines.append(f'        "{words.replace(" ", "_")}") options="{flags}"; others="{others}" ;;')
    lines += [
        "    esac",
        '    if [[ "$word" == -* ]]; then',
        '        COMPREPLY=($(compgen -W "$options" -- "$word"))',
        '    elif [[ -n "$others" ]]; then',
        '        COMPREPLY=($(compgen -W "$others" -- "$word"))',
        "    fi",
        "}",
        "complete -o default -F _dpa2 dpa2",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A text in single quotes, as zsh and fish take it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "'\\''") + "'"


def _zsh(levels: list[_Level]) -> str:
    lines = ["#compdef dpa2", "# completion of dpa2 for zsh", "_dpa2() {"]
    lines += ["    local place='' k next", "    local -a options others"]
    lines.append("    local -A known=(" + " ".join(f"{_key(level)} 1" for level in levels if level.words) + ")")
    lines += [
        "    for ((k = 2; k < CURRENT; k++)); do",
        "        next=${place:+${place}_}$words[k]",
        "        (( ${+known[$next]} )) && place=$next",
        "    done",
        "    case $place/$words[CURRENT-1] in",
    ]
    for words, flags, values in _values(levels):
        patterns = "|".join(f"{words.replace(' ', '_')}/{flag}" for flag in flags.split("|"))
        lines.append(f"        {patterns}) compadd -- {values}; return ;;")
    lines += ["    esac", "    case $place in"]
    for level in levels:
        described = [_quoted(f"{flag}:{option.help}") for option in level.options for flag in option.flags]
        others = [_quoted(f"{name}:{text}") for name, text in level.commands.items()]
        others += map(_quoted, level.choices)
        lines.append(f"        {_key(level) or _quoted('')})")
        lines.append(f"            options=({' '.join(described)})")
        lines.append(f"            others=({' '.join(others)}) ;;")
    lines += [
        "    esac",
        "    if [[ $PREFIX == -* ]]; then",
        "        _describe option options",
        "    elif (( $#others )); then",
        "        _describe word others",
        "    else",
        "        _files",
        "    fi",
        "}",
        'if [[ $funcstack[1] == _dpa2 ]]; then _dpa2 "$@"; else compdef _dpa2 dpa2; fi',
    ]
    return "\n".join(lines) + "\n"


def _key(level: _Level) -> str:
    return "_".join(level.words)


def _fish(levels: list[_Level]) -> str:
    lines = ["# completion of dpa2 for fish"]
    for level in levels:
        seen = [f"__fish_seen_subcommand_from {word}" for word in level.words]
        if level.commands:
            seen.append(f"not __fish_seen_subcommand_from {' '.join(level.commands)}")
        start = "complete -c dpa2" + (f" -n {_quoted('; and '.join(seen))}" if seen else "")
        for name, text in level.commands.items():
            lines.append(f"{start} -f -a {name} -d {_quoted(text)}")
        if level.choices:
            lines.append(f"{start} -f -a {_quoted(' '.join(level.choices))}")
        for option in level.options:
            names = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
            values = f" -x -a {_quoted(' '.join(option.choices))}" if option.choices else " -r" if option.takes else ""
            lines.append(f"{start} {' '.join(names)}{values} -d {_quoted(option.help)}")
    return "\n".join(lines) + "\n"


_SHELLS = {"bash": _bash, "fish": _fish, "zsh": _zsh}
