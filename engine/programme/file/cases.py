"""Read golden examples: events, and what a programme must make of them.

They are a list of cases, in a programme's section `tests` or in a file of their own. Every name in them is checked, as
a case with a misspelt column would always pass. Nothing is judged here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from engine.programme.file.entries import entries_of
from engine.programme.file.nodes import Mapping, Node, Scalar, Sequence
from engine.programme.file.problems import Code, shown
from engine.programme.file.scalars import integer_of, kind_of, name_of, text_of
from schemas.events import INT64_MAX
from schemas.json_events import decode_json
from schemas.rejection import Reason, Rejected
from schemas.rewards import REWARD_TYPES
from schemas.scalars import instant_from_iso

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.conditions import Place
    from engine.programme.file.problems import Problems

CASE = ("id", "source", "programme", "others", "events", "until", "expect")
BALANCE_COLUMNS = (
    "granted", "pending", "active", "reserved", "spent", "expired", "settled", "reversed", "debt", "available",
    "next_expiry_at", "next_expiry_amount", "as_of",
)  # fmt: skip
TIER_COLUMNS = ("tier", "since", "until", "qualifying", "next_tier", "to_next_tier")
REFERRAL_COLUMNS = ("referrer_id", "code", "channel", "status", "reason", "attributed_at", "qualified_at")
ANY = "*"
"""Stands for any reason or any rule in an expectation."""

_INSTANTS = frozenset(("next_expiry_at", "as_of", "since", "until", "attributed_at", "qualified_at"))
_NUMBERS = frozenset((*BALANCE_COLUMNS, "qualifying", "to_next_tier")) - _INSTANTS
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z")
_WORDS = {"true": "true", "false": "false", "null": "null", "~": "null", "": "null"}
_PATH = re.compile(r"(?P<path>[\w.\[\]]+): ")
_STEP = re.compile(r"\w+")
_CODES = {
    Reason.UNKNOWN_FIELD: Code.UNKNOWN_FIELD, Reason.MISSING_FIELD: Code.MISSING_FIELD,
    Reason.OUT_OF_RANGE: Code.OUT_OF_RANGE,
}  # fmt: skip

Expected = int | str | None
Expectations = dict[str, object]


@dataclass(frozen=True, slots=True)
class CaseEvent:
    """Hold one event as a line of JSON, with the line of the file where it begins."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Case:
    """Hold one golden example; `programme` is None where it is of the programme in the same file, or beside it.

    `others` are further programmes, by the names that its activation lines use. `expect` holds mappings and lists of
    whole numbers, texts and None, by the name of the expectation.
    """

    id: str
    file: str
    line: int
    programme: Node | None
    others: dict[str, Node]
    events: tuple[CaseEvent, ...]
    until_ms: int | None
    expect: Expectations


def json_of(node: Node) -> str:
    """Return a node as JSON: an unquoted number, `true`, `false` and `null` are themselves, all else is text."""
    if isinstance(node, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)}: {json_of(value)}" for name, value in node.entries.items()) + "}"
    if isinstance(node, Sequence):
        return "[" + ", ".join(json_of(item) for item in node.items) + "]"
    if node.plain and node.text in _WORDS:
        return _WORDS[node.text]
    return node.text if node.plain and _JSON_NUMBER.match(node.text) else json.dumps(node.text)


class CaseReader:
    """Read the cases of one file or section; each needs an id of its own."""

    def __init__(self, file: str, problems: Problems) -> None:
        self._file = file
        self._problems = problems
        self._ids: dict[str, Place] = {}

    def cases(self, node: Node) -> tuple[Case, ...]:
        """Return the cases at `node` that could be read."""
        return tuple(case for item in self._list(node, "the list of cases") if (case := self._case(item)) is not None)

    def _case(self, node: Node) -> Case | None:
        """Return the case at `node`, None where it has no id."""
        problems = self._problems
        entries = entries_of(node, "a case", problems, CASE, required=("id", "events", "expect"))
        if entries is None:
            return None
        identifier = self._id(entries["id"]) if "id" in entries else None
        if "source" in entries:
            text_of(entries["source"], "source", problems)

        # an event may be wrong where the case expects it to be set aside
        until_ms = self._instant(entries["until"], "until") if "until" in entries else None
        expect = self._expect(entries["expect"]) if "expect" in entries else {}
        quarantined = expect.get("quarantined")
        meant = quarantined if isinstance(quarantined, dict) else {}
        events = self._events(entries["events"], meant) if "events" in entries else ()

        if identifier is None:
            return None
        others = dict(self._mapping(entries["others"], "others")) if "others" in entries else {}
        return Case(
            id=identifier,
            file=self._file,
            line=node.place.line,
            programme=entries.get("programme"),
            others=others,
            events=events,
            until_ms=until_ms,
            expect=expect,
        )

    def _id(self, node: Node) -> str | None:
        identifier = name_of(node, "id of a case", self._problems)
        if identifier in self._ids:
            message = f'there is a case "{shown(identifier)}" in line {self._ids[identifier].line}; rename one'
            self._problems.error(node.place, Code.DUPLICATE_VALUE, message)
        elif identifier is not None:
            self._ids[identifier] = node.place
        return identifier

    def _events(self, node: Node, meant: dict[str, object]) -> tuple[CaseEvent, ...]:
        events = []
        for item in self._list(node, "events"):
            text = json_of(item)
            if not isinstance(item, Mapping):
                message = f"an event must be a mapping such as {{type: signup, …}}, not {kind_of(item)}"
                self._problems.error(item.place, Code.WRONG_TYPE, message)
            elif not self._is_line_of_its_own(item) and not self._is_meant(item, meant):
                self._check_event(item, text)
            events.append(CaseEvent(text, item.place.line))
        return tuple(events)

    def _is_line_of_its_own(self, event: Mapping) -> bool:
        """Whether a line is no event, but activates another programme or moves the clocks."""
        kind = event.entries.get("type")
        return isinstance(kind, Scalar) and kind.text in ("activation", "tick")

    def _is_meant(self, event: Mapping, meant: dict[str, object]) -> bool:
        """Whether the case expects the event to be set aside, so that it may be wrong."""
        identifier = event.entries.get("event_id")
        return isinstance(identifier, Scalar) and meant.get(identifier.text) is not None

    def _check_event(self, event: Mapping, text: str) -> None:
        try:
            decode_json(text)
        except Rejected as rejected:
            place = _place_of(event, rejected.message)
            message = f"{rejected.message} (where this is meant, expect it under quarantined)"
            self._problems.error(place, _CODES.get(rejected.reason, Code.WRONG_TYPE), message)

    def _expect(self, node: Node) -> Expectations:
        readers: dict[str, Callable[[Node], object]] = {
            "balances": self._balances, "tiers": self._tiers, "referrals": self._referrals, "rewards": self._rewards,
            "counts": self._counts, "quarantined": self._quarantined, "refused": self._refused,
        }  # fmt: skip
        entries = entries_of(node, "expect", self._problems, tuple(readers)) or {}
        if isinstance(node, Mapping) and not node.entries:
            message = "expect is empty, so the case could not fail; say what must come out"
            self._problems.error(node.place, Code.MISSING_VALUE, message)
        return {name: readers[name](value) for name, value in entries.items()}

    def _balances(self, node: Node) -> dict[str, object]:
        return {
            member: {
                unit: self._columns(columns, "a balance", BALANCE_COLUMNS)
                for unit, columns in self._mapping(units, f"the balances of {shown(member)}")
            }
            for member, units in self._mapping(node, "balances")
        }

    def _tiers(self, node: Node) -> dict[str, object]:
        return {name: self._columns(row, "a tier", TIER_COLUMNS) for name, row in self._mapping(node, "tiers")}

    def _referrals(self, node: Node) -> dict[str, object]:
        rows = self._mapping(node, "referrals")
        return {name: self._columns(row, "a referral", REFERRAL_COLUMNS) for name, row in rows}

    def _columns(self, node: Node, what: str, known: tuple[str, ...]) -> dict[str, Expected]:
        entries = entries_of(node, what, self._problems, known) or {}
        return {column: self._value(value, column) for column, value in entries.items()}

    def _value(self, node: Node, column: str) -> Expected:
        if isinstance(node, Scalar) and node.plain and node.text in ("null", "~"):
            return None
        if column in _NUMBERS:
            if isinstance(node, Scalar) and re.fullmatch(r"-?[0-9]+\.[0-9]+", node.text):
                message = f"{column} counts whole points, or minor units of the currency (10.00 is 1000); write it so"
                self._problems.error(node.place, Code.TOO_PRECISE, message)
                return None
            return integer_of(node, column, self._problems, least=-INT64_MAX)
        text = text_of(node, column, self._problems)
        if text is not None and column in _INSTANTS:
            self._instant(node, column)
        return text

    def _rewards(self, node: Node) -> dict[str, object]:
        return {
            member: [text_of(item, "an item", self._problems) for item in self._list(items, "the rewards of a member")]
            for member, items in self._mapping(node, "rewards")
        }

    def _counts(self, node: Node) -> dict[str, object]:
        entries = entries_of(node, "counts", self._problems, REWARD_TYPES) or {}
        return {kind: integer_of(count, kind, self._problems, least=0) for kind, count in entries.items()}

    def _quarantined(self, node: Node) -> dict[str, object]:
        return {event: self._reason(reason) for event, reason in self._mapping(node, "quarantined")}

    def _reason(self, node: Node) -> str | None:
        if isinstance(node, Scalar) and node.plain and node.text in ("null", "~"):
            return None
        text = text_of(node, "a reason", self._problems)
        known = [reason.value for reason in Reason]
        if text not in (None, ANY, *known):
            self._problems.unknown(node.place, Code.UNKNOWN_VALUE, "reason", text or "", known)
        return text

    def _refused(self, node: Node) -> dict[str, object]:
        return {
            member: [self._pair(item) for item in self._list(pairs, "the refusals of a member")]
            for member, pairs in self._mapping(node, "refused")
        }

    def _pair(self, node: Node) -> list[str | None]:
        if isinstance(node, Sequence) and len(node.items) == 2:
            return [text_of(item, "a rule or reason", self._problems) for item in node.items]
        message = f"a refusal is a pair such as [rule-id, limit_max], not {kind_of(node)}"
        self._problems.error(node.place, Code.WRONG_TYPE, message)
        return []

    def _instant(self, node: Node, what: str) -> int | None:
        text = text_of(node, what, self._problems)
        if text is None:
            return None
        try:
            return instant_from_iso(text, what)
        except Rejected as rejected:
            code = _CODES.get(rejected.reason, Code.WRONG_TYPE)
            self._problems.error(node.place, code, rejected.message)
            return None

    def _mapping(self, node: Node, what: str) -> list[tuple[str, Node]]:
        if isinstance(node, Mapping):
            return list(node.entries.items())
        self._problems.error(node.place, Code.WRONG_TYPE, f"{what} must be a mapping, not {kind_of(node)}")
        return []

    def _list(self, node: Node, what: str) -> list[Node]:
        if isinstance(node, Sequence):
            return node.items
        self._problems.error(node.place, Code.WRONG_TYPE, f"{what} must be a list, not {kind_of(node)}")
        return []


def _place_of(event: Mapping, message: str) -> Place:
    """Return the place of the field with which a message about an event begins; else the place of the event."""
    match = _PATH.match(message)
    place, node = event.place, cast("Node", event)
    for step in _STEP.findall(match["path"]) if match else ():
        if isinstance(node, Mapping) and step in node.entries:
            place, node = node.key_places[step], node.entries[step]
        elif isinstance(node, Sequence) and step.isdigit() and int(step) < len(node.items):
            node = node.items[int(step)]
            place = node.place
        else:
            break
    return place
