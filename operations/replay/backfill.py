"""Activate a programme whose new metrics are counted from the first event on."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from engine.history.backfill import Backfill
from engine.programme.rules.kept_facts import reads_only_its_event
from engine.store import programmes
from engine.store.database import NO_LIMIT, transaction
from engine.store.generations import live_generation, shadows
from operations.replay.run import connect_to_replay
from operations.replay.shard_pool import seldom_collected
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.programme.conditions import Metric
    from engine.programme.model import Programme
    from engine.store.cursor import Connection, Cursor

NEAR_EVENTS = 2_000
"""When fewer events than this are left, workers wait while the rest is folded."""


class File(NamedTuple):
    """Hold a programme file's text and name."""

    body: str
    name: str


def check(cursor: Cursor, metrics: Sequence[Metric]) -> None:
    """Refuse metrics whose past cannot be counted, and any metric while shadows have folded the past without it.

    Raises:
        AnswerIsNo: with the reason.
    """
    # the past must be countable, and not counted in part
    live = live_generation.writable(cursor)
    counted = programmes.metrics_known(cursor, live)
    for metric in metrics:
        name = metric_name(metric)
        if not reads_only_its_event(metric):
            raise AnswerIsNo(
                f"{name} counts by what was known of the member (history, balance, tier, held rewards and so on), and "
                "that is not kept of the past; let it begin empty with --from-now, or count by the event alone"
            )
        if metric.key in counted:
            raise AnswerIsNo(
                f"{name} was counted by an earlier version from its activation on; give the metric another name to "
                "count it from the start"
            )

    # no shadow may lack it
    cursor.execute("SELECT generation FROM guerdon.generation WHERE status = 'shadow' ORDER BY generation")
    shadows_ = [str(number) for (number,) in cursor.fetchall()]
    if shadows_:
        raise AnswerIsNo(
            f"generation {', '.join(shadows_)} has folded the past without these metrics; `guerdon discard` it first, "
            "and replay again after the activation"
        )


def metric_name(metric: Metric) -> str:
    """Return a metric's name in a programme."""
    return f"history.{metric.key.rpartition(':')[0]}"


def activate_with_past(
    database_url: str,
    programme: Programme,
    file: File,
    metrics: Sequence[Metric],
    report: Callable[[int, int], None] = lambda _done, _total: None,
    observe: Callable[[str], None] = lambda _point: None,
) -> int:
    """Count metrics from the first event on, and activate the programme with them; return its version.

    All members are in this process's memory meanwhile. Workers wait only for the last events and the writing.

    Args:
        database_url: the address of Guerdon's database.
        programme: the programme to activate.
        file: its text and its name.
        metrics: its new metrics.
        report: called with how many source events are folded, and how many there are.
        observe: called with the name of each step.

    Raises:
        AnswerIsNo: a metric's past cannot be counted, or the programme cannot be activated.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with closing(connect_to_replay(database_url)) as reading, seldom_collected():
        # one fold for each shard
        with reading, reading.cursor() as cursor:
            check(cursor, metrics)
            live = live_generation.live(cursor)
            folds = [Backfill(reading.cursor(), live, shard, metrics) for shard in shadows.positions(cursor, live)]

        _follow(reading, live, folds, report)

        # fold the rest and write all of it, while nobody evaluates
        observe("before activation")
        with transaction(database_url, statement_max=NO_LIMIT) as cursor:

            def join(heads: dict[int, int]) -> None:
                check(cursor, metrics)
                if live_generation.live(cursor) != live:
                    raise AnswerIsNo("another generation has become live meanwhile; run the same command again")
                with reading:
                    for fold in folds:
                        fold.advance(heads[fold.number])
                for fold in folds:
                    fold.join(cursor)
                report(sum(heads.values()), sum(heads.values()))
                observe("after join")

            keys = [metric.key for metric in metrics]
            version = programmes.activate(cursor, programme, *file, backfilled=keys, join=join)
            observe("before commit")
        return version


def _follow(reading: Connection, live: int, folds: Sequence[Backfill], report: Callable[[int, int], None]) -> None:
    """Advance the folds until they are near the live heads, while workers go on."""
    while True:
        with reading, reading.cursor() as cursor:
            upto = shadows.positions(cursor, live)
            if sum(upto[fold.number] - fold.seq for fold in folds) <= NEAR_EVENTS:
                return
            for fold in folds:
                fold.advance(upto[fold.number])
                report(sum(each.seq for each in folds), sum(upto.values()))
