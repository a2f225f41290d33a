"""Read a mapping whose names the language fixes: known ones, ones that come later, and misspelt ones."""

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
    """Return the entries of `node` by known names; record misspelt, missing and not yet judged ones.

    What stands under a misspelt name is read under the one that was meant, where that is not there as well.
    """
    if not isinstance(node, Mapping):
        message = f"{what} must be a mapping of {', '.join(known[:4])} ..., not {kind_of(node)}"
        problems.error(node.place, Code.WRONG_TYPE, message)
        return None
    found = {name: value for name, value in node.entries.items() if name in known}
    absent = [name for name in known if name not in node.entries]
    for name, place in node.key_places.items():
        if name in later:
            problems.not_judged(place, f'"{name}" of {what}')
        elif name not in known:
            right = [*absent, *(each for each in known if each not in absent), *later]
            meant = problems.unknown(place, Code.UNKNOWN_FIELD, f"name in {what}", name, right)
            if meant in absent:
                found.setdefault(meant, node.entries[name])
    for name in required:
        if name not in found:
            problems.error(node.place, Code.MISSING_FIELD, f'{what} has no "{name}"; add it')
    return found
