"""Measure how much an analyst's long snapshot slows the live path: batches, folds, and PostgreSQL's CPU time.

PostgreSQL keeps every version of every row that was changed since the oldest open transaction began, so a look-up of a
hot row walks past all of them. A writer, a projector and a publisher run as in a worker, but without Kafka: the
publisher sends nothing. Batches are small, as at the tip, and count in a budget. Each measurement has a database of its
own, and nothing runs beside it.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections import Counter
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import psycopg2

from bench.databases import cpu_s, fresh, postmaster, server
from bench.load import PROGRAMME, purchases
from consumers.output.producer import POSITIONS_MAX, SHARDS_MAX
from engine.intake.batch import Admitted, OffsetMove, admitted_from
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import PUBLISHER, connect, transaction
from engine.store.eras import keep_to_keys
from engine.store.kafka import offsets, publication
from operations.setup import projections
from projections.projector import Projector
from schemas.codec import CommittedSchemas, Encoder
from schemas.partitioning import shard_of
from schemas.writer_schemas import committed_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.cursor import Connection

SECONDS = 120
BUCKET_S = 20
RATE = 1_000
MEMBERS = 2_000
BATCH = 20
PARTITIONS = 4
PAUSE_S = 0.05
TABLES_SHOWN = 8
BUDGETED = PROGRAMME.replace(
    "limits: [", "campaign: spring\n  limits: [{max: 1000000000, per: campaign, every: year}, "
)  # fmt: skip


class Seen(NamedTuple):
    """Hold the figures of one stretch of time; `pages` are those that a batch looked at, by table with its indexes."""

    batches: int
    batch_ms: float
    folds: int
    fold_ms: float
    cpu_ms: float
    pages: dict[str, float]


class Folds:
    """Time each fold of the projector, which runs in a thread of its own."""

    def __init__(self) -> None:
        self._begun = 0.0
        self.taken: list[float] = []

    def __call__(self, point: str) -> None:
        """Note a point that the projector passes."""
        if point == "after project commit":
            now = time.perf_counter()
            self.taken.append(now - self._begun)
            self._begun = now
        elif point == "before fold":
            self._begun = time.perf_counter()


class Publishing(threading.Thread):
    """Read unpublished reward events from the log, as often as the projector folds, and send them nowhere."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Read and move the cursors until `stop`."""
        reader = publication.LogReader()
        with closing(connect(self._url, application=PUBLISHER)) as connection, connection.cursor() as cursor:
            keep_to_keys(cursor)
            publication.begin(cursor, 1)
            connection.commit()
            while not self._stop_asked.wait(PAUSE_S):
                name, ranges = publication.lock_ranges(cursor, 1, SHARDS_MAX, POSITIONS_MAX)
                reader.read(cursor, 1, ranges)
                publication.move(cursor, 1, name, ranges)
                connection.commit()

    def stop(self) -> None:
        """End after the round under way."""
        self._stop_asked.set()
        self.join()


def main(seconds: int = SECONDS, rate: int = RATE) -> None:
    """Print both measurements, stretch by stretch, and how much slower the last stretch with a snapshot is."""
    with server() as address:
        measured = {
            name: _measured(address, name, seconds, rate, is_held=is_held)
            for name, is_held in (("control", False), ("snapshot", True))
        }

    # all stretches
    for name, stretches in measured.items():
        print(f"\n{name}: per {BUCKET_S} s, at most {rate:,} events/s in batches of {BATCH}")
        for number, figures in enumerate(stretches, 1):
            print(
                f"  {number * BUCKET_S:5d} s  {figures.batches:6,} batches of {figures.batch_ms:6.2f} ms  "
                f"{figures.folds:6,} folds of {figures.fold_ms:6.2f} ms  "
                f"{figures.cpu_ms:6.2f} ms of PostgreSQL's CPU a batch"
            )

    # the last ones beside each other
    last = {name: stretches[-1] for name, stretches in measured.items()}
    print(
        f"\nin the last stretch: {last['snapshot'].batches / last['control'].batches:.0%} of the batches, "
        f"{last['snapshot'].folds / last['control'].folds:.0%} of the folds, "
        f"{last['snapshot'].cpu_ms / last['control'].cpu_ms:.0%} of the CPU a batch"
    )
    for name, stretches in measured.items():
        first, last_pages = stretches[0].pages, stretches[-1].pages
        print(f"\n{name}: table, pages looked at a batch in the first stretch and in the last")
        for table in sorted(last_pages, key=lambda each: -last_pages[each])[:TABLES_SHOWN]:
            print(f"  {table:20s} {first.get(table, 0):10,.1f} {last_pages[table]:10,.1f}")


def _measured(address: str, name: str, seconds: int, rate: int, *, is_held: bool) -> list[Seen]:
    url = fresh(address, name, BUDGETED)
    encoder, ids = Encoder(), committed_ids()
    events = purchases(seconds * rate, MEMBERS)
    folds = Folds()
    publishing = Publishing(url)
    projector = Projector(url, pause_s=PAUSE_S, observe=folds)
    with transaction(url) as cursor:
        offsets.add_partitions(cursor, {("t", number): 0 for number in range(PARTITIONS)})
    stretches: list[Seen] = []
    watching = psycopg2.connect(url)
    watching.autocommit = True
    server_process = postmaster(watching)
    with (
        closing(watching),
        closing(LiveTransaction(url, CommittedSchemas().lookup)) as live,
        _held(url) if is_held else nullcontext(),
    ):
        projector.start()
        publishing.start()
        times: list[float] = []
        start_s, number, spent, looked = time.perf_counter(), 0, cpu_s(server_process), _pages(watching)
        next_offset = dict.fromkeys(range(PARTITIONS), 0)
        while (now := time.perf_counter() - start_s) < seconds:
            if now > (len(stretches) + 1) * BUCKET_S:
                cpu = cpu_s(server_process)
                pages = _pages(watching)
                stretches.append(_stretch(times, folds, cpu - spent, pages - looked))
                spent, looked = cpu, pages
            if number * BATCH > now * rate:
                time.sleep(0.001)
                continue
            batch: list[Admitted] = []
            for event in (next(events) for _ in range(BATCH)):
                value = encoder.encode(event)
                batch.append(admitted_from(event, shard_of(event.member_id), ids["Purchase"], value, b"secret"))
            partition = number % PARTITIONS
            for each in batch:
                each.topic, each.partition, each.offset = "t", partition, next_offset[partition]
                next_offset[partition] += 1
            moves = {("t", partition): OffsetMove(next_offset[partition] - BATCH, next_offset[partition], 0)}
            before = time.perf_counter()
            live.commit(Batch(batch, moves=moves))
            times.append(time.perf_counter() - before)
            number += 1
            projector.wake()
        stretches.append(_stretch(times, folds, cpu_s(server_process) - spent, _pages(watching) - looked))
        _print_dead(url, name)
        print(f"  lag of the views at the end: {[row['lag'] for row in projections.listed(url)]}")
        projector.stop()
        publishing.stop()
    return stretches


@contextmanager
def _held(url: str) -> Iterator[None]:
    """Hold a snapshot open, like a reader of a long list."""
    with closing(psycopg2.connect(url)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            one(cursor, "SELECT count(*) FROM reward.member_balance")
            yield


def _stretch(times: list[float], folds: Folds, cpu: float, pages: Counter[str]) -> Seen:
    taken, folds.taken = folds.taken, []
    batches = max(1, len(times))
    figures = Seen(
        len(times), _median_ms(times), len(taken), _median_ms(taken), cpu * 1000 / batches,
        {table: number / batches for table, number in pages.items()},
    )  # fmt: skip
    times.clear()
    return figures


def _median_ms(times: list[float]) -> float:
    return statistics.median(times) * 1000 if times else 0.0


def _pages(connection: Connection) -> Counter[str]:
    """Return how many pages of each table and its indexes were looked at so far."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT relname, heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0)
            FROM pg_statio_user_tables
            """
        )
        return Counter({table: int(pages) for table, pages in cursor.fetchall()})


def _print_dead(url: str, name: str) -> None:
    """Print the tables with the most row versions that only the snapshot sees."""
    time.sleep(1)  # sessions report their statistics once a second
    with transaction(url) as cursor:
        cursor.execute(
            """
            SELECT relname, n_live_tup, n_dead_tup, n_tup_upd, n_tup_hot_upd, pg_relation_size(relid) / 8192
            FROM pg_stat_user_tables WHERE n_tup_upd + n_tup_del > 0 ORDER BY n_dead_tup DESC LIMIT %s
            """,
            (TABLES_SHOWN,),
        )
        print(f"\n{name}: table, live and dead rows, updates, of which HOT, pages")
        for table, live, dead, updated, hot, pages in cursor.fetchall():
            print(f"  {table:20s} {live:10,} {dead:10,} {updated:10,} {hot:10,} {pages:8,}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
