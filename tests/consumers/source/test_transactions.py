"""What lies behind a producer's open transaction is counted and named, and time does not pass over it.

The same of partitions that are added while workers run: what lies in them may spend what would expire.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from structlog.testing import capture_logs

from consumers import clock
from consumers.clock import Clock
from consumers.source import catching_up, open_transactions
from engine.store.database import ANALYST, transaction
from operations.intake import offsets
from operations.intake.lag import lag_rows
from schemas.errors import AnswerIsNo
from schemas.events import Purchase, Redemption
from tests.strategies.histories import DAY_MS, HOUR_MS
from tests.system.batches import ENCODER, purchase
from tests.system.load import START_MS, Load, activate, make_topics, producer_of, publish
from tests.system.workers import catch_up, eventually, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import Producer

    from operations.settings import Settings

pytestmark = pytest.mark.kafka

PROGRAMME = """\
schema: guerdon/1
programme: short-lived
timezone: UTC
currency: USD
rules:
- {id: spend, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount, round: floor}}]}
points: {validity: 1d}
"""


def bought(member_id: str, at_ms: int) -> Load:
    load = Load(members=1)
    load.add(
        Purchase(
            event_id=f"p-{member_id}", member_id=member_id, occurred_at=at_ms, order_id=f"o-{member_id}",
            currency="USD", amount=10_000,
        ),
        deliveries=1,
    )  # fmt: skip
    return load


SPENT = ENCODER.encode(
    Redemption(
        event_id="r",
        member_id="ann",
        occurred_at=START_MS + 12 * HOUR_MS,
        action="spend",
        redemption_id="r1",
        amount=60,
    )
)


@contextmanager
def open_transaction(settings: Settings) -> Iterator[Producer]:
    """Yield a producer whose transaction is open until the block ends it."""
    producer = producer_of(settings, **{"transactional.id": f"{settings.topic_prefix}till"})
    producer.init_transactions(20)
    producer.begin_transaction()
    yield producer


def accepted(settings: Settings) -> int:
    return sum(row["accepted"] for row in offsets.listed(settings))


def balance(settings: Settings, member_id: str) -> tuple[int, int] | None:
    """Return what the member has and what they spent, as an analyst reads it."""
    with transaction(settings.database_url, role=ANALYST) as cursor:
        cursor.execute(
            "SELECT active, spent FROM reward.member_balance WHERE member_id = %s AND unit = 'points'", (member_id,)
        )
        row: tuple[int, int] | None = cursor.fetchone()
        return row


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Let the clock be read often, and return a list that grows with each time."""
    found: list[None] = []
    read = Clock._time_ms  # noqa: SLF001  no outside tells when the clock was read

    def counted(self: Clock) -> int | None:
        time_ms = read(self)
        found.append(None)
        return time_ms

    monkeypatch.setattr(Clock, "_time_ms", counted)
    monkeypatch.setattr(clock, "READ_EVERY_S", 0.05)
    return found


def look_again(looks: list[None]) -> None:
    """Wait until the clock was read again and its ticks were performed."""
    seen = len(looks)
    eventually(lambda: len(looks) >= seen + 5, "the clock's next looks")


def test_offsets_behind_an_open_transaction_are_counted_and_named_and_run_until_caught_up_does_not_say_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    topic = f"{settings.topic_prefix}purchases"
    publish(settings, bought("ann", START_MS).messages)
    monkeypatch.setattr(open_transactions, "STANDS_S", 0.1)
    monkeypatch.setattr(clock, "READ_EVERY_S", 0.05)
    monkeypatch.setattr(catching_up, "PATIENCE_S", 1.5)
    with open_transaction(settings) as producer:
        producer.produce(topic, ENCODER.encode(purchase(1)), "m1")
        producer.flush(10)
        load = Load(members=1)
        for number in (2, 3, 4):
            load.add(purchase(number), deliveries=1)
        publish(settings, load.messages)
        with capture_logs() as said, running(settings):
            eventually(lambda: "open transaction" in [each["event"] for each in said], "the line about it")
        (line,) = [each for each in said if each["event"] == "open transaction"]
        assert (line["topic"], line["partition"], line["offset"], line["offsets"]) == (topic, 0, 1, 4)
        assert line["since"] >= "2026"
        (row,) = [each for each in offsets.listed(settings) if each["topic"] == topic]
        assert (row["lag"], row["held"], row["held_since"]) == (0, 4, line["since"])
        (row,) = [each for each in lag_rows(settings) if each["what"] == topic]
        assert (row["lag"], row["held"], row["held_since"]) == (0, 4, line["since"])
        sentence = (
            rf"cannot catch up: {topic} partition 0: 4 offsets from 1 on are held by a transaction that is open since "
            rf"{line['since']}; .* then run again"
        )
        with pytest.raises(AnswerIsNo, match=sentence):
            catch_up(settings)
        producer.abort_transaction(20)
    assert catch_up(settings).accepted == 3
    (row,) = [each for each in offsets.listed(settings) if each["topic"] == topic]
    assert (row["lag"], row["held"], row["held_since"]) == (0, 0, None)


def test_points_do_not_expire_while_what_spends_them_waits_for_its_producer_to_commit(
    settings: Settings, looks: list[None]
) -> None:
    make_topics(settings, 1)
    activate(settings.database_url, PROGRAMME)
    publish(settings, bought("ann", START_MS).messages)
    with open_transaction(settings) as producer:
        producer.produce(f"{settings.topic_prefix}redemptions", SPENT, "ann")
        producer.flush(10)
        publish(settings, bought("bob", START_MS + 3 * DAY_MS).messages)
        with running(settings, clock="events"):
            eventually(lambda: accepted(settings) == 2, "both purchases")
            look_again(looks)
            assert balance(settings, "ann") == (100, 0)
            producer.commit_transaction(20)
            eventually(lambda: balance(settings, "ann") == (0, 60), "the spend, and the end of the rest by a tick")


def test_points_do_not_expire_while_what_spends_them_lies_in_a_partition_that_was_added(
    settings: Settings, looks: list[None]
) -> None:
    make_topics(settings, 1)
    activate(settings.database_url, PROGRAMME)
    publish(settings, bought("ann", START_MS).messages)
    topic = f"{settings.topic_prefix}redemptions"
    slow: dict[str, Any] = {"kafka": {"topic.metadata.refresh.interval.ms": "4000"}}
    with running(settings.model_copy(update=slow), clock="events"):
        eventually(lambda: balance(settings, "ann") == (100, 0), "the purchase")
        admin = AdminClient({**settings.kafka_config()})
        admin.create_partitions([NewPartitions(topic, 2)])[topic].result(10)
        producer = producer_of(settings)
        eventually(lambda: len(producer.list_topics(topic, timeout=10).topics[topic].partitions) == 2, "the partition")
        producer.produce(topic, SPENT, "ann", partition=1)
        assert producer.flush(20) == 0
        publish(settings, bought("bob", START_MS + 3 * DAY_MS).messages)
        eventually(lambda: accepted(settings) >= 2, "bob's purchase")
        look_again(looks)
        eventually(lambda: balance(settings, "ann") == (0, 60), "the spend, and the end of the rest by a tick")
