"""Measure how fast projections are folded from the reward log: rebuilt, incrementally, and beside a plain GROUP BY.

INSERT … SELECT makes the log, with rows like a worker's: two for each event, the shards mixed. Nothing reads their
hashes here. One log has the rewards of three simple rules. The other has everything that a projection folds: points
that lapse at the end of a month, are held, reserved, captured and reversed; coupons, tiers, referrals with rewards.
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import psycopg2
from psycopg2 import sql

from bench.databases import cpu_s, fresh, postmaster, server
from bench.load import PROGRAMME
from engine.store.cursor import one
from projections import runner
from projections.rebuild import rebuild

if TYPE_CHECKING:
    from collections.abc import Callable

    import psutil

    from engine.store.cursor import Connection

ROWS = 2_000_000
ROUNDS = 3
FOLDED_AT_ONCE = 5_000
"""Positions of all shards in one incremental fold: a worker's batch."""

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
SELECT h.pos + row_number() OVER (PARTITION BY shard ORDER BY n), n / 2 + 2, k.amount, at, at,
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
SELECT DISTINCT ON (shard, seq)
       seq, 0, occurred_at, recorded_at, -1, -1, 0, shard, 'forwarded'::guerdon.source_kind, member_id,
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
"""The least that any fold does: read every row and group it by member; PostgreSQL uses both cores for it."""

_FLOOR_NAME = "floor: GROUP BY"


class Cost(NamedTuple):
    """Hold the time of some work, and PostgreSQL's CPU time for it, which other programs do not change."""

    seconds: float
    cpu_s: float


def main() -> None:
    """Print log rows per second of each way, the median of the rounds, and the ratio to the floor."""
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
                _report(_rebuilt(connection, url), _followed(connection, url, kinds, members))


def _fill(connection: Connection, kinds: str, members: int, after: int, rows: int) -> None:
    with connection.cursor() as cursor:
        drawn = {"members": members, "after": after, "rows": rows, "year": ROWS}
        cursor.execute(sql.SQL(_FILL).format(kinds=sql.SQL(kinds)), drawn)
        cursor.execute(_HEADS)


def _rebuilt(connection: Connection, url: str) -> dict[str, list[Cost]]:
    """Return the cost of the floor and of each rebuild, one for each round."""
    postgres = postmaster(connection)
    costs: dict[str, list[Cost]] = {}
    for _ in range(ROUNDS):
        with connection.cursor() as cursor:
            costs.setdefault(_FLOOR_NAME, []).append(_cost(postgres, partial(one, cursor, FLOOR)))
        for name in runner.PROJECTIONS:
            with connection.cursor() as cursor:
                cursor.execute("CHECKPOINT")
            costs.setdefault(f"rebuild {name}", []).append(_cost(postgres, partial(rebuild, url, name)))
    return costs


def _cost(postgres: psutil.Process, work: Callable[[], object]) -> Cost:
    before, start_s = cpu_s(postgres), time.perf_counter()
    work()
    seconds = time.perf_counter() - start_s
    time.sleep(0.3)  # a backend reports its CPU time when it has ended
    return Cost(seconds, cpu_s(postgres) - before)


def _followed(connection: Connection, url: str, kinds: str, members: int) -> float:
    """Return rows per second of folds like a worker's: of one batch each, and of all projections together."""
    seconds = 0.0
    with closing(runner.connect_to_project(url)) as following:
        for number in range(FOLDS):
            _fill(connection, kinds, members, ROWS + number * FOLDED_AT_ONCE, FOLDED_AT_ONCE)
            start_s = time.perf_counter()
            folded = runner.catch_up(following)
            seconds += time.perf_counter() - start_s
            assert folded == FOLDED_AT_ONCE * len(runner.PROJECTIONS)  # or something else was measured
    return FOLDED_AT_ONCE * FOLDS / seconds


def _report(costs: dict[str, list[Cost]], followed: float) -> None:
    floor_s = statistics.median(cost.seconds for cost in costs[_FLOOR_NAME])
    for name, rounds in costs.items():
        seconds = statistics.median(cost.seconds for cost in rounds)
        cpu_us = statistics.median(cost.cpu_s for cost in rounds) / ROWS * 1e6
        print(
            f"  {name:24s} {ROWS / seconds:12,.0f} rows/s  {floor_s / seconds:7.0%} of the floor  "
            f"{cpu_us:6.2f} µs of CPU a row"
        )
    print(f"  {'folded as it comes, all':24s} {followed:12,.0f} rows/s  {followed * floor_s / ROWS:7.1%} of the floor")


if __name__ == "__main__":
    main()
