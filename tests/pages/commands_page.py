"""Write the part of docs/commands.md that tells of each command, from the commands' own help."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator

    # Typer's own classes have no public names.
    Command = Any
    Parameter = Any

VALUES: dict[Any, str] = {int: "N", float: "N", str: "TEXT", Path: "PATH"}
"""How a value is called that has no name of its own, by its type."""


def commands_part() -> str:
    """Return the part of the page: a table of all commands, then how each is typed and what its options do."""
    commands = list(commands_of(typer.main.get_command(app), "guerdon"))
    index = (f"| [`{name}`](#{name.replace(' ', '-')}) | {_summary(command)} |" for name, command in commands)
    sections = (line for name, command in commands for line in _section(name, command))
    return "\n".join(["| command | what it does |", "|---|---|", *index, "", *sections])


def commands_of(command: Command, name: str) -> Iterator[tuple[str, Command]]:
    """Yield every command beneath `command` with its full name, in the order of the help."""
    for word, each in getattr(command, "commands", {}).items():
        if hasattr(each, "commands"):
            yield from commands_of(each, f"{name} {word}")
        else:
            yield f"{name} {word}", each


def _summary(command: Command) -> str:
    return _cell(command.help.strip().split("\n\n")[0])


def _section(name: str, command: Command) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]

    yield from (f"### `{name}`", "")
    yield from ("```sh", " ".join([name, *map(_place, arguments), *map(_wanted, options)]).rstrip(), "```", "")

    for paragraph in command.help.strip().split("\n\n"):
        yield from (paragraph, "")

    rows = [*map(_argument_row, arguments), *map(_option_row, options)]
    if rows:
        yield from ("| argument or option | what it says |", "|---|---|", *rows, "")


def _place(argument: Parameter) -> str:
    """Return how an argument stands in the line, in brackets where it may be left out."""
    name = _name_of(argument)
    many = " …" if argument.nargs < 0 else ""
    return f"{name}{many}" if argument.required else f"[{name}{many}]"


def _wanted(option: Parameter) -> str:
    """Return an option as the line needs it; nothing where it may be left out."""
    return f"{option.opts[0]} {_value_of(option)}" if option.required else ""


def _argument_row(argument: Parameter) -> str:
    return _row(_name_of(argument), argument)


def _option_row(option: Parameter) -> str:
    return _row(", ".join(option.opts) if option.is_flag else f"{option.opts[0]} {_value_of(option)}", option)


def _row(name: str, parameter: Parameter) -> str:
    default = "" if parameter.default in (None, False) else f" Default: `{parameter.default}`."
    return f"| `{_cell(name)}` | {_cell((parameter.help or '') + default)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _name_of(argument: Parameter) -> str:
    """Return an argument's name without the brackets and points that say whether it may be left out, or repeated."""
    name = argument.metavar or argument.name.upper()
    return str(name).strip("[]").removesuffix("...")


def _value_of(option: Parameter) -> str:
    """Return how the value of an option is called: by its own name, its words, or its type."""
    if option.metavar:
        return str(option.metavar)
    kinds = [option.type_descriptor.annotation, *get_args(option.type_descriptor.annotation)]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Enum):
            return "|".join(str(member.value) for member in kind)
    return next((VALUES[kind] for kind in kinds if kind in VALUES), "VALUE")
