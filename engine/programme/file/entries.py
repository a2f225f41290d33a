"""Read a mapping whose names the language fixes; record names that are misspelt, missing or not judged yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.file.nodes import Mapping
from engine.programme.file.problems import Code
from engine.programme.file.scalars import kind_of

if TYPE_CHECKING:
    from engine.programme.file.nodes import Node
    from engine.programme.file.problems import Problems


def entries_of(
    node: Node,
    what: str,
    problems: Problems,
    known: tuple[str, ...],
    *,
    required: tuple[str, ...] = (),
    later: tuple[str, ...] = (),
) -> dict[str, Node] | None:
    """Return the entries of `node` by name, or None where it is no mapping.

    The value of a misspelt name is read under the name that was probably meant, unless that stands there, too.

    Args:
        node: the mapping.
        what: the kind of thing at the node, for messages.
        problems: gets what is wrong.
        known: the names that may stand in it.
        required: the names that must stand in it.
        later: names that the language has and this release does not judge.
    """
    if not isinstance(node, Mapping):
        message = f"{what} must be a mapping of {', '.join(known[:4])} ..., not {kind_of(node)}"
        problems.error(node.place, Code.WRONG_TYPE, message)
        return None

    entries = {name: value for name, value in node.entries.items() if name in known}

    # a misspelt name most likely means one that is missing
    absent = [name for name in known if name not in node.entries]
    for name, place in node.key_places.items():
        if name in later:
            problems.not_judged(place, f'"{name}" of {what}')
        elif name not in known:
            right = [*absent, *(each for each in known if each not in absent), *later]
            meant = problems.unknown(place, Code.UNKNOWN_FIELD, f"name in {what}", name, right)
            if meant in absent:
                entries.setdefault(meant, node.entries[name])

    for name in required:
        if name not in entries:
            problems.error(node.place, Code.MISSING_FIELD, f'{what} has no "{name}"; add it')
    return entries
