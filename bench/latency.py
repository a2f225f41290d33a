"""Measure how long it takes from the producer's call until a balance shows an event, while a load goes on."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2
from confluent_kafka import Producer

from bench.load import purchases
from schemas.codec import Encoder
from schemas.events import Purchase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Event

    from operations.settings import Settings

PROBE_EVERY_S = 0.05
LOOK_EVERY_S = 0.002
VISIBLE_WITHIN_S = 30.0
SLICE_S = 0.02
WARM_UP_S = 4.0
"""The load's process starts, and its first events meet a cold worker: that is not the load that is asked about."""


def visible_after_s(settings: Settings, rate_per_s: int, members: int, seconds: float) -> list[float]:
    """Publish at `rate_per_s` for `seconds`, and return for each probe how long its member's balance took to appear.

    A worker must be running. A probe is the first purchase of a member of its own, so its row in the view is new.
    """
    with loaded(settings, rate_per_s, members):
        return _probe(settings, seconds)


@contextmanager
def loaded(settings: Settings, rate_per_s: int, members: int) -> Iterator[None]:
    """Publish at `rate_per_s` while the block lasts, which begins once the worker is warm."""
    context = multiprocessing.get_context("spawn")  # the load must not take the interpreter from the probes
    stop = context.Event()
    load = context.Process(target=_load, args=(settings, rate_per_s, members, stop))
    load.start()
    try:
        time.sleep(WARM_UP_S)
        yield
    finally:
        stop.set()
        load.join()


def _probe(settings: Settings, seconds: float) -> list[float]:
    producer, encoder = _producer(settings, linger_ms=0), Encoder()
    connection = psycopg2.connect(settings.database_url)
    connection.autocommit = True
    took: list[float] = []
    end = time.perf_counter() + seconds
    with connection.cursor() as cursor:
        while time.perf_counter() < end:
            # send a purchase of a new member
            start_s = time.perf_counter()
            probe = f"probe-{time.time_ns()}"
            _send(producer, encoder, settings, _now(probe, probe))
            producer.poll(0)

            # look until the view shows it
            while time.perf_counter() - start_s < VISIBLE_WITHIN_S:
                cursor.execute("SELECT 1 FROM reward.member_balance WHERE member_id = %s", (probe,))
                if cursor.fetchone():
                    break
                time.sleep(LOOK_EVERY_S)
            took.append(time.perf_counter() - start_s)
            time.sleep(PROBE_EVERY_S)
    producer.flush()
    connection.close()
    return took


def _load(settings: Settings, rate_per_s: int, members: int, stop: Event) -> None:
    """Publish in slices of 20 ms; a late slice is larger, so that the rate is right on average."""
    producer, encoder = _producer(settings, linger_ms=10), Encoder()
    events = purchases(1 << 40, members, prefix=f"live-{time.time_ns()}-")
    start_s, sent = time.perf_counter(), 0
    while not stop.is_set():
        due = int((time.perf_counter() - start_s) * rate_per_s)
        for _ in range(due - sent):
            event = next(events)
            _send(producer, encoder, settings, _now(event.event_id, event.member_id))
        sent = max(sent, due)
        producer.poll(0)
        time.sleep(SLICE_S)
    producer.flush()


def _now(event_id: str, member_id: str) -> Purchase:
    return Purchase(
        event_id=event_id, member_id=member_id, occurred_at=time.time_ns() // 1_000_000,
        order_id=event_id, currency="USD", amount=4_500, channel="app", store="s-17",
    )  # fmt: skip


def _producer(settings: Settings, linger_ms: int) -> Producer:
    return Producer({**settings.kafka_config(), "partitioner": "murmur2_random", "linger.ms": linger_ms, "acks": "all"})


def _send(producer: Producer, encoder: Encoder, settings: Settings, event: Purchase) -> None:
    producer.produce(settings.topic_prefix + "purchases", value=encoder.encode(event), key=event.member_id)
