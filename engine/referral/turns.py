"""Give forwarded events their place in time among the events of a batch."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.intake.own_events import Forwarded

    Pair = tuple[int, int]


class Drained(NamedTuple):
    """Hold a forwarded event on its way to a shard."""

    turn_ms: int
    """When it has its turn: its own time, or that of an earlier event of the same sender if that is later."""
    shard: int
    """The shard of the referrer."""
    from_shard: int
    """The shard of the referee."""
    from_seq: int
    """The place of the referee's event in that shard."""
    n: int
    """The index among the events forwarded from that place."""
    event: Forwarded


class Turns:
    """Queue forwarded events for the shards that the batch works on, by time; a sender's events keep their order.

    Args:
        drained: events that other transactions have forwarded.
        overtaken: pairs of shards (to, from) with a waiting event that is not here; the batch's own events
            between them must wait behind it. None: everything that the batch forwards waits.
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
        """Queue an event that the batch itself forwards, or return False: then it must wait in the table.

        Args:
            shard: the shard of the referrer.
            place: shard and seq of the referee's event.
            n: the index among the events forwarded from that place.
            event: the forwarded event.
            is_here: whether the batch has locked the referrer's shard and read the referrer.
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
        """Remove and yield, in order, the events that have their turn by an instant, even those added meanwhile."""
        while self._queue and self._queue[0].turn_ms <= at_ms:
            yield heappop(self._queue)
