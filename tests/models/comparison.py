"""Simulate a history of the family and say where the product and the ledger's model differ."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from operations.simulate.run import simulate
from schemas.scalars import instant_from_iso
from tests.models.family import LEVELS, Numbers, Settings, programme_text
from tests.models.ledger import Model
from tests.strategies.ledger_histories import VERSION_TWO, History

if TYPE_CHECKING:
    from pathlib import Path

Document = dict[str, list[dict[str, Any]]]
Row = dict[str, Any]
UNITS = ("points", "status")
MAY_BE_NEGATIVE = ("issued", "debt")
LATER_NUMBERS = Numbers(rate=3, per=200, rounding="ceil", bonus=40, threshold=3_000)


def later(settings: Settings) -> Settings:
    """Return the second version of a programme: other numbers in the same rules."""
    return replace(settings, numbers=LATER_NUMBERS)


def simulated(settings: Settings, history: History, folder: Path, *, why: bool = False) -> Document:
    """Let the product judge a history, and explain it where `why` is."""
    for name, version in (("one.yaml", settings), (VERSION_TWO, later(settings))):
        (folder / name).write_text(programme_text(version), encoding="utf-8")
    events = folder / "events.jsonl"
    events.write_text("".join(f"{json.dumps(line)}\n" for line in history.lines), encoding="utf-8")
    return simulate(folder / "one.yaml", [events], history.until_ms, why=why).document()


def modelled(settings: Settings, history: History, document: Document) -> Model:
    """Let the model judge a history; it takes only the keys of lots from the product, which break ties."""
    keys = {
        (row["event_id"], row["rule_id"] or "adjust"): row["reward_key"]
        for row in document["reward_events"]
        if row["type"].endswith((".granted", ".adjusted"))
    }
    model = Model(settings, {VERSION_TWO: later(settings)}, keys)
    for line in history.lines:
        model.take(line)
    model.finish(history.until_ms)
    return model


def differences(model: Model, document: Document) -> list[str]:
    """Return each balance, tier and held reward that differs, and each rule of accounts that the product breaks."""
    problems = [f"{row['event_id']} is set aside: {row['message']}" for row in document["quarantined"]]
    for member_id in sorted(model.members):
        problems += _balance_differences(member_id, model, document)
        problems += _tier_differences(member_id, model, document)
        items = sorted(row["item"] for row in document["rewards"] if _is_held(row, member_id))
        if items != model.members[member_id].held():
            problems.append(f"{member_id} holds {items} instead of {model.members[member_id].held()}")
    return problems + broken_equations(document["balances"]) + broken_accounts(document["reward_events"])


def _is_held(row: Row, member_id: str) -> bool:
    return bool(row["member_id"] == member_id and row["status"] in ("pending", "active"))


def _balance_differences(member_id: str, model: Model, document: Document) -> list[str]:
    rows = {(row["member_id"], row["unit"]): row for row in document["balances"]}
    problems = []
    for unit in UNITS:
        row = rows.get((member_id, unit), {})
        for column, wanted in model.members[member_id].balance(unit).items():
            actual = row.get(column)
            if column == "next_expiry_at" and actual is not None:
                actual = instant_from_iso(actual, column)
            if (actual or None) != (wanted or None):
                problems.append(f"{column} of {member_id}'s {unit}: {actual} instead of {wanted}")
    return problems


def _tier_differences(member_id: str, model: Model, document: Document) -> list[str]:
    member = model.members[member_id]
    if member.standing is None:
        return []
    row = next((row for row in document["tiers"] if row["member_id"] == member_id), None)
    if row is None:
        # A member begins in the lowest level without an event; a row may be missing until something is known.
        lowest = member.standing.rank == 0 and member.standing.number(member.standing.window_at(member.clock_ms)) == 0
        return [] if lowest else [f"{member_id} has no row of tiers instead of {LEVELS[member.standing.rank]}"]
    problems = [
        f"{column} of {member_id}: {row.get(column)} instead of {wanted}"
        for column, wanted in member.standing.row(member.clock_ms).items()
        if row.get(column) != wanted
    ]
    since_ms = member.standing.since_ms
    if since_ms is not None and (row["since"] is None or instant_from_iso(row["since"], "since") != since_ms):
        problems.append(f"since of {member_id}: {row['since']} instead of {since_ms}")
    return problems


def broken_equations(balances: list[Row]) -> list[str]:
    """Return the rows of `member_balance` that break an equation of the contract."""
    broken = []
    for row in balances:
        parts = ("pending", "active", "reserved", "spent", "expired", "settled")
        holds = (
            row["granted"] == sum(row[part] for part in parts)
            and row["reversed"] == row["settled"] + row["debt"]
            and row["available"] == row["active"] - row["debt"]
            and (row["debt"] == 0 or row["active"] == 0)
            and min(row[column] for column in (*parts, "granted", "reversed", "debt")) >= 0
        )
        if not holds:
            broken.append(f"the equations do not hold in {row}")
    return broken


def broken_accounts(rewards: list[Row]) -> list[str]:
    """Return each movement that makes an account of a member, or of a lot, negative against the rules."""
    accounts: dict[tuple[str, ...], int] = {}
    broken = []
    for row in rewards:
        if row["debit"] is None:
            continue

        # a debt is the member's and no lot's
        of_whom = [(row["member_id"], row["unit"])]
        if "debt" not in (row["debit"], row["credit"]):
            of_whom.append(("lot", row["lot"]))
        for owner in of_whom:
            for account, amount in ((row["debit"], -row["amount"]), (row["credit"], row["amount"])):
                key = (*owner, account)
                accounts[key] = accounts.get(key, 0) + amount
                if accounts[key] < 0 and account not in MAY_BE_NEGATIVE:
                    broken.append(f"{key} is {accounts[key]} after {row['type']} at position {row['pos']}")
    return broken
