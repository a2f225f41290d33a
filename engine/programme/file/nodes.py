"""Read YAML text into a tree of texts with their places: no types are guessed, nothing is constructed or expanded.

Scalars stay text, so that `NO`, `17:00`, `010` and `50.10` mean what their author wrote. The parser is asked for one
event at a time, so nesting is bounded before it grows, and aliases are refused before they multiply.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from engine.programme.conditions import NOWHERE, Place
from engine.programme.file.problems import Code, Problems, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT_CHARACTERS_MAX = 1_000_000
DEPTH_MAX = 32
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
NODES_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Scalar:
    """Hold the text of one value; `plain` says that it was written without quotes."""

    text: str
    plain: bool
    place: Place


@dataclass(frozen=True, slots=True)
class Sequence:
    """Hold a list."""

    items: list[Node]
    place: Place


@dataclass(frozen=True, slots=True)
class Mapping:
    """Hold a mapping by the text of its keys; `key_places` says where each key stands."""

    entries: dict[str, Node]
    key_places: dict[str, Place]
    place: Place


Node = Scalar | Sequence | Mapping


def plain(node: Node) -> object:
    """Return a node as lists, dictionaries and texts."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.text


class _Unusable(Exception):
    """Stop reading: the rest cannot be read."""


def text_in(path: Path, problems: Problems) -> str | None:
    """Return the text of a file, or None where it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"the file cannot be read ({error.strerror or 'it is not a file'}); check its path"
        problems.error(NOWHERE, Code.UNREADABLE, message)
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig")
        problems.error(place_at(before, len(before)), Code.YAML, "the byte here is not UTF-8; save the file as UTF-8")
    return None


def read_tree(text: str, problems: Problems) -> Node | None:
    """Return the tree of the only document in `text`, or None where there is none that can be read."""
    if len(text) > TEXT_CHARACTERS_MAX:
        problems.error(
            NOWHERE, Code.TOO_LARGE, f"the file is longer than {TEXT_CHARACTERS_MAX:,} characters; split the programme"
        )
        return None

    try:
        events = yaml.parse(text, Loader=yaml.CSafeLoader)
        return _Reader(events, problems).document()
    except _Unusable:
        return None

    # each way in which a text can fail to be YAML has its own place and sentence
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # Where the text ends too early, the mark may be in the line after it.
        place = min(Place(mark.line + 1, mark.column + 1), place_at(text, len(text))) if mark else NOWHERE
        is_tab = mark is not None and text[mark.index : mark.index + 1] == "\t"
        why = f"this is not YAML: {error.problem or error.context}; correct it here"
        problems.error(place, Code.YAML, "a tab stands here; indent with spaces" if is_tab else why)
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position].decode(errors="ignore")  # the position counts bytes
        place = place_at(text, len(before))
        problems.error(place, Code.YAML, "a control character stands here; take it out")
    except UnicodeEncodeError as error:
        problems.error(place_at(text, error.start), Code.YAML, "this is not a character; save the file as UTF-8")
    return None


def place_at(text: str, index: int) -> Place:
    """Return line and column of a character, with the ends of lines that YAML knows."""
    breaks = [match.end() for match in _LINE_BREAK.finditer(text, 0, index)]
    return Place(len(breaks) + 1, index - (breaks[-1] if breaks else 0) + 1)


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return NOWHERE if mark is None else Place(mark.line + 1, mark.column + 1)


class _Reader:
    """Build the tree from the parser's events, within a bounded depth and number of nodes."""

    def __init__(self, events: Iterator[yaml.Event], problems: Problems) -> None:
        self._events = events
        self._problems = problems
        self._nodes = 0

    def document(self) -> Node | None:
        """Read the first document and refuse a second one."""
        root: Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    message = "a second document begins here; put one programme into one file"
                    self._problems.error(_place(event), Code.SEVERAL_DOCUMENTS, message)
                    raise _Unusable
            elif isinstance(event, yaml.NodeEvent):
                root = self._node(event, 1)
        return root

    def _node(self, event: yaml.NodeEvent, depth: int) -> Node:
        """Read the node that begins with an event."""
        place = _place(event)
        self._bound(place, depth)

        # what would make the same text mean different things is recorded, and read on without it
        if isinstance(event, yaml.AliasEvent):
            message = f'"*{shown(str(event.anchor))}" is an alias; write the value out'
            self._problems.error(place, Code.ANCHOR, message)
            return Scalar("", plain=False, place=place)
        if event.anchor is not None:
            message = f'"&{shown(event.anchor)}" is an anchor, which these files do not have; take it out'
            self._problems.error(place, Code.ANCHOR, message)
        if getattr(event, "tag", None) is not None:
            message = f'"{shown(str(event.tag))}" is a tag, which these files do not have; take it out'  # type: ignore[attr-defined]
            self._problems.error(place, Code.TAG, message)

        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(place, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(place, depth)
        return Scalar(event.value, plain=event.style in (None, ""), place=place)  # type: ignore[attr-defined]

    def _bound(self, place: Place, depth: int) -> None:
        """Stop where the tree is too deep or too large."""
        self._nodes += 1
        if depth > DEPTH_MAX:
            self._problems.error(place, Code.TOO_DEEP, f"nested deeper than {DEPTH_MAX} levels; flatten it")
            raise _Unusable
        if self._nodes > NODES_MAX:
            message = f"more than {NODES_MAX:,} values stand before this one; split the programme"
            self._problems.error(place, Code.TOO_LARGE, message)
            raise _Unusable

    def _sequence(self, place: Place, depth: int) -> Sequence:
        items = []
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            assert isinstance(event, yaml.NodeEvent)  # the parser emits nothing else inside a list
            items.append(self._node(event, depth + 1))
        return Sequence(items, place)

    def _mapping(self, place: Place, depth: int) -> Mapping:
        entries: dict[str, Node] = {}
        key_places: dict[str, Place] = {}
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            assert isinstance(event, yaml.NodeEvent)  # the parser emits nothing else inside a mapping
            key = self._node(event, depth + 1)
            following = next(self._events)
            assert isinstance(following, yaml.NodeEvent)  # a key is followed by its value
            value = self._node(following, depth + 1)
            self._enter(key, value, entries, key_places)
        return Mapping(entries, key_places, place)

    def _enter(self, key: Node, value: Node, entries: dict[str, Node], key_places: dict[str, Place]) -> None:
        """Add an entry to a mapping, or record why its name cannot stand there."""
        if not isinstance(key, Scalar):
            self._problems.error(key.place, Code.WRONG_TYPE, "a name must be a word here, not a list or a mapping")
        elif key.plain and key.text == "<<":
            message = '"<<" merges another mapping, which these files do not have; write its entries out'
            self._problems.error(key.place, Code.MERGE_KEY, message)
        elif key.text in entries:
            message = f'"{shown(key.text)}" stands twice in this mapping (first in line {key_places[key.text].line})'
            self._problems.error(key.place, Code.DUPLICATE_KEY, message + "; keep one")
        else:
            entries[key.text] = value
            key_places[key.text] = key.place
