"""Compare a simulation with the expectations of a case; only what the case lists is compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.programme.file.cases import ANY
from schemas.rewards import ITEM_UNITS
from schemas.scalars import instant_from_iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.programme.file.cases import Expectations

Document = dict[str, list[dict[str, Any]]]
"""The document of `Simulation.document`, or rows of the views under the same names."""

GONE = frozenset(("revoked", "expired"))
_OF_ITEMS = tuple(f"{unit}." for unit in ITEM_UNITS)
_SHOWN = ("occurred_at", "type", "unit", "amount", "item", "rule_id", "event_id", "reason")


@dataclass(frozen=True)
class CaseDifference:
    """Say what was expected, and the result instead."""

    what: str
    expected: Any
    got: Any
    because: tuple[dict[str, Any], ...] = ()
    """The reward events that led to it, in their order."""

    def __str__(self) -> str:
        """Return the line that a person reads."""
        return f"{self.what}: expected {_shown(self.expected)}, got {_shown(self.got)}"


def differences(expect: Expectations, document: Document) -> list[CaseDifference]:
    """Return all differences between a case's expectations and the document."""
    return [difference for name, wanted in expect.items() for difference in COMPARISONS[name](wanted, document)]


def same(wanted: Any, actual: Any) -> bool:
    """Whether a value is as expected: times are compared as instants, everything else exactly; None counts as 0."""
    if isinstance(wanted, str) and isinstance(actual, str) and wanted[4:5] == "-" and "T" in wanted:
        return instant_from_iso(wanted, "wanted") == instant_from_iso(actual, "actual")
    return bool(wanted == (0 if actual is None and wanted == 0 else actual))


def _compare_balances(wanted: dict[str, Any], document: Document) -> list[CaseDifference]:
    rows = {(row["member_id"], row["unit"]): row for row in document["balances"]}
    return [
        CaseDifference(f"{column} {unit} of {member}", value, got, _events(document, member, partial(_is_of, unit)))
        for member, units in wanted.items()
        for unit, columns in units.items()
        for column, value in columns.items()
        if not same(value, got := rows.get((member, unit), {}).get(column, 0))
    ]


def _compare_tiers(wanted: dict[str, Any], document: Document) -> list[CaseDifference]:
    rows = {row["member_id"]: row for row in document["tiers"]}
    return [
        CaseDifference(f"tier of {member}, {column}", value, got, _events(document, member, _moves_tier))
        for member, columns in wanted.items()
        for column, value in columns.items()
        if not same(value, got := rows.get(member, {}).get(column))
    ]


def _compare_referrals(wanted: dict[str, Any], document: Document) -> list[CaseDifference]:
    differing = []
    for referee, columns in wanted.items():
        rows = [row for row in document["referrals"] if row["referee_id"] == referee]
        if not any(all(same(value, row[column]) for column, value in columns.items()) for row in rows):
            got = [{column: row[column] for column in columns} for row in rows]
            differing.append(CaseDifference(f"a referral of {referee}", columns, got))
    return differing


def _compare_rewards(wanted: dict[str, list[str]], document: Document) -> list[CaseDifference]:
    differing = []
    for member, items in wanted.items():
        rows = [row for row in document["rewards"] if row["member_id"] == member and row["status"] not in GONE]
        possessed = sorted(row["item"] for row in rows)
        if possessed != sorted(items):
            events = _events(document, member, lambda event: event["type"].startswith(_OF_ITEMS))
            differing.append(CaseDifference(f"rewards that {member} holds", sorted(items), possessed, events))
    return differing


def _compare_counts(wanted: dict[str, int], document: Document) -> list[CaseDifference]:
    types = [row["type"] for row in document["reward_events"]]
    return [
        CaseDifference(f"number of {name}", count, types.count(name))
        for name, count in wanted.items()
        if types.count(name) != count
    ]


def _compare_quarantined(wanted: dict[str, str | None], document: Document) -> list[CaseDifference]:
    differing = []
    for event_id, reason in wanted.items():
        reasons = [row["reason"] for row in document["quarantined"] if row["event_id"] == event_id]
        right = not reasons if reason is None else bool(reasons) and (reason == ANY or reason in reasons)
        if not right:
            differing.append(CaseDifference(f"reason to set {event_id} aside", reason, reasons or None))
    return differing


def _compare_refused(wanted: dict[str, list[list[str]]], document: Document) -> list[CaseDifference]:
    """Compare refusals: each listed pair takes one refusal for itself, exact pairs before those with a wildcard."""
    differing = []
    for member, pairs in wanted.items():
        events = _events(document, member, lambda event: event["type"] == "reward.refused")
        left = [[event.get("rule_id"), event["reason"]] for event in events]
        for rule_id, reason in sorted(pairs, key=lambda pair: pair.count(ANY)):
            match = next((r for r in left if rule_id in (ANY, r[0]) and reason in (ANY, r[1])), None)
            if match is None:
                differing.append(CaseDifference(f"a refusal of {member}", [rule_id, reason], list(left), events))
            else:
                left.remove(match)
    return differing


COMPARISONS: dict[str, Callable[[Any, Document], list[CaseDifference]]] = {
    "balances": _compare_balances,
    "tiers": _compare_tiers,
    "referrals": _compare_referrals,
    "rewards": _compare_rewards,
    "counts": _compare_counts,
    "quarantined": _compare_quarantined,
    "refused": _compare_refused,
}


def _events(document: Document, member: str, counts: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Any], ...]:
    """Return those of a member's reward events that count, with the fields that are shown."""
    rows: Iterable[dict[str, Any]] = document["reward_events"]
    return tuple(
        {name: row[name] for name in _SHOWN if row[name] is not None}
        for row in rows
        if row["member_id"] == member and counts(row)
    )


def _is_of(unit: str, event: dict[str, Any]) -> bool:
    return bool(event["unit"] == unit)


def _moves_tier(event: dict[str, Any]) -> bool:
    return bool(event["type"] == "tier.changed" or event["unit"] == "status")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_shown(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "nothing" if value is None else str(value)
