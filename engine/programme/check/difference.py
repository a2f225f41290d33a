"""Compare two programme files by their rules and settings, not by lines.

It compares what is written, not what it means, and so also sections and parts that this release does not know.
Comments, layout, quotes, examples, and the order of names, of rules and of most lists do not count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.programme.file.load import EXAMPLES
from engine.programme.file.nodes import Mapping, Node, Scalar, Sequence, plain, read_tree, text_in
from engine.programme.file.problems import Problems
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUBJECTS = {
    "rules": "rule", "metrics": "metric", "segments": "segment", "derived": "derived field", "catalogue": "catalogue",
    "contests": "contest",
}  # fmt: skip
"""By section, what each of its entries is called; the entries of all other sections are parts of the section."""
_IN_ORDER = frozenset(("give", "between"))
"""Lists whose order says something: rewards are keyed by their place in `give`, and `between` has two ends."""


@dataclass(frozen=True)
class Change:
    """Say how a rule or a setting changed; `part` is None where it was added or removed as a whole."""

    subject: str
    part: str | None
    before: Node | None
    after: Node | None

    @property
    def kind(self) -> str:
        """Return `added`, `removed` or `changed`."""
        return "changed" if self.before and self.after else "added" if self.after else "removed"

    def row(self) -> dict[str, object]:
        """Return the change for a JSON document; values as lists, mappings and texts."""
        return {
            "subject": self.subject,
            "part": self.part,
            "change": self.kind,
            "before": None if self.before is None else plain(self.before),
            "after": None if self.after is None else plain(self.after),
        }


def readable(text: str, name: str) -> Mapping:
    """Return the tree of a programme, which may have errors.

    Raises:
        InputError: it is not YAML, or no mapping of sections.
    """
    return _tree(text, Problems(name), name)


def readable_file(path: Path) -> Mapping:
    """Return the tree of the programme in a file; see `readable`."""
    problems = Problems(str(path))
    return _tree(text_in(path, problems), problems, str(path))


def _tree(text: str | None, problems: Problems, name: str) -> Mapping:
    tree = None if text is None else read_tree(text.removeprefix("\ufeff"), problems)
    if problems.any_error:
        raise InputError("; ".join(map(str, problems.in_order())))
    if not isinstance(tree, Mapping):
        raise InputError(f"{name} is no programme, which is a mapping of sections; name another file")
    return tree


def changes_between(before: Mapping, after: Mapping) -> list[Change]:
    """Return the changes from one programme to the other, section by section in their order in the files."""
    return [
        change
        for section, old, new in _pairs(before.entries, after.entries)
        if section != EXAMPLES
        for change in _section(section, old, new)
    ]


def written(node: Node) -> str:
    """Return a node on one line, in the file's own words."""
    if isinstance(node, Mapping):
        return "{" + ", ".join(f"{name}: {written(value)}" for name, value in node.entries.items()) + "}"
    if isinstance(node, Sequence):
        return "[" + ", ".join(map(written, node.items)) + "]"
    return node.text if node.plain else json.dumps(node.text, ensure_ascii=False)


def _section(section: str, old: Node | None, new: Node | None) -> Iterator[Change]:
    """Yield the changes within a section."""
    # a section that was added or removed, or that has no named entries, is one setting
    subject = SUBJECTS.get(section)
    olds, news = _named(old), _named(new)
    if olds is None or news is None or (subject is None and (old is None or new is None)):
        if not _same(old, new):
            yield Change(section, None, old, new)
        return

    # else compare the entries of the same name, and their parts
    for name, one, other in _pairs(olds, news):
        if subject is None:
            yield from _parts(section, name, one, other)
        elif isinstance(one, Mapping) and isinstance(other, Mapping):
            for part, was, becomes in _pairs(one.entries, other.entries):
                yield from _parts(f"{subject} {name}", part, was, becomes)
        elif not _same(one, other):
            yield Change(f"{subject} {name}", None, one, other)


def _parts(subject: str, part: str, old: Node | None, new: Node | None) -> Iterator[Change]:
    """Yield the change of a part; of a list of things with ids, the change of each thing."""
    olds, news = _by_id(old), _by_id(new)
    if olds is None or news is None:
        if not _same(old, new, part):
            yield Change(subject, part, old, new)
        return
    for name, one, other in _pairs(olds, news):
        if not _same(one, other):
            yield Change(subject, f"{part} {name}", one, other)


def _named(node: Node | None) -> dict[str, Node] | None:
    """Return the entries of a section by name or id, None where it has none."""
    if node is None:
        return {}
    return node.entries if isinstance(node, Mapping) else _by_id(node)


def _by_id(node: Node | None) -> dict[str, Node] | None:
    """Return the entries of a list by their ids, None unless each has an id of its own."""
    if not isinstance(node, Sequence):
        return None
    entries: dict[str, Node] = {}
    for item in node.items:
        identifier = item.entries.get("id") if isinstance(item, Mapping) else None
        if not isinstance(identifier, Scalar) or identifier.text in entries:
            return None
        entries[identifier.text] = item
    return entries


def _pairs(olds: dict[str, Node], news: dict[str, Node]) -> Iterator[tuple[str, Node | None, Node | None]]:
    for name in dict.fromkeys((*olds, *news)):
        yield name, olds.get(name), news.get(name)


def _same(old: Node | None, new: Node | None, name: str = "") -> bool:
    return (None if old is None else _canonical(old, name)) == (None if new is None else _canonical(new, name))


def _canonical(node: Node, name: str) -> str:
    """Return a text that is the same for equal nodes; `name` is that of the entry in which the node stands."""
    if isinstance(node, Mapping):
        return json.dumps([[key, _canonical(value, key)] for key, value in sorted(node.entries.items())])
    if isinstance(node, Sequence):
        items = [_canonical(item, name) for item in node.items]
        return json.dumps(items if name in _IN_ORDER else sorted(items))
    return json.dumps(node.text)
