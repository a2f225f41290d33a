"""Measure one tick over a shard with a million members, a thousand of them due; a part of `make bench`."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2

from engine.evaluate import TICK_MEMBERS_MAX, fold
from engine.intake.batch import ClockMove
from engine.ledger.memory.books import MemoryBooks
from engine.live.batch import Batch
from engine.live.ticks import DUE
from engine.live.transaction import LiveTransaction
from engine.member.state import MemberState
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from engine.programme.rules.occurrence import Occurrence
from engine.store import programmes
from engine.store.database import migrate, transaction
from engine.store.logs.binary_copy import pack_text
from engine.store.members import member_states
from engine.store.members.member_states import Member
from operations.services.postgresql import LocalPostgres
from schemas.canonical import event_identity
from schemas.codec import CommittedSchemas
from schemas.events import Purchase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.programme.compile.module import CompiledJudge

SHARD = 17
MEMBERS = 1_000_000
ROUNDS = 5
START_MS = 1_714_521_600_000
DAY_MS = 86_400_000
PROGRAMME = """\
schema: guerdon/1
programme: ticks
timezone: Europe/Berlin
currency: EUR
points: {validity: 12mo}
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}], hold: 14d}
"""
TABLES = ("member_state", "member_ledger", "source_event", "reward_event_g1", "shard_head", "generation_head")
COUNTS = """
SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0), n_tup_ins, n_tup_upd
FROM pg_stat_user_tables WHERE relname = ANY(%s)
"""


def main() -> None:
    """Fill a shard, tick it a few times, and print the plan of the look-up, the rows touched and the times."""
    home = Path(tempfile.mkdtemp(prefix="guerdon-bench-"))
    home.chmod(0o711)  # PostgreSQL, where root starts it, runs as another user
    server = LocalPostgres(home)
    try:
        url = server.start().address
        migrate(url)
        _fill(url)
        _tick(url)
        _activate(url)
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


def _fill(url: str) -> None:
    loaded = load_programme(PROGRAMME, "ticks").programme
    assert loaded is not None  # it is this module's own
    judge = compile_programme(loaded, 1)
    start_s = time.monotonic()
    with transaction(url) as cursor:
        programmes.activate(cursor, loaded, PROGRAMME, "ticks.yaml")
        member_states.prepare(cursor)
        due = list(_members_with_a_hold(judge, ROUNDS * TICK_MEMBERS_MAX))
        member_states.save(cursor, due, {})
        cursor.execute(
            """
            INSERT INTO guerdon.member_state (shard, member_id, seq, state, due_at)
            SELECT m.shard, 'other-' || n, m.seq, m.state, m.due_at + interval '200 days' + n * interval '10 seconds'
            FROM generate_series(1, %s) AS n,
                 (SELECT * FROM guerdon.member_state WHERE shard = %s ORDER BY member_id LIMIT 1) AS m
            """,
            (MEMBERS - len(due), SHARD),
        )
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("VACUUM ANALYZE guerdon.member_state")
        cursor.execute("CHECKPOINT")
    print(f"{MEMBERS:,} members of one shard filled in {time.monotonic() - start_s:.0f} s")


def _members_with_a_hold(judge: CompiledJudge, count: int) -> Iterator[Member]:
    """Yield members with a purchase on hold; a thousand are due each day."""
    for number in range(count):
        member_id = f"due-{number}"
        at_ms = START_MS + number // TICK_MEMBERS_MAX * DAY_MS + number % TICK_MEMBERS_MAX
        event = Purchase(
            event_id=member_id, member_id=member_id, occurred_at=at_ms, order_id="o", currency="EUR", amount=4_200
        )
        state, books = MemberState(), MemoryBooks({1: judge}.__getitem__)
        books.record(event, 1)
        fold(state, event, Occurrence(event_identity("default", member_id), 1, at_ms), judge, books)
        yield Member(member_id, SHARD, pack_text(member_id), 1, state)


def _tick(url: str) -> None:
    times = []
    for day in range(ROUNDS):
        until_ms = START_MS + (14 + day) * DAY_MS + TICK_MEMBERS_MAX
        if not day:
            _explain(url, until_ms)
        before = _counts(url)
        with closing(LiveTransaction(url, CommittedSchemas().lookup)) as live:
            start_s = time.perf_counter()
            outcome = live.commit(Batch(clock=ClockMove(until_ms, everywhere=True)))
            times.append(time.perf_counter() - start_s)
        assert (outcome.ticks, outcome.rewards) == (1, TICK_MEMBERS_MAX)  # or something else was measured
        if not day:
            _print_touched(before, _counts(url))
    shown = ", ".join(f"{seconds * 1000:.0f}" for seconds in times)
    print(f"one tick, {TICK_MEMBERS_MAX:,} members: {statistics.median(times) * 1000:.0f} ms ({shown})")


def _activate(url: str) -> None:
    """Time the activation of a version with other tiers, which makes every member due."""
    body = (
        PROGRAMME + "tiers: {metric: status, window: lifetime, levels: [{id: basic, from: 0}, {id: gold, from: 9}]}\n"
    )
    loaded = load_programme(body, "tiers").programme
    assert loaded is not None
    start_s = time.perf_counter()
    with transaction(url) as cursor:
        programmes.activate(cursor, loaded, body, "tiers.yaml")
    print(f"activation that makes {MEMBERS:,} members due: {time.perf_counter() - start_s:.1f} s")


def _explain(url: str, until_ms: int) -> None:
    with transaction(url) as cursor:
        member_states.prepare(cursor)
        cursor.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {DUE}",
            {"shards": [SHARD], "until_ms": until_ms, "members_max": TICK_MEMBERS_MAX},
        )
        for (line,) in cursor.fetchall():
            print(f"  {line}")


def _counts(url: str) -> dict[str, tuple[int, int, int]]:
    """Return rows read, inserted and updated so far, by table; a session reports its statistics when it ends."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(COUNTS, (list(TABLES),))
        return {table: (read, inserted, updated) for table, read, inserted, updated in cursor.fetchall()}


def _print_touched(before: dict[str, tuple[int, int, int]], after: dict[str, tuple[int, int, int]]) -> None:
    for table in TABLES:
        read, inserted, updated = (now - then for now, then in zip(after[table], before[table], strict=True))
        print(f"  {table:16s} {read:6,} rows read, {inserted:6,} inserted, {updated:6,} updated")


if __name__ == "__main__":
    main()
