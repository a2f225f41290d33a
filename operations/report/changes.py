"""Report what was changed in the last days: the programme, members, quarantine, and what operators decided.

Rows are of the time in which something was recorded, not of that in which it counts: a decision of yesterday about an
order of last year is of yesterday.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.ledger.adjustments import KIND, Adjustment
from engine.store.logs.history import History
from operations.rows import plain
from schemas.events import Decision

if TYPE_CHECKING:
    from datetime import datetime

    from operations.report.frame import Frame

_PROGRAMMES = """
SELECT 'programme', version::text,
       'version ' || version || CASE WHEN replayed THEN ' came with a replay' ELSE ' activated' END
           || ' from ' || file_name,
       NULL, activated_at, NULL
FROM guerdon.programme_version WHERE activated_at >= %(since)s AND activated_at < least(%(cut)s, %(known_at)s)
UNION ALL
SELECT 'generation', generation::text, 'became live in place of generation ' || previous, NULL, at, NULL
FROM guerdon.generation_switch WHERE at >= %(since)s AND at < least(%(cut)s, %(known_at)s)
"""

_QUARANTINE = """
SELECT 'quarantine', reason, count(*) || ' set aside', NULL, max(quarantined_at), NULL
FROM guerdon.quarantine WHERE quarantined_at >= %(since)s AND quarantined_at < least(%(cut)s, %(known_at)s)
GROUP BY reason
UNION ALL
SELECT 'quarantine', reason, count(*) || ' ' || status, NULL, max(resolved_at), resolved_why
FROM guerdon.quarantine WHERE resolved_at >= %(since)s AND resolved_at < least(%(cut)s, %(known_at)s)
GROUP BY reason, status, resolved_why
"""

_KAFKA = """
SELECT 'kafka', topic || '/' || partition, 'reading goes on from offset ' || to_offset || ' instead of ' || from_offset,
       NULL, at, why
FROM guerdon.consumer_reset WHERE at >= %(since)s AND at < least(%(cut)s, %(known_at)s)
UNION ALL
SELECT 'kafka', topic || '/' || partition, 'the record at offset ' || offset_ || ' was passed', NULL, at, why
FROM guerdon.consumer_pass WHERE at >= %(since)s AND at < least(%(cut)s, %(known_at)s)
UNION ALL
SELECT 'kafka', topic_prefix, 'events are read from cluster ' || cluster_id, NULL, at, why
FROM guerdon.kafka_place WHERE at >= %(since)s AND at < least(%(cut)s, %(known_at)s)
UNION ALL
SELECT 'kafka', topic, 'incarnation ' || incarnation || ' began', begun_by, begun_at, why
FROM guerdon.incarnation WHERE begun_at >= %(since)s AND begun_at < least(%(cut)s, %(known_at)s)
"""

_MEMBERS = """
SELECT 'member', NULL, count(DISTINCT member_id) || ' new', NULL, max(first_recorded_at), NULL
FROM guerdon.fact_member
WHERE build = %(facts)s AND first_recorded_at >= %(since)s AND first_recorded_at < least(%(cut)s, %(known_at)s)
HAVING count(*) > 0
UNION ALL
SELECT 'member', NULL, count(DISTINCT member_id) || ' erased', NULL, max(erased_at), NULL
FROM guerdon.fact_member
WHERE build = %(facts)s AND erased_at >= %(since)s AND erased_at < least(%(cut)s, %(known_at)s)
HAVING count(*) > 0
"""

_TIERS = """
SELECT 'tier', item, count(*) || ' came into it', NULL, max(recorded_at), reason
FROM guerdon.reward_event
WHERE generation = %(generation)s AND type = 'tier.changed'
  AND recorded_at >= %(since)s AND recorded_at < least(%(cut)s, %(known_at)s)
GROUP BY item, reason
"""

_DECISIONS = """
WITH RECURSIVE search AS (
    SELECT l.shard, 1::bigint AS low,
           coalesce((SELECT max(e.seq) FROM guerdon.source_event e WHERE e.shard = l.shard), 0) + 1 AS high
    FROM guerdon.shard_lock l
    UNION ALL
    SELECT h.shard, CASE WHEN h.is_before THEN h.middle + 1 ELSE h.low END,
           CASE WHEN h.is_before THEN h.high ELSE h.middle END
    FROM (
        SELECT s.shard, s.low, s.high, (s.low + s.high) / 2 AS middle, (
                   SELECT e.recorded_at < %(since)s FROM guerdon.source_event e
                   WHERE e.shard = s.shard AND e.seq = (s.low + s.high) / 2
               ) AS is_before
        FROM search s WHERE s.low < s.high
    ) h
)
SELECT e.seq, e.kind::text, e.member_id, e.source, e.event_id, e.prev_seq, e.schema_id, e.payload, e.sealed,
       guerdon.ms(e.recorded_at), NULL, e.recorded_at, EXISTS (
           SELECT FROM guerdon.member_key k
           WHERE k.shard = e.shard AND k.member_id = e.member_id AND k.erased_at IS NOT NULL
       )
FROM search s CROSS JOIN LATERAL (
    SELECT * FROM guerdon.source_event n
    WHERE n.shard = s.shard AND n.seq >= s.low AND n.kind::text = ANY(%(kinds)s) AND n.recorded_at >= %(since)s
      AND n.recorded_at < least(%(cut)s, %(known_at)s)
    OFFSET 0
) e
WHERE s.low = s.high
ORDER BY e.recorded_at, e.shard, e.seq
"""
"""Decisions about members; they have no sealed fields. No index has times: each shard's first is searched by halves."""


class Change(NamedTuple):
    """Hold one change; a part of it is None where nobody has recorded it."""

    kind: str
    id: str | None
    what: str
    by: str | None
    at: datetime
    why: str | None


def changes(of: Frame) -> dict[str, Any]:
    """Return everything that was changed in the time of the report, the oldest first."""
    rows = sorted([*_counted(of), *_decisions(of)], key=lambda row: (row.at, row.kind, row.id or "", row.what))
    return {"changes": [row._asdict() | {"at": plain(row.at)} for row in rows]}


def _counted(of: Frame) -> list[Change]:
    """Return the changes that PostgreSQL itself can name; those of many members alike are one row."""
    queries = (of.rows(_PROGRAMMES), of.rows(_QUARANTINE), of.rows(_KAFKA), of.rows(_TIERS), of.rows(_MEMBERS))
    return [Change(*row) for rows in queries for row in rows]


def _decisions(of: Frame) -> list[Change]:
    """Return what operators and promotions decided about members; one who was erased is not named."""
    history = History(of.cursor)
    rows: list[Change] = []
    for *row, at, is_erased in of.rows(_DECISIONS, kinds=["decision", KIND]):
        event = history.recorded(tuple(row)).event
        assert isinstance(event, Decision | Adjustment)  # the query asks for no others
        who = None if is_erased else event.member_id
        rows.append(Change("decision", who, _said(event), event.source, at, event.reason))
    return rows


def _said(event: Decision | Adjustment) -> str:
    """Return what was decided, in words."""
    if isinstance(event, Adjustment):
        return f"adjusted by {event.amount:+} {event.unit} to what generation {event.towards} gives"
    match event.action:
        case "adjust":
            return f"adjusted by {event.amount:+} {event.unit}"
        case "referral_release":
            return "referral released"
        case "referral_void":
            return "referral voided"
        case "opening":
            brought = [f"{event.amount} {event.unit}"] if event.amount is not None else []
            brought += [f"tier {event.tier}"] if event.tier is not None else []
            brought += ["a referral code"] if event.referral_code is not None else []
            return f"opened with {', '.join(brought)}"
