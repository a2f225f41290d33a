"""Measure `balance_as_of` and `tier_as_of` for a member with 10,000 rewards, and the cost of their index to writers.

A part of `make bench`.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import psycopg2
from msgspec import structs

from bench import load
from bench.databases import Share, fresh, server, write_share
from bench.replay import decode_us
from engine.intake.batch import admitted_from
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from schemas.codec import CommittedSchemas, Encoder
from schemas.partitioning import shard_of
from schemas.writer_schemas import committed_ids

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

LOG = 1_200_000
GRANTS = 10_000
OTHERS = 50_000
RUNS = 21
EVENTS = 150_000
MEMBERS = (20_000, 200_000)
BATCH = 2_000
WORKERS = 2
ROUNDS = 4
BUSY = "busy"
PROGRAMME = load.PROGRAMME.replace(
    "rules:",
    "points: {validity: 12mo}\n"
    "tiers: {metric: status, window: rolling 90d, levels: [{id: low, from: 0}, {id: high, from: 1000}]}\n"
    "rules:\n- {id: status, on: purchase, give: [{status: 10}]}",
)
FILL = """
INSERT INTO guerdon.reward_event_g1
    (pos, seq, amount, occurred_at, recorded_at, available_at, expires_at, generation, shard, type, unit, debit, credit,
     rule_id, rule_version, member_id, event_id, order_id, reward_key, lot, hash)
SELECT n + 10, n + 10, 10, at, at, granted_at, CASE WHEN unit = 'points' THEN granted_at + interval '1 year' END, 1,
       %(shard)s, kind, unit, debit, credit,
       'base', 1, CASE WHEN n %% %(every)s = 0 THEN %(busy)s ELSE 'member-' || n::bigint * 7919 %% %(others)s END,
       'e' || n, 'o' || n, sha256(n::text::bytea), lot, sha256(n::text::bytea)
FROM (
    SELECT n, CASE WHEN n / %(every)s %% 12 = 0 THEN 'status' ELSE 'points' END AS unit,
           timestamptz '2030-01-01 00:00:00Z' + n * interval '20 seconds' AS at,
           timestamptz '2030-01-01 00:00:00Z' + (n - spent * %(every)s) * interval '20 seconds' AS granted_at,
           CASE WHEN n / %(every)s %% 12 = 0 THEN 'status.granted' WHEN spent = 0 THEN 'points.granted'
                WHEN spent = 1 THEN 'points.reserved' ELSE 'points.captured' END::guerdon.reward_type AS kind,
           CASE spent WHEN 0 THEN 'issued' WHEN 1 THEN 'active' ELSE 'reserved' END::guerdon.account AS debit,
           CASE spent WHEN 0 THEN 'active' WHEN 1 THEN 'reserved' ELSE 'spent' END::guerdon.account AS credit,
           CASE WHEN spent > 0 THEN sha256((n - spent * %(every)s)::text::bytea) END AS lot
    FROM (SELECT n, greatest(n / %(every)s %% 12 - 9, 0) AS spent FROM generate_series(1, %(log)s) AS n) AS counted
) AS made
"""
"""Of twelve rewards of the busy member, nine are grants of points, one is of status, and two spend a grant."""

ASKED = {
    "at the end of the log": ("2030-10-06T00:00:00Z", "infinity"),
    "half of it effective": ("2030-05-20T00:00:00Z", "infinity"),
    "half of it known": ("2030-10-06T00:00:00Z", "2030-05-20T00:00:00Z"),
    "in a year, half of it expired": ("2031-05-20T00:00:00Z", "infinity"),
}


def main() -> None:
    """Print the milliseconds of each query, and the rate of writers with and without the index, in turns."""
    print(f"decoding a purchase, to compare machines and days: {decode_us():.1f} µs")
    with server() as address:
        _ask(fresh(address, "asked", PROGRAMME))
        for members in MEMBERS:
            _write(address, members)


def _ask(url: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        _join(url)
        every = LOG // (GRANTS * 12 // 10)
        cursor.execute(FILL, {"shard": shard_of(BUSY), "every": every, "busy": BUSY, "others": OTHERS, "log": LOG})
        cursor.execute("VACUUM ANALYZE")
        rows = one(cursor, "SELECT count(*), count(lot) FROM guerdon.reward_event WHERE member_id = %s", (BUSY,))
        print(
            f"one of {OTHERS:,} members, with {rows[0] - rows[1]:,} grants and {rows[1]:,} movements, of {LOG:,} rows:"
        )
        for function, rows in (("balance_as_of", 2), ("tier_as_of", 1)):
            for name, times in ASKED.items():
                wall, cpu = zip(*(_took_ms(cursor, function, times, rows) for _ in range(RUNS)), strict=True)
                print(
                    f"  {function:14s} {name:30s} {statistics.median(wall):7.1f} ms, {max(wall):.1f} at most; "
                    f"{statistics.mean(cpu):.1f} ms of PostgreSQL's CPU"
                )


def _join(url: str) -> None:
    """Give the busy member a state by one purchase at the beginning."""
    event = structs.replace(next(load.purchases(1, 1)), member_id=BUSY)
    value = Encoder().encode(event)
    with closing(LiveTransaction(url, CommittedSchemas().lookup)) as live:
        live.commit(Batch([admitted_from(event, shard_of(BUSY), committed_ids()["Purchase"], value, b"secret")]))


def _took_ms(cursor: Cursor, function: str, times: tuple[str, str], rows: int) -> tuple[float, float]:
    """Return the wall time of a query, and the server's CPU time, which depends less on how busy the machine is."""
    server_process = psutil.Process(cursor.connection.info.backend_pid)
    start_s, cpu = time.perf_counter(), sum(server_process.cpu_times()[:2])
    cursor.execute(f"SELECT * FROM reward.{function}(%s, %s, %s)", (BUSY, *times))
    assert cursor.rowcount == rows, cursor.fetchall()  # or something else was measured
    spent = sum(server_process.cpu_times()[:2]) - cpu
    return (time.perf_counter() - start_s) * 1000, spent * 1000


def _write(address: str, members: int) -> None:
    print(f"\n{WORKERS} workers, {EVENTS:,} purchases of {members:,} members, {ROUNDS} rounds in turns:")
    rounds: dict[str, list[tuple[float, float]]] = {"without the index": [], "with the index": []}
    for number in range(ROUNDS):
        for kind, results in rounds.items():
            results.append(_round(address, f"b{members}_{number}_{len(kind)}", members, kind))
    for kind, results in rounds.items():
        rate, wal = (statistics.median(values) for values in zip(*results, strict=True))
        print(f"  {kind:30s} {rate:10,.0f} events/s {wal:8,.0f} bytes of WAL per event")


def _round(address: str, name: str, members: int, kind: str) -> tuple[float, float]:
    """Return events per second, and bytes of WAL per event, of a fresh database."""
    url = fresh(address, name, load.PROGRAMME)
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        if kind == "without the index":
            cursor.execute("DROP INDEX guerdon.reward_event_g1_member")
        (before,) = one(cursor, "SELECT pg_current_wal_lsn()")
        with ProcessPoolExecutor(WORKERS) as pool:
            seconds = max(pool.map(_work, [url] * WORKERS, range(WORKERS), [members] * WORKERS))
        (wal,) = one(cursor, "SELECT pg_current_wal_lsn() - %s", (before,))
    return EVENTS / seconds, float(wal) / EVENTS


def _work(url: str, number: int, members: int) -> float:
    return write_share(url, Share(number, WORKERS), load.purchases(EVENTS, members), BATCH)[0]


if __name__ == "__main__":
    main()
