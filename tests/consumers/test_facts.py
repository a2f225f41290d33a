"""A worker folds facts beside its work: they are those of a rebuild, they let events go first, and they can be off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from consumers.health.watch import Watch
from engine.store import workers
from engine.store.database import transaction
from engine.store.workers import Pulse
from operations.intake.lag import OFF, lag_rows
from operations.setup import projections
from projections.projector import Projector
from projections.rebuild import rebuild
from tests.models.oracle import assert_whole
from tests.projections.facts.stored import tables
from tests.strategies.source_histories import append
from tests.system.batches import purchase
from tests.system.load import PROGRAMME_OF_LEDGER, Load, activate, make_topics, publish
from tests.system.workers import catch_up, eventually, running

if TYPE_CHECKING:
    from operations.settings import Settings

EVENTS = 2_000


def row_of_facts(settings: Settings) -> dict[str, Any]:
    return next(row for row in lag_rows(settings) if row["what"] == "facts")


@pytest.mark.kafka
def test_facts_that_came_over_kafka_are_those_of_a_rebuild(settings: Settings) -> None:
    make_topics(settings)
    activate(settings.database_url, PROGRAMME_OF_LEDGER)
    load = Load(members=60, ledger=True).fill(EVENTS)
    publish(settings, load.messages[:EVENTS])
    with running(settings):
        eventually(lambda: any(tables(settings.database_url).values()), "the first facts of a worker that goes on")
    publish(settings, load.messages[EVENTS:])
    catch_up(settings)
    assert_whole(settings, load.messages)

    incremental = tables(settings.database_url)
    assert all(incremental[name] for name in ("fact_purchase", "fact_refund", "fact_redemption", "fact_member"))
    rebuild(settings.database_url, "facts")
    assert tables(settings.database_url) == incremental


@pytest.mark.kafka
def test_facts_that_are_off_stand_and_are_folded_when_they_are_on_again(settings: Settings) -> None:
    make_topics(settings)
    activate(settings.database_url)
    load = Load(members=5).fill(100)
    publish(settings, load.messages)
    off = settings.model_copy(update={"facts": False})
    summary = catch_up(off)
    assert (summary.live_s is not None, summary.facts_s) == (True, None)
    row = row_of_facts(off)
    assert (row["lag"] > 0, row["unit"], row["stopped"]) == (True, "source events", OFF)
    assert not any(tables(settings.database_url).values())

    summary = catch_up(settings)
    assert summary.facts_s is not None
    row = row_of_facts(settings)
    assert (row["lag"], row["stopped"]) == (0, "")
    assert projections.difference(settings.database_url, "facts") is None


@pytest.mark.kafka
def test_status_says_what_facts_wait_for(settings: Settings) -> None:
    make_topics(settings)
    watch = Watch(settings)
    watch.lags = {("purchases", 0): 70, ("shares", 0): 31}
    assert watch.backlog(101) is None
    sentence = watch.backlog(100)
    assert sentence == "they wait until 101 events are taken"
    with transaction(settings.database_url) as cursor:
        workers.beat(cursor, Pulse("w", "g", "1", 0, 0, None, "", None, None, None, facts_wait=sentence))
    assert row_of_facts(settings)["stopped"] == sentence


@pytest.mark.postgres
def test_a_projector_folds_nothing_while_something_comes_first(database_url: str) -> None:
    append(database_url, [purchase(1)])
    waits: list[str] = ["events wait"]
    asked: list[bool] = []

    def waits_for() -> str | None:
        asked.append(True)
        return waits[0] if waits else None

    projector = Projector(database_url, log="source", idle_s=0.01, waits_for=waits_for)
    projector.start()
    try:
        eventually(lambda: len(asked) > 3, "the projector asks again and again")
        assert not any(tables(database_url).values())
        assert projector.wait == "events wait"
        waits.clear()
        eventually(lambda: len(tables(database_url)["fact_purchase"]) == 1, "the fold")
    finally:
        projector.stop()
