"""Measure the floor: consume, decode and COPY the same bytes and rows, with no engine in between.

It leaves out everything that Guerdon adds: rules, state, duplicates, hashes, offsets in the transaction, projections.
It prints one JSON object: events, seconds, CPU microseconds per event.
"""

from __future__ import annotations

import json
import sys
import time
from struct import Struct

import psycopg2
from confluent_kafka import Consumer, TopicPartition

from engine.store.logs.binary_copy import NULL, copy_rows, pack_bytes, pack_text, timestamp_us
from engine.store.logs.hash_chain import REWARD_COLUMNS, SOURCE_COLUMNS, event_fields, lot_and_times, posting_fields
from operations.settings import load_settings
from schemas.codec import CommittedSchemas, Decoder
from schemas.partitioning import shard_of
from schemas.rewards import Posting

ROWS_A_BATCH = 10_000
REWARDS_OF_TEN = (2, 2, 1, 2, 1, 2, 2, 1, 2, 2)
"""1.7 reward rows per event, as by the three rules of the load."""

_HASH = pack_bytes(bytes(32))
_SOURCE = Struct(">hiqiqiqiqiqiiiiih").pack
_REWARD = Struct(">hiqiq").pack
_POSTING = posting_fields(
    Posting(type="points.granted", unit="points", debit="issued", credit="active", rule_id="base", rule_version=1)
)
TABLES = """
DROP TABLE IF EXISTS floor_source, floor_reward;
CREATE TABLE floor_source (LIKE guerdon.source_event INCLUDING CONSTRAINTS, PRIMARY KEY (shard, seq));
CREATE TABLE floor_reward (LIKE guerdon.reward_event INCLUDING CONSTRAINTS, PRIMARY KEY (generation, shard, pos));
"""


def main() -> None:
    """Read the whole topic of purchases once."""
    # all partitions, from the beginning
    settings = load_settings()
    topic = settings.topic_prefix + "purchases"
    consumer = Consumer(
        {
            **settings.kafka_config(), "group.id": "floor", "enable.auto.commit": False,
            "enable.partition.eof": True, "fetch.queue.backoff.ms": 5,
        }
    )  # fmt: skip
    partitions = sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    connection = psycopg2.connect(settings.database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])

    start_s, cpu = time.perf_counter(), time.process_time()
    events = _take(consumer, connection, len(partitions))
    seconds, cpu = time.perf_counter() - start_s, time.process_time() - cpu
    consumer.close()

    with connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE floor_source, floor_reward")
    connection.close()
    json.dump({"events": events, "seconds": seconds, "cpu_us": cpu / events * 1e6}, sys.stdout)


def _take(consumer: Consumer, connection: psycopg2.extensions.connection, partitions_left: int) -> int:
    decoder = Decoder(CommittedSchemas(), bytes_max=1 << 20)
    positions: dict[int, tuple[int, int]] = {}
    shards: dict[str, int] = {}
    events = 0
    source_rows: list[bytes] = []
    reward_rows: list[bytes] = []
    while partitions_left:
        for message in consumer.consume(2_000, 0.1):
            if message.error() is not None:
                partitions_left -= 1
                continue

            # decode
            value = message.value() or b""
            schema_id, event = decoder.decode("purchases", value)
            member_id, order_id = event.member_id, event.order_id  # type: ignore[attr-defined]
            shard = shards.get(member_id)
            if shard is None:
                shard = shards[member_id] = shard_of(member_id)

            # pack a source row and its reward rows
            seq, pos = positions.get(shard, (0, 0))
            seq += 1
            at_us = timestamp_us(event.occurred_at)
            member, event_id = pack_text(member_id), pack_text(event.event_id)
            source_rows.append(
                _SOURCE(
                    len(SOURCE_COLUMNS), 8, seq, 8, 0, 8, at_us, 8, at_us, 8, message.offset() or 0,
                    4, message.partition() or 0, 4, schema_id, 2, shard,
                )
                + pack_text("purchase") + member + pack_text(event.source) + event_id + pack_bytes(value) + NULL + _HASH
            )  # fmt: skip
            for _ in range(REWARDS_OF_TEN[events % 10]):
                pos += 1
                reward_rows.append(
                    _REWARD(len(REWARD_COLUMNS), 8, pos, 8, 45)
                    + event_fields((seq, at_us, at_us, shard), member + event_id + pack_text(order_id))
                    + _POSTING + _HASH + lot_and_times(None, event.occurred_at, None) + _HASH
                )  # fmt: skip
            positions[shard] = (seq, pos)
            events += 1

        # write a batch
        if len(source_rows) >= ROWS_A_BATCH or not partitions_left:
            with connection, connection.cursor() as cursor:
                copy_rows(cursor, f"floor_source ({', '.join(SOURCE_COLUMNS)})", source_rows)
                copy_rows(cursor, f"floor_reward ({', '.join(REWARD_COLUMNS)})", reward_rows)
            source_rows.clear()
            reward_rows.clear()
    return events


if __name__ == "__main__":
    main()
