"""Measure what an event costs until its facts are there: Python's CPU time, and PostgreSQL's beside it.

The events are logged without being judged, as facts ask for no rewards. One log has purchases without lines, the other
one is as a grocery's: nine lines a purchase, and one event of five is a refund, an activity, a share or a redemption.
"""

from __future__ import annotations

import gc
import itertools
import random
import statistics
import time
from contextlib import closing
from threading import Event as Flag
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg2

from bench.databases import cpu_s, fresh, postmaster, server
from bench.load import FIRST_AT_MS, PROGRAMME, STEP_MS, purchases
from engine.intake.batch import admitted_from
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.generations import live_generation
from engine.store.logs import source_log
from engine.store.logs.binary_copy import pack_text
from engine.store.logs.history import keep_schema
from projections.runner import catch_up, connect_to_project, difference, finish, live_builds
from schemas.codec import CommittedSchemas, Encoder
from schemas.events import Activity, Item, Purchase, Redemption, Refund, Share, key_of
from schemas.partitioning import shard_of
from schemas.writer_schemas import committed_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import psutil

    from schemas.events import Event

EVENTS = 100_000
MEMBERS = 20_000
LINES = 9
ARTICLES = 20_000
AT_ONCE = 5_000
"""The events of one transaction that fills a log."""

FOLDED_AT_ONCE = (1_000, 2_000)
"""The events of all shards in one fold at the tip, where a worker takes half as many a second."""

FOLDS = 20


class Cost(NamedTuple):
    """Hold the microseconds an event: of this process's CPU, of PostgreSQL's, and by the clock."""

    python: float
    postgresql: float
    wall: float


def main() -> None:
    """Print the costs of an event: folded from the beginning of a log, verified, and folded as it comes."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)  # as a worker does
    with server() as address:
        for number, (name, load) in enumerate((("purchases without lines", _plain), ("a grocery's", _grocery))):
            url = fresh(address, f"facts_{number}", PROGRAMME)
            with closing(psycopg2.connect(url)) as connection:
                connection.autocommit = True
                postgres, events = postmaster(connection), load()
                for _ in range(EVENTS // AT_ONCE):
                    log(url, itertools.islice(events, AT_ONCE))
                with connection.cursor() as cursor:
                    cursor.execute("VACUUM ANALYZE")
                print(f"{EVENTS:,} events, {name}:")
                whole = _cost(postgres, EVENTS, lambda url=url: finish(url, Flag(), ("source",)))  # type: ignore[misc]
                _report("the whole log", whole)
                _report("verified", _cost(postgres, EVENTS, lambda url=url: _verify(url)))  # type: ignore[misc]
                with connection.cursor() as cursor:
                    (size,) = one(cursor, _SIZE)
                print(f"  {size / EVENTS:,.0f} bytes an event in tables and indexes of facts")
                for at_once in FOLDED_AT_ONCE:
                    _report(f"{at_once:,} at once", _followed(postgres, url, events, at_once))


_SIZE = """
SELECT sum(pg_total_relation_size(oid))::float FROM pg_class
WHERE relnamespace = 'guerdon'::regnamespace AND relname ~ '^fact_' AND relkind = 'r'
"""


def _cost(postgres: psutil.Process, events: int, work: Callable[[], object]) -> Cost:
    before, own_s, start_s = cpu_s(postgres), time.process_time(), time.perf_counter()
    work()
    wall_s, own_s = time.perf_counter() - start_s, time.process_time() - own_s
    time.sleep(0.3)  # a backend reports its CPU time when it has ended
    return Cost(own_s / events * 1e6, (cpu_s(postgres) - before) / events * 1e6, wall_s / events * 1e6)


def _verify(url: str) -> None:
    """Compare all facts with the log, as `guerdon verify` does."""
    with transaction(url) as cursor:
        for build in live_builds(cursor, "source"):
            problem = difference(cursor, build)
            assert problem is None, problem


def _followed(postgres: psutil.Process, url: str, events: Iterator[Event], number: int) -> Cost:
    """Return the mean cost of folds like a worker's at the tip; the kernel counts CPU in steps of 10 ms."""
    costs = []
    with closing(connect_to_project(url)) as following:
        for _ in range(FOLDS):
            log(url, itertools.islice(events, number))
            costs.append(_cost(postgres, number, lambda: catch_up(following, log="source")))
    return Cost(*map(statistics.fmean, zip(*costs, strict=True)))


def _report(name: str, cost: Cost) -> None:
    print(
        f"  {name:16s} {cost.python:6.1f} µs of Python's CPU an event, {cost.postgresql:6.1f} µs of PostgreSQL's, "
        f"{cost.wall:6.1f} µs by the clock"
    )


def log(url: str, events: Iterable[Event]) -> None:
    """Log events in one transaction, without judging them."""
    encoder, ids = Encoder(), committed_ids()
    admissions = [
        admitted_from(event, shard_of(key_of(event)), ids[type(event).__name__], encoder.encode(event), b"secret")
        for event in events
    ]
    with transaction(url) as cursor:
        for schema_id in set(ids.values()):
            keep_schema(cursor, schema_id, CommittedSchemas().lookup(schema_id) or "")
        generation = live_generation.live(cursor)
        heads = source_log.lock_heads(cursor, [event.shard for event in admissions], generation)
        sources = source_log.SourceRows()
        for event in admissions:
            names = b"".join(map(pack_text, (event.member_id, event.event.source, event.event.event_id)))
            sources.append(event, heads[event.shard], 0, names, None)
        sources.write_events(cursor)
        source_log.save_heads(cursor, heads.values(), generation)


def _plain() -> Iterator[Event]:
    return purchases(2 * EVENTS, MEMBERS)


def _grocery() -> Iterator[Event]:
    """Yield a grocery's events; a refund names an order that came before."""
    chance = random.Random(5)  # noqa: S311  a load, not a secret
    bought: list[tuple[str, str]] = []
    for number in itertools.count():
        member_id = f"member-{chance.randrange(MEMBERS):06d}"
        head: dict[str, Any] = {"event_id": f"g{number}", "member_id": member_id}
        head["occurred_at"] = FIRST_AT_MS + number * STEP_MS
        drawn = chance.random()
        if drawn < 0.8 or not bought:
            yield _basket(chance, head, number)
            bought.append((member_id, f"order-{number}"))
        elif drawn < 0.85:
            owner, order_id = chance.choice(bought)
            yield Refund(**(head | {"member_id": owner}), order_id=order_id, refund_id=f"r{number}", amount=50)
        elif drawn < 0.9:
            yield Activity(**head, kind="survey", score=chance.randrange(11))
        elif drawn < 0.95:
            yield Share(**head, object="leaflet", channel="mail")
        else:
            yield Redemption(**head, action="spend", redemption_id=f"d{number}", amount=100)


def _basket(chance: random.Random, head: dict[str, Any], number: int) -> Purchase:
    items = tuple(
        Item(
            line_id=str(line), sku=f"sku-{chance.randrange(ARTICLES)}", quantity=str(chance.randrange(1, 4)),
            amount=chance.randrange(50, 900), category=f"category-{chance.randrange(300)}", brand="national",
        )
        for line in range(1, LINES + 1)
    )  # fmt: skip
    amount = sum(item.amount for item in items)
    return Purchase(
        **head, order_id=f"order-{number}", currency="USD", amount=amount, gross=amount + 100, store="s-17", items=items
    )


if __name__ == "__main__":
    main()
