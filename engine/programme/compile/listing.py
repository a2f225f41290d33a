"""List the Python that a programme version is compiled to, which `guerdon programme show --python` prints."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from engine.programme.compile.module import generate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.programme.model import Programme

_CONSTANT_PREFIX = "value_"


def python_of(programme: Programme, version: int) -> str:
    """Return the module that judges by a programme version, as Python with a comment for each constant and rule.

    The constants are written as Python shows them, since most are objects; the functions are exactly what runs.
    """
    generated = generate(programme, version)
    constants = [
        f"# {name} is {_shown(value)}" for name, value in generated.names.items() if name.startswith(_CONSTANT_PREFIX)
    ]
    functions = [line for function in generated.tree.body for line in ("", "", *_lines_of(function))]
    title = f"# The judge of programme {programme.id}, version {version}: one function for each type of event."
    return "\n".join([title, "", *constants, *functions]) + "\n"


def _lines_of(function: ast.stmt) -> Iterator[str]:
    """Yield the lines of a function; a text that stands by itself is a note of the compiler's, shown as a comment."""
    for line in ast.unparse(function).splitlines():
        code = line.lstrip()
        is_note = code.startswith(("'", '"'))
        yield f"{line.removesuffix(code)}# {ast.literal_eval(code)}" if is_note else line


def _shown(value: object) -> str:
    """Return a constant as Python shows it, the members of a set in order."""
    if isinstance(value, frozenset):
        return f"frozenset({sorted(value)!r})"
    return repr(value)
