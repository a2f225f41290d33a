"""Let what is forwarded take its place in time among the events of a batch."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.intake.own_events import Forwarded

    Pair = tuple[int, int]


class Drained(NamedTuple):
    """Hold a forwarded event for a shard, with its sender's place; `turn_ms` is when, by its sender's own order."""

    turn_ms: int
    shard: int
    from_shard: int
    from_seq: int
    n: int
    event: Forwarded


class Turns:
    """Queue what was forwarded to shards whose heads are held, by time; each sender's keeps its own order.

    Args:
        drained: what other transactions have forwarded.
        overtaken: pairs of shards (to, from) of which something waits that is not here: what the batch itself forwards
            between them must wait behind it. None: nothing that the batch forwards is taken in.
    """

    def __init__(self, drained: Iterable[Drained], overtaken: set[Pair] | None) -> None:
        self._queue = list(drained)
        heapify(self._queue)
        self._overtaken = None if overtaken is None else set(overtaken)
        self._latest: dict[Pair, int] = {}
        for each in self._queue:
            pair = (each.shard, each.from_shard)
            self._latest[pair] = max(self._latest.get(pair, 0), each.turn_ms)

    def add(self, shard: int, place: Pair, n: int, event: Forwarded, *, is_here: bool) -> bool:
        """Queue what the batch itself forwards from a place to a shard; False: it is to wait in the table.

        `is_here` says that the batch holds the shard's head, and has read the member.
        """
        pair = (shard, place[0])
        if self._overtaken is None or pair in self._overtaken:
            return False
        if not is_here:
            self._overtaken.add(pair)
            return False
        turn_ms = self._latest[pair] = max(self._latest.get(pair, 0), event.occurred_at)
        heappush(self._queue, Drained(turn_ms, shard, *place, n, event))
        return True

    def until(self, at_ms: int) -> Iterator[Drained]:
        """Take out, in order, what has its turn by an instant; what is added meanwhile, too."""
        while self._queue and self._queue[0].turn_ms <= at_ms:
            yield heappop(self._queue)
