"""Measure how fast projections are folded from the reward log: rebuilt, incrementally, and beside a plain GROUP BY.

The log is made by INSERT … SELECT, its rows as workers leave them: two an event, the shards mixed. Nothing reads their
hashes here. One log has what three simple rules give; the other everything that a projection folds: points that lapse
at the end of a month, are held, reserved, captured and reversed, coupons, tiers, referrals and what they pay.
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from bench.databases import fresh, server
from bench.load import PROGRAMME
from engine.store.database import one
from projections import runner
from projections.rebuild import rebuild

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812  a class under a module's name

ROWS = 2_000_000
ROUNDS = 3
FOLDED_AT_ONCE = 5_000
"""Positions of all shards that one incremental fold takes in: a worker's batch."""

FOLDS = 20

GRANTS = "(0, 39, 'points.granted', 'points', 'issued', 'active', NULL, '', 17, false)"
EVERYTHING = """
    (0,  23, 'points.granted',      'points', 'issued',   'active',   NULL,        '',           17,   true),
    (24, 27, 'points.granted',      'points', 'issued',   'pending',  NULL,        '',           200,  false),
    (28, 29, 'points.reserved',     'points', 'active',   'reserved', NULL,        '',           50,   true),
    (30, 31, 'points.captured',     'points', 'reserved', 'spent',    NULL,        '',           50,   true),
    (32, 33, 'points.reversed',     'points', 'active',   'reversed', NULL,        '',           9,    true),
    (34, 35, 'coupon.issued',       'coupon', NULL,       NULL,       'five-off',  '',           1,    false),
    (36, 37, 'points.granted',      'points', 'issued',   'active',   NULL,        'forwarded:', 100,  true),
    (38, 38, 'tier.changed',        'tier',   NULL,       NULL,       'gold',      '',           1000, false),
    (39, 39, 'referral.attributed', '',       NULL,       NULL,       'member-1',  '',           0,    false)
"""
LOGS = (("three rules", GRANTS, 20_000), ("three rules", GRANTS, 200_000), ("everything", EVERYTHING, 20_000))

_FILL = """
INSERT INTO guerdon.reward_event
    (pos, seq, amount, occurred_at, recorded_at, expires_at, generation, shard, type, unit, debit, credit, rule_id,
     rule_version, item, reason, member_id, event_id, order_id, reward_key, hash)
SELECT h.pos + row_number() OVER (PARTITION BY shard ORDER BY n), n / 2, k.amount, at, at,
       CASE WHEN k.lapses THEN date_trunc('month', at + interval '13 months') END, 1, shard,
       k.type::guerdon.reward_type, k.unit, k.debit::guerdon.account, k.credit::guerdon.account, 'point-a-dollar', 1,
       k.item, NULL, 'member-' || member, k.event || 'e-' || n / 2, 'o-' || n / 2, sha256(n::text::bytea), sha256('')
FROM (
    SELECT n, (hashint8(n / 2) & 2147483647) %% %(members)s AS member,
           ((hashint8(n / 2) & 2147483647) %% %(members)s) %% 64 AS shard,
           '2024-01-01Z'::timestamptz + n * (interval '1 year' / %(year)s) AS at
    FROM generate_series(%(after)s + 1, %(after)s + %(rows)s) AS n
) drawn
JOIN guerdon.generation_head h USING (shard)
JOIN (VALUES {kinds}) AS k (low, high, type, unit, debit, credit, item, event, amount, lapses)
  ON (hashint8(n) & 2147483647) %% 40 BETWEEN k.low AND k.high
ORDER BY n
"""
_FORWARDED = """
INSERT INTO guerdon.source_event
    (seq, prev_seq, occurred_at, recorded_at, offset_, partition, schema_id, shard, kind, member_id, source, event_id,
     payload, hash)
SELECT DISTINCT seq, 0, occurred_at, recorded_at, -1, -1, 0, shard, 'forwarded'::guerdon.source_kind, member_id,
       'guerdon', event_id, ''::bytea, sha256('')
FROM guerdon.reward_event WHERE starts_with(event_id, 'forwarded:') AND debit IS NOT NULL
"""
_HEADS = """
UPDATE guerdon.generation_head h SET pos = e.pos, seq = e.seq
FROM (SELECT shard, max(pos) AS pos, max(seq) AS seq FROM guerdon.reward_event GROUP BY shard) e
WHERE h.generation = 1 AND h.shard = e.shard
"""
FLOOR = """
SELECT count(*) FROM (
    SELECT shard, member_id, unit, sum(amount) FROM guerdon.reward_event WHERE generation = 1
    GROUP BY shard, member_id, unit
) summed
"""
"""What any fold does at least: read every row and group it by member; PostgreSQL takes both cores for it."""


def main() -> None:
    """Print log rows per second of each, the median of the rounds, and their ratio to the floor."""
    with server() as address:
        for number, (name, kinds, members) in enumerate(LOGS):
            url = fresh(address, f"folded_{number}", PROGRAMME)
            with closing(psycopg2.connect(url)) as connection:
                connection.autocommit = True
                print(f"{ROWS:,} reward events of {members:,} members, {name}, {ROUNDS} rounds in turns:")
                _fill(connection, kinds, members, 0, ROWS)
                with connection.cursor() as cursor:
                    cursor.execute(_FORWARDED)
                    cursor.execute("VACUUM ANALYZE")
                found = _rebuilt(connection, url)
                found["folded as it comes, all five"] = [_followed(connection, url, kinds, members)]
                _report(found)


def _fill(connection: Connection, kinds: str, members: int, after: int, rows: int) -> None:
    with connection.cursor() as cursor:
        drawn = {"members": members, "after": after, "rows": rows, "year": ROWS}
        cursor.execute(sql.SQL(_FILL).format(kinds=sql.SQL(kinds)), drawn)
        cursor.execute(_HEADS)


def _rebuilt(connection: Connection, url: str) -> dict[str, list[float]]:
    """Return rows per second of the floor and of each rebuild, a figure a round."""
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        with connection.cursor() as cursor:
            one(cursor, FLOOR)
        found.setdefault("floor: GROUP BY", []).append(ROWS / (time.perf_counter() - begun))
        for name in runner.PROJECTIONS:
            with connection.cursor() as cursor:
                cursor.execute("CHECKPOINT")
            begun = time.perf_counter()
            rows = rebuild(url, name)
            found.setdefault(f"rebuild {name}", []).append(rows / (time.perf_counter() - begun))
    return found


def _followed(connection: Connection, url: str, kinds: str, members: int) -> float:
    """Return rows per second of folds as a worker makes them, of a batch each and of all projections at once."""
    seconds = 0.0
    with closing(runner.connect_to_project(url)) as following:
        for number in range(FOLDS):
            _fill(connection, kinds, members, ROWS + number * FOLDED_AT_ONCE, FOLDED_AT_ONCE)
            begun = time.perf_counter()
            folded = runner.catch_up(following)
            seconds += time.perf_counter() - begun
            assert folded == FOLDED_AT_ONCE * len(runner.PROJECTIONS)  # noqa: S101  or something else was measured
    return FOLDED_AT_ONCE * FOLDS / seconds


def _report(found: dict[str, list[float]]) -> None:
    floor = statistics.median(found["floor: GROUP BY"])
    for name, rates in found.items():
        rate = statistics.median(rates)
        print(f"  {name:32s} {rate:12,.0f} rows/s   {rate / floor:7.1%} of the floor")


if __name__ == "__main__":
    main()
