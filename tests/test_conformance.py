"""Run the acceptance cases through `simulate`; what this release cannot judge is a list that must be exactly right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.programme.load import load_programme
from operations.simulate import Simulation, simulate
from schemas.events import EVENT_TYPES
from schemas.rejection import Reason
from schemas.scalars import instant_from_iso
from tests.conformance_cases import Case, all_cases

if TYPE_CHECKING:
    from pathlib import Path

ALL = {case.id: case for case in all_cases()}
JUDGED = set(EVENT_TYPES) - {"touch"}
GONE = {"revoked", "expired"}

NOT_YET = {
    "limit-campaign-budget-across-members",
    "redeem-catalogue-price",
    "ref-first-order",
    "ref-below-the-threshold",
    "ref-welcome-for-the-referee",
    "ref-self-and-unknown",
    "ref-cycle-of-two",
    "ref-referrer-limit",
    "ref-hold-cancelled",
}
"""Cases that need language or events of a later release: the list shrinks as these come."""


CONTRADICTORY = {"earn-only-items"}
"""Its first order's lines add up to 150.00 and not to its 135.00, which the contract sets aside as items_mismatch."""


def is_judged(case: Case) -> bool:
    """Whether this release knows the whole language of the programme and judges every type of event."""
    return case.event_types <= JUDGED and not load_programme(case.programme, case.id).not_judged


def test_the_list_of_what_is_not_judged_yet_is_exactly_right() -> None:
    assert {case.id for case in ALL.values() if not is_judged(case)} == NOT_YET


def test_no_case_has_an_error() -> None:
    assert [str(error) for case in ALL.values() for error in load_programme(case.programme, case.id).errors] == []


@pytest.mark.parametrize("case_id", [case_id for case_id in ALL if case_id not in NOT_YET | CONTRADICTORY])
def test_case(case_id: str, tmp_path: Path) -> None:
    case = ALL[case_id]
    programme, events = case.write(tmp_path)
    until_ms = None if case.until is None else instant_from_iso(case.until, "until")
    assert differences(case.expect, simulate(programme, [events], until_ms)) == []


def test_the_contradictory_case_fails_for_its_lines_alone(tmp_path: Path) -> None:
    for case_id in sorted(CONTRADICTORY):
        simulation = simulate(*_files(ALL[case_id], tmp_path))
        assert {event.reason for event in simulation.quarantined} == {Reason.ITEMS_MISMATCH}


def _files(case: Case, folder: Path) -> tuple[Path, list[Path]]:
    programme, events = case.write(folder)
    return programme, [events]


def differences(expect: dict[str, Any], simulation: Simulation) -> list[str]:
    """Return what `expect` lists and the simulation says otherwise."""
    document = simulation.document()
    found: list[str] = []
    for name, wanted in expect.items():
        found += COMPARISONS[name](wanted, document)
    return found


def same(wanted: Any, actual: Any) -> bool:
    """Compare times as instants and everything else exactly; what is missing counts as 0."""
    if isinstance(wanted, str) and isinstance(actual, str) and wanted[4:5] == "-" and "T" in wanted:
        return instant_from_iso(wanted, "wanted") == instant_from_iso(actual, "actual")
    return bool(wanted == (0 if actual is None and wanted == 0 else actual))


def compare_balances(wanted: dict[str, Any], document: dict[str, Any]) -> list[str]:
    rows = {(row["member_id"], row["unit"]): row for row in document["balances"]}
    return [
        f"balance of {member}, {unit}, {column}: {rows.get((member, unit), {}).get(column)} instead of {value}"
        for member, units in wanted.items()
        for unit, columns in units.items()
        for column, value in columns.items()
        if not same(value, rows.get((member, unit), {}).get(column, 0))
    ]


def compare_tiers(wanted: dict[str, Any], document: dict[str, Any]) -> list[str]:
    rows = {row["member_id"]: row for row in document["tiers"]}
    return [
        f"tier of {member}, {column}: {rows.get(member, {}).get(column)} instead of {value}"
        for member, columns in wanted.items()
        for column, value in columns.items()
        if not same(value, rows.get(member, {}).get(column))
    ]


def compare_referrals(wanted: dict[str, Any], document: dict[str, Any]) -> list[str]:
    return [
        f"no referral of {referee} says {columns}"
        for referee, columns in wanted.items()
        if not any(
            row["referee_id"] == referee and all(same(value, row[column]) for column, value in columns.items())
            for row in document["referrals"]
        )
    ]


def compare_rewards(wanted: dict[str, list[str]], document: dict[str, Any]) -> list[str]:
    found = []
    for member, items in wanted.items():
        rows = [row for row in document["rewards"] if row["member_id"] == member and row["status"] not in GONE]
        held = sorted(row["item"] for row in rows)
        if held != sorted(items):
            found.append(f"{member} holds {held} instead of {sorted(items)}")
    return found


def compare_counts(wanted: dict[str, int], document: dict[str, Any]) -> list[str]:
    types = [row["type"] for row in document["reward_events"]]
    return [f"{types.count(name)} {name} instead of {n}" for name, n in wanted.items() if types.count(name) != n]


def compare_quarantined(wanted: dict[str, str | None], document: dict[str, Any]) -> list[str]:
    found = []
    for event_id, reason in wanted.items():
        reasons = [row["reason"] for row in document["quarantined"] if row["event_id"] == event_id]
        right = not reasons if reason is None else bool(reasons) and (reason == "*" or reason in reasons)
        if not right:
            found.append(f"{event_id} is set aside for {reasons} instead of {reason}")
    return found


def compare_refused(wanted: dict[str, list[list[str]]], document: dict[str, Any]) -> list[str]:
    """Each listed pair takes one refusal for itself: exact pairs first, then those with a wildcard."""
    found = []
    for member, pairs in wanted.items():
        left = [
            (row["rule_id"], row["reason"])
            for row in document["reward_events"]
            if row["type"] == "reward.refused" and row["member_id"] == member
        ]
        for rule_id, reason in sorted(pairs, key=lambda pair: pair.count("*")):
            taken = next((r for r in left if rule_id in ("*", r[0]) and reason in ("*", r[1])), None)
            if taken is None:
                found.append(f"{member} has no refusal {rule_id}, {reason}; there is {left}")
            else:
                left.remove(taken)
    return found


COMPARISONS = {
    "balances": compare_balances,
    "tiers": compare_tiers,
    "referrals": compare_referrals,
    "rewards": compare_rewards,
    "counts": compare_counts,
    "quarantined": compare_quarantined,
    "refused": compare_refused,
}


@pytest.mark.parametrize(
    "expect",
    [
        {"balances": {"m1": {"points": {"available": 18}}}},
        {"balances": {"nobody": {"points": {"available": 1}}}},
        {"counts": {"points.granted": 2}},
        {"quarantined": {"e1": "*"}},
        {"refused": {"m1": [["base", "*"]]}},
        {"rewards": {"m1": ["mug"]}},
        {"referrals": {"m1": {"status": "attributed"}}},
        {"tiers": {"m1": {"tier": "gold"}}},
    ],
)
def test_a_wrong_expectation_is_found(expect: dict[str, Any], tmp_path: Path) -> None:
    programme, events = ALL["earn-floor"].write(tmp_path)
    assert len(differences(expect, simulate(programme, [events]))) == 1
