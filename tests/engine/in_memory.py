"""Judge a few events by a programme written in a test, in memory, and return what `simulate --json` would print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine.programme.file.load import load_programme
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from schemas.scalars import instant_from_iso

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: {}\ncurrency: EUR\n"
Document = dict[str, list[dict[str, Any]]]


def event(number: int, kind: str, who: str, at: str, /, **fields: Any) -> dict[str, Any]:
    """Return the event `eN` of a member; `at` without a time of day means ten in the morning, UTC."""
    instant = at if "T" in at else f"{at}T10:00:00Z"
    return {"type": kind, "event_id": f"e{number}", "member_id": who, "occurred_at": instant, **fields}


def judged(
    text: str, events: Sequence[dict[str, Any]], until: str | None = None, others: dict[str, str] | None = None,
    timezone: str = "UTC",
) -> Document:  # fmt: skip
    """Return the outcome of events by a programme, given as text without its head; activations name the `others`."""
    checked = load_programme(HEAD.format(timezone) + text, "p.yaml")
    assert checked.programme is not None, "\n".join(map(str, checked.problems))
    lines = [Line("e.jsonl", at, json.dumps(each).encode()) for at, each in enumerate(events, 1)]
    until_ms = None if until is None else instant_from_iso(until, "until")
    loaded = {name: load_programme(other, name) for name, other in (others or {}).items()}
    return simulate_lines(checked.programme, lines, until_ms, others=loaded).document()


def balance(document: Document, who: str, unit: str = "points") -> dict[str, Any]:
    """Return a member's balance of a unit, empty where they have none."""
    rows = [row for row in document["balances"] if (row["member_id"], row["unit"]) == (who, unit)]
    return rows[0] if rows else {"granted": 0, "available": 0, "reversed": 0, "spent": 0}


def given(document: Document, who: str, kind: str) -> list[dict[str, Any]]:
    """Return a member's reward events of a type."""
    return [row for row in document["reward_events"] if (row["member_id"], row["type"]) == (who, kind)]
