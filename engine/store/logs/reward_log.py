"""Append to the reward log of one generation."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

from engine.store.cursor import one
from engine.store.logs.binary_copy import copy_rows, pack_text, timestamp_us
from engine.store.logs.hash_chain import (
    CHAINED_AS,
    REWARD_COLUMNS,
    event_fields,
    fields_in,
    lot_and_times,
    posting_fields,
    reward_row,
)
from schemas.rewards import shown_order

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.store.cursor import Cursor
    from engine.store.logs.source_log import Head
    from schemas.rewards import Posting, RewardEvent


class PostingFields:
    """Keep the packed fields of postings, which a rule gives again and again.

    The key is the object's address, because hashing nine fields costs more than packing them. The object itself is kept
    with the fields, so that no other object can get its address.
    """

    def __init__(self) -> None:
        self._packed: dict[int, tuple[Posting, bytes]] = {}

    def of(self, posting: Posting) -> bytes:
        """Return the packed fields of `posting`."""
        entry = self._packed.get(id(posting))
        if entry is None:
            if len(self._packed) > 10_000:
                self._packed.clear()
            entry = self._packed[id(posting)] = (posting, posting_fields(posting))
        return entry[1]


class RewardRows:
    """Collect the rows that one transaction appends to the reward log of `generation`."""

    def __init__(self, generation: int, postings: PostingFields) -> None:
        self._generation = generation
        self._postings = postings
        self._rows: list[bytes] = []
        self._given: list[Posting] = []

    def __len__(self) -> int:
        """Return how many reward events wait to be written."""
        return len(self._rows)

    def append(self, rewards: Iterable[RewardEvent], head: Head, member_and_event: bytes) -> None:
        """Append the rewards of the head's last source event, whose member_id and event_id come packed."""
        # the rewards of one event differ in little: shared fields, and equal lots and times, are packed once
        posting_of, add, previous_hash, pos = self._postings.of, self._rows.append, head.reward_hash, head.pos
        note = self._given.append
        shared: tuple[int, str | None] | None = None
        timed: tuple[bytes | None, int | None, int | None] | None = None
        event = times = b""
        stored: bytes | None = None
        for reward in rewards:
            here = (reward.occurred_at_ms, reward.order_id)
            if shared != here:
                shared = here
                numbers = (head.seq, timestamp_us(here[0]), head.recorded_us, head.shard)
                event = event_fields(numbers, member_and_event + pack_text(shown_order(here[1])))
                if self._generation != CHAINED_AS:
                    stored = fields_in(event, self._generation)

            when = (reward.lot, reward.available_at_ms, reward.expires_at_ms)
            if timed != when:
                timed = when
                times = lot_and_times(*when)

            pos += 1
            row, previous_hash = reward_row(
                previous_hash,
                pos,
                reward.amount,
                event,
                posting_of(reward.posting),
                reward.reward_key,
                times,
                stored=stored,
            )
            add(row)
            note(reward.posting)
        head.reward_hash, head.pos = previous_hash, pos

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the numbers of reward events by type, and of refusals by reason."""
        postings = {id(posting): posting for posting in self._given}
        types: Counter[str] = Counter()
        refusals: Counter[str] = Counter()
        for key, count in Counter(map(id, self._given)).items():
            posting = postings[key]
            types[posting.type] += count
            if posting.type == "reward.refused":
                refusals[posting.reason or ""] += count
        return types, refusals

    def write(self, cursor: Cursor) -> None:
        """Copy the rows into the generation's own partition: routing each row would cost a tenth of the copy."""
        if self._rows:
            copy_rows(cursor, f"guerdon.reward_event_g{self._generation:d} ({', '.join(REWARD_COLUMNS)})", self._rows)


def first_pos(cursor: Cursor, generation: int, shard: int, seq: int) -> int:
    """Return the first position of the reward log whose source event is at `seq` or later, by bisection.

    The log needs no index by seq, because pos and seq rise together.
    """

    def seq_at(pos: int) -> int:
        (source_seq,) = one(
            cursor,
            "SELECT seq FROM guerdon.reward_event WHERE generation = %s AND shard = %s AND pos = %s",
            (generation, shard, pos),
        )
        return int(source_seq)

    (head,) = one(
        cursor, "SELECT pos FROM guerdon.generation_head WHERE generation = %s AND shard = %s", (generation, shard)
    )
    return bisect_left(range(1, head + 1), seq, key=seq_at) + 1
