"""Put reward events into the log as a worker does, without the evaluation that leads to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.database import transaction
from engine.store.generations import live_generation
from engine.store.logs import source_log
from engine.store.logs.binary_copy import pack_text
from engine.store.logs.reward_log import PostingFields, RewardRows
from operations.member.decisions import SOURCE
from schemas.events import Decision
from schemas.partitioning import shard_of
from tests.system.batches import admitted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.strategies.movements import Entry


def append(database_url: str, entries: Iterable[Entry]) -> list[int]:
    """Log each entry as one operator's decision, in one transaction, and return when each was recorded, in ms."""
    history = list(entries)
    with transaction(database_url) as cursor:
        generation = live_generation.live(cursor)
        heads = source_log.lock_heads(cursor, [shard_of(entry.member_id) for entry in history], generation)
        recorded_ms = live_generation.now_ms(cursor)
        sources, rewards = source_log.SourceRows(), RewardRows(generation, PostingFields())

        times = []
        for entry in history:
            head = heads[shard_of(entry.member_id)]
            head.record_at(max(head.recorded_ms, recorded_ms))
            event_id = f"d{head.shard}-{head.seq}"
            names = pack_text(entry.member_id), pack_text(SOURCE), pack_text(event_id)
            decision = Decision(
                event_id=event_id, member_id=entry.member_id, occurred_at=recorded_ms, action="adjust", source=SOURCE
            )
            sources.append(admitted(decision), head, 0, b"".join(names), None)
            rewards.append(entry.rewards, head, names[0] + names[2])
            times.append(head.recorded_ms)

        sources.write_events(cursor)
        sources.write_identities(cursor)
        rewards.write(cursor)
        source_log.save_heads(cursor, heads.values(), generation)
    return times
